//! Finding a snapshot to go on from, and reading it with all its parts.
//!
//! # To ensure correctness
//! - What there is too little of to look at (descriptors, memory, mappings) is never taken for damage: whoever passed over
//!   a good snapshot for that would replay the whole log, or refuse a folder of which the log's beginning is released.
//! - A snapshot is gone on from only if its last entry lies in this log, checksum and all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use vouch_broker::State;
use vouch_commitlog::{Checkpoint, CheckpointError, LogPosition, LogReader, Shortage};

use super::store::{CopyKind, Which};
use super::stored::state_of;
use super::{LoadedState, SnapshotFailure, Snapshots};
use crate::position::record_position;

impl Snapshots {
    /// The highest log position that any of them says was durable when it was made, also of those that cannot be read
    /// whole: their heads have checksums of their own.
    ///
    /// # Errors
    /// There is too little of something to look. Without it a log that lost its end would pass for one that was cut short.
    pub(crate) fn known_durable(&self) -> io::Result<LogPosition> {
        let ends = self.heads()?.into_iter().map(|checkpoint| checkpoint.end);
        Ok(ends.max().unwrap_or(LogPosition(0)))
    }

    /// The last entry that each of them covers, of those whose heads can be read.
    fn heads(&self) -> io::Result<Vec<Checkpoint>> {
        let covered = match self.covered() {
            Err(error) if Shortage::of(&error).is_some() => return Err(error),
            covered => covered.unwrap_or_default(),
        };
        let mut heads = Vec::new();
        for (covered, which) in covered.into_iter().flat_map(|covered| Which::BOTH.map(|which| (covered, which))) {
            let mut head = [0; Checkpoint::ENCODED_LEN];
            let path = self.store.path(CopyKind::Snapshot, covered.0, which);
            match File::open(path).and_then(|mut file| file.read_exact(&mut head)) {
                Ok(()) => heads.extend(Checkpoint::decode(&head)),
                Err(error) if Shortage::of(&error).is_some() => return Err(error),
                Err(_) => {}
            }
        }
        Ok(heads)
    }

    /// The last entry that the oldest of them covers, of those that belong to this log: by the heads of the files, which have
    /// checksums of their own.
    pub(crate) fn oldest_of(&self, reader: &LogReader) -> io::Result<Option<Checkpoint>> {
        let belongs =
            |checkpoint: &Checkpoint| reader.checkpoint_at(checkpoint.position).is_ok_and(|found| found == *checkpoint);
        Ok(self.heads()?.into_iter().filter(belongs).min_by_key(|checkpoint| checkpoint.index))
    }

    /// Why the newest snapshot cannot be read, if so.
    pub(crate) fn newest_failure(&self) -> Option<SnapshotFailure> {
        self.load(self.newest_position()?).err()
    }

    /// The newest snapshot that is whole itself and belongs to this log, read without what is lost of its parts.
    pub(crate) fn newest_with_gaps_of(&self, reader: &LogReader) -> io::Result<Option<LoadedState>> {
        for covered in self.covered()?.into_iter().rev() {
            let loaded = match self.load_from(covered, false) {
                Ok(loaded) => loaded,
                Err(SnapshotFailure::Io { source, .. }) if Shortage::of(&source).is_some() => return Err(source),
                Err(_) => continue,
            };
            if reader.checkpoint_at(loaded.checkpoint.position).is_ok_and(|found| found == loaded.checkpoint) {
                return Ok(Some(loaded));
            }
        }
        Ok(None)
    }

    /// The newest snapshot below a position that can be read. What cannot be read is told and passed over: an older one
    /// and more of the log give the same state.
    pub(crate) fn newest_below(&self, position: LogPosition) -> io::Result<Option<LoadedState>> {
        for covered in self.covered()?.into_iter().rev().filter(|covered| *covered < position) {
            match self.load(covered) {
                Ok(loaded) => return Ok(Some(loaded)),
                // It may be as good as any: whoever goes on without it would do much for nothing, and a start might refuse.
                Err(SnapshotFailure::Io { source, .. }) if Shortage::of(&source).is_some() => return Err(source),
                Err(error) => {
                    tracing::warn!(%error, "a snapshot cannot be used; trying an older one, or the whole log")
                }
            }
        }
        Ok(None)
    }

    /// The newest snapshot that can be read and belongs to this log: its last entry lies there, checksum and all. One of
    /// another history may lie in the folder, where a log was put back without its snapshots. A start passes it over; to
    /// go on from it here would make a snapshot that fits this log and holds the other one's state.
    pub(crate) fn newest_of(&self, reader: &LogReader) -> io::Result<Option<LoadedState>> {
        let mut below = LogPosition::BEYOND;
        while let Some(loaded) = self.newest_below(below)? {
            let checkpoint = loaded.checkpoint;
            if reader.checkpoint_at(checkpoint.position).is_ok_and(|found| found == checkpoint) {
                return Ok(Some(loaded));
            }
            below = checkpoint.end;
        }
        Ok(None)
    }

    /// Position that the newest snapshot covers.
    pub fn newest_position(&self) -> Option<LogPosition> {
        self.covered().ok()?.pop()
    }

    /// The snapshot that covers everything before this position, from copies that are whole.
    pub fn load(&self, covered: LogPosition) -> Result<LoadedState, SnapshotFailure> {
        self.load_from(covered, true).or_else(|failure| {
            if !self.covered().is_ok_and(|there| there.contains(&covered)) {
                // A newer one took its place. That says nothing of the parts, which may be many to look at again.
                return Err(failure);
            }
            // What was whole when it was written may not be any more: now each copy is looked at.
            self.making().verified.clear();
            self.load_from(covered, true)
        })
    }

    /// `whole`: with everything that lies in its parts.
    fn load_from(&self, covered: LogPosition, whole: bool) -> Result<LoadedState, SnapshotFailure> {
        let path = self.store.path(CopyKind::Snapshot, covered.0, Which::First);
        let (checkpoint, bytes) = self.snapshot_bytes(covered)?;
        let state = state_of(&bytes);
        let failed = |why| SnapshotFailure::State { path: path.clone(), why };
        let named: BTreeMap<u64, u32> = State::parts_of_snapshot(state).map_err(failed)?.into_iter().collect();
        let mut short = None;
        let mut part = |id| {
            let copies = self.part_copies(id, named.get(&id).copied().unwrap_or_default());
            if let Err(error) = &copies
                && Shortage::of(error).is_some()
            {
                short = error.raw_os_error();
            }
            copies
        };
        let read = match whole {
            true => State::from_snapshot(state, &mut part),
            false => State::from_snapshot_with_gaps(state, &mut part),
        };
        // What could not be opened for want of descriptors is not damaged, and must not be left out.
        if let Some(errno) = short {
            return Err(SnapshotFailure::Io { path, source: io::Error::from_raw_os_error(errno) });
        }
        let (position, state) = read.map_err(failed)?;
        if position != record_position(checkpoint.end) {
            // Both have a checksum of their own, so somebody put two files together.
            return Err(SnapshotFailure::Checkpoint { path, why: CheckpointError::Damaged });
        }
        Ok(LoadedState { checkpoint, state })
    }
}
