//! What must hold of bytes that somebody sent before any of them is believed.

use super::SpanError;
use crate::LogPosition;
use crate::format::{
    ALIGNMENT, ENTRY_HEADER_LEN, EntryKind, MAX_PAYLOAD, SEGMENT_HEADER_LEN, Stored, StoredHeader, StoredKind,
    entry_checksum, max_payload, padded, stated_position,
};

const HEADER: usize = ENTRY_HEADER_LEN as usize;

/// No log gets there, and what is added to a position below does not overflow.
const BEYOND: u64 = u64::MAX / 2;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Decodes a header and sees to it that it can lie where it says, behind what was `before` it.
pub(super) fn header(
    seed: u32,
    segment_size: u64,
    bytes: &[u8; HEADER],
    before: Option<&Stored>,
) -> Result<Stored, SpanError> {
    let position = stated_position(bytes);
    if position >= BEYOND {
        return Err(misplaced(position, "no log gets there"));
    }
    let header = StoredHeader::decode(seed, bytes, position)
        .map_err(|fault| SpanError::Unsound { position: LogPosition(position), reason: fault.to_string() })?;
    place(segment_size, &header)?;
    if let Some(before) = before {
        follows(segment_size, before, &header)?;
    }
    Ok(Stored { header, checksum: entry_checksum(seed, bytes).0, bytes: *bytes })
}

/// Where entries and fillers can lie in a segment.
fn place(segment_size: u64, header: &StoredHeader) -> Result<(), SpanError> {
    let position = header.position;
    let offset = position.checked_rem(segment_size).unwrap_or(0);
    if offset < SEGMENT_HEADER_LEN || !offset.is_multiple_of(ALIGNMENT) {
        return Err(misplaced(position, "no entry begins there"));
    }
    let len = u64::from(header.payload_len);
    let end = offset + ENTRY_HEADER_LEN + padded(len);
    let longest = match header.kind {
        StoredKind::Filler if end != segment_size => return Err(misplaced(position, "a filler ends its segment")),
        // It takes the place of an entry that would not have left room for its header.
        StoredKind::Filler => MAX_PAYLOAD + 2 * ENTRY_HEADER_LEN,
        StoredKind::Entry(EntryKind::Mark) => 0,
        StoredKind::Entry(EntryKind::Records | EntryKind::Members) => max_payload(segment_size),
    };
    if len > longest {
        return Err(misplaced(position, "it is longer than any can be"));
    }
    if end != segment_size && end + ENTRY_HEADER_LEN > segment_size {
        return Err(misplaced(position, "its segment has no room for it"));
    }
    Ok(())
}

fn follows(segment_size: u64, before: &Stored, header: &StoredHeader) -> Result<(), SpanError> {
    let end = before.header.end();
    let next = if end.is_multiple_of(segment_size) { end + SEGMENT_HEADER_LEN } else { end };
    if header.position != next {
        return Err(misplaced(header.position, "it does not lie behind what comes before it"));
    }
    if header.previous != before.checksum {
        return Err(misplaced(header.position, "it does not continue what comes before it"));
    }
    Ok(())
}

/// Whether the filler's checksum is that of zeros.
pub(super) fn filler(seed: u32, stored: &Stored) -> Result<(), SpanError> {
    let (stated, mut crc) = entry_checksum(seed, &stored.bytes);
    let mut left = padded(stored.header.payload_len.into()) as usize;
    while left > 0 {
        let part = left.min(ZEROS.len());
        crc = crc32c::crc32c_append(crc, &ZEROS[..part]);
        left -= part;
    }
    same(stored, stated, crc)
}

/// Whether as many bytes follow the header as it says.
pub(super) fn length(stored: &Stored, found: usize) -> Result<(), SpanError> {
    let (expected, found) = (u64::from(stored.header.payload_len), found as u64);
    let position = LogPosition(stored.header.position);
    if expected == found { Ok(()) } else { Err(SpanError::Length { position, expected, found }) }
}

/// Whether the entry's checksum is that of this payload and its padding.
pub(super) fn payload(seed: u32, stored: &Stored, payload: &[u8]) -> Result<(), SpanError> {
    let (stated, crc) = entry_checksum(seed, &stored.bytes);
    let padding = (payload.len() as u64).next_multiple_of(ALIGNMENT) as usize - payload.len();
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, payload), &ZEROS[..padding]);
    same(stored, stated, crc)
}

/// What lies in front of an entry belongs to it: it repeats the index before.
pub(super) fn indexes(before: &[Stored], entry: &Stored) -> Result<(), SpanError> {
    match before.iter().find(|stored| stored.header.index >= entry.header.index) {
        Some(stored) => Err(misplaced(stored.header.position, "it belongs to a later index than the entry behind it")),
        None => Ok(()),
    }
}

fn same(stored: &Stored, stated: u32, crc: u32) -> Result<(), SpanError> {
    let position = LogPosition(stored.header.position);
    let reason = || crate::format::EntryFault::Payload.to_string();
    if stated == crc { Ok(()) } else { Err(SpanError::Unsound { position, reason: reason() }) }
}

fn misplaced(position: u64, reason: &'static str) -> SpanError {
    SpanError::Misplaced { position: LogPosition(position), reason }
}
