//! Snapshots of the state: every kind writes itself to and reads itself from a versioned section (ruling 19).
//!
//! A snapshot is the magic `VOUCHSNP`, the log position after the last applied record (8 bytes), a CRC-32C of these
//! two (4), then sections. A section is its kind (2), version (1), length (8), checksum (4), and its contents; the
//! checksum is a CRC-32C, in version 1 of the contents, later of what is in front of it too. A reader refuses sections
//! that it does not know: state that nobody reads is state that is lost.
//!
//! What only grows lies in parts (see [`super::part`]); the first section names those that are needed.

use std::collections::BTreeMap;

use super::fault::SnapshotError;
use super::part::Part;
use crate::RecordPosition;
use crate::record::codec::{DecodeError, Reader, Writer};
use crate::record::level_of;

const MAGIC: &[u8; 8] = b"VOUCHSNP";

/// Bytes of a section in front of its contents, and of those the ones in front of the checksum.
const SECTION_HEAD_LEN: usize = 15;
const BEFORE_CHECKSUM: usize = 11;

/// One kind of replicated state.
///
/// # To ensure correctness
///
/// - `read(write(x)) == x`, for every reachable `x`, given the parts that it reads from.
/// - Equal states write equal bytes: iterate in a defined order.
/// - `write` takes every struct apart, field by field and without `..`: a new field does not build until somebody said how
///   it lies in a snapshot, or that it follows from the others (`field: _`).
/// - State at record *k*, written and read, then the records after *k*, equals the whole replay (property test in
///   `state/tests`).
pub(crate) trait Snapshot: Sized {
    /// Number of the section; never reused.
    const SECTION: u16;
    /// Oldest version of the layout that is read.
    const OLDEST: u8 = 1;
    /// Newest version of the layout.
    const VERSION: u8 = 1;
    /// The feature level of a cluster from which on the section is written.
    const LEVEL: u32 = 1;
    /// Versions of the layout that are written from a later level on, each with that level, ascending.
    const VERSION_LEVELS: &'static [(u8, u32)] = &[];

    /// Version of the layout in which this one is written: of those from the first level on the newest, and of later ones the oldest
    /// that has room for all that it says. What has no room in an older one came into the state by a record that belongs to a
    /// later level itself; so a node that knows no more than the log's level reads the snapshots of all others.
    fn version(&self) -> u8 {
        Self::VERSION
    }

    /// Writes this version of the layout, which is what [`Self::version`] said.
    fn write(&self, w: &mut Writer<'_>, version: u8);
    fn read(r: &mut Reader<'_>, source: &SectionSource<'_>) -> Result<Self, Unreadable>;
}

/// What a section is read with.
pub(crate) struct SectionSource<'a> {
    /// Version of its layout.
    pub(crate) version: u8,
    /// Parts that the snapshot names, ascending.
    pub(crate) parts: &'a [Part],
    /// Whether these are all of them, with all their rows; otherwise what is missing is passed over.
    pub(crate) whole: bool,
}

/// Why a section cannot be read.
pub(crate) enum Unreadable {
    /// Its own bytes.
    Section(DecodeError),
    /// A part that it needs.
    Part(SnapshotError),
}

impl From<DecodeError> for Unreadable {
    fn from(why: DecodeError) -> Self {
        Self::Section(why)
    }
}

impl From<SnapshotError> for Unreadable {
    fn from(why: SnapshotError) -> Self {
        Self::Part(why)
    }
}

/// Begins a snapshot that covers the log up to `position`.
pub(crate) fn begin(position: RecordPosition) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&position.0.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Appends one kind of state.
pub(crate) fn section<S: Snapshot>(out: &mut Vec<u8>, state: &S) {
    let version = state.version();
    let mut w = Writer(out);
    w.u16(S::SECTION);
    w.u8(version);
    // Length and checksum are filled in below: a section of millions of entries is written once, not copied.
    w.u64(0);
    w.u32(0);
    let start = out.len();
    state.write(&mut Writer(out), version);
    let len = (out.len() - start) as u64;
    let head = start - SECTION_HEAD_LEN;
    out[start - 12..start - 4].copy_from_slice(&len.to_le_bytes());
    let checksum = section_checksum(version, &out[head..start], &out[start..]);
    out[start - 4..start].copy_from_slice(&checksum.to_le_bytes());
}

