//! Whole replicas on real folders, each with its own threads, and wires between them that can be cut: a node alone becomes one of
//! three, its leader is lost, and what was acknowledged is there.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vouch_broker::record::{
    FEATURE_LEVEL, MessagePlace, NodeInvited, NodeJoined, NodeLeaves, TopicPut, encode_message,
};
use vouch_broker::state::Applied;
use vouch_broker::testing::message;
use vouch_broker::{Millis, NotDone, NothingStored, RecordPosition, ResourceName, ShardId, TopicConfig, TopicId};
use vouch_cluster::{ClusterIncarnation, GroupMembers, NodeAddresses, NodeId};
use vouch_commitlog::{Checkpoint, EntrySpan, LogIdentity, LogPosition, LogReader, SEGMENT_HEADER_LEN};
use vouch_consensus::{GroupMessage, Role};
use vouch_leader::testing::Living;
use vouch_shard::clock::{Clock, SystemTimeSource};
use vouch_shard::{
    CoreSettings, Inbox, Lead, LeaderEntry, Member, Output, OutputLog, Peers, Request, Shard, ShardLinks, Signals,
    alone, member,
};
use vouch_storage::{
    Folders, JoinedCluster, OnDamage, Opened, OpenedLog, Requests, StartError, StartProgress, StorageConfig, backup,
};

const SEGMENT: u64 = 4 << 20;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What lies between the nodes.
#[derive(Default)]
struct Wires {
    inboxes: Mutex<BTreeMap<NodeId, Arc<Inbox>>>,
    /// Nothing comes through to these, nor from them.
    cut_off: Mutex<BTreeSet<NodeId>>,
}

struct Wire(Arc<Wires>, LogIdentity);

impl Peers for Wire {
    fn send(&self, message: GroupMessage, entries: Vec<EntrySpan>) {
        let cut_off = self.0.cut_off.lock().unwrap();
        if cut_off.contains(&message.from) || cut_off.contains(&message.to) {
            return;
        }
        let read = |span: &EntrySpan| LeaderEntry(EntrySpan::decode(span.encode(), &self.1).unwrap());
        let inbox = self.0.inboxes.lock().unwrap().get(&message.to).cloned();
        inbox.iter().for_each(|inbox| {
            inbox.push(Request::Message(message.clone(), entries.iter().map(read).collect()));
        });
    }
}

struct TestNode {
    shard: Shard,
    id: NodeId,
    wires: Arc<Wires>,
    cluster_id: [u8; 16],
    reader: LogReader,
    _folders: Folders,
}

fn config(data: &Path, joins: Option<JoinedCluster>) -> StorageConfig {
    StorageConfig {
        data_dir: data.to_owned(),
        shard: ShardId::FIRST,
        segment_size: Some(SEGMENT),
        zero_ahead: 1 << 20,
        syncs_in_flight: 2,
        disk_high_water: 99,
        disk_limit: None,
        on_damage: OnDamage::Refuse,
        joins,
        feature_level: FEATURE_LEVEL,
    }
}

