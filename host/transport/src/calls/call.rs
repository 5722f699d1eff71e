//! One call, as its caller, the queue and the connection share it.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::failed::CallFailed;
use crate::share::ShareTaken;

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallStage {
    /// No byte of it was written, and none will be once it is over.
    Queued,
    /// Bytes of it may be with the other.
    Sent,
    /// Its outcome is told, or its caller does not wait any more.
    Over,
}

/// An answer with the room that it takes until the caller has it.
pub(super) type CallAnswer = (Bytes, Option<ShareTaken>);
type Outcome = Result<CallAnswer, CallFailed>;

/// A call. Its stage and what waits for its outcome change together.
#[derive(Debug)]
pub(super) struct SharedCall {
    state: Mutex<(CallStage, Option<oneshot::Sender<Outcome>>)>,
    /// Of the request, until nobody has it any more.
    _room: ShareTaken,
}

impl SharedCall {
    pub(super) fn new(room: ShareTaken) -> (Self, oneshot::Receiver<Outcome>) {
        let (told, outcome) = oneshot::channel();
        (Self { state: Mutex::new((CallStage::Queued, Some(told))), _room: room }, outcome)
    }

    /// It is about to be written. False if it is over, and must not be.
    pub(super) fn send(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 != CallStage::Queued {
            return false;
        }
        state.0 = CallStage::Sent;
        true
    }

    /// It is over, with nobody to tell. Returns how far it was.
    pub(super) fn abandon(&self) -> CallStage {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 = None;
        std::mem::replace(&mut state.0, CallStage::Over)
    }

    /// It is over, and its caller is told.
    pub(super) fn settle(&self, outcome: Outcome) {
        self.settle_by(|_| outcome);
    }

    /// Its connection ended: what that means depends on how far it was.
    pub(super) fn lose(&self, why: &str) {
        self.settle_by(|stage| {
            Err(match stage {
                CallStage::Queued => CallFailed::NotSent(why.to_owned()),
                CallStage::Sent | CallStage::Over => CallFailed::Unknown(why.to_owned()),
            })
        });
    }

    fn settle_by(&self, outcome: impl FnOnce(CallStage) -> Outcome) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stage = std::mem::replace(&mut state.0, CallStage::Over);
        if let Some(told) = state.1.take() {
            // Its caller may have gone this moment.
            let _ = told.send(outcome(stage));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::Share;

    fn call() -> (SharedCall, oneshot::Receiver<Outcome>) {
        SharedCall::new(Share::new(1, 1).take(0).unwrap())
    }

    #[test]
    fn what_was_queued_was_certainly_not_sent_and_of_what_was_sent_nobody_knows() {
        let (queued, mut outcome) = call();
        queued.lose("gone");
        assert_eq!(outcome.try_recv().unwrap().unwrap_err(), CallFailed::NotSent("gone".to_owned()));
        assert!(!queued.send(), "its caller was told that it was not sent, so it never is");

        let (sent, mut outcome) = call();
        assert!(sent.send());
        sent.lose("gone");
        assert_eq!(outcome.try_recv().unwrap().unwrap_err(), CallFailed::Unknown("gone".to_owned()));
    }

    #[test]
    fn a_call_that_is_over_is_not_sent_and_its_outcome_stays() {
        let (call, mut outcome) = call();
        assert_eq!(call.abandon(), CallStage::Queued);
        assert!(!call.send());
        call.settle(Ok((Bytes::new(), None)));
        assert!(outcome.try_recv().is_err());
        let (call, mut outcome) = self::call();
        call.settle(Ok((Bytes::from_static(b"first"), None)));
        call.lose("late");
        assert_eq!(outcome.try_recv().unwrap().unwrap().0, "first");
    }
}
