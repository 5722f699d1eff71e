//! Making a snapshot: from the newest one and the log behind it, never from the state that serves.
//!
//! # To ensure correctness
//! - What is written comes before what names it: parts first, then the snapshot, and only then does anything older go.
//!   Whatever step a crash comes at, the folder holds a snapshot that is whole, or the log says everything.
//! - Each file is read back from the medium before the next step relies on it.
//! - What an attempt that failed has sealed is taken back, unless a snapshot may name it.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use vouch_broker::State;
use vouch_broker::state::PartView;
use vouch_commitlog::{LogPosition, LogReader};

use super::mend::unlike_written;
use super::store::{CopyKind, Rooms, Which};
use super::stored::{StoredFile, state_of};
use super::{LoadedState, SnapshotBound, SnapshotBounds, SnapshotFailure, Snapshots, TakenSnapshot};
use crate::position::record_position;
use crate::replay::replay;

/// A state whose tables take no more memory than this is kept for the next snapshot, which then reads no file. A larger one
/// is read back: two of them in memory would cost more than the reading.
const WARM_BYTES: u64 = 128 << 20;

/// One snapshot adds about so many parts at most, as long as they stay below [`LARGEST_GROWN_PART`]: each costs two files,
/// their syncs, and some mappings. With small parts a fast sender would leave the snapshots ever further behind, until the
/// process had no mappings left.
const PARTS_AT_ONCE: u64 = 8;
/// Log that a part stands for at most where snapshots are behind, unless `snapshot_every` asks for more.
pub(super) const LARGEST_GROWN_PART: u64 = 256 << 20;

/// Log that each part of the next snapshot stands for, when so many bytes of log are in none yet.
pub(super) fn part_bytes_when(behind: u64, part_bytes: u64) -> u64 {
    part_bytes.max((behind / PARTS_AT_ONCE).min(LARGEST_GROWN_PART))
}

impl Snapshots {
    /// Makes a snapshot of everything before `target`, which must be durable and applied. `None` if nothing is new. No part
    /// stands for much more than `part_bytes` of log, or than [`part_bytes_when`] says: messages expire by whole parts.
    ///
    /// Called by one thread at a time.
    ///
    /// Where the log names positions, parts end at these and nowhere else, so that they are the same everywhere; what lies behind the
    /// last of them is written into the snapshot itself, unless it `ends_part` at the target.
    pub(crate) fn take(
        &self,
        reader: &LogReader,
        target: LogPosition,
        part_bytes: u64,
        (rooms, ends_part): (Rooms, bool),
    ) -> Result<Option<TakenSnapshot>, SnapshotFailure> {
        let mut sealed = Vec::new();
        let taken = self.try_take(reader, target, part_bytes, (&mut sealed, rooms, ends_part));
        if taken.is_err() && !self.store.is_given_up() {
            // On a full disk the next attempt has no more than this one had. Blocks that failed are no room.
            let full = taken.as_ref().is_err_and(SnapshotFailure::is_full);
            if let Err(error) = self.take_back(&sealed, full) {
                tracing::warn!(%error, "parts that no snapshot names stay until the next one is made");
            }
            self.set_room_aside(part_bytes);
        }
        taken
    }

    /// Takes back those of these parts that no snapshot names. If one cannot be read, nobody knows, and all stay.
    pub(super) fn take_back(&self, sealed: &[u64], as_room: bool) -> Result<(), SnapshotFailure> {
        if sealed.is_empty() {
            return Ok(());
        }
        let io =
            |source| SnapshotFailure::Io { path: self.store.path(CopyKind::Part, sealed[0], Which::First), source };
        let mut named = BTreeSet::new();
        for covered in self.covered().map_err(io)? {
            let (_, bytes) = self.snapshot_bytes(covered)?;
            let path = self.store.path(CopyKind::Snapshot, covered.0, Which::First);
            let parts = State::parts_of_snapshot(state_of(&bytes));
            named.extend(parts.map_err(|why| SnapshotFailure::State { path, why })?.into_iter().map(|(id, _)| id));
        }
        let unneeded: Vec<u64> = sealed.iter().copied().filter(|part| !named.contains(part)).collect();
        self.making().verified.retain(|stored| stored.part().is_none_or(|part| !unneeded.contains(&part)));
        self.store.take_back_all(CopyKind::Part, &unneeded, as_room).map_err(io)
    }

