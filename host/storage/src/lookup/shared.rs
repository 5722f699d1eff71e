//! What the thread that makes the files and those who search share: what is to be done, and what is ready.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::LookupReport;
use super::file::LookupFile;
use super::work::{FileStanding, LookupWork, Task};

/// What could not be made is tried again after this long, or when the next part is sealed.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// The files that are used now. Whoever searches keeps the list that he began with, also when a file is given up
/// meanwhile.
pub(super) type Ready = Arc<Vec<Arc<LookupFile>>>;

///
/// What is to be done is changed under one lock, and what is ready is published for those who search, who never wait
/// for the thread.
pub(super) struct SharedLookups {
    pub(super) work: Mutex<LookupWork>,
    pub(super) changed: Condvar,
    pub(super) stopping: AtomicBool,
    /// The files that are used, ascending by part. Changed only by who holds `work`.
    ready: RwLock<Ready>,
    pub(super) report: LookupReport,
}

impl SharedLookups {
    pub(super) fn new(work: LookupWork) -> Self {
        let report = LookupReport::default();
        report.missing.store(work.missing(), Ordering::Relaxed);
        let (work, changed, stopping) = (Mutex::new(work), Condvar::new(), AtomicBool::new(false));
        Self { work, changed, stopping, ready: RwLock::default(), report }
    }

    pub(super) fn work(&self) -> MutexGuard<'_, LookupWork> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ready(&self) -> Ready {
        self.ready.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Changes the list of files that are used, and counts anew. The guard of the work proves that nobody else does so
    /// at the same time.
    pub(super) fn change(&self, work: &LookupWork, change: impl FnOnce(&mut Vec<Arc<LookupFile>>)) {
        let mut files = (*self.ready()).clone();
        change(&mut files);
        let files = Arc::new(files);
        *self.ready.write().unwrap_or_else(PoisonError::into_inner) = files.clone();
        // Behind it: whoever sees that a file is counted finds it.
        self.report.bytes.store(files.iter().map(|file| file.len()).sum(), Ordering::Release);
        self.report.missing.store(work.missing(), Ordering::Release);
        self.report.files.store(files.len() as u64, Ordering::Release);
    }

    /// Uses a file from now on, if its part is still there.
    pub(super) fn put(&self, file: LookupFile) {
        let mut work = self.work();
        if work.set(file.part(), FileStanding::Ready) {
            self.change(&work, |files| {
                let at = files.partition_point(|before| before.part() < file.part());
                files.insert(at, Arc::new(file));
            });
        }
    }

    /// Notes how it stands about a part; one that is gone meanwhile is none to note anything of.
    pub(super) fn set(&self, part: u64, standing: FileStanding) {
        let mut work = self.work();
        work.set(part, standing);
        self.change(&work, |_| ());
    }

    /// Waits for something to do; `None` when the node stops.
    pub(super) fn next(&self) -> Option<Task> {
        let mut work = self.work();
        loop {
            if self.is_stopping() {
                return None;
            }
            if let Some(task) = work.next() {
                return Some(task);
            }
            if work.has_failed() {
                let waited = self.changed.wait_timeout(work, RETRY_AFTER).unwrap_or_else(PoisonError::into_inner);
                work = waited.0;
                if waited.1.timed_out() {
                    work.retry();
                }
            } else {
                work = self.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::covering::covering;
    use super::*;

    #[test]
    fn a_file_whose_part_went_while_it_was_made_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let shared = SharedLookups::new(LookupWork::new([(1000, 1), (2000, 2), (3000, 3)]));
        let parts = || shared.ready().iter().map(|file| file.part()).collect::<Vec<_>>();
        for part in [3000, 1000] {
            shared.put(covering(folder.path(), part, &[(1, 0, 0, 5)]));
        }
        assert_eq!((parts(), shared.report.missing.load(Ordering::Relaxed)), (vec![1000, 3000], 1), "ascending");
        shared.work().sealed(&[1000, 3000]);
        shared.put(covering(folder.path(), 2000, &[(1, 0, 5, 5)]));
        assert_eq!(parts(), [1000, 3000]);
        let (files, bytes) = (&shared.report.files, &shared.report.bytes);
        assert_eq!(files.load(Ordering::Relaxed), 2);
        assert_eq!(bytes.load(Ordering::Relaxed), shared.ready().iter().map(|file| file.len()).sum::<u64>());
    }
}
