//! How long a start takes, and a look at a whole log.

use std::fs::File;
use std::time::Instant;

use rustix::fs::Advice;
use vouch_commitlog::{Durable, LogConfig, LogPosition};

use super::log::{open, records};
use super::{cpu, folder};

#[test]
#[ignore = "a measurement"]
fn start_with_a_million_messages() {
    let folder = folder();
    for batch in [1, 16] {
        let config = LogConfig::new(folder.path().join(batch.to_string()), [1; 16], 0);
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

/// A look at a whole log and a round of the scrubber, over about a gibibyte of entries.
#[test]
#[ignore = "a measurement"]
fn verifying_a_gibibyte() {
    let folder = folder();
    let config = LogConfig { segment_size: 256 << 20, ..LogConfig::new(folder.path(), [1; 16], 0) };
    let (mut appender, _, _, durable) = open(config, |_| ());
    let body = vec![7; 16 << 10];
    let mut end = LogPosition(0);
    for index in 1..=65_536 {
        end = appender.append(records(index), &[&body]).unwrap().end;
    }
    loop {
        match durable.recv().unwrap().0 {
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
