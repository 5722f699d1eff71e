//! Format version 1, byte by byte; `docs/log-format.md` is its prose. All integers are little-endian.

use crc32c::crc32c_append;

/// Version written into every entry header, and into the header of a segment that was made of a new file.
pub const FORMAT_VERSION: u8 = 1;
/// Version in the header of a segment that was made of a used file: behind its last entry lie bytes of an earlier life
/// instead of zeros. A program that knows only version 1 would take them for a torn tail, so it must refuse.
const RECYCLED_SEGMENT_VERSION: u8 = 2;
/// Bytes before the first entry of a segment. A block of its own, so that no later write touches it again.
pub const SEGMENT_HEADER_LEN: u64 = 4096;
/// Bytes of an entry before its payload.
pub const ENTRY_HEADER_LEN: u64 = 64;
/// Largest payload of an entry in bytes, where the segment is large enough to hold it.
pub const MAX_PAYLOAD: u64 = 16 << 20;
/// Entries start at multiples of this.
pub(crate) const ALIGNMENT: u64 = 8;

const SEGMENT_MAGIC: [u8; 8] = *b"VOUCHLOG";
const ENTRY_MAGIC: u32 = u32::from_le_bytes(*b"VLe\xC5");

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// Carries a batch of records; the log does not look inside.
    Records,
    /// Carries nothing but its header: makes known that everything before its durable mark is durable (ruling 17).
    Mark,
    /// Carries one record, which changes who may write this log. Whoever reads no more than headers must know of it.
    Members,
}

impl EntryKind {
    /// Whether it says something; a mark does not.
    pub fn holds_records(self) -> bool {
        self != Self::Mark
    }
}

/// Kind as stored; a filler closes a segment and is never handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoredKind {
    Entry(EntryKind),
    Filler,
}

impl StoredKind {
    fn to_byte(self) -> u8 {
        match self {
            Self::Entry(EntryKind::Records) => 1,
            Self::Entry(EntryKind::Mark) => 2,
            Self::Filler => 3,
            Self::Entry(EntryKind::Members) => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Entry(EntryKind::Records)),
            2 => Some(Self::Entry(EntryKind::Mark)),
            3 => Some(Self::Filler),
            4 => Some(Self::Entry(EntryKind::Members)),
            _ => None,
        }
    }
}

/// First block of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) cluster_id: [u8; 16],
    pub(crate) shard: u16,
    pub(crate) segment_size: u64,
    pub(crate) start: u64,
    /// Made of a used file, whose old bytes may lie behind the last entry.
    pub(crate) recycled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentHeaderFault {
    /// Magic or checksum do not hold: not a header, or a damaged one.
    Damaged,
    /// A sound header of a version that this program does not know.
    Version(u8),
}

const SEGMENT_CRC_AT: usize = SEGMENT_HEADER_LEN as usize - 4;

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; SEGMENT_HEADER_LEN as usize];
        block[0..8].copy_from_slice(&SEGMENT_MAGIC);
        block[8] = if self.recycled { RECYCLED_SEGMENT_VERSION } else { FORMAT_VERSION };
        block[10..12].copy_from_slice(&self.shard.to_le_bytes());
        block[16..32].copy_from_slice(&self.cluster_id);
        block[32..40].copy_from_slice(&self.segment_size.to_le_bytes());
        block[40..48].copy_from_slice(&self.start.to_le_bytes());
        let crc = crc32c::crc32c(&block[..SEGMENT_CRC_AT]);
        block[SEGMENT_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        block
    }

    pub(crate) fn decode(block: &[u8]) -> Result<Self, SegmentHeaderFault> {
        let whole = block.len() == SEGMENT_HEADER_LEN as usize;
        if !whole
            || block[0..8] != SEGMENT_MAGIC
            || u32_at(block, SEGMENT_CRC_AT) != crc32c::crc32c(&block[..SEGMENT_CRC_AT])
        {
            return Err(SegmentHeaderFault::Damaged);
        }
        let recycled = match block[8] {
            FORMAT_VERSION => false,
            RECYCLED_SEGMENT_VERSION => true,
            newer => return Err(SegmentHeaderFault::Version(newer)),
        };
        let mut cluster_id = [0; 16];
        cluster_id.copy_from_slice(&block[16..32]);
        Ok(Self {
            cluster_id,
            shard: u16::from_le_bytes([block[10], block[11]]),
            segment_size: u64_at(block, 32),
            start: u64_at(block, 40),
            recycled,
        })
    }

    /// Whether both name the same segment, whatever file it is made of.
    pub(crate) fn same_segment(&self, other: &Self) -> bool {
        Self { recycled: other.recycled, ..*self } == *other
    }
}

