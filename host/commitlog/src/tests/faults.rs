//! Failing disks (S5.f): the first failed write or sync ends the log, is reported once, and nothing after it counts.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::driver::{Run, Submitted, config, open, open_disk};
use crate::group_commit::Durable;
use crate::log::open_on;
use crate::segment::file_name;
use crate::simulated::{Image, LOSSES, PowerLoss, Rng, SimDisk, SimFault};
use crate::{AppendError, EntryHeader, EntryKind, LogConfig, Operation, Shortage};

/// Runs a log into a random fault and checks that whatever was reported durable is there after the power is cut.
pub(super) fn violation(seed: u64) -> Option<String> {
    let mut rng = Rng::new(seed);
    let mut run = Run::new(Image::new(), Rng::new(rng.next()));
    let fault_at = rng.below(60);
    for number in 0..120 {
        if number == fault_at {
            match rng.below(4) {
                0 => run.log.disk.inject(SimFault::Write),
                1 => run.log.disk.inject(SimFault::Sync),
                2 => run.log.disk.inject(SimFault::NewBlocks),
                _ => {
                    let end = run.log.appender.appended().0 - 1;
                    let name = file_name(end - end % config().segment_size);
                    run.log.disk.fail_writeback(&name);
                }
            }
        }
        let _ = run.step();
    }
    let at = run.log.disk.events();
    let reported = run.log.disk.reported(at);
    for loss in LOSSES {
        let opened = match open(run.log.disk.after_power_cut(at, loss, &mut rng)) {
            Ok(opened) => opened,
            Err(error) => return Some(format!("seed {seed}, {loss:?}: {error}")),
        };
        let found = &opened.entries;
        let submitted: Vec<_> =
            run.submitted.iter().filter(|one| one.entry.position >= opened.recovery.start).collect();
        let same = found.iter().zip(&submitted).all(|(found, submitted)| *found == submitted.entry);
        let whole = submitted.get(found.len()).is_none_or(|lost| lost.entry.end.0 > reported);
        // The entry whose write failed may be there or not, but nothing else that was not accepted.
        if !same || !whole || found.len() > submitted.len() + 1 {
            return Some(format!("seed {seed}, {loss:?}: {} entries, reported durable to {reported}", found.len()));
        }
    }
    // The process ends and starts again: what it then serves must be on the disk, though the page cache may hold, as
    // if clean, what the failed write-back lost.
    let start = run.log.reader.start();
    let covers = |one: &&Submitted| one.entry.position >= start && one.entry.end.0 <= reported;
    let durable: Vec<_> = run.submitted.iter().filter(covers).map(|submitted| submitted.checkpoint).collect();
    let checkpoint = rng.below(durable.len() as u64 + 1).checked_sub(1).map(|at| durable[at as usize]);
    let opened = match open_disk(run.log.disk.fork(at), &LogConfig { checkpoint, ..config() }) {
        Ok(opened) => opened,
        Err(error) => return Some(format!("seed {seed}, after a restart: {error}")),
    };
    let kept = opened.disk.after_power_cut(opened.disk.events(), PowerLoss::All, &mut rng);
    match open(kept) {
        // Behind a checkpoint fewer are handed over.
        Ok(kept) if kept.entries.ends_with(&opened.entries) && kept.recovery.end == opened.recovery.end => None,
        Ok(kept) => {
            Some(format!("seed {seed}: served {} entries, {} are left", opened.entries.len(), kept.entries.len()))
        }
        Err(error) => Some(format!("seed {seed}, after a restart and a power cut: {error}")),
    }
}

#[test]
fn nothing_is_acknowledged_after_a_fault() {
    println!("seeds 1000 to 2000");
    for seed in 1000..2000 {
        if let Some(violation) = violation(seed) {
            panic!("{violation}");
        }
    }
}

