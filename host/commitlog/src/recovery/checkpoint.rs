//! Where the pass begins: at the first entry of the log, or behind the one that a snapshot ends with.

use super::{ReadAhead, Scan};
use crate::format::{EntryKind, SEGMENT_HEADER_LEN, StoredHeader, StoredKind};
use crate::{Checkpoint, LogPosition, OpenError};

impl Scan<'_> {
    /// Goes to where the pass begins; `false` if there is nothing to walk.
    pub(super) fn begin_walk(&mut self) -> Result<bool, OpenError> {
        if let Some(checkpoint) = self.config.checkpoint {
            self.begin_behind(&checkpoint)?;
            return Ok(true);
        }
        let Some(first) = self.found.first().filter(|found| found.sound) else { return Ok(false) };
        self.report.start = LogPosition(first.start);
        self.chained = first.start == 0;
        self.tail.end = self.factory.first_entry(first.start);
        Ok(true)
    }

    /// Everything below this is known to be on the disk: the caller says so, by itself or by a snapshot that was made of
    /// entries which had been reported durable, or an entry's mark, where marks prove anything.
    pub(super) fn certain(&self) -> u64 {
        let marked = if self.config.trusts_marks() { self.tail.mark } else { 0 };
        marked.max(self.config.known())
    }

    fn begin_behind(&mut self, checkpoint: &Checkpoint) -> Result<(), OpenError> {
        let position = checkpoint.position.0;
        let segment = self.factory.segment_start(position);
        let Some(at) = self.found.iter().position(|found| found.start == segment) else {
            return Err(self.not_there(checkpoint, "no segment file holds that position"));
        };
        if !self.found[at].sound {
            // The checkpoint's entry was durable, so this is no creation that was cut short.
            return Err(self.unsound(&self.found[at], checkpoint.end.0));
        }
        if position - segment < SEGMENT_HEADER_LEN {
            return Err(self.not_there(checkpoint, "entries do not begin inside a segment's header"));
        }
        self.report.start = LogPosition(self.found[0].start);
        self.at = at;
        self.tail.end = position;
        self.chained = false;
        let mut ahead = ReadAhead { asked: position - segment, populated: position - segment };
        let (header, crc) = match self.check(&mut ahead, segment)? {
            Ok((header, crc, _)) => (header, crc),
            Err(fault) => return Err(self.not_there(checkpoint, &fault.to_string())),
        };
        let StoredKind::Entry(kind) = header.kind else {
            return Err(self.not_there(checkpoint, "the filler that ends a segment is there"));
        };
        let there = Checkpoint::new(&header, crc);
        if there != *checkpoint {
            return Err(self.not_there(checkpoint, &format!("another entry is there: {there}")));
        }
        self.continue_from(&header, crc, kind);
        Ok(())
    }

    fn continue_from(&mut self, header: &StoredHeader, crc: u32, kind: EntryKind) {
        self.chained = true;
        self.tail.previous = crc;
        self.tail.end = header.end();
        self.tail.mark = header.durable_mark;
        (self.tail.term, self.tail.index) = (header.term, header.index);
        self.tail.leader_time_ms = header.leader_time_ms;
        // What came before a mark is not read: it may be records right up to it.
        self.tail.records_end = if kind.holds_records() { header.end() } else { header.position };
        self.last_kind = Some((kind, header.durable_mark >= self.tail.records_end));
        self.report.scanned_bytes += header.end() - header.position;
        self.report.checkpoint = Some(Checkpoint::new(header, crc));
    }

    fn not_there(&self, checkpoint: &Checkpoint, reason: &str) -> OpenError {
        let segment = self.factory.segment_start(checkpoint.position.0);
        OpenError::Checkpoint {
            checkpoint: *checkpoint,
            file: self.path(segment),
            offset: checkpoint.position.0 - segment,
            reason: reason.to_owned(),
        }
    }
}

impl Checkpoint {
    /// The checkpoint of an entry, given its header and checksum.
    pub(crate) fn new(header: &StoredHeader, checksum: u32) -> Self {
        Self {
            position: LogPosition(header.position),
            end: LogPosition(header.end()),
            term: header.term,
            index: header.index,
            checksum,
        }
    }
}
