//! The HTTP API: administration, transactions, components, metrics, health (interfaces.md §2).
//!
//! A request goes through these hands: `server` (a place, and room for its answer), `door` (may it come in), `routes`
//! (which path, which parameters, its body as a whole), `forward` (here, or by the node that leads), the handler, and `problem` or `answer`. Handlers are one module
//! for each kind of thing; none of them blocks.

mod answer;
mod app;
mod bindings;
mod cluster;
mod damage;
mod door;
mod forward;
mod groups;
mod kept;
mod logs;
mod members;
mod messages;
mod metrics;
mod outbound;
mod places;
mod plugins;
mod precondition;
mod problem;
mod request;
mod resource;
mod root;
mod routes;
mod secrets;
mod server;
mod span;
mod starting;
mod transactions;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::sync::watch;
use vouch_node::Node;

use crate::grpc::Calls;
use crate::outbound::Outbound;

use app::App;
pub(crate) use door::{Door, Doors};
pub use door::{DoorError, TOKEN_MAX_BYTES};
pub(crate) use outbound::HttpOutbound;
pub use outbound::{HTTP_OUTBOUND_ADDRESS_MAX_BYTES, HTTP_OUTBOUND_MAX_BYTES, SMALL_ANSWER_BYTES};
pub(crate) use places::Places;
pub use places::{IDLE_MIN, PROBE_CONNECTIONS, PROBE_TIMEOUT};
pub(crate) use server::serve;
pub use server::{HTTP_HEAD_TIMEOUT, PROBES};
pub(crate) use starting::Api;

/// The API of a node, until `stopping` says so.
pub(crate) fn router(
    node: Node,
    doors: Arc<Doors>,
    grpc: (SocketAddr, Arc<Outbound>, Arc<Calls>),
    http_outbound: Arc<HttpOutbound>,
    stopping: watch::Receiver<bool>,
) -> Router {
    let app = Arc::new(App::new(node, doors, grpc, http_outbound, stopping));
    let router = routes::router(app.clone());
    forward::serve(&app, &router);
    router
}
