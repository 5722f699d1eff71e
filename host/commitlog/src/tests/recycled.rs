//! Segments made of used files: their old bytes stay, and are never taken for anything.

use std::sync::Arc;

use super::driver::{Opened, Run, SEGMENT, config, open, open_disk, replica};
use super::release::{fill_to, full_segments};
use crate::disk::RealDisk;
use crate::format::{ENTRY_HEADER_LEN, checksum_seed};
use crate::horizon::{self, HORIZON_FILE};
use crate::log::open_on;
use crate::segment::{file_name, parse_file_name};
use crate::simulated::{Image, LOSSES, PowerLoss, Rng, SimDisk};
use crate::spares::spare_name;
use crate::threads::fill;
use crate::{EntryHeader, EntryKind, LogPosition, OpenError};

/// A log that goes on in files that were segments before, and ends inside one.
pub(super) fn in_used_files() -> Run {
    let mut run = full_segments(4);
    run.log.appender.housekeeping().release_before(LogPosition(3 * SEGMENT)).unwrap();
    while run.log.appender.appended().0 < 5 * SEGMENT + 5500 {
        run.append(EntryKind::Records, 900).unwrap();
        prepare(&run);
    }
    run.settle();
    run
}

/// What the filling thread does until all is prepared.
fn prepare(run: &Run) {
    while fill(&run.log.appender.space, run.log.appender.appended().0).unwrap_or_else(|_| panic!("filling fails")) {}
}

fn last_file(run: &Run) -> String {
    let end = run.log.appender.appended().0;
    file_name(end - end % SEGMENT)
}

/// Fills segments with entries of equal lengths, so that old ones lie exactly where new ones would, releases and
/// goes on in their files. Tells of entries that were never appended where they are found.
pub(super) fn stale_entries_served() -> Option<String> {
    let mut run = full_segments(3);
    run.log.appender.housekeeping().release_before(LogPosition(2 * SEGMENT)).unwrap();
    fill_to(&mut run, 4 * SEGMENT);
    let last = run.submitted.last().unwrap().entry.clone();
    // Retention took all but the recycled file, so that nothing tells which checksum it must continue with, and a
    // lost sector took its first entry.
    let image: Image = run.log.disk.image();
    let name = crate::segment::file_name(4 * SEGMENT);
    let mut bytes = image[&name].clone();
    let stale_from = (last.end.0 - 4 * SEGMENT) as usize;
    let stale = bytes[stale_from..].to_vec();
    bytes.truncate(4096);
    bytes.resize(stale_from, 0);
    bytes.extend(&stale);
    let first = (4096..bytes.len() - 64).step_by(8).find(|at| bytes[*at..at + 4] == *b"VLe\xC5")?;
    bytes.copy_within(first.., 4096);
    let found = open(Image::from([(name, bytes)])).ok()?.entries;
    (!found.is_empty()).then(|| format!("{} old entries were served", found.len()))
}

#[test]
fn old_entries_are_not_served_whatever_is_lost_before_them() {
    assert_eq!(stale_entries_served(), None);
}

#[test]
fn nothing_is_written_twice_in_a_used_file() {
    let ratio = |released: bool| {
        let mut run = full_segments(3);
        let (events, end) = (run.log.disk.events(), run.log.appender.appended().0);
        while run.log.appender.appended().0 < 20 * SEGMENT {
            for _ in 0..8 {
                run.append(EntryKind::Records, 1900).unwrap();
                prepare(&run);
            }
            run.settle();
            if released {
                run.log.appender.housekeeping().release_before(run.log.appender.durable()).unwrap();
            }
        }
        let appended = run.log.appender.appended().0 - end;
        run.log.disk.bytes_of_pages(events, HORIZON_FILE) as f64 / appended as f64
    };
    // A page that two groups share goes to the medium twice, and each segment's header once.
    let (new, used) = (ratio(false), ratio(true));
    assert!(new > 2.0 && used < 1.4, "new files: {new:.2}, used ones: {used:.2}");
}

