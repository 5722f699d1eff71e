//! Where files come from.

use std::io;
use std::pin::Pin;

use tokio::io::AsyncRead;

use crate::identity::PeerIdentity;

/// Opens files for peers.
pub trait ServeFiles: Send + Sync + 'static {
    /// Reads what a file holds from the offset on, `len` bytes or to its end. The name is whatever the peer said: it is not to be
    /// believed as a path.
    ///
    /// # Errors
    /// The peer gets the error's words, [`crate::SENTENCE_MAX_BYTES`] of them at most.
    fn open(
        &self,
        peer: PeerIdentity,
        name: &str,
        from: u64,
        len: u64,
    ) -> impl Future<Output = io::Result<impl AsyncRead + Send + Unpin + 'static>> + Send;
}

/// An opened file.
pub(crate) type OpenedSource = Box<dyn AsyncRead + Send + Unpin>;
type Opening<'a> = Pin<Box<dyn Future<Output = io::Result<OpenedSource>> + Send + 'a>>;

/// Any [`ServeFiles`].
pub(crate) trait ServeAnyFiles: Send + Sync + 'static {
    fn open_any<'a>(&'a self, peer: PeerIdentity, name: &'a str, from: u64, len: u64) -> Opening<'a>;
}

impl<T: ServeFiles> ServeAnyFiles for T {
    fn open_any<'a>(&'a self, peer: PeerIdentity, name: &'a str, from: u64, len: u64) -> Opening<'a> {
        Box::pin(async move { Ok(Box::new(self.open(peer, name, from, len).await?) as OpenedSource) })
    }
}
