//! Reading what others are sent.

use super::LogReader;
use crate::format::{EntryKind, SEGMENT_HEADER_LEN, StoredKind};
use crate::span::{EntrySpan, MAX_BEFORE};
use crate::{LogPosition, ReadError};

impl LogReader {
    /// All bytes of one index: what lies behind the entry of the index before it, which ends at `from`, up to the end of
    /// its own entry at `to`; verified, and without a copy of the payload where the bytes are settled. For the first
    /// entry of a segment `from` may also be the segment's start, or that of its entries.
    ///
    /// # Errors
    /// The range is not in the log, is not that of one entry ([`ReadError::NotOneEntry`]), or its bytes are not sound.
    pub fn span(&self, from: LogPosition, to: LogPosition) -> Result<EntrySpan, ReadError> {
        let view = &self.view;
        let mut before = Vec::new();
        let mut position = from.0;
        loop {
            if position.is_multiple_of(view.segment_size) {
                position += SEGMENT_HEADER_LEN;
            }
            let (stored, payload) = view.stored(position)?;
            position = stored.header.end();
            match stored.header.kind {
                StoredKind::Entry(_) if position == to.0 => {
                    return Ok(EntrySpan::new(view.seed, view.segment_size, before, stored, payload));
                }
                StoredKind::Filler | StoredKind::Entry(EntryKind::Mark)
                    if position < to.0 && before.len() < MAX_BEFORE =>
                {
                    before.push(stored);
                }
                _ => return Err(ReadError::NotOneEntry { from, to }),
            }
        }
    }
}
