//! What lies behind the last sound entry: torn entries, entries of groups whose predecessor was lost, or nothing.

use std::io;

use super::headers::FoundSegment;
use crate::format::{ALIGNMENT, ENTRY_HEADER_LEN, EntryFault, StoredHeader, may_start_entry, padded};

/// Bytes looked at in one go.
const WINDOW: u64 = 1 << 20;

/// Findings behind the end of the chain.
pub(crate) struct Remains {
    seed: u32,
    /// Whether marks tell what is durable here.
    marks_prove: bool,
    /// Highest position that the caller or any sound header, in the chain or behind it, says is durable.
    pub(crate) durable: u64,
    /// Position of the last sound header behind the end.
    pub(crate) last_header: Option<u64>,
    /// Position of the last byte that is not zero; in a recycled segment, of the last that belongs to a sound header.
    pub(crate) last_byte: Option<u64>,
    /// The same within the segment in which the chain ends.
    pub(crate) last_byte_here: Option<u64>,
    /// Bytes looked at.
    pub(crate) searched: u64,
}

impl Remains {
    pub(crate) fn new(seed: u32, durable: u64, marks_prove: bool) -> Self {
        Self { seed, marks_prove, durable, last_header: None, last_byte: None, last_byte_here: None, searched: 0 }
    }

    /// Looks through a segment from position `from` on, up to the offset from which on nothing was written. Holes are
    /// skipped: nothing was written there either.
    pub(crate) fn look(&mut self, found: &FoundSegment, from: u64, written_to: u64) -> io::Result<()> {
        let mut offset = from.saturating_sub(found.start);
        // A header may be found whole although the bytes before it are not: try every place one can start at. But
        // trust a sound one about its payload, so that nothing inside a message body is taken for an entry.
        let mut skip_to = offset;
        // A copy: what is looked at here is what may be cut.
        let mut memory = vec![0; WINDOW.min(written_to.saturating_sub(offset)) as usize];
        while offset < written_to {
            match found.file.next_data(offset)? {
                Some(data) if data < written_to => offset = data / ALIGNMENT * ALIGNMENT,
                _ => break,
            }
            let len = WINDOW.min(written_to - offset);
            found.mapping.populate(offset, len as usize)?;
            self.searched += len;
            let window = &mut memory[..len as usize];
            found.mapping.copy(offset, window);
            let (words, rest) = window.as_chunks::<{ ALIGNMENT as usize }>();
            if let Some(byte) = rest.iter().rposition(|byte| *byte != 0).filter(|_| !found.recycled) {
                self.last_byte = Some(found.start + offset + (len - rest.len() as u64) + byte as u64);
            }
            for (number, word) in words.iter().enumerate() {
                let word = u64::from_le_bytes(*word);
                if word == 0 {
                    continue;
                }
                let at = offset + number as u64 * ALIGNMENT;
                let top = u64::from(7 - word.leading_zeros() / 8);
                if !found.recycled {
                    self.last_byte = self.last_byte.max(Some(found.start + at + top));
                }
                if at >= skip_to && may_start_entry(word) {
                    skip_to = self.note_header(found, at).unwrap_or(skip_to);
                }
            }
            offset += len;
        }
        Ok(())
    }

    /// Notes the header at `at`, if it is a sound one, and gives the offset of its end.
    fn note_header(&mut self, found: &FoundSegment, at: u64) -> Option<u64> {
        if at + ENTRY_HEADER_LEN > found.size {
            return None;
        }
        let mut bytes = [0; ENTRY_HEADER_LEN as usize];
        found.mapping.copy(at, &mut bytes);
        let decoded = StoredHeader::decode(self.seed, &bytes, found.start + at);
        #[cfg(any(test, feature = "simulated-disk"))]
        let decoded = match decoded {
            Err(EntryFault::Misplaced) if crate::bugs::POSITION_IGNORED.injected() => {
                Ok(StoredHeader::decode_anywhere(self.seed, &bytes, found.start + at))
            }
            decoded => decoded,
        };
        match decoded {
            Ok(header) => {
                if self.marks_prove {
                    self.durable = self.durable.max(header.durable_mark);
                }
                self.last_header = Some(header.position);
                let end = at + ENTRY_HEADER_LEN + padded(header.payload_len.into());
                // A length that no entry can have says nothing about where the next one is.
                let fits = end <= found.size;
                let last = if fits { end } else { at + ENTRY_HEADER_LEN };
                self.last_byte = self.last_byte.max(Some(found.start + last - 1));
                fits.then_some(end)
            }
            // Proof that the file held entries, though this program cannot say which.
            Err(EntryFault::Version(_) | EntryFault::Kind(_)) => {
                self.last_header = Some(found.start + at);
                self.last_byte = self.last_byte.max(Some(found.start + at + ENTRY_HEADER_LEN - 1));
                None
            }
            Err(_) => None,
        }
    }
}
