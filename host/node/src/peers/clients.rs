//! Who does what clients of other nodes ask for. What that is stands in bytes here: `forwarding` reads them.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use vouch_cluster::NodeId;

use super::calls::NodeAnswer;

/// What became of the call of a client at the node that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientAnswer {
    /// It was heard; what came of it. From who serves it with what stands before it ([`answer_bytes`]): it is not copied again.
    Answered(Bytes),
    /// It was not, for this reason: certainly nothing was stored.
    NothingStored(String),
}

/// An answer as it goes to the other node; `write` adds what it says.
pub(crate) fn answer_bytes(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = NodeAnswer::BEFORE_A_CLIENT.to_vec();
    write(&mut bytes);
    bytes.into()
}

/// An answer on its way.
pub(crate) type ClientAnswering = Pin<Box<dyn Future<Output = ClientAnswer> + Send>>;

/// Does what the clients of other nodes ask for. The future is dropped where nobody waits for its answer any more.
pub(crate) trait ServeClients: Send + Sync {
    fn serve(&self, from: NodeId, request: Bytes, deadline: Instant) -> ClientAnswering;
}

/// Who does that, from when the node serves until it stops.
#[derive(Default)]
pub(crate) struct ClientCalls(RwLock<Option<Arc<dyn ServeClients>>>);

impl ClientCalls {
    /// From now on this one.
    pub(crate) fn begin(&self, serves: Arc<dyn ServeClients>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(serves);
    }

    /// From now on nobody.
    pub(super) fn end(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) async fn serve(&self, from: NodeId, request: Bytes, deadline: Instant) -> ClientAnswer {
        let serves = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        match serves {
            Some(serves) => serves.serve(from, request, deadline).await,
            None => ClientAnswer::NothingStored("it does not serve clients now; ask again in a moment".to_owned()),
        }
    }
}
