//! The end of a log is cut off: it is gone for good, wherever the power goes, and the log goes on as if it had never been.

use super::driver::{Opened, Run, SEGMENT, open_disk, replica};
use super::recycled;
use crate::format::SEGMENT_HEADER_LEN;
use crate::segment::{file_name, parse_file_name};
use crate::simulated::{Image, LOSSES, PowerLoss, Rng, SimDisk, SimFault};
use crate::{
    Checkpoint, CutError, Durable, Entry, EntryKind, LogConfig, LogPosition, OpenError, Operation, Settles, Shortage,
    UnfinishedCut,
};

/// A replica's log of three or four segments, in new or in used files; the last entries are not durable.
pub(super) fn some_log(seed: u64) -> Run {
    let image = if seed.is_multiple_of(2) { Image::new() } else { recycled::in_used_files().log.disk.image() };
    let mut run = Run::with(SimDisk::new(image), &replica(), Rng::new(seed));
    let until = run.log.appender.appended().0 + 2 * SEGMENT + run.rng.below(SEGMENT);
    while run.log.appender.appended().0 < until {
        let (kind, len) = if run.rng.chance(8) { (EntryKind::Mark, 0) } else { (EntryKind::Records, run.length()) };
        run.append(kind, len).unwrap();
        if run.rng.chance(3) {
            run.fill();
        }
        let slot = run.rng.below(3) as usize;
        run.step_sync(slot);
    }
    run
}

fn entries(run: &Run) -> Vec<Entry> {
    run.submitted.iter().map(|submitted| submitted.entry.clone()).collect()
}

/// The segment files alone, without what is prepared behind the one that `end` lies in.
pub(super) fn segments(image: &Image, end: LogPosition) -> Image {
    let written = |name: &str| parse_file_name(name).is_some_and(|start| start < end.0);
    image.iter().filter(|(name, _)| written(name)).map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
}

fn noted(note: UnfinishedCut) -> LogConfig {
    LogConfig { unfinished_cut: Some(note), ..replica() }
}

/// Nothing but zeros where the cut-off entries were, and no file of those behind.
fn nothing_is_left(image: &Image, note: UnfinishedCut) {
    let UnfinishedCut { to, end } = note;
    let segment = (to.0 - 1) / SEGMENT * SEGMENT;
    let upto = end.0.min(segment + SEGMENT) - segment;
    let bytes = &image[&file_name(segment)][(to.0 - segment) as usize..upto as usize];
    assert!(bytes.iter().all(|byte| *byte == 0), "behind {to}");
    for start in (segment + SEGMENT..end.0).step_by(SEGMENT as usize) {
        assert!(!image.contains_key(&file_name(start)), "the segment at {start}");
    }
}

#[test]
fn a_log_that_was_cut_behind_any_entry_is_as_if_the_rest_had_never_been() {
    for seed in 0..8 {
        for kept in 1..some_log(seed).submitted.len() {
            let mut run = some_log(seed);
            let durable = run.log.appender.durable();
            run.cut(kept).unwrap();
            let (to, note) = (run.submitted[kept - 1].entry.end, run.cuts[0].note);
            assert_eq!((run.log.appender.appended(), run.log.reader.end()), (to, to));
            assert_eq!(run.log.appender.durable(), durable.min(to));
            nothing_is_left(&run.log.disk.image(), note);
            let start = run.log.reader.start();
            let read: Vec<_> = run.log.reader.entries_from(start).map(Result::unwrap).collect();
            assert_eq!(read, entries(&run));
            // It goes on, also across the ends of segments.
            for _ in 0..1 + run.rng.below(30) {
                let len = run.length();
                run.append_in(7, EntryKind::Records, len).unwrap();
                let slot = run.rng.below(3) as usize;
                run.step_sync(slot);
                run.fill();
            }
            run.settle();
            let events = run.log.disk.events();
            let opened =
                open_disk(SimDisk::new(run.log.disk.after_power_cut(events, PowerLoss::All, &mut run.rng)), &replica());
            assert_eq!(opened.unwrap().entries, entries(&run), "seed {seed}, {kept} kept");
        }
    }
}

#[test]
fn everything_can_be_cut_off() {
    let mut run = Run::with(SimDisk::new(Image::new()), &replica(), Rng::new(3));
    while run.log.appender.appended().0 < 2 * SEGMENT {
        run.append(EntryKind::Records, 700).unwrap();
    }
    run.settle();
    let end = run.log.appender.appended();
    run.log.appender.cut(&Checkpoint::BEFORE_ALL).unwrap();
    nothing_is_left(&run.log.disk.image(), UnfinishedCut { to: LogPosition(SEGMENT_HEADER_LEN), end });
    let fresh = Run::with(SimDisk::new(Image::new()), &replica(), Rng::new(3));
    run.submitted.clear();
    let same = |run: &Run| segments(&run.log.disk.image(), run.log.appender.appended());
    assert_eq!(same(&run), same(&fresh));
    run.append_in(2, EntryKind::Records, 100).unwrap();
    run.settle();
    assert_eq!(open_disk(SimDisk::new(run.log.disk.image()), &replica()).unwrap().entries, entries(&run));
}

