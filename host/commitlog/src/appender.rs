//! The single writer.

mod cut;
mod roll;
mod spans;

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::format::{
    ALIGNMENT, ENTRY_HEADER_LEN, EntryKind, SEGMENT_HEADER_LEN, Stored, StoredHeader, StoredKind, max_payload, padded,
};
use crate::group_commit::{GroupCommit, IoFailure, Stop};
use crate::housekeeping::{self, SharedState};
use crate::preallocate::{PAGE, Preallocator, shortage};
use crate::reader::View;
use crate::segment::WriteSegment;
use crate::threads::Threads;
use crate::{AppendError, Checkpoint, Housekeeping, LogPosition, Operation, PoisonReport, Shortage};

/// How long a log is idle before a mark should cover its last group (ruling 17).
pub const MARK_AFTER: Duration = Duration::from_millis(100);

/// Behind an entry at most the rest of its last 8 bytes and of its last page are written.
static ZEROS: [u8; (ALIGNMENT + PAGE) as usize] = [0; (ALIGNMENT + PAGE) as usize];

/// What the caller says about an entry; the log stores it and does not interpret it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// Term of the leader.
    pub term: u64,
    /// Index in the replicated log.
    pub index: u64,
    /// The leader's time, milliseconds since 1970.
    pub leader_time_ms: u64,
    /// What the entry is.
    pub kind: EntryKind,
}

/// Where an entry was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where its header starts.
    pub position: LogPosition,
    /// Where the payload's first byte lies; byte `i` of the payload lies at this plus `i`.
    pub payload_position: LogPosition,
    /// First position after the entry. It is durable when [`crate::Durable::Up`] reaches this.
    pub end: LogPosition,
    /// What to store with a snapshot whose last entry is this one. Valid once the entry is durable.
    pub checkpoint: Checkpoint,
}

/// What must be known of the last entry to append the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    pub(crate) end: u64,
    /// Checksum of the last entry, fillers included.
    pub(crate) previous: u32,
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) leader_time_ms: u64,
    /// Highest durable mark in any entry.
    pub(crate) mark: u64,
    /// End of the last entry that is not a mark; 0 without one.
    pub(crate) records_end: u64,
}

/// Appends entries, one at a time. Owned by one thread; dropping it ends the log's threads without another sync.
pub struct Appender {
    pub(crate) commit: Arc<GroupCommit>,
    pub(crate) space: Arc<Preallocator>,
    view: Arc<View>,
    segment: Arc<WriteSegment>,
    tail: Tail,
    /// In a segment made of a used file: up to here pages hold no old bytes.
    pages_taken_to: u64,
    /// This thread's slot for syncs of its own.
    sync_slot: usize,
    last_append: Instant,
    threads: Option<Threads>,
    housekeeping: SharedState,
}

impl Appender {
    pub(crate) fn new(
        commit: Arc<GroupCommit>,
        space: Arc<Preallocator>,
        view: Arc<View>,
        segment: Arc<WriteSegment>,
        tail: Tail,
    ) -> Self {
        let sync_slot = segment.sync_files.len() - 1;
        let (last_append, housekeeping) = (Instant::now(), SharedState::default());
        let pages_taken_to = tail.end;
        Self { commit, space, view, segment, tail, pages_taken_to, sync_slot, last_append, threads: None, housekeeping }
    }

    /// Starts the threads; without them, tests run each step by hand.
    pub(crate) fn start(&mut self, syncs_in_flight: usize) -> io::Result<()> {
        self.threads = Some(Threads::spawn(&self.commit, &self.space, &self.view, syncs_in_flight)?);
        Ok(())
    }

    /// Writes one entry at the end of the log and returns without waiting for it to be durable. It can be read from
    /// now on; it survives a power cut when [`crate::Durable::Up`] has reached its end.
    ///
    /// The parts of `payload` are stored one after the other.
    ///
    /// # Errors
    /// See [`AppendError`]: only `Poisoned` may have written something.
    pub fn append(&mut self, header: EntryHeader, payload: &[&[u8]]) -> Result<Appended, AppendError> {
        let appended = self.append_deferred(header, payload)?;
        self.commit.publish(self.tail.end);
        Ok(appended)
    }

