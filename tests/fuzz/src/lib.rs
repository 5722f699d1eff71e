//! What the fuzz targets share: repaired checksums, because no mutation would ever guess one, and a bound on memory.

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory that every decoder may take, whatever it is given, in bytes.
const MEMORY_FLOOR: usize = 256 << 10;

/// Runs a decoder and checks that it takes at most `factor` times the bytes of its input besides a small floor: what a
/// damaged length announces must not be allocated.
///
/// # Panics
/// If it takes more.
pub fn within_memory<T>(input: usize, factor: usize, decode: impl FnOnce() -> T) -> T {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let decoded = decode();
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let most = MEMORY_FLOOR + factor * input;
    assert!(taken <= most, "decoding {input} bytes took {taken} bytes of memory, more than {most}");
    decoded
}

/// Bytes of the frame around a record: length, checksum, kind, version, a zero (`records.md`).
const FRAME: usize = 12;

/// Makes the first record's length and checksum true for all of `bytes`.
pub fn repair_record(bytes: &mut [u8]) {
    if bytes.len() < FRAME {
        return;
    }
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// Makes the checksums of a snapshot's head and of its sections true, as far as lengths make sense (`snapshots.md`).
pub fn repair_snapshot(bytes: &mut [u8]) {
    const HEAD: usize = 20;
    const SECTION_HEAD: usize = 15;
    if bytes.len() < HEAD {
        return;
    }
    let checksum = crc32c::crc32c(&bytes[..16]);
    bytes[16..HEAD].copy_from_slice(&checksum.to_le_bytes());
    let mut at = HEAD;
    while let Some(head) = bytes.get(at..at + SECTION_HEAD) {
        let (version, len) = (head[2], u64_at(head, 3));
        let contents = at + SECTION_HEAD;
        // The last section takes all that is left, so that a changed length does not end the reading.
        let rest = bytes.len() - contents;
        let len = usize::try_from(len).ok().filter(|len| *len <= rest).unwrap_or(rest);
        bytes[at + 3..at + 11].copy_from_slice(&(len as u64).to_le_bytes());
        let before = if version == 1 { 0 } else { crc32c::crc32c(&bytes[at..at + 11]) };
        let checksum = crc32c::crc32c_append(before, &bytes[contents..contents + len]);
        bytes[at + 11..contents].copy_from_slice(&checksum.to_le_bytes());
        at = contents + len;
    }
}

/// Makes length and checksums of a part true, as far as its table makes sense (`snapshots.md`).
pub fn repair_part(bytes: &mut [u8]) {
    const HEAD: usize = 40;
    const ROW: usize = 56;
    if bytes.len() < HEAD {
        return;
    }
    let len = bytes.len();
    bytes[32..40].copy_from_slice(&(len as u64).to_le_bytes());
    let rows = usize::try_from(u64_at(bytes, 24)).unwrap_or(usize::MAX).min((len - HEAD) / ROW);
    bytes[24..32].copy_from_slice(&(rows as u64).to_le_bytes());
    let table_end = HEAD + rows * ROW;
    let mut at = table_end;
    for row in (HEAD..table_end).step_by(ROW) {
        let entry = match bytes[row] {
            1 | 4 => 16,
            _ => 40,
        };
        let most = ((len - at) / entry) as u64;
        let count = u64_at(bytes, row + 24).min(most);
        bytes[row + 24..row + 32].copy_from_slice(&count.to_le_bytes());
        bytes[row + 48..row + 56].copy_from_slice(&(at as u64).to_le_bytes());
        let end = at + count as usize * entry;
        let checksum = crc32c::crc32c(&bytes[at..end]);
        bytes[row + 12..row + 16].copy_from_slice(&checksum.to_le_bytes());
        at = end;
    }
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..table_end]);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
