//! Snapshots of the shard's state, so that a start reads only the end of the log.
//!
//! They are made beside the running shard and never stop it: a thread of low priority reads the newest snapshot back,
//! replays the log from there to what the shard has applied, and stores the result. That a snapshot and the rest of the
//! log give the same state as the whole log is what every start relies on anyway; here it is relied on once more.
//!
//! What only grows (queue indexes, sends that are remembered) is written once, in *parts*, which later snapshots name.
//!
//! When the log's beginning is released nothing else says what a snapshot and its parts say. So each file lies on the disk
//! twice ([`copies`]); one that is damaged or missing is made again from the other.

mod copies;
mod failure;
mod rebuild;
mod room;
mod store;
#[cfg(test)]
mod tests;
mod thread;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vouch_broker::state::{Copies, PartView};
use vouch_broker::{ShardId, State};
use vouch_commitlog::{Checkpoint, CheckpointError, LogPosition, LogReader, Shortage, map_file};

use crate::layout::ShardFolder;
use crate::replay::replay;
use copies::{Fault, spare, state_of};
pub(crate) use copies::{Mended, Stored};
pub use failure::SnapshotFailure;
pub(crate) use store::Rooms;
use store::{Kind, Store, Which};
pub use thread::{Listeners, Requests, Snapshotter};
pub use verify::{CopyFate, DamagedCopy, StoredCopies, verify_snapshots};

/// A state, and the last entry that is in it.
pub struct Loaded {
    /// Where the entry lies.
    pub checkpoint: Checkpoint,
    /// The state.
    pub state: State,
}

/// A state whose tables take no more memory than this is kept for the next snapshot, which then reads no file. A larger one
/// is read back: two of them in memory would cost more than the reading.
const WARM_BYTES: u64 = 128 << 20;

/// One snapshot adds about so many parts at most, as long as they stay below [`LARGEST_GROWN_PART`]: each costs two files,
/// their syncs, and some mappings. With small parts a fast sender would leave the snapshots ever further behind, until the
/// process had no mappings left.
const PARTS_AT_ONCE: u64 = 8;
/// Log that a part stands for at most where snapshots are behind, unless `snapshot_every` asks for more.
const LARGEST_GROWN_PART: u64 = 256 << 20;

/// Log that each part of the next snapshot stands for, when so many bytes of log are in none yet.
fn part_bytes_when(behind: u64, part_bytes: u64) -> u64 {
    part_bytes.max((behind / PARTS_AT_ONCE).min(LARGEST_GROWN_PART))
}

/// A part has about 56 bytes a message, and a message has some 200 in the log at least.
const PART_SHARE: u64 = 4;
/// No more is set aside for a part before there is one that was larger.
const ROOM_BYTES: u64 = 64 << 20;

/// Position before which the log in a data folder was durable, as its snapshots say; 0 without any. Nothing is changed.
///
/// # Errors
/// There is too little of something to look.
pub fn known_durable(data_dir: &Path) -> io::Result<LogPosition> {
    Snapshots::of_folder(ShardFolder::of(data_dir, ShardId::FIRST).snapshots()).known_durable()
}

/// What a stored snapshot needs of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The snapshot covers the log before this position.
    pub covers: u64,
    /// Where the last entry in it lies, by which a start knows that snapshot and log belong together.
    pub last_entry: u64,
    /// The lowest position that its state refers to.
    pub refers_to: u64,
}

impl Bound {
    pub(crate) fn of(loaded: &Loaded) -> Self {
        let Loaded { checkpoint, state } = loaded;
        Self { covers: checkpoint.end.0, last_entry: checkpoint.position.0, refers_to: state.needed_from() }
    }

    /// Where the log must begin for it, at the latest.
    pub fn log_from(&self) -> u64 {
        self.last_entry.min(self.refers_to)
    }
}

/// What the two snapshots need that are kept: a start can go on from either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// `None` before there are two.
    pub older: Option<Bound>,
    /// The newest one.
    pub newer: Bound,
}

