//! Old segments leave the log, and their files come back as new ones.

use std::sync::Arc;

use super::driver::{Run, SEGMENT, config, open};
use crate::disk::RealDisk;
use crate::log::open_on;
use crate::simulated::{Image, LOSSES, Rng};
use crate::spares::MAX_SPARES;
use crate::threads::fill;
use crate::{EntryHeader, EntryKind, LogPosition, ReadError, Recovery};

/// A log of that many full segments, all durable, and an entry behind them.
pub(super) fn full_segments(count: u64) -> Run {
    let mut run = Run::new(Image::new(), Rng::new(6));
    fill_to(&mut run, count * SEGMENT);
    run
}

pub(super) fn fill_to(run: &mut Run, end: u64) {
    while run.log.appender.appended().0 <= end + 4096 {
        run.append(EntryKind::Records, 900).unwrap();
    }
    run.settle();
}

fn names(run: &Run) -> Vec<String> {
    run.log.disk.image().into_keys().collect()
}

#[test]
fn whole_segments_below_the_position_leave_the_log() {
    let run = full_segments(5);
    let housekeeping = run.log.appender.housekeeping();
    assert_eq!(housekeeping.release_before(LogPosition(SEGMENT - 1)).unwrap().segments, 0);
    let released = housekeeping.release_before(LogPosition(2 * SEGMENT + 5000)).unwrap();
    assert_eq!((released.segments, released.kept, released.start.0), (2, 2, 2 * SEGMENT));
    assert_eq!(run.log.reader.start(), released.start);
    let usage = housekeeping.usage();
    assert_eq!((usage.start, usage.end), (released.start, run.log.appender.appended()));
    assert_eq!((usage.segments, usage.segment_bytes, usage.spare_bytes), (4, 4 * SEGMENT, 2 * SEGMENT));
    for submitted in &run.submitted {
        let read = run.log.reader.entry_at(submitted.entry.position);
        match submitted.entry.position < released.start {
            true => assert!(matches!(read, Err(ReadError::BeforeStart { start, .. }) if start == released.start)),
            false => assert_eq!(read.unwrap(), submitted.entry),
        }
    }
    let last = run.submitted.last().unwrap().entry.clone();
    let opened = open(run.close()).unwrap();
    assert_eq!((opened.recovery.start, opened.entries[0].position.0), (released.start, 2 * SEGMENT + 4096));
    assert_eq!(opened.entries[opened.entries.len() - 2], last);
    assert_eq!(opened.appender.housekeeping().usage().spare_bytes, 2 * SEGMENT, "spares are taken over");
}

/// Whoever measures the disk counts what lies behind the end in used files as room: it must not be gone from the count when a spare
/// file becomes a segment, only when it is written.
#[test]
fn the_room_in_used_files_goes_as_it_is_written_and_not_when_they_become_segments() {
    let mut run = full_segments(3);
    let housekeeping = run.log.appender.housekeeping();
    housekeeping.release_before(LogPosition(2 * SEGMENT)).unwrap();
    let room = || {
        let usage = housekeeping.usage();
        (usage.end, usage.spare_bytes + usage.reused_bytes, usage.spare_bytes)
    };
    let (mut end, mut left, spares) = room();
    assert_eq!((left, spares), (2 * SEGMENT, 2 * SEGMENT));
    while left > 0 {
        run.append(EntryKind::Records, 900).unwrap();
        run.settle();
        // The next segment is there before the end of the one that is written.
        while fill(&run.log.appender.space, run.log.appender.appended().0).unwrap_or_else(|_| panic!("filling fails")) {
        }
        let (now_at, now_left, _) = room();
        assert!(left - now_left <= now_at.since(end), "{left} bytes of room at {end}, {now_left} at {now_at}");
        (end, left) = (now_at, now_left);
    }
    assert_eq!(housekeeping.usage().spare_bytes, 0, "all used files became segments");
}

#[test]
fn the_segment_that_tells_the_last_index_stays() {
    let mut run = full_segments(1);
    let housekeeping = run.log.appender.housekeeping();
    // The next segment holds an entry, but it is not durable yet.
    while run.log.appender.appended().0 <= 2 * SEGMENT + 4096 {
        run.append(EntryKind::Records, 900).unwrap();
    }
    assert_eq!(housekeeping.release_before(LogPosition(u64::MAX)).unwrap().start.0, SEGMENT);
    run.settle();
    let index = run.submitted.last().unwrap().entry.index;
    assert_eq!(housekeeping.release_before(LogPosition(u64::MAX)).unwrap().start.0, 2 * SEGMENT);
    // A full segment without another is never released, though all of it is durable.
    while run.log.appender.appended().0 != 3 * SEGMENT {
        let left = 3 * SEGMENT - run.log.appender.appended().0;
        run.append(EntryKind::Records, if left <= 5000 { left as usize - 64 } else { 900 }).unwrap();
    }
    run.settle();
    assert_eq!(housekeeping.release_before(LogPosition(u64::MAX)).unwrap().start.0, 2 * SEGMENT);
    assert!(open(run.log.disk.image()).unwrap().recovery.last_index > index);
}