    /// `sealed` gets the parts that are stored for it.
    fn try_take(
        &self,
        reader: &LogReader,
        target: LogPosition,
        part_bytes: u64,
        (sealed, rooms, ends_part): (&mut Vec<u64>, Rooms, bool),
    ) -> Result<Option<TakenSnapshot>, SnapshotFailure> {
        let io = |path: PathBuf| move |source| SnapshotFailure::Io { path, source };
        let folder = self.store.path(CopyKind::Snapshot, 0, Which::First);
        // If anything fails below, the next one begins with what is on disk.
        let warm = self.making().warm.take();
        let (base, older) = match warm {
            Some(warm) => (Some(warm), self.bounds().map(|bounds| bounds.newer)),
            None => {
                let base = self.newest_of(reader).map_err(io(folder.clone()))?;
                let bound = base.as_ref().map(SnapshotBound::of);
                (base, bound)
            }
        };
        let (mut state, last) = match base {
            Some(LoadedState { checkpoint, state }) => (state, Some(checkpoint)),
            None if reader.start() == LogPosition::START => (State::default(), None),
            None => return Err(SnapshotFailure::NoBeginning(reader.start())),
        };
        let mut needed = state.parts();
        let mut kept: Vec<LogPosition> = last.iter().map(|checkpoint| checkpoint.end).collect();
        let (mut newest, mut at_names) = (None, Vec::new());
        let mut part_from = last.map_or(LogPosition::START, |checkpoint| checkpoint.end);
        let sealed_bytes = part_bytes_when(target.saturating_since(part_from), part_bytes);
        for entry in reader.entries_from(part_from) {
            let entry = entry?;
            if self.store.is_given_up() {
                return Err(SnapshotFailure::GivenUp);
            }
            if entry.end > target {
                break;
            }
            let named = replay(&mut state, &entry)?;
            newest = Some(entry.position);
            if named {
                let since = state.last_part();
                self.seal(&mut state, entry.end, (sealed, rooms))?;
                at_names.push(state.sealed_at(record_position(entry.end), since));
            } else if entry.end.since(part_from) >= sealed_bytes && !state.cluster().names_snapshots() {
                self.seal(&mut state, entry.end, (sealed, rooms))?;
            } else {
                continue;
            }
            part_from = entry.end;
        }
        // What was replayed may have asked a part for what neither copy has any more.
        if let Some(part) = state.lost_parts().first() {
            return Err(SnapshotFailure::Lost(*part));
        }
        let Some(newest) = newest else {
            self.keep_warm(last.map(|checkpoint| LoadedState { checkpoint, state }));
            return Ok(None);
        };
        let checkpoint = reader.checkpoint_at(newest)?;
        let position = checkpoint.end;

        if ends_part || !state.cluster().names_snapshots() {
            // The part first: a snapshot never names what is not on disk.
            self.seal(&mut state, position, (sealed, rooms))?;
        }
        let path = self.store.path(CopyKind::Snapshot, position.0, Which::First);
        let bytes = state.try_snapshot(record_position(position));
        let bytes = bytes.map_err(|why| SnapshotFailure::State { path: path.clone(), why })?;
        self.store.put(CopyKind::Snapshot, position.0, &[&checkpoint.encode(), &bytes], rooms).map_err(io(path))?;
        self.verify(StoredFile::Snapshot(position)).map_err(unlike_written)?;
        let parts = state.parts();
        needed.extend(&parts);
        kept.push(position);
        self.tidy(&kept, &needed).map_err(io(folder))?;
        // Behind the tidying, which may have made room for it.
        self.set_room_aside(part_bytes);
        let loaded = LoadedState { checkpoint, state };
        let mut making = self.making();
        making.bounds = Some(SnapshotBounds { older, newer: SnapshotBound::of(&loaded) });
        let stays = |stored: &StoredFile| match stored {
            StoredFile::Snapshot(position) => kept.contains(position),
            StoredFile::Part(id, _) => needed.contains(id),
        };
        making.verified.retain(stays);
        making.suspects.retain(stays);
        drop(making);
        self.keep_warm(Some(loaded));
        Ok(Some(TakenSnapshot { position, parts, at_names, len: bytes.len() * Which::BOTH.len() }))
    }

    /// Stores what is in no part yet, reads it back, and lets the state read from there. The part is named by the position
    /// that it covers.
    fn seal(
        &self,
        state: &mut State,
        covered: LogPosition,
        (sealed, rooms): (&mut Vec<u64>, Rooms),
    ) -> Result<(), SnapshotFailure> {
        let position = covered.0;
        let Some(part) = state.next_part(position) else { return Ok(()) };
        sealed.push(position);
        let path = self.store.path(CopyKind::Part, position, Which::First);
        let io = |source| SnapshotFailure::Io { path: path.clone(), source };
        self.store.put(CopyKind::Part, position, &[&part], rooms).map_err(io)?;
        let stored = PartView::open(position, part).map(|part| StoredFile::Part(position, part.checksum()));
        self.verify(stored.map_err(|why| SnapshotFailure::State { path: path.clone(), why })?)
            .map_err(unlike_written)?;
        let stored = self.part(position).map_err(io)?;
        state.adopt(position, stored).map_err(|why| SnapshotFailure::State { path, why })
    }

    /// Takes away what is not kept and not needed; with the next snapshot, if somebody reads.
    pub(super) fn tidy(&self, kept: &[LogPosition], needed: &[u64]) -> io::Result<()> {
        let kept: Vec<u64> = kept.iter().map(|covered| covered.0).collect();
        if self.reading_back.load(Ordering::Relaxed) > 0 { Ok(()) } else { self.store.tidy(&kept, needed) }
    }

    /// Keeps a state for the next snapshot, which then reads no file; or nothing, where it takes too much memory.
    fn keep_warm(&self, loaded: Option<LoadedState>) {
        self.making().warm = loaded.filter(|loaded| loaded.state.tables_bytes() <= WARM_BYTES);
    }
}
