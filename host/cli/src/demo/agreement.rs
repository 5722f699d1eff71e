//! What each node of a cluster has, as it says itself: all must have the same.
//!
//! Lists of messages and what a binding keeps are answered by the node that is asked, from its own log.

use std::collections::BTreeSet;

use anyhow::Context;

use super::nodes::{DemoNode, knows_of};
use super::sales::{self, RESERVATIONS};
use super::stage::{DemoStage, TOPIC};
use crate::http::{HttpClient, query};
use crate::resource;

/// Messages of a page.
const PAGE: &str = "1000";

/// What one node has.
#[derive(Clone, Debug)]
pub(super) struct NodeEvidence {
    /// What the transcript calls it.
    pub(super) node: String,
    /// Orders that consumers can see.
    pub(super) orders: Vec<Placed>,
    /// Reservations that they can see.
    pub(super) reservations: Vec<Placed>,
    /// Lamps that are left.
    pub(super) left: Option<i64>,
}

/// A message in its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Placed {
    /// Queue and offset, as the API writes them.
    pub(super) place: String,
    /// Its id.
    pub(super) id: String,
}

/// Asks each node by itself, when it has applied all that the one that leads has; none where there is one alone.
pub(super) fn ask(stage: &mut DemoStage) -> anyhow::Result<Vec<NodeEvidence>> {
    if !stage.nodes.are_several() {
        return Ok(Vec::new());
    }
    let leader = stage.until_led()?;
    stage.until_seen("all nodes to have applied the log", |_| {
        let applied = applied(stage.nodes.node(leader.at)).unwrap_or(u64::MAX);
        Ok(stage.nodes.all().iter().all(|node| self::applied(node) >= Some(applied)).then_some(()))
    })?;
    stage.nodes.all().iter().map(said_by).collect()
}

/// Up to where a node says that it has applied the log, in bytes.
fn applied(node: &DemoNode) -> Option<u64> {
    let standing = node.standing()?;
    knows_of(&standing, node.id)?["applied"].as_u64()
}

fn said_by(node: &DemoNode) -> anyhow::Result<NodeEvidence> {
    Ok(NodeEvidence {
        node: node.name.clone(),
        orders: visible(&node.http, TOPIC)?,
        reservations: visible(&node.http, RESERVATIONS)?,
        left: sales::left(&node.http)?,
    })
}

/// Everything in the queues of a topic.
fn visible(http: &HttpClient, topic: &str) -> anyhow::Result<Vec<Placed>> {
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = query(&[("limit", Some(PAGE)), ("after", after.as_deref())]);
        let list = http.get(&format!("/v1/messages/{topic}{page}"))?.body;
        for message in resource::items(&list) {
            let id = message["id"].as_str().context("a message has no id")?.to_owned();
            all.push(Placed { place: message["place"].to_string(), id });
        }
        after = list["next"].as_str().map(str::to_owned);
        if after.is_none() {
            all.sort();
            return Ok(all);
        }
    }
}

/// What nodes say otherwise than the first of them, and whether that is what it should be: so many orders, so many reservations.
pub(super) fn faults(nodes: &[NodeEvidence], orders: usize, reservations: usize) -> Vec<String> {
    let mut faults = Vec::new();
    let Some(first) = nodes.first() else { return faults };
    for node in nodes {
        let NodeEvidence { node: who, orders: has, reservations: reserved, left } = node;
        if (has.len(), reserved.len()) != (orders, reservations) {
            faults.push(format!("{who} has {} orders and {} reservations", has.len(), reserved.len()));
        }
        if ids(has) < has.len() || ids(reserved) < reserved.len() {
            faults.push(format!("{who} has a message twice"));
        }
        if (has, reserved, left) != (&first.orders, &first.reservations, &first.left) {
            faults.push(format!("{who} does not have what {} has", first.node));
        }
    }
    faults
}

/// Messages that differ.
fn ids(messages: &[Placed]) -> usize {
    messages.iter().map(|message| &message.id).collect::<BTreeSet<_>>().len()
}

/// The heading of the table, and a line for each node.
pub(super) fn table(nodes: &[NodeEvidence]) -> Vec<String> {
    let line = |[node, orders, reservations, left]: [&str; 4]| {
        format!("  {node:<7}  {orders:>6}  {reservations:>12}  {left:>10}")
    };
    let mut lines = vec![line(["node", "orders", "reservations", "lamps left"])];
    for node in nodes {
        let left = node.left.map_or_else(|| "-".to_owned(), |left| left.to_string());
        let counts = [node.orders.len(), node.reservations.len()].map(|count| count.to_string());
        lines.push(line([&node.node, &counts[0], &counts[1], &left]));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn placed(offset: u32, id: &str) -> Placed {
        Placed { place: json!({"queue": 0, "offset": offset}).to_string(), id: id.to_owned() }
    }

    fn three() -> [NodeEvidence; 3] {
        [1, 2, 3].map(|number| NodeEvidence {
            node: format!("node {number}"),
            orders: vec![placed(0, "a"), placed(1, "b")],
            reservations: vec![placed(0, "c")],
            left: Some(4),
        })
    }

    #[test]
    fn nodes_that_have_the_same_and_all_of_it_agree() {
        assert_eq!(faults(&three(), 2, 1), Vec::<String>::new());
        assert_eq!(faults(&[], 2, 1), Vec::<String>::new(), "one alone is not asked");
        let all = table(&three());
        assert_eq!(all.len(), 4);
        assert_eq!(all[1].split_whitespace().collect::<Vec<_>>(), ["node", "1", "2", "1", "4"]);
    }

    #[test]
    fn a_node_that_lacks_something_or_has_it_elsewhere_does_not_agree() {
        let mut lacks = three();
        lacks[1].orders.pop();
        assert_eq!(
            faults(&lacks, 2, 1),
            ["node 2 has 1 orders and 1 reservations", "node 2 does not have what node 1 has"]
        );
        let mut elsewhere = three();
        elsewhere[2].orders[1].place = json!({"queue": 1, "offset": 0}).to_string();
        assert_eq!(faults(&elsewhere, 2, 1), ["node 3 does not have what node 1 has"]);
        let mut counted = three();
        counted[2].left = None;
        assert_eq!(faults(&counted, 2, 1), ["node 3 does not have what node 1 has"]);
    }

    #[test]
    fn what_all_lack_or_have_twice_is_found_as_well() {
        assert_eq!(faults(&three(), 3, 1).len(), 3);
        let twice = three().map(|node| NodeEvidence { orders: vec![placed(0, "a"), placed(1, "a")], ..node });
        assert_eq!(
            faults(&twice, 2, 1),
            ["node 1 has a message twice", "node 2 has a message twice", "node 3 has a message twice"]
        );
    }
}