/// Version 1 left the head out; a flipped version there could only ever be one that is not read.
fn section_checksum(version: u8, head: &[u8], contents: &[u8]) -> u32 {
    let before = if version == 1 { 0 } else { crc32c::crc32c(&head[..BEFORE_CHECKSUM]) };
    crc32c::crc32c_append(before, contents)
}

/// Opens a snapshot: the position it covers, and a reader at its first section.
pub(crate) fn open(bytes: &[u8]) -> Result<(RecordPosition, Reader<'_>), SnapshotError> {
    let mut r = Reader(bytes);
    if r.take(8, "magic").map_err(SnapshotError::Short)? != MAGIC {
        return Err(SnapshotError::Magic);
    }
    let position = RecordPosition(r.u64("position").map_err(SnapshotError::Short)?);
    let found = r.u32("checksum").map_err(SnapshotError::Short)?;
    let computed = crc32c::crc32c(&bytes[..16]);
    if found != computed {
        return Err(SnapshotError::Position { found, computed });
    }
    Ok((position, r))
}

/// Whether the next section is this kind.
pub(crate) fn is_next<S: Snapshot>(r: &Reader<'_>) -> bool {
    r.0.starts_with(&S::SECTION.to_le_bytes())
}

/// Kind and version of a section, and its contents, which are as they were written.
struct Section<'a> {
    kind: u16,
    version: u8,
    contents: &'a [u8],
}

impl<'a> Section<'a> {
    /// Takes the next one, if `expected` says that it is one that can be read.
    fn take(
        r: &mut Reader<'a>,
        expected: impl FnOnce(u16, u8) -> Result<(), SnapshotError>,
    ) -> Result<Self, SnapshotError> {
        let short = SnapshotError::Short;
        let head = r.0;
        let (kind, version) = (r.u16("section").map_err(short)?, r.u8("section version").map_err(short)?);
        let len = r.u64("section length").map_err(short)?;
        let checksum = r.u32("section checksum").map_err(short)?;
        expected(kind, version)?;
        let contents = r.take(usize::try_from(len).unwrap_or(usize::MAX), "section").map_err(short)?;
        let computed = section_checksum(version, head, contents);
        if computed != checksum {
            let why = DecodeError::Checksum { found: checksum, computed };
            return Err(SnapshotError::Section { section: kind, why });
        }
        Ok(Self { kind, version, contents })
    }
}

/// What a section is read with, but for its version.
#[derive(Clone, Copy)]
pub(crate) struct SnapshotParts<'a> {
    /// In the order of their ids.
    pub(crate) parts: &'a [Part],
    /// Whether all are there that the snapshot names.
    pub(crate) whole: bool,
}

/// Reads the next section, which must be this kind.
pub(crate) fn next<S: Snapshot>(r: &mut Reader<'_>, from: SnapshotParts<'_>) -> Result<S, SnapshotError> {
    let Section { kind, version, contents } =
        Section::take(r, |found, version| Readable::of::<S>().check(found, version))?;
    let damaged = |why| SnapshotError::Section { section: kind, why };
    let mut section = Reader(contents);
    let SnapshotParts { parts, whole } = from;
    let state = S::read(&mut section, &SectionSource { version, parts, whole }).map_err(|why| match why {
        Unreadable::Section(why) => damaged(why),
        Unreadable::Part(why) => why,
    })?;
    section.end().map_err(damaged)?;
    Ok(state)
}

/// The same of a section that is left out where it would say what every log begins with.
pub(crate) fn next_if_there<S: Snapshot + Default>(
    r: &mut Reader<'_>,
    from: SnapshotParts<'_>,
) -> Result<S, SnapshotError> {
    if is_next::<S>(r) { next(r, from) } else { Ok(S::default()) }
}

/// What a section must be to be read: its kind, and the oldest and newest version of its layout. And from which level on each is
/// written.
#[derive(Clone, Copy)]
pub(crate) struct Readable {
    pub(crate) section: u16,
    oldest: u8,
    pub(crate) newest: u8,
    level: u32,
    version_levels: &'static [(u8, u32)],
}

