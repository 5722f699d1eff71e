//! Callers and surroundings that tests hold in their hands. Crates above get them with the feature `testing`, as a
//! development dependency; nothing that is shipped has them. What cannot be, in a test, panics.

#![allow(clippy::unwrap_used, reason = "a test that goes wrong here is to fail here")]

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use vouch_broker::state::RecordAt;
use vouch_broker::{Generation, Millis, RecordPosition, ResourceName, State, TagFilter};

use crate::{Batch, FilterOf, Members, Outside, ReceiveAnswer, Waiter};

/// Where the next record of a log lies, of its first millisecond.
pub fn next_at(state: &State) -> RecordAt {
    RecordAt { position: state.last_applied().unwrap_or(RecordPosition(0)).plus(1), time: Millis(1) }
}

/// A caller's end of a receive. Dropped, he went away.
pub struct ReceiveCaller(Arc<Mutex<Option<ReceiveAnswer>>>);

struct Waiting(Weak<Mutex<Option<ReceiveAnswer>>>, u64);

/// Numbers of those who wait, in all tests of a process.
static CALLERS: AtomicU64 = AtomicU64::new(0);

impl Waiter for Waiting {
    fn number(&self) -> u64 {
        self.1
    }

    fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }

    fn answer(self: Box<Self>, answer: ReceiveAnswer) -> Result<(), Batch> {
        match (self.0.upgrade(), answer) {
            (Some(heard), answer) => *heard.lock().unwrap() = Some(answer),
            (None, Ok(Some(batch))) => return Err(batch),
            (None, _) => {}
        }
        Ok(())
    }
}

impl ReceiveCaller {
    /// A caller who waits, behind the end that a [`crate::Poll`] has of him.
    pub fn new() -> (Box<dyn Waiter>, Self) {
        let heard = Arc::default();
        let number = CALLERS.fetch_add(1, Ordering::Relaxed);
        (Box::new(Waiting(Arc::downgrade(&heard), number)), Self(heard))
    }

    /// What he heard since this was last asked.
    pub fn heard(&self) -> Option<ReceiveAnswer> {
        self.0.lock().unwrap().take()
    }
}

/// Surroundings in which the members are those that a test names.
#[derive(Default)]
pub struct Around {
    /// The number that was given last.
    pub generation: Cell<u64>,
    /// Who lives.
    pub living: Living,
}

/// Filters of members that live, all of one group and topic. Nobody keeps leases.
#[derive(Default)]
pub struct Living {
    /// What they ask for; none if nobody lives.
    pub filters: Vec<TagFilter>,
}

impl Outside for Around {
    fn members(&self) -> &dyn Members {
        &self.living
    }

    fn new_generation(&self, _: Millis) -> Generation {
        self.generation.set(self.generation.get() + 1);
        Generation(self.generation.get())
    }

    fn record_len(&self, _: RecordPosition) -> u32 {
        100
    }
}

impl Members for Living {
    fn keeps_leases(&self, _: &str, _: Instant) -> bool {
        false
    }

    fn unnoted_filters(
        &self,
        _: &ResourceName,
        _: &ResourceName,
        room: usize,
        is_noted: &mut dyn FnMut(&TagFilter) -> bool,
    ) -> Vec<TagFilter> {
        self.filters.iter().filter(|filter| !is_noted(filter)).take(room).cloned().collect()
    }

    fn has_member_on(&self, _: &ResourceName, _: &ResourceName) -> bool {
        !self.filters.is_empty()
    }

    fn has_filter(&self, (_, _, filter): FilterOf<'_>) -> bool {
        self.filters.contains(filter)
    }
}
