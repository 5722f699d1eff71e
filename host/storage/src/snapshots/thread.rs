//! The thread that makes snapshots beside the running shard.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use vouch_commitlog::{LogPosition, LogReader, Shortage};

use super::listeners::Listeners;
use super::mend::tell;
use super::requests::{PendingRequests, Requests};
use super::store::Rooms;
use super::{SnapshotBound, SnapshotBounds, SnapshotFailure, Snapshots, TakenSnapshot};

/// How far the thread stands back behind the rest of the process (`nice`).
const NICE: i32 = 15;
/// On a stop, less new log than this is cheaper to replay than to store.
const WORTH_IT_ON_STOP: u64 = 8 << 20;
/// The log must have grown by so many times the size of the last snapshot, both copies: what is written besides the log stays
/// a small part.
const SNAPSHOT_SHARE: u64 = 4;

/// The running thread.
pub struct Snapshotter {
    snapshots: Arc<Snapshots>,
    requests: Arc<Requests>,
    reader: LogReader,
    every: u64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Snapshotter {
    /// Starts the thread. `every`: bytes of log between two snapshots. `adopted`: the last part that the running state has.
    pub fn start(
        snapshots: Arc<Snapshots>,
        requests: Arc<Requests>,
        reader: LogReader,
        every: u64,
        adopted: u64,
        listeners: Listeners,
    ) -> std::io::Result<Self> {
        let making = SnapshotMaking {
            snapshots: snapshots.clone(),
            requests: requests.clone(),
            reader: reader.clone(),
            every,
            adopted,
            listeners,
            mended: false,
        };
        let run = move || {
            if let Err(error) = rustix::process::nice(NICE) {
                tracing::warn!(%error, "snapshots are made at normal priority");
            }
            making.run();
        };
        let thread = std::thread::Builder::new().name("vouch-snapshot".to_owned()).spawn(run)?;
        Ok(Self { snapshots, requests, reader, every, thread: Mutex::new(Some(thread)) })
    }

    /// What the log must keep for the snapshots that are kept; `None` before this process made one.
    pub fn bounds(&self) -> Option<SnapshotBounds> {
        self.snapshots.bounds()
    }

    /// Whether both of these can be read, with all their parts, and lie on the disk twice.
    pub fn read_back(&self, bounds: [SnapshotBound; 2]) -> Result<(), SnapshotFailure> {
        self.snapshots.read_back(bounds)
    }

    /// Changes nothing in the folder any more, for good: it may be another node's.
    pub fn give_up(&self) {
        self.snapshots.give_up();
    }

    /// Ends the thread; then, if `last` says how far a closed log is durable, makes one more snapshot for a quick start.
    pub fn stop(&self, last: Option<LogPosition>) {
        // Held to the end: whoever stops it meanwhile must not go on, and let go of the folder, while it still writes.
        let mut running = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = running.take() else { return };
        self.requests.waiting().stopping = true;
        self.requests.changed.notify_one();
        if thread.join().is_err() {
            tracing::error!("the thread that makes snapshots ended by a panic; the next start reads more of the log");
            return;
        }
        let newest = || self.snapshots.newest_position().unwrap_or(LogPosition::START);
        if let Some(last) = last.filter(|last| last.saturating_since(newest()) >= WORTH_IT_ON_STOP) {
            // It frees nothing: a quick start is not worth the room for those that do.
            let _ = make(&self.snapshots, &self.reader, last, self.every, (Rooms::Spared, false));
        }
        // Somebody may still be about to release segments, and mend a copy for that.
        self.snapshots.close();
    }
}

/// What the thread works with, and what it remembers from one pass to the next.
struct SnapshotMaking {
    snapshots: Arc<Snapshots>,
    requests: Arc<Requests>,
    reader: LogReader,
    every: u64,
    /// The last part that the running state has.
    adopted: u64,
    listeners: Listeners,
    /// What lay on the disk only once lies there twice.
    mended: bool,
}

impl SnapshotMaking {
    /// Does what is asked for until it is told to stop.
    ///
    /// A pass that panics is a failed one. Without the next ones no node would name a position any more, and no segment would ever go.
    fn run(mut self) {
        self.guarded(None, |making| {
            // First of all: what lies on the disk only once must not wait for what is set aside.
            making.mended = making.mend_all();
            making.snapshots.set_room_aside(making.every);
        });
        loop {
            let asked = self.requests.next();
            if asked.stopping {
                return;
            }
            self.guarded(asked.target, |making| making.pass(asked));
        }
    }

