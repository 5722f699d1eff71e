//! Asks that wait for a component which answers about many at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use vouch_broker::NotDone;
use vouch_leader::checks::Due;
use vouch_plugin::{Checked, Staged};

/// Most transactions that a component is asked about at once.
const BATCH_ITEMS: usize = 128;

/// What came of one ask of a batch.
pub(crate) enum BatchAnswer {
    /// The component was asked.
    Checked { checked: Checked, producer: String, staged: Option<Box<Staged>> },
    /// Its half message cannot be read.
    NotRead(NotDone),
}

/// An ask that waits, and whoever waits for its answer.
pub(crate) struct WaitingAsk {
    pub(crate) due: Due,
    taken: oneshot::Sender<()>,
    answer: oneshot::Sender<BatchAnswer>,
}

/// Where whoever asked waits.
pub(crate) struct JoinedAsk {
    /// Somebody took it along: it needs no place of its own any more.
    pub(crate) taken: oneshot::Receiver<()>,
    /// What came of it.
    pub(crate) answer: oneshot::Receiver<BatchAnswer>,
}

impl WaitingAsk {
    /// Tells whoever asked, if he is still there.
    pub(crate) fn tell(self, answer: BatchAnswer) {
        let _ = self.answer.send(answer);
    }
}

/// Asks of one binding that wait for a place, in the order of their coming.
pub(crate) struct WaitingBatch {
    waiting: Mutex<VecDeque<WaitingAsk>>,
    turn: AtomicUsize,
    /// So many it answers about in its time, as far as is known.
    most: AtomicUsize,
}

impl Default for WaitingBatch {
    fn default() -> Self {
        Self { waiting: Mutex::default(), turn: AtomicUsize::new(0), most: AtomicUsize::new(BATCH_ITEMS) }
    }
}

impl WaitingBatch {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<WaitingAsk>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an ask: whoever gets a place of the binding takes it along. Drop what is returned, and it is not asked any more.
    pub(crate) fn join(&self, due: Due) -> JoinedAsk {
        let ((taken, was_taken), (answer, told)) = (oneshot::channel(), oneshot::channel());
        self.waiting().push_back(WaitingAsk { due, taken, answer });
        JoinedAsk { taken: was_taken, answer: told }
    }

    /// The first that waits. Those whom nobody waits for any more are forgotten.
    pub(crate) fn take(&self) -> Option<WaitingAsk> {
        let mut waiting = self.waiting();
        loop {
            let next = waiting.pop_front()?;
            if !next.answer.is_closed() && !next.due.ask.is_over() {
                let (none, _) = oneshot::channel();
                let WaitingAsk { due, taken, answer } = next;
                // Whoever waits goes on waiting for the answer alone.
                let _ = taken.send(());
                return Some(WaitingAsk { due, taken: none, answer });
            }
        }
    }

    /// How many it is asked about at most.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// It did not answer about so many in its time: it is asked about half as many.
    pub(crate) fn was_too_much(&self, items: usize) {
        self.most.fetch_min((items / 2).max(1), Ordering::Relaxed);
    }

    /// It answered about so many: if that is all that it is asked about, it may be more.
    pub(crate) fn was_answered(&self, items: usize) {
        let most = self.most();
        if items >= most && most < BATCH_ITEMS {
            self.most.store((most * 2).min(BATCH_ITEMS), Ordering::Relaxed);
        }
    }

    /// Counts on, for whoever has to choose among them.
    pub(crate) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vouch_broker::{HalfPosition, Millis, ResourceName, ShardId, TransactionId};
    use vouch_leader::checks::Checker;

    use super::*;

    fn due(transaction: u64) -> Due {
        Due {
            transaction: HalfPosition(transaction),
            id: TransactionId::of_first_life(ShardId::FIRST, HalfPosition(transaction)),
            topic: ResourceName::plain("t"),
            checker: Checker::Producer,
            number: 1,
            checks_left: 9,
            after: Millis(0),
            opened_at: Millis(1),
            asked_at: Millis(2),
            step_ms: 1000,
            ask: Arc::default(),
        }
    }

    #[tokio::test]
    async fn those_who_wait_are_taken_in_their_order_and_each_is_told_his_own() {
        let batch = WaitingBatch::default();
        let joined: Vec<JoinedAsk> = (1..=5).map(|n| batch.join(due(n))).collect();
        for (n, joined) in (1..).zip(joined) {
            let JoinedAsk { mut taken, answer } = joined;
            assert!(taken.try_recv().is_err(), "nobody took it yet");
            let waiting = batch.take().unwrap();
            assert_eq!((waiting.due.transaction.0, taken.try_recv()), (n, Ok(())));
            if n > 3 {
                drop(waiting);
                assert!(answer.await.is_err(), "whoever took it is gone without a word");
                continue;
            }
            let checked = Checked::NoAnswer(vouch_plugin::NoAnswer::LeftOut);
            waiting.tell(BatchAnswer::Checked { checked, staged: None, producer: n.to_string() });
            let Ok(BatchAnswer::Checked { producer, .. }) = answer.await else { panic!("it was told") };
            assert_eq!(producer, n.to_string());
        }
        assert!(batch.take().is_none());
    }

    #[test]
    fn one_that_nobody_waits_for_is_not_asked() {
        let batch = WaitingBatch::default();
        let (gone, stays) = (batch.join(due(1)), batch.join(due(2)));
        drop(gone);
        assert_eq!(batch.take().unwrap().due.transaction.0, 2);
        assert!(batch.take().is_none());
        drop(stays);
        assert_ne!(batch.turn(), batch.turn());
    }

    #[test]
    fn what_was_too_much_is_not_asked_again_until_half_of_it_was_answered() {
        let batch = WaitingBatch::default();
        assert_eq!(batch.most(), 128);
        batch.was_answered(128);
        batch.was_too_much(128);
        batch.was_answered(10);
        assert_eq!(batch.most(), 64);
        batch.was_too_much(64);
        batch.was_too_much(1);
        assert_eq!(batch.most(), 1);
        for most in [2, 4, 8, 16, 32, 64, 128, 128] {
            batch.was_answered(batch.most());
            assert_eq!(batch.most(), most);
        }
    }
}
