//! How a node begins to speak with others, and how that ends.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use vouch_broker::record::SealedAt;
use vouch_cluster::{ClusterIncarnation, ClusterNodes, NodeAddresses, NodeId};
use vouch_commitlog::{LogIdentity, LogPosition, LogReader};
use vouch_shard::{Inbox, Shard, Signals};
use vouch_storage::{ShardFolder, StartError, StartProgress};
use vouch_transport::{
    CertificateName, PeerHandlers, PeerIdentity, PeerListener, PeerSecurity, RereadSecurity, Transport,
    TransportBounds, TransportConfig, TransportTiming,
};

use super::address_book::AddressBook;
use super::admission::ClusterAdmission;
use super::answering::NodeCalls;
use super::calls::{HadAt, NodeAnswer, NodeAsk, NodeRequest};
use super::clients::{ClientCalls, ServeClients};
use super::gathered::Gathered;
use super::joining;
use super::keeper::PeerKeeper;
use super::lacking::Lacking;
use super::nodes::PeerNodes;
use super::offering::{HAS, ShardFiles};
use super::programs::{NodeVersion, Programs};
use super::removal::Removal;
use super::runtime::PeerRuntime;
use super::settings::{JoinSettings, PeerSettings};
use super::sparing::Spared;
use super::told::Hearsay;
use crate::served_shard::SHARD;

/// Between two looks whether the start was given up.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Whoever leads says within this time whether it can do without this node.
const SPARED_WITHIN: Duration = Duration::from_secs(2);
/// Another node says within this time what it had; otherwise it is asked again.
const HAD_WITHIN: Duration = Duration::from_secs(1);

/// Another node has read a segment within this time, of which it says nothing meanwhile, or has a slow disk: shorter than the time after
/// which a silent connection is given up.
const READS_WITHIN: Duration = Duration::from_secs(20);

/// Who this node is to the others.
pub(crate) struct WhoSpeaks {
    pub(crate) node: NodeId,
    /// The life of the cluster.
    pub(crate) cluster_incarnation: ClusterIncarnation,
    /// The life of its folder.
    pub(crate) incarnation: u64,
    /// Where it keeps that it was removed.
    pub(crate) data_dir: PathBuf,
    /// The log that they share.
    pub(crate) log: LogIdentity,
    /// What it runs.
    pub(crate) program: NodeVersion,
}

/// A life of this node, later than those before it, and not that of another folder which says that it is this node.
fn life(incarnation: u64) -> u64 {
    incarnation.max(1) << 32 | u64::from(rand::random::<u32>())
}

/// The others would let nobody in who shows another node's certificate, and each would say so in a log of its own.
fn shows_itself(security: &PeerSecurity, own: &CertificateName) -> Result<(), String> {
    is_own(security.shows().map_err(|error| error.to_string())?, own)
}

pub(super) fn is_own(shown: Option<CertificateName>, own: &CertificateName) -> Result<(), String> {
    match shown.filter(|shown| shown != own) {
        None => Ok(()),
        Some(other) => Err(format!(
            "its certificate is that of {other}, and this node is {own}; make one for it with: vouch cluster certificates --node {}",
            own.node
        )),
    }
}

/// What listens, and what is kept in step.
struct Open {
    listener: PeerListener,
    keeper: JoinHandle<()>,
    mine: NodeAddresses,
}

/// The other nodes of the cluster, for as long as this one runs.
pub(crate) struct Speaking {
    settings: PeerSettings,
    data_dir: PathBuf,
    /// What its certificate is to name.
    own: CertificateName,
    pub(crate) nodes: Arc<PeerNodes>,
    hearsay: Arc<Hearsay>,
    program: NodeVersion,
    pub(crate) programs: Arc<Programs>,
    pub(crate) removal: Arc<Removal>,
    pub(crate) spared: Arc<Spared>,
    clients: Arc<ClientCalls>,
    sessions: Arc<ClientCalls>,
    signals: Arc<Signals>,
    open: Mutex<Option<Open>>,
    /// Last: what else there is of tasks ends with it.
    runtime: PeerRuntime,
}