impl TestNode {
    fn start(data: &Path, joins: Option<JoinedCluster>, wires: &Arc<Wires>) -> Result<Self, StartError> {
        let inbox = Arc::new(Inbox::new(64 << 20));
        let reports = inbox.clone();
        let config = config(data, joins);
        let opened = vouch_storage::open(&config, &move |news| reports.report(news), &StartProgress::default())?;
        let Opened { mut folders, state, logged, reader, segment_size, before, log, .. } = opened;
        let OpenedLog::Whole { appender, recovery, base, tail, replica: file } = log else {
            panic!("the log is damaged")
        };
        let (id, cluster_id) = (file.note().node, folders.cluster_id()?);
        let replica = if file.note().member {
            member(Member {
                node: id,
                members: state.members().clone(),
                note: file.note(),
                log: &reader,
                before,
                applied: base.unwrap_or(Checkpoint::BEFORE_ALL),
                draw: Box::new(|below| rand::random_range(0..below)),
            })
        } else {
            alone(&recovery, file.note())
        };
        let (reader, log) = (reader.clone(), reader);
        let log = OutputLog {
            appender,
            reader: log,
            prepared: 1 << 18,
            replica: replica.unwrap(),
            file: *file,
            base,
            tail,
            settings: CoreSettings::default(),
        };
        let clock = Clock::start(logged, Arc::new(SystemTimeSource));
        let signals = Arc::new(Signals::new(clock, Arc::new(Requests::due_at(LogPosition::BEYOND))));
        let (on_begun, begun) = sync_channel(1);
        let lead = Lead {
            cluster_id,
            segment_size,
            handle_key: [3; 32],
            feature_level: FEATURE_LEVEL,
            leapt_from: None,
            incarnation: ClusterIncarnation::FIRST,
        };
        let of = LogIdentity { cluster_id, shard: 0, segment_size };
        let links = ShardLinks {
            inbox: inbox.clone(),
            signals,
            members: Arc::new(Living::default()),
            peers: Arc::new(Wire(wires.clone(), of)),
        };
        wires.inboxes.lock().unwrap().insert(id, inbox);
        let shard = Shard::start(state, Output::Log(Box::new(log)), Some((lead, on_begun)), links).unwrap();
        begun.recv_timeout(PATIENCE).unwrap().unwrap();
        folders.begun()?;
        Ok(Self { shard, id, wires: wires.clone(), cluster_id, reader, _folders: folders })
    }

    /// It is gone for the others, whatever it still does.
    fn stop(self) {
        self.wires.inboxes.lock().unwrap().remove(&self.id);
        self.shard.stop();
    }

    /// Gives the next node an id, and lets it come.
    async fn invite(&self) -> JoinedCluster {
        let (token, until) = ([7; 32], Millis(u64::MAX));
        let invited = NodeInvited { token, until, votes_at_once: false, replaces: None };
        let invited = self.shard.propose_one(|out| invited.encode(out)).await.unwrap();
        let Applied::Invited { node } = invited else { panic!("{invited:?}") };
        let addresses = NodeAddresses { peer: format!("n{node}:7000"), grpc: String::new() };
        self.shard.propose_one(|out| NodeJoined { node, token, addresses }.encode(out)).await.unwrap();
        JoinedCluster {
            cluster_id: self.cluster_id,
            node,
            segment_size: SEGMENT,
            incarnation: ClusterIncarnation::FIRST,
        }
    }

    async fn leads(&self) -> bool {
        matches!(self.shard.group().await.unwrap().role, Role::Leads { .. })
    }

    /// Sends a message until it is stored: a send of which nobody knows is sent again.
    async fn send(&self, topic: TopicId, id: &str) -> Result<Applied, NotDone> {
        let place = MessagePlace { topic, queue: 0, stored_at: Millis(1) };
        let (mut records, message) = (Vec::new(), message(id));
        encode_message(&mut records, place, "client", &message, Default::default());
        self.shard.propose(records).await?.remove(0).map_err(NotDone::from)
    }

    async fn state(&self) -> Vec<u8> {
        self.shard.read(|state| state.snapshot(RecordPosition(1))).await.unwrap()
    }

    async fn members(&self) -> GroupMembers {
        self.shard.group().await.unwrap().members
    }
}

fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Three voters, of which the first was a node alone with a topic and twenty messages.
struct Three {
    folder: tempfile::TempDir,
    wires: Arc<Wires>,
    nodes: Vec<TestNode>,
    topic: TopicId,
}

