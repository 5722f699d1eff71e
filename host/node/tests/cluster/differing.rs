//! A node that does not know what the others know, since something went wrong with what it had: it is found out at the next snapshots.

use std::fs;
use std::path::{Path, PathBuf};

use vouch_broker::record::{Record, TopicPut};
use vouch_broker::state::RecordAt;
use vouch_broker::{NotDone, NothingStored, ResourceName, State, TopicConfig};
use vouch_cluster::NodeId;
use vouch_commitlog::Checkpoint;
use vouch_node::{Node, NodeConfig, NodeHealth, PeerSettings, Receipt, SendRequest};

use crate::common::message;
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
    let data = nodes.folder.path().join(id.to_string());
    let mut sent = 0;
    until("it has made a snapshot", async || {
        send_much(&nodes, &format!("before-{sent}")).await;
        sent += 1;
        !snapshots(&data).is_empty()
    })
    .await;
    restart(&mut nodes, id, falsify).await;
    let mut why = None;
    until("it is found out", async || {
        send_much(&nodes, &format!("after-{sent}")).await;
        sent += 1;
        why = why_closed(nodes.running.last().unwrap());
        why.is_some()
    })
    .await;
    let why = why.unwrap();
    assert!(why.contains("this node does not know what the others know"), "{why}");
    assert!(why.contains("topics, groups and transactions") && why.contains("join anew"), "{why}");
    // The others are well, and go on.
    let differs = nodes.running.pop().unwrap();
    nodes.must_send("without it").await;
    assert!(nodes.running.iter().all(|node| why_closed(node).is_none()));
    // It does not come back as if nothing had been.
    differs.stop().await;
    let again = refused(nodes.config(id)).await;
    assert!(again.contains("join anew with an empty folder"), "{again}");
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
