//! A few of the transactions that producers end themselves, for whoever looks at them.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use vouch_broker::{HalfPosition, ResourceName, TransactionOutcome};

/// One in so many is taken.
const ONE_IN: u64 = 100;
/// Most topics of which one waits.
const TOPICS_MAX: usize = 1024;

/// A transaction that its producer ended, with its topic.
pub(crate) type SampledEnd = (ResourceName, HalfPosition, TransactionOutcome);

/// Takes one end in a hundred of each topic, or all where somebody wants that; the newest of a topic waits to be looked at, and topics
/// take turns.
#[derive(Default)]
pub(crate) struct EndSample {
    /// Of some topic all are wanted.
    wants_all: AtomicBool,
    waiting: Mutex<WaitingEnds>,
    came: Notify,
}

#[derive(Default)]
struct WaitingEnds {
    /// Topics of which one waits, in the order of their turns.
    turns: VecDeque<ResourceName>,
    newest: HashMap<ResourceName, (HalfPosition, TransactionOutcome)>,
    /// Topics of which all are wanted.
    all: BTreeSet<ResourceName>,
}

impl EndSample {
    fn waiting(&self) -> MutexGuard<'_, WaitingEnds> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A producer ended this transaction.
    pub(super) fn offer(&self, topic: &ResourceName, transaction: HalfPosition, outcome: TransactionOutcome) {
        // By its place in the log, mixed: topics that take turns would always meet the same turn of a counter.
        let mixed = transaction.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let is_sampled = mixed.is_multiple_of(ONE_IN);
        if !is_sampled && !self.wants_all.load(Ordering::Relaxed) {
            return;
        }
        let mut waiting = self.waiting();
        let is_wanted = is_sampled || waiting.all.contains(topic);
        if !is_wanted || waiting.newest.len() >= TOPICS_MAX && !waiting.newest.contains_key(topic) {
            return;
        }
        if waiting.newest.insert(topic.clone(), (transaction, outcome)).is_none() {
            waiting.turns.push_back(topic.clone());
        }
        drop(waiting);
        self.came.notify_one();
    }

    /// From now on all of these topics are taken, and one in a hundred of every other.
    pub(crate) fn take_all(&self, topics: BTreeSet<ResourceName>) {
        self.wants_all.store(!topics.is_empty(), Ordering::Relaxed);
        self.waiting().all = topics;
    }

    /// Waits for the next one. Topics of which all are wanted go first.
    pub(crate) async fn next(&self) -> SampledEnd {
        loop {
            if let Some(ended) = self.take() {
                return ended;
            }
            self.came.notified().await;
        }
    }

    fn take(&self) -> Option<SampledEnd> {
        let mut waiting = self.waiting();
        let wanted = waiting.turns.iter().position(|topic| waiting.all.contains(topic)).unwrap_or(0);
        let topic = waiting.turns.remove(wanted)?;
        let (transaction, outcome) = waiting.newest.remove(&topic)?;
        Some((topic, transaction, outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: TransactionOutcome = TransactionOutcome::Committed;

    fn topic(name: &str) -> ResourceName {
        ResourceName::plain(name)
    }

    fn taken(sample: &EndSample, name: &str, step: u64) -> usize {
        let offered = (1..=10_000).filter(|n| {
            sample.offer(&topic(name), HalfPosition(n * step), COMMITTED);
            sample.take().is_some()
        });
        offered.count()
    }

    #[test]
    fn about_one_in_a_hundred_is_taken_and_all_of_a_topic_of_which_that_is_wanted() {
        let sample = EndSample::default();
        for step in [1, 100, 333, 4096] {
            let count = taken(&sample, "t", step);
            assert!((50..200).contains(&count), "{count} of 10 000, {step} apart");
        }
        sample.take_all([topic("t")].into());
        assert_eq!(taken(&sample, "t", 7), 10_000);
        assert!(taken(&sample, "other", 7) < 200);
        sample.take_all(BTreeSet::new());
        assert!(taken(&sample, "t", 7) < 200);
    }

    #[tokio::test]
    async fn the_newest_one_of_a_topic_waits_and_a_busy_topic_keeps_none_of_another_from_its_turn() {
        let sample = EndSample::default();
        sample.take_all([topic("busy"), topic("quiet"), topic("last")].into());
        for (name, n) in [("busy", 1), ("quiet", 2), ("busy", 3), ("last", 4), ("busy", 5)] {
            sample.offer(&topic(name), HalfPosition(n), COMMITTED);
        }
        for (name, n) in [("busy", 5), ("quiet", 2), ("last", 4)] {
            assert_eq!(sample.next().await, (topic(name), HalfPosition(n), COMMITTED));
        }
        sample.offer(&topic("busy"), HalfPosition(6), COMMITTED);
        sample.offer(&topic("quiet"), HalfPosition(7), COMMITTED);
        sample.take_all([topic("quiet")].into());
        assert_eq!(sample.next().await.0, topic("quiet"), "what is wanted goes first");
        assert_eq!(sample.next().await.0, topic("busy"));
        assert_eq!(sample.take(), None);
    }
}
