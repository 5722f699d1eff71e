//! Appending what another replica's log holds, byte for byte.

use super::Appender;
use crate::format::{SEGMENT_HEADER_LEN, Stored, StoredKind, padded};
use crate::{AppendError, AppendSpanError, Appended, EntrySpan, LogPosition};

impl Appender {
    /// Appends one entry with what belongs to it as it lies in another replica's log. The files are the same afterwards,
    /// durable marks included: these are the leader's (see [`crate::LogConfig::marks_prove`]). Otherwise as
    /// [`Self::append`].
    ///
    /// # Errors
    /// See [`AppendSpanError`]: only `Poisoned` may have written something.
    pub fn append_span(&mut self, span: &EntrySpan) -> Result<Appended, AppendSpanError> {
        if let Some(report) = self.commit.poisoned() {
            return Err(AppendError::from(report.clone()).into());
        }
        self.expect(span)?;
        // Behind a full segment nothing closes the next one begins, and this writes nothing yet.
        if span.begins().0 != self.tail.end {
            self.roll(0)?;
        }
        self.make_room(span)?;
        for stored in &span.before {
            self.copy(stored, &[])?;
        }
        let checkpoint = self.copy(&span.entry, span.payload())?;
        let appended = self.entry_written(span.kind(), checkpoint);
        self.commit.publish(self.tail.end);
        Ok(appended)
    }

    /// Whether it is of this log and begins where this one ends.
    fn expect(&self, span: &EntrySpan) -> Result<(), AppendSpanError> {
        let index = span.index();
        if (span.seed, span.segment_size) != (self.view.seed, self.view.segment_size) {
            return Err(AppendSpanError::OtherLog { index });
        }
        let (begins, end) = (span.begins(), self.tail.end);
        let here = begins.0 == end || end == self.segment.end && begins.0 == end + SEGMENT_HEADER_LEN;
        if here && span.previous_checksum() == self.tail.previous {
            return Ok(());
        }
        let (previous, own) = (span.previous_checksum(), self.tail.previous);
        Err(AppendSpanError::Elsewhere { index, begins, previous, end: LogPosition(end), own })
    }

    /// Sees to it that there is room for all of it, so that it is refused as a whole or not at all. It reaches into one
    /// more segment at most: there are too few marks in front of an entry to fill one.
    fn make_room(&self, span: &EntrySpan) -> Result<(), AppendError> {
        let end = span.end().0;
        if end <= self.segment.end {
            return self.space.ensure(end).map_err(|failure| self.refuse(failure));
        }
        let next = (self.segment.end + SEGMENT_HEADER_LEN).min(end);
        self.next_segment((end - next).min(self.view.segment_size - SEGMENT_HEADER_LEN)).map(drop)
    }

    /// Writes what was stored elsewhere to the same place here.
    fn copy(&mut self, stored: &Stored, payload: &[u8]) -> Result<crate::Checkpoint, AppendError> {
        let header = &stored.header;
        if header.position != self.tail.end {
            let next = self.next_segment(0)?;
            self.enter(next);
        }
        // Nothing is left to be prepared where there was room for all of it.
        self.space.ensure(header.end()).map_err(|failure| self.refuse(failure))?;
        let len = u64::from(header.payload_len);
        match header.kind {
            StoredKind::Filler => self.put(stored, &[&vec![0; padded(len) as usize]], 0),
            StoredKind::Entry(_) => self.put(stored, &[payload], padded(len) - len),
        }
    }
}
