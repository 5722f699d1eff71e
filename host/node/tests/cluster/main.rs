//! Whole nodes of one cluster in one process, over sockets: a node alone with messages gets two others, its leader is lost,
//! and what was acknowledged is there. And who does not belong is told so.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

#[path = "../common/mod.rs"]
mod common;
mod consuming;
mod cut_off;
mod differing;
mod forwarded;
#[path = "../../../plugin/tests/suite/guests.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod guests;
mod nodes;
mod replaced;
mod room;
#[path = "../../../plugin/tests/suite/scripts.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod scripts;
mod secrets;
mod shared;
#[path = "../../../plugin/tests/suite/support.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod support;
mod upgrade;
mod wires;

use std::path::Path;

use common::config;
use nodes::{Nodes, address, expected, insecure, leads, peers, refused, started, until, voters};
use tokio::task::spawn_blocking;
use vouch_broker::{NotDone, NothingStored};
use vouch_cluster::{NodeAddresses, NodeId};
use vouch_node::{ClusterToken, JoinSettings, Node, NodeConfig, PeerSettings, StartError, StartProgress};
use vouch_transport::{LinkState, PeerSecurity};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_with_its_messages_becomes_one_of_three_and_they_outlive_it() {
    let mut nodes = Nodes::three().await;
    let first = nodes.running.remove(0);
    let old_address = address(&first).await;
    first.stop().await;
    nodes.must_send("after").await;
    assert_eq!(nodes.bodies("g").await, expected(&["after"]));
    // Who does not lead adds nobody, and says who does.
    let leader = nodes.leader().await;
    let id = leader.cluster.status().await.unwrap().group.node.0;
    let follower = nodes.running.iter().find(|node| !std::ptr::eq(*node, leader)).unwrap();
    let not_leading = NotDone::NothingStored(NothingStored::NotLeading { leader: Some(id) });
    assert_eq!(follower.cluster.add(false).await.unwrap_err(), not_leading);
    // It comes back as what it was, without a token, and says where it is now.
    let first = started(nodes.config(1)).await.unwrap();
    let is_at = address(&first).await;
    assert_ne!(is_at, old_address, "the system chose another port");
    nodes.running.push(first);
    until("the log says where it is now", async || {
        let known = nodes.leader().await.cluster.status().await.unwrap().nodes;
        known.nodes[&NodeId(1)].addresses == Some(NodeAddresses { peer: is_at.clone(), grpc: String::new() })
    })
    .await;
    nodes.come_to(&voters(&[1, 2, 3])).await;
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_that_restart_at_once_find_each_other() {
    let mut nodes = Nodes::three().await;
    let configs: Vec<_> = (1..=3).map(|id| nodes.config(id)).collect();
    let mut listens = Vec::new();
    for node in std::mem::take(&mut nodes.running) {
        listens.push(address(&node).await);
        node.stop().await;
    }
    for (config, listen) in configs.into_iter().zip(listens) {
        let peers = PeerSettings { listen, ..peers(PeerSecurity::Insecure) };
        nodes.running.push(started(NodeConfig { peers: Some(peers), ..config }).await.unwrap());
    }
    nodes.must_send("again").await;
    assert_eq!(nodes.bodies("g").await, expected(&["again"]));
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_does_not_belong_is_told_so() {
    let mut nodes = Nodes::begin().await;
    let first = nodes.running[0].clone();
    let token = first.cluster.add(false).await.unwrap();
    let at = |name: &str| nodes.folder.path().join(name);
    let with = |folder: &Path, address: &str, token: ClusterToken| {
        let joins = Some(JoinSettings { address: address.to_owned(), token });
        NodeConfig { joins, segment_size: None, ..insecure(folder) }
    };
    let (cluster_id, address) = (first.identity.cluster_id, address(&first).await);
    let wrong = ClusterToken::new(cluster_id, NodeId(2), 4 << 20, [9; 32]);
    let why = refused(with(&at("wrong"), &address, wrong)).await;
    assert!(why.contains("the token for node 2 was used") && why.contains("vouch cluster add"), "{why}");
    let unknown = ClusterToken::new(cluster_id, NodeId(7), 4 << 20, [9; 32]);
    let why = refused(with(&at("unknown"), &address, unknown)).await;
    assert!(why.contains("no node 7") && why.contains("vouch cluster add"), "{why}");
    let other = ClusterToken::new([9; 16], NodeId(2), 4 << 20, [9; 32]);
    let why = refused(with(&at("other"), &address, other)).await;
    assert!(why.contains("and you to cluster 0909"), "{why}");

    let (used, folder) = (with(&at("used"), &address, token.clone()), at("no-address"));
    let no_address = NodeConfig { peers: None, ..with(&folder, &address, token.clone()) };
    assert!(refused(no_address).await.contains("--peer-addr"));
    nodes.join(token).await.unwrap();
    // Two are an even number: the second listens until a third is there, and has acknowledged what it got.
    until("node 2 has the log", async || {
        let group = first.cluster.status().await.unwrap().group;
        group.followers.iter().any(|other| other.durable > 0)
    })
    .await;
    let why = refused(used).await;
    assert!(why.contains("the token for node 2 was used"), "{why}");

    let token = first.cluster.add(false).await.unwrap();
    nodes.join(token).await.unwrap();
    nodes.come_to(&voters(&[1, 2, 3])).await;
    nodes.leader().await.cluster.remove(NodeId(3), "op", "it is old").await.unwrap();
    let removed = nodes.running.pop().unwrap();
    nodes.come_to(&voters(&[1, 2])).await;
    until("it is told that it was removed", async || {
        let links = removed.cluster.status().await.unwrap().links;
        links
            .values()
            .any(|link| matches!(link, LinkState::Down { why } if why.contains("node 3 was removed from this cluster")))
    })
    .await;
    removed.stop().await;
    nodes.must_send("without it").await;
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_address_by_which_nobody_reaches_a_node_keeps_it_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    for (listen, advertise, said) in [
        ("0.0.0.0:0", None, "say by which of them they reach it"),
        ("127.0.0.1:0", Some("nowhere"), "\"nowhere\" is no address"),
        ("127.0.0.1:nothing", None, "cannot listen for other nodes on 127.0.0.1:nothing"),
    ] {
        let advertise = advertise.map(str::to_owned);
        let peers = PeerSettings { listen: listen.to_owned(), advertise, ..peers(PeerSecurity::Insecure) };
        let why = refused(NodeConfig { peers: Some(peers), ..config(folder.path()) }).await;
        assert!(why.contains(said), "{why}");
    }
    // What was refused left the folder as a node's that can start.
    started(insecure(folder.path())).await.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn leadership_goes_to_a_node_that_is_named() {
    let nodes = Nodes::three().await;
    let leader = nodes.leader().await;
    let why = leader.cluster.transfer_leader(NodeId(9)).await.unwrap_err().to_string();
    assert!(why.contains("node 9 does not vote"), "{why}");
    let other = nodes.running.iter().find(|node| !std::ptr::eq(*node, leader)).unwrap();
    let id = other.cluster.status().await.unwrap().group.node;
    leader.cluster.transfer_leader(id).await.unwrap();
    until("it leads", async || leads(other).await).await;
    nodes.must_send("by another").await;
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_start_that_waits_for_its_cluster_can_be_given_up() {
    let nodes = Nodes::begin().await;
    let token = nodes.running[0].cluster.add(false).await.unwrap();
    let config = nodes.joining(token).await;
    nodes.running[0].stop().await;
    let progress = std::sync::Arc::new(StartProgress::default());
    let watched = progress.clone();
    let start = spawn_blocking(move || Node::start_watched(config, &watched));
    until("it is at its end but for the others", async || progress.step().to_string().contains("recovered")).await;
    progress.give_up();
    assert!(matches!(start.await.unwrap(), Err(StartError::GivenUp)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_show_certificates_are_one_cluster() {
    let mut nodes = Nodes::three_with_certificates().await;
    nodes.running.remove(0).stop().await;
    nodes.must_send("secured").await;
    assert_eq!(nodes.bodies("g").await, expected(&["secured"]));
    nodes.stop_all().await;
}
