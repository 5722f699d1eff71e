//! Snapshots of the shard's state, so that a start reads only the end of the log.
//!
//! They are made beside the running shard and never stop it: a thread of low priority reads the newest snapshot back,
//! replays the log from there to what the shard has applied, and stores the result. That a snapshot and the rest of the
//! log give the same state as the whole log is what every start relies on anyway; here it is relied on once more.
//!
//! What only grows (queue indexes, sends that are remembered) is stored once, in *parts*, which later snapshots name.

mod room;
mod store;
mod thread;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use vouch_broker::State;
use vouch_broker::state::SnapshotError;
use vouch_commitlog::{Checkpoint, CheckpointError, LogPosition, LogReader, ReadError, Shortage, map_file};

use crate::start::{Unreadable, replay};
use store::{Kind, Store};
pub(crate) use thread::{Listeners, Requests, Snapshotter};

/// Why no snapshot was made, or one cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotFailure {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {why}", path.display())]
    Checkpoint { path: PathBuf, why: CheckpointError },
    #[error("{}: {why}", path.display())]
    State { path: PathBuf, why: SnapshotError },
    #[error("the log cannot be read: {0}")]
    Log(#[from] ReadError),
    #[error(transparent)]
    Record(#[from] Unreadable),
    #[error("there is no snapshot, and the log begins at position {0}")]
    NoBeginning(u64),
}

/// A state, and the last entry that is in it.
pub(crate) struct Loaded {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) state: State,
}

/// A state whose tables take no more memory than this is kept for the next snapshot, which then reads no file. A larger one
/// is read back: two of them in memory would cost more than the reading.
const WARM_BYTES: u64 = 128 << 20;

/// A part has about 56 bytes a message, and a message has some 200 in the log at least.
const PART_SHARE: u64 = 4;
/// No more is set aside for a part before there is one that was larger.
const ROOM_BYTES: u64 = 64 << 20;

/// Position before which the log in a data folder was durable, as its snapshots say; 0 without any. Nothing is changed.
pub fn known_durable(data_dir: &Path) -> LogPosition {
    Snapshots::of_folder(data_dir.join("shards/0/snapshots")).known_durable()
}

/// What a stored snapshot needs of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// The snapshot covers the log before this position.
    pub(crate) covers: u64,
    /// Where the last entry in it lies, by which a start knows that snapshot and log belong together.
    pub(crate) last_entry: u64,
    /// The lowest position that its state refers to.
    pub(crate) refers_to: u64,
}

impl Bound {
    pub(crate) fn of(loaded: &Loaded) -> Self {
        let Loaded { checkpoint, state } = loaded;
        Self { covers: checkpoint.end.0, last_entry: checkpoint.position.0, refers_to: state.needed_from() }
    }

    /// Where the log must begin for it, at the latest.
    pub(crate) fn log_from(&self) -> u64 {
        self.last_entry.min(self.refers_to)
    }
}

/// What the two snapshots need that are kept: a start can go on from either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// `None` before there are two.
    pub(crate) older: Option<Bound>,
    pub(crate) newer: Bound,
}

/// What one snapshot leaves for the next.
#[derive(Default)]
struct Making {
    warm: Option<Loaded>,
    bounds: Option<Bounds>,
}

/// What was made.
pub(crate) struct Taken {
    /// Position that the new snapshot covers.
    pub(crate) position: u64,
    /// Parts that it names, ascending.
    pub(crate) parts: Vec<u64>,
    /// Bytes of the snapshot without its parts.
    pub(crate) len: usize,
}

/// The snapshots of one shard.
pub(crate) struct Snapshots {
    store: Store,
    making: Mutex<Making>,
}

impl Snapshots {
    /// The snapshots of a folder, which may be a running node's: nothing in it is changed.
    pub(crate) fn of_folder(folder: impl Into<PathBuf>) -> Self {
        Self { store: Store::of_folder(folder), making: Mutex::default() }
    }