/// Header of one entry, checksums apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredHeader {
    pub(crate) kind: StoredKind,
    pub(crate) payload_len: u32,
    /// Checksum of the entry before this one; 0 for the first of the log.
    pub(crate) previous: u32,
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) position: u64,
    /// Everything below was durable when this entry was written.
    pub(crate) durable_mark: u64,
    pub(crate) leader_time_ms: u64,
}

/// Why bytes are not an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryFault {
    /// Nothing but zeros where a header should be.
    Nothing,
    /// Neither zeros nor an entry header whose checksum holds.
    Header,
    /// A sound header that was written for another position.
    Misplaced,
    /// A sound header; the payload does not match its checksum.
    Payload,
    /// A sound entry that does not follow the one before it.
    Chain,
    /// A sound header of a format version this program does not know.
    Version(u8),
    /// A sound header of a kind this program does not know.
    Kind(u8),
}

impl std::fmt::Display for EntryFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("no entry is there"),
            Self::Header => f.write_str("the entry header does not match its checksum"),
            Self::Misplaced => f.write_str("the entry header belongs to another position"),
            Self::Payload => f.write_str("the payload does not match its checksum"),
            Self::Chain => f.write_str("the entry does not follow the one before it"),
            Self::Version(version) => write!(f, "the entry has the unknown format version {version}"),
            Self::Kind(kind) => write!(f, "the entry has the unknown kind {kind}"),
        }
    }
}

/// Start value of every entry checksum of one log. Bytes of another cluster or shard never pass for entries of this
/// one, nor do entries that a client forged inside a message body.
pub(crate) fn checksum_seed(cluster_id: &[u8; 16], shard: u16) -> u32 {
    crc32c_append(crc32c::crc32c(cluster_id), &shard.to_le_bytes())
}

/// Payload length rounded up to the alignment.
pub(crate) fn padded(payload_len: u64) -> u64 {
    payload_len.next_multiple_of(ALIGNMENT)
}

const HEADER: usize = ENTRY_HEADER_LEN as usize;

/// Largest payload in bytes that an entry can carry in segments of this size: room for the header of a filler is left
/// behind every entry that does not end its segment exactly.
pub(crate) fn max_payload(segment_size: u64) -> u64 {
    let room = segment_size.saturating_sub(SEGMENT_HEADER_LEN + 2 * ENTRY_HEADER_LEN);
    MAX_PAYLOAD.min(room / ALIGNMENT * ALIGNMENT)
}

/// A header as it lies in the log, with what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) header: StoredHeader,
    /// The entry's checksum.
    pub(crate) checksum: u32,
    pub(crate) bytes: [u8; HEADER],
}

impl StoredHeader {
    /// Where the next entry starts, segment ends apart.
    pub(crate) fn end(&self) -> u64 {
        self.position + ENTRY_HEADER_LEN + padded(u64::from(self.payload_len))
    }

