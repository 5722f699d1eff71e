//! Who answers requests.

use std::pin::Pin;

use bytes::Bytes;
use tokio::time::Instant;

use crate::identity::PeerIdentity;

/// Answers the requests of peers.
///
/// # To ensure correctness
///
/// The future is dropped, at any point where it waits, when the caller does so with its own, when the deadline is over, when the
/// connection ends and when the listener stops. What must not be left half done belongs on a task of its own.
pub trait Serve: Send + Sync + 'static {
    /// Answers one request, in [`crate::FRAME_MAX_BYTES`] at most. `deadline` is the caller's, by this node's clock, less the
    /// time that the request was on its way.
    fn serve(&self, from: PeerIdentity, request: Bytes, deadline: Instant) -> impl Future<Output = Bytes> + Send;
}

/// An answer on its way.
pub(crate) type Serving<'a> = Pin<Box<dyn Future<Output = Bytes> + Send + 'a>>;

/// Any [`Serve`].
pub(crate) trait ServeAny: Send + Sync + 'static {
    fn serve_any(&self, from: PeerIdentity, request: Bytes, deadline: Instant) -> Serving<'_>;
}

impl<T: Serve> ServeAny for T {
    fn serve_any(&self, from: PeerIdentity, request: Bytes, deadline: Instant) -> Serving<'_> {
        Box::pin(self.serve(from, request, deadline))
    }
}
