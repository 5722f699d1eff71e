//! Space ahead of the append point: zero-filled, and the next segment created before it is needed.
//!
//! Overwriting written blocks needs no change of metadata, so a sync is one flush of the device; and space that is
//! filled cannot run out in the middle of an entry. In a segment that was made of a used file the blocks are written
//! already: there, preparing is raising the horizon.

mod cut;

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::ToldAgain;
use crate::factory::SegmentFactory;
use crate::format::{ENTRY_HEADER_LEN, SEGMENT_HEADER_LEN};
use crate::group_commit::IoFailure;
use crate::horizon::{HORIZON_FILE, Horizon};
use crate::segment::{WriteSegment, file_name};
use crate::{AppendError, Operation, Shortage};

/// Bytes zero-filled and synced in one step: a commit's sync of the same file waits for no more zeros than these.
const FILL_STEP: u64 = 256 << 10;
/// Granularity of the page cache and of preparing.
pub(crate) const PAGE: u64 = 4096;
/// Bytes reserved at once when the appender has overtaken the filler.
const RESERVE_STEP: u64 = 4 << 20;
/// The filler is called when this part of the space ahead is used.
const REFILL_PART: u64 = 8;
/// How often the filler tries again while the disk is full, or something else is short.
const RETRY_SPACE_AFTER: Duration = Duration::from_secs(1);

static ZEROS: [u8; FILL_STEP as usize] = [0; FILL_STEP as usize];

/// The segments that space is prepared in.
struct Frontier {
    /// The one being appended to.
    current: Arc<WriteSegment>,
    next: Option<Arc<WriteSegment>>,
    horizon: Horizon,
    /// Why the next segment could not be created, other than for a shortage. It is not tried again: what is left of the
    /// attempt would hide the cause.
    broken: Option<ToldAgain>,
}

/// What there is for entries behind the log's end.
pub(crate) struct SpaceAhead {
    /// The file of the next segment is there.
    pub(crate) next_is_prepared: bool,
    /// Bytes in files that were used before: all their blocks are there.
    pub(crate) reused_bytes: u64,
}

/// What one step did.
pub(crate) enum Step {
    /// Zeros were written to these positions of a segment; sync them, so that no commit has to.
    Filled(Arc<WriteSegment>, Range<u64>),
    /// The next segment was created.
    Created,
    /// More of a segment that was made of a used file may be written; that is durable already.
    Raised,
    /// Enough is prepared.
    Enough,
}

