//! The scrubber finds what a disk lost, in small steps, and takes nothing else for damage.

use super::driver::{Run, SEGMENT};
use crate::segment::file_name;
use crate::simulated::{Image, Rng};
use crate::survey::window::READ_STEP;
use crate::{EntryKind, LogPosition, ScrubStep, Scrubber};

/// Five full segments and the beginning of a sixth.
fn log() -> Run {
    let mut run = Run::new(Image::new(), Rng::new(9));
    while run.log.appender.appended().0 < 5 * SEGMENT + 5000 {
        run.append(EntryKind::Records, 900).unwrap();
    }
    run.settle();
    run
}

fn scrubber(run: &Run) -> Scrubber {
    run.log.appender.housekeeping().scrubber(LogPosition(0))
}

/// One round in steps of so many bytes.
fn round(scrubber: &mut Scrubber, max_bytes: u64) -> ScrubStep {
    let mut all = ScrubStep::default();
    while !all.round_ended {
        let step = scrubber.step(max_bytes).unwrap();
        assert!(step.bytes_read <= max_bytes + READ_STEP as u64, "{step:?}");
        all.bytes_read += step.bytes_read;
        all.entries += step.entries;
        all.damage.extend(step.damage);
        all.round_ended = step.round_ended;
    }
    all
}

#[test]
fn a_round_reads_every_sealed_segment_once() {
    let run = log();
    let sealed = run.submitted.iter().filter(|one| one.entry.position.0 < 5 * SEGMENT).count() as u64;
    let mut scrubber = scrubber(&run);
    for max_bytes in [1, 5000, 1 << 20] {
        let found = round(&mut scrubber, max_bytes);
        // Fillers are verified, too, one at the end of most segments.
        assert!((sealed..=sealed + 5).contains(&found.entries), "{found:?}");
        assert_eq!((found.bytes_read, found.damage.len()), (5 * SEGMENT, 0));
    }
    assert_eq!(scrubber.step(0).unwrap(), ScrubStep::default());
}

#[test]
fn what_is_not_durable_or_still_written_is_left_alone() {
    let mut run = Run::new(Image::new(), Rng::new(9));
    let mut scrubber = scrubber(&run);
    assert!(scrubber.step(1 << 20).unwrap().round_ended);
    while run.log.appender.appended().0 < 2 * SEGMENT + 5000 {
        run.append(EntryKind::Records, 900).unwrap();
    }
    assert_eq!(round(&mut scrubber, 1 << 20).entries, 0, "nothing is durable");
    run.settle();
    assert_eq!(round(&mut scrubber, 1 << 20).bytes_read, 2 * SEGMENT);
}

#[test]
fn damage_is_named_with_what_lies_around_it() {
    let run = log();
    let flipped = &run.submitted[20].entry;
    let broken = &run.submitted[40].entry;
    let (inode, at) = ((flipped.position.0 / SEGMENT) as usize, flipped.payload_position.0 % SEGMENT);
    run.log.disk.flip(inode, at as usize + 7);
    let at = broken.position.0 % SEGMENT;
    let name = file_name(broken.position.0 - at);
    run.log.disk.break_sectors(&name, at + 100..at + 101);
    run.log.disk.flip(4, 77);
    let mut scrubber = scrubber(&run);
    for max_bytes in [1, 1 << 20] {
        let damage = round(&mut scrubber, max_bytes).damage;
        let [first, second, third] = &damage[..] else { panic!("{damage:#?}") };
        assert_eq!((first.from, first.to, first.headers), (flipped.position, flipped.end, 1));
        assert_eq!((first.index_before, first.index_after), (Some(20), Some(22)));
        assert!(first.to_string().contains("the payload does not match its checksum"), "{first}");
        assert!(second.from <= broken.position && second.to >= broken.end && second.file.ends_with(&name));
        assert!(second.reason.contains("Input/output error"), "{second}");
        assert_eq!((third.offset, third.length), (0, 4096));
        assert!(third.reason.contains("segment header"), "{third}");
    }
}

#[test]
fn segments_that_are_released_meanwhile_are_no_damage() {
    for steps in 0..60 {
        let mut run = log();
        let housekeeping = run.log.appender.housekeeping();
        let mut scrubber = scrubber(&run);
        let mut damage = Vec::new();
        // The simulated files are read 256 KiB at a time, so a segment is in memory after the first step in it.
        for _ in 0..steps {
            damage.extend(scrubber.step(1).unwrap().damage);
        }
        let released = housekeeping.release_before(LogPosition(3 * SEGMENT + 5000)).unwrap();
        assert_eq!(released.start.0, 3 * SEGMENT);
        // Files are used again, while the scrubber may still hold one of them.
        while run.log.appender.appended().0 < 8 * SEGMENT + 5000 {
            run.append(EntryKind::Records, 800).unwrap();
        }
        run.settle();
        damage.extend(round(&mut scrubber, 1).damage);
        damage.extend(round(&mut scrubber, 1 << 20).damage);
        assert!(damage.is_empty(), "after {steps} steps: {damage:#?}");
    }
}

#[test]
fn a_scrubber_goes_on_where_another_stopped() {
    let run = log();
    let housekeeping = run.log.appender.housekeeping();
    let mut first = scrubber(&run);
    while first.position() < LogPosition(3 * SEGMENT) {
        first.step(1).unwrap();
    }
    let mut second = housekeeping.scrubber(first.position());
    assert_eq!(round(&mut second, 1).bytes_read, 2 * SEGMENT);
    assert_eq!(second.position(), LogPosition(0));
}
