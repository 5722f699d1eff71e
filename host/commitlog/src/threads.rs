//! The threads of a log: syncs, and filling ahead.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use crate::Operation;
use crate::group_commit::{GroupCommit, IoFailure, Stop};
use crate::preallocate::{Preallocator, PreallocatorCall, Step, shortage};
use crate::reader::View;

/// The running threads of one log; they end when told to.
pub(crate) struct Threads {
    commit: Arc<GroupCommit>,
    space: Arc<Preallocator>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(crate) fn spawn(
        commit: &Arc<GroupCommit>,
        space: &Arc<Preallocator>,
        view: &Arc<View>,
        syncs_in_flight: usize,
    ) -> io::Result<Self> {
        let mut threads = Self { commit: commit.clone(), space: space.clone(), handles: Vec::new() };
        for slot in 0..syncs_in_flight {
            let commit = commit.clone();
            threads.add(&format!("log-sync-{slot}"), move || sync_loop(&commit, slot))?;
        }
        let (commit, space, view) = (commit.clone(), space.clone(), view.clone());
        threads.add("log-fill", move || fill_loop(&commit, &space, &view))?;
        Ok(threads)
    }

    fn add(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        match Builder::new().name(name.to_owned()).spawn(body) {
            Ok(handle) => {
                self.handles.push(handle);
                Ok(())
            }
            Err(error) => {
                self.end(Stop::Now);
                Err(error)
            }
        }
    }

    /// Ends all threads and waits for them.
    pub(crate) fn end(&mut self, stop: Stop) {
        self.commit.stop(stop);
        self.space.send(PreallocatorCall::Stop);
        for handle in self.handles.drain(..) {
            if handle.join().is_err() {
                tracing::error!("a thread of the commit log panicked");
            }
        }
    }
}

fn sync_loop(commit: &GroupCommit, slot: usize) {
    while let Some(job) = commit.wait(slot) {
        let began = Instant::now();
        let outcome = job.run();
        commit.syncs.observe(began.elapsed());
        commit.complete(&job, outcome);
    }
}

fn fill_loop(commit: &GroupCommit, space: &Preallocator, view: &View) {
    let mut warned = false;
    while space.wait() {
        loop {
            if commit.poisoned().is_some() || space.stopping() {
                return;
            }
            match fill(space, view.appended()) {
                Ok(true) => {
                    warned = false;
                    space.give_way();
                }
                Ok(false) => break,
                Err(failure) => {
                    let Some(shortage) = shortage(&failure) else {
                        commit.poison(failure);
                        return;
                    };
                    // The appender refuses entries when it gets here, and calls again when it goes on.
                    if !std::mem::replace(&mut warned, true) {
                        let IoFailure { segment, cause, .. } = failure;
                        tracing::warn!(segment, %cause, "no {shortage} left to prepare the commit log's next bytes");
                    }
                    break;
                }
            }
        }
    }
}

/// One step, synced; `false` if there is enough.
pub(crate) fn fill(space: &Preallocator, appended: u64) -> Result<bool, IoFailure> {
    match space.step(appended)? {
        Step::Enough => Ok(false),
        Step::Created | Step::Raised => Ok(true),
        Step::Filled(segment, filled) => match segment.file.sync_new_blocks() {
            Ok(()) => {
                segment.written.add(&filled);
                Ok(true)
            }
            // Whatever the cause: entries in the same file may be lost with the zeros.
            Err(cause) => {
                Err(IoFailure { segment: segment.name.clone(), offset: 0, operation: Operation::Sync, cause })
            }
        },
    }
}