/// Owns the space ahead. Whoever holds the lock may prepare: the filler's thread in good time, or the appender when
/// it has overtaken the filler.
pub(crate) struct Preallocator {
    factory: SegmentFactory,
    zero_ahead: u64,
    frontier: Mutex<Frontier>,
    /// Space below is prepared: zero-filled, at least reserved, or below the horizon. Changes only under the frontier's
    /// lock, and only a cut lets it sink.
    ready: AtomicU64,
    /// Of what there was too little to prepare more, if all of what should be ahead has not been prepared since; 0 for none.
    short: AtomicU8,
    /// The appender wants the lock: the filler lets it pass.
    urgent: AtomicBool,
    called: Mutex<PreallocatorCall>,
    call: Condvar,
    /// A call is under way, so that the appender need not take a lock to make another.
    calling: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreallocatorCall {
    None,
    Fill,
    Stop,
}

impl Preallocator {
    /// `ready` is how far `current` is known to be prepared.
    pub(crate) fn new(
        factory: SegmentFactory,
        zero_ahead: u64,
        current: Arc<WriteSegment>,
        ready: u64,
        horizon: Horizon,
    ) -> Self {
        Self {
            // More than a segment ahead would need two segments ahead.
            zero_ahead: zero_ahead.min(factory.segment_size),
            factory,
            frontier: Mutex::new(Frontier { current, next: None, horizon, broken: None }),
            ready: AtomicU64::new(ready),
            short: AtomicU8::new(0),
            urgent: AtomicBool::new(false),
            called: Mutex::new(PreallocatorCall::Fill),
            call: Condvar::new(),
            calling: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Frontier> {
        self.frontier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares one more piece of the space that should be there when `appended` is the append point.
    pub(crate) fn step(&self, appended: u64) -> Result<Step, IoFailure> {
        let mut step = self.try_step(appended);
        // The current segment may want the blocks that a spare file holds for one that comes later.
        let full = step.as_ref().is_err_and(|failure| shortage(failure) == Some(Shortage::Space));
        if full && self.factory.give_up_spare() {
            step = self.try_step(appended);
        }
        let step = self.note_shortage(step);
        if matches!(step, Ok(Step::Enough)) {
            self.short.store(0, Ordering::Release);
        }
        step
    }

    fn try_step(&self, appended: u64) -> Result<Step, IoFailure> {
        let mut frontier = self.lock();
        let target = self.target(appended, frontier.current.end);
        let ready = self.ready.load(Ordering::Relaxed);
        if ready >= target {
            return Ok(Step::Enough);
        }
        let (segment, ready) = match &frontier.next {
            _ if ready < frontier.current.end => (frontier.current.clone(), ready),
            Some(next) if ready < next.end => (next.clone(), ready.max(self.factory.first_entry(next.start))),
            Some(_) => return Ok(Step::Enough),
            None => {
                let next = self.create(&mut frontier)?;
                self.ready.store(self.factory.first_entry(next.start), Ordering::Release);
                frontier.next = Some(next);
                return Ok(Step::Created);
            }
        };
        if segment.recycled {
            self.raise(&mut frontier.horizon, &segment, target)?;
            return Ok(Step::Raised);
        }
        let wanted = target.saturating_sub(ready).next_multiple_of(PAGE).max(PAGE);
        let len = FILL_STEP.min(segment.end - ready).min(wanted);
        segment
            .file
            .write_at(segment.offset(ready), &mut [IoSlice::new(&ZEROS[..len as usize])])
            .map_err(|cause| prepare_failure(&segment.name, segment.offset(ready), cause))?;
        self.ready.store(ready + len, Ordering::Release);
        Ok(Step::Filled(segment, ready..ready + len))
    }

    /// Where the prepared space should end. The next segment's header is no space for entries, and no segment behind
    /// that one is prepared.
    fn target(&self, appended: u64, current_end: u64) -> u64 {
        let target = appended + self.zero_ahead;
        let beyond = if target > current_end { SEGMENT_HEADER_LEN } else { 0 };
        (target + beyond).min(current_end + self.factory.segment_size)
    }

    /// Remembers of what there was too little.
    fn note_shortage<T>(&self, outcome: Result<T, IoFailure>) -> Result<T, IoFailure> {
        if let Some(shortage) = outcome.as_ref().err().and_then(shortage) {
            self.short.store(shortage as u8, Ordering::Release);
        }
        outcome
    }

    /// What keeps space from being prepared.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        Shortage::from_number(self.short.load(Ordering::Acquire))
    }

    /// While no space can be prepared: how many bytes of entries that are at most `max_entry` long certainly fit into
    /// what is prepared behind `appended`, which lies in a segment that ends at `segment_end`.
    pub(crate) fn short_of_space(&self, appended: u64, segment_end: u64, max_entry: u64) -> Option<u64> {
        self.shortage()?;
        let ready = self.ready.load(Ordering::Acquire);
        // An entry that ends at the segment's end fits; one that leaves no room for a filler's header does not.
        let room_until = |end: u64| ready.min(end - ENTRY_HEADER_LEN);
        let here = room_until(segment_end).saturating_sub(appended);
        // Space beyond this segment is prepared only when all of this one is, so the filler that ends it fits.
        let next = segment_end + SEGMENT_HEADER_LEN;
        let there = room_until(segment_end + self.factory.segment_size).saturating_sub(next);
        // Entries on both sides of the end: the filler takes the place of at most the first entry that did not fit.
        let both = (here + there).saturating_sub(max_entry);
        Some(here.max(there).max(both))
    }

    /// Lets `segment` be written up to `until`.
    fn raise(&self, horizon: &mut Horizon, segment: &WriteSegment, until: u64) -> Result<(), IoFailure> {
        let until = until.next_multiple_of(PAGE).min(segment.end);
        let raised = horizon.raise(&*self.factory.disk, until);
        raised.map_err(|cause| prepare_failure(HORIZON_FILE, 0, cause))?;
        self.ready.store(until, Ordering::Release);
        Ok(())
    }

    /// The segment behind the current one.
    fn create(&self, frontier: &mut Frontier) -> Result<Arc<WriteSegment>, IoFailure> {
        let start = frontier.current.end;
        let failed = |cause| prepare_failure(&file_name(start), 0, cause);
        if let Some(broken) = &frontier.broken {
            return Err(failed(broken.again()));
        }
        self.factory.create(start).map(Arc::new).map_err(|cause| {
            if Shortage::of(&cause).is_none() {
                frontier.broken = Some(ToldAgain::of(&cause));
            }
            failed(cause)
        })
    }

    /// Sees to it that the current segment is prepared up to `end`.
    pub(crate) fn ensure(&self, end: u64) -> Result<(), IoFailure> {
        if end <= self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut frontier = self.lock_urgently();
        let segment = frontier.current.clone();
        self.prepare(&mut frontier, &segment, end)
    }

    /// The same for the segment that comes next, where all of the current one is prepared.
    pub(crate) fn ensure_next(&self, next: &WriteSegment, end: u64) -> Result<(), IoFailure> {
        if end <= self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        self.prepare(&mut self.lock_urgently(), next, end)
    }

    fn prepare(&self, frontier: &mut Frontier, segment: &WriteSegment, end: u64) -> Result<(), IoFailure> {
        let ready = self.ready.load(Ordering::Relaxed).max(self.factory.first_entry(segment.start));
        if end <= ready {
            return Ok(());
        }
        let until = end.max(ready + RESERVE_STEP).next_multiple_of(PAGE).min(segment.end);
        if segment.recycled {
            return self.note_shortage(self.raise(&mut frontier.horizon, segment, until));
        }
        let reserved = segment.file.reserve(segment.offset(ready), until - ready);
        self.note_shortage(reserved.map_err(|cause| prepare_failure(&segment.name, segment.offset(ready), cause)))?;
        self.ready.store(until, Ordering::Release);
        Ok(())
    }

    /// The next segment, created now if it is not there yet. The caller decides with [`Self::advance`] to use it.
    pub(crate) fn next(&self) -> Result<Arc<WriteSegment>, IoFailure> {
        let mut frontier = self.lock_urgently();
        if frontier.next.is_none() {
            frontier.next = Some(self.note_shortage(self.create(&mut frontier))?);
        }
        Ok(frontier.next.clone().expect("it was set just above"))
    }

    /// Makes the next segment the current one.
    pub(crate) fn advance(&self) {
        let mut frontier = self.lock_urgently();
        if let Some(next) = frontier.next.take() {
            self.ready.fetch_max(self.factory.first_entry(next.start), Ordering::AcqRel);
            frontier.current = next;
        }
    }

    fn lock_urgently(&self) -> MutexGuard<'_, Frontier> {
        self.urgent.store(true, Ordering::Relaxed);
        let frontier = self.lock();
        self.urgent.store(false, Ordering::Relaxed);
        frontier
    }

    /// Calls the filler if enough of the space is used: one wake-up for many entries. While something is short the
    /// filler looks again by itself.
    pub(crate) fn appended(&self, end: u64) {
        let ahead = self.ready.load(Ordering::Relaxed).saturating_sub(end);
        let used = ahead < self.zero_ahead - self.zero_ahead / REFILL_PART;
        if used && self.short.load(Ordering::Relaxed) == 0 && !self.calling.swap(true, Ordering::AcqRel) {
            self.send(PreallocatorCall::Fill);
        }
    }

    pub(crate) fn send(&self, call: PreallocatorCall) {
        let mut called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        if *called != PreallocatorCall::Stop {
            *called = call;
        }
        drop(called);
        self.call.notify_one();
    }

    /// Waits until called, or until it is time to look for space again; `false` when the thread should end.
    pub(crate) fn wait(&self) -> bool {
        let mut called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        while *called == PreallocatorCall::None {
            if self.shortage().is_none() {
                called = self.call.wait(called).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.call.wait_timeout(called, RETRY_SPACE_AFTER);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            called = guard;
            if timeout.timed_out() && *called == PreallocatorCall::None {
                return true;
            }
        }
        let go_on = *called == PreallocatorCall::Fill;
        if go_on {
            *called = PreallocatorCall::None;
            self.calling.store(false, Ordering::Release);
        }
        go_on
    }

    /// Whether the thread was told to end.
    pub(crate) fn stopping(&self) -> bool {
        *self.called.lock().unwrap_or_else(PoisonError::into_inner) == PreallocatorCall::Stop
    }

    #[cfg(test)]
    pub(crate) fn is_called(&self) -> bool {
        *self.called.lock().unwrap_or_else(PoisonError::into_inner) == PreallocatorCall::Fill
    }

    pub(crate) fn factory(&self) -> &SegmentFactory {
        &self.factory
    }

    /// What there is for entries behind `end`, where the log ends.
    pub(crate) fn ahead_of(&self, end: u64) -> SpaceAhead {
        let frontier = self.lock();
        let reused = [Some(&frontier.current), frontier.next.as_ref()].into_iter().flatten();
        let reused = reused.filter(|segment| segment.recycled);
        let reused_bytes = reused.map(|segment| segment.end.saturating_sub(end.max(segment.start))).sum();
        SpaceAhead { next_is_prepared: frontier.next.is_some(), reused_bytes }
    }

    /// Lets an appender that has overtaken the filler take the lock first.
    pub(crate) fn give_way(&self) {
        while self.urgent.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    }
}

fn prepare_failure(segment: &str, offset: u64, cause: io::Error) -> IoFailure {
    IoFailure { segment: segment.to_owned(), offset, operation: Operation::Prepare, cause }
}

/// Running out of something while preparing is not a broken disk: nothing was lost, and it passes.
pub(crate) fn shortage(failure: &IoFailure) -> Option<Shortage> {
    if failure.operation == Operation::Prepare { Shortage::of(&failure.cause) } else { None }
}

impl Preallocator {
    /// The error for an append that found no prepared space, where that is a refusal. The filler looks whether that
    /// still is so: an entry longer than the space ahead may be refused although the filler has nothing to do.
    pub(crate) fn short(&self, shortage: Shortage, failure: &IoFailure) -> AppendError {
        self.send(PreallocatorCall::Fill);
        AppendError::Short { shortage, file: self.factory.disk.path(&failure.segment) }
    }
}
