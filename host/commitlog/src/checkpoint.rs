//! The place from which a snapshot needs the log.

use crate::LogPosition;
use crate::format::SEGMENT_HEADER_LEN;

/// Names one entry for certain: by its place and by its checksum, which covers its payload and, through the checksum
/// of the entry before it, everything that came earlier.
///
/// A snapshot that covers everything up to and including this entry stores it; a start with
/// [`crate::LogConfig::checkpoint`] then verifies this entry and reads only what follows. Note a checkpoint only of an
/// entry that was reported durable ([`crate::Durable::Up`]): everything below [`Self::end`] counts as durable from
/// then on (ruling 17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    /// Where the entry's header starts.
    pub position: LogPosition,
    /// First position after the entry.
    pub end: LogPosition,
    /// Term of the entry.
    pub term: u64,
    /// Index of the entry.
    pub index: u64,
    /// The checksum in the entry's header.
    pub checksum: u32,
}

/// Why bytes are not a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Use an older snapshot, or replay the whole log.
    #[error("the checkpoint is damaged; use an older snapshot, or replay the whole log")]
    Damaged,
    /// Open it with the program that wrote it or a later one.
    #[error(
        "the checkpoint has format version {0}, which this version cannot read; use the one that wrote it or a later one"
    )]
    Version(u8),
}

const MAGIC: [u8; 4] = *b"VLcp";
const VERSION: u8 = 1;
/// Bytes that the checksum covers start here.
const COVERED: usize = 8;

impl Checkpoint {
    /// Where every log began, before its first entry: for a cut that leaves nothing.
    pub const BEFORE_ALL: Self = {
        let first = LogPosition(SEGMENT_HEADER_LEN);
        Self { position: first, end: first, term: 0, index: 0, checksum: 0 }
    };
    /// Bytes of an encoded checkpoint.
    pub const ENCODED_LEN: usize = 48;

    /// The bytes to store with a snapshot; `docs/log-format.md` describes them.
    pub fn encode(&self) -> [u8; Self::ENCODED_LEN] {
        let mut bytes = [0; Self::ENCODED_LEN];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[8] = VERSION;
        bytes[12..16].copy_from_slice(&self.checksum.to_le_bytes());
        let numbers = [self.position.0, self.end.0, self.term, self.index];
        for (field, number) in bytes[16..].chunks_exact_mut(8).zip(numbers) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[COVERED..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads what [`Self::encode`] gave.
    ///
    /// # Errors
    /// The bytes are not a checkpoint, or one of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let bytes: &[u8; Self::ENCODED_LEN] = bytes.try_into().map_err(|_| CheckpointError::Damaged)?;
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if bytes[0..4] != MAGIC || u32_at(4) != crc32c::crc32c(&bytes[COVERED..]) {
            return Err(CheckpointError::Damaged);
        }
        if bytes[8] != VERSION {
            return Err(CheckpointError::Version(bytes[8]));
        }
        // No program of this version writes anything there: one checkpoint has one encoding.
        if bytes[9..12] != [0; 3] {
            return Err(CheckpointError::Damaged);
        }
        Ok(Self {
            position: LogPosition(u64_at(16)),
            end: LogPosition(u64_at(24)),
            term: u64_at(32),
            index: u64_at(40),
            checksum: u32_at(12),
        })
    }
}

impl std::fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "entry {} of term {} at position {}", self.index, self.term, self.position)
    }
}