#[test]
fn a_start_searches_up_to_the_horizon_and_without_one_everything() {
    let run = in_used_files();
    let (end, disk) = (run.log.appender.appended(), &run.log.disk);
    let image = disk.image();
    let seed = checksum_seed(&config().cluster_id, config().shard);
    let horizon = horizon::decode(seed, &image[HORIZON_FILE]).unwrap();
    assert!(horizon >= end.0 && horizon < 6 * SEGMENT, "{horizon}");
    let start = |image: Image| open(image).unwrap();
    let bounded = start(image.clone());
    assert_eq!(bounded.recovery.searched_bytes, horizon - end.0);
    let mut spoiled = image.clone();
    spoiled.get_mut(HORIZON_FILE).unwrap()[20] ^= 1;
    let mut missing = image.clone();
    missing.remove(HORIZON_FILE);
    // One that an older state of the folder left is below the end, and says nothing either.
    let mut old = image.clone();
    *old.get_mut(HORIZON_FILE).unwrap() = horizon::encode(seed, end.0 - 8);
    let mut of_another_log = image.clone();
    *of_another_log.get_mut(HORIZON_FILE).unwrap() = horizon::encode(seed + 1, end.0);
    for image in [spoiled, missing, old, of_another_log] {
        let all = start(image);
        assert_eq!(all.recovery.searched_bytes, 6 * SEGMENT - end.0);
        assert_eq!((all.entries, all.recovery.end), (bounded.entries.clone(), bounded.recovery.end));
        assert_eq!(all.recovery.cut, None);
    }
}

#[test]
fn a_horizon_that_was_read_but_never_synced_is_made_durable_before_it_counts() {
    let seed = checksum_seed(&config().cluster_id, config().shard);
    let says = |image: &Image| horizon::decode(seed, &image[HORIZON_FILE]).unwrap();
    let mut run = in_used_files();
    let disk = run.log.disk.clone();
    let (before, first) = (disk.events(), says(&disk.image()));
    while disk.image()[HORIZON_FILE] == disk.fork(before).image()[HORIZON_FILE] {
        run.append(EntryKind::Records, 900).unwrap();
        prepare(&run);
    }
    // The process is killed when the next one is written and not synced.
    let killed_at =
        (before..).find(|at| disk.fork(*at).image()[HORIZON_FILE] != disk.fork(before).image()[HORIZON_FILE]);
    let mut opened = open_disk(disk.fork(killed_at.unwrap()), &config()).unwrap();
    while opened.appender.appended().0 <= first {
        let header = EntryHeader { term: 9, index: 900, leader_time_ms: 0, kind: EntryKind::Records };
        opened.appender.append(header, &[&[9; 900]]).unwrap();
    }
    let (events, end) = (opened.disk.events(), opened.appender.appended().0);
    let lost = opened.disk.after_power_cut(events, PowerLoss::All, &mut Rng::new(1));
    assert!(says(&lost) >= end, "written to {end} under a horizon at {}", says(&lost));
}