/// What one snapshot leaves for the next, and what is known of the files.
#[derive(Default)]
struct Making {
    warm: Option<Loaded>,
    bounds: Option<Bounds>,
    /// Files of which a copy was found damaged or missing when they were read.
    suspects: BTreeSet<Stored>,
    /// Files of which both copies were found whole by this process.
    verified: BTreeSet<Stored>,
}

/// Keeps all files where they are until it is dropped.
struct ReadingBack<'a>(&'a Snapshots);

impl Drop for ReadingBack<'_> {
    fn drop(&mut self) {
        self.0.reading_back.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What was made.
pub struct Taken {
    /// Position that the new snapshot covers.
    pub position: u64,
    /// Parts that it names, ascending.
    pub parts: Vec<u64>,
    /// Bytes of the snapshot without its parts, in both copies.
    pub len: usize,
}

/// The snapshots of one shard.
pub struct Snapshots {
    store: Store,
    making: Mutex<Making>,
    /// How many are reading snapshots back: until they are done, no file goes.
    reading_back: AtomicUsize,
}

impl Snapshots {
    /// The snapshots of a folder, which may be a running node's: nothing in it is changed.
    pub fn of_folder(folder: impl Into<PathBuf>) -> Self {
        Self { store: Store::of_folder(folder), making: Mutex::default(), reading_back: AtomicUsize::new(0) }
    }

    /// Makes the folder ready for more of them.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        self.store.prepare()
    }

    /// Changes nothing in the folder any more, for good: it may be another node's. What is under way ends at its next step.
    pub fn give_up(&self) {
        self.store.give_up();
    }

    /// Sets room aside on the disk for the next two snapshots; `part_bytes`: log that a part stands for.
    pub(crate) fn set_room_aside(&self, part_bytes: u64) {
        self.store.set_room_aside((part_bytes / PART_SHARE).min(ROOM_BYTES));
    }

    /// The highest log position that any of them says was durable when it was made, also of those that cannot be read
    /// whole: their heads have checksums of their own.
    ///
    /// # Errors
    /// There is too little of something to look. Without it a log that lost its end would pass for one that was cut short.
    pub(crate) fn known_durable(&self) -> io::Result<LogPosition> {
        let covered = match self.store.positions(Kind::Snapshot) {
            Err(error) if Shortage::of(&error).is_some() => return Err(error),
            covered => covered.unwrap_or_default(),
        };
        let mut known = LogPosition(0);
        for (covered, which) in covered.into_iter().flat_map(|covered| Which::BOTH.map(|which| (covered, which))) {
            let mut head = [0; Checkpoint::ENCODED_LEN];
            let path = self.store.path(Kind::Snapshot, covered, which);
            match File::open(path).and_then(|mut file| file.read_exact(&mut head)) {
                Ok(()) => known = Checkpoint::decode(&head).map_or(known, |checkpoint| known.max(checkpoint.end)),
                Err(error) if Shortage::of(&error).is_some() => return Err(error),
                Err(_) => {}
            }
        }
        Ok(known)
    }

    /// What a snapshot consists of, for who copies it: each file's name and a copy of it that is whole.
    pub(crate) fn files(&self, loaded: &Loaded) -> Vec<(String, PathBuf)> {
        let parts = loaded.state.named_parts().into_iter().map(|(id, checksum)| Stored::Part(id, checksum));
        let stored = std::iter::once(Stored::Snapshot(loaded.checkpoint.end.0)).chain(parts);
        stored.map(|stored| (self.name_of(stored), self.whole_file(stored))).collect()
    }

    /// Why the newest snapshot cannot be read, if so.
    pub(crate) fn newest_failure(&self) -> Option<SnapshotFailure> {
        self.load(self.newest_position()?).err()
    }

    /// The newest snapshot that is whole itself and belongs to this log, read without what is lost of its parts.
    pub(crate) fn newest_with_gaps_of(&self, reader: &LogReader) -> io::Result<Option<Loaded>> {
        for covered in self.store.positions(Kind::Snapshot)?.into_iter().rev() {
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
    pub fn newest_position(&self) -> Option<u64> {
        self.store.positions(Kind::Snapshot).ok()?.pop()
    }

    /// The snapshot that covers everything before this position, from copies that are whole.
    pub fn load(&self, covered: u64) -> Result<Loaded, SnapshotFailure> {
        self.load_from(covered, true).or_else(|failure| {
            if !self.store.positions(Kind::Snapshot).is_ok_and(|there| there.contains(&covered)) {
                // A newer one took its place. That says nothing of the parts, which may be many to look at again.
                return Err(failure);
            }
            // What was whole when it was written may not be any more: now each copy is looked at.
            self.making().verified.clear();
            self.load_from(covered, true)
        })
    }

    /// `whole`: with everything that lies in its parts.
    fn load_from(&self, covered: u64, whole: bool) -> Result<Loaded, SnapshotFailure> {
        let path = self.store.path(Kind::Snapshot, covered, Which::First);
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
        if position != checkpoint.end.0 {
            // Both have a checksum of their own, so somebody put two files together.
            return Err(SnapshotFailure::Checkpoint { path, why: CheckpointError::Damaged });
        }
        Ok(Loaded { checkpoint, state })
    }

    /// Whether these snapshots can be read with all their parts, and each of their files lies on the disk twice: then the log
    /// may go on without what they say. Copies that are damaged or missing are made again. None of the files goes meanwhile:
    /// a fast sender brings newer snapshots sooner than the parts of these are read, and would do so each time.
    pub(crate) fn read_back(&self, bounds: [Bound; 2]) -> Result<(), SnapshotFailure> {
        let _stay = self.keep_files();
        bounds.into_iter().try_for_each(|bound| self.read_one_back(bound.covers))
    }

    fn keep_files(&self) -> ReadingBack<'_> {
        self.reading_back.fetch_add(1, Ordering::Relaxed);
        ReadingBack(self)
    }

    fn read_one_back(&self, covered: u64) -> Result<(), SnapshotFailure> {
        let loaded = self.load(covered)?;
        let parts = loaded.state.named_parts().into_iter().map(|(id, checksum)| Stored::Part(id, checksum));
        for stored in std::iter::once(Stored::Snapshot(covered)).chain(parts) {
            if self.is_verified(stored) && self.seems_whole(stored) {
                continue;
            }
            // What is released for this makes more room than it takes.
            match self.mend(stored, Rooms::Taken, &mut |_| true) {
                Ok(Mended::Lost([lost, _])) => return Err(unlike_written(lost)),
                Ok(Mended::Gone) => return Err(SnapshotFailure::Gone { path: self.copy_path(stored, Which::First) }),
                Ok(mended) => tell(&mended),
                Err(source) => return Err(SnapshotFailure::NotMended { path: self.whole_file(stored), source }),
            }
        }
        Ok(())
    }

    /// Changes nothing in the folder any more, for good, and waits for whoever does.
    pub(crate) fn close(&self) {
        self.store.give_up();
        self.store.wait();
    }

    fn making(&self) -> MutexGuard<'_, Making> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the log must keep for the snapshots that are kept; `None` before this process made one.
    pub(crate) fn bounds(&self) -> Option<Bounds> {
        self.making().bounds
    }

    /// Makes a snapshot of everything before `target`, which must be durable and applied. `None` if nothing is new. No part
    /// stands for much more than `part_bytes` of log, or than [`part_bytes_when`] says: messages expire by whole parts.
    ///
    /// Called by one thread at a time.
    pub(crate) fn take(
        &self,
        reader: &LogReader,
        target: u64,
        part_bytes: u64,
    ) -> Result<Option<Taken>, SnapshotFailure> {
        let mut sealed = Vec::new();
        let taken = self.try_take(reader, target, part_bytes, &mut sealed);
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
    fn take_back(&self, sealed: &[u64], as_room: bool) -> Result<(), SnapshotFailure> {
        if sealed.is_empty() {
            return Ok(());
        }
        let io = |source| SnapshotFailure::Io { path: self.store.path(Kind::Part, sealed[0], Which::First), source };
        let mut named = BTreeSet::new();
        for covered in self.store.positions(Kind::Snapshot).map_err(io)? {
            let (_, bytes) = self.snapshot_bytes(covered)?;
            let path = self.store.path(Kind::Snapshot, covered, Which::First);
            let parts = State::parts_of_snapshot(state_of(&bytes));
            named.extend(parts.map_err(|why| SnapshotFailure::State { path, why })?.into_iter().map(|(id, _)| id));
        }
        let unneeded: Vec<u64> = sealed.iter().copied().filter(|part| !named.contains(part)).collect();
        self.making().verified.retain(|stored| stored.part().is_none_or(|part| !unneeded.contains(&part)));
        self.store.take_back_all(Kind::Part, &unneeded, as_room).map_err(io)
    }

    /// `sealed` gets the parts that are stored for it.
    fn try_take(
        &self,
        reader: &LogReader,
        target: u64,
        part_bytes: u64,
        sealed: &mut Vec<u64>,
    ) -> Result<Option<Taken>, SnapshotFailure> {
        let io = |path: PathBuf| move |source| SnapshotFailure::Io { path, source };
        let folder = self.store.path(Kind::Snapshot, 0, Which::First);
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
        let sealed_bytes = part_bytes_when(target.saturating_sub(part_from), part_bytes);
        for entry in reader.entries_from(last.map_or(LogPosition(0), |checkpoint| checkpoint.end)) {
            let entry = entry?;
            if self.store.is_given_up() {
                return Err(SnapshotFailure::GivenUp);
            }
            if entry.end.0 > target {
                break;
            }
            replay(&mut state, &entry)?;
            newest = Some(entry.position);
            if entry.end.0 - part_from >= sealed_bytes {
                self.seal(&mut state, entry.end.0, sealed)?;
                part_from = entry.end.0;
            }
        }
        // What was replayed may have asked a part for what neither copy has any more.
        if let Some(part) = state.lost_parts().first() {
            return Err(SnapshotFailure::Lost(*part));
        }
        let Some(newest) = newest else {
            self.keep_warm(last.map(|checkpoint| Loaded { checkpoint, state }));
            return Ok(None);
        };
        let checkpoint = reader.checkpoint_at(newest)?;
        let position = checkpoint.end.0;

        // The part first: a snapshot never names what is not on disk.
        self.seal(&mut state, position, sealed)?;
        let bytes = state.snapshot(position);
        let path = self.store.path(Kind::Snapshot, position, Which::First);
        self.store.put(Kind::Snapshot, position, &[&checkpoint.encode(), &bytes]).map_err(io(path))?;
        self.verify(Stored::Snapshot(position)).map_err(unlike_written)?;
        let parts = state.parts();
        needed.extend(&parts);
        kept.push(position);
        self.tidy(&kept, &needed).map_err(io(folder))?;
        // Behind the tidying, which may have made room for it.
        self.set_room_aside(part_bytes);
        let loaded = Loaded { checkpoint, state };
        let mut making = self.making();
        making.bounds = Some(Bounds { older, newer: Bound::of(&loaded) });
        let stays = |stored: &Stored| match stored {
            Stored::Snapshot(position) => kept.contains(position),
            Stored::Part(id, _) => needed.contains(id),
        };
        making.verified.retain(stays);
        making.suspects.retain(stays);
        drop(making);
        self.keep_warm(Some(loaded));
        Ok(Some(Taken { position, parts, len: bytes.len() * Which::BOTH.len() }))
    }

    /// Stores what is in no part yet, reads it back, and lets the state read from there.
    fn seal(&self, state: &mut State, position: u64, sealed: &mut Vec<u64>) -> Result<(), SnapshotFailure> {
        let Some(part) = state.next_part(position) else { return Ok(()) };
        sealed.push(position);
        let path = self.store.path(Kind::Part, position, Which::First);
        let io = |source| SnapshotFailure::Io { path: path.clone(), source };
        self.store.put(Kind::Part, position, &[&part]).map_err(io)?;
        let stored = PartView::open(position, part).map(|part| Stored::Part(position, part.checksum()));
        self.verify(stored.map_err(|why| SnapshotFailure::State { path: path.clone(), why })?)
            .map_err(unlike_written)?;
        let stored = self.part(position).map_err(io)?;
        state.adopt(position, stored).map_err(|why| SnapshotFailure::State { path, why })
    }

    /// Takes away what is not kept and not needed; with the next snapshot, if somebody reads.
    fn tidy(&self, kept: &[u64], needed: &[u64]) -> io::Result<()> {
        if self.reading_back.load(Ordering::Relaxed) > 0 { Ok(()) } else { self.store.tidy(kept, needed) }
    }

    fn keep_warm(&self, loaded: Option<Loaded>) {
        self.making().warm = loaded.filter(|loaded| loaded.state.tables_bytes() <= WARM_BYTES);
    }

    /// A part that was written just now, for a state that says the same.
    pub(crate) fn part(&self, id: u64) -> io::Result<Copies> {
        let [first, second] = Which::BOTH.map(|which| self.store.path(Kind::Part, id, which));
        Ok(Copies { first: map_file(&first)?, second: spare(&second)? })
    }

    /// Mends a part in which a running state found damage, and gives what it is to read from then on; `None` if nothing
    /// needs the part any more.
    pub(crate) fn mended_part(&self, id: u64) -> io::Result<Option<Copies>> {
        // It reads from the same files.
        self.making().warm = None;
        let Some(stored) = self.stored()?.into_iter().find(|stored| stored.part() == Some(id)) else {
            return Ok(None);
        };
        let mended = self.mend(stored, Rooms::Spared, &mut |_| true)?;
        tell(&mended);
        match (mended, stored) {
            (Mended::Whole | Mended::Again(_), Stored::Part(id, checksum)) => self.part_copies(id, checksum).map(Some),
            _ => Ok(None),
        }
    }

    /// Parts that a snapshot names and of which no copy is whole, ascending.
    pub(crate) fn lost_parts(&self, loaded: &Loaded) -> Vec<u64> {
        let Ok((_, bytes)) = self.snapshot_bytes(loaded.checkpoint.end.0) else { return Vec::new() };
        let named = State::parts_of_snapshot(state_of(&bytes)).unwrap_or_default();
        let lost = named.into_iter().filter(|(id, checksum)| !self.has_whole(Stored::Part(*id, *checksum)));
        lost.map(|(id, _)| id).collect()
    }

    /// The first copy of a part.
    pub(crate) fn part_file(&self, id: u64) -> PathBuf {
        self.store.path(Kind::Part, id, Which::First)
    }

    fn name_of(&self, stored: Stored) -> String {
        let (kind, position) = stored.place();
        let path = self.store.path(kind, position, Which::First);
        path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

fn unlike_written((path, why): (PathBuf, Fault)) -> SnapshotFailure {
    SnapshotFailure::Io { path, source: io::Error::other(why) }
}

/// Says what was found, if something was.
pub(crate) fn tell(mended: &Mended) {
    match mended {
        Mended::Whole | Mended::Gone | Mended::Stopped => {}
        Mended::Again(faults) => {
            for (file, why) in faults {
                let file = file.display();
                if why.is_missing() {
                    tracing::warn!(%file, "a copy was missing and is made again from the other one");
                } else {
                    tracing::error!(%file, %why, "a copy was damaged and is made again; look after the disk");
                }
            }
        }
        Mended::Lost(faults) => {
            for (file, why) in faults {
                tracing::error!(file = %file.display(), %why, "both copies are damaged; see `vouch log verify`");
            }
        }
    }
}
