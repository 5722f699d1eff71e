//! The scrubber: reads sealed segments again, a little at a time, to find what a disk has lost while nobody looked.

use std::io;
use std::sync::Arc;

use crate::Housekeeping;
use crate::disk::File;
use crate::format::{EntryFault, SEGMENT_HEADER_LEN};
use crate::segment::file_name;
use crate::survey::files::read_header;
use crate::survey::report::DamagedRange;
use crate::survey::walker::{BrokenRange, Finding, Walker, whole_entry_at};
use crate::survey::window::{READ_STEP, ReadWindow};
use crate::{LogPosition, ScrubError, Shortage};

/// What one step of a scrubber did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubStep {
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Entries found whole.
    pub entries: u64,
    /// What is damaged, by position.
    pub damage: Vec<DamagedRange>,
    /// All sealed segments were read since the last time this was set: the next step begins with the first again, so
    /// this is the time to rest.
    pub round_ended: bool,
}

/// The segment that is being read.
struct Sealed {
    start: u64,
    file: Arc<dyn File>,
    walker: Walker,
}

/// Reads what was written long ago and compares it with its checksums, as slowly as its caller wants.
///
/// Only segments that are full, durable and settled are read, header included; each of their bytes belongs to an entry, and the
/// checksum of each entry to the one before it. Files are read past the page cache (`O_DIRECT`): so the medium is
/// verified, not a copy that happens to be in memory, and no page that readers need is evicted. On a file system that
/// has no direct reads, ordinary reads are used instead; what they leave in the cache is for the kernel to reclaim.
pub struct Scrubber {
    log: Housekeeping,
    /// Where the next segment begins that is to be read.
    next: u64,
    open: Option<Sealed>,
    /// Checksum and index of the last whole entry, if the next one must continue it.
    previous: Option<u32>,
    last_index: Option<u64>,
    /// Damage whose end is not known to be followed by a whole entry yet.
    held: Option<DamagedRange>,
}

impl Scrubber {
    pub(crate) fn new(log: Housekeeping, from: LogPosition) -> Self {
        let next = from.0 - from.0 % log.view.segment_size;
        Self { log, next, open: None, previous: None, last_index: None, held: None }
    }

    /// Where to begin after a restart ([`Housekeeping::scrubber`]): all sealed segments below were read in this round.
    pub fn position(&self) -> LogPosition {
        LogPosition(self.open.as_ref().map_or(self.next, |open| open.start))
    }

    /// Reads and verifies `max_bytes` more, or up to 256 KiB beyond that, because files are read in such pieces. 0 reads
    /// nothing.
    ///
    /// # Errors
    /// A file cannot be opened or a folder cannot be read; a sector that cannot be read is damage and no error. Later
    /// steps go on with the next segment, or, where there was a [`Shortage`], with the same.
    pub fn step(&mut self, max_bytes: u64) -> Result<ScrubStep, ScrubError> {
        let mut step = ScrubStep::default();
        let mut budget = max_bytes;
        while budget > 0 {
            if self.open.is_none() {
                if !self.begin(&mut step)? {
                    step.round_ended = true;
                    break;
                }
                step.bytes_read += SEGMENT_HEADER_LEN;
                budget = budget.saturating_sub(SEGMENT_HEADER_LEN);
                continue;
            }
            let start = self.next - self.log.view.segment_size;
            let outcome = self.advance(&mut budget, &mut step);
            if let Err(source) = outcome {
                (self.open, self.previous) = (None, None);
                if Shortage::of(&source).is_some() {
                    self.next = start;
                }
                return Err(ScrubError { file: self.path(start), source });
            }
        }
        Ok(step)
    }

    fn path(&self, start: u64) -> std::path::PathBuf {
        self.log.factory().disk.path(&file_name(start))
    }

