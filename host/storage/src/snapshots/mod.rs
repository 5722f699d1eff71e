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

mod bound;
mod comparison;
mod copies;
mod failure;
mod fault;
mod listeners;
mod load;
mod mend;
mod parts;
mod read_back;
mod rebuild;
mod requests;
mod room;
mod store;
mod stored;
mod take;
#[cfg(test)]
mod tests;
mod thread;
mod verify;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vouch_broker::State;
use vouch_broker::record::SealedAt;
use vouch_commitlog::{Checkpoint, LogPosition};

pub use bound::{SnapshotBound, SnapshotBounds};
pub use comparison::{Comparison, SealedUnlike};
pub use failure::SnapshotFailure;
pub use listeners::Listeners;
pub(crate) use mend::{Mended, tell};
pub use requests::Requests;
pub(crate) use store::Rooms;
use store::Store;
use stored::StoredFile;
pub use thread::Snapshotter;
pub use verify::{CopyFate, DamagedCopy, StoredCopies, newest_bound, verify_snapshots};

/// A state, and the last entry that is in it.
pub struct LoadedState {
    /// Where the entry lies.
    pub checkpoint: Checkpoint,
    /// The state.
    pub state: State,
}

/// A part has about 56 bytes a message, and a message has some 200 in the log at least.
const PART_SHARE: u64 = 4;
/// No more is set aside for a part before there is one that was larger.
const ROOM_BYTES: u64 = 64 << 20;

/// What one snapshot leaves for the next, and what is known of the files.
#[derive(Default)]
struct Making {
    warm: Option<LoadedState>,
    bounds: Option<SnapshotBounds>,
    /// Files of which a copy was found damaged or missing when they were read.
    suspects: BTreeSet<StoredFile>,
    /// Files of which both copies were found whole by this process.
    verified: BTreeSet<StoredFile>,
}

/// What was made.
pub struct TakenSnapshot {
    /// Position that the new snapshot covers.
    pub position: LogPosition,
    /// Parts that it names, ascending.
    pub parts: Vec<u64>,
    /// What the state had at each position behind the snapshot before that the log names, ascending.
    pub at_names: Vec<SealedAt>,
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

    /// Changes nothing in the folder any more, for good, and waits for whoever does.
    pub(crate) fn close(&self) {
        self.store.give_up();
        self.store.wait();
    }

    fn making(&self) -> MutexGuard<'_, Making> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the log must keep for the snapshots that are kept; `None` before this process made one.
    pub(crate) fn bounds(&self) -> Option<SnapshotBounds> {
        self.making().bounds
    }
}
