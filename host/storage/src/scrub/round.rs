//! Going round: the log piece by piece, then the snapshots, then a rest.

use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vouch_commitlog::{Housekeeping, LogPosition, Scrubber, Shortage};

use super::files::{ScrubbedFiles, look_at_files};
use super::place::ScrubPlace;
use super::report::ScrubReport;

/// Read at once: little, so that a sync of the log never waits for long.
const READ_BYTES: u64 = 256 << 10;

/// How often a thread that rests looks for new segments.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A log to which nothing is added is read again after this long.
const REST: Duration = Duration::from_secs(6 * 60 * 60);

/// Waits for the next turn; whether there is one.
fn next_turn(stop: &(Mutex<bool>, Condvar), pace: Duration) -> bool {
    let stopped = stop.0.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = stop.1.wait_timeout_while(stopped, pace, |stopped| !*stopped);
    let (stopped, _) = waited.unwrap_or_else(PoisonError::into_inner);
    !*stopped
}

/// Goes round until it is stopped, at `rate` bytes a second. What is damaged is told and counted, and nothing of the
/// log is changed; copies of snapshots are mended.
pub(super) fn run(
    log: &Housekeeping,
    files: &ScrubbedFiles,
    rate: u64,
    mut place: ScrubPlace,
    report: &ScrubReport,
    stop: &(Mutex<bool>, Condvar),
) {
    let usage = log.usage();
    let from = place.read(usage.end);
    // The rest of a round that an earlier process began is no whole round: the next one follows at once.
    let mut whole = from <= usage.start;
    let mut scrubber = log.scrubber(from);
    let mut resting: Option<(Instant, (LogPosition, u64))> = None;
    let mut found = 0;
    let mut pause = Duration::ZERO;
    while next_turn(stop, if resting.is_some() { LOOK_EVERY } else { pause }) {
        // Segments that are there do not change: a new round is due when there are others, or after a while. There may be as many as
        // before: one came, and the oldest went.
        let now = log.usage();
        let segments = (now.start, now.segments);
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
    fn the_document_tells_the_numbers_that_hold() {
        let told = include_str!("../../../docs/damage.md").split_whitespace().collect::<Vec<_>>().join(" ");
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
