//! A full disk: what is still taken is known beforehand, and space is found again without a restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::driver::{Run, SEGMENT, config, open};
use crate::format::{ENTRY_HEADER_LEN, padded};
use crate::log::open_on;
use crate::preallocate::{Step, shortage};
use crate::simulated::{Image, Rng, SimDisk, SimFault};
use crate::{AppendError, EntryHeader, EntryKind, Shortage};

/// Prepares all that should be ahead; whether there was space for it.
fn fill_up(run: &Run) -> bool {
    let space = &run.log.appender.space;
    loop {
        match space.step(run.log.appender.appended().0) {
            Ok(Step::Enough) => return true,
            Ok(_) => {}
            Err(failure) if shortage(&failure).is_some() => return false,
            Err(failure) => panic!("{}", failure.cause),
        }
    }
}

/// A log that is somewhere in its second or third segment, with all prepared that should be.
fn somewhere(seed: u64) -> Run {
    let mut run = Run::new(Image::new(), Rng::new(seed));
    let until = SEGMENT + run.rng.below(SEGMENT);
    while run.log.appender.appended().0 < until {
        let len = run.length();
        run.append(EntryKind::Records, len).unwrap();
        // A filler that keeps up, one that does not, and one in between.
        match seed % 3 {
            0 => assert!(fill_up(&run)),
            1 if run.rng.chance(2) => run.fill(),
            _ => {}
        }
    }
    run
}

/// Bytes of the log that an entry takes.
fn taken(payload_len: u64) -> u64 {
    ENTRY_HEADER_LEN + padded(payload_len)
}

/// Runs into a full disk or another shortage and appends what the log says it still takes. Gives the first promise that was not kept, and
/// the largest that was made.
fn a_promise_broken(seed: u64, fault: SimFault) -> (Option<String>, u64) {
    let mut run = somewhere(seed);
    run.log.disk.inject(fault);
    let mut left = loop {
        let len = run.length();
        let appended = run.append(EntryKind::Records, len);
        fill_up(&run);
        match (appended, run.log.appender.short_of_space()) {
            (_, Some(left)) => break left,
            (Ok(()), None) => {}
            // All that should be ahead is, but not enough for an entry as long as this.
            (Err(_), None) if taken(len as u64) > config().zero_ahead / 2 => {}
            (Err(error), None) => return (Some(format!("seed {seed}: {error}, but it is not short")), 0),
        }
    };
    let promised = left;
    while left >= ENTRY_HEADER_LEN {
        let room = (left - ENTRY_HEADER_LEN) / 8 * 8;
        let len = if run.rng.chance(4) { room } else { run.rng.below(room + 1) };
        if let Err(error) = run.append(EntryKind::Records, len as usize) {
            return (Some(format!("seed {seed}: {error}, though {left} of {promised} bytes were left")), promised);
        }
        left -= taken(len);
        match run.log.appender.short_of_space() {
            Some(now) if now >= left => {}
            now => return (Some(format!("seed {seed}: {now:?}, though {left} bytes must be left")), promised),
        }
    }
    (None, promised)
}

#[test]
fn a_full_disk_takes_as_much_as_the_log_says_and_so_does_any_other_shortage() {
    println!("seeds 0 to 600");
    let mut largest = 0;
    for seed in 0..600 {
        for fault in [SimFault::NoSpace, SimFault::Descriptors, SimFault::Memory] {
            let (broken, promised) = a_promise_broken(seed, fault);
            assert_eq!(broken, None, "{fault:?}");
            largest = largest.max(promised);
        }
    }
    assert!(largest >= 7 << 9, "seven eighths of 4 KiB, not {largest}");
}

#[test]
fn as_much_as_configured_is_prepared_at_every_place_also_across_the_end_of_a_segment() {
    for entries in 0..50 {
        let mut run = Run::new(Image::new(), Rng::new(1));
        for _ in 0..entries {
            run.append(EntryKind::Records, 700).unwrap();
            assert!(fill_up(&run));
        }
        assert!(fill_up(&run));
        run.log.disk.inject(SimFault::NoSpace);
        // Without the place of an entry that may not fit at the end of a segment.
        let mut left = config().zero_ahead - taken(200);
        while left >= taken(200) {
            run.append(EntryKind::Records, 200).unwrap_or_else(|error| panic!("behind {entries}: {error}"));
            left -= taken(200);
        }
    }
}

