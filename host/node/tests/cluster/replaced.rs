//! Nodes whose places others take: one that is gone for good, and one that leads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vouch_broker::record::{Frame, MembersChanged, Record};
use vouch_broker::{NotDone, NothingStored};
use vouch_cluster::{MembersChange, NodeId};
use vouch_commitlog::{EntryKind, LogFolder, LogPosition};

use crate::nodes::{Nodes, expected, leads, try_send, until, voters};

/// Who votes after each step that the log of a stopped node tells, as far as a step changes that.
fn steps(data: &Path) -> Vec<Vec<u64>> {
    let log = LogFolder::open(&data.join("shards/0/log")).unwrap();
    let entries = log.entries(LogPosition(0), LogPosition::BEYOND).unwrap().map(Result::unwrap);
    let mut steps: Vec<Vec<u64>> = Vec::new();
    for entry in entries.filter(|entry| entry.kind == EntryKind::Members) {
        let (frame, _) = Frame::split(&entry.payload).unwrap();
        let Record::MembersChanged(MembersChanged { change }) = Record::decode(&frame).unwrap() else { continue };
        let MembersChange::To { voters, .. } = change else { continue };
        let voters: Vec<u64> = voters.into_iter().map(|node| node.0).collect();
        if steps.last() != Some(&voters) {
            steps.push(voters);
        }
    }
    steps
}

impl Nodes {
    /// Lets a new node take the place of this one.
    async fn replace(&mut self, old: u64) -> NodeId {
        let token = self.leader().await.cluster.replace(NodeId(old), "ann", "it is old").await.unwrap();
        let node = token.node();
        self.join(token).await.unwrap();
        node
    }

    fn take(&mut self, id: u64) -> vouch_node::Node {
        let at = self.running.iter().position(|node| node.identity.node == NodeId(id)).unwrap();
        self.running.remove(at)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_is_dead_is_replaced_and_then_the_one_that_leads_each_by_one_command() {
    let mut nodes = Nodes::three().await;
    let unknown = nodes.leader().await.cluster.replace(NodeId(9), "ann", "").await.unwrap_err().to_string();
    assert!(unknown.contains("the cluster has no node 9"), "{unknown}");
    let leader = nodes.leader().await;
    if leader.identity.node == NodeId(2) {
        leader.cluster.transfer_leader(NodeId(1)).await.unwrap();
        until("node 1 leads", async || leads(&nodes.running[0]).await).await;
    }
    nodes.take(2).stop().await;
    assert_eq!(nodes.replace(2).await, NodeId(4));
    nodes.must_send("while it comes").await;
    nodes.come_to(&voters(&[1, 3, 4])).await;
    let view = nodes.leader().await.cluster.status().await.unwrap();
    assert!(view.nodes.is_gone(NodeId(2)) && view.nodes.nodes[&NodeId(4)].replaces.is_none());

    // One that leads, while messages are sent by another one.
    let leader = nodes.leader().await.identity.node.0;
    let sender = nodes.running.iter().find(|node| node.identity.node.0 != leader).unwrap().clone();
    let stops = Arc::new(AtomicBool::new(false));
    let ended = stops.clone();
    let sending = tokio::spawn(async move {
        let mut sent = Vec::new();
        while !ended.load(Ordering::Relaxed) {
            let id = format!("sent {}", sent.len());
            match try_send(&sender, &id).await {
                Ok(_) => sent.push(id),
                Err(NotDone::Unknown(_) | NotDone::NothingStored(NothingStored::NotLeading { .. })) => {}
                Err(why) => panic!("{why}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sent
    });
    assert_eq!(nodes.replace(leader).await, NodeId(5));
    let rest: Vec<u64> = [1, 3, 4, 5].into_iter().filter(|node| *node != leader).collect();
    let old = nodes.take(leader);
    until("another one leads, and node 5 votes", async || {
        let group = nodes.leader().await.cluster.status().await.unwrap().group;
        group.members == voters(&rest)
    })
    .await;
    stops.store(true, Ordering::Relaxed);
    let sent = sending.await.unwrap();
    assert!(!sent.is_empty());
    until("it hears that it was replaced", async || !leads(&old).await).await;
    old.stop().await;
    nodes.come_to(&voters(&rest)).await;
    let more: Vec<&str> = sent.iter().map(String::as_str).chain(["while it comes"]).collect();
    // One that nobody knew of may be there as well.
    assert!(nodes.bodies("g").await.is_superset(&expected(&more)));

    let data = nodes.folder.path().join(nodes.running[0].identity.node.to_string());
    for node in &nodes.running {
        node.stop().await;
    }
    assert_eq!(steps(&data), [vec![1], vec![1, 2, 3], vec![1, 3, 4], rest], "each place was taken in one step");
}