impl Readable {
    /// Sections of this kind.
    pub(crate) const fn of<S: Snapshot>() -> Self {
        let (level, version_levels) = (S::LEVEL, S::VERSION_LEVELS);
        Self { section: S::SECTION, oldest: S::OLDEST, newest: S::VERSION, level, version_levels }
    }

    /// The feature level of a log from which on this version of it is written.
    pub(crate) const fn written_from(self, version: u8) -> u32 {
        level_of(self.level, self.version_levels, version)
    }

    fn check(self, found: u16, version: u8) -> Result<(), SnapshotError> {
        let expected = self.section;
        let readable = found == expected && (self.oldest..=self.newest).contains(&version);
        if readable { Ok(()) } else { Err(SnapshotError::Unexpected { found, version, expected }) }
    }
}

/// Kind and version of each section of a snapshot, as far as it is whole.
pub(crate) fn layouts(bytes: &[u8]) -> impl Iterator<Item = (u16, u8)> {
    let mut rest = open(bytes).map_or(Reader(&[]), |(_, r)| r);
    std::iter::from_fn(move || {
        let (kind, version) = (rest.u16("section").ok()?, rest.u8("section version").ok()?);
        let len = rest.u64("section length").ok()?;
        rest.u32("section checksum").ok()?;
        rest.take(usize::try_from(len).ok()?, "section").ok()?;
        Some((kind, version))
    })
}

/// Whether a log of this feature level may have a snapshot with such sections: a version that knows no later one reads it.
///
/// # Errors
/// [`SnapshotError::Level`] of the first section that it may not have.
pub(crate) fn check_level(
    bytes: &[u8],
    level: u32,
    sections: impl Iterator<Item = Readable> + Clone,
) -> Result<(), SnapshotError> {
    for (section, version) in layouts(bytes) {
        let known = sections.clone().find(|known| known.section == section);
        let needs = known.map_or(1, |known| known.written_from(version));
        if needs > level {
            return Err(SnapshotError::Level { section, version, needs, level });
        }
    }
    Ok(())
}

/// Whether a snapshot is as it was written: the checksums of its head and of all its sections hold, and they are these,
/// after the section of parts, and then those of the `last` ones that are there.
pub(crate) fn check(bytes: &[u8], sections: &[Readable], last: &[Readable]) -> Result<(), SnapshotError> {
    let (_, mut r) = open(bytes)?;
    let parts = is_next::<Named>(&r).then_some(Readable::of::<Named>());
    for section in parts.iter().chain(sections) {
        Section::take(&mut r, |found, version| section.check(found, version))?;
    }
    for last in last {
        if r.0.starts_with(&last.section.to_le_bytes()) {
            Section::take(&mut r, |found, version| last.check(found, version))?;
        }
    }
    r.end().map_err(SnapshotError::Trailing)
}

/// Parts by id, with the checksum by which a snapshot knows each again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named(pub(crate) BTreeMap<u64, u32>);

impl Snapshot for Named {
    const SECTION: u16 = 7;
    // Snapshots had no parts before sections had a second version.
    const OLDEST: u8 = 2;
    const VERSION: u8 = 2;

    fn write(&self, w: &mut Writer<'_>, _: u8) {
        w.varint(self.0.len() as u64);
        for (part, checksum) in &self.0 {
            w.u64(*part);
            w.u32(*checksum);
        }
    }

    fn read(r: &mut Reader<'_>, _: &SectionSource<'_>) -> Result<Self, Unreadable> {
        let mut named = BTreeMap::new();
        for _ in 0..r.count("parts")? {
            let (part, checksum) = (r.u64("part")?, r.u32("checksum")?);
            if named.last_key_value().is_some_and(|(last, _)| *last >= part) {
                return Err(DecodeError::Value { field: "part", value: part }.into());
            }
            named.insert(part, checksum);
        }
        Ok(Self(named))
    }
}

/// Reads the section of parts; a snapshot of version 1 has none.
pub(crate) fn named(r: &mut Reader<'_>) -> Result<Named, SnapshotError> {
    if is_next::<Named>(r) { next(r, SnapshotParts { parts: &[], whole: true }) } else { Ok(Named::default()) }
}