    /// Makes the folder ready for more of them.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        self.store.prepare()
    }

    /// Sets room aside on the disk for the next two snapshots; `part_bytes`: log that a part stands for.
    pub(crate) fn set_room_aside(&self, part_bytes: u64) {
        self.store.set_room_aside((part_bytes / PART_SHARE).min(ROOM_BYTES));
    }

    /// The highest log position that any of them says was durable when it was made, also of those that cannot be read
    /// whole: their heads have checksums of their own.
    pub(crate) fn known_durable(&self) -> LogPosition {
        let covered = self.store.positions(Kind::Snapshot).unwrap_or_default();
        let head = |covered| {
            let mut head = [0; Checkpoint::ENCODED_LEN];
            File::open(self.store.path(Kind::Snapshot, covered)).ok()?.read_exact(&mut head).ok()?;
            Checkpoint::decode(&head).ok()
        };
        covered.into_iter().filter_map(head).map(|checkpoint| checkpoint.end).max().unwrap_or(LogPosition(0))
    }

    /// The file of a snapshot and those of its parts.
    pub(crate) fn files(&self, loaded: &Loaded) -> Vec<PathBuf> {
        let parts = loaded.state.parts().into_iter().map(|part| self.store.path(Kind::Part, part));
        std::iter::once(self.store.path(Kind::Snapshot, loaded.checkpoint.end.0)).chain(parts).collect()
    }

    /// The newest snapshot below a position that can be read. What cannot be read is told and passed over: an older one
    /// and more of the log give the same state.
    pub(crate) fn newest_below(&self, position: u64) -> io::Result<Option<Loaded>> {
        for covered in self.store.positions(Kind::Snapshot)?.into_iter().rev().filter(|covered| *covered < position) {
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
    pub(crate) fn newest_of(&self, reader: &LogReader) -> io::Result<Option<Loaded>> {
        let mut below = u64::MAX;
        while let Some(loaded) = self.newest_below(below)? {
            let checkpoint = loaded.checkpoint;
            if reader.checkpoint_at(checkpoint.position).is_ok_and(|found| found == checkpoint) {
                return Ok(Some(loaded));
            }
            below = checkpoint.end.0;
        }
        Ok(None)
    }

    /// Position that the newest snapshot covers.
    pub(crate) fn newest_position(&self) -> Option<u64> {
        self.store.positions(Kind::Snapshot).ok()?.pop()
    }

    /// The snapshot that covers everything before this position.
    pub(crate) fn load(&self, covered: u64) -> Result<Loaded, SnapshotFailure> {
        let path = self.store.path(Kind::Snapshot, covered);
        let bytes = map_file(&path).map_err(|source| SnapshotFailure::Io { path: path.clone(), source })?;
        let (head, state) = bytes.split_at(Checkpoint::ENCODED_LEN.min(bytes.len()));
        let checkpoint =
            Checkpoint::decode(head).map_err(|why| SnapshotFailure::Checkpoint { path: path.clone(), why })?;
        let mut short = None;
        let mut part = |id| {
            let mapped = map_file(&self.store.path(Kind::Part, id));
            short =
                mapped.as_ref().err().filter(|error| Shortage::of(error).is_some()).and_then(io::Error::raw_os_error);
            mapped
        };
        let read = State::from_snapshot(state, &mut part);
        let (position, state) = read.map_err(|why| match short {
            Some(errno) => SnapshotFailure::Io { path: path.clone(), source: io::Error::from_raw_os_error(errno) },
            None => SnapshotFailure::State { path: path.clone(), why },
        })?;
        if position != checkpoint.end.0 {
            // Both have a checksum of their own, so somebody put two files together.
            return Err(SnapshotFailure::Checkpoint { path, why: CheckpointError::Damaged });
        }
        Ok(Loaded { checkpoint, state })
    }

    fn making(&self) -> MutexGuard<'_, Making> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the log must keep for the snapshots that are kept; `None` before this process made one.
    pub(crate) fn bounds(&self) -> Option<Bounds> {
        self.making().bounds
    }

    /// Makes a snapshot of everything before `target`, which must be durable and applied. `None` if nothing is new. No part
    /// stands for much more than `part_bytes` of log: messages expire by whole parts.
    ///
    /// Called by one thread at a time.
    pub(crate) fn take(
        &self,
        reader: &LogReader,
        target: u64,
        part_bytes: u64,
    ) -> Result<Option<Taken>, SnapshotFailure> {
        let io = |path: PathBuf| move |source| SnapshotFailure::Io { path, source };
        let folder = self.store.path(Kind::Snapshot, 0);
        // If anything fails below, the next one begins with what is on disk.
        let warm = self.making().warm.take();
        let (base, older) = match warm {
            Some(warm) => (Some(warm), self.bounds().map(|bounds| bounds.newer)),
            None => {
                let base = self.newest_of(reader).map_err(io(folder.clone()))?;
                let bound = base.as_ref().map(Bound::of);
                (base, bound)
            }
        };
        let (mut state, last) = match base {
            Some(Loaded { checkpoint, state }) => (state, Some(checkpoint)),
            None if reader.start().0 == 0 => (State::default(), None),
            None => return Err(SnapshotFailure::NoBeginning(reader.start().0)),
        };
        let mut needed = state.parts();
        let mut kept: Vec<u64> = last.iter().map(|checkpoint| checkpoint.end.0).collect();
        let mut newest = None;
        let mut part_from = last.map_or(0, |checkpoint| checkpoint.end.0);
        for entry in reader.entries_from(last.map_or(LogPosition(0), |checkpoint| checkpoint.end)) {
            let entry = entry?;
            if entry.end.0 > target {
                break;
            }
            replay(&mut state, &entry)?;
            newest = Some(entry.position);
            if entry.end.0 - part_from >= part_bytes {
                self.seal(&mut state, entry.end.0)?;
                part_from = entry.end.0;
            }
        }
        let Some(newest) = newest else {
            self.keep_warm(last.map(|checkpoint| Loaded { checkpoint, state }));
            return Ok(None);
        };
        let checkpoint = reader.checkpoint_at(newest)?;
        let position = checkpoint.end.0;

        // The part first: a snapshot never names what is not on disk.
        self.seal(&mut state, position)?;
        let bytes = state.snapshot(position);
        let path = self.store.path(Kind::Snapshot, position);
        self.store.put(Kind::Snapshot, position, &[&checkpoint.encode(), &bytes]).map_err(io(path))?;
        let parts = state.parts();
        needed.extend(&parts);
        kept.push(position);
        self.store.tidy(&kept, &needed).map_err(io(folder))?;
        // Behind the tidying, which may have made room for it.
        self.set_room_aside(part_bytes);
        let loaded = Loaded { checkpoint, state };
        self.making().bounds = Some(Bounds { older, newer: Bound::of(&loaded) });
        self.keep_warm(Some(loaded));
        Ok(Some(Taken { position, parts, len: bytes.len() }))
    }

    /// Stores what is in no part yet, reads it back, and lets the state read from there.
    fn seal(&self, state: &mut State, position: u64) -> Result<(), SnapshotFailure> {
        let Some(part) = state.next_part(position) else { return Ok(()) };
        let path = self.store.path(Kind::Part, position);
        let io = |source| SnapshotFailure::Io { path: path.clone(), source };
        self.store.put(Kind::Part, position, &[&part]).map_err(io)?;
        drop(part);
        let stored = self.part(position).map_err(io)?;
        state.adopt(position, stored).map_err(|why| SnapshotFailure::State { path, why })
    }

    fn keep_warm(&self, loaded: Option<Loaded>) {
        self.making().warm = loaded.filter(|loaded| loaded.state.tables_bytes() <= WARM_BYTES);
    }

    /// A part, for the running state.
    pub(crate) fn part(&self, id: u64) -> io::Result<Bytes> {
        map_file(&self.store.path(Kind::Part, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_for_parts_follows_the_log_between_snapshots_within_bounds() {
        for (part_bytes, expected) in [(1 << 20, room::LEAST), (8 << 20, 2 << 20), (u64::MAX, ROOM_BYTES)] {
            let folder = tempfile::tempdir().unwrap();
            Snapshots::of_folder(folder.path()).set_room_aside(part_bytes);
            let len = |name: &str| std::fs::metadata(folder.path().join(name)).map_or(0, |file| file.len());
            // A disk that is nearly full gives less.
            assert!(len("part-0.room") <= expected && len("part-1.room") <= expected, "{part_bytes}");
            assert!(len("part-3.room") <= room::LEAST && len("snapshot-1.room") <= room::LEAST, "{part_bytes}");
            let free = rustix::fs::statvfs(folder.path()).map(|disk| disk.f_bavail * disk.f_frsize).unwrap();
            assert!(free < 1 << 30 || len("part-0.room") == expected, "{part_bytes}: {free} bytes are free");
        }
    }
}
