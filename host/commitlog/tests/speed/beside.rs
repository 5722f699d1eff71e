//! Appending while the log is scrubbed, released and read cold, beside a bare writer with the same bytes a second of
//! plain reads in the background: as many as the process really read from the device for the log.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use vouch_commitlog::{Housekeeping, LogPosition, LogReader};

use super::log::{Log, SEGMENT};
use super::raw::Raw;
use super::{folder, median, quartiles};

/// Long enough for some hundred cold reads and for a release.
const TURN: Duration = Duration::from_secs(1);
/// Comparisons; each takes eight turns.
const COMPARISONS: usize = 15;
/// The node's default.
const SCRUB_BYTES_PER_SECOND: u64 = 8 << 20;
const SCRUB_STEP: u64 = 256 << 10;
/// What a consumer that lags far behind reads.
const COLD_READ: usize = 64 << 10;
const COLD_READS_PER_SECOND: u64 = 200;
/// The page cache gives up pieces of up to this size, and only as a whole.
const FOLIO: u64 = 2 << 20;
/// Where entries begin in a segment's file.
const HEADER: u64 = 4096;
const GROUP: usize = 16 << 10;
/// Of the log's end; what is before is released.
const KEPT: u64 = 3 * SEGMENT;

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
                let before = LogPosition(reader.end().0.saturating_sub(KEPT));
                housekeeping.release_before(before).unwrap();
            });
        });
        paced(stop, COLD_READS_PER_SECOND, || {
            // So far behind the end nothing was read yet: what was has pages in the mapping, which stay in memory.
            let at = reader.end().0.saturating_sub(SEGMENT).max(reader.start().0);
            let offset = at % SEGMENT / FOLIO * FOLIO;
            let segment = at - at % SEGMENT;
            // The segment may be released meanwhile.
            let Ok(file) = File::open(folder.join(format!("log/{segment:020}.log"))) else { return };
            forget(&file, offset, FOLIO as usize);
            let from = offset + (at % SEGMENT - offset).clamp(HEADER, FOLIO - COLD_READ as u64);
            if let Ok(bytes) = reader.read(LogPosition(segment + from), COLD_READ) {
                std::hint::black_box(bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>());
            }
        });
    });
}

/// As many bytes a second, plain: the scrubber's past the page cache as it reads them, the rest in as many cold reads as
/// the log had. Each is as long as what the device read for one of those, which the kernel's read-ahead decides.
fn plain(stop: &AtomicBool, path: &Path, bytes_per_second: f64) {
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let len = path.metadata().unwrap().len();
    let cold_bytes = (bytes_per_second as u64).saturating_sub(SCRUB_BYTES_PER_SECOND);
    let cold_read = (cold_bytes / COLD_READS_PER_SECOND).next_multiple_of(4096) as usize;
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
        let (file, mut bytes, mut at) = (File::open(path).unwrap(), vec![0; cold_read], 0);
        // No more than is asked for.
        rustix::fs::fadvise(&file, 0, None, Advice::Random).unwrap();
        paced(stop, COLD_READS_PER_SECOND, || {
            at = (at + SEGMENT / 97).next_multiple_of(4096) % (len - cold_read as u64);
            file.read_exact_at(&mut bytes, at).unwrap();
            std::hint::black_box(bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>());
            forget(&file, at, cold_read);
        });
    });
}

/// Bytes that this process had the device read so far.
fn read_from_device() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("read_bytes: ")).unwrap().parse().unwrap()
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

/// What a comparison found.
struct Compared {
    /// Speed beside the background work to speed without it.
    kept: f64,
    /// Bytes a second that were read from the device beside it.
    read_per_second: f64,
}

/// Takes four turns: without, beside, beside, without in every other comparison and the reverse in the rest. What drifts
/// evenly, as the disk does, weighs on both alike.
fn compared(number: usize, mut bytes_per_second: impl FnMut(bool) -> f64) -> Compared {
    let outer = number.is_multiple_of(2);
    let (mut beside, mut without, mut read) = (0.0, 0.0, 0);
    for is_beside in [outer, !outer, !outer, outer] {
        let read_before = read_from_device();
        let speed = bytes_per_second(is_beside);
        if is_beside {
            beside += speed;
            read += read_from_device() - read_before;
        } else {
            without += speed;
        }
    }
    Compared { kept: beside / without, read_per_second: read as f64 / (2.0 * TURN.as_secs_f64()) }
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
    log.appender.housekeeping().release_before(LogPosition(log.appender.durable().0.saturating_sub(KEPT))).unwrap();
    let other = folder.path().join("other");
    std::fs::copy(folder.path().join("raw"), &other).unwrap();
    File::open(&other).unwrap().sync_all().unwrap();
    forget(&File::open(&other).unwrap(), 0, usize::MAX >> 1);
    let (mut group, mut in_flight) = (GROUP, 1.0);
    let compare = |number: usize| {
        let (housekeeping, reader) = (log.appender.housekeeping(), log.reader.clone());
        let ours = compared(number, |beside| {
            if !beside {
                // Or else it would run out of used files; beside the rest releasing is part of what is measured.
                housekeeping.release_before(LogPosition(reader.end().0.saturating_sub(KEPT))).unwrap();
            }
            let mut work = || log.closed_loop(4, GROUP, TURN, u64::MAX);
            let figure =
                if beside { with(|stop| of_the_log(stop, &housekeeping, &reader, path), work) } else { work() };
            in_flight = figure.in_flight;
            group = (figure.bytes / figure.groups).next_multiple_of(8) as usize;
            figure.bytes_per_second()
        });
        let bare = compared(number, |beside| {
            let work = || raw.closed_loop_in_the_mean(group, in_flight, TURN, u64::MAX);
            let figure = if beside { with(|stop| plain(stop, &other, ours.read_per_second), work) } else { work() };
            figure.bytes_per_second()
        });
        (ours, bare)
    };
    let comparisons: Vec<_> = (0..COMPARISONS).map(compare).collect();
    println!(
        "beside its background work the log keeps {} of its speed, the bare writer {}: {}; {:.0} and {:.0} MB/s read",
        quartiles(&comparisons, |(ours, _)| ours.kept),
        quartiles(&comparisons, |(_, bare)| bare.kept),
        quartiles(&comparisons, |(ours, bare)| ours.kept / bare.kept),
        median(&comparisons, |(ours, _)| ours.read_per_second) / 1e6,
        median(&comparisons, |(_, bare)| bare.read_per_second) / 1e6,
    );
}