/// The power goes at any moment of a cut, and of the start that finishes it.
pub(super) fn torn_cut(seed: u64) -> Option<String> {
    let mut run = some_log(seed);
    let kept = 1 + run.rng.below(run.submitted.len() as u64 - 1) as usize;
    // What the cut leaves may be durable or not.
    let all_durable = run.rng.chance(2);
    if all_durable {
        run.settle();
    }
    run.cut(kept).unwrap();
    let (began, ended, note) = (run.cuts[0].began, run.cuts[0].ended, run.cuts[0].note);
    let mut rng = run.rng.clone();
    let whole = open_disk(run.log.disk.fork(ended), &replica()).unwrap();
    let expected = segments(&whole.disk.image(), note.to);
    for at in began..=ended {
        for loss in LOSSES {
            let what = format!("seed {seed}, cut to {} at event {at} of {began} to {ended}, {loss:?}", note.to);
            let image = run.log.disk.after_power_cut(at, loss, &mut rng);
            let first = match open_disk(SimDisk::new(image), &noted(note)) {
                Ok(first) => first,
                Err(error) => return Some(format!("{what}: {error}")),
            };
            let again_at = rng.below(first.disk.events() as u64 + 1) as usize;
            let image = first.disk.after_power_cut(again_at, LOSSES[rng.below(4) as usize], &mut rng);
            let again = match open_disk(SimDisk::new(image), &noted(note)) {
                Ok(again) => again,
                Err(error) => return Some(format!("{what}, again at {again_at}: {error}")),
            };
            for Opened { disk, entries: found, recovery, .. } in [first, again] {
                let (durable, wanted) = (run.log.disk.reported(at), &entries(&run));
                if !wanted.starts_with(&found) || wanted.get(found.len()).is_some_and(|lost| lost.end.0 <= durable) {
                    return Some(format!("{what}: {} of {} entries", found.len(), wanted.len()));
                }
                if all_durable && segments(&disk.image(), recovery.end) != expected {
                    return Some(format!("{what}: the files differ"));
                }
            }
        }
    }
    None
}

#[test]
fn a_power_cut_at_any_moment_of_a_cut_gives_the_same_log() {
    println!("seeds 0 to 60");
    for seed in 0..60 {
        assert_eq!(torn_cut(seed), None);
    }
}

#[test]
fn what_is_settled_and_what_is_not_there_is_refused_and_nothing_changes() {
    let mut run = some_log(2);
    run.settle();
    let (events, end) = (run.log.disk.events(), run.log.appender.appended());
    let last = |at: usize| run.submitted[at].checkpoint;
    let middle = last(5);
    let other = [
        Checkpoint { checksum: middle.checksum ^ 1, ..middle },
        Checkpoint { index: 77, ..middle },
        Checkpoint { position: middle.position.plus(8), ..middle },
        Checkpoint { position: end, end: end.plus(64), ..middle },
    ];
    let log = &mut run.log;
    for wrong in other {
        let error = log.appender.cut(&wrong).unwrap_err();
        assert!(matches!(error, CutError::NotThere { .. }), "{error}");
    }
    log.appender.settle(middle.end);
    log.appender.settle(run.submitted[2].entry.end);
    let error = log.appender.cut(&run.submitted[4].checkpoint).unwrap_err();
    assert!(matches!(error, CutError::Settled { settled, .. } if settled == middle.end), "{error}");
    assert!(error.to_string().contains(&middle.end.to_string()), "{error}");
    assert_eq!((log.disk.events(), log.appender.appended()), (events, end));
    log.appender.cut(&run.submitted.last().unwrap().checkpoint).unwrap();
    assert_eq!(log.disk.events(), events, "nothing lies behind the last entry");
    log.appender.cut(&middle).unwrap();
    assert_eq!(log.appender.appended(), middle.end);
}

#[test]
fn what_is_durable_settles_by_itself_on_a_single_node_and_by_the_caller_in_a_group() {
    let single = LogConfig { settles: Settles::WithDurable, ..replica() };
    for (config, by_itself) in [(single, true), (replica(), false)] {
        let mut run = Run::with(SimDisk::new(Image::new()), &config, Rng::new(1));
        for _ in 0..4 {
            run.append(EntryKind::Records, 300).unwrap();
        }
        let (first, end) = (run.submitted[0].checkpoint, run.log.appender.appended());
        run.log.appender.settle(end);
        assert!(run.log.reader.settled().0 <= SEGMENT_HEADER_LEN, "nothing is durable yet");
        run.settle();
        assert_eq!(run.log.appender.cut(&first).is_err(), by_itself);
        run.log.appender.settle(LogPosition::BEYOND);
        assert_eq!(run.log.reader.settled(), run.log.appender.appended());
    }
}