    /// Encodes the header for `payload`; returns it with the entry's checksum. Padding counts as zeros.
    pub(crate) fn encode(&self, seed: u32, payload: &[&[u8]]) -> ([u8; HEADER], u32) {
        let mut bytes = [0; HEADER];
        bytes[0..4].copy_from_slice(&ENTRY_MAGIC.to_le_bytes());
        bytes[8] = FORMAT_VERSION;
        bytes[9] = self.kind.to_byte();
        bytes[12..16].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.previous.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.term.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.index.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.position.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.durable_mark.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.leader_time_ms.to_le_bytes());
        let header_crc = header_checksum(seed, &bytes);
        bytes[20..24].copy_from_slice(&header_crc.to_le_bytes());
        let mut crc = crc32c_append(seed, &bytes[8..]);
        for part in payload {
            crc = crc32c_append(crc, part);
        }
        let padding = padded(u64::from(self.payload_len)) - u64::from(self.payload_len);
        crc = crc32c_append(crc, &[0; ALIGNMENT as usize][..padding as usize]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }

    /// Decodes a header that lies at `position`. A version or kind that is unknown is told apart from damage, because
    /// the header's checksum proves that it was written so.
    pub(crate) fn decode(seed: u32, bytes: &[u8; HEADER], position: u64) -> Result<Self, EntryFault> {
        if u32_at(bytes, 0) != ENTRY_MAGIC {
            return Err(if bytes.iter().all(|byte| *byte == 0) { EntryFault::Nothing } else { EntryFault::Header });
        }
        if u32_at(bytes, 20) != header_checksum(seed, bytes) {
            return Err(EntryFault::Header);
        }
        // Before the version: what an earlier life of the file left says nothing, whoever wrote it.
        if u64_at(bytes, 40) != position {
            return Err(EntryFault::Misplaced);
        }
        if bytes[8] != FORMAT_VERSION {
            return Err(EntryFault::Version(bytes[8]));
        }
        let kind = StoredKind::from_byte(bytes[9]).ok_or(EntryFault::Kind(bytes[9]))?;
        let header = Self {
            kind,
            payload_len: u32_at(bytes, 12),
            previous: u32_at(bytes, 16),
            term: u64_at(bytes, 24),
            index: u64_at(bytes, 32),
            position,
            durable_mark: u64_at(bytes, 48),
            leader_time_ms: u64_at(bytes, 56),
        };
        // A writer never knows more to be durable than it has written.
        if header.durable_mark > position { Err(EntryFault::Header) } else { Ok(header) }
    }
}

#[cfg(any(test, feature = "simulated-disk"))]
impl StoredHeader {
    /// As [`Self::decode`], for a header that claims to lie anywhere: the mistake of trusting a recycled file.
    pub(crate) fn decode_anywhere(seed: u32, bytes: &[u8; HEADER], position: u64) -> Self {
        let claimed = u64_at(bytes, 40);
        let header = Self::decode(seed, bytes, claimed).expect("only the position was wrong");
        Self { position, ..header }
    }
}

/// Checks header and padded payload against the entry's checksum and returns it.
pub(crate) fn verify_entry(seed: u32, header: &[u8; HEADER], padded_payload: &[u8]) -> Result<u32, EntryFault> {
    let (stored, so_far) = entry_checksum(seed, header);
    let actual = crc32c_append(so_far, padded_payload);
    if stored == actual { Ok(stored) } else { Err(EntryFault::Payload) }
}

/// The checksum that an entry's header states, and the checksum over the header alone, to go on with the padded payload.
pub(crate) fn entry_checksum(seed: u32, header: &[u8; HEADER]) -> (u32, u32) {
    (u32_at(header, 4), crc32c_append(seed, &header[8..]))
}

/// The position that the bytes of a header state, whether or not they are sound.
pub(crate) fn stated_position(header: &[u8; HEADER]) -> u64 {
    u64_at(header, 40)
}

/// Whether an entry header might start with these eight bytes; a quick look before the checksum.
pub(crate) fn may_start_entry(word: u64) -> bool {
    word as u32 == ENTRY_MAGIC
}

fn header_checksum(seed: u32, bytes: &[u8; HEADER]) -> u32 {
    crc32c_append(crc32c_append(seed, &bytes[8..20]), &bytes[24..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