impl Speaking {
    /// Nobody is dialed yet, and nobody let in.
    ///
    /// # Errors
    /// The files for TLS cannot be used, or there are no threads.
    pub(crate) fn new(
        settings: &PeerSettings,
        who: &WhoSpeaks,
        inbox: &Arc<Inbox>,
        signals: &Arc<Signals>,
    ) -> Result<Self, StartError> {
        let hearsay = Arc::<Hearsay>::default();
        let belongs = signals.belongs();
        let admission = Arc::new(ClusterAdmission { me: who.node, belongs, hearsay: hearsay.clone() });
        let identity = PeerIdentity {
            cluster: who.log.cluster_id,
            cluster_incarnation: who.cluster_incarnation.0,
            node: who.node.0,
            incarnation: life(who.incarnation),
        };
        let (timing, bounds) = (TransportTiming::default(), TransportBounds::default());
        let security = settings.security.clone();
        let own = CertificateName { cluster: identity.cluster, node: identity.node };
        shows_itself(&security, &own).map_err(StartError::Peers)?;
        let transport = Transport::new(TransportConfig { identity, security, admission, timing, bounds });
        let transport = transport.map_err(|error| StartError::Peers(error.to_string()))?;
        let runtime = PeerRuntime::start().map_err(StartError::Thread)?;
        let nodes = Arc::new(PeerNodes::new(who.node, transport, inbox.clone(), who.log));
        Ok(Self {
            settings: settings.clone(),
            data_dir: who.data_dir.clone(),
            own,
            nodes,
            hearsay,
            program: who.program.clone(),
            programs: Arc::default(),
            removal: Arc::new(Removal::new(who.node, who.data_dir.clone())),
            spared: Arc::default(),
            clients: Arc::default(),
            sessions: Arc::default(),
            signals: signals.clone(),
            open: Mutex::default(),
            runtime,
        })
    }

