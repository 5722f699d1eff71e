//! Figures, not checks: the log beside a bare writer on the same disk in the same run, and the time a start takes.
//! `cargo test --release -p vouch-commitlog --test speed -- --ignored --nocapture --test-threads 1`

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::convert::Infallible;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use rustix::time::{ClockId, clock_gettime};
use vouch_commitlog::{
    Appender, CommitLog, Durable, Entry, EntryHeader, EntryKind, LogConfig, LogPosition, LogReader, Recovery,
};

const RUN: Duration = Duration::from_secs(2);
const FILLED: u64 = 512 << 20;
/// The filler rests until half of the space is used.
const QUIET: u64 = FILLED / 2 - (1 << 20);

fn records(index: u64) -> EntryHeader {
    EntryHeader { term: 1, index, leader_time_ms: 0, kind: EntryKind::Records }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

type Opened = (Appender, LogReader, Recovery, Receiver<Durable>);

fn open(config: LogConfig, mut each: impl FnMut(Entry)) -> Opened {
    let (send, durable) = channel();
    let on_durable = Box::new(move |news| drop(send.send(news)));
    let (appender, reader, recovery) = CommitLog::open(config, on_durable, &mut |entry| {
        each(entry);
        Ok::<(), Infallible>(())
    })
    .unwrap();
    (appender, reader, recovery, durable)
}

/// Groups per second and CPU per group.
struct Figure {
    rate: f64,
    cpu_us: f64,
}

fn figure(groups: u64, started: Instant, cpu_before: Duration) -> Figure {
    let rate = groups as f64 / started.elapsed().as_secs_f64();
    Figure { rate, cpu_us: (cpu() - cpu_before).as_secs_f64() * 1e6 / groups as f64 }
}

/// One thread for each sync in flight, each with a stretch of one zero-filled file: `pwrite`, `fdatasync`.
fn bare(folder: &Path, group: usize, in_flight: u64) -> Figure {
    let path = folder.join("bare");
    let file = File::create_new(&path).unwrap();
    for at in (0..FILLED).step_by(1 << 20) {
        file.write_all_at(&[0; 1 << 20], at).unwrap();
    }
    file.sync_all().unwrap();
    let (started, cpu_before) = (Instant::now(), cpu());
    let work = |number: u64| {
        let file = File::options().write(true).open(&path).unwrap();
        let stretch = QUIET / in_flight;
        let body = vec![7; group];
        let mut groups = 0;
        while started.elapsed() < RUN && (groups + 1) * (group as u64) <= stretch {
            file.write_all_at(&body, number * stretch + groups * group as u64).unwrap();
            file.sync_data().unwrap();
            groups += 1;
        }
        groups
    };
    let groups = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..in_flight).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let figure = figure(groups, started, cpu_before);
    std::fs::remove_file(path).unwrap();
    figure
}

/// One writer that keeps `in_flight` groups under way, or syncs each group itself.
fn log(folder: &Path, group: usize, in_flight: u64, sync_here: bool) -> Figure {
    let config = LogConfig {
        segment_size: 1 << 30,
        zero_ahead: FILLED,
        syncs_in_flight: in_flight as usize,
        ..LogConfig::new(folder.join("log"), [1; 16])
    };
    let directory = config.directory.clone();
    let (mut appender, _, _, durable) = open(config, |_| ());
    // Wait until the space is filled ahead, as the bare file is: the last of it holds real blocks.
    let segment = File::open(directory.join("00000000000000000000.log")).unwrap();
    while rustix::fs::seek(&segment, rustix::fs::SeekFrom::Hole(0)).unwrap() < FILLED {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(200));
    let body = vec![7; group - 64];
    let (started, cpu_before) = (Instant::now(), cpu());
    let mut ends = std::collections::VecDeque::new();
    let (mut groups, mut reached) = (0, LogPosition(0));
    while started.elapsed() < RUN && groups * (group as u64) < QUIET {
        if sync_here {
            appender.append_deferred(records(groups), &[&body]).unwrap();
            appender.sync_here().unwrap();
            groups += 1;
            continue;
        }
        while ends.len() as u64 >= in_flight {
            let Durable::Up { to } = durable.recv().unwrap() else { panic!("poisoned") };
            reached = reached.max(to);
            while ends.front().is_some_and(|end| *end <= reached) {
                ends.pop_front();
            }
        }
        ends.push_back(appender.append(records(groups), &[&body]).unwrap().end);
        groups += 1;
    }
    let figure = figure(groups, started, cpu_before);
    drop(appender);
    std::fs::remove_dir_all(directory).unwrap();
    figure
}