impl Three {
    async fn begin() -> Self {
        let (folder, wires) = (tempfile::tempdir().unwrap(), Arc::<Wires>::default());
        let first = TestNode::start(&folder.path().join("1"), None, &wires).unwrap();
        let config = TopicConfig { queues: 1, ..TopicConfig::default() };
        let put = TopicPut { name: ResourceName::plain("t"), config, expected_revision: None };
        first.shard.propose_one(|out| put.encode(out)).await.unwrap();
        let topic =
            first.shard.read(|state| state.topics().named(&ResourceName::plain("t")).unwrap().id).await.unwrap();
        for number in 0..20 {
            first.send(topic, &format!("m{number}")).await.unwrap();
        }
        first.shard.get_ready_for_others(first.reader.clone()).await.unwrap();
        let mut three = Self { folder, wires, nodes: vec![first], topic };
        for id in [2, 3] {
            let joins = three.nodes[0].invite().await;
            three.nodes.push(three.start(id, Some(joins)));
        }
        three.come_to_rest().await;
        three
    }

    fn start(&self, id: u64, joins: Option<JoinedCluster>) -> TestNode {
        TestNode::start(&self.folder.path().join(id.to_string()), joins, &self.wires).unwrap()
    }

    /// All that there are have all entries, and three vote.
    async fn come_to_rest(&self) {
        until("all members have one state", async || {
            let mut states = Vec::new();
            for node in &self.nodes {
                let group = node.shard.group().await.unwrap();
                states.push((node.state().await, group.last, group.committed == group.last, group.members));
            }
            let one = states.iter().all(|state| *state == states[0]);
            one && states[0].2 && states[0].3 == GroupMembers::voters(nodes(&[1, 2, 3]))
        })
        .await;
    }

    async fn leader(&self) -> &TestNode {
        let mut found = 0;
        until("somebody leads", async || {
            for (at, node) in self.nodes.iter().enumerate() {
                if node.leads().await {
                    found = at;
                    return true;
                }
            }
            false
        })
        .await;
        &self.nodes[found]
    }

    /// Messages in the queue, by whoever leads.
    async fn count(&self) -> u64 {
        let topic = self.topic;
        let count = move |state: &vouch_broker::State| state.topics().get(topic).unwrap().messages();
        self.leader().await.shard.read(count).await.unwrap()
    }