/// A log in used files is cut off, across the end of a segment, and goes on in others: the horizon is not below what is
/// written then, though nobody raised it anew, and a start finds the end of the log by it.
#[test]
fn the_horizon_stays_where_it_is_when_the_log_is_cut_off() {
    let image = in_used_files().log.disk.image();
    let seed = checksum_seed(&config().cluster_id, config().shard);
    let says = |image: &Image| horizon::decode(seed, &image[HORIZON_FILE]).unwrap();
    let mut run = Run::with(SimDisk::new(image), &replica(), Rng::new(9));
    let kept = run.submitted.len();
    fill_to(&mut run, 7 * SEGMENT);
    let before = says(&run.log.disk.image());
    // Another two segments are released, so that there are used files for the next ones.
    run.log.appender.settle(run.submitted[kept - 1].entry.end);
    run.log.appender.housekeeping().release_before(run.log.appender.durable()).unwrap();
    run.cut(kept).unwrap();
    assert_eq!(says(&run.log.disk.image()), before);
    let (mut rng, mut used) = (Rng::new(1), 0);
    while run.log.appender.appended().0 < 8 * SEGMENT {
        run.append_in(4, EntryKind::Records, 900).unwrap();
        prepare(&run);
        run.step_sync(0);
        let (events, end) = (run.log.disk.events(), run.log.appender.appended().0);
        let lost = run.log.disk.after_power_cut(events, PowerLoss::All, &mut rng);
        let in_used_file = lost[&last_file(&run)][8] == 2;
        used += u32::from(in_used_file);
        assert!(!in_used_file || says(&lost) >= end, "written to {end} under a horizon at {}", says(&lost));
        let opened = open_disk(SimDisk::new(lost), &replica()).unwrap();
        let start = opened.recovery.start;
        let wanted: Vec<_> = run.submitted.iter().filter(|one| one.entry.position >= start).collect();
        let same = opened.entries.iter().zip(&wanted).all(|(found, wanted)| *found == wanted.entry);
        let durable = wanted.iter().filter(|one| one.entry.end <= run.log.appender.durable()).count();
        assert!(same && opened.entries.len() >= durable && opened.entries.len() <= wanted.len());
    }
    assert!(used > 20, "{used}");
}

/// A group that was kept behind a lost one lies among old bytes: it is found and erased, wherever the horizon is.
#[test]
fn a_kept_group_among_old_bytes_is_cut() {
    let mut run = in_used_files();
    let kept = run.log.appender.appended();
    let before = run.submitted.len();
    for _ in 0..3 {
        run.append(EntryKind::Records, 1500).unwrap();
    }
    let image = run.log.disk.image();
    let name = last_file(&run);
    for horizon in [true, false] {
        let mut image = image.clone();
        let lost = (run.submitted[before].entry.position.0 % SEGMENT) as usize;
        image.get_mut(&name).unwrap()[lost..lost + 64].fill(7);
        if !horizon {
            image.remove(HORIZON_FILE);
        }
        let opened = open(image).unwrap();
        let cut = opened.recovery.cut.clone().unwrap();
        assert_eq!((cut.at, cut.at.0 + cut.bytes), (kept, run.log.appender.appended().0));
        let bytes = &opened.disk.image()[&name];
        let end = (run.log.appender.appended().0 % SEGMENT) as usize;
        assert!(bytes[lost..end].iter().all(|byte| *byte == 0), "nothing of it can come back");
        assert_eq!(open(opened.disk.image()).unwrap().recovery.cut, None);
    }
}

/// Damage in the segment that is written on is told from its end, although old bytes lie behind.
#[test]
fn damage_before_old_bytes_is_refused() {
    let run = in_used_files();
    let damaged = run.submitted[run.submitted.len() - 2].entry.position;
    let name = last_file(&run);
    let mut image = run.close();
    image.get_mut(&name).unwrap()[(damaged.0 % SEGMENT) as usize + 70] ^= 1;
    let error = open(image).map(|opened| opened.recovery).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { position, .. } if position == damaged), "{error}");
}

#[test]
fn a_flipped_bit_is_refused_below_the_mark_and_changes_nothing_among_old_bytes_or_in_the_horizon() {
    let run = in_used_files();
    let image = run.close();
    let whole = open(image.clone()).unwrap();
    let end = whole.recovery.end.0;
    for (name, bytes) in &image {
        let start = parse_file_name(name);
        for offset in (0..bytes.len()).step_by(61) {
            let mut image = image.clone();
            image.get_mut(name).unwrap()[offset] ^= 1 << (offset % 8);
            let position = start.map(|start| start + offset as u64);
            // The closing mark covers what is before it and nothing covers it.
            let covered = position.is_some_and(|position| position < end - ENTRY_HEADER_LEN);
            match open(image) {
                Ok(opened) if !covered && position.is_none_or(|position| position >= end) => {
                    assert_eq!(opened.entries, whole.entries, "{name}, {offset}");
                    assert_eq!(opened.recovery.cut, None, "{name}, {offset}");
                }
                Ok(opened) => assert!(!covered && opened.entries.len() + 1 == whole.entries.len(), "{name}, {offset}"),
                Err(error) => assert!(covered, "{name}, {offset}: {error}"),
            }
        }
    }
}

