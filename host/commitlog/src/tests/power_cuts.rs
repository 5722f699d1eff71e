//! The promise of the log (S5.a): whatever a power cut does, everything that was reported durable is there, nothing
//! is invented, nothing changes places, and recovery says the same when the power is cut again while it works.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::driver::{Opened, Run, Submitted, config, open, open_disk, replica};
use super::recycled;
use crate::format::{ENTRY_HEADER_LEN, StoredHeader, checksum_seed};
use crate::segment::file_name;
use crate::simulated::{Image, LOSSES, PowerLoss, Rng, SimDisk};
use crate::{EntryKind, LogConfig, LogPosition, OpenError};

/// Distinct cut points of a normal test run. `VOUCH_POWER_CUTS` asks for more, `VOUCH_SEED` for another seed.
const CUTS: u64 = 10_000;
const CUTS_PER_RUN: u64 = 40;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// What the log had said when the power was cut.
#[derive(Clone, Copy)]
struct Said {
    /// Events that had happened.
    events: usize,
    /// Reported durable up to here.
    durable: u64,
    /// Released up to here for certain, and up to here at most.
    released: (u64, u64),
}

impl Said {
    /// What it had opened with was durable.
    fn within(run: &Run, events: usize) -> Self {
        let (Opened { disk, recovery, .. }, released) = (&run.log, run.log.disk.released(events));
        let start = recovery.start.0;
        let cut = run.cuts.iter().filter(|cut| cut.began <= events).map(|cut| cut.note.to.0).min();
        Self {
            events,
            durable: disk.reported(events).max(recovery.end.0.min(cut.unwrap_or(u64::MAX))),
            released: (released.0.max(start), released.1.max(start)),
        }
    }
}

/// What is left of them in a log that begins at `start`.
fn left(submitted: &[Submitted], start: LogPosition) -> &[Submitted] {
    &submitted[submitted.iter().take_while(|submitted| submitted.entry.position < start).count()..]
}

/// What must hold of the entries of a recovered log.
fn check(submitted: &[Submitted], said: Said, opened: &Result<Opened, OpenError>) -> Result<(), String> {
    let opened = opened.as_ref().map_err(|error| format!("it does not open: {error}"))?;
    let (start, found) = (opened.recovery.start, &opened.entries);
    if !(said.released.0..=said.released.1).contains(&start.0) {
        return Err(format!("it starts at {start}, released to {:?}", said.released));
    }
    let submitted = left(submitted, start);
    for (number, entry) in found.iter().enumerate() {
        match submitted.get(number) {
            Some(original) if original.entry != *entry => return Err(format!("entry {number} differs: {entry:?}")),
            Some(original) if original.written_at > said.events => {
                return Err(format!("entry {number} is from the future"));
            }
            Some(_) => {}
            None => return Err(format!("entry {number} was invented: {entry:?}")),
        }
    }
    match submitted.get(found.len()) {
        Some(lost) if lost.entry.end.0 <= said.durable => {
            Err(format!("lost {:?}, reported durable to {}", lost.entry, said.durable))
        }
        _ => Ok(()),
    }
}

/// One power cut and what follows: a second cut during recovery, and more entries after it.
fn cut_once(run: &Run, at: usize, loss: PowerLoss, rng: &mut Rng) -> Result<(), String> {
    let said = Said::within(run, at);
    let (history, note) = run.history(at);
    // A replica notes now and then how far it is durable; the log of a single node is not told.
    let knows = !run.config.marks_prove && at >= run.opened_at;
    let known_durable = if knows { rng.below(said.durable + 1) } else { 0 };
    let noted = LogConfig { known_durable: LogPosition(known_durable), ..run.config.clone() };
    let config = LogConfig { unfinished_cut: note, ..noted.clone() };
    // Now and then only the process dies, and the power later: then all is there that was written.
    let killed = rng.chance(3);
    let disk = match killed {
        true => run.log.disk.fork(at),
        false => SimDisk::new(run.log.disk.after_power_cut(at, loss, rng)),
    };
    let before = disk.events();
    let found = disk.fork(before);
    let opened = open_disk(disk, &config);
    check(history, said, &opened)?;
    let opened = opened.map_err(|error| error.to_string())?;
    let submitted = left(history, opened.recovery.start);
    let written = submitted.iter().filter(|submitted| submitted.written_at <= at).count();
    if killed && opened.entries.len() != written {
        return Err(format!("{written} entries were written, {} are there after a kill", opened.entries.len()));
    }
    if killed && opened.recovery.cut.is_some() {
        return Err(format!("nothing was torn, but {:?} was cut", opened.recovery.cut));
    }
    let disk = &opened.disk;
    nothing_is_left_behind_the_end(submitted, &opened)?;
    nothing_that_was_cut_off_is_left(run, &opened)?;
    start_behind_a_checkpoint(submitted, &opened, &found, (said, &config), rng)?;

    // The power is cut again somewhere in the recovery, or right after it.
    let again_at = before + rng.below((disk.events() - before) as u64 + 1) as usize;
    let image = disk.after_power_cut(again_at, LOSSES[rng.below(4) as usize], rng);
    let again = open_disk(SimDisk::new(image), &config);
    check(history, said, &again).map_err(|error| format!("second cut: {error}"))?;
    let image = disk.after_power_cut(disk.events(), PowerLoss::All, rng);
    let kept = open_disk(SimDisk::new(image), &noted).map_err(|error| error.to_string())?;
    if kept.entries != opened.entries {
        return Err(format!("served {} entries, {} are left", opened.entries.len(), kept.entries.len()));
    }
    if kept.recovery.cut.is_some() {
        return Err("what was cut came back".to_owned());
    }
    go_on(opened, submitted, &noted, rng)
}