#[test]
#[ignore = "a measurement"]
fn groups_per_second_beside_a_bare_writer() {
    let folder = tempfile::tempdir_in(std::env::var("VOUCH_BENCH_FOLDER").unwrap_or(".".into())).unwrap();
    for (in_flight, sync_here) in [(1, true), (1, false), (2, false)] {
        for group in [1 << 10, 16 << 10, 64 << 10, 1 << 20] {
            let pairs: Vec<(Figure, Figure)> = (0..3)
                .map(|_| (bare(folder.path(), group, in_flight), log(folder.path(), group, in_flight, sync_here)))
                .collect();
            let median = |of: fn(&(Figure, Figure)) -> f64| {
                let mut all: Vec<f64> = pairs.iter().map(of).collect();
                all.sort_by(f64::total_cmp);
                all[1]
            };
            println!(
                "{in_flight} in flight{}, {:4} KiB: rate {:.2} of bare ({:.0}/s), CPU {:.2} of bare ({:.0} us a group)",
                if sync_here { " (synced by the writer)" } else { "" },
                group >> 10,
                median(|(bare, log)| log.rate / bare.rate),
                median(|(bare, _)| bare.rate),
                median(|(bare, log)| log.cpu_us / bare.cpu_us),
                median(|(bare, _)| bare.cpu_us),
            );
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn start_with_a_million_messages() {
    let folder = tempfile::tempdir_in(std::env::var("VOUCH_BENCH_FOLDER").unwrap_or(".".into())).unwrap();
    for batch in [1, 16] {
        let config = LogConfig::new(folder.path().join(batch.to_string()), [1; 16]);
        let (mut appender, _, _, durable) = open(config.clone(), |_| ());
        let body = vec![7; 1024];
        let parts = vec![&body[..]; batch];
        let started = Instant::now();
        for index in 0..1_000_000 / batch as u64 {
            appender.append(records(index), &parts).unwrap();
        }
        println!("batches of {batch}: appended in {:?}", started.elapsed());
        appender.close().unwrap();
        drop(durable);
        for file in std::fs::read_dir(&config.directory).unwrap() {
            let file = File::open(file.unwrap().path()).unwrap();
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        }
        for state in ["cold", "warm"] {
            let (started, cpu_before) = (Instant::now(), cpu());
            let mut bytes = 0;
            let (appender, _, recovery, _) = open(config.clone(), |entry| bytes += entry.payload.len());
            let (took, cpu) = (started.elapsed(), cpu() - cpu_before);
            println!(
                "batches of {batch}, {state}: {} entries, {bytes} bytes in {took:?}, CPU {cpu:?}",
                recovery.entries
            );
            drop(appender);
        }
        std::fs::remove_dir_all(config.directory).unwrap();
    }
}

/// Three ways to make a new segment of an old file of 1 GiB, beside making it of nothing.
#[test]
#[ignore = "a measurement"]
fn a_segment_of_a_released_file() {
    const SIZE: u64 = 1 << 30;
    let folder = tempfile::tempdir().unwrap();
    let timed = |what: &str, work: &mut dyn FnMut()| {
        let started = Instant::now();
        work();
        println!("{what}: {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    };
    let path = folder.path().join("old");
    let fill = |file: &File, byte: u8| {
        let chunk = vec![byte; 1 << 20];
        (0..SIZE).step_by(1 << 20).for_each(|at| file.write_all_at(&chunk, at).unwrap());
        file.sync_all().unwrap();
    };
    let file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    timed("a new file filled with bytes", &mut || fill(&file, 7));
    timed("filled with zeros by writing", &mut || fill(&file, 0));
    fill(&file, 7);
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    timed("read through, as recovery would have to search old bytes", &mut || {
        let mut chunk = vec![0; 1 << 20];
        (0..SIZE).step_by(1 << 20).for_each(|at| file.read_exact_at(&mut chunk, at).unwrap());
    });
    timed("turned into zeros that keep their space, and synced", &mut || {
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::ZERO_RANGE, 0, SIZE).unwrap();
        file.sync_all().unwrap();
    });
    fill(&file, 7);
    drop(file);
    timed("deleted", &mut || {
        std::fs::remove_file(&path).unwrap();
        File::open(folder.path()).unwrap().sync_all().unwrap();
    });
    timed("created sparse", &mut || {
        let file = File::create_new(folder.path().join("new")).unwrap();
        file.set_len(SIZE).unwrap();
        file.sync_all().unwrap();
    });
}

/// A look at a whole log and a round of the scrubber, over about a gibibyte of entries.
#[test]
#[ignore = "a measurement"]
fn verifying_a_gibibyte() {
    let folder = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_size: 256 << 20, ..LogConfig::new(folder.path(), [1; 16]) };
    let (mut appender, _, _, durable) = open(config, |_| ());
    let body = vec![7; 16 << 10];
    let mut end = LogPosition(0);
    for index in 1..=65_536 {
        end = appender.append(records(index), &[&body]).unwrap().end;
    }
    loop {
        match durable.recv().unwrap() {
            Durable::Up { to } if to >= end => break,
            Durable::Up { .. } => {}
            Durable::Poisoned(report) => panic!("{report}"),
        }
    }
    let housekeeping = appender.housekeeping();
    let print = |what: &str, bytes: u64, started: Instant| {
        let seconds = started.elapsed().as_secs_f64();
        println!("{what}: {seconds:.2} s, {:.0} MB/s", bytes as f64 / 1e6 / seconds);
    };
    for _ in 0..2 {
        let (started, cpu_before) = (Instant::now(), cpu());
        let mut scrubber = housekeeping.scrubber(LogPosition(0));
        let mut bytes = 0;
        loop {
            let step = scrubber.step(1 << 20).unwrap();
            bytes += step.bytes_read;
            if step.round_ended {
                break;
            }
        }
        print("a round of the scrubber, past the page cache", bytes, started);
        println!("  {:.2} s of CPU", (cpu() - cpu_before).as_secs_f64());
    }
    let tools = vouch_commitlog::LogFolder::open(folder.path()).unwrap();
    for what in ["a look, from memory", "again"] {
        let started = Instant::now();
        assert!(tools.verify(end, &mut |_| ()).unwrap().is_sound());
        print(what, end.0, started);
    }
    let started = Instant::now();
    assert_eq!(tools.segments().unwrap().len(), 5);
    print("its headers only", end.0, started);
}
