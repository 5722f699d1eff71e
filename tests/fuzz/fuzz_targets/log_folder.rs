//! The files of a commit log: segment headers, entries and the horizon, whole and damaged. The tools' look at a folder and
//! a start are two programs; they must agree on what is there, whatever is there.
//!
//! The log is written here by the words of `log-format.md`, not by the code under test.
#![no_main]

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vouch_commitlog::{CommitLog, DumpError, Entry, LogConfig, LogFolder, LogPosition, OpenError, Verification};

/// The smallest that a log opens with when it is fuzzed.
const SEGMENT: u64 = vouch_commitlog::MIN_SEGMENT_SIZE;
const HEADER: usize = 4096;
const CLUSTER: [u8; 16] = *b"cluster-of-tests";
const SHARD: u16 = 3;
/// Most entries of a segment.
const MOST_ENTRIES: usize = 12;

#[derive(Arbitrary, Debug)]
struct Case {
    first: Segment,
    second: Option<Segment>,
    /// How far behind the last entry: nothing is ever written beyond a horizon.
    horizon: Option<u16>,
    /// What else is damaged: which file, where, and what is written there.
    patches: Vec<(bool, u16, u8)>,
}

#[derive(Arbitrary, Debug)]
struct Segment {
    recycled: bool,
    entries: Vec<Written>,
}

/// An entry, and in what it is not as it should be.
#[derive(Arbitrary, Debug)]
struct Written {
    len: u8,
    kind: u8,
    term: u8,
    /// How far before its position everything is durable.
    behind: u16,
    fault: Fault,
}

#[derive(Arbitrary, Debug)]
enum Fault {
    None,
    Version(u8),
    Reserved,
    Length(u32),
    Previous,
    Position(u16),
    Mark(u16),
    Payload,
    Hole,
}

fn seed() -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&CLUSTER), &SHARD.to_le_bytes())
}

fn header(start: u64, recycled: bool) -> Vec<u8> {
    let mut block = vec![0; HEADER];
    block[..8].copy_from_slice(b"VOUCHLOG");
    block[8] = 1 + u8::from(recycled);
    block[10..12].copy_from_slice(&SHARD.to_le_bytes());
    block[16..32].copy_from_slice(&CLUSTER);
    block[32..40].copy_from_slice(&SEGMENT.to_le_bytes());
    block[40..48].copy_from_slice(&start.to_le_bytes());
    let checksum = crc32c::crc32c(&block[..HEADER - 4]);
    block[HEADER - 4..].copy_from_slice(&checksum.to_le_bytes());
    block
}