/// Files of a log are put back to an earlier state, but the spare files of a later one are still there: they hold
/// sound entries of the positions that come next. Tells what goes wrong.
pub(super) fn put_back_beside_spares_from_ahead() -> Result<(), String> {
    let early = full_segments(2).log.disk.image();
    let mut put_back = early;
    let late = full_segments(5).log.disk.image();
    put_back.insert(spare_name(3 * SEGMENT), late[&file_name(3 * SEGMENT)].clone());
    let mut run = Run::new(put_back, Rng::new(2));
    while run.log.appender.appended().0 < 3 * SEGMENT + 6000 {
        run.append(EntryKind::Records, 500).unwrap();
    }
    run.settle();
    let expected = run.submitted.len();
    match open(run.log.disk.image()) {
        Ok(Opened { entries, recovery, .. }) if entries.len() == expected && recovery.cut.is_none() => Ok(()),
        Ok(Opened { entries, recovery, .. }) => {
            Err(format!("{} entries instead of {expected}, cut: {:?}", entries.len(), recovery.cut))
        }
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn spare_files_that_were_above_the_log_are_not_used() {
    assert_eq!(put_back_beside_spares_from_ahead(), Ok(()));
}

#[test]
fn a_power_cut_while_a_used_file_becomes_a_segment_leaves_one_or_the_other() {
    let mut run = full_segments(4);
    run.log.appender.housekeeping().release_before(LogPosition(3 * SEGMENT)).unwrap();
    let before = run.log.disk.events();
    fill_to(&mut run, 5 * SEGMENT);
    let entries: Vec<_> = run.submitted.iter().map(|submitted| submitted.entry.clone()).collect();
    let mut rng = Rng::new(4);
    for at in before..run.log.disk.events() {
        for loss in LOSSES {
            let opened = open(run.log.disk.after_power_cut(at, loss, &mut rng));
            let opened = opened.unwrap_or_else(|error| panic!("event {at}, {loss:?}: {error}"));
            let skipped = entries.iter().take_while(|entry| entry.position < opened.recovery.start).count();
            assert!(entries[skipped..].starts_with(&opened.entries), "event {at}, {loss:?}");
        }
    }
}

/// On real files: many rounds through the same few files, looked at by a start after each.
#[test]
fn real_files_are_used_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::open(folder.path()).unwrap());
    let mut index = 0;
    for round in 1..=12 {
        let mut found = Vec::new();
        let mut keep = |entry: crate::Entry| {
            found.push(entry.index);
            Ok(())
        };
        let (mut appender, reader, recovery) = open_on(disk.clone(), &config(), Box::new(|_| ()), &mut keep).unwrap();
        assert!(recovery.cut.is_none() && recovery.last_index == index, "round {round}: {recovery:?}");
        assert!(found.iter().copied().eq(found.first().copied().unwrap_or(1)..=index), "round {round}");
        for _ in 0..20 {
            index += 1;
            let header = EntryHeader { term: 1, index, leader_time_ms: 0, kind: EntryKind::Records };
            let appended = appender.append(header, &[&[index as u8; 1200]]).unwrap();
            appender.sync_here().unwrap();
            while fill(&appender.space, appender.appended().0).unwrap_or_else(|_| panic!("filling fails")) {}
            appender.housekeeping().release_before(appended.position).unwrap();
        }
        assert!(reader.entries_from(reader.start()).all(|entry| entry.is_ok()));
    }
    assert!(folder.path().join(HORIZON_FILE).exists());
    assert!(std::fs::read_dir(folder.path()).unwrap().count() <= 6);
}
