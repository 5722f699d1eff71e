//! Making calls.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::call::{CallAnswer, CallStage, SharedCall};
use super::failed::CallFailed;
use super::outbox::CallOutbox;
use crate::frame::FRAME_MAX_BYTES;
use crate::link::{LinkHandle, LinkState};

/// Calls one node. Copies are the same link; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct Caller(Arc<LinkHandle<CallOutbox>>);

impl Caller {
    pub(crate) fn new(handle: Arc<LinkHandle<CallOutbox>>) -> Self {
        Self(handle)
    }

    /// Sends a request, the pieces being its parts, and waits for the answer until the deadline. The deadline goes along, so
    /// that the other does not work for nobody. Dropping the future tells the other to drop its own.
    ///
    /// # Errors
    /// See [`CallFailed`]: whether a handler may have seen the request is always told apart.
    pub async fn call(&self, pieces: Vec<Bytes>, deadline: Instant) -> Result<Bytes, CallFailed> {
        let outbox = &self.0.outbox;
        let length: usize = pieces.iter().map(Bytes::len).sum();
        if length > FRAME_MAX_BYTES {
            return Err(CallFailed::NotSent(format!("{length} bytes are more than {FRAME_MAX_BYTES}")));
        }
        let queued = outbox.queue(pieces, length, deadline);
        let (number, call, outcome) = queued.inspect_err(|_| outbox.count_dropped())?;
        CallUnderway { outbox, number, call: &call }.wait(outcome, deadline).await
    }

    /// How the link stands now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.0.state.borrow().clone()
    }

    /// Hears of each change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<LinkState> {
        self.0.state.clone()
    }
}

/// A call that somebody waits for. Dropping it gives the call up.
struct CallUnderway<'a> {
    outbox: &'a CallOutbox,
    number: u64,
    call: &'a SharedCall,
}

impl CallUnderway<'_> {
    async fn wait(
        self,
        outcome: oneshot::Receiver<Result<CallAnswer, CallFailed>>,
        deadline: Instant,
    ) -> Result<Bytes, CallFailed> {
        match timeout_at(deadline, outcome).await {
            Ok(Ok(outcome)) => outcome.map(|(answer, _room)| answer),
            // Nobody drops a call without telling; if somebody did, nothing would be known.
            Ok(Err(_)) => Err(CallFailed::Unknown("the call was dropped".to_owned())),
            Err(_) => Err(match self.give_up() {
                CallStage::Queued => CallFailed::NotSent("its deadline passed before it was its turn".to_owned()),
                CallStage::Sent | CallStage::Over => CallFailed::Unknown("its deadline passed".to_owned()),
            }),
        }
    }

    fn give_up(&self) -> CallStage {
        let stage = self.call.abandon();
        self.outbox.forget(self.number, stage == CallStage::Sent);
        stage
    }
}

impl Drop for CallUnderway<'_> {
    fn drop(&mut self) {
        self.give_up();
    }
}