#[test]
fn a_failed_sync_refuses_every_later_append() {
    let mut run = Run::new(Image::new(), Rng::new(1));
    run.append(EntryKind::Records, 10).unwrap();
    run.settle();
    let durable = run.log.appender.durable();
    run.append(EntryKind::Records, 10).unwrap();
    run.log.disk.inject(SimFault::Sync);
    for _ in 0..3 {
        run.step_sync(0);
    }
    let syncs = run.log.disk.syncs();
    let error = run.append(EntryKind::Records, 10).unwrap_err();
    let AppendError::Poisoned(report) = &error else { panic!("{error}") };
    assert_eq!((report.operation, report.offset), (Operation::Sync, durable.0));
    assert!(error.to_string().contains("00000000000000000000.log"), "{error}");
    assert!(error.to_string().contains(&format!("offset {}", durable.0)), "{error}");
    for slot in [0, 1, 2, 0, 1, 2] {
        run.step_sync(slot);
    }
    assert_eq!(run.log.disk.syncs(), syncs, "no sync after a failed one");
    assert_eq!(run.log.appender.durable(), durable);
    assert!(run.log.appender.mark_due_in().is_none());
}

#[test]
fn a_success_does_not_count_after_an_overlapping_failure() {
    let mut run = Run::new(Image::new(), Rng::new(1));
    let before = run.log.appender.durable();
    run.append(EntryKind::Records, 10).unwrap();
    run.step_sync(0); // begins
    run.append(EntryKind::Records, 10).unwrap();
    run.step_sync(1); // begins
    run.step_sync(0); // runs, succeeds
    run.log.disk.inject(SimFault::Sync);
    run.step_sync(1); // runs, fails
    run.step_sync(1); // is counted first
    run.step_sync(0);
    assert_eq!(run.log.appender.durable(), before);
}

#[test]
fn a_failed_write_is_reported_once_by_the_threads() {
    for fault in [SimFault::Write, SimFault::Sync] {
        let disk = SimDisk::new(Image::new());
        let (send, reports) = channel();
        let on_durable = Box::new(move |news| drop(send.send(news)));
        let (mut appender, _, _) = open_on(Arc::new(disk.clone()), &config(), on_durable, &mut |_| Ok(())).unwrap();
        disk.inject(fault);
        appender.start(3).unwrap();
        let header = EntryHeader { term: 1, index: 1, leader_time_ms: 0, kind: EntryKind::Records };
        while appender.append(header, &[b"body"]).is_ok() {}
        let poisoned = loop {
            match reports.recv_timeout(Duration::from_secs(30)).expect("the failure is reported") {
                Durable::Poisoned(report) => break report,
                Durable::Up { .. } => {}
            }
        };
        assert!(poisoned.to_string().contains(".log at offset"), "{poisoned}");
        assert!(matches!(appender.append(header, &[b"body"]), Err(AppendError::Poisoned(_))));
        assert!(matches!(appender.close(), Err(AppendError::Poisoned(_))));
        assert!(reports.try_iter().next().is_none(), "nothing is reported after the failure");
    }
}

#[test]
fn a_full_disk_refuses_entries_and_goes_on_when_there_is_space() {
    let mut run = Run::new(Image::new(), Rng::new(1));
    run.append(EntryKind::Records, 100).unwrap();
    run.log.disk.inject(SimFault::NoSpace);
    let refused = loop {
        if let Err(error) = run.append(EntryKind::Records, 3000) {
            break error;
        }
    };
    assert!(matches!(refused, AppendError::Short { shortage: Shortage::Space, .. }), "{refused}");
    assert!(refused.to_string().contains("free some space"), "{refused}");
    run.log.disk.clear_faults();
    run.append(EntryKind::Records, 3000).unwrap();
    run.settle();
    let entries: Vec<_> = run.submitted.iter().map(|submitted| submitted.entry.clone()).collect();
    let opened = open(run.close()).unwrap();
    assert_eq!(opened.entries[..entries.len()], entries);
}

/// Where the appender and the filler both want the next segment, and it cannot be created, either may be the one to tell.
#[test]
fn a_segment_that_cannot_be_created_is_told_with_its_cause_however_often_it_is_tried() {
    let run = Run::new(Image::new(), Rng::new(1));
    run.log.disk.inject(SimFault::SyncDirectory);
    // What was begun cannot be taken away either.
    run.log.disk.inject(SimFault::Remove);
    let space = run.log.appender.space.clone();
    let first = loop {
        match space.step(config().segment_size) {
            Ok(_) => {}
            Err(failure) => break failure,
        }
    };
    let again = space.next().err().expect("it cannot be created");
    assert_eq!((first.segment, first.cause.raw_os_error()), (again.segment, again.cause.raw_os_error()));
}
