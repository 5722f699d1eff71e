//! Whether the node lives, whether it serves, and how far its log is.
//!
//! `/healthz` asks nothing of the node, so that a supervisor does not restart one that is only busy; `/readyz` is what
//! a load balancer should ask.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use vouch_node::{Node, NodeHealth, NodeId, NodeRole, NodeStanding};

use super::App;
use super::answer;
use super::problem::Problem;

/// An election is over sooner than that: a group that has no leader for longer cannot elect one.
const ELECTS_WITHIN: Duration = Duration::from_secs(5);

/// A log that works says how it stands well within this.
const SHOWN_WITHIN: Duration = Duration::from_secs(3);

/// `GET /healthz`: the process answers.
pub(crate) async fn alive() -> Json<Value> {
    Json(json!({"status": "alive"}))
}

/// `GET /readyz`: the node takes requests, or 503 with the reason. While it recovers, `starting` answers.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    match app.node.status.health() {
        NodeHealth::Ready if let Some(since) = app.node.cluster.silent().filter(|since| *since > ELECTS_WITHIN) => {
            Err(Problem::expected(
                "urn:vouch:error:log-stalled",
                "The commit log does nothing",
                format!(
                    "the log of this node has done nothing that it was asked for since {} s: look at the disk, and at what the system \
                     says of it (dmesg)",
                    since.as_secs()
                ),
            ))
        }
        // The node's own log has it once.
        NodeHealth::Ready if let Some(since) = leaderless(&app.node) => Err(Problem::expected(
            "urn:vouch:error:no-leader",
            "No node leads",
            format!(
                "this node has known of no leader for {} s, so nothing can be written: a majority of the voters must be there and \
                 reach each other; `vouch cluster status` shows which of them this node reaches, and why not",
                since.as_secs()
            ),
        )),
        NodeHealth::Ready => Ok(Json(json!({"status": "ready"}))),
        NodeHealth::Poisoned(reason) => Err(Problem::not_ready(
            "urn:vouch:error:log-poisoned",
            "The commit log takes no writes",
            format!("the log takes no writes: {reason}"),
        )),
        NodeHealth::ReadOnly(what_to_do) => Err(Problem::not_ready(
            "urn:vouch:error:read-only",
            "The node serves read-only",
            format!("the log is damaged, and what is whole of it can be read and not written: {what_to_do}"),
        )),
        NodeHealth::Stopping => Err(Problem::not_ready(
            "urn:vouch:error:stopping",
            "The node is stopping",
            "the node is stopping; try again in a moment",
        )),
    }
}

/// For how long the node has known of no leader, if that is longer than an election takes. A load balancer that took nodes out for
/// each election would take out all of them at once.
pub(super) fn leaderless(node: &Node) -> Option<Duration> {
    node.cluster.without_leader().filter(|since| *since > ELECTS_WITHIN)
}

/// `GET /v1/cluster`: all nodes, and of each what this one knows. Nobody else is asked, so it is answered as well where no leader is
/// there: that is when it is needed.
pub(crate) async fn show(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    let shown = tokio::time::timeout(SHOWN_WITHIN, standing(&app)).await;
    shown.unwrap_or_else(|_| {
        Err(Problem::expected(
            "urn:vouch:error:log-stalled",
            "The commit log does nothing",
            "the log of this node does not say how it stands: its disk may hang; ask another node",
        ))
    })
}

/// What this node knows of itself and the others: who leads, who decides, how far each of them is. Where it only reads a damaged log
/// it belongs to no group, and knows of itself alone.
///
/// That it is in doubt stands here, too: whoever asks may be about to remove a node, or to let another one take its place.
///
/// # Errors
/// The node stops.
async fn standing(app: &App) -> Result<Json<Value>, Problem> {
    let own = app.node.status.log().await?;
    let node = app.node.identity.node;
    let id: String = app.node.identity.cluster_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let version = env!("CARGO_PKG_VERSION");
    // Whoever only reads belongs to no group.
    if matches!(app.node.status.health(), NodeHealth::ReadOnly(_)) {
        let standing = NodeStanding::new(node, NodeRole::ReadOnly).with_log(own, own.durable);
        let nodes = [document(app, standing)];
        let nobody: [u64; 0] = [];
        return Ok(Json(json!({
            "id": id, "version": version, "feature_level": null, "leader": null, "node": node.0, "voters": nobody, "learners": nobody,
            "nodes": nodes,
        })));
    }
    let view = app.node.cluster.status().await?;
    let members = &view.group.members;
    let ids = |nodes: &BTreeSet<NodeId>| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
    let nodes: Vec<Value> = view.standings(own).into_iter().map(|standing| document(app, standing)).collect();
    let mut shown = json!({
        "id": id,
        "version": version,
        "feature_level": view.feature_level,
        "leader": view.leader().map(|leader| leader.0),
        "term": view.group.term,
        "node": node.0,
        "voters": ids(&members.voters),
        "learners": ids(&members.learners),
        "nodes": nodes,
    });
    if let Some(doubt) = view.doubt {
        shown["doubt"] = doubt.into();
    }
    Ok(Json(shown))
}

/// One node. Of itself it knows where clients reach it, also where it tells nobody.
fn document(app: &App, mut standing: NodeStanding) -> Value {
    if standing.id == app.node.identity.node.0 && standing.grpc.is_none() {
        standing.grpc = Some(app.grpc_addr.to_string());
    }
    let until = standing.invited_until_ms;
    let mut document = serde_json::to_value(standing).expect("numbers and text are written");
    if let Some(until) = until {
        document["invited_until"] = answer::time(until).into();
    }
    document
}
