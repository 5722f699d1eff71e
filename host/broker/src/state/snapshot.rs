//! Snapshots of the state: every kind writes itself to and reads itself from a versioned section (ruling 19).
//!
//! A snapshot is the magic `VOUCHSNP`, the log position after the last applied record (8 bytes), a CRC-32C of these
//! two (4), then sections. A section is its kind (2), version (1), length (8), CRC-32C of its bytes (4), and the bytes.
//! A reader refuses sections that it does not know: state that nobody reads is state that is lost.

use crate::record::codec::{DecodeError, Reader, Writer};

const MAGIC: &[u8; 8] = b"VOUCHSNP";

/// One kind of replicated state.
///
/// # To ensure correctness
///
/// - `read(write(x)) == x`, for every reachable `x`.
/// - Equal states write equal bytes: iterate in a defined order.
/// - State at record *k*, written and read, then the records after *k*, equals the whole replay (property test in
///   `state/tests`).
pub(crate) trait Snapshot: Sized {
    /// Number of the section; never reused.
    const SECTION: u16;
    /// Version of the layout that is written.
    const VERSION: u8 = 1;

    fn write(&self, w: &mut Writer<'_>);
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// Why a snapshot cannot be used. Start from the log instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not a snapshot.
    #[error("the file is not a snapshot of Vouch")]
    Magic,
    /// The position that it covers is damaged.
    #[error("the head of the snapshot is damaged: its checksum is {found:08x}, its bytes give {computed:08x}")]
    Position {
        /// As written.
        found: u32,
        /// As computed.
        computed: u32,
    },
    /// A section is damaged.
    #[error("section {section} of the snapshot is damaged: {why}")]
    Section {
        /// Number of the section.
        section: u16,
        /// What is wrong.
        why: DecodeError,
    },
    /// A section that this version does not read, or that is missing.
    #[error(
        "the snapshot has section {found} version {version} where section {expected} was expected; it was written by another version of Vouch"
    )]
    Unexpected {
        /// Found.
        found: u16,
        /// Its version.
        version: u8,
        /// Expected.
        expected: u16,
    },
    /// Something follows the last section.
    #[error("the snapshot goes on after its last section: {0}")]
    Trailing(DecodeError),
    /// The file ends early.
    #[error("the snapshot is cut off: {0}")]
    Short(DecodeError),
}

/// Begins a snapshot that covers the log up to `position`.
pub(crate) fn begin(position: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&position.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Appends one kind of state.
pub(crate) fn section<S: Snapshot>(out: &mut Vec<u8>, state: &S) {
    let mut w = Writer(out);
    w.u16(S::SECTION);
    w.u8(S::VERSION);
    // Length and checksum are filled in below: a section of millions of entries is written once, not copied.
    w.u64(0);
    w.u32(0);
    let start = out.len();
    state.write(&mut Writer(out));
    let (len, checksum) = ((out.len() - start) as u64, crc32c::crc32c(&out[start..]));
    out[start - 12..start - 4].copy_from_slice(&len.to_le_bytes());
    out[start - 4..start].copy_from_slice(&checksum.to_le_bytes());
}

/// Opens a snapshot: the position it covers, and a reader at its first section.
pub(crate) fn open(bytes: &[u8]) -> Result<(u64, Reader<'_>), SnapshotError> {
    let mut r = Reader(bytes);
    if r.take(8, "magic").map_err(SnapshotError::Short)? != MAGIC {
        return Err(SnapshotError::Magic);
    }
    let position = r.u64("position").map_err(SnapshotError::Short)?;
    let found = r.u32("checksum").map_err(SnapshotError::Short)?;
    let computed = crc32c::crc32c(&bytes[..16]);
    if found != computed {
        return Err(SnapshotError::Position { found, computed });
    }
    Ok((position, r))
}

/// Reads the next section, which must be this kind.
pub(crate) fn next<S: Snapshot>(r: &mut Reader<'_>) -> Result<S, SnapshotError> {
    let short = SnapshotError::Short;
    let (found, version) = (r.u16("section").map_err(short)?, r.u8("section version").map_err(short)?);
    let len = r.u64("section length").map_err(short)?;
    let checksum = r.u32("section checksum").map_err(short)?;
    if found != S::SECTION || version != S::VERSION {
        return Err(SnapshotError::Unexpected { found, version, expected: S::SECTION });
    }
    let bytes = r.take(usize::try_from(len).unwrap_or(usize::MAX), "section").map_err(short)?;
    let damaged = |why| SnapshotError::Section { section: found, why };
    let computed = crc32c::crc32c(bytes);
    if computed != checksum {
        return Err(damaged(DecodeError::Checksum { found: checksum, computed }));
    }
    let mut section = Reader(bytes);
    let state = S::read(&mut section).map_err(damaged)?;
    section.end().map_err(damaged)?;
    Ok(state)
}
