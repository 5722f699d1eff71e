//! A replica's own note beside its log: the vote at once, how far the log is durable and committed some time later.
//!
//! What is noted may be behind what is true, and is never ahead of it: a start takes what lies in the log behind it for what may be
//! torn, and asks a leader what of it is committed. A vote and a cut are noted by whoever waits for them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use vouch_commitlog::LogPosition;
use vouch_consensus::{NodeId, Vote};
use vouch_storage::{Committed, NotedCut, ReplicaFile};

use crate::inbox::Inbox;

/// What is durable is noted at most so much later.
const NOTED_WITHIN: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Wanted {
    /// How far the log is durable, and committed; `None`: that is noted.
    progress: Option<(LogPosition, Committed)>,
    /// What is wanted is noted at once, and then nothing more.
    ends: bool,
}

struct Shared {
    file: Mutex<ReplicaFile>,
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The note, and the thread that keeps it up with the log, so that no sync of it delays an entry.
pub(crate) struct NoteKeeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl NoteKeeper {
    /// `inbox` hears if the file cannot be written: then nothing more may be promised.
    pub(crate) fn start(file: ReplicaFile, inbox: Arc<Inbox>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { file: Mutex::new(file), wanted: Mutex::default(), changed: Condvar::new() });
        let notes = shared.clone();
        let keep_up = move || match catch_unwind(AssertUnwindSafe(|| notes.keep_up())) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => inbox.fail(format!("the replica file cannot be written: {error}")),
            Err(_) => inbox.fail("what is to be noted in the replica file cannot be true".to_owned()),
        };
        let thread = std::thread::Builder::new().name("vouch-replica-0".to_owned()).spawn(keep_up)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The log is durable, and committed, up to there: noted within [`NOTED_WITHIN`].
    pub(crate) fn follow(&self, durable: LogPosition, commit: Committed) {
        let idle = locked(&self.shared.wanted).progress.replace((durable, commit)).is_none();
        if idle {
            self.shared.changed.notify_one();
        }
    }

    /// Makes a vote durable.
    pub(crate) fn save_vote(&self, Vote { term, given_to }: Vote) -> std::io::Result<()> {
        locked(&self.shared.file).term_and_vote(term, given_to)
    }

    /// Notes that this replica is one of several from now on, behind how far its log is durable and committed by now.
    pub(crate) fn is_member(&self, node: NodeId, progress: Option<(LogPosition, Committed)>) -> std::io::Result<()> {
        let mut file = locked(&self.shared.file);
        locked(&self.shared.wanted).progress = None;
        if let Some((durable, commit)) = progress {
            let durable = durable.max(file.note().durable);
            file.durable(durable, commit)?;
        }
        file.is_member(node)
    }

    /// Notes a cut, lets it happen, and notes that it did.
    pub(crate) fn cut<E: From<std::io::Error>>(
        &self,
        cut: NotedCut,
        happen: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut file = locked(&self.shared.file);
        // What was durable above it is not any more.
        locked(&self.shared.wanted).progress = None;
        file.cut_begins(cut)?;
        happen()?;
        Ok(file.cut_ended()?)
    }

    /// Notes how far the log is, and ends.
    pub(crate) fn end(mut self, last: Option<(LogPosition, Committed)>) {
        let mut wanted = locked(&self.shared.wanted);
        wanted.progress = last.or(wanted.progress);
        wanted.ends = true;
        drop(wanted);
        self.join();
    }

    fn join(&mut self) {
        self.shared.changed.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that notes how far the log is ended by a panic");
        }
    }
}

impl Drop for NoteKeeper {
    fn drop(&mut self) {
        let mut wanted = locked(&self.shared.wanted);
        (wanted.progress, wanted.ends) = (None, true);
        drop(wanted);
        self.join();
    }
}

impl Shared {
    fn keep_up(&self) -> std::io::Result<()> {
        let mut wanted = locked(&self.wanted);
        loop {
            wanted = self
                .changed
                .wait_while(wanted, |wanted| wanted.progress.is_none() && !wanted.ends)
                .unwrap_or_else(PoisonError::into_inner);
            let waited = self.changed.wait_timeout_while(wanted, NOTED_WITHIN, |wanted| !wanted.ends);
            wanted = waited.unwrap_or_else(PoisonError::into_inner).0;
            let ends = wanted.ends;
            drop(wanted);
            // The file before what is wanted of it: a cut takes back what is.
            let mut file = locked(&self.file);
            let progress = locked(&self.wanted).progress.take();
            if let Some((durable, commit)) = progress {
                file.durable(durable, commit)?;
            }
            drop(file);
            if ends {
                return Ok(());
            }
            wanted = locked(&self.wanted);
        }
    }
}