    /// Does this, and goes on if it panics. What it left behind is not relied on: the next snapshot begins with what is on the disk.
    fn guarded(&mut self, target: Option<LogPosition>, does: impl FnOnce(&mut Self)) {
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| does(self))) else { return };
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let why = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it does not say why");
        tracing::error!(
            why,
            "making a snapshot ended by a panic, which is a fault of Vouch: report it; it is tried again when the next one is due"
        );
        self.snapshots.making().warm = None;
        if let Some(target) = target {
            self.requests.is_in_trouble(Some(format!("it ended by a panic: {why}")));
            self.next_due(target.plus(self.every));
        }
    }

    /// Mends what is damaged, makes the snapshot that is wanted, and tells of both.
    fn pass(&mut self, asked: PendingRequests) {
        let PendingRequests { target, frees, ends_part, damaged, .. } = asked;
        damaged.into_iter().for_each(|part| self.mend(part));
        let Some(target) = target else { return };
        let rooms = if frees { Rooms::Taken } else { Rooms::Spared };
        let taken = make(&self.snapshots, &self.reader, target, self.every, (rooms, ends_part));
        self.requests.is_in_trouble(taken.as_ref().err().map(ToString::to_string));
        let next = match taken {
            Ok(Some(TakenSnapshot { position, parts, at_names, len })) => {
                self.requests.comparison().has(&at_names);
                (self.listeners.sealed)(&parts);
                self.snapshots.bounds().into_iter().for_each(&self.listeners.kept);
                self.adopted = adopt(&self.snapshots, parts, self.adopted, &self.listeners);
                (self.listeners.at_names)(at_names);
                position.plus(self.every.max(len as u64 * SNAPSHOT_SHARE))
            }
            Ok(None) | Err(_) => target.plus(self.every),
        };
        self.next_due(next);
        // What it tidied away may have made the room that was missing.
        if !self.mended {
            self.mended = self.mend_all();
        }
    }

    fn next_due(&self, next: LogPosition) {
        if self.requests.next_due(next) {
            (self.listeners.due)();
        }
    }

    /// Makes copies that are missing, in the folder of an earlier version, and those that the start found damaged. Whether
    /// there was enough of everything for that: where the disk is full the rest would find it full as well.
    fn mend_all(&self) -> bool {
        let (snapshots, asked) = (&self.snapshots, &self.requests);
        let stored = match snapshots.stored() {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%error, "the folder of the snapshots cannot be listed");
                return Shortage::of(&error).is_none();
            }
        };
        for stored in stored.into_iter().filter(|stored| !snapshots.seems_whole(*stored)) {
            if asked.is_stopping() {
                return true;
            }
            match snapshots.mend(stored, Rooms::Spared, &mut |_| !asked.is_stopping()) {
                Ok(mended) => tell(&mended),
                Err(error) if Shortage::of(&error).is_some() => {
                    tracing::warn!(%error, ?stored, "a copy of it cannot be made now; it is tried again after the next snapshot");
                    return false;
                }
                Err(error) => {
                    tracing::warn!(%error, ?stored, "a copy of it cannot be made now; the next start tries again")
                }
            }
        }
        true
    }

    /// Mends a part in which damage was found, and hands what is whole to the running state.
    fn mend(&self, part: u64) {
        match self.snapshots.mended_part(part) {
            Ok(Some(copies)) => (self.listeners.mended)(part, copies),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, part, "a damaged copy cannot be made again now"),
        }
    }
}

