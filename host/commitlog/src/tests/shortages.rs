//! Shortages of other things than space: nothing is wrong with the disk, nothing ends for good, and all of it goes on by
//! itself when they pass.

use super::driver::{Run, config, open};
use crate::simulated::{Image, Rng, SimFault};
use crate::{AppendError, EntryKind, LogPosition, ReleaseError, Shortage};

const FAULTS: [(SimFault, Shortage); 3] = [
    (SimFault::NoSpace, Shortage::Space),
    (SimFault::Descriptors, Shortage::Descriptors),
    (SimFault::Memory, Shortage::Memory),
];

/// Runs a log in and out of shortages; what ended for good or was lost by it.
fn trouble(seed: u64) -> Option<String> {
    let mut rng = Rng::new(seed);
    let mut run = Run::new(Image::new(), Rng::new(rng.next()));
    for _ in 0..200 {
        if rng.chance(6) {
            run.log.disk.inject(FAULTS[rng.below(3) as usize].0);
        }
        if rng.chance(3) {
            run.log.disk.clear_faults();
        }
        let _ = run.step();
    }
    run.log.disk.clear_faults();
    if let Some(report) = run.log.appender.poisoned() {
        return Some(format!("seed {seed}: {report}"));
    }
    run.append(EntryKind::Records, 100).unwrap();
    run.settle();
    let housekeeping = run.log.appender.housekeeping();
    if let Err(error) = housekeeping.release_before(LogPosition(0)) {
        return Some(format!("seed {seed}: {error}"));
    }
    let files = run.log.disk.image().keys().filter(|name| name.ends_with(".spare")).count() as u64;
    let spares = housekeeping.usage().spare_bytes / config().segment_size;
    if files != spares {
        return Some(format!("seed {seed}: {files} spare files, of which {spares} are known"));
    }
    let start = run.log.reader.start();
    let submitted = run.submitted.iter().filter(|one| one.entry.position >= start);
    let entries: Vec<_> = submitted.map(|submitted| submitted.entry.clone()).collect();
    match open(run.close()) {
        Ok(opened) if opened.entries[..entries.len()] == entries => None,
        Ok(opened) => Some(format!("seed {seed}: {} entries of {}", opened.entries.len(), entries.len())),
        Err(error) => Some(format!("seed {seed}: {error}")),
    }
}

#[test]
fn no_shortage_ends_anything_for_good() {
    println!("seeds 0 to 1000");
    for seed in 0..1000 {
        assert_eq!(trouble(seed), None);
    }
}

#[test]
fn an_entry_that_is_refused_for_a_shortage_says_of_what_and_what_helps() {
    for (fault, shortage) in FAULTS {
        let mut run = Run::new(Image::new(), Rng::new(1));
        run.log.disk.inject(fault);
        let refused = loop {
            run.fill();
            if let Err(error) = run.append(EntryKind::Records, 3000) {
                break error;
            }
        };
        let named = matches!(&refused, AppendError::Short { shortage: found, .. } if *found == shortage);
        assert!(named && refused.to_string().contains(shortage.remedy()), "{refused}");
        run.fill();
        assert_eq!(run.log.appender.shortage(), Some(shortage));
        run.log.disk.clear_faults();
        run.append(EntryKind::Records, 3000).unwrap();
    }
}

/// A log with sealed segments that may be released.
fn sealed() -> Run {
    let mut run = Run::new(Image::new(), Rng::new(1));
    while run.log.appender.appended().0 < 3 * config().segment_size {
        run.append(EntryKind::Records, 3000).unwrap();
        run.settle();
    }
    run
}

#[test]
fn a_segment_that_cannot_be_removed_for_the_moment_goes_before_any_other() {
    let mut run = sealed();
    let housekeeping = run.log.appender.housekeeping();
    run.log.disk.inject(SimFault::Memory);
    let before = LogPosition(2 * config().segment_size);
    for _ in 0..2 {
        let refused = housekeeping.release_before(before).unwrap_err();
        assert!(matches!(refused, ReleaseError::Short { shortage: Shortage::Memory, .. }), "{refused}");
    }
    run.log.disk.clear_faults();
    assert_eq!(housekeeping.release_before(before).unwrap().segments, 2);
    run.append(EntryKind::Records, 100).unwrap();
    run.settle();
    let start = run.log.reader.start();
    assert_eq!(open(run.close()).unwrap().recovery.start, start);
}

#[test]
fn the_scrubber_reads_again_what_it_could_not_open_and_calls_it_no_damage() {
    let run = sealed();
    let mut scrubber = run.log.appender.housekeeping().scrubber(LogPosition(0));
    run.log.disk.inject(SimFault::Descriptors);
    for _ in 0..3 {
        let error = scrubber.step(1 << 20).unwrap_err();
        assert_eq!(Shortage::of(&error.source), Some(Shortage::Descriptors));
        assert_eq!(scrubber.position(), LogPosition(0));
    }
    run.log.disk.clear_faults();
    let mut entries = 0;
    loop {
        let step = scrubber.step(1 << 20).unwrap();
        assert_eq!(step.damage, []);
        entries += step.entries;
        if step.round_ended {
            break;
        }
    }
    assert!(entries > 2, "{entries}");
}
