//! Some nodes of one cluster, in one process.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use vouch_broker::record::FEATURE_LEVEL;
use vouch_broker::{NotDone, NothingStored, ResourceName};
use vouch_cluster::{GroupMembers, NodeId};
use vouch_consensus::Role;
use vouch_node::{ClusterToken, JoinSettings, Node, NodeConfig, PeerSettings, Receipt, SendRequest, StartError};
use vouch_transport::{CertificateAuthority, PeerSecurity};

use crate::common::{config, message, receive_now, topic};
use crate::wires::Wires;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) fn peers(security: PeerSecurity) -> PeerSettings {
    PeerSettings::new("127.0.0.1:0", security)
}

pub(crate) fn insecure(folder: &Path) -> NodeConfig {
    NodeConfig { peers: Some(peers(PeerSecurity::Insecure)), ..config(folder) }
}

pub(crate) async fn started(config: NodeConfig) -> Result<Node, StartError> {
    spawn_blocking(move || Node::start(config)).await.unwrap()
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn leads(node: &Node) -> bool {
    matches!(node.cluster.status().await.unwrap().group.role, Role::Leads { .. })
}

pub(crate) async fn address(node: &Node) -> String {
    node.cluster.status().await.unwrap().mine.unwrap().peer
}

pub(crate) fn voters(ids: &[u64]) -> GroupMembers {
    GroupMembers::voters(ids.iter().copied().map(NodeId))
}

pub(crate) async fn try_send(node: &Node, id: &str) -> Result<Receipt, NotDone> {
    let request = SendRequest {
        topic: ResourceName::plain("t"),
        producer: "producer-1".to_owned(),
        messages: vec![message(id, id)],
    };
    node.messages.send(request).await.map(|receipts| receipts[0])
}

/// What a start is refused with.
pub(crate) async fn refused(config: NodeConfig) -> String {
    started(config).await.map(|_| ()).expect_err("it is refused").to_string()
}

/// Some nodes of one cluster, with the folders of all that ever were.
pub(crate) struct Nodes {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) running: Vec<Node>,
    pub(crate) security: fn(&Path, u64, [u8; 16]) -> PeerSecurity,
    /// What lies between them, where that can be cut.
    pub(crate) wires: Option<Wires>,
    /// The newest feature level that each knows, where that is not this version's.
    pub(crate) knows: BTreeMap<u64, u32>,
}

pub(crate) fn no_security(_: &Path, _: u64, _: [u8; 16]) -> PeerSecurity {
    PeerSecurity::Insecure
}

/// The certificates of a node, by an authority that lies beside its folder.
fn mutual(folder: &Path, id: u64, cluster_id: [u8; 16]) -> PeerSecurity {
    let authority = folder.join("authority");
    let made = CertificateAuthority::load(&authority).unwrap_or_else(|_| {
        let made = CertificateAuthority::create().unwrap();
        std::fs::create_dir_all(&authority).unwrap();
        made.save(&authority).unwrap();
        made
    });
    let files = folder.join(format!("certificates-{id}"));
    if !files.exists() {
        std::fs::create_dir_all(&files).unwrap();
        made.issue(cluster_id, id, &["127.0.0.1"]).unwrap().save(&files).unwrap();
    }
    PeerSecurity::Mutual {
        authority: files.join("authority.pem"),
        certificate: files.join("node.pem"),
        key: files.join("node-key.pem"),
    }
}

impl Nodes {
    /// A node alone with a topic and twenty messages.
    pub(crate) async fn begin() -> Self {
        Self::begin_with(FEATURE_LEVEL).await
    }

