//! The HTTP API: administration, transactions, components, metrics, health (interfaces.md §2).

mod answer;
mod bindings;
mod cluster;
mod damage;
mod door;
mod groups;
mod logs;
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
mod server;
mod starting;
mod transactions;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use vouch_broker::NothingStored;
use vouch_node::Node;

use crate::grpc::Calls;
use crate::outbound::Outbound;

pub(crate) use door::{Door, Doors};
pub use door::{DoorError, TOKEN_MAX_BYTES};
pub(crate) use outbound::HttpOutbound;
pub use outbound::{HTTP_OUTBOUND_ADDRESS_MAX_BYTES, HTTP_OUTBOUND_MAX_BYTES, SMALL_ANSWER_BYTES};
pub(crate) use places::Places;
pub use places::{IDLE_MIN, PROBE_CONNECTIONS, PROBE_TIMEOUT};
use problem::Problem;
pub(crate) use server::serve;
pub use server::{HTTP_HEAD_TIMEOUT, PROBES};
pub(crate) use starting::Api;

/// Uploads of components at once: each holds its file in memory.
const UPLOADS_MAX: usize = 4;
/// Readers of logs at once: each holds a connection and looks for new lines again and again.
const LOG_READERS_MAX: usize = 64;
/// Pages of messages that are made at once: each takes some tens of megabytes, and decompresses bodies.
const MESSAGE_PAGES_MAX: usize = 2;

/// What all requests share.
pub(crate) struct App {
    node: Node,
    doors: Arc<Doors>,
    /// Where gRPC clients connect.
    grpc_addr: SocketAddr,
    /// What waits to be written there.
    grpc_outbound: Arc<Outbound>,
    /// And here.
    http_outbound: Arc<HttpOutbound>,
    /// What was answered there.
    calls: Arc<Calls>,
    uploads: Arc<Semaphore>,
    log_readers: Arc<Semaphore>,
    message_pages: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl App {
    fn upload_place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        place(&self.uploads, || format!("{UPLOADS_MAX} components are being uploaded; wait for one to finish"))
    }

    fn log_reader_place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        place(&self.log_readers, || format!("{LOG_READERS_MAX} readers follow logs already; end one of them"))
    }
}

fn place(places: &Arc<Semaphore>, full: impl FnOnce() -> String) -> Result<OwnedSemaphorePermit, Problem> {
    places.clone().try_acquire_owned().map_err(|_| NothingStored::TooMany(full()).into())
}

/// The API of a node, until `stopping` says so.
pub(crate) fn router(
    node: Node,
    doors: Arc<Doors>,
    (grpc_addr, grpc_outbound, calls): (SocketAddr, Arc<Outbound>, Arc<Calls>),
    http_outbound: Arc<HttpOutbound>,
    stopping: watch::Receiver<bool>,
) -> Router {
    routes::router(Arc::new(App {
        node,
        doors,
        grpc_addr,
        grpc_outbound,
        http_outbound,
        calls,
        uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
        log_readers: Arc::new(Semaphore::new(LOG_READERS_MAX)),
        message_pages: Arc::new(Semaphore::new(MESSAGE_PAGES_MAX)),
        stopping,
    }))
}
