//! Group commit as a state machine: which sync covers what, what counts, what is reported. Threads are in `sync.rs`.

mod cut;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::segment::WriteSegment;
use crate::settled::SettledEnd;
use crate::{Durations, LogPosition, Operation, PoisonReport};

/// What the log reports about durability, always in order and never two at a time.
#[derive(Clone, Debug)]
pub enum Durable {
    /// Everything before `to` survives a power cut. Positions only grow, but for one report after each
    /// [`crate::Appender::cut`] of durable entries, which is lower than the one before it and comes before the cut
    /// returns. What was reported before that one and is still in the caller's hands holds no more.
    Up {
        /// First position that is not yet known durable.
        to: LogPosition,
    },
    /// The first failed write or sync. Reported once; nothing is reported afterwards.
    Poisoned(PoisonReport),
}

/// Takes reports; called from a sync thread, and must neither block nor panic.
pub(crate) type OnDurable = Box<dyn Fn(Durable) + Send + Sync>;

/// A sync to be run.
pub(crate) struct SyncJob {
    id: u64,
    slot: usize,
    positions: Range<u64>,
    segments: Vec<Arc<WriteSegment>>,
}

/// A failed operation, before the file's path is known.
pub(crate) struct IoFailure {
    pub(crate) segment: String,
    pub(crate) offset: u64,
    pub(crate) operation: Operation,
    pub(crate) cause: std::io::Error,
}