    /// The same, and this one and two others know so much.
    pub(crate) async fn begin_with(feature_level: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = NodeConfig { feature_level, ..insecure(&folder.path().join("1")) };
        let first = started(config).await.unwrap();
        topic(&first, "t", r#"{"queues":1}"#).await;
        for number in 0..20 {
            try_send(&first, &format!("m{number}")).await.unwrap();
        }
        Self {
            folder,
            running: vec![first],
            security: no_security,
            wires: None,
            knows: (1..=3).map(|id| (id, feature_level)).collect(),
        }
    }

    /// Three voters.
    pub(crate) async fn three() -> Self {
        let mut nodes = Self::begin().await;
        nodes.become_three().await;
        nodes
    }

    /// The same, and they show each other certificates.
    pub(crate) async fn three_with_certificates() -> Self {
        let mut nodes = Self::begin().await;
        nodes.security = mutual;
        // The first learns what cluster it is when it begins, so its certificate comes with its second start.
        let config = nodes.config(1);
        nodes.running[0].stop().await;
        nodes.running[0] = started(config).await.unwrap();
        nodes.become_three().await;
        nodes
    }

    /// A node that was stopped is there again, at the end of those that run, where it was before.
    pub(crate) async fn come_back(&mut self, id: u64, listen: &str) {
        let config = self.config(id);
        let peers = config.peers.map(|peers| PeerSettings { listen: listen.to_owned(), ..peers });
        self.running.push(started(NodeConfig { peers, ..config }).await.unwrap());
    }

    pub(crate) async fn become_three(&mut self) {
        for id in [2, 3] {
            let token = self.running[0].cluster.add(false).await.unwrap();
            assert_eq!(token.node(), NodeId(id));
            self.join(token).await.unwrap();
        }
        self.come_to(&voters(&[1, 2, 3])).await;
    }

    pub(crate) fn config(&self, id: u64) -> NodeConfig {
        let folder = self.folder.path().join(id.to_string());
        let cluster_id = self.running[0].identity.cluster_id;
        let security = (self.security)(self.folder.path(), id, cluster_id);
        let peers = self.wires.as_ref().map_or_else(|| peers(security), |wires| wires.to(id));
        let feature_level = self.knows.get(&id).copied().unwrap_or(FEATURE_LEVEL);
        NodeConfig { peers: Some(peers), feature_level, ..config(&folder) }
    }

    pub(crate) async fn joining(&self, token: ClusterToken) -> NodeConfig {
        let id = token.node().0;
        // The last that came: it does not lead, and asks the one that does.
        let joins = Some(JoinSettings { address: address(&self.running[self.running.len() - 1]).await, token });
        NodeConfig { joins, segment_size: None, ..self.config(id) }
    }

    pub(crate) async fn join(&mut self, token: ClusterToken) -> Result<(), StartError> {
        let node = started(self.joining(token).await).await?;
        self.running.push(node);
        Ok(())
    }

    pub(crate) async fn come_to(&self, voters: &GroupMembers) {
        until("all know who votes, and have all entries", async || {
            let mut ends = BTreeSet::new();
            for node in &self.running {
                let group = node.cluster.status().await.unwrap().group;
                if group.members != *voters || group.committed != group.last {
                    return false;
                }
                ends.insert((group.term, group.last));
            }
            ends.len() == 1
        })
        .await;
    }

    pub(crate) async fn leader(&self) -> &Node {
        let mut found = 0;
        until("somebody leads", async || {
            for (at, node) in self.running.iter().enumerate() {
                if leads(node).await {
                    found = at;
                    return true;
                }
            }
            false
        })
        .await;
        &self.running[found]
    }

    /// Sends one by whoever leads, until it is stored.
    pub(crate) async fn must_send(&self, id: &str) {
        until("a message is stored", async || match try_send(self.leader().await, id).await {
            Ok(_) => true,
            Err(NotDone::Unknown(_) | NotDone::NothingStored(NothingStored::NotLeading { .. })) => false,
            Err(why) => panic!("{why}"),
        })
        .await;
    }

    /// The bodies of all messages that a new group receives, by whoever leads.
    pub(crate) async fn bodies(&self, group: &str) -> BTreeSet<String> {
        let received = receive_now(self.leader().await, "t", group).await;
        received
            .into_iter()
            .map(|delivery| String::from_utf8(delivery.message.message.body.to_vec()).unwrap())
            .collect()
    }

    pub(crate) async fn stop_all(self) {
        for node in &self.running {
            node.stop().await;
        }
    }
}

pub(crate) fn expected(more: &[&str]) -> BTreeSet<String> {
    (0..20).map(|number| format!("m{number}")).chain(more.iter().map(|id| (*id).to_owned())).collect()
}
