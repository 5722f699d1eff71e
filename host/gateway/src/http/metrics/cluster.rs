//! Metrics of the cluster, as this node knows it.
//!
//! How far others are only the one that leads knows. On the others those samples are missing, and not 0: a sum over all nodes is
//! right whoever leads.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use vouch_node::{ClusterView, NodeStanding, OwnLog};

use super::family::{Family, Labels, Samples};

/// Who leads, how far all are as this node knows, and how it reaches them.
pub(super) fn cluster(registry: &mut Registry, view: &ClusterView, own: OwnLog) {
    let leader = view.leader().map_or(0, |leader| leader.0);
    for (name, help, value) in [
        ("cluster_leads", "1 while this node leads.", u64::from(view.leader() == Some(view.group.node))),
        ("cluster_leader", "Id of the node that leads, as this one knows; 0 where it knows of none.", leader),
        ("cluster_term", "Term of the group, as this node knows", view.group.term),
        ("cluster_voters", "Nodes whose majority decides", view.group.members.voters.len() as u64),
        (
            "cluster_in_doubt",
            "1 while this node knows something else than another one, and nobody knows yet who is right.",
            u64::from(view.doubt.is_some()),
        ),
        ("log_last_index", "Index of the last entry of the log", view.group.last),
        ("log_committed_index", "Index up to which this node knows that entries are committed", view.group.committed),
    ] {
        registry.register(name, help, ConstGauge::new(value));
    }
    let help = "Log position before which this node knows that everything is committed";
    registry.register_with_unit("log_committed", help, Unit::Bytes, ConstGauge::new(view.committed(own).0));
    for (name, help, value) in [
        ("cluster_refused_connections", "Connections of other nodes that were refused", view.refused),
        (
            "cluster_unread_messages",
            "Messages of other nodes that were none of the group, and were dropped",
            view.unread,
        ),
        (
            "cluster_crowded_out_messages",
            "Messages of the group that were dropped because too many waited",
            view.crowded_out,
        ),
    ] {
        registry.register(name, help, ConstCounter::new(value));
    }
    each(registry, &view.standings(own));
}

/// Until when the others believe this node.
pub(super) fn certificate(registry: &mut Registry, until: Option<SystemTime>) {
    let seconds = until.map(|until| until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    let samples = Samples::Gauges(seconds.map(|seconds| (Labels::new(), seconds)).into_iter().collect());
    let help = "When the certificate that this node shows to the others ends, in seconds since 1970; missing where it shows none";
    let (name, unit) = ("cluster_certificate_end", Some(Unit::Seconds));
    registry.register_collector(Box::new(Family { name, help, unit, samples }));
}

/// What is known of single nodes. There are 32 at most, so the label is bounded.
fn each(registry: &mut Registry, nodes: &[NodeStanding]) {
    let of = |value: fn(&NodeStanding) -> Option<f64>| {
        let sample = |node: &NodeStanding| Some((vec![("node", node.id.to_string())], value(node)?));
        Samples::Gauges(nodes.iter().filter_map(sample).collect::<Vec<(Labels, f64)>>())
    };
    for (name, help, unit, samples) in [
        (
            "cluster_follower_lag",
            "By how much the durable log of another node is shorter than this one's; told by the node that leads",
            Some(Unit::Bytes),
            of(|node| node.lag_bytes.map(|lag| lag as f64)),
        ),
        (
            "cluster_follower_heard",
            "1 while another node answers this one; told by the node that leads.",
            None,
            of(|node| node.heard.map(|heard| f64::from(u8::from(heard)))),
        ),
        (
            "cluster_peer_connected",
            "1 while this node has a connection to another one.",
            None,
            of(|node| node.connected.map(|connected| f64::from(u8::from(connected)))),
        ),
    ] {
        registry.register_collector(Box::new(Family { name, help, unit, samples }));
    }
}