/// The same of what others wrote, and a cut took away.
fn nothing_that_was_cut_off_is_left(run: &Run, opened: &Opened) -> Result<(), String> {
    let seed = checksum_seed(&config().cluster_id, config().shard);
    let cut_off = run.cuts.iter().flat_map(|cut| &cut.before).chain(&run.submitted);
    for position in cut_off.map(|submitted| submitted.entry.position.0) {
        let offset = position % config().segment_size;
        let header = opened.disk.bytes_at(&file_name(position - offset), offset, ENTRY_HEADER_LEN as usize);
        let header: Option<[u8; ENTRY_HEADER_LEN as usize]> = header.and_then(|header| header.try_into().ok());
        let sound = header.is_some_and(|header| StoredHeader::decode(seed, &header, position).is_ok());
        if sound && position >= opened.recovery.end.0 {
            return Err(format!("a header at {position} is left, the log ends at {}", opened.recovery.end));
        }
    }
    Ok(())
}

/// Nothing that was written behind the end may join the log again when what was lost before it is appended again.
pub(super) fn nothing_is_left_behind_the_end(submitted: &[Submitted], opened: &Opened) -> Result<(), String> {
    let seed = checksum_seed(&config().cluster_id, config().shard);
    for position in submitted.iter().map(|submitted| submitted.entry.position.0) {
        let offset = position % config().segment_size;
        let header = opened.disk.bytes_at(&file_name(position - offset), offset, ENTRY_HEADER_LEN as usize);
        let sound = header.is_some_and(|header| {
            header.first_chunk().is_some_and(|header| StoredHeader::decode(seed, header, position).is_ok())
        });
        if sound != (position < opened.recovery.end.0) {
            return Err(format!("the header at {position}: {sound}, the log ends at {}", opened.recovery.end));
        }
    }
    Ok(())
}

/// A snapshot that ends with any entry that was reported durable: the same files open behind it, to the same end, and
/// what is served then survives the next power cut.
fn start_behind_a_checkpoint(
    submitted: &[Submitted],
    whole: &Opened,
    found: &SimDisk,
    (said, config): (Said, &LogConfig),
    rng: &mut Rng,
) -> Result<(), String> {
    let durable = submitted.iter().filter(|submitted| submitted.entry.end.0 <= said.durable).count();
    if durable == 0 {
        return Ok(());
    }
    let covered = rng.below(durable as u64) as usize;
    let checkpoint = submitted[covered].checkpoint;
    let behind = LogConfig { checkpoint: Some(checkpoint), ..config.clone() };
    let part = open_disk(found.fork(found.events()), &behind).map_err(|error| format!("{checkpoint}: {error}"))?;
    let same = part.entries == whole.entries[covered + 1..] && part.recovery.end == whole.recovery.end;
    if !same || part.recovery.checkpoint != whole.recovery.checkpoint || part.recovery.cut != whole.recovery.cut {
        return Err(format!("behind {checkpoint}: {:?} instead of {:?}", part.recovery, whole.recovery));
    }
    let image = part.disk.after_power_cut(part.disk.events(), PowerLoss::All, rng);
    let kept = open_disk(SimDisk::new(image), config).map_err(|error| error.to_string())?;
    match kept.entries == whole.entries {
        true => Ok(()),
        false => {
            Err(format!("behind {checkpoint}: {} of {} entries are left", kept.entries.len(), whole.entries.len()))
        }
    }
}