fn horizon(position: u64) -> Vec<u8> {
    let mut block = vec![0; HEADER];
    block[..8].copy_from_slice(b"VOUCHHZN");
    block[8] = 1;
    block[16..24].copy_from_slice(&position.to_le_bytes());
    let checksum = crc32c::crc32c_append(seed(), &block[..HEADER - 4]);
    block[HEADER - 4..].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// What the chain of entries has come to.
struct Chain {
    previous: u32,
    index: u64,
}

/// Appends an entry that is to lie at `position`.
fn entry(out: &mut Vec<u8>, chain: &mut Chain, position: u64, kind: u8, payload: &[u8], written: Option<&Written>) {
    let mut bytes = vec![0; 64];
    let term = written.map_or(1, |written| u64::from(written.term));
    let durable = position.saturating_sub(written.map_or(u64::MAX, |written| written.behind.into()));
    bytes[..4].copy_from_slice(&[0x56, 0x4c, 0x65, 0xc5]);
    (bytes[8], bytes[9]) = (1, kind);
    bytes[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes[16..20].copy_from_slice(&chain.previous.to_le_bytes());
    for (at, number) in [(24, term), (32, chain.index), (40, position), (48, durable), (56, 1_700_000_000_000)] {
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    match written.map(|written| &written.fault) {
        Some(Fault::Version(version)) => bytes[8] = *version,
        Some(Fault::Reserved) => bytes[10] = 1,
        Some(Fault::Length(len)) => bytes[12..16].copy_from_slice(&len.to_le_bytes()),
        Some(Fault::Previous) => bytes[16] ^= 1,
        Some(Fault::Position(by)) => {
            bytes[40..48].copy_from_slice(&position.wrapping_sub(u64::from(*by) * 8).to_le_bytes());
        }
        Some(Fault::Mark(by)) => bytes[48..56].copy_from_slice(&(position + u64::from(*by)).to_le_bytes()),
        _ => {}
    }
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let own = crc32c::crc32c_append(crc32c::crc32c_append(seed(), &bytes[8..20]), &bytes[24..64]);
    bytes[20..24].copy_from_slice(&own.to_le_bytes());
    let checksum = crc32c::crc32c_append(seed(), &bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    match written.map(|written| &written.fault) {
        Some(Fault::Payload) => bytes[4] ^= 1,
        Some(Fault::Hole) => bytes.fill(0),
        _ => {}
    }
    chain.previous = checksum;
    out.extend_from_slice(&bytes);
}

/// The first bytes of a segment, and whether everything in it is as it should be.
fn segment(start: u64, segment: &Segment, chain: &mut Chain) -> (Vec<u8>, bool) {
    let mut bytes = header(start, segment.recycled);
    let mut whole = true;
    for written in segment.entries.iter().take(MOST_ENTRIES) {
        let mark = written.kind % 4 == 0;
        let payload = vec![written.kind | 1; if mark { 0 } else { usize::from(written.len) }];
        chain.index += u64::from(!mark);
        let position = start + bytes.len() as u64;
        entry(&mut bytes, chain, position, if mark { 2 } else { 1 }, &payload, Some(written));
        whole &= matches!(written.fault, Fault::None) && written.behind > 0;
    }
    (bytes, whole)
}

/// Every case is written anew. `run` sees to it that this lies in memory and goes in the end.
static FOLDER: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::Builder::new().prefix("vouch-fuzz-").tempdir().expect("a folder can be made"));

/// Writes the files of a case; whether nothing in them is damaged.
fn write(folder: &Path, case: &Case) -> bool {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir(folder).expect("the folder was removed just now");
    let mut chain = Chain { previous: 0, index: 0 };
    let (mut first, mut whole) = segment(0, &case.first, &mut chain);
    let filler = case.second.as_ref().map(|_| {
        let at = first.len() as u64;
        let mut bytes = Vec::new();
        let zeros = vec![0; (SEGMENT - at - 64) as usize];
        entry(&mut bytes, &mut chain, at, 3, &zeros, None);
        // The zeros are in the file already.
        bytes.truncate(64);
        bytes
    });
    first.extend(filler.unwrap_or_default());
    let mut files = vec![first];
    if let Some(second) = &case.second {
        let (bytes, sound) = segment(SEGMENT, second, &mut chain);
        whole &= sound;
        files.push(bytes);
    }
    for (number, bytes) in files.iter().enumerate() {
        let start = number as u64 * SEGMENT;
        let file = fs::File::create(folder.join(format!("{start:020}.log"))).expect("a file can be made");
        file.set_len(SEGMENT).and_then(|()| file.write_all_at(bytes, 0)).expect("there is space");
        for (_, at, byte) in case.patches.iter().filter(|(second, ..)| usize::from(*second) == number) {
            // Not in the empty part of the header.
            let at = u64::from(*at) % (SEGMENT - HEADER as u64 + 64);
            let at = if at < 64 { at } else { at + HEADER as u64 - 64 };
            file.write_all_at(&[*byte], at).expect("there is space");
        }
    }
    if let Some(behind) = case.horizon {
        let last = files.len() - 1;
        let end = last as u64 * SEGMENT + files[last].len() as u64;
        fs::write(folder.join("horizon"), horizon(end + u64::from(behind))).expect("there is space");
    }
    whole && case.patches.is_empty()
}

fn start(folder: &Path) -> Result<(Vec<Entry>, LogPosition, bool), String> {
    let config = LogConfig {
        segment_size: SEGMENT,
        zero_ahead: vouch_commitlog::MIN_ZERO_AHEAD,
        ..LogConfig::new(folder, CLUSTER, SHARD)
    };
    let mut entries = Vec::new();
    let opened = CommitLog::open(config, Box::new(|_| ()), &mut |entry| {
        entries.push(entry);
        Ok::<(), Infallible>(())
    });
    let (appender, _, recovery) = opened.map_err(|error| error.to_string())?;
    drop(appender);
    Ok((entries, recovery.end, recovery.cut.is_some()))
}

fn survey(folder: &Path) -> Result<(Verification, Vec<Entry>), OpenError> {
    let folder = LogFolder::open(folder)?;
    folder.segments()?;
    let verification = folder.verify(LogPosition(0), &mut |_| ())?;
    let mut entries = Vec::<Entry>::new();
    for found in folder.entries(LogPosition(0), LogPosition(u64::MAX))? {
        match found {
            Ok(entry) => {
                assert!(entries.last().is_none_or(|last| last.end <= entry.position), "entries ascend");
                entries.push(entry);
            }
            Err(DumpError::Damaged(range)) => assert!(range.from <= range.to, "{range}"),
            Err(DumpError::Open(error)) => return Err(error),
        }
    }
    Ok((verification, entries))
}

fuzz_target!(|case: Case| {
    let folder = FOLDER.path().join("log");
    let whole = write(&folder, &case);
    let seen = survey(&folder);
    let started = start(&folder);
    match (&seen, &started) {
        (Ok((verification, entries)), Ok((recovered, end, cut))) => {
            assert!(verification.is_sound(), "a start accepts what the tools call damaged: {verification:?}");
            assert_eq!((verification.end, verification.entries), (*end, recovered.len() as u64));
            assert_eq!(verification.tail.is_some(), *cut, "{verification:?}");
            assert_eq!(&entries[..recovered.len().min(entries.len())], &recovered[..]);
        }
        (Ok((verification, _)), Err(error)) => {
            assert!(!verification.is_sound(), "a start refuses what the tools call sound: {error}");
        }
        (Err(_), Err(_)) => {}
        // The tools say what a newer program has written wherever it lies, a start only where the log would go on with it.
        (Err(OpenError::UnknownFormat { .. } | OpenError::UnknownKind { .. }), Ok(_)) => {}
        // A folder without a sound header tells nobody which log it is, but a start may find its last segment unfinished.
        (Err(error), Ok((recovered, ..))) => assert!(recovered.is_empty(), "{error}, but {recovered:?}"),
    }
    if whole {
        let (verification, entries) = seen.expect("a whole log is read");
        assert!(verification.is_sound() && verification.tail.is_none(), "{verification:?}");
        let written = case.first.entries.len().min(MOST_ENTRIES)
            + case.second.as_ref().map_or(0, |second| second.entries.len().min(MOST_ENTRIES));
        assert_eq!(entries.len(), written);
    }
    if let Ok((recovered, end, _)) = started {
        let again = start(&folder).expect("what was recovered can be recovered again");
        assert_eq!(again, (recovered, end, false));
    }
});