/// Hands the running state the parts behind the last one that it has, and says which one that is then. There is more than
/// one where the state was read from the log and not from a snapshot, or where one could not be read: it comes before
/// those behind it, with the next snapshot.
fn adopt(snapshots: &Snapshots, parts: Vec<u64>, mut adopted: u64, listeners: &Listeners) -> u64 {
    for part in parts.into_iter().filter(|part| *part > adopted).collect::<Vec<_>>() {
        match snapshots.part(part) {
            Ok(copies) => (listeners.adopt)(part, copies),
            Err(error) => {
                tracing::warn!(%error, part, "a part stays in memory until the next snapshot");
                break;
            }
        }
        adopted = part;
    }
    adopted
}

/// Makes one and tells how it went. A failure costs the next start time, and nothing else.
///
/// # Errors
/// Why there is none. It is told here.
fn make(
    snapshots: &Snapshots,
    reader: &LogReader,
    target: LogPosition,
    part_bytes: u64,
    (rooms, ends_part): (Rooms, bool),
) -> Result<Option<TakenSnapshot>, SnapshotFailure> {
    let began = Instant::now();
    let taken = snapshots.take(reader, target, part_bytes, (rooms, ends_part));
    match &taken {
        Ok(Some(taken)) => {
            let took_ms = began.elapsed().as_millis() as u64;
            let parts = taken.parts.len();
            tracing::info!(position = taken.position.0, bytes = taken.len, parts, took_ms, "made a snapshot");
        }
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(%error, "no snapshot was made; the next start reads more of the log");
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_snapshot_that_fell_due_while_another_was_made_is_asked_for_though_the_log_stands_still() {
        let requests = Requests::due_at(LogPosition(50));
        assert!(!requests.applied(crate::replica::Committed { index: 1, position: LogPosition(49) }, true));
        assert_eq!(requests.waiting().target, None);
        assert!(!requests.applied(crate::replica::Committed { index: 1, position: LogPosition(60) }, true));
        assert_eq!(requests.next().target, Some(LogPosition(60)));
        assert!(!requests.applied(crate::replica::Committed { index: 1, position: LogPosition(200) }, true));
        assert_eq!(requests.waiting().target, None, "one is being made");
        assert!(!requests.next_due(LogPosition(201)));
        assert_eq!(requests.waiting().target, None);
        assert!(!requests.next_due(LogPosition(150)));
        assert_eq!(requests.waiting().target, Some(LogPosition(200)));
        assert!(!requests.next().frees, "it is due, and nothing goes with it");
        requests.want(LogPosition(200));
        assert!(requests.next().frees && !requests.waiting().frees);
    }

    #[test]
    fn a_part_that_cannot_be_read_is_adopted_before_those_behind_it_once_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let file = |part: u64| folder.path().join(format!("{part:020}.part"));
        [1, 3].into_iter().for_each(|part| std::fs::write(file(part), b"part").unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = heard.clone();
        let adopts = move |part, _| hears.lock().unwrap().push(part);
        let mended = Box::new(|_, _| ());
        let listeners = Listeners {
            adopt: Box::new(adopts),
            mended,
            sealed: Box::new(|_| ()),
            kept: Box::new(|_| ()),
            at_names: Box::new(|_| ()),
            due: Box::new(|| ()),
        };
        let snapshots = Snapshots::of_folder(folder.path());
        assert_eq!(adopt(&snapshots, vec![1, 2, 3], 0, &listeners), 1);
        assert_eq!(*heard.lock().unwrap(), [1]);
        std::fs::write(file(2), b"part").unwrap();
        assert_eq!(adopt(&snapshots, vec![1, 2, 3], 1, &listeners), 3);
        assert_eq!(*heard.lock().unwrap(), [1, 2, 3]);
    }
}