/// The recovered log takes the lost entry again, byte for byte: what followed it before must not come back.
fn go_on(opened: Opened, before: &[Submitted], config: &LogConfig, rng: &mut Rng) -> Result<(), String> {
    let Opened { disk, entries, recovery, .. } = opened;
    let start = recovery.start;
    let image = disk.after_power_cut(disk.events(), LOSSES[rng.below(4) as usize], rng);
    let mut run = Run::with(SimDisk::new(image), config, rng.clone());
    if run.submitted.len() != entries.len() {
        return Err(format!("{} entries were there, now {}", entries.len(), run.submitted.len()));
    }
    for lost in before.iter().skip(entries.len()).take(1 + rng.below(2) as usize) {
        run.append(lost.entry.kind, lost.entry.payload.len()).map_err(|error| error.to_string())?;
    }
    let at = run.log.disk.events();
    for _ in 0..rng.below(4) {
        run.step_sync(0);
    }
    let end = run.log.disk.events();
    for at in [at, end] {
        let image = run.log.disk.after_power_cut(at, LOSSES[rng.below(4) as usize], rng);
        let opened = open_disk(SimDisk::new(image), config);
        let said = Said { released: (start.0, start.0), ..Said::within(&run, at) };
        check(&run.submitted, said, &opened).map_err(|error| format!("going on: {error}"))?;
    }
    Ok(())
}

/// Runs a log for a while and cuts its power at many places. Gives the first violation.
pub(super) fn violation(seed: u64) -> Option<String> {
    let mut rng = Rng::new(seed);
    // Every other log is in files that were segments before.
    let image = if seed.is_multiple_of(2) { Image::new() } else { recycled::in_used_files().log.disk.image() };
    // Every third is a replica's, which others write to and which may have to cut off what they wrote.
    let in_group = seed.is_multiple_of(3);
    let config = if in_group { replica() } else { config() };
    let mut run = Run::with(SimDisk::new(image), &config, Rng::new(rng.next()));
    let ran = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..40 + rng.below(120) {
            if in_group { run.step_of_a_replica() } else { run.step().unwrap() }
        }
    }));
    if ran.is_err() {
        return Some(format!("seed {seed}: panicked while it ran"));
    }
    let events = run.log.disk.events() as u64;
    for number in 0..CUTS_PER_RUN {
        let at = rng.below(events + 1) as usize;
        let loss = LOSSES[(number % 4) as usize];
        let outcome = catch_unwind(AssertUnwindSafe(|| cut_once(&run, at, loss, &mut rng)));
        let outcome = outcome.unwrap_or_else(|_| Err("panicked".to_owned()));
        if let Err(error) = outcome {
            return Some(format!("seed {seed}, cut {number} after event {at} of {events}, {loss:?}: {error}"));
        }
    }
    None
}

#[test]
fn acked_entries_survive_any_power_cut() {
    let seed = setting("VOUCH_SEED").unwrap_or(0x5EED);
    let cuts = setting("VOUCH_POWER_CUTS").unwrap_or(CUTS);
    println!("seed {seed}, {cuts} power cuts");
    for number in 0..cuts.div_ceil(CUTS_PER_RUN) {
        if let Some(violation) = violation(seed.wrapping_add(number)) {
            panic!("{violation}");
        }
    }
}

#[test]
fn a_lost_group_before_a_kept_one_is_cut_with_it() {
    let mut run = Run::new(Image::new(), Rng::new(1));
    run.append(EntryKind::Records, 100).unwrap();
    run.settle();
    let kept = run.log.appender.appended();
    for _ in 0..2 {
        run.append(EntryKind::Records, 3000).unwrap();
    }
    let disk = &run.log.disk;
    let mut image = disk.image();
    let first = run.submitted[1].entry.position.0 as usize;
    let last = run.submitted[2].entry.clone();
    image.values_mut().next().unwrap()[first..first + 3000].fill(0);
    let opened = open(image).unwrap();
    assert_eq!(opened.entries.len(), 1);
    assert_eq!(opened.recovery.end, kept);
    let cut = opened.recovery.cut.unwrap();
    assert_eq!((cut.at, LogPosition(cut.at.0 + cut.bytes)), (kept, LogPosition(last.payload_position.0 + 3000)));
    let bytes = &opened.disk.image()["00000000000000000000.log"];
    assert!(bytes[kept.0 as usize..].iter().all(|byte| *byte == 0), "the cut removes the kept group, too");
}
