//! The two copies of each file as they are mapped: which one is whole, and what is whole of both together.
//!
//! # To ensure correctness
//! A copy is damaged when its bytes say so, and never because there was too little of something to look at it: whoever
//! reads a [`Shortage`] here gets it as an error, and nothing is given up or made again for it.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use vouch_broker::State;
use vouch_broker::state::{Copies, PartView, check_part, merge_part};
use vouch_commitlog::{Checkpoint, CheckpointError, LogPosition, Shortage, map_file, map_spare_file};

use super::fault::CopyFault;
use super::store::{CopyKind, Which};
use super::stored::StoredFile;
use super::{SnapshotFailure, Snapshots};

impl Snapshots {
    /// Where a copy lies, whether it is there or not.
    pub(super) fn copy_path(&self, stored: StoredFile, which: Which) -> PathBuf {
        let (kind, position) = stored.place();
        self.store.path(kind, position, which)
    }

    /// A whole copy of a snapshot, without its parts.
    pub(super) fn snapshot_bytes(&self, position: LogPosition) -> Result<(Checkpoint, Bytes), SnapshotFailure> {
        let read = |which| {
            let bytes = self.whole(StoredFile::Snapshot(position), which)?;
            Ok::<_, CopyFault>((Checkpoint::decode(&bytes[..Checkpoint::ENCODED_LEN])?, bytes))
        };
        let failed = |why: CopyFault| {
            let path = self.store.path(CopyKind::Snapshot, position.0, Which::First);
            match why {
                CopyFault::Head(why) => SnapshotFailure::Checkpoint { path, why },
                CopyFault::Snapshot(why) => SnapshotFailure::State { path, why },
                CopyFault::Io(source) => SnapshotFailure::Io { path, source },
                CopyFault::Part(_) | CopyFault::Stopped => SnapshotFailure::Io { path, source: io::Error::other(why) },
            }
        };
        let is_short = |why: &CopyFault| matches!(why, CopyFault::Io(error) if Shortage::of(error).is_some());
        read(Which::First).or_else(|why| {
            if is_short(&why) {
                return Err(failed(why));
            }
            self.suspect(StoredFile::Snapshot(position));
            read(Which::Second).map_err(|second| failed(if is_short(&second) { second } else { why }))
        })
    }

    /// A copy, if it is as it was written.
    pub(super) fn whole(&self, stored: StoredFile, which: Which) -> Result<Bytes, CopyFault> {
        let bytes = map_file(&self.copy_path(stored, which))?;
        check(stored, &bytes)?;
        Ok(bytes)
    }

    /// A part to be read from: a copy that is whole, and the other one. What is damaged in both is for the caller to find:
    /// it may not be needed any more.
    pub(super) fn part_copies(&self, id: u64, checksum: u32) -> io::Result<Copies> {
        let stored = StoredFile::Part(id, checksum);
        // Rows are compared with their checksums by whoever takes them over.
        let first = match self.is_verified(stored) {
            true => map_file(&self.copy_path(stored, Which::First)).map_err(CopyFault::from),
            false => self.whole(stored, Which::First),
        };
        let first = match first {
            Ok(first) => return Ok(Copies { first, second: spare(&self.copy_path(stored, Which::Second))? }),
            Err(CopyFault::Io(error)) if Shortage::of(&error).is_some() => return Err(error),
            Err(fault) => fault,
        };
        self.suspect(stored);
        match self.whole(stored, Which::Second) {
            Ok(whole) => return Ok(whole.into()),
            Err(CopyFault::Io(error)) if Shortage::of(&error).is_some() => return Err(error),
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
        let read = |which| map_file(&self.store.path(CopyKind::Part, id, which));
        let is_whole = |bytes: &Bytes| {
            let opened = PartView::open(id, bytes.clone());
            opened.is_ok_and(|part| check(StoredFile::Part(id, part.checksum()), bytes).is_ok())
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
    pub(super) fn merged(&self, stored: StoredFile) -> io::Result<Option<Bytes>> {
        let StoredFile::Part(id, checksum) = stored else { return Ok(None) };
        let read = |which| match map_file(&self.copy_path(stored, which)) {
            Err(error) if Shortage::of(&error).is_some() => Err(error),
            mapped => Ok(mapped.unwrap_or_default()),
        };
        let (first, second) = (read(Which::First)?, read(Which::Second)?);
        Ok(merge_part(id, checksum, [&first, &second]).map(Bytes::from))
    }

    /// Whether all of a file can be read, from one copy or from both together.
    pub(super) fn has_whole(&self, stored: StoredFile) -> bool {
        Which::BOTH.into_iter().any(|which| self.whole(stored, which).is_ok())
            || matches!(self.merged(stored), Ok(Some(_)))
    }

    /// The file of a whole copy, to be copied; that of the first if there is none.
    pub(super) fn whole_file(&self, stored: StoredFile) -> PathBuf {
        let whole = Which::BOTH.into_iter().find(|which| self.whole(stored, *which).is_ok());
        self.copy_path(stored, whole.unwrap_or(Which::First))
    }

    /// Notes that a copy was met that cannot be used: [`Self::seems_whole`] says so until it is mended.
    fn suspect(&self, stored: StoredFile) {
        self.making().suspects.insert(stored);
    }

    /// Whether there is nothing to be done for a file as far as it was looked at: both copies are there, as long as each
    /// other, and a start found no fault.
    pub(crate) fn seems_whole(&self, stored: StoredFile) -> bool {
        let [first, second] = Which::BOTH.map(|which| std::fs::metadata(self.copy_path(stored, which)));
        let as_long = first.is_ok_and(|first| second.is_ok_and(|second| first.len() == second.len()));
        as_long && !self.making().suspects.contains(&stored)
    }

    /// Whether both copies of a file were found whole, by this process, since they were written.
    pub(super) fn is_verified(&self, stored: StoredFile) -> bool {
        self.making().verified.contains(&stored)
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

/// Whether the bytes of a file are as they were written.
pub(super) fn check(stored: StoredFile, bytes: &[u8]) -> Result<(), CopyFault> {
    match stored {
        StoredFile::Part(id, checksum) => {
            let mut read = |at: u64, into: &mut [u8]| {
                let at = usize::try_from(at).map_err(io::Error::other)?;
                let from = bytes.get(at..at + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                into.copy_from_slice(from);
                Ok(())
            };
            Ok(check_part(id, checksum, bytes.len() as u64, &mut read)?)
        }
        StoredFile::Snapshot(position) => {
            let (head, state) = bytes.split_at(Checkpoint::ENCODED_LEN.min(bytes.len()));
            let checkpoint = Checkpoint::decode(head)?;
            State::check_snapshot(state)?;
            // Both have a checksum of their own, so somebody put two files together, or gave one another's name.
            if checkpoint.end == position { Ok(()) } else { Err(CheckpointError::Damaged.into()) }
        }
    }
}
