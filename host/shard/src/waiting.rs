//! How callers wait for messages, and how the shard learns that one went away.
//!
//! A caller has one end and the shard the other, and either may go first. The shard finds out when it answers; a caller says
//! so, since an answer may be half a minute away, and until then his place in a line would be taken from others.

use std::sync::Arc;

use tokio::sync::oneshot;
use vouch_leader::{Batch, ReceiveAnswer, Waiter};

use crate::core::Request;
use crate::inbox::Inbox;

/// A caller who waits for messages.
pub(crate) struct WaitingTask {
    /// By which his other end names him when he goes away.
    number: u64,
    /// To him.
    answer: oneshot::Sender<ReceiveAnswer>,
}

impl Waiter for WaitingTask {
    fn number(&self) -> u64 {
        self.number
    }

    fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }

    fn answer(self: Box<Self>, answer: ReceiveAnswer) -> Result<(), Batch> {
        match self.answer.send(answer) {
            Err(Ok(Some(batch))) => Err(batch),
            _ => Ok(()),
        }
    }
}

/// Where a caller waits for messages. Dropped before he heard, it tells the shard: nothing is kept for who went away.
pub(crate) struct Waits {
    /// Of the shard.
    inbox: Arc<Inbox>,
    /// As the shard knows him.
    number: u64,
    /// From the shard.
    answer: oneshot::Receiver<ReceiveAnswer>,
    /// It came, or nobody is there to send it: there is nothing to tell.
    heard: bool,
}

impl Waits {
    /// With the end that the shard has of it. `number`: higher than those of all who came before.
    pub(crate) fn new(inbox: Arc<Inbox>, number: u64) -> (WaitingTask, Self) {
        let (sender, answer) = oneshot::channel();
        (WaitingTask { number, answer: sender }, Self { inbox, number, answer, heard: false })
    }

    /// The answer; `None` where the shard is gone.
    pub(crate) async fn answer(mut self) -> Option<ReceiveAnswer> {
        let answer = (&mut self.answer).await;
        self.heard = true;
        answer.ok()
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if self.heard {
            return;
        }
        self.answer.close();
        // What was answered and not heard of by then is leased to nobody.
        let unheard = self.answer.try_recv().ok().and_then(|answer| answer.ok().flatten());
        self.inbox.push(Request::Gone(self.number, unheard));
    }
}

/// Messages that a caller got. Dropped before they are [handed out](Self::is_handed_out) they are given back: whoever was to hand them
/// on may be gone, or cannot, and a broker that extends leases would keep them from everybody.
pub struct HeldBatch {
    inbox: Arc<Inbox>,
    number: u64,
    batch: Option<Batch>,
}

impl HeldBatch {
    pub(crate) fn new(inbox: Arc<Inbox>, number: u64, batch: Batch) -> Self {
        Self { inbox, number, batch: Some(batch) }
    }

    /// What was leased.
    pub fn batch(&self) -> &Batch {
        self.batch.as_ref().expect("it is taken by who ends this")
    }

    /// From here on they are the caller's, whatever becomes of him.
    pub fn is_handed_out(mut self) {
        self.batch = None;
    }
}

impl Drop for HeldBatch {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.inbox.push(Request::Gone(self.number, Some(batch)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vouch_broker::{Generation, GroupId, Millis, TopicId};

    use super::*;

    fn batch() -> Batch {
        let (topic, group, generation, deadline) = (TopicId(1), GroupId(2), Generation(3), Millis(4));
        Batch { topic, group, messages: Vec::new(), generation, deadline }
    }

    /// What the shard was told, by number and generation of the messages.
    fn told(inbox: &Inbox) -> Vec<(u64, Option<Generation>)> {
        let taken = inbox.take(Some(Duration::ZERO), Vec::new());
        let gone = |request| match request {
            Request::Gone(number, unheard) => (number, unheard.map(|batch: Batch| batch.generation)),
            _ => panic!("nothing else is told"),
        };
        taken.requests.into_iter().map(gone).collect()
    }

    #[test]
    fn what_a_caller_got_is_given_back_unless_it_was_handed_out() {
        let inbox = Arc::new(Inbox::new(1));
        let held = HeldBatch::new(inbox.clone(), 7, batch());
        assert_eq!(held.batch().generation, Generation(3));
        assert_eq!(told(&inbox), []);
        drop(held);
        assert_eq!(told(&inbox), [(7, Some(Generation(3)))]);
        HeldBatch::new(inbox.clone(), 8, batch()).is_handed_out();
        assert_eq!(told(&inbox), []);
    }

    #[test]
    fn who_goes_away_before_he_heard_is_told_of_with_what_he_did_not_hear() {
        let inbox = Arc::new(Inbox::new(1));
        let (waiting, waits) = Waits::new(inbox.clone(), 7);
        drop(waits);
        assert!(waiting.is_gone() && told(&inbox) == [(7, None)]);
        assert!(Box::new(waiting).answer(Ok(Some(batch()))).is_err(), "it comes back");
        let (waiting, waits) = Waits::new(inbox.clone(), 8);
        assert!(Box::new(waiting).answer(Ok(Some(batch()))).is_ok());
        drop(waits);
        assert_eq!(told(&inbox), [(8, Some(Generation(3)))], "nobody else knows of it");
    }

    #[tokio::test]
    async fn who_heard_is_not_told_of() {
        let inbox = Arc::new(Inbox::new(1));
        let (waiting, waits) = Waits::new(inbox.clone(), 7);
        assert!(Box::new(waiting).answer(Ok(None)).is_ok());
        assert!(matches!(waits.answer().await, Some(Ok(None))));
        let (waiting, waits) = Waits::new(inbox.clone(), 8);
        drop(waiting);
        assert!(waits.answer().await.is_none());
        assert!(told(&inbox).is_empty());
    }
}
