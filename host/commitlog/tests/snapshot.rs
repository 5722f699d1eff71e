//! Starts from a snapshot: only the entry that it ends with and what follows is read.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use vouch_commitlog::{Checkpoint, Entry, LogConfig, LogPosition, OpenError};

use common::{Open, body, config, first_segment, open, records, three_segments, two_groups, wait_durable};

#[test]
fn a_start_reads_the_checkpoint_and_what_follows() {
    let folder = tempfile::tempdir().unwrap();
    three_segments(folder.path());
    let Open { entries: all, recovery: whole, reader, .. } = open(config(folder.path())).unwrap();
    assert_eq!(whole.checkpoint, Some(reader.checkpoint_at(all[all.len() - 1].position).unwrap()));
    let mut clean = 0;
    for (number, entry) in all.iter().enumerate() {
        let checkpoint = Some(reader.checkpoint_at(entry.position).unwrap());
        let log = open(LogConfig { checkpoint, ..config(folder.path()) }).unwrap();
        assert_eq!(log.entries, all[number + 1..]);
        assert_eq!((log.recovery.end, log.recovery.checkpoint), (whole.end, whole.checkpoint));
        assert_eq!((log.recovery.last_index, log.recovery.last_term), (whole.last_index, whole.last_term));
        assert!(log.recovery.scanned_bytes <= whole.end.0 - entry.position.0, "{:?}", log.recovery);
        assert_eq!(log.reader.entry_at(all[0].position).unwrap(), all[0], "the head can still be read");
        clean += usize::from(log.recovery.clean);
    }
    assert_eq!(clean, all.len());
}

#[test]
fn the_checkpoint_of_an_append_and_of_a_read_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(config(folder.path())).unwrap();
    assert_eq!(log.recovery.checkpoint, None);
    for index in 1..=9 {
        let appended = log.appender.append(records(index), &[&body(index, 900_000)]).unwrap();
        wait_durable(&log.durable, appended.end);
        let Checkpoint { position, end, term, index: found, .. } = appended.checkpoint;
        assert_eq!((position, end, term, found), (appended.position, appended.end, 1, index));
        assert_eq!(log.reader.checkpoint_at(position).unwrap(), appended.checkpoint);
        assert_eq!(Checkpoint::decode(&appended.checkpoint.encode()).unwrap(), appended.checkpoint);
    }
    // The end of a segment is no entry, though a filler may lie there.
    assert!(log.reader.checkpoint_at(LogPosition(4096 + 8)).is_err());
    log.reader.entries_from(LogPosition(0)).for_each(|entry| assert!(entry.is_ok()));
}

/// The refusal of a start with that checkpoint; a start without it still works.
fn refusal(folder: &std::path::Path, checkpoint: Checkpoint) -> OpenError {
    let error = open(LogConfig { checkpoint: Some(checkpoint), ..config(folder) }).err().expect("it is refused");
    assert!(open(config(folder)).is_ok(), "nothing was changed");
    error
}

#[test]
fn a_checkpoint_that_does_not_name_an_entry_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    three_segments(folder.path());
    let Open { entries, reader, appender, .. } = open(config(folder.path())).unwrap();
    let good = reader.checkpoint_at(entries[2].position).unwrap();
    drop(appender);
    let other = Checkpoint { position: entries[3].position, ..good };
    let wrong = [
        (Checkpoint { checksum: good.checksum ^ 1, ..good }, "another entry is there"),
        (Checkpoint { index: 77, ..good }, "another entry is there"),
        (Checkpoint { term: 77, ..good }, "another entry is there"),
        (Checkpoint { end: LogPosition(good.end.0 + 8), ..good }, "another entry is there"),
        (other, "another entry is there"),
        (Checkpoint { position: LogPosition(good.position.0 + 8), ..good }, "does not match its checksum"),
        (Checkpoint { position: LogPosition(8), ..good }, "inside a segment's header"),
        (Checkpoint { position: LogPosition((12 << 20) - 4096), ..good }, "no entry is there"),
        (Checkpoint { position: LogPosition((12 << 20) - 8), ..good }, "does not match its checksum"),
        (Checkpoint { position: LogPosition(1 << 40), ..good }, "no segment file holds that position"),
    ];
    for (checkpoint, reason) in wrong {
        let error = refusal(folder.path(), checkpoint);
        let named = matches!(&error, OpenError::Checkpoint { checkpoint: named, .. } if *named == checkpoint);
        assert!(named && error.to_string().contains(reason), "{checkpoint:?}: {error}");
        assert!(error.to_string().contains("replay the whole log"), "{error}");
    }
}

#[test]
fn an_empty_folder_is_no_log_that_a_snapshot_was_made_of() {
    let folder = tempfile::tempdir().unwrap();
    two_groups(folder.path());
    let Open { reader, entries, .. } = open(config(folder.path())).unwrap();
    let checkpoint = Some(reader.checkpoint_at(entries[0].position).unwrap());
    let empty = tempfile::tempdir().unwrap();
    let error = open(LogConfig { checkpoint, ..config(empty.path()) }).err().unwrap();
    assert!(matches!(error, OpenError::Checkpoint { .. }), "{error}");
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0, "no new log was begun");
}

#[test]
fn what_a_checkpoint_proves_is_not_lost_by_reading_the_whole_log() {
    let folder = tempfile::tempdir().unwrap();
    let (second, end) = two_groups(folder.path());
    let checkpoint = {
        let log = open(config(folder.path())).unwrap();
        Some(log.reader.checkpoint_at(second).unwrap())
    };
    // The last group has no mark that covers it: only the snapshot knows that it was durable.
    let file = OpenOptions::new().write(true).open(first_segment(folder.path())).unwrap();
    file.write_all_at(&[0xFF], end.0 - 20).unwrap();
    let with_snapshot = LogConfig { checkpoint, ..config(folder.path()) };
    let error = open(with_snapshot.clone()).err().unwrap();
    assert!(matches!(&error, OpenError::Checkpoint { reason, .. } if reason.contains("payload")), "{error}");
    let error = open(with_snapshot.whole_log()).err().unwrap();
    assert!(matches!(error, OpenError::Damaged { position, .. } if position == second), "{error}");
    // Without that knowledge it looks like a torn tail.
    let log = open(config(folder.path())).unwrap();
    assert_eq!((log.entries.len(), log.recovery.end), (1, second));
}

#[test]
fn a_missing_file_behind_a_checkpoint_is_refused_and_one_before_it_too() {
    let folder = tempfile::tempdir().unwrap();
    let files = three_segments(folder.path());
    let log = open(config(folder.path())).unwrap();
    let entries: Vec<Entry> = log.entries;
    let checkpoint = |entry: &Entry| Some(log.reader.checkpoint_at(entry.position).unwrap());
    let (first, last) = (checkpoint(&entries[0]), checkpoint(&entries[entries.len() - 1]));
    let aside = folder.path().join("aside");
    for (gone, checkpoint) in [(&files[1], last), (&files[2], first), (&files[1], first)] {
        std::fs::rename(gone, &aside).unwrap();
        let error = open(LogConfig { checkpoint, ..config(folder.path()) }).err().unwrap();
        std::fs::rename(&aside, gone).unwrap();
        assert!(matches!(&error, OpenError::SegmentMissing { file } if file == gone), "{error}");
    }
    std::fs::rename(&files[2], &aside).unwrap();
    let error = open(LogConfig { checkpoint: last, ..config(folder.path()) }).err().unwrap();
    assert!(matches!(&error, OpenError::Checkpoint { file, .. } if *file == files[2]), "{error}");
}