    /// As [`Self::append`], but nobody is called to sync the entry: [`Self::sync_here`] or the next `append` sees to
    /// it. For a writer that has nothing better to do than to wait for the disk, this saves two thread switches a group.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_deferred(&mut self, header: EntryHeader, payload: &[&[u8]]) -> Result<Appended, AppendError> {
        if let Some(report) = self.commit.poisoned() {
            return Err(report.clone().into());
        }
        let len = payload.iter().map(|part| part.len() as u64).sum::<u64>();
        let max = self.max_payload();
        if len > max {
            return Err(AppendError::TooLarge { len, max });
        }
        if header.kind == EntryKind::Mark && len > 0 {
            return Err(AppendError::MarkWithPayload { len });
        }
        if self.position_for(len) != self.tail.end {
            self.roll(ENTRY_HEADER_LEN + padded(len))?;
        }
        let checkpoint = self.write(StoredKind::Entry(header.kind), header, payload, len)?;
        Ok(self.entry_written(header.kind, checkpoint))
    }

    /// Lets others know of the entry that was written last.
    fn entry_written(&mut self, kind: EntryKind, checkpoint: Checkpoint) -> Appended {
        if kind.holds_records() {
            self.tail.records_end = self.tail.end;
        }
        self.last_append = Instant::now();
        self.view.publish(self.tail.end);
        self.space.appended(self.tail.end);
        Appended {
            position: checkpoint.position,
            payload_position: checkpoint.position.plus(ENTRY_HEADER_LEN),
            end: checkpoint.end,
            checkpoint,
        }
    }

    /// Everything below `position` stays as it is from now on, for a log that is told so ([`crate::Settles::ByCaller`]):
    /// it is handed out without a copy, and no cut reaches below it. Only what is appended and durable here settles; a
    /// position that is lower than the one before changes nothing.
    pub fn settle(&mut self, position: LogPosition) {
        self.view.settled().raise(position.0.min(self.tail.end).min(self.commit.durable()));
    }

    /// What is appended from now on settles when the caller says so, and not when it is durable: as if the log had been opened
    /// with [`crate::Settles::ByCaller`]. A node that was alone calls this before others may decide, too.
    pub fn settle_by_caller(&mut self) {
        self.commit.settle_no_more();
    }

    /// Syncs on this thread what no sync has begun to cover yet, and counts it; `on_durable` may be called from here.
    /// What other syncs still cover becomes durable when they end, so the position given may be lower than
    /// [`Self::appended`].
    ///
    /// # Errors
    /// The log is or became poisoned.
    pub fn sync_here(&mut self) -> Result<LogPosition, AppendError> {
        self.commit.publish_quietly(self.tail.end);
        if let Some(job) = self.commit.begin(self.sync_slot) {
            let outcome = job.run();
            self.commit.complete(&job, outcome);
        }
        match self.commit.poisoned() {
            Some(report) => Err(report.clone().into()),
            None => Ok(self.durable()),
        }
    }

    /// Where the payload of the next entry will lie if it has `payload_len` bytes. A pure function of the log.
    pub fn next_payload_position(&self, payload_len: usize) -> LogPosition {
        LogPosition(self.position_for(payload_len as u64) + ENTRY_HEADER_LEN)
    }

    /// Largest payload in bytes that an entry of this log can carry.
    pub fn max_payload(&self) -> u64 {
        max_payload(self.view.segment_size)
    }

    /// `None` while space ahead of the log can be prepared. From the first attempt that met a [`Shortage`] on, such as a
    /// full disk: how many bytes can still be appended into what is prepared. Costs two loads; nothing is asked of the disk.
    ///
    /// Guarantee: while this is `Some(n)`, entries that together take at most `n` bytes of the log are not refused for
    /// that, also across the end of a segment. An entry takes [`ENTRY_HEADER_LEN`] and its payload rounded up
    /// to 8 bytes; marks count. (It holds where overwriting a written block allocates nothing: not on a file system
    /// that copies on write.)
    ///
    /// The log looks for space once a second, appends or not, and every time an append is refused. This is `None` again
    /// once all of [`crate::LogConfig::zero_ahead`] is prepared, so a few freed bytes do not make it waver. The first
    /// `n` is about seven eighths of `zero_ahead`, less the longest entry where a segment's end is near.
    ///
    /// A poisoned log takes nothing, whatever this says: see [`Self::poisoned`].
    pub fn short_of_space(&self) -> Option<u64> {
        let max_entry = ENTRY_HEADER_LEN + padded(self.max_payload());
        self.space.short_of_space(self.tail.end, self.segment.end, max_entry)
    }

    /// What keeps space ahead of the log from being prepared, while [`Self::short_of_space`] is not `None`.
    pub fn shortage(&self) -> Option<Shortage> {
        self.space.shortage()
    }

    /// First position that is not known durable.
    pub fn durable(&self) -> LogPosition {
        LogPosition(self.commit.durable())
    }

    /// First position that is not appended yet.
    pub fn appended(&self) -> LogPosition {
        LogPosition(self.tail.end)
    }

    /// A handle for another thread: it releases old segments and tells what the log occupies.
    pub fn housekeeping(&self) -> Housekeeping {
        let Self { commit, space, view, housekeeping, .. } = self;
        Housekeeping { commit: commit.clone(), space: space.clone(), view: view.clone(), state: housekeeping.clone() }
    }

    /// Why the log takes no more entries, if so.
    pub fn poisoned(&self) -> Option<&PoisonReport> {
        self.commit.poisoned()
    }

    /// Whether the log has been idle for [`MARK_AFTER`] and its last group is durable but not covered by a mark: then
    /// whoever leads should append an empty [`EntryKind::Mark`], so that later damage to that group cannot pass for a torn
    /// tail (ruling 17). The log itself appends nothing (ruling 29).
    pub fn mark_needed(&self) -> bool {
        self.mark_due_in() == Some(Duration::ZERO)
    }

    /// How long until a mark is needed if nothing is appended: a time to sleep. `None` if the last group is covered.
    pub fn mark_due_in(&self) -> Option<Duration> {
        let uncovered = !self.is_covered() && self.commit.poisoned().is_none();
        let wait = MARK_AFTER.saturating_sub(self.last_append.elapsed());
        // A group that is not durable after that long is waiting for a slow disk: look again later.
        let wait = if wait.is_zero() && self.commit.durable() < self.tail.records_end { MARK_AFTER } else { wait };
        uncovered.then_some(wait)
    }

    /// Whether an entry says of all records before it that they were durable, or there are none.
    pub fn is_covered(&self) -> bool {
        self.tail.records_end <= self.tail.mark
    }

    /// Makes everything durable and ends the threads. Appends nothing: whoever leads covers the last group with a mark
    /// before, when it is durable ([`Self::is_covered`]).
    ///
    /// # Errors
    /// The log is or became poisoned; what was reported durable before is.
    pub fn close(mut self) -> Result<LogPosition, AppendError> {
        self.commit.publish(self.tail.end);
        let closed = self.commit.wait_durable();
        if let Some(threads) = &mut self.threads {
            threads.end(Stop::Drain);
        }
        closed?;
        Ok(self.appended())
    }

    /// Where an entry with a payload of `len` bytes goes: right at the end, or first in the next segment. Behind it
    /// the segment must either end or have room for the header of a filler.
    fn position_for(&self, len: u64) -> u64 {
        let end = self.tail.end + ENTRY_HEADER_LEN + padded(len);
        let fits = end == self.segment.end || end + ENTRY_HEADER_LEN <= self.segment.end;
        if fits { self.tail.end } else { self.segment.end + SEGMENT_HEADER_LEN }
    }

    fn write(
        &mut self,
        kind: StoredKind,
        header: EntryHeader,
        payload: &[&[u8]],
        len: u64,
    ) -> Result<Checkpoint, AppendError> {
        let header = StoredHeader {
            kind,
            payload_len: u32::try_from(len).expect("a payload or filler is shorter than a segment, at most 4 GiB"),
            previous: self.tail.previous,
            term: header.term,
            index: header.index,
            position: self.tail.end,
            durable_mark: self.durable_mark(),
            leader_time_ms: header.leader_time_ms,
        };
        self.space.ensure(header.end()).map_err(|failure| self.refuse(failure))?;
        let (bytes, checksum) = header.encode(self.view.seed, payload);
        self.put(&Stored { header, checksum, bytes }, payload, padded(len) - len)
    }

    /// Writes header, payload and padding at the end of the log, where space is prepared.
    fn put(&mut self, stored: &Stored, payload: &[&[u8]], padding: u64) -> Result<Checkpoint, AppendError> {
        let Stored { header, checksum, bytes } = stored;
        let zeros = padding + self.rest_of_page(header.end());
        let mut parts = Vec::with_capacity(payload.len() + 2);
        parts.push(IoSlice::new(bytes));
        parts.extend(payload.iter().map(|part| IoSlice::new(part)));
        parts.push(IoSlice::new(&ZEROS[..zeros as usize]));
        let offset = self.segment.offset(header.position);
        self.segment.file.write_at(offset, &mut parts).map_err(|cause| {
            let segment = self.segment.name.clone();
            AppendError::from(self.commit.poison(IoFailure { segment, offset, operation: Operation::Write, cause }))
        })?;
        self.pages_taken_to = self.pages_taken_to.max(header.end().next_multiple_of(PAGE));
        self.tail = Tail {
            end: header.end(),
            previous: *checksum,
            term: header.term,
            index: header.index,
            leader_time_ms: header.leader_time_ms,
            mark: header.durable_mark,
            records_end: self.tail.records_end,
        };
        Ok(Checkpoint::new(header, *checksum))
    }

    /// How many bytes behind an entry that ends at `end` are overwritten with it, in a segment made of a used file: a
    /// page that is overwritten as a whole need not be read first to keep the rest of it.
    fn rest_of_page(&self, end: u64) -> u64 {
        let entered = self.segment.recycled && end > self.pages_taken_to;
        if entered { end.next_multiple_of(PAGE) - end } else { 0 }
    }

    fn durable_mark(&self) -> u64 {
        #[cfg(any(test, feature = "simulated-disk"))]
        if crate::bugs::NO_DURABLE_MARK.injected() {
            return 0;
        }
        self.commit.durable()
    }

    fn refuse(&self, failure: IoFailure) -> AppendError {
        match shortage(&failure) {
            Some(shortage) => self.space.short(shortage, &failure),
            None => self.commit.poison(failure).into(),
        }
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        housekeeping::close(&self.housekeeping);
        if let Some(threads) = &mut self.threads {
            threads.end(Stop::Now);
        }
    }
}
