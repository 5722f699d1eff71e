//! Nodes whose disks are full: what is sent must fit on those of a majority, and who has room leads.

use std::sync::Arc;

use vouch_broker::{NotDone, NothingStored, ResourceName};
use vouch_node::{Node, NodeConfig, Receipt, SendRequest};

use crate::common::{message, receive_now};
use crate::nodes::{Nodes, started, until};

const SEGMENT: u64 = 4 << 20;

/// Bytes of one message of those that fill the logs.
const BODY: usize = 1 << 20;

/// Three nodes whose logs have more than four segments: those can be full.
async fn three_that_hold_much() -> Nodes {
    let nodes = Nodes::three().await;
    let body = "m".repeat(BODY);
    for at in 0..5 * SEGMENT / BODY as u64 {
        sent(nodes.leader().await, &format!("much{at}"), &body).await.unwrap();
    }
    nodes
}

async fn sent(node: &Node, id: &str, body: &str) -> Result<Vec<Receipt>, NotDone> {
    let (topic, producer) = (ResourceName::plain("t"), "p".to_owned());
    node.messages.send(SendRequest { topic, producer, messages: vec![message(id, body)] }).await
}

/// Where a node runs.
fn place(nodes: &Nodes, node: &Node) -> usize {
    nodes.running.iter().position(|running| Arc::ptr_eq(&running.status, &node.status)).unwrap()
}

impl Nodes {
    async fn id_of(&self, node: &Node) -> u64 {
        node.cluster.status().await.unwrap().group.node.0
    }

    /// Starts a node again whose log may take no more than it has, or as much as it wants.
    async fn start_again(&mut self, node: &Node, is_full: bool) {
        let (at, id) = (place(self, node), self.id_of(node).await);
        self.running.remove(at).stop().await;
        let mut config = NodeConfig { segment_size: Some(SEGMENT), ..self.config(id) };
        if is_full {
            // The least that a log of such segments may take: one percent of it is less than what was sent before.
            (config.disk_limit, config.disk_high_water) = (Some(4 * SEGMENT * 100), 1);
        }
        let node = started(config).await.unwrap();
        self.running.push(node);
    }

    /// The ids of those that do not lead.
    async fn followers_ids(&self) -> Vec<u64> {
        let leader = self.id_of(self.leader().await).await;
        (1..=3).filter(|id| *id != leader).collect()
    }

    async fn by_id(&self, id: u64) -> Node {
        for node in &self.running {
            if self.id_of(node).await == id {
                return node.clone();
            }
        }
        panic!("node {id} does not run")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sends_are_refused_while_a_majority_is_full_and_acknowledgements_go_on() {
    let mut nodes = three_that_hold_much().await;
    let received = receive_now(nodes.leader().await, "t", "g").await;
    let [one, other] = nodes.followers_ids().await[..] else { panic!("two follow") };
    nodes.start_again(&nodes.by_id(one).await, true).await;
    until("one that is full stops nobody", async || sent(nodes.leader().await, "after", "b").await.is_ok()).await;
    nodes.start_again(&nodes.by_id(other).await, true).await;
    until("sends are refused", async || {
        matches!(
            sent(nodes.leader().await, "refused", "b").await,
            Err(NotDone::NothingStored(NothingStored::StorageFull(why))) if why.contains("majority of 3")
        )
    })
    .await;
    let handles: Vec<_> = received.iter().map(|delivery| delivery.handle).collect();
    let acked = nodes.leader().await.messages.ack(&handles).await.unwrap();
    assert!(acked.iter().all(Result::is_ok));
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_is_full_lets_another_lead_that_has_room() {
    let mut nodes = three_that_hold_much().await;
    let id = nodes.followers_ids().await[0];
    nodes.start_again(&nodes.by_id(id).await, true).await;
    let full = nodes.by_id(id).await;
    let leader = nodes.leader().await.clone();
    until("it may be handed to it", async || leader.cluster.transfer_leader(vouch_cluster::NodeId(id)).await.is_ok())
        .await;
    until("one leads that has room", async || {
        !full.cluster.leads() && full.cluster.leader().is_some_and(|leader| leader.0 != id)
    })
    .await;
    until("sends go on", async || sent(&full, "on", "b").await.is_ok()).await;
    nodes.stop_all().await;
}