    /// Opens the next sealed segment; `false` at the end of a round.
    fn begin(&mut self, step: &mut ScrubStep) -> Result<bool, ScrubError> {
        let size = self.log.view.segment_size;
        let start = self.log.view.start();
        if self.next < start {
            // Released meanwhile.
            (self.next, self.previous, self.last_index) = (start, None, None);
        }
        if self.next + size > self.log.kept() {
            step.damage.extend(self.held.take());
            (self.next, self.previous, self.last_index) = (start, None, None);
            return Ok(false);
        }
        let start = self.next;
        self.next += size;
        let opened = self.open_segment(start, step);
        if self.log.view.start() > start {
            // Whatever was found, it was no longer the segment.
            return Ok(true);
        }
        if opened.as_ref().is_err_and(|error| Shortage::of(error).is_some()) {
            // It was not looked at: it comes again, and not as if it were read.
            self.next = start;
        }
        opened.map_err(|source| ScrubError { file: self.path(start), source }).map(|()| true)
    }

    fn open_segment(&mut self, start: u64, step: &mut ScrubStep) -> io::Result<()> {
        let log = &self.log;
        let size = log.view.segment_size;
        let file = log.factory().disk.open_uncached(&file_name(start))?;
        let sound = read_header(&file, size)?.is_ok_and(|header| header.same_segment(&log.factory().header(start)));
        if !sound && log.view.start() <= start {
            let reason = "the segment header is not as it was written".to_owned();
            step.damage.push(self.range(start, start + SEGMENT_HEADER_LEN, reason, 0));
        }
        let window = ReadWindow::new(file.clone(), size, READ_STEP);
        let walker = Walker::new(window, self.log.view.seed, start, SEGMENT_HEADER_LEN);
        self.open = Some(Sealed { start, file, walker });
        Ok(())
    }

    fn advance(&mut self, budget: &mut u64, step: &mut ScrubStep) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let start = open.start;
        let before = open.walker.bytes_read();
        let found = open.walker.next(budget);
        step.bytes_read += open.walker.bytes_read() - before;
        match found? {
            Finding::Pause => {}
            Finding::End => self.open = None,
            Finding::Entry(header, crc) => {
                if let Some(mut range) = self.held.take() {
                    range.index_after = Some(header.index);
                    step.damage.push(range);
                }
                if self.previous.is_some_and(|previous| previous != header.previous) {
                    let reason = EntryFault::Chain.to_string();
                    let mut range = self.range(header.position, header.position, reason, 0);
                    range.index_after = Some(header.index);
                    step.damage.push(range);
                }
                (self.previous, self.last_index) = (Some(crc), Some(header.index));
                step.entries += 1;
            }
            Finding::Gap(gap) => self.gap(start, &gap, step),
        }
        Ok(())
    }

    fn gap(&mut self, start: u64, gap: &BrokenRange, step: &mut ScrubStep) {
        if self.log.view.start() > start {
            // Released meanwhile, and its file may hold another segment by now.
            (self.open, self.previous, self.held) = (None, None, None);
            return;
        }
        let Some(open) = &mut self.open else { return };
        let size = self.log.view.segment_size;
        if whole_entry_at(open.file.clone(), size, self.log.view.seed, gap.from, start) {
            // The second read was good: no damage that lasts, but a disk to keep an eye on.
            let file = self.path(start);
            tracing::warn!(file = %file.display(), offset = gap.from - start, "a bad read was good when repeated");
            if let Some(open) = &mut self.open {
                open.walker.again(gap.from);
            }
            return;
        }
        let reason = gap.unreadable.clone().unwrap_or_else(|| gap.fault.to_string());
        step.damage.extend(self.held.take());
        self.held = Some(self.range(gap.from, gap.to, reason, gap.headers));
        self.previous = None;
    }

    fn range(&self, from: u64, to: u64, reason: String, headers: u64) -> DamagedRange {
        let start = from - from % self.log.view.segment_size;
        DamagedRange {
            file: self.path(start),
            offset: from - start,
            length: to - from,
            from: LogPosition(from),
            to: LogPosition(to),
            reason,
            headers,
            index_before: self.last_index,
            index_after: None,
        }
    }
}

impl Housekeeping {
    /// A scrubber that begins its round with the segment of `from` ([`Scrubber::position`] of an earlier one, or 0).
    pub fn scrubber(&self, from: LogPosition) -> Scrubber {
        Scrubber::new(self.clone(), from)
    }
}
