//! What a cut of the log's end does to the syncs of it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::GroupCommit;
use crate::PoisonReport;
use crate::segment::WriteSegment;

impl GroupCommit {
    /// Lets no sync begin, and waits until none is in flight and nothing is being reported. Without threads nobody would
    /// end one: then those in flight are left to [`Self::cut`], which forgets them.
    ///
    /// # Errors
    /// The log is or became poisoned.
    pub(crate) fn pause(&self, threads: bool) -> Result<(), PoisonReport> {
        let mut state = self.lock();
        state.cutting = true;
        while threads && self.poison.get().is_none() && (!state.in_flight.is_empty() || state.reporting) {
            state.waiting += 1;
            state = self.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        self.poison.get().map_or(Ok(()), |report| Err(report.clone()))
    }

    /// Syncs go on as if nothing had been asked.
    pub(crate) fn resume(&self) {
        let mut state = self.lock();
        state.cutting = false;
        drop(self.call(state));
    }

    /// The segment that starts at `start`, if it has bytes that are not known durable, or is the one appended to.
    pub(crate) fn segment(&self, start: u64) -> Option<Arc<WriteSegment>> {
        self.lock().segments.iter().find(|segment| segment.start == start).cloned()
    }

    /// The log ends at `to`, in `segment`; what lay behind is gone from the disk. What was durable below is, and no sync
    /// that began before counts any more.
    pub(crate) fn cut(&self, to: u64, segment: Arc<WriteSegment>) {
        let mut state = self.lock();
        let durable = self.durable().min(to);
        #[cfg(any(test, feature = "simulated-disk"))]
        let forget = !crate::bugs::SYNC_OF_BEFORE_THE_CUT_COUNTED.injected();
        #[cfg(not(any(test, feature = "simulated-disk")))]
        let forget = true;
        if forget {
            state.in_flight.clear();
        }
        (state.appended, state.taken) = (to, durable);
        while state.segments.pop_back_if(|last| last.start > segment.start).is_some() {}
        // It was full and durable, so it had been let go.
        if state.segments.is_empty() {
            state.segments.push_back(segment);
        }
        self.durable.store(durable, Ordering::Release);
        state.cutting = false;
        let state = self.call(state);
        drop(self.report(state));
    }
}
