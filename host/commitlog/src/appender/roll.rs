//! From one segment to the next.

use std::sync::Arc;

use super::{Appender, EntryHeader, Tail};
use crate::AppendError;
use crate::format::{ENTRY_HEADER_LEN, EntryKind, SEGMENT_HEADER_LEN, StoredKind};
use crate::segment::WriteSegment;

impl Appender {
    /// Goes on in the next segment, with an entry of `len` bytes; what is left of this one is closed by a filler.
    pub(super) fn roll(&mut self, len: u64) -> Result<(), AppendError> {
        let next = self.next_segment(len)?;
        if self.tail.end < self.segment.end {
            let zeros = vec![0; (self.segment.end - self.tail.end - ENTRY_HEADER_LEN) as usize];
            let Tail { term, index, leader_time_ms, .. } = self.tail;
            let header = EntryHeader { term, index, leader_time_ms, kind: EntryKind::Mark };
            self.write(StoredKind::Filler, header, &[&zeros], zeros.len() as u64)?;
        }
        self.enter(next);
        Ok(())
    }

    /// The next segment, with room for `len` bytes of entries, and with this one prepared to its end. All of it before
    /// anything is written: what is refused leaves nothing behind, no filler either.
    pub(super) fn next_segment(&self, len: u64) -> Result<Arc<WriteSegment>, AppendError> {
        let next = self.space.next().map_err(|failure| self.refuse(failure))?;
        let until = next.start + SEGMENT_HEADER_LEN + len;
        let prepared = self.space.ensure(self.segment.end).and_then(|()| self.space.ensure_next(&next, until));
        prepared.map_err(|failure| self.refuse(failure))?;
        Ok(next)
    }

    pub(super) fn enter(&mut self, next: Arc<WriteSegment>) {
        self.space.advance();
        self.commit.roll(next.clone());
        self.view.add_segment(next.mapping.clone());
        self.tail.end = next.start + SEGMENT_HEADER_LEN;
        self.segment = next;
    }
}
