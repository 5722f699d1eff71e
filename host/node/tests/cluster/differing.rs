//! A node that does not know what the others know, since something went wrong with what it had: it is found out at the next snapshots.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vouch_broker::record::{Record, TopicPut};
use vouch_broker::state::RecordAt;
use vouch_broker::{NotDone, NothingStored, ResourceName, State, TopicConfig};
use vouch_cluster::NodeId;
use vouch_commitlog::Checkpoint;
use vouch_node::{Node, NodeConfig, NodeHealth, PeerSettings, Receipt, SendRequest};

use crate::common::{message, receive_now};
use crate::nodes::{Nodes, address, leads, refused, started, until, voters};

/// Bytes of log between two snapshots, and of a message that makes one due.
const EVERY: u64 = 1 << 20;

async fn send_much(nodes: &Nodes, id: &str) {
    let body = "m".repeat(EVERY as usize);
    until("a message is stored", async || {
        let (topic, producer) = (ResourceName::plain("t"), "p".to_owned());
        let request = SendRequest { topic, producer, messages: vec![message(id, &body)] };
        match nodes.leader().await.messages.send(request).await.map(|receipts| receipts[0]) {
            Ok(Receipt::Stored { .. }) => true,
            Err(NotDone::Unknown(_) | NotDone::NothingStored(NothingStored::NotLeading { .. })) => false,
            other => panic!("{other:?}"),
        }
    })
    .await;
}

/// Between two messages that make a snapshot due: each node is to be as far with its own by then.
const PACE: Duration = Duration::from_millis(200);

/// Messages that were acknowledged.
#[derive(Default)]
struct Sent(Vec<String>);

impl Sent {
    /// Sends one that makes a snapshot due.
    async fn much(&mut self, nodes: &Nodes) {
        tokio::time::sleep(PACE).await;
        let id = format!("much-{}", self.0.len());
        send_much(nodes, &id).await;
        self.0.push(id);
    }

    /// All of them can be received of whoever leads, once each.
    async fn are_there(&self, nodes: &Nodes) {
        let received = receive_now(nodes.leader().await, "t", "all").await;
        let mut ids: Vec<_> = received.into_iter().map(|delivery| delivery.message.message.message_id).collect();
        let many = ids.len();
        ids.retain(|id| id.starts_with("much-"));
        assert!(many >= ids.len() + 20, "those of the beginning are there, too");
        let expected: BTreeSet<_> = self.0.iter().cloned().collect();
        assert_eq!(ids.len(), expected.len());
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), expected);
    }
}

/// Sends until a node has made a snapshot, falsifies that, and starts the node again, as the last of those that run.
async fn falsified(nodes: &mut Nodes, id: u64, sent: &mut Sent) {
    let data = nodes.folder.path().join(id.to_string());
    until("it has made a snapshot", async || {
        sent.much(nodes).await;
        !snapshots(&data).is_empty()
    })
    .await;
    restart(nodes, id, falsify).await;
}

/// Whether each of those that run is in doubt.
async fn doubts(nodes: &Nodes) -> Vec<bool> {
    let mut doubts = Vec::new();
    for node in &nodes.running {
        doubts.push(node.cluster.status().await.unwrap().doubt.is_some());
    }
    doubts
}

fn snapshots(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("shards/0/snapshots")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "snapshot")).collect();
    found.sort();
    found
}

/// Lets the newest snapshot of a node that does not run know of a topic that the log does not, in both copies, with checksums that are
/// right: as if a bit had been wrong in memory when it was made.
fn falsify(data: &Path) {
    let newest = snapshots(data).pop().expect("it has made one");
    let bytes = fs::read(&newest).unwrap();
    let (head, state) = bytes.split_at(Checkpoint::ENCODED_LEN);
    let part = |id: u64| fs::read(newest.with_file_name(format!("{id:020}.part"))).map(bytes::Bytes::from);
    let (position, mut state) = State::from_snapshot(state, &mut { part }).unwrap();
    let (name, config) = (ResourceName::plain("nobody-made-it"), TopicConfig::default());
    let put = Record::TopicPut(TopicPut { name, config, expected_revision: None });
    let time = state.cluster().clock;
    state.apply(RecordAt { position, time }, &put, &mut Vec::new()).unwrap();
    let falsified = [head, &state.snapshot(position)].concat();
    for copy in ["snapshot", "snapshot2"] {
        fs::write(newest.with_extension(copy), &falsified).unwrap();
    }
}