    /// Sends one by whoever leads, until it is stored.
    async fn must_send(&self, id: &str) {
        until("a message is stored", async || match self.leader().await.send(self.topic, id).await {
            Ok(_) => true,
            Err(NotDone::Unknown(_) | NotDone::NothingStored(NothingStored::NotLeading { .. })) => false,
            Err(why) => panic!("{why}"),
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_its_messages_becomes_one_of_three_and_they_outlive_it() {
    let mut three = Three::begin().await;
    three.nodes.remove(0).stop();
    three.must_send("after").await;
    assert_eq!(three.count().await, 21);
    // It comes back as what it was, without being told to join.
    let first = three.start(1, None);
    assert_eq!(first.id, NodeId::FIRST);
    three.nodes.push(first);
    three.come_to_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_stores_nothing_and_learns_what_the_others_stored() {
    let three = Three::begin().await;
    let cut = three.leader().await;
    three.wires.cut_off.lock().unwrap().insert(cut.id);
    let alone = cut.send(three.topic, "alone").await;
    assert!(matches!(alone, Err(NotDone::Unknown(_))), "{alone:?}");
    until("it leads no more", async || !cut.leads().await).await;
    let refused = cut.send(three.topic, "again").await;
    assert!(matches!(refused, Err(NotDone::NothingStored(NothingStored::NotLeading { .. }))), "{refused:?}");
    three.must_send("others").await;
    three.wires.cut_off.lock().unwrap().clear();
    three.come_to_rest().await;
    assert_eq!(three.count().await, 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_from_a_leader_that_is_cut_off_is_a_beginning_of_the_clusters_log() {
    let mut three = Three::begin().await;
    let cut = three.leader().await;
    three.wires.cut_off.lock().unwrap().insert(cut.id);
    let alone = cut.send(three.topic, "alone").await;
    assert!(matches!(alone, Err(NotDone::Unknown(_))), "{alone:?}");
    let (id, copy) = (cut.id, three.folder.path().join("copy"));
    let taken = backup(&three.folder.path().join(id.to_string()), &copy, &mut |_| ()).unwrap();
    assert!(taken.node_was_running && taken.of_several && taken.log_end < cut.reader.end(), "{taken:?}");
    until("it leads no more", async || !cut.leads().await).await;
    three.must_send("others").await;
    let other = three.leader().await.id;
    std::mem::take(&mut three.nodes).into_iter().for_each(TestNode::stop);
    let log = |folder: &Path| std::fs::read(folder.join("shards/0/log").join(format!("{:020}.log", 0))).unwrap();
    let (of_copy, of_cluster) = (log(&copy), log(&three.folder.path().join(other.to_string())));
    let covered = SEGMENT_HEADER_LEN as usize..taken.log_end.0 as usize;
    assert!(covered.end > 20 * 100 && of_copy[covered.clone()] == of_cluster[covered]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_to_a_member_that_is_named_and_the_first_may_leave_then() {
    let mut three = Three::begin().await;
    let leader = three.leader().await;
    let unknown = leader.shard.hand_over(NodeId(9)).await.unwrap_err().to_string();
    assert!(unknown.contains("node 9 does not vote") && unknown.contains("voters 1, 2, 3"), "{unknown}");
    leader.shard.hand_over(NodeId(1)).await.unwrap();
    until("node 1 leads", async || three.nodes[0].leads().await).await;
    three.nodes[0].shard.hand_over(NodeId(3)).await.unwrap();
    until("node 3 leads", async || three.nodes[2].leads().await).await;
    three.must_send("by node 3").await;
    let leaves = |node| NodeLeaves { node, by: "op".to_owned(), reason: "old".to_owned() };
    // Also where it leads again by then: it lets another do so first.
    three.nodes[2].shard.hand_over(NodeId(1)).await.unwrap();
    until("node 1 leads", async || three.nodes[0].leads().await).await;
    three.nodes[0].shard.propose_one(|out| leaves(NodeId(1)).encode(out)).await.unwrap();
    let gone = three.nodes.remove(0);
    until("both know", async || {
        let mut members = Vec::new();
        for node in &three.nodes {
            members.push(node.members().await);
        }
        members.iter().all(|members| *members == GroupMembers::voters(nodes(&[2, 3])))
    })
    .await;
    three.must_send("without node 1").await;
    assert_eq!(three.count().await, 22);
    assert!(!gone.leads().await);
    gone.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_restart_at_once_go_on_with_what_they_had() {
    let mut three = Three::begin().await;
    std::mem::take(&mut three.nodes).into_iter().for_each(TestNode::stop);
    for id in 1..=3 {
        let node = three.start(id, None);
        three.nodes.push(node);
    }
    three.must_send("again").await;
    three.come_to_rest().await;
    assert_eq!(three.count().await, 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_joins_one_cluster_as_one_node_and_no_other() {
    let three = Three::begin().await;
    let cluster_id = three.nodes[0].cluster_id;
    let joins = |cluster_id, node| {
        Some(JoinedCluster {
            cluster_id,
            node: NodeId(node),
            segment_size: SEGMENT,
            incarnation: ClusterIncarnation::FIRST,
        })
    };
    let Three { folder, wires, nodes, .. } = three;
    nodes.into_iter().for_each(TestNode::stop);
    let refused = |id: &str, joins| {
        let refused = TestNode::start(&folder.path().join(id), joins, &wires).err().expect("it is refused");
        refused.to_string()
    };
    let other = refused("2", joins([9; 16], 2));
    assert!(other.contains("another cluster") && other.contains("empty"), "{other}");
    for (id, node) in [("2", 4), ("1", 4)] {
        let other = refused(id, joins(cluster_id, node));
        assert!(other.contains(&format!("node {id} already")) && other.contains("for node 4"), "{other}");
    }
}
