//! Whether the node lives, whether it serves, and how far its log is.
//!
//! `/healthz` asks nothing of the node, so that a supervisor does not restart one that is only busy; `/readyz` is what
//! a load balancer should ask.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use vouch_node::NodeHealth;

use super::App;
use super::problem::Problem;

/// Number of this node: there is one.
const NODE_ID: u64 = 1;
/// Term of the log: there was no election.
const TERM: u64 = 1;

/// `GET /healthz`: the process answers.
pub(crate) async fn alive() -> Json<Value> {
    Json(json!({"status": "alive"}))
}

/// `GET /readyz`: the node takes requests, or 503 with the reason. While it recovers, `starting` answers.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    match app.node.status.health() {
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

/// `GET /v1/cluster`: one node, which leads itself.
pub(crate) async fn show(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    let numbers = app.node.status.numbers().await?;
    let read_only = matches!(app.node.status.health(), NodeHealth::ReadOnly(_));
    let id: String = app.node.identity.cluster_id.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Json(json!({
        "id": id,
        "version": env!("CARGO_PKG_VERSION"),
        "leader": NODE_ID,
        "term": TERM,
        "nodes": [{
            "id": NODE_ID,
            "role": if read_only { "read-only" } else { "leader" },
            "grpc": app.grpc_addr.to_string(),
            "appended": numbers.appended.0,
            "durable": numbers.durable.0,
            // A majority of one has what the node has.
            "committed": numbers.durable.0,
            "applied": numbers.applied.0,
        }],
    })))
}
