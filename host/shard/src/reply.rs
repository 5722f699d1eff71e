//! How callers hear, who are tasks of an async runtime.

use tokio::sync::oneshot;
use vouch_broker::NotDone;
use vouch_broker::state::Outcome;

/// A caller who proposed something.
pub struct Reply(oneshot::Sender<Result<Vec<Outcome>, NotDone>>);

impl Reply {
    /// With the end at which the caller waits.
    pub fn new() -> (Self, oneshot::Receiver<Result<Vec<Outcome>, NotDone>>) {
        let (sender, answer) = oneshot::channel();
        (Self(sender), answer)
    }

    /// Tells him. A caller that went away does not change what the log says.
    pub fn send(self, answer: Result<Vec<Outcome>, NotDone>) {
        let _ = self.0.send(answer);
    }
}