#[test]
fn a_segment_that_holds_what_may_be_cut_off_is_not_released() {
    let mut run = Run::with(SimDisk::new(Image::new()), &replica(), Rng::new(1));
    while run.log.appender.appended().0 < 3 * SEGMENT {
        run.append(EntryKind::Records, 700).unwrap();
    }
    run.settle();
    let housekeeping = run.log.appender.housekeeping();
    assert_eq!(housekeeping.release_before(LogPosition::BEYOND).unwrap().segments, 0);
    let in_second = run.submitted.iter().find(|submitted| submitted.entry.position.0 > SEGMENT).unwrap();
    run.log.appender.settle(in_second.entry.end);
    assert_eq!(housekeeping.release_before(LogPosition::BEYOND).unwrap().start.0, SEGMENT);
}

#[test]
fn a_noted_cut_that_cannot_be_one_of_this_log_is_refused_and_nothing_changes() {
    let mut run = some_log(8);
    run.settle();
    let (first, later) = (run.submitted[0].checkpoint, run.submitted.last().unwrap().checkpoint);
    let note = UnfinishedCut { to: first.end, end: run.log.appender.appended() };
    let image = run.log.disk.image();
    let missing = {
        let mut image = image.clone();
        image.remove(&file_name(0));
        image
    };
    let inside_header = UnfinishedCut { to: LogPosition(SEGMENT + 64), ..note };
    for (image, config) in [
        (&image, LogConfig { checkpoint: Some(later), ..noted(note) }),
        (&image, LogConfig { settles: Settles::ByCaller { from: later.end }, ..noted(note) }),
        (&image, noted(UnfinishedCut { to: LogPosition(0), ..note })),
        (&image, noted(inside_header)),
        (&missing, noted(note)),
    ] {
        let disk = SimDisk::new(image.clone());
        let error = open_disk(disk.clone(), &config).map(|opened| opened.recovery).unwrap_err();
        let expected = matches!(error, OpenError::UnfinishedCut { .. } | OpenError::SegmentMissing { .. });
        assert!(expected && disk.events() == 0, "{error}");
    }
    // A log that ends before the cut has nothing to cut off.
    let beyond = UnfinishedCut { to: LogPosition(9 * SEGMENT + 8192), end: LogPosition(10 * SEGMENT) };
    let opened = open_disk(SimDisk::new(image), &noted(beyond)).unwrap();
    assert_eq!(opened.entries, entries(&run));
}

