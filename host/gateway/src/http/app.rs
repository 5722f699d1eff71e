//! What all requests share, and how many of the costly ones there may be at once.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use vouch_broker::NothingStored;
use vouch_node::Node;

use super::door::Doors;
use super::outbound::HttpOutbound;
use super::problem::Problem;
use crate::grpc::Calls;
use crate::outbound::Outbound;

/// Uploads of components at once: each holds its file in memory.
const UPLOADS_MAX: usize = 4;
/// Readers of logs at once: each holds a connection and looks for new lines again and again.
const LOG_READERS_MAX: usize = 64;
/// Pages of messages that are made at once: each takes some tens of megabytes, and decompresses bodies.
const MESSAGE_PAGES_MAX: usize = 2;

/// What all requests share.
pub(crate) struct App {
    /// Does what is asked for.
    pub(super) node: Node,
    /// Who may come in.
    pub(super) doors: Arc<Doors>,
    /// Where gRPC clients connect.
    pub(super) grpc_addr: SocketAddr,
    /// What waits to be written there.
    pub(super) grpc_outbound: Arc<Outbound>,
    /// And here.
    pub(super) http_outbound: Arc<HttpOutbound>,
    /// What was answered there.
    pub(super) calls: Arc<Calls>,
    /// Turns for uploads.
    uploads: Arc<Semaphore>,
    /// Turns for readers of logs.
    log_readers: Arc<Semaphore>,
    /// Turns for pages of messages, which wait for each other; the other two refuse instead.
    pub(super) message_pages: Arc<Semaphore>,
    /// Ends what would go on for ever.
    pub(super) stopping: watch::Receiver<bool>,
}

impl App {
    /// For the API of a node, until `stopping` says so.
    pub(super) fn new(
        node: Node,
        doors: Arc<Doors>,
        (grpc_addr, grpc_outbound, calls): (SocketAddr, Arc<Outbound>, Arc<Calls>),
        http_outbound: Arc<HttpOutbound>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
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
        }
    }

    /// # Errors
    /// As many upload already; the caller should try again.
    pub(super) fn upload_place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        place(&self.uploads, || format!("{UPLOADS_MAX} components are being uploaded; wait for one to finish"))
    }

    /// # Errors
    /// As many read already.
    pub(super) fn log_reader_place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        place(&self.log_readers, || format!("{LOG_READERS_MAX} readers follow logs already; end one of them"))
    }
}

/// A turn that is free now.
fn place(places: &Arc<Semaphore>, full: impl FnOnce() -> String) -> Result<OwnedSemaphorePermit, Problem> {
    places.clone().try_acquire_owned().map_err(|_| NothingStored::TooMany(full()).into())
}