    /// Listens, and begins to dial those that the log knows.
    ///
    /// # Errors
    /// The system does not let it listen there, or others could not reach it.
    pub(crate) fn begin(&self, shard: &Arc<Shard>, log: &LogReader) -> Result<(), StartError> {
        let (nodes, belongs) = (self.nodes.clone(), self.signals.belongs());
        let calls = NodeCalls {
            spared: self.spared.clone(),
            snapshots: self.signals.snapshots.clone(),
            shard: shard.clone(),
            nodes: nodes.clone(),
            belongs: belongs.clone(),
            hearsay: self.hearsay.clone(),
            clients: self.clients.clone(),
            programs: self.programs.clone(),
        };
        let sessions = NodeCalls { clients: self.sessions.clone(), ..calls.clone() };
        let group = nodes.clone();
        let handlers = PeerHandlers::default()
            .group(move |from, shard, datagram| group.receive(from, shard, datagram))
            .files(ShardFiles::of(self.data_dir.clone(), shard.clone(), log.clone(), self.signals.snapshots.clone()))
            .calls(calls)
            .sessions(sessions);
        let (transport, address) = (nodes.transport.clone(), self.settings.listen.clone());
        let listener = self.runtime.run(async move { transport.listen(&address, handlers).await });
        let listener = listener.recv().unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into()));
        let listener = listener.map_err(|error| {
            StartError::Peers(format!("it cannot listen for other nodes on {}: {error}", self.settings.listen))
        })?;
        let mine = self.addresses(listener.local_addr())?;
        let keeper = PeerKeeper {
            shard: shard.clone(),
            log: log.clone(),
            nodes,
            belongs,
            hearsay: self.hearsay.clone(),
            removal: self.removal.clone(),
            book: AddressBook::of(&self.data_dir),
            gathered: Gathered::beside(ShardFolder::of(&self.data_dir, SHARD), self.signals.behind()),
            mine: mine.clone(),
            told: String::new(),
            program: self.program.clone(),
            program_told: None,
        };
        let keeper = self.runtime.handle().spawn(keeper.run());
        tracing::info!(address = %listener.local_addr(), advertised = mine.peer, "listening for the other nodes of the cluster");
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(Open { listener, keeper, mine });
        Ok(())
    }

    fn addresses(&self, listens: SocketAddr) -> Result<NodeAddresses, StartError> {
        let grpc = self.settings.grpc_advertise.clone().unwrap_or_default();
        let peer = match &self.settings.advertise {
            Some(peer) => peer.clone(),
            None if listens.ip().is_unspecified() => {
                return Err(StartError::Peers(format!(
                    "it listens for other nodes on all addresses ({listens}); say by which of them they reach it"
                )));
            }
            None => listens.to_string(),
        };
        let mine = NodeAddresses { peer, grpc };
        // What no log would take is told now.
        let taken = ClusterNodes::default().moved(NodeId::FIRST, mine.clone());
        taken.map_err(|why| StartError::Peers(why.to_string()))?;
        Ok(mine)
    }

    /// This node is to be let in before it has part in anything: see [`Self::join`]. To be said before it listens.
    pub(crate) fn waits_to_be_let_in(&self) {
        self.nodes.hears(false);
    }

    /// Asks the cluster to be let in, and waits until it is.
    ///
    /// # Errors
    /// The cluster refuses, or the start is given up.
    pub(crate) fn join(&self, joins: &JoinSettings, progress: &StartProgress) -> Result<(), StartError> {
        let mine = self.mine().ok_or_else(|| StartError::Peers("it does not listen yet".to_owned()))?;
        let (transport, joins, hearsay) = (self.nodes.transport.clone(), joins.clone(), self.hearsay.clone());
        let program = self.program.clone();
        let joined = self.runtime.run(async move {
            let told = joining::join(&transport, &joins, (mine, program)).await?;
            hearsay.hear(told, 0);
            Ok(())
        });
        loop {
            progress.go_on()?;
            match joined.recv_timeout(LOOK_EVERY) {
                Ok(Ok(())) => {
                    self.nodes.hears(true);
                    return Ok(());
                }
                Ok(Err(why)) => return Err(StartError::JoinRefused(why)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(StartError::Peers("what asks to be let in ended by a defect".to_owned()));
                }
            }
        }
    }

    /// Asks the node that leads whether the others can do without this one for a while.
    ///
    /// # Errors
    /// Why not, or why nobody knows.
    pub(crate) async fn may_be_spared(&self, leader: NodeId) -> Result<(), String> {
        let request = NodeRequest { forwarded: false, ask: NodeAsk::MaySpare { node: self.nodes.me } };
        match self.nodes.ask(leader, &request, tokio::time::Instant::now() + SPARED_WITHIN).await {
            Ok(NodeAnswer::Done(_)) => Ok(()),
            Ok(NodeAnswer::Refused(why) | NodeAnswer::NothingStored(why) | NodeAnswer::Unknown(why)) => Err(why),
            Ok(NodeAnswer::Client(_) | NodeAnswer::Had(_)) => Err("it answers something else".to_owned()),
            Err(failed) => Err(failed.to_string()),
        }
    }

    /// Asks another node whether it has these stretches of the log, each of which begins where a segment does, and whether it would give
    /// anything at all. One that is there and still reads after some time may have them.
    ///
    /// # Errors
    /// Why not, or why nobody knows.
    pub(crate) fn has(
        &self,
        node: NodeId,
        mut stretches: Vec<Range<LogPosition>>,
    ) -> impl Future<Output = Result<(), String>> + use<> {
        let transport = self.nodes.transport.clone();
        stretches.insert(0, LogPosition::START..LogPosition::START);
        async move {
            for Range { start, end } in stretches {
                let pull = transport.pull(node.0, HAS, start.0, end.since(start)).await;
                let mut pull = pull.map_err(|failed| failed.to_string())?;
                if let Ok(ended) = tokio::time::timeout(READS_WITHIN, pull.next()).await {
                    ended.map_err(|failed| failed.to_string())?;
                }
            }
            Ok(())
        }
    }

    /// Asks another node what it had where this one had that; `None` where it does not say, or runs what writes other bytes.
    pub(crate) async fn had(&self, node: NodeId, own: SealedAt) -> Option<SealedAt> {
        let request = NodeRequest { forwarded: false, ask: NodeAsk::Had(HadAt::here(own)) };
        match self.nodes.ask(node, &request, tokio::time::Instant::now() + HAD_WITHIN).await {
            Ok(NodeAnswer::Had(had)) => had.filter(|had| had.position == own.position),
            _ => None,
        }
    }

    /// What this node needs to know in order to take from the others' disks what it lacks.
    pub(crate) fn lacking(&self) -> Lacking {
        let nodes = self.hearsay.addresses(&self.signals.belongs().borrow(), self.nodes.me);
        Lacking { nodes, ..Lacking::default() }
    }

    /// From now on what other nodes ask about sessions is answered by this.
    pub(crate) fn serve_sessions(&self, serves: Arc<dyn ServeClients>) {
        self.sessions.begin(serves);
    }

    /// From now on clients of other nodes are served by this.
    pub(crate) fn serve_clients(&self, serves: Arc<dyn ServeClients>) {
        self.clients.begin(serves);
    }

    /// Serves clients of other nodes no more, and hears no more about sessions.
    pub(crate) fn serve_no_more(&self) {
        self.clients.end();
        self.sessions.end();
    }

    /// Where this node is to the others, and to clients.
    pub(crate) fn mine(&self) -> Option<NodeAddresses> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|open| open.mine.clone())
    }

    /// Whether connections to them are secured.
    pub(crate) fn is_secured(&self) -> bool {
        self.settings.security != PeerSecurity::Insecure
    }

    /// Reads the files for TLS anew; `None` where this node has none, or these settings name none: with TLS or without stays as it
    /// is until the node starts again.
    ///
    /// # Errors
    /// A sentence: a file cannot be read, they do not fit each other, or are another node's.
    pub(crate) fn reread(&self, security: &PeerSecurity) -> Result<Option<RereadSecurity>, String> {
        if !self.is_secured() || *security == PeerSecurity::Insecure {
            return Ok(None);
        }
        let read = security.read().map_err(|error| error.to_string())?;
        is_own(read.shows()?, &self.own)?;
        Ok(Some(read))
    }

    /// Whether clients are led to the node that leads.
    pub(crate) fn routes_to_leader(&self) -> bool {
        self.settings.routes_to_leader
    }

    /// Where it listens for them.
    pub(crate) fn listens(&self) -> Option<SocketAddr> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|open| open.listener.local_addr())
    }

    /// Ends it on a thread that may wait, for a start that does not come to its end: the address is free again when this returns.
    pub(crate) fn stop_at_once(self: &Arc<Self>) {
        let speaking = self.clone();
        let _ = self.runtime.run(async move { speaking.stop().await }).recv();
    }

    /// Speaks with nobody any more. When this resolves, no call of another node is served.
    pub(crate) async fn stop(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Open { listener, keeper, .. }) = open else { return };
        keeper.abort();
        listener.stop().await;
        self.nodes.end();
    }
}