/// What was noted to be durable before the cut counts no more above it.
#[test]
fn a_position_known_durable_above_a_noted_cut_is_no_damage() {
    let mut run = some_log(10);
    run.settle();
    let note = UnfinishedCut { to: run.submitted[4].entry.end, end: run.log.appender.appended() };
    let config = LogConfig { known_durable: note.end, ..noted(note) };
    let opened = open_disk(SimDisk::new(run.log.disk.image()), &config).unwrap();
    assert_eq!(opened.entries, entries(&run)[..5]);
    let damaged = LogConfig { unfinished_cut: None, ..config };
    let error = open_disk(opened.disk.clone(), &damaged).map(|opened| opened.recovery).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn whatever_fails_during_a_cut_ends_the_log_and_the_next_start_finishes_it() {
    for (fault, operation) in [
        (SimFault::WriteOfZeros, Operation::Write),
        (SimFault::Sync, Operation::Sync),
        (SimFault::Remove, Operation::Remove),
        (SimFault::SyncDirectory, Operation::Remove),
    ] {
        let mut run = some_log(4);
        run.settle();
        let expected = entries(&run)[..3].to_vec();
        let note = UnfinishedCut { to: expected[2].end, end: run.log.appender.appended() };
        run.log.disk.inject(fault);
        let error = run.log.appender.cut(&run.submitted[2].checkpoint).unwrap_err();
        let CutError::Poisoned(report) = &error else { panic!("{error}") };
        assert_eq!(report.operation, operation, "{error}");
        assert!(run.append(EntryKind::Records, 10).is_err());
        assert!(matches!(run.log.appender.cut(&run.submitted[1].checkpoint), Err(CutError::Poisoned(_))));
        let opened = open_disk(run.log.disk.fork(run.log.disk.events()), &noted(note)).unwrap();
        assert_eq!(opened.entries, expected);
        nothing_is_left(&opened.disk.image(), note);
    }
}

#[test]
fn a_cut_that_lacks_descriptors_changes_nothing_and_is_tried_again() {
    let mut run = some_log(6);
    run.settle();
    let (events, end) = (run.log.disk.events(), run.log.appender.appended());
    run.log.disk.inject(SimFault::Descriptors);
    let error = run.log.appender.cut(&run.submitted[2].checkpoint).unwrap_err();
    assert!(matches!(error, CutError::Short { shortage: Shortage::Descriptors, .. }), "{error}");
    assert_eq!((run.log.disk.events(), run.log.appender.appended()), (events, end));
    run.log.disk.clear_faults();
    run.cut(3).unwrap();
}

/// A sync began before the cut and ends after it, when other entries lie where those lay that it was of.
pub(super) fn sync_of_before_counted() -> Option<String> {
    let mut run = Run::with(SimDisk::new(Image::new()), &replica(), Rng::new(1));
    for _ in 0..5 {
        run.append(EntryKind::Records, 500).unwrap();
    }
    run.step_sync(0); // begins
    run.cut(2).unwrap();
    for _ in 0..5 {
        run.append_in(3, EntryKind::Records, 500).unwrap();
    }
    let before = run.log.appender.durable();
    run.step_sync(0); // runs
    run.step_sync(0); // is counted
    let after = run.log.appender.durable();
    run.settle();
    (after != before).then(|| format!("{before} was durable, and {after} without a sync that began since"))
}

#[test]
fn a_sync_of_before_a_cut_does_not_count_after_it() {
    assert_eq!(sync_of_before_counted(), None);
}

/// Segments are cut off, and the log goes on over their positions: none of the files may come again.
pub(super) fn cut_segment_comes_again() -> Option<String> {
    let mut run = Run::with(SimDisk::new(Image::new()), &replica(), Rng::new(1));
    while run.log.appender.appended().0 < 3 * SEGMENT {
        run.append(EntryKind::Records, 700).unwrap();
    }
    run.settle();
    let creations = run.log.disk.creations();
    run.cut(5).unwrap();
    let spares = run.log.appender.housekeeping().usage().spare_bytes;
    while run.log.appender.appended().0 < 2 * SEGMENT {
        run.append_in(3, EntryKind::Records, 700).unwrap();
    }
    (spares > 0 || run.log.disk.creations() == creations).then(|| "a file that was cut off was used again".to_owned())
}

#[test]
fn no_segment_that_was_cut_off_is_used_again() {
    assert_eq!(cut_segment_comes_again(), None);
}

#[test]
fn a_running_log_is_cut_while_its_threads_sync_and_prepare() {
    let folder = tempfile::tempdir().unwrap();
    let config = LogConfig {
        segment_size: 4 << 20,
        zero_ahead: 1 << 20,
        marks_prove: false,
        settles: Settles::ByCaller { from: LogPosition(0) },
        ..LogConfig::new(folder.path(), [7; 16], 0)
    };
    let reports = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let on_durable = {
        let reports = reports.clone();
        Box::new(move |news| {
            if let Durable::Up { to } = news {
                reports.lock().unwrap().push(to)
            }
        })
    };
    let mut keep = |_: Entry| Ok::<_, std::io::Error>(());
    let (mut appender, reader, _) = crate::CommitLog::open(config.clone(), on_durable, &mut keep).unwrap();
    let mut rng = Rng::new(5);
    let mut there: Vec<(Checkpoint, u8)> = Vec::new();
    for round in 0..60u8 {
        for _ in 0..1 + rng.below(20) {
            let len = rng.below(400 << 10) as usize;
            let index = there.len() as u64 + 1;
            let header = crate::EntryHeader { term: round.into(), index, leader_time_ms: 0, kind: EntryKind::Records };
            there.push((appender.append(header, &[&vec![round; len]]).unwrap().checkpoint, round));
        }
        let kept = there.len() - rng.below(there.len().min(25) as u64) as usize;
        let last = there[kept - 1].0;
        appender.cut(&last).unwrap();
        there.truncate(kept);
        assert_eq!((appender.appended(), reader.end()), (last.end, last.end));
        assert!(appender.durable() <= last.end);
        // What is reported behind the cut is of the log behind it.
        assert!(reports.lock().unwrap().last().is_none_or(|to| *to <= last.end));
    }
    let end = appender.close().unwrap();
    let mut found = Vec::new();
    let mut keep = |entry: Entry| {
        assert!(entry.payload.iter().all(|byte| u64::from(*byte) == entry.term));
        found.push(entry.index);
        Ok::<_, std::io::Error>(())
    };
    let (_, _, recovery) = crate::CommitLog::open(config, Box::new(drop), &mut keep).unwrap();
    assert_eq!((recovery.end, recovery.cut), (end, None));
    assert!(found.iter().copied().eq(1..=there.len() as u64));
}
