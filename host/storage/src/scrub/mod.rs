//! Reads the sealed part of the log again and again, slowly, so that what a disk loses is found while a backup still has
//! it; and the snapshots with their parts, so that it is found while the other copy still has it.

mod files;
mod place;
mod report;
mod round;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use vouch_commitlog::Housekeeping;

pub use files::ScrubbedFiles;
use place::ScrubPlace;
pub use report::{LostFile, ScrubReport};

/// How far the thread stands back behind the rest of the process (`nice`).
const NICE: i32 = 15;

/// The running thread.
pub struct Scrub {
    /// What was read and found.
    pub report: Arc<ScrubReport>,
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Scrub {
    /// Starts it; `rate`: bytes a second, 0 for none at all. `place` is the file in which it keeps where it is, so that a
    /// node that is restarted more often than a round takes reads all of its log in time.
    pub fn start(log: Housekeeping, files: ScrubbedFiles, rate: u64, place: PathBuf) -> std::io::Result<Self> {
        let report = Arc::new(ScrubReport::default());
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let mut thread = None;
        if rate > 0 {
            let (report, stop) = (report.clone(), stop.clone());
            let run = move || {
                if let Err(error) = rustix::process::nice(NICE) {
                    tracing::warn!(%error, "the log is scrubbed at normal priority");
                }
                round::run(&log, &files, rate, ScrubPlace::new(place), &report, &stop);
            };
            thread = Some(std::thread::Builder::new().name("vouch-scrub".to_owned()).spawn(run)?);
        }
        Ok(Self { report, stop, thread: Mutex::new(thread) })
    }

    /// Ends the thread, within the time that one read takes.
    pub fn stop(&self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        // Held to the end: whoever stops it meanwhile must not let go of the folder while it still mends.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the scrubbing thread ended by a panic; the log was not checked to its end");
        }
    }
}
