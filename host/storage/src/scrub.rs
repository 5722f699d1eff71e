//! Reads the sealed part of the log again and again, slowly, so that what a disk loses is found while a backup still has
//! it; and the snapshots with their parts, so that it is found while the other copy still has it.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vouch_commitlog::{DamagedRange, Housekeeping, LogPosition, Scrubber, Shortage};

use vouch_files::appear;

use crate::snapshots::{Mended, Requests, Rooms, Snapshots, tell};

/// How far the thread stands back behind the rest of the process (`nice`).
const NICE: i32 = 15;
/// Read at once: little, so that a sync of the log never waits for long.
const READ_BYTES: u64 = 256 << 10;
/// How often a thread that rests looks for new segments.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A log to which nothing is added is read again after this long.
const REST: Duration = Duration::from_secs(6 * 60 * 60);
/// Damaged ranges that are kept to be told.
const FOUND_MAX: usize = 1000;
/// Most bytes of the file that says where the scrubber was.
const MAX_PLACE_BYTES: usize = 20;

/// What was found since the node started.
#[derive(Debug, Default)]
pub struct ScrubReport {
    /// Bytes read and compared with their checksums.
    pub bytes: AtomicU64,
    /// Times that the whole sealed log was read.
    pub rounds: AtomicU64,
    /// Damaged ranges found in the round under way and the one before it, and files of snapshots that are lost.
    pub damaged: AtomicU64,
    /// Copies of snapshots and their parts that were damaged or missing, and were made again.
    pub mended: AtomicU64,
    found: Mutex<Vec<DamagedRange>>,
    lost: Mutex<Vec<LostFile>>,
}

/// A snapshot, or a part, of which both copies are damaged.
#[derive(Clone, Debug)]
pub struct LostFile {
    /// The file.
    pub file: PathBuf,
    /// The id, if it is a part.
    pub part: Option<u64>,
    /// What is wrong with both copies.
    pub reason: String,
}

/// What is read besides the log.
pub struct ScrubbedFiles {
    /// The shard's snapshots.
    pub snapshots: Arc<Snapshots>,
    /// Where it is said that a part was mended.
    pub requests: Arc<Requests>,
}

impl ScrubReport {
    /// Damaged ranges that were found, each once, by position; not more than a thousand.
    pub fn found(&self) -> Vec<DamagedRange> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Files that the last look found damaged in both copies.
    pub fn lost(&self) -> Vec<LostFile> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what is new of them, and forgets what is no longer in the log.
    fn note(&self, ranges: &[DamagedRange], log_start: LogPosition) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.retain(|range| range.to > log_start);
        for range in ranges {
            let at = found.partition_point(|known| known.from < range.from);
            if found.get(at).is_none_or(|known| known.from != range.from) && found.len() < FOUND_MAX {
                found.insert(at, range.clone());
            }
        }
    }
}

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
                run(&log, &files, rate, Place::new(place), &report, &stop);
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

/// Waits for the next turn; whether there is one.
fn next_turn(stop: &(Mutex<bool>, Condvar), pace: Duration) -> bool {
    let stopped = stop.0.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = stop.1.wait_timeout_while(stopped, pace, |stopped| !*stopped);
    let (stopped, _) = waited.unwrap_or_else(PoisonError::into_inner);
    !*stopped
}

/// Where the scrubber is, in a file of its own. Not synced: if it is lost, some of the log is read again.
struct Place {
    file: PathBuf,
    kept: Option<LogPosition>,
}

impl Place {
    fn new(file: PathBuf) -> Self {
        Self { file, kept: None }
    }

    /// Where to go on in a log that ends at `end`; 0 if nothing that can be used is kept.
    fn read(&self, end: LogPosition) -> LogPosition {
        let kept = std::fs::read_to_string(&self.file).ok().filter(|text| text.len() <= MAX_PLACE_BYTES);
        let position = kept.and_then(|text| text.trim().parse().ok()).map(LogPosition);
        position.filter(|position| *position < end).unwrap_or(LogPosition(0))
    }

    fn keep(&mut self, position: LogPosition) {
        if self.kept == Some(position) {
            return;
        }
        self.kept = Some(position);
        let new = self.file.with_extension("new");
        let written = appear(&self.file, &new, |file| file.write_all(position.0.to_string().as_bytes()));
        if let Err(error) = written {
            tracing::warn!(%error, file = %self.file.display(), "where the scrubber is could not be kept");
        }
    }
}

fn run(
    log: &Housekeeping,
    files: &ScrubbedFiles,
    rate: u64,
    mut place: Place,
    report: &ScrubReport,
    stop: &(Mutex<bool>, Condvar),
) {
    let usage = log.usage();
    let from = place.read(usage.end);
    // The rest of a round that an earlier process began is no whole round: the next one follows at once.
    let mut whole = from <= usage.start;
    let mut scrubber = log.scrubber(from);
    let mut resting: Option<(Instant, u64)> = None;
    let mut found = 0;
    let mut pause = Duration::ZERO;
    while next_turn(stop, if resting.is_some() { LOOK_EVERY } else { pause }) {
        // Segments that are there do not change: a new round is due when there are others, or after a while.
        let segments = log.usage().segments;
        if resting.is_some_and(|(since, then)| then == segments && since.elapsed() < REST) {
            continue;
        }
        let before = report.bytes.load(Ordering::Relaxed);
        resting = None;
        let Some(round_ended) = step(&mut scrubber, report, &mut found, log.usage().start) else {
            pause = LOOK_EVERY;
            continue;
        };
        // Paid for by what was really read: the scrubber reads whole pieces, however little it is asked for.
        pause = pause_for(report.bytes.load(Ordering::Relaxed) - before, rate);
        if round_ended {
            let mut pace = |bytes| {
                report.bytes.fetch_add(bytes, Ordering::Relaxed);
                next_turn(stop, pause_for(bytes, rate))
            };
            look_at_files(files, report, &mut pace);
            report.rounds.fetch_add(u64::from(whole), Ordering::Relaxed);
            resting = whole.then(|| (Instant::now(), segments));
            whole = true;
        }
        place.keep(scrubber.position());
    }
}