#[test]
fn a_few_files_are_kept_and_used_again() {
    let mut run = full_segments(6);
    let released = run.log.appender.housekeeping().release_before(LogPosition(5 * SEGMENT)).unwrap();
    assert_eq!((released.segments, released.kept), (5, MAX_SPARES as u64));
    let spares = |run: &Run| names(run).iter().filter(|name| name.ends_with(".spare")).count();
    assert_eq!(spares(&run), MAX_SPARES);
    let creations = run.log.disk.creations();
    fill_to(&mut run, 8 * SEGMENT);
    assert_eq!((spares(&run), run.log.disk.creations()), (0, creations), "no file was created while there were spares");
    fill_to(&mut run, 9 * SEGMENT);
    assert_eq!(run.log.disk.creations(), creations + 1);
    let entries: Vec<_> = run.submitted.iter().map(|submitted| submitted.entry.clone()).collect();
    let opened = open(run.close()).unwrap();
    assert!(entries.ends_with(&opened.entries[..opened.entries.len() - 1]) && opened.recovery.clean);
}

#[test]
fn a_file_that_a_reader_holds_is_deleted_and_not_kept() {
    let run = full_segments(4);
    let housekeeping = run.log.appender.housekeeping();
    let held = run.log.reader.read(run.submitted[1].entry.payload_position, 900).unwrap();
    let released = housekeeping.release_before(LogPosition(2 * SEGMENT)).unwrap();
    assert_eq!((released.segments, released.kept), (2, 1));
    assert_eq!((housekeeping.usage().held_bytes, housekeeping.usage().spare_bytes), (SEGMENT, SEGMENT));
    assert_eq!(held, run.submitted[1].entry.payload);
    drop(held);
    assert_eq!(housekeeping.usage().held_bytes, 0);
}

#[test]
fn nothing_is_released_after_the_log_was_closed_or_poisoned() {
    let run = full_segments(3);
    let housekeeping = run.log.appender.housekeeping();
    let before = names(&run);
    let disk = run.log.disk.clone();
    drop(run);
    let error = housekeeping.release_before(LogPosition(2 * SEGMENT)).unwrap_err();
    assert!(matches!(error, crate::ReleaseError::Closed), "{error}");
    assert_eq!(disk.image().into_keys().collect::<Vec<_>>(), before);

    let mut run = full_segments(3);
    run.log.disk.inject(crate::simulated::SimFault::Write);
    run.append(EntryKind::Records, 10).unwrap_err();
    let error = run.log.appender.housekeeping().release_before(LogPosition(2 * SEGMENT)).unwrap_err();
    assert!(matches!(error, crate::ReleaseError::Poisoned(_)), "{error}");
    assert_eq!(run.log.reader.start().0, 0);
}

#[test]
fn a_failed_removal_ends_the_releasing_and_leaves_no_gap() {
    let run = full_segments(4);
    let housekeeping = run.log.appender.housekeeping();
    run.log.disk.inject(crate::simulated::SimFault::SyncDirectory);
    let error = housekeeping.release_before(LogPosition(3 * SEGMENT)).unwrap_err();
    assert!(matches!(&error, crate::ReleaseError::Io { file, .. } if file.ends_with("00000000000000000000.log")));
    let error = housekeeping.release_before(LogPosition(3 * SEGMENT)).unwrap_err();
    assert!(matches!(error, crate::ReleaseError::FailedBefore), "{error}");
    let mut rng = Rng::new(1);
    for loss in LOSSES {
        let start = open(run.log.disk.after_power_cut(run.log.disk.events(), loss, &mut rng)).unwrap().recovery.start;
        assert!(start.0 <= SEGMENT, "{start}");
    }
}

/// On real files, whose mappings show every write: goes on in the files of released segments while somebody holds an
/// entry of each. Tells of held bytes that changed; gives the space that they hold and what the next open reports, too.
fn files_used_again() -> (Option<String>, u64, Recovery) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::open(folder.path()).unwrap());
    let open = || open_on(disk.clone(), &config(), Box::new(|_| ()), &mut |_| Ok(())).unwrap();
    let (mut appender, reader, _) = open();
    let (mut held, mut changed) = (Vec::new(), None);
    for index in 1..=200 {
        let header = EntryHeader { term: 1, index, leader_time_ms: 0, kind: EntryKind::Records };
        let appended = appender.append(header, &[&[index as u8; 900]]).unwrap();
        appender.sync_here().unwrap();
        while fill(&appender.space, appender.appended().0).unwrap_or_else(|_| panic!("filling fails")) {}
        // Every other segment is held.
        if (appended.position.0 / SEGMENT).is_multiple_of(2) {
            held.push((index as u8, reader.read(appended.payload_position, 900).unwrap()));
        }
        appender.housekeeping().release_before(appended.position).unwrap();
    }
    for (byte, bytes) in &held {
        if bytes.iter().any(|now| now != byte) {
            changed = Some(format!("the bytes of entry {byte} changed under its reader"));
        }
    }
    let held = appender.housekeeping().usage().held_bytes;
    let mark = EntryHeader { term: 1, index: 200, leader_time_ms: 0, kind: EntryKind::Mark };
    appender.append(mark, &[]).unwrap();
    appender.sync_here().unwrap();
    drop(appender);
    let (_, reader, recovery) = open();
    assert!(reader.start().0 > 9 * SEGMENT && recovery.last_index == 200, "{recovery:?}");
    (changed, held, recovery)
}

#[test]
fn bytes_of_released_segments_stay_valid_for_their_readers() {
    let (changed, held, recovery) = files_used_again();
    assert_eq!(changed, None);
    assert!(held >= 4 * SEGMENT, "{held}");
    assert!(recovery.clean && recovery.cut.is_none(), "{recovery:?}");
}

pub(super) fn bytes_changed_under_a_reader() -> Option<String> {
    files_used_again().0
}
