//! The two copies of each file: which one is whole, and making the other one again from it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use vouch_broker::State;
use vouch_broker::state::{Copies, PartError, PartView, SnapshotError, check_part, merge_part};
use vouch_commitlog::{Checkpoint, CheckpointError, Shortage, UncachedFile, map_file, map_spare_file};

use super::store::{Kind, Rooms, Which};
use super::{SnapshotFailure, Snapshots};

/// Bytes of a snapshot that are read at once.
const STEP: usize = 256 << 10;

/// What lies in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stored {
    /// The snapshot that covers the log before this position.
    Snapshot(u64),
    /// A part, by id and by the checksum that a snapshot names.
    Part(u64, u32),
}

impl Stored {
    pub(super) fn place(self) -> (Kind, u64) {
        match self {
            Self::Snapshot(position) => (Kind::Snapshot, position),
            Self::Part(id, _) => (Kind::Part, id),
        }
    }

    /// The id, if it is a part.
    pub(crate) fn part(self) -> Option<u64> {
        match self {
            Self::Snapshot(_) => None,
            Self::Part(id, _) => Some(id),
        }
    }
}

/// Why a copy cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// It is not there, or cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is no part, or not as it was written.
    #[error(transparent)]
    Part(#[from] PartError),
    /// It is no snapshot, or not as it was written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Its head is not as it was written.
    #[error(transparent)]
    Head(#[from] CheckpointError),
    /// Nobody wants to know any more.
    #[error("the node is stopping")]
    Stopped,
}

impl Fault {
    /// The error that says of what there is too little, where that is why: it is not a fault of the copy.
    ///
    /// # Errors
    /// The fault itself, where it is one.
    fn shortage(self) -> Result<io::Error, Self> {
        match self {
            Self::Io(error) if Shortage::of(&error).is_some() => Ok(error),
            Self::Part(PartError::Io { errno: Some(errno), .. })
                if Shortage::of(&io::Error::from_raw_os_error(errno)).is_some() =>
            {
                Ok(io::Error::from_raw_os_error(errno))
            }
            other => Err(other),
        }
    }

    pub(crate) fn is_missing(&self) -> bool {
        match self {
            Self::Io(error) => error.kind() == io::ErrorKind::NotFound,
            Self::Part(PartError::Io { kind, .. }) => *kind == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// What became of a look at both copies.
#[derive(Debug)]
pub(crate) enum Mended {
    /// Both are whole.
    Whole,
    /// These were not, for these reasons, and are again.
    Again(Vec<(PathBuf, Fault)>),
    /// Neither can be used, for these reasons.
    Lost([(PathBuf, Fault); 2]),
    /// Nothing needs the file any more.
    Gone,
    /// It was given up: the node stops.
    Stopped,
}

/// Hears how many bytes were read, and says whether to go on.
pub(crate) type Pace<'a> = &'a mut dyn FnMut(u64) -> bool;

impl Snapshots {
    pub(super) fn copy_path(&self, stored: Stored, which: Which) -> PathBuf {
        let (kind, position) = stored.place();
        self.store.path(kind, position, which)
    }

    /// Everything that a start may need: the snapshots, and the parts that they name. Parts of a snapshot of which no copy
    /// is whole are not known by it.
    pub(crate) fn stored(&self) -> io::Result<Vec<Stored>> {
        let mut stored = BTreeSet::new();
        for position in self.store.positions(Kind::Snapshot)? {
            stored.insert(Stored::Snapshot(position));
            match self.snapshot_bytes(position) {
                Ok((_, bytes)) => {
                    let named = State::parts_of_snapshot(state_of(&bytes)).unwrap_or_default();
                    stored.extend(named.into_iter().map(|(id, checksum)| Stored::Part(id, checksum)));
                }
                // It says nothing of the snapshot, whose parts would pass for needless.
                Err(SnapshotFailure::Io { source, .. }) if Shortage::of(&source).is_some() => return Err(source),
                Err(_) => {}
            }
        }
        Ok(stored.into_iter().collect())
    }

    /// A whole copy of a snapshot, without its parts.
    pub(super) fn snapshot_bytes(&self, position: u64) -> Result<(Checkpoint, Bytes), SnapshotFailure> {
        let read = |which| {
            let bytes = self.whole(Stored::Snapshot(position), which)?;
            Ok::<_, Fault>((Checkpoint::decode(&bytes[..Checkpoint::ENCODED_LEN])?, bytes))
        };
        let failed = |why: Fault| {
            let path = self.store.path(Kind::Snapshot, position, Which::First);
            match why {
                Fault::Head(why) => SnapshotFailure::Checkpoint { path, why },
                Fault::Snapshot(why) => SnapshotFailure::State { path, why },
                Fault::Io(source) => SnapshotFailure::Io { path, source },
                Fault::Part(_) | Fault::Stopped => SnapshotFailure::Io { path, source: io::Error::other(why) },
            }
        };
        let is_short = |why: &Fault| matches!(why, Fault::Io(error) if Shortage::of(error).is_some());
        read(Which::First).or_else(|why| {
            if is_short(&why) {
                return Err(failed(why));
            }
            self.suspect(Stored::Snapshot(position));
            read(Which::Second).map_err(|second| failed(if is_short(&second) { second } else { why }))
        })
    }

    /// A copy, if it is as it was written.
    fn whole(&self, stored: Stored, which: Which) -> Result<Bytes, Fault> {
        let bytes = map_file(&self.copy_path(stored, which))?;
        check(stored, &bytes)?;
        Ok(bytes)
    }

    /// A part to be read from: a copy that is whole, and the other one. What is damaged in both is for the caller to find:
    /// it may not be needed any more.
    pub(super) fn part_copies(&self, id: u64, checksum: u32) -> io::Result<Copies> {
        let stored = Stored::Part(id, checksum);
        // Rows are compared with their checksums by whoever takes them over.
        let first = match self.is_verified(stored) {
            true => map_file(&self.copy_path(stored, Which::First)).map_err(Fault::from),
            false => self.whole(stored, Which::First),
        };
        let first = match first {
            Ok(first) => return Ok(Copies { first, second: spare(&self.copy_path(stored, Which::Second))? }),
            Err(Fault::Io(error)) if Shortage::of(&error).is_some() => return Err(error),
            Err(fault) => fault,
        };
        self.suspect(stored);
        match self.whole(stored, Which::Second) {
            Ok(whole) => return Ok(whole.into()),
            Err(Fault::Io(error)) if Shortage::of(&error).is_some() => return Err(error),
            Err(_) => {}
        }
        if first.is_missing() {
            return Ok(map_file(&self.copy_path(stored, Which::Second))?.into());
        }
        let bytes = map_file(&self.copy_path(stored, Which::First))?;
        Ok(self.merged(stored)?.unwrap_or(bytes).into())
    }

    /// A whole copy of a part of which nobody knows the checksum, or else what there is.
    pub(crate) fn whole_part(&self, id: u64) -> io::Result<Bytes> {
        let read = |which| map_file(&self.store.path(Kind::Part, id, which));
        let is_whole = |bytes: &Bytes| {
            let opened = PartView::open(id, bytes.clone());
            opened.is_ok_and(|part| check(Stored::Part(id, part.checksum()), bytes).is_ok())
        };
        let first = read(Which::First);
        if first.as_ref().is_ok_and(is_whole) {
            return first;
        }
        read(Which::Second).ok().filter(is_whole).map_or(first, Ok)
    }

    /// A part out of what is whole in each copy.
    ///
    /// # Errors
    /// There is too little of something to look at a copy: it says nothing of it.
    fn merged(&self, stored: Stored) -> io::Result<Option<Bytes>> {
        let Stored::Part(id, checksum) = stored else { return Ok(None) };
        let read = |which| match map_file(&self.copy_path(stored, which)) {
            Err(error) if Shortage::of(&error).is_some() => Err(error),
            mapped => Ok(mapped.unwrap_or_default()),
        };
        let (first, second) = (read(Which::First)?, read(Which::Second)?);
        Ok(merge_part(id, checksum, [&first, &second]).map(Bytes::from))
    }

    /// Whether all of a file can be read, from one copy or from both together.
    pub(super) fn has_whole(&self, stored: Stored) -> bool {
        Which::BOTH.into_iter().any(|which| self.whole(stored, which).is_ok())
            || matches!(self.merged(stored), Ok(Some(_)))
    }

    /// The file of a whole copy, to be copied; that of the first if there is none.
    pub(super) fn whole_file(&self, stored: Stored) -> PathBuf {
        let whole = Which::BOTH.into_iter().find(|which| self.whole(stored, *which).is_ok());
        self.copy_path(stored, whole.unwrap_or(Which::First))
    }

    fn suspect(&self, stored: Stored) {
        self.making().suspects.insert(stored);
    }

    /// Whether there is nothing to be done for a file as far as it was looked at: both copies are there, as long as each
    /// other, and a start found no fault.
    pub(crate) fn seems_whole(&self, stored: Stored) -> bool {
        let [first, second] = Which::BOTH.map(|which| std::fs::metadata(self.copy_path(stored, which)));
        let as_long = first.is_ok_and(|first| second.is_ok_and(|second| first.len() == second.len()));
        as_long && !self.making().suspects.contains(&stored)
    }

    /// Whether both copies of a file were found whole, by this process, since they were written.
    pub(super) fn is_verified(&self, stored: Stored) -> bool {
        self.making().verified.contains(&stored)
    }

    /// Reads both copies of a file that was written just now, from the medium.
    ///
    /// # Errors
    /// One of them is not what was written.
    pub(super) fn verify(&self, stored: Stored) -> Result<(), (PathBuf, Fault)> {
        for which in Which::BOTH {
            self.look(stored, which, &mut |_| true).map_err(|fault| (self.copy_path(stored, which), fault))?;
        }
        self.making().verified.insert(stored);
        Ok(())
    }

    /// Reads both copies, from the medium, and makes again what is damaged or missing.
    ///
    /// # Errors
    /// A copy cannot be written: the disk is full, or fails.
    pub(crate) fn mend(&self, stored: Stored, rooms: Rooms, pace: Pace<'_>) -> io::Result<Mended> {
        self.making().verified.remove(&stored);
        let mut faults = Vec::new();
        for which in Which::BOTH {
            match self.look(stored, which, pace) {
                Ok(()) => {}
                Err(Fault::Stopped) => return Ok(Mended::Stopped),
                Err(fault) => match fault.shortage() {
                    Ok(short) => return Err(short),
                    Err(fault) => faults.push((which, fault)),
                },
            }
        }
        if !faults.is_empty() && !self.stored()?.contains(&stored) {
            return Ok(Mended::Gone);
        }
        let content = match faults.first() {
            None => None,
            // What the medium has lost may be whole in memory still.
            Some((which, _)) => {
                let whole = self.whole(stored, which.other()).or_else(|_| self.whole(stored, *which)).ok();
                match whole {
                    Some(whole) => Some(whole),
                    None => self.merged(stored)?,
                }
            }
        };
        let named = |(which, fault)| (self.copy_path(stored, which), fault);
        match content {
            None if faults.is_empty() => {}
            None => {
                let mut faults: Vec<_> = faults.into_iter().map(named).collect();
                if let (Some(second), Some(first)) = (faults.pop(), faults.pop()) {
                    return Ok(Mended::Lost([first, second]));
                }
                // One was whole a moment ago, and is not as it is mapped: the next look finds out.
                return Err(io::Error::other("a copy changed while it was read"));
            }
            Some(content) => {
                let (kind, position) = stored.place();
                for (which, _) in &faults {
                    if !self.store.mend(kind, position, *which, &content, rooms)? {
                        return Ok(Mended::Gone);
                    }
                    // What was written is not yet what the medium gives back.
                    match self.look(stored, *which, pace) {
                        Ok(()) => {}
                        Err(Fault::Stopped) => return Ok(Mended::Stopped),
                        Err(Fault::Io(error)) => return Err(error),
                        Err(fault) => return Err(io::Error::other(fault)),
                    }
                }
            }
        }
        let mut making = self.making();
        making.suspects.remove(&stored);
        making.verified.insert(stored);
        drop(making);
        Ok(if faults.is_empty() { Mended::Whole } else { Mended::Again(faults.into_iter().map(named).collect()) })
    }

    /// Both copies as they are, and nothing is changed: why each cannot be used, if so.
    ///
    /// # Errors
    /// There is too little of something to look at a copy: it says nothing of it.
    pub(crate) fn faults(&self, stored: Stored, pace: Pace<'_>) -> io::Result<[(PathBuf, Option<Fault>); 2]> {
        let mut look = |which| match self.look(stored, which, pace).map_err(Fault::shortage) {
            Ok(()) => Ok((self.copy_path(stored, which), None)),
            Err(Err(fault)) => Ok((self.copy_path(stored, which), Some(fault))),
            Err(Ok(short)) => Err(short),
        };
        Ok([look(Which::First)?, look(Which::Second)?])
    }

    /// Reads a copy from the medium, once from its beginning to its end.
    fn look(&self, stored: Stored, which: Which, pace: Pace<'_>) -> Result<(), Fault> {
        let mut file = UncachedFile::open(&self.copy_path(stored, which))?;
        let len = file.size();
        let mut stopped = false;
        let mut read = |at: u64, into: &mut [u8]| {
            file.read_exact_at(at, into)?;
            stopped |= !pace(into.len() as u64);
            if stopped { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
        };
        let looked = match stored {
            Stored::Part(id, checksum) => check_part(id, checksum, len, &mut read).map_err(Fault::from),
            Stored::Snapshot(_) => {
                let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
                let mut pieces = (0..).step_by(STEP).zip(bytes.chunks_mut(STEP));
                let all = pieces.try_for_each(|(at, piece)| read(at, piece));
                all.map_err(Fault::from).and_then(|()| check(stored, &bytes))
            }
        };
        if stopped { Err(Fault::Stopped) } else { looked }
    }
}

/// The other copy of a part that is read from; empty if it is missing, or cannot be read, which is met again where both are
/// looked at.
///
/// # Errors
/// There is too little of something: it says nothing of the copy.
pub(super) fn spare(path: &Path) -> io::Result<Bytes> {
    match map_spare_file(path) {
        Err(error) if Shortage::of(&error).is_some() => Err(error),
        mapped => Ok(mapped.unwrap_or_default()),
    }
}

/// The state in a snapshot's file, behind the checkpoint.
pub(super) fn state_of(bytes: &[u8]) -> &[u8] {
    &bytes[Checkpoint::ENCODED_LEN.min(bytes.len())..]
}

/// Whether the bytes of a file are as they were written.
fn check(stored: Stored, bytes: &[u8]) -> Result<(), Fault> {
    match stored {
        Stored::Part(id, checksum) => {
            let mut read = |at: u64, into: &mut [u8]| {
                let at = usize::try_from(at).map_err(io::Error::other)?;
                let from = bytes.get(at..at + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                into.copy_from_slice(from);
                Ok(())
            };
            Ok(check_part(id, checksum, bytes.len() as u64, &mut read)?)
        }
        Stored::Snapshot(position) => {
            let (head, state) = bytes.split_at(Checkpoint::ENCODED_LEN.min(bytes.len()));
            let checkpoint = Checkpoint::decode(head)?;
            State::check_snapshot(state)?;
            // Both have a checksum of their own, so somebody put two files together, or gave one another's name.
            if checkpoint.end.0 == position { Ok(()) } else { Err(CheckpointError::Damaged.into()) }
        }
    }
}
