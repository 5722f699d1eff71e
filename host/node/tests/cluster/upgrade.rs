//! A cluster whose nodes get another version one after the other. A node of the version before is one that knows a lower feature level:
//! what else there was in that version, tests of a real one say.

use vouch_broker::NotDone;
use vouch_broker::record::FEATURE_LEVEL;
use vouch_cluster::NodeId;
use vouch_node::{Node, NodeConfig};

use crate::nodes::{Nodes, address, expected, refused, started, until, voters};

/// What the version before knew.
const BEFORE: u32 = FEATURE_LEVEL - 1;

impl Nodes {
    /// The nodes that run now are of the version before, and so is their log.
    async fn of_the_version_before() -> Self {
        let mut nodes = Self::begin_with(BEFORE).await;
        nodes.become_three().await;
        nodes
    }

    /// Stops a node and starts it with another version, in the same place.
    async fn restart(&mut self, id: u64, knows: u32) {
        let at = self.running.iter().position(|node| node.identity.node.0 == id).unwrap();
        let node = self.running.remove(at);
        let listens = address(&node).await;
        node.stop().await;
        self.knows.insert(id, knows);
        self.come_back(id, &listens).await;
        self.come_to(&voters(&[1, 2, 3])).await;
    }

    /// Lets a node lead.
    async fn lead(&self, id: u64) {
        let leader = self.leader().await;
        if leader.identity.node != NodeId(id) {
            leader.cluster.transfer_leader(NodeId(id)).await.unwrap();
        }
    }

    /// Lets an operator finish the upgrade: what the cluster says, when it knows what its nodes run.
    async fn finish(&self) -> Result<(u32, u32), String> {
        let mut answer = Err(String::new());
        until("all have said what they run", async || {
            answer = match self.leader().await.cluster.finish_upgrade("ann").await {
                Ok(finished) => Ok((finished.from, finished.to)),
                Err(NotDone::Refused(why)) => Err(why.to_string()),
                Err(why) => Err(why.to_string()),
            };
            let passes = |why: &String| {
                ["a moment ago", "does not lead", "is not connected"].iter().any(|part| why.contains(part))
            };
            !answer.as_ref().is_err_and(passes)
        })
        .await;
        answer
    }
}

async fn level(node: &Node) -> u32 {
    node.cluster.status().await.unwrap().feature_level
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_get_another_version_one_by_one_and_may_go_back_until_an_operator_says_that_none_will() {
    let mut nodes = Nodes::of_the_version_before().await;
    let nothing = nodes.finish().await.unwrap_err();
    let newest = format!("at feature level {BEFORE}, the newest that this node's version knows");
    assert!(nothing.contains(&newest), "{nothing}");
    // Two of them, of which one goes back, and all the while messages are stored.
    let mut sent = Vec::new();
    for (id, knows) in [(3, FEATURE_LEVEL), (2, FEATURE_LEVEL), (3, BEFORE)] {
        nodes.restart(id, knows).await;
        sent.push(format!("node {id} knows {knows}"));
        nodes.must_send(&sent[sent.len() - 1]).await;
    }
    nodes.restart(1, FEATURE_LEVEL).await;
    nodes.lead(2).await;
    let early = nodes.finish().await.unwrap_err();
    let upgrade_it = format!("feature level {BEFORE}: upgrade it first");
    assert!(early.contains("node 3 runs Vouch") && early.contains(&upgrade_it), "{early}");
    for node in &nodes.running {
        assert_eq!(level(node).await, BEFORE);
    }
    nodes.restart(3, FEATURE_LEVEL).await;
    assert_eq!(nodes.finish().await, Ok((BEFORE, FEATURE_LEVEL)));
    nodes.must_send("after").await;
    until("all know of it", async || {
        let mut all = true;
        for node in &nodes.running {
            all &= level(node).await == FEATURE_LEVEL;
        }
        all
    })
    .await;
    let again = nodes.finish().await.unwrap_err();
    assert!(again.contains("there is no upgrade to finish"), "{again}");

    // None goes back, and none comes that would not know what the log says.
    let (at, token) = (nodes.running.len() - 1, nodes.leader().await.cluster.add(true).await.unwrap());
    let joins = nodes.joining(token.clone()).await;
    let older = refused(NodeConfig { feature_level: BEFORE, ..joins.clone() }).await;
    assert!(older.contains("node 4 runs Vouch") && older.contains("start a newer version there"), "{older}");
    nodes.running.push(started(joins).await.unwrap());
    nodes.come_to(&voters(&[1, 2, 3, 4])).await;
    let node = nodes.running.remove(at);
    let id = node.identity.node.0;
    node.stop().await;
    let back = refused(NodeConfig { feature_level: BEFORE, ..nodes.config(id) }).await;
    let needs = format!("needs feature level {FEATURE_LEVEL}");
    assert!(back.contains(&needs) && back.contains("start a newer version"), "{back}");
    sent.push("after".to_owned());
    let sent: Vec<&str> = sent.iter().map(String::as_str).collect();
    assert_eq!(nodes.bodies("g").await, expected(&sent));
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_upgrade_is_not_finished_while_nobody_knows_what_a_node_runs() {
    let mut nodes = Nodes::of_the_version_before().await;
    for id in [3, 2, 1] {
        nodes.restart(id, FEATURE_LEVEL).await;
    }
    nodes.lead(1).await;
    let at = nodes.running.iter().position(|node| node.identity.node == NodeId(3)).unwrap();
    let away = nodes.running.remove(at);
    away.stop().await;
    let leader = nodes.leader().await;
    until("it is missed, and the other one has said what it runs", async || {
        let programs = leader.cluster.status().await.unwrap().programs;
        !programs.contains_key(&NodeId(3)) && programs.contains_key(&NodeId(2))
    })
    .await;
    let missing = leader.cluster.finish_upgrade("ann").await.unwrap_err().to_string();
    assert!(missing.contains("node 3 is not connected") && missing.contains("start it, or remove it"), "{missing}");
    assert_eq!(level(leader).await, BEFORE);
    leader.cluster.remove(NodeId(3), "ann", "it is gone").await.unwrap();
    nodes.come_to(&voters(&[1, 2])).await;
    assert_eq!(nodes.finish().await, Ok((BEFORE, FEATURE_LEVEL)));
    nodes.stop_all().await;
}