#[cfg(test)]
mod tests {
    use vouch_transport::{CertificateAuthority, NodeCertificate};

    use super::*;

    const CLUSTER: [u8; 16] = [7; 16];

    fn node(node: u64) -> CertificateName {
        CertificateName { cluster: CLUSTER, node }
    }

    #[test]
    fn a_node_shows_its_own_certificate_and_no_other_nodes() {
        let folder = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::create().unwrap();
        let issued = |cluster, id| {
            let files = folder.path().join(format!("{id}-{}", cluster == CLUSTER));
            authority.issue(cluster, id, &["127.0.0.1"]).unwrap().save(&files).unwrap();
            NodeCertificate::files(&files)
        };
        assert!(shows_itself(&PeerSecurity::Insecure, &node(1)).is_ok(), "there is none to show");
        assert!(shows_itself(&issued(CLUSTER, 1), &node(1)).is_ok());
        for others in [issued(CLUSTER, 2), issued([8; 16], 1)] {
            let refused = shows_itself(&others, &node(1)).unwrap_err();
            assert!(refused.contains("its certificate is that of vouch://"), "{refused}");
            assert!(refused.contains("vouch cluster certificates --node 1"), "{refused}");
        }
        let missing = shows_itself(&NodeCertificate::files(&folder.path().join("none")), &node(1));
        assert!(missing.unwrap_err().contains("cannot read"));
    }

    #[test]
    fn each_life_of_a_folder_is_later_than_those_before_and_another_ones_is_another() {
        assert!((1..50).all(|incarnation| life(incarnation + 1) > life(incarnation)));
        let lives: std::collections::BTreeSet<u64> = (0..50).map(|_| life(3)).collect();
        assert!(lives.len() > 45, "two folders that say the same are told apart");
    }
}
