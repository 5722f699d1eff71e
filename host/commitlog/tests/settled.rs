//! What readers are handed never changes, whatever becomes of the log behind it: bytes that were durable are the mapped
//! ones, all others copies (ruling 28).

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use vouch_commitlog::{CommitLog, LogConfig, LogPosition, ReadOnlyLog, SurveyProgress};

use common::{body, config, first_segment, open, records, two_groups};

/// As one who cuts a log off and goes on with another leader's entries would.
fn overwrite(folder: &Path, from: LogPosition, to: LogPosition) {
    let file = OpenOptions::new().write(true).open(first_segment(folder)).unwrap();
    file.write_all_at(&vec![0xEE; (to.0 - from.0) as usize], from.0).unwrap();
}

/// Whether the bytes lie where a segment is mapped.
fn is_mapped(bytes: &Bytes) -> bool {
    let at = bytes.as_ptr() as usize;
    let holds = |line: &str| {
        let (from, to) = line.split_whitespace().next()?.split_once('-')?;
        let [from, to] = [from, to].map(|address| usize::from_str_radix(address, 16).unwrap());
        (line.ends_with(".log") && (from..to).contains(&at)).then_some(())
    };
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().any(|line| holds(line).is_some())
}

fn read_only(config: &LogConfig) -> ReadOnlyLog {
    CommitLog::open_read_only(config, LogPosition(0), &mut |_: SurveyProgress| ()).unwrap()
}

#[test]
fn bytes_above_the_durable_position_are_copies_and_those_below_it_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(config(folder.path())).unwrap();
    let durable = log.appender.append_deferred(records(1), &[&body(1, 5000)]).unwrap();
    log.appender.sync_here().unwrap();
    let doubtful = log.appender.append_deferred(records(2), &[&body(2, 5000)]).unwrap();
    assert_eq!(log.appender.durable(), durable.end);

    let reader = log.reader.clone();
    let handed_out = move |at: LogPosition, payload_at: LogPosition| -> [Bytes; 4] {
        [
            reader.read(payload_at, 5000).unwrap(),
            reader.read(LogPosition(payload_at.0 + 4999), 1).unwrap(),
            reader.entry_at(at).unwrap().payload,
            reader.entries_from(at).next().unwrap().unwrap().payload,
        ]
    };
    let above = handed_out(doubtful.position, doubtful.payload_position);
    assert!(above.iter().all(|bytes| !is_mapped(bytes)));
    assert!(handed_out(durable.position, durable.payload_position).iter().all(is_mapped));
    // A range that begins below and ends above is one that may change.
    let len = (doubtful.payload_position.0 + 1 - durable.payload_position.0) as usize;
    let across = log.reader.read(durable.payload_position, len).unwrap();
    assert!(!is_mapped(&across));
    assert_eq!(across[..5000], body(1, 5000));

    overwrite(folder.path(), doubtful.position, doubtful.end);
    assert_eq!(log.reader.read(doubtful.payload_position, 1).unwrap()[0], 0xEE, "the file did change");
    let expected = body(2, 5000);
    assert_eq!(above, [&expected[..], &expected[4999..], &expected[..], &expected[..]]);
    assert_eq!(across[len - 1], expected[0]);
}

/// Durable is said last: whoever heard it reads without a copy.
#[test]
fn what_becomes_durable_is_no_longer_copied() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(config(folder.path())).unwrap();
    for index in 1..=50 {
        let appended = log.appender.append(records(index), &[&body(index, 3000)]).unwrap();
        common::wait_durable(&log.durable, appended.end);
        assert!(is_mapped(&log.reader.read(appended.payload_position, 3000).unwrap()));
    }
    log.appender.close().unwrap();
    let log = open(config(folder.path())).unwrap();
    // What was recovered is synced.
    for entry in &log.entries[..50] {
        assert!(is_mapped(&log.reader.entry_at(entry.position).unwrap().payload));
    }
}

/// A node that was alone, and is one of several from now on: another leader may cut off what is durable here.
#[test]
fn what_is_appended_when_others_may_decide_is_copied_until_its_caller_says_that_it_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(config(folder.path())).unwrap();
    let append = |log: &mut common::Open, index| {
        let appended = log.appender.append(records(index), &[&body(index, 3000)]).unwrap();
        common::wait_durable(&log.durable, appended.end);
        appended
    };
    let alone = append(&mut log, 1);
    log.appender.settle_by_caller();
    let with_others = append(&mut log, 2);
    let reader = log.reader.clone();
    let maps = |at: LogPosition| is_mapped(&reader.read(at, 3000).unwrap());
    assert_eq!((maps(alone.payload_position), maps(with_others.payload_position)), (true, false));
    log.appender.settle(with_others.end);
    assert!(maps(with_others.payload_position));
}

/// While it is replayed, nobody knows yet how far the log was durable, and another open may cut it.
#[test]
fn entries_that_are_recovered_are_copies() {
    let folder = tempfile::tempdir().unwrap();
    let (_, end) = two_groups(folder.path());
    let log = open(config(folder.path())).unwrap();
    assert!(log.entries.iter().all(|entry| !is_mapped(&entry.payload)));
    overwrite(folder.path(), LogPosition(4096), end);
    let payloads: Vec<_> = log.entries.iter().map(|entry| entry.payload.to_vec()).collect();
    assert_eq!(payloads, [body(1, 1000), body(2, 1000)]);
}

/// The mark of the second entry says that the first was durable; of the second nobody says anything.
#[test]
fn a_log_that_is_only_read_shares_what_was_durable_for_certain() {
    let folder = tempfile::tempdir().unwrap();
    let (second, end) = two_groups(folder.path());
    let payloads = |mut log: ReadOnlyLog| {
        let read = |log: &ReadOnlyLog, from| -> Vec<Bytes> {
            log.reader.entries_from(from).map(|entry| entry.unwrap().payload).collect()
        };
        let all = read(&log, LogPosition(0));
        log.distrust_before(second);
        assert_eq!(is_mapped(&read(&log, second)[0]), is_mapped(&all[1]));
        all
    };
    let held = payloads(read_only(&config(folder.path())));
    assert_eq!(held.iter().map(is_mapped).collect::<Vec<_>>(), [true, false]);
    let known = LogConfig { known_durable: end, ..config(folder.path()) };
    assert!(payloads(read_only(&known)).iter().all(is_mapped));
    overwrite(folder.path(), second, end);
    assert_eq!(held[1], body(2, 1000));
}