#[test]
fn entries_are_refused_only_behind_what_was_promised_and_taken_again_when_there_is_space() {
    let mut run = somewhere(0);
    assert_eq!(run.log.appender.short_of_space(), None);
    run.log.disk.inject(SimFault::NoSpace);
    let refused = loop {
        if let Err(error) = run.append(EntryKind::Records, 500) {
            break error;
        }
    };
    assert!(matches!(refused, AppendError::Short { shortage: Shortage::Space, .. }), "{refused}");
    assert!(run.log.appender.short_of_space().is_some_and(|left| left < taken(500)));
    assert!(!fill_up(&run) && run.log.appender.short_of_space().is_some());
    run.log.disk.clear_faults();
    run.fill();
    assert!(run.log.appender.short_of_space().is_some(), "one step succeeded, but not all is prepared again");
    assert!(fill_up(&run));
    assert_eq!(run.log.appender.short_of_space(), None);
    run.append(EntryKind::Records, 500).unwrap();
    run.settle();
    let entries: Vec<_> = run.submitted.iter().map(|submitted| submitted.entry.clone()).collect();
    assert_eq!(open(run.close()).unwrap().entries[..entries.len()], entries);
}

/// At the end of a segment, too: no filler is written for an entry that is not.
#[test]
fn an_entry_that_is_refused_leaves_nothing_behind() {
    let mut refused_at_an_end = 0;
    for seed in 0..200 {
        let mut run = somewhere(seed);
        run.log.disk.inject([SimFault::NoSpace, SimFault::Descriptors, SimFault::Memory][(seed % 3) as usize]);
        let (end, image) = loop {
            let before = (run.log.appender.appended(), run.log.disk.image());
            let len = run.length();
            if run.append(EntryKind::Records, len).is_err() {
                let left = SEGMENT - before.0.0 % SEGMENT;
                refused_at_an_end += u32::from(left < taken(len as u64) && left < SEGMENT);
                break before;
            }
        };
        assert_eq!(run.log.appender.appended(), end, "seed {seed}");
        let now = run.log.disk.image();
        assert!(image.iter().all(|(name, bytes)| now[name] == *bytes), "seed {seed}");
    }
    assert!(refused_at_an_end > 20, "{refused_at_an_end}");
}

#[test]
fn the_thread_finds_new_space_without_an_append() {
    let disk = SimDisk::new(Image::new());
    let (mut appender, _, _) = open_on(Arc::new(disk.clone()), &config(), Box::new(|_| ()), &mut |_| Ok(())).unwrap();
    disk.inject(SimFault::NoSpace);
    appender.start(1).unwrap();
    let waiting_since = Instant::now();
    let in_time = || assert!(waiting_since.elapsed() < Duration::from_secs(60), "the thread does not look");
    while appender.short_of_space().is_none() {
        in_time();
        std::thread::yield_now();
    }
    let header = EntryHeader { term: 1, index: 1, leader_time_ms: 0, kind: EntryKind::Records };
    disk.clear_faults();
    while appender.short_of_space().is_some() {
        in_time();
        std::thread::yield_now();
    }
    appender.append(header, &[&[7; 900]]).unwrap();
    appender.close().unwrap();
}

#[test]
fn an_entry_too_long_for_what_is_left_does_not_leave_the_log_short_for_ever() {
    let mut run = Run::new(Image::new(), Rng::new(1));
    assert!(fill_up(&run));
    assert!(run.log.appender.space.wait() && !run.log.appender.space.is_called(), "the call of the start is taken");
    run.log.disk.inject(SimFault::NoSpace);
    // Longer than all that is kept ahead, which is whole: nothing else would make the thread look.
    let refused = run.append(EntryKind::Records, 11 << 10).unwrap_err();
    assert!(matches!(refused, AppendError::Short { shortage: Shortage::Space, .. }), "{refused}");
    assert!(run.log.appender.short_of_space().is_some() && run.log.appender.space.is_called());
    assert!(fill_up(&run));
    assert_eq!(run.log.appender.short_of_space(), None);
}