impl SyncJob {
    /// Syncs every segment of the range, older ones first. Never call it twice: a second sync may succeed on data
    /// that the first one lost.
    pub(crate) fn run(&self) -> Result<(), IoFailure> {
        for segment in &self.segments {
            if let Err(cause) = segment.sync(self.slot, &self.positions) {
                let offset = segment.offset(self.positions.start.max(segment.start));
                return Err(IoFailure { segment: segment.name.clone(), offset, operation: Operation::Sync, cause });
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Running,
    /// Sync what is appended, then end.
    Drain,
    /// End without another sync.
    Now,
}

struct InFlight {
    id: u64,
    to: u64,
    succeeded: bool,
}

struct State {
    appended: u64,
    /// Where the next sync begins.
    taken: u64,
    /// Oldest first. A sync counts when it and all before it succeeded.
    in_flight: VecDeque<InFlight>,
    next_id: u64,
    /// Segments with bytes that are not known durable, oldest first; the last one is being appended to.
    segments: VecDeque<Arc<WriteSegment>>,
    reported: u64,
    reporting: bool,
    poison_reported: bool,
    /// Threads that sleep for want of work, and whether one of them has been called.
    idle: usize,
    called: bool,
    /// Callers that sleep until everything is durable, or until no sync is in flight.
    waiting: usize,
    /// No sync begins: the end of the log is being cut off.
    cutting: bool,
    stop: Stop,
}

/// Shared by the appender, the sync threads and the zero-filler.
pub(crate) struct GroupCommit {
    state: Mutex<State>,
    /// Work for a sync thread.
    work: Condvar,
    /// Everything appended became durable, or the log was poisoned.
    settled: Condvar,
    durable: AtomicU64,
    /// Where what is durable stays: what is told so.
    stays: Option<Arc<SettledEnd>>,
    /// What is durable may be cut off from now on: `stays` is told no more.
    may_be_cut: AtomicBool,
    /// How long its syncs take.
    pub(crate) syncs: Durations,
    poison: OnceLock<PoisonReport>,
    on_durable: OnDurable,
    path_of: Box<dyn Fn(&str) -> std::path::PathBuf + Send + Sync>,
}

impl GroupCommit {
    /// `end` is durable already and `segment` is the one appended to. What becomes durable is settled, if there is
    /// somebody to tell.
    pub(crate) fn new(
        end: u64,
        stays: Option<Arc<SettledEnd>>,
        segment: Arc<WriteSegment>,
        on_durable: OnDurable,
        path_of: Box<dyn Fn(&str) -> std::path::PathBuf + Send + Sync>,
    ) -> Self {
        let state = State {
            appended: end,
            taken: end,
            in_flight: VecDeque::new(),
            next_id: 0,
            segments: VecDeque::from([segment]),
            reported: end,
            reporting: false,
            poison_reported: false,
            idle: 0,
            called: false,
            waiting: 0,
            cutting: false,
            stop: Stop::Running,
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            settled: Condvar::new(),
            durable: AtomicU64::new(end),
            stays,
            may_be_cut: AtomicBool::new(false),
            syncs: Durations::default(),
            poison: OnceLock::new(),
            on_durable,
            path_of,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the state whole: it is changed only by single assignments under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything below is durable and counted.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    pub(crate) fn poisoned(&self) -> Option<&PoisonReport> {
        self.poison.get()
    }

    /// The appender goes on in `segment`.
    pub(crate) fn roll(&self, segment: Arc<WriteSegment>) {
        self.lock().segments.push_back(segment);
    }

    /// Bytes up to `end` are written, and the caller runs their sync itself with [`Self::begin`].
    pub(crate) fn publish_quietly(&self, end: u64) {
        self.lock().appended = end;
    }

    /// Bytes up to `end` are written. Wakes at most one sleeping thread; a running one takes them when it is done.
    pub(crate) fn publish(&self, end: u64) {
        let mut state = self.lock();
        state.appended = end;
        let call = state.idle > 0 && !state.called;
        state.called |= call;
        drop(state);
        if call {
            self.work.notify_one();
        }
    }

    /// Wakes a sleeping thread if there is something to sync.
    fn call<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.taken < state.appended && state.idle > 0 && !state.called {
            state.called = true;
            self.work.notify_one();
        }
        state
    }

    /// The next sync, if there is anything to do: all that was appended since the last one began.
    pub(crate) fn begin(&self, slot: usize) -> Option<SyncJob> {
        self.begin_locked(&mut self.lock(), slot)
    }

    fn begin_locked(&self, state: &mut State, slot: usize) -> Option<SyncJob> {
        if state.taken == state.appended || state.cutting || self.poison.get().is_some() || state.stop == Stop::Now {
            return None;
        }
        let (from, to) = (state.taken, state.appended);
        let id = state.next_id;
        state.next_id += 1;
        state.taken = to;
        state.in_flight.push_back(InFlight { id, to, succeeded: false });
        let touched = |segment: &&Arc<WriteSegment>| segment.start < to && segment.end > from;
        let segments = state.segments.iter().filter(touched).cloned().collect();
        #[cfg(any(test, feature = "simulated-disk"))]
        if crate::bugs::ACK_BEFORE_SYNC.injected() {
            self.count(state, id);
        }
        Some(SyncJob { id, slot, positions: from..to, segments })
    }

    /// Sleeps until there is a sync to run or something to report; `None` when the thread should end.
    pub(crate) fn wait(&self, slot: usize) -> Option<SyncJob> {
        let mut state = self.lock();
        loop {
            state = self.report(state);
            if let Some(job) = self.begin_locked(&mut state, slot) {
                return Some(job);
            }
            if state.stop != Stop::Running {
                return None;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            state.called = false;
        }
    }

    /// Takes the outcome of a sync. A success counts when every earlier one has succeeded and nothing has failed.
    pub(crate) fn complete(&self, job: &SyncJob, outcome: Result<(), IoFailure>) {
        let mut state = self.lock();
        match outcome {
            Ok(()) => self.count(&mut state, job.id),
            #[cfg(any(test, feature = "simulated-disk"))]
            Err(_) if crate::bugs::SYNC_AGAIN_AFTER_ERROR.injected() => {
                state.taken = self.durable();
                state.in_flight.clear();
            }
            Err(failure) => self.fail(&mut state, failure),
        }
        drop(self.report(state));
    }

    fn count(&self, state: &mut State, id: u64) {
        for sync in &mut state.in_flight {
            sync.succeeded |= sync.id == id;
        }
        if self.poison.get().is_some() {
            return;
        }
        let mut durable = self.durable();
        while let Some(sync) = state.in_flight.pop_front_if(|sync| sync.succeeded) {
            durable = sync.to;
        }
        while state.segments.len() > 1 && state.segments[0].end <= durable {
            state.segments.pop_front();
        }
        // First: whoever knows that it is durable reads it without a copy.
        if let Some(stays) = &self.stays
            && !self.may_be_cut.load(Ordering::Relaxed)
        {
            stays.raise(durable);
        }
        self.durable.store(durable, Ordering::Release);
    }

    /// What becomes durable from now on does not settle by that. What is durable already, does.
    pub(crate) fn settle_no_more(&self) {
        // Under the lock, as whatever becomes durable does: nothing that is appended after this is settled.
        let _state = self.lock();
        self.may_be_cut.store(true, Ordering::Relaxed);
    }

    /// Records the first failure; later ones change nothing. A sync thread reports it.
    pub(crate) fn poison(&self, failure: IoFailure) -> PoisonReport {
        let mut state = self.lock();
        self.fail(&mut state, failure);
        drop(state);
        // `fail` has set it, now or earlier.
        self.poison.get().cloned().expect("a failure was recorded just now")
    }

    fn fail(&self, state: &mut State, failure: IoFailure) {
        let IoFailure { segment, offset, operation, cause } = failure;
        let report = PoisonReport { file: (self.path_of)(&segment), offset, operation, cause: Arc::new(cause) };
        if self.poison.set(report).is_ok() {
            state.called = true;
            self.work.notify_all();
            self.settled.notify_all();
        }
    }

    /// Reports what is new, without holding the lock while it does. One thread at a time reports, so order is kept;
    /// what others find meanwhile is reported by that one.
    fn report<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.reporting {
            return state;
        }
        loop {
            let news = match self.poison.get() {
                Some(_) if state.poison_reported => break,
                Some(report) => {
                    state.poison_reported = true;
                    Durable::Poisoned(report.clone())
                }
                None => {
                    let durable = self.durable();
                    if durable == state.reported {
                        break;
                    }
                    state.reported = durable;
                    Durable::Up { to: LogPosition(durable) }
                }
            };
            state.reporting = true;
            drop(state);
            (self.on_durable)(news);
            state = self.lock();
            state.reporting = false;
        }
        if state.waiting > 0 && (state.cutting || state.reported == state.appended) {
            self.settled.notify_all();
        }
        state
    }

    /// Lets the sync threads end.
    pub(crate) fn stop(&self, stop: Stop) {
        self.lock().stop = stop;
        self.work.notify_all();
    }

    /// Waits until everything appended is durable and reported.
    ///
    /// # Errors
    /// The log is poisoned.
    pub(crate) fn wait_durable(&self) -> Result<(), PoisonReport> {
        let mut state = self.lock();
        loop {
            if let Some(report) = self.poison.get() {
                return Err(report.clone());
            }
            if state.reported == state.appended && !state.reporting {
                return Ok(());
            }
            state.waiting += 1;
            state = self.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }
}
