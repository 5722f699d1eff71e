//! The bytes of a note's file; `docs/note-file.md` describes them.

use std::io;

use crate::disk::File;

/// Bytes of a slot: a block of its own, so that a torn write of one touches nothing of the other.
pub(super) const SLOT_LEN: usize = 4096;
/// Slots of a file.
const SLOTS: u64 = 2;
/// Bytes of the file.
pub(super) const FILE_LEN: u64 = SLOTS * SLOT_LEN as u64;
/// A slot holds the note twice.
const COPY_LEN: usize = SLOT_LEN / 2;
const MAGIC: [u8; 8] = *b"VOUCHNTE";
const VERSION: u8 = 1;
const HEAD_LEN: usize = 24;
const CRC_AT: usize = COPY_LEN - 4;
/// Most bytes of a note.
pub const MAX_NOTE_LEN: usize = CRC_AT - HEAD_LEN;

/// A note that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    /// In which slot it lies.
    pub(super) slot: u64,
    /// Counts what was written, from 1 on.
    sequence: u64,
    pub(super) note: Vec<u8>,
}

impl Newest {
    /// The first that is written to a file.
    pub(super) fn first(note: &[u8]) -> Self {
        Self { slot: 0, sequence: 1, note: note.to_vec() }
    }

    /// The one to be written after this, in the other slot.
    pub(super) fn next(&self, note: &[u8]) -> Self {
        Self { slot: (self.slot + 1) % SLOTS, sequence: self.sequence + 1, note: note.to_vec() }
    }

    /// The same in another place.
    #[cfg(any(test, feature = "simulated-disk"))]
    pub(super) fn in_slot(self, slot: u64) -> Self {
        Self { slot, ..self }
    }
}

/// What a look at a file found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The newest whole note.
    Note(Newest),
    /// One of a version that this program does not know, whole.
    Newer(u8),
    /// Nothing that is whole.
    Nothing,
}

/// The bytes of a slot.
pub(super) fn encode(note: &Newest) -> Vec<u8> {
    let mut copy = vec![0; COPY_LEN];
    copy[0..8].copy_from_slice(&MAGIC);
    copy[8] = VERSION;
    copy[12..16].copy_from_slice(&(note.note.len() as u32).to_le_bytes());
    copy[16..24].copy_from_slice(&note.sequence.to_le_bytes());
    copy[HEAD_LEN..HEAD_LEN + note.note.len()].copy_from_slice(&note.note);
    let crc = crc32c::crc32c(&copy[..CRC_AT]);
    copy[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    copy.repeat(SLOT_LEN / COPY_LEN)
}

/// Reads a file.
pub(super) fn newest(file: &dyn File) -> io::Result<Found> {
    let mut newest: Option<Newest> = None;
    for slot in 0..SLOTS {
        let mut bytes = vec![0; SLOT_LEN];
        let len = file.read_at(slot * SLOT_LEN as u64, &mut bytes)?;
        #[cfg(any(test, feature = "simulated-disk"))]
        let len = if crate::bugs::NOTE_READ_ONCE.injected() { len.min(COPY_LEN) } else { len };
        for copy in bytes[..len].chunks_exact(COPY_LEN) {
            match decode(slot, copy) {
                Found::Note(note) if newest.as_ref().is_none_or(|newest| newest.sequence < note.sequence) => {
                    newest = Some(note);
                }
                // No program writes over what it does not know: this one is the newest, whatever its number means.
                Found::Newer(version) => return Ok(Found::Newer(version)),
                Found::Note(_) | Found::Nothing => {}
            }
        }
    }
    Ok(newest.map_or(Found::Nothing, Found::Note))
}

/// One copy of a note.
fn decode(slot: u64, copy: &[u8]) -> Found {
    let u32_at = |at: usize| u32::from_le_bytes([copy[at], copy[at + 1], copy[at + 2], copy[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    if copy[0..8] != MAGIC || u32_at(CRC_AT) != crc32c::crc32c(&copy[..CRC_AT]) {
        return Found::Nothing;
    }
    if copy[8] != VERSION {
        return Found::Newer(copy[8]);
    }
    let (len, sequence) = (u32_at(12) as usize, u64_at(16));
    // No program of this version writes anything else there: one note has one encoding.
    if copy[9..12] != [0; 3] || len > MAX_NOTE_LEN || copy[HEAD_LEN + len..CRC_AT].iter().any(|byte| *byte != 0) {
        return Found::Nothing;
    }
    Found::Note(Newest { slot, sequence, note: copy[HEAD_LEN..HEAD_LEN + len].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_lies_in_its_slot_as_the_document_says() {
        let slot = encode(&Newest::first(b"note").next(b"what is noted"));
        assert_eq!(slot.len(), SLOT_LEN);
        assert_eq!(slot[..COPY_LEN], slot[COPY_LEN..]);
        let head = *b"VOUCHNTE\x01\0\0\0\x0d\0\0\0\x02\0\0\0\0\0\0\0what is noted\0";
        assert_eq!(slot[..head.len()], head);
        assert!(slot[head.len()..CRC_AT].iter().all(|byte| *byte == 0));
        assert_eq!(slot[CRC_AT..COPY_LEN], GOLDEN_CRC);
    }

    const GOLDEN_CRC: [u8; 4] = [202, 21, 53, 122];

    #[test]
    fn any_bit_that_changes_is_found() {
        let copy = encode(&Newest::first(b"note"))[..COPY_LEN].to_vec();
        assert_eq!(decode(0, &copy), Found::Note(Newest::first(b"note")));
        for bit in 0..COPY_LEN * 8 {
            let mut changed = copy.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(0, &changed), Found::Nothing, "bit {bit}");
        }
    }

    #[test]
    fn a_sum_that_is_right_does_not_make_a_note_of_what_no_program_writes() {
        let copy = encode(&Newest::first(b"note"))[..COPY_LEN].to_vec();
        let with = |at: usize, byte: u8| {
            let mut changed = copy.clone();
            changed[at] = byte;
            let crc = crc32c::crc32c(&changed[..CRC_AT]);
            changed[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
            decode(0, &changed)
        };
        assert_eq!(with(8, 2), Found::Newer(2));
        for (at, byte) in [(0, b'v'), (9, 1), (11, 1), (13, 8), (15, 1), (12, 3), (CRC_AT - 1, 1)] {
            assert_eq!(with(at, byte), Found::Nothing, "{byte} at {at}");
        }
    }

    #[test]
    fn the_longest_note_fits() {
        let note = Newest::first(&[7; MAX_NOTE_LEN]);
        assert_eq!(decode(0, &encode(&note)[..COPY_LEN]), Found::Note(note));
    }
}