/// Three nodes that make snapshots often.
async fn three() -> Nodes {
    let mut nodes = Nodes::three().await;
    for id in 1..=3 {
        restart(&mut nodes, id, |_| ()).await;
    }
    nodes
}

/// Stops a node, does something to its folder, and starts it again where it was, as the last of those that run.
async fn restart(nodes: &mut Nodes, id: u64, to: impl FnOnce(&Path)) {
    let at = nodes.running.iter().position(|node| node.identity.node.0 == id).unwrap();
    let node = nodes.running.remove(at);
    let (config, listen) = (nodes.config(id), address(&node).await);
    node.stop().await;
    to(&config.data_dir);
    let peers = config.peers.map(|peers| PeerSettings { listen, ..peers });
    nodes.running.push(started(NodeConfig { peers, snapshot_every: EVERY, ..config }).await.unwrap());
    nodes.come_to(&voters(&[1, 2, 3])).await;
}

async fn follower(nodes: &Nodes) -> u64 {
    nodes.leader().await;
    for node in &nodes.running {
        if !leads(node).await {
            return node.identity.node.0;
        }
    }
    unreachable!("one of three leads")
}

fn why_closed(node: &Node) -> Option<String> {
    match node.status.health() {
        NodeHealth::Poisoned(why) => Some(why),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_knows_something_else_than_the_others_stops_and_says_what_to_do() {
    let mut nodes = three().await;
    let id = follower(&nodes).await;
    let mut sent = Sent::default();
    falsified(&mut nodes, id, &mut sent).await;
    let mut why = None;
    until("it is found out", async || {
        sent.much(&nodes).await;
        why = why_closed(nodes.running.last().unwrap());
        why.is_some()
    })
    .await;
    let why = why.unwrap();
    assert!(why.contains("this node does not know what the others know"), "{why}");
    assert!(why.contains("topics, groups and transactions") && why.contains("vouch cluster replace"), "{why}");
    assert!(why.contains("a majority of those who vote"), "{why}");
    // The others are well, and go on.
    let differs = nodes.running.pop().unwrap();
    nodes.must_send("without it").await;
    assert!(nodes.running.iter().all(|node| why_closed(node).is_none()));
    // It does not come back as if nothing had been.
    differs.stop().await;
    sent.are_there(&nodes).await;
    let again = refused(nodes.config(id)).await;
    assert!(again.contains("keep this one until the new node votes"), "{again}");
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_knows_something_else_lets_another_one_lead_and_closes_and_the_others_go_on() {
    let mut nodes = three().await;
    let id = follower(&nodes).await;
    let mut sent = Sent::default();
    falsified(&mut nodes, id, &mut sent).await;
    until("it leads", async || {
        let leader = nodes.leader().await;
        leader.identity.node.0 == id || leader.cluster.transfer_leader(NodeId(id)).await.is_ok()
    })
    .await;
    until("it is in doubt", async || {
        sent.much(&nodes).await;
        doubts(&nodes).await[2]
    })
    .await;
    let (mut why, mut led) = (None, false);
    until("it is found out", async || {
        why = why_closed(nodes.running.last().unwrap());
        // Without handing over it would take an election time-out until another one leads.
        for node in &nodes.running[..2] {
            led |= why.is_some() && leads(node).await;
        }
        why.is_some()
    })
    .await;
    let why = why.unwrap();
    assert!(led, "it closed before another one led");
    assert!(why.contains("topics, groups and transactions") && why.contains("a majority of those who vote"), "{why}");
    let differs = nodes.running.pop().unwrap();
    for _ in 0..4 {
        sent.much(&nodes).await;
    }
    // Nobody closes because the one that led disagreed, and nobody stays in doubt.
    until("the others know who is right", async || doubts(&nodes).await == [false, false]).await;
    assert!(nodes.running.iter().all(|node| why_closed(node).is_none()));
    differs.stop().await;
    sent.are_there(&nodes).await;
    let again = refused(nodes.config(id)).await;
    assert!(again.contains("a majority of its cluster's voters"), "{again}");
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_nobody_knows_who_is_right_both_go_on_and_say_so_until_a_third_one_decides() {
    let mut nodes = three().await;
    let id = follower(&nodes).await;
    let mut sent = Sent::default();
    falsified(&mut nodes, id, &mut sent).await;
    // The other one that follows goes away: two are left that know different things.
    let mut at = 0;
    for (n, node) in nodes.running.iter().enumerate() {
        if node.identity.node.0 != id && !leads(node).await {
            at = n;
        }
    }
    let third = nodes.running.remove(at);
    let (config, listen) = (nodes.config(third.identity.node.0), address(&third).await);
    third.stop().await;
    until("both are in doubt", async || {
        sent.much(&nodes).await;
        doubts(&nodes).await == [true, true]
    })
    .await;
    // All ask some times, and nobody gives up.
    for _ in 0..30 {
        sent.much(&nodes).await;
    }
    assert!(nodes.running.iter().all(|node| why_closed(node).is_none()));
    assert_eq!(doubts(&nodes).await, [true, true]);
    let view = nodes.leader().await.cluster.status().await.unwrap();
    assert!(view.doubt.unwrap().contains("topics, groups and transactions"));
    let peers = config.peers.map(|peers| PeerSettings { listen, ..peers });
    let third = started(NodeConfig { peers, snapshot_every: EVERY, ..config }).await.unwrap();
    nodes.running.push(third);
    until("the one that is outvoted closes", async || {
        sent.much(&nodes).await;
        let closed = nodes.running.iter().filter(|node| why_closed(node).is_some());
        let closed: Vec<u64> = closed.map(|node| node.identity.node.0).collect();
        assert!(closed.is_empty() || closed == [id], "{closed:?}");
        !closed.is_empty()
    })
    .await;
    let at = nodes.running.iter().position(|node| node.identity.node.0 == id).unwrap();
    nodes.running.remove(at).stop().await;
    until("the others know who is right", async || {
        sent.much(&nodes).await;
        doubts(&nodes).await == [false, false]
    })
    .await;
    sent.are_there(&nodes).await;
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_have_the_same_parts_and_go_on_however_often_they_start_and_whoever_leads() {
    let mut nodes = three().await;
    for round in 0..3 {
        for message in 0..4 {
            send_much(&nodes, &format!("m-{round}-{message}")).await;
        }
        let id = follower(&nodes).await;
        restart(&mut nodes, id, |_| ()).await;
        // One that lags behind by then is passed over, and asked again.
        until("it leads", async || {
            let leader = nodes.leader().await;
            leader.identity.node.0 == id || leader.cluster.transfer_leader(NodeId(id)).await.is_ok()
        })
        .await;
    }
    // What is named last is told with the next one.
    let parts = |id: u64| {
        let entries = fs::read_dir(nodes.folder.path().join(format!("{id}/shards/0/snapshots"))).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let parts = paths.filter(|path| path.extension().is_some_and(|kind| kind == "part"));
        parts
            .map(|path| (path.file_name().unwrap().to_owned(), fs::read(path).unwrap()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let mut sent = 0;
    until("all have some parts, and the same ones", async || {
        send_much(&nodes, &format!("more-{sent}")).await;
        sent += 1;
        let all = [parts(1), parts(2), parts(3)];
        let common: Vec<_> = all[0].keys().filter(|name| all.iter().all(|parts| parts.contains_key(*name))).collect();
        for name in &common {
            assert!(all.iter().all(|parts| parts[*name] == all[0][*name]), "{name:?}");
        }
        common.len() >= 6
    })
    .await;
    assert!(nodes.running.iter().all(|node| why_closed(node).is_none()));
    nodes.stop_all().await;
}
