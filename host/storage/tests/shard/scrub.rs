//! The scrubber goes round a log that is written meanwhile, and goes on where it was.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Instant;

use vouch_storage::Scrub;

use crate::common::{PATIENCE, SEGMENT, Shard, damage, files_of, scrubbed_once, stopped};

fn place(data: &std::path::Path) -> std::path::PathBuf {
    data.join("shards/0/scrub")
}

#[test]
fn what_a_disk_lost_in_a_sealed_segment_is_found_once_and_told_by_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path());
    let mut shard = Shard::start(&data);
    let report = scrubbed_once(&shard, &data);
    assert_eq!((report.damaged.load(Ordering::Relaxed), report.found().len()), (0, 0));
    // Two segments are sealed; the one that is written is nobody's to scrub.
    let read = report.bytes.load(Ordering::Relaxed);
    assert!((2 * SEGMENT..2 * SEGMENT + (1 << 20)).contains(&read), "{read}");

    // The damage lies behind the snapshot, where a start does not look.
    let file = damage(&data, "m003");
    let report = scrubbed_once(&shard, &data);
    let found = report.found();
    let [range] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((report.damaged.load(Ordering::Relaxed), &range.file), (1, &file));
    assert!(range.from.0 < SEGMENT && range.to > range.from);
    let topic = shard.state.topics().iter().next().unwrap().id;
    shard.fill(topic, 20..21);
    shard.stop();
}

#[test]
fn a_round_that_an_earlier_process_began_is_ended_and_a_whole_one_follows() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path());
    let shard = Shard::start(&data);
    scrubbed_once(&shard, &data);
    let kept: u64 = fs::read_to_string(place(&data)).unwrap().parse().unwrap();
    assert!(kept.is_multiple_of(SEGMENT) && kept <= 2 * SEGMENT, "{kept}");
    // As if it had been stopped in the second of the two full segments: that one is read, and then both.
    fs::write(place(&data), SEGMENT.to_string()).unwrap();
    let report = scrubbed_once(&shard, &data);
    let read = report.bytes.load(Ordering::Relaxed);
    assert!((3 * SEGMENT..3 * SEGMENT + (1 << 20)).contains(&read), "{read}");
    assert_eq!(report.rounds.load(Ordering::Relaxed), 1);
    shard.kill();
}

#[test]
fn a_rate_of_nothing_reads_nothing_and_a_stop_waits_for_no_pause() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path());
    let shard = Shard::start(&data);
    let housekeeping = || shard.appender.housekeeping();
    let none = Scrub::start(housekeeping(), files_of(&shard), 0, place(&data)).unwrap();
    none.stop();
    assert_eq!(none.report.bytes.load(Ordering::Relaxed), 0);
    assert!(!place(&data).exists());
    // One byte a second: the first pause would last for days.
    let slow = Scrub::start(housekeeping(), files_of(&shard), 1, place(&data)).unwrap();
    let began = Instant::now();
    while slow.report.bytes.load(Ordering::Relaxed) == 0 {
        assert!(began.elapsed() < PATIENCE, "nothing is read");
        std::thread::yield_now();
    }
    slow.stop();
    slow.stop();
    assert!(began.elapsed() < PATIENCE, "it waited");
    assert_eq!(slow.report.rounds.load(Ordering::Relaxed), 0);
    shard.kill();
}

#[test]
fn what_was_found_is_forgotten_when_the_log_releases_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut shard = Shard::start(&data);
    let old = shard.topic("old", r#"{"queues": 1}"#);
    shard.fill(old, 0..20);
    // What is made of the log later begins behind it.
    shard.snapshot();
    damage(&data, "m002");
    let scrub = Scrub::start(shard.appender.housekeeping(), files_of(&shard), 1 << 30, place(&data)).unwrap();
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < PATIENCE, "{what}");
            std::thread::yield_now();
        }
    };
    until("it is found", &|| scrub.report.found().len() == 1);
    shard.delete("old");
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.fill(topic, 20..30);
    shard.snapshot();
    shard.fill(topic, 30..40);
    shard.snapshot();
    assert!(shard.release() >= SEGMENT);
    // Other segments are there than before, so another round begins.
    until("it is forgotten", &|| scrub.report.found().is_empty());
    scrub.stop();
    shard.kill();
}
