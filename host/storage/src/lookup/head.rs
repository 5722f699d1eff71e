//! The first page of a lookup file, which says what it was made from and where the rest lies.

use vouch_commitlog::Checkpoint;

use super::LookupFault;
use super::format::{Posting, QueueStretch, Sample};
use super::page::{CONTENT_LEN, PAGE_LEN};
use super::section::{Section, u32_at, u64_at};

/// What every lookup file begins with.
const MAGIC: &[u8; 8] = b"VOUCHLKP";
/// The version of the format; a file of another one is made again.
const VERSION: u32 = 1;

/// The first page.
pub(super) struct LookupHead {
    /// The part whose messages are in the file.
    pub(super) part: u64,
    /// Checksum of that part.
    pub(super) part_checksum: u32,
    /// The last entry of the log that the part covers: its checksum covers all of the log before it.
    pub(super) checkpoint: Checkpoint,
    /// Pages of the file.
    pub(super) pages: u64,
    /// The latest time of a message, in milliseconds since 1970; 0 without messages.
    pub(super) latest_ms: u64,
    pub(super) rows: Section<QueueStretch>,
    pub(super) samples: Section<Sample>,
    pub(super) runs: Section<Section<Posting>>,
}

impl LookupHead {
    /// The content of the first page; the rest of it is zeros.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CONTENT_LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.part_checksum.to_le_bytes());
        bytes.extend_from_slice(&self.part.to_le_bytes());
        bytes.extend_from_slice(&self.checkpoint.encode());
        let sections = [
            (self.rows.first_page, self.rows.items),
            (self.samples.first_page, self.samples.items),
            (self.runs.first_page, self.runs.items),
        ];
        let sections = sections.into_iter().flat_map(|(page, items)| [page, items]);
        for number in [self.pages, self.latest_ms].into_iter().chain(sections) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Reads the contents of the first page of a file with so many pages.
    pub(super) fn decode(bytes: &[u8], pages: u64) -> Result<Self, LookupFault> {
        if bytes[..8] != *MAGIC || u32_at(bytes, 8) != VERSION {
            return Err(LookupFault::Version);
        }
        let at = 24 + Checkpoint::ENCODED_LEN;
        let number = |n: usize| u64_at(bytes, at + 8 * n);
        let head = Self {
            part_checksum: u32_at(bytes, 12),
            part: u64_at(bytes, 16),
            checkpoint: Checkpoint::decode(&bytes[24..at]).map_err(|_| LookupFault::Page(0))?,
            pages: number(0),
            latest_ms: number(1),
            rows: Section::new(number(2), number(3)),
            samples: Section::new(number(4), number(5)),
            runs: Section::new(number(6), number(7)),
        };
        let whole = head.pages == pages && head.rows.fits(pages) && head.samples.fits(pages) && head.runs.fits(pages);
        if whole { Ok(head) } else { Err(LookupFault::Length(pages * PAGE_LEN as u64)) }
    }
}
