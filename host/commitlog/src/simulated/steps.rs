//! What the threads of a log do, one step at a time.

use std::error::Error;
use std::sync::Arc;

use super::disk::SimDisk;
use super::event::DiskEvent;
use crate::group_commit::{IoFailure, SyncJob};
use crate::log::open_on;
use crate::preallocate::shortage;
use crate::threads::fill;
use crate::{Appender, Durable, Entry, LogConfig, LogReader, OpenError, Recovery};

/// Opens a log on a simulated disk, as [`crate::CommitLog::open`] does on a folder, but without its threads. What it
/// reports durable is noted on the disk, too.
///
/// # Errors
/// [`OpenError`].
pub fn open(
    disk: &SimDisk,
    config: &LogConfig,
    on_durable: impl Fn(Durable) + Send + Sync + 'static,
    on_entry: &mut dyn FnMut(Entry) -> Result<(), Box<dyn Error + Send + Sync>>,
) -> Result<(Appender, LogReader, Recovery), OpenError> {
    let reports = disk.clone();
    let on_durable = Box::new(move |news: Durable| {
        if let Durable::Up { to } = news {
            reports.record(DiskEvent::Reported { to: to.0 });
        }
        on_durable(news);
    });
    open_on(Arc::new(disk.clone()), config, on_durable, on_entry)
}

enum Slot {
    Idle,
    Begun(SyncJob),
    Ran(SyncJob, Result<(), IoFailure>),
}

/// The syncs of one log that are under way.
pub struct Steps {
    slots: Vec<Slot>,
}

impl Steps {
    /// Of a log with as many syncs in flight as it was opened with.
    pub fn new(syncs_in_flight: usize) -> Self {
        Self { slots: (0..syncs_in_flight).map(|_| Slot::Idle).collect() }
    }

    /// How many syncs may be under way.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Takes the sync of a slot one step on: begin, run, complete.
    pub fn sync(&mut self, appender: &Appender, slot: usize) {
        let commit = &appender.commit;
        self.slots[slot] = match std::mem::replace(&mut self.slots[slot], Slot::Idle) {
            Slot::Idle => commit.begin(slot).map_or(Slot::Idle, Slot::Begun),
            Slot::Begun(job) => {
                let outcome = job.run();
                Slot::Ran(job, outcome)
            }
            Slot::Ran(job, outcome) => {
                commit.complete(&job, outcome);
                Slot::Idle
            }
        };
    }

    /// The same but for the last step: a sync may have ended, and nobody hears of it yet.
    pub fn sync_unheard(&mut self, appender: &Appender, slot: usize) {
        if !matches!(self.slots[slot], Slot::Ran(..)) {
            self.sync(appender, slot);
        }
    }

    /// Ends all syncs that are under way, and makes what was appended durable, unless something fails.
    pub fn settle(&mut self, appender: &Appender) {
        for slot in (0..self.slots.len()).cycle().take(6 * self.slots.len()) {
            self.sync(appender, slot);
        }
    }

    /// One step of what the filling thread does: the next stretch of zeros, or the next segment.
    pub fn fill(appender: &Appender) {
        if let Err(failure) = fill(&appender.space, appender.appended().0)
            && shortage(&failure).is_none()
        {
            appender.commit.poison(failure);
        }
    }
}