/// Reads both copies of everything, once, and mends what can be mended.
fn look_at_files(files: &ScrubbedFiles, report: &ScrubReport, pace: &mut dyn FnMut(u64) -> bool) {
    let ScrubbedFiles { snapshots, requests } = files;
    let stored = snapshots.stored().unwrap_or_else(|error| {
        tracing::error!(%error, "the snapshots could not be scrubbed; look after the disk");
        Vec::new()
    });
    let mut lost = Vec::new();
    for stored in stored {
        let mended = match snapshots.mend(stored, Rooms::Spared, pace) {
            Ok(Mended::Stopped) => return,
            Ok(mended) => mended,
            Err(error) => {
                tracing::error!(%error, ?stored, "a damaged copy cannot be made again now; the next round tries again");
                continue;
            }
        };
        tell(&mended);
        match mended {
            Mended::Again(copies) => {
                report.mended.fetch_add(copies.len() as u64, Ordering::Relaxed);
                requests.damaged(stored.part());
            }
            Mended::Lost([(file, why), _]) => {
                lost.push(LostFile { file, part: stored.part(), reason: why.to_string() });
            }
            Mended::Whole | Mended::Gone | Mended::Stopped => {}
        }
    }
    report.damaged.fetch_add(lost.len() as u64, Ordering::Relaxed);
    *report.lost.lock().unwrap_or_else(PoisonError::into_inner) = lost;
}

/// How long so many bytes last at this rate; a look at nothing is paced too.
fn pause_for(bytes: u64, rate: u64) -> Duration {
    Duration::from_secs_f64(bytes.max(4096) as f64 / rate as f64)
}

/// One turn; whether a round ended with it. `None`: there is too little of something to look at anything.
fn step(scrubber: &mut Scrubber, report: &ScrubReport, found: &mut u64, log_start: LogPosition) -> Option<bool> {
    let step = match scrubber.step(READ_BYTES) {
        Ok(step) => step,
        Err(error) if Shortage::of(&error.source).is_some() => {
            // It says nothing of the disk, and the same is tried again.
            tracing::debug!(%error, "a part of the log is scrubbed later");
            return None;
        }
        Err(error) => {
            tracing::error!(%error, "a part of the log could not be scrubbed; look after the disk");
            *found += 1;
            report.damaged.fetch_max(*found, Ordering::Relaxed);
            return Some(false);
        }
    };
    for range in &step.damage {
        tracing::error!(%range, "the log is damaged; copy the folder, see `vouch log verify`, restore what is lost from a backup");
    }
    report.note(&step.damage, log_start);
    *found += step.damage.len() as u64;
    report.bytes.fetch_add(step.bytes_read, Ordering::Relaxed);
    report.damaged.fetch_max(*found, Ordering::Relaxed);
    if step.round_ended {
        report.damaged.store(*found, Ordering::Relaxed);
        *found = 0;
    }
    Some(step.round_ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_kept_and_one_that_cannot_be_used_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut place = Place::new(folder.path().join("scrub"));
        let end = LogPosition(1 << 30);
        assert_eq!(place.read(end), LogPosition(0), "nothing was kept yet");
        place.keep(LogPosition(4 << 20));
        assert_eq!(Place::new(folder.path().join("scrub")).read(end), LogPosition(4 << 20));
        assert_eq!(place.read(LogPosition(4 << 20)), LogPosition(0), "the log was put back to an earlier state");
        for spoiled in ["", "-1", "4 MiB", "99999999999999999999999", &"0".repeat(1 << 16)] {
            std::fs::write(folder.path().join("scrub"), spoiled).unwrap();
            assert_eq!(place.read(end), LogPosition(0), "{spoiled:.20}");
        }
    }

    #[test]
    fn the_document_tells_the_numbers_that_hold() {
        let told = include_str!("../../docs/damage.md").split_whitespace().collect::<Vec<_>>().join(" ");
        let segment = pause_for(crate::DEFAULT_SEGMENT_SIZE, 8 << 20).as_secs();
        for sentence in [
            format!("It reads {} KiB at a time", READ_BYTES >> 10),
            format!("a full segment of 1 GiB takes {segment} s"),
            format!("for {} hours at most", REST.as_secs() / 3600),
        ] {
            assert!(told.contains(&sentence), "damage.md does not say: {sentence}");
        }
        assert_eq!((crate::DEFAULT_SEGMENT_SIZE, LOOK_EVERY), (1 << 30, Duration::from_secs(1)));
    }

    #[test]
    fn the_rate_bounds_what_is_read_however_small_it_is() {
        assert_eq!(pause_for(512 << 10, 8 << 20), Duration::from_micros(62_500));
        assert_eq!(pause_for(256 << 10, 64 << 10), Duration::from_secs(4));
        assert!(pause_for(0, 1 << 20) > Duration::ZERO, "an error does not make it spin");
    }
}
