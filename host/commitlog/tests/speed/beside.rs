//! Appending while the log is scrubbed, released and read cold, beside a bare writer with the same bytes a second of
//! plain reads and writes in the background.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use vouch_commitlog::{Housekeeping, LogPosition, LogReader};

use super::log::{Log, SEGMENT, SYNCS_IN_FLIGHT};
use super::raw::Raw;
use super::{folder, quartiles};

/// The four cases take turns that are this short, because what else happens to the disk changes from second to second.
const TURN: Duration = Duration::from_millis(300);
const TURNS: usize = 41;
/// The node's default.
const SCRUB_BYTES_PER_SECOND: u64 = 8 << 20;
const SCRUB_STEP: u64 = 256 << 10;
/// What a consumer that lags far behind reads.
const COLD_READ: usize = 64 << 10;
const COLD_READS_PER_SECOND: u64 = 200;
const GROUP: usize = 16 << 10;

/// Does `step` at a fixed rate until told to stop.
fn paced(stop: &AtomicBool, per_second: u64, mut step: impl FnMut()) {
    let (started, mut steps) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        step();
        steps += 1;
        let due = started + Duration::from_secs(1) * steps / per_second as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Drops a range from the page cache, so that the next read of it is cold.
fn forget(file: &File, offset: u64, len: usize) {
    rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(len as u64), Advice::DontNeed).unwrap();
}

/// Scrub, releases and cold reads of the log at `folder`, until told to stop.
fn of_the_log(stop: &AtomicBool, housekeeping: &Housekeeping, reader: &LogReader, folder: &Path) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut scrubber = housekeeping.scrubber(LogPosition(0));
            paced(stop, SCRUB_BYTES_PER_SECOND / SCRUB_STEP, || drop(scrubber.step(SCRUB_STEP).unwrap()));
        });
        scope.spawn(|| {
            paced(stop, 1, || {
                let keep = 3 * SEGMENT;
                let before = LogPosition(reader.end().0.saturating_sub(keep));
                housekeeping.release_before(before).unwrap();
            });
        });
        let mut at = 0;
        paced(stop, COLD_READS_PER_SECOND, || {
            let (start, sealed) = (reader.start().0, reader.end().0 / SEGMENT * SEGMENT);
            at = if (start..sealed).contains(&(at + SEGMENT / 97)) { at + SEGMENT / 97 } else { start };
            let offset = (at % SEGMENT).clamp(4096, SEGMENT - COLD_READ as u64);
            let segment = at - at % SEGMENT;
            if let Ok(bytes) = reader.read(LogPosition(segment + offset), COLD_READ) {
                std::hint::black_box(bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>());
            }
            if let Ok(file) = File::open(folder.join(format!("log/{segment:020}.log"))) {
                forget(&file, offset, COLD_READ);
            }
        });
    });
}

/// The same bytes a second, plain.
fn plain(stop: &AtomicBool, path: &Path) {
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let len = path.metadata().unwrap().len();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file =
                File::options().read(true).custom_flags(direct).open(path).or_else(|_| File::open(path)).unwrap();
            let mut memory = vec![0; SCRUB_STEP as usize + 4096];
            let aligned = memory.as_ptr().align_offset(4096);
            let mut at = 0;
            paced(stop, SCRUB_BYTES_PER_SECOND / SCRUB_STEP, || {
                file.read_exact_at(&mut memory[aligned..aligned + SCRUB_STEP as usize], at).unwrap();
                at = (at + SCRUB_STEP) % len;
            });
        });
        let (file, mut bytes, mut at) = (File::open(path).unwrap(), vec![0; COLD_READ], 0);
        paced(stop, COLD_READS_PER_SECOND, || {
            at = (at + SEGMENT / 97) % (len - COLD_READ as u64);
            file.read_exact_at(&mut bytes, at).unwrap();
            std::hint::black_box(bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>());
            forget(&file, at, COLD_READ);
        });
    });
}

/// Runs `work` beside `background`.
fn with<T>(background: impl FnOnce(&AtomicBool) + Send, work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| background(&stop));
        let done = work();
        stop.store(true, Ordering::Relaxed);
        done
    })
}

/// Speed beside the background work to speed without it; which is measured first changes from turn to turn.
fn in_turn(number: usize, mut speed: impl FnMut(bool) -> f64) -> f64 {
    let first_beside = number.is_multiple_of(2);
    let (first, second) = (speed(first_beside), speed(!first_beside));
    if first_beside { first / second } else { second / first }
}

#[test]
#[ignore = "a measurement"]
fn appending_beside_scrub_release_and_cold_reads() {
    let folder = folder();
    let path = folder.path();
    let (raw, mut log) = (Raw::new(folder.path()), Log::in_used_files(folder.path()));
    // Some sealed segments to scrub and to read.
    while log.appender.appended().0 < 9 * SEGMENT {
        log.append(&vec![7; 1 << 20], 1);
    }
    log.appender
        .housekeeping()
        .release_before(LogPosition(log.appender.durable().0.saturating_sub(3 * SEGMENT)))
        .unwrap();
    let other = folder.path().join("other");
    std::fs::copy(folder.path().join("raw"), &other).unwrap();
    File::open(&other).unwrap().sync_all().unwrap();
    forget(&File::open(&other).unwrap(), 0, usize::MAX >> 1);
    let mut group = GROUP;
    let turn = |number: usize| {
        let (housekeeping, reader) = (log.appender.housekeeping(), log.reader.clone());
        let ours = in_turn(number, |beside| {
            let mut work = || log.closed_loop(4, GROUP, TURN, u64::MAX);
            let figure =
                if beside { with(|stop| of_the_log(stop, &housekeeping, &reader, path), work) } else { work() };
            group = (figure.bytes / figure.groups).next_multiple_of(8) as usize;
            figure.bytes_per_second()
        });
        let bare = in_turn(number, |beside| {
            let work = || raw.closed_loop(group, SYNCS_IN_FLIGHT, TURN, u64::MAX);
            let figure = if beside { with(|stop| plain(stop, &other), work) } else { work() };
            figure.bytes_per_second()
        });
        (ours, bare)
    };
    let turns: Vec<_> = (0..TURNS).map(turn).collect();
    println!(
        "beside its background work the log keeps {} of its speed, the bare writer {}: {}",
        quartiles(&turns, |(ours, _)| *ours),
        quartiles(&turns, |(_, bare)| *bare),
        quartiles(&turns, |(ours, bare)| ours / bare),
    );
}
