//! A look that changes nothing says what a start would say, and serves what is whole beside the damage.

use std::path::Path;
use std::sync::Arc;

use super::driver::{Run, SEGMENT, Submitted, config, open, open_disk, replica};
use crate::format::{ENTRY_HEADER_LEN, StoredHeader, checksum_seed};
use crate::read_only::open_read_only_on;
use crate::segment::file_name;
use crate::simulated::{Image, LOSSES, Rng, SimDisk};
use crate::{
    DumpError, Entry, EntryKind, LogConfig, LogFolder, LogPosition, OpenError, ReadError, ReadOnlyLog, Verification,
};

fn folder(disk: &SimDisk) -> Result<LogFolder, OpenError> {
    LogFolder::open_on(Arc::new(disk.clone()), Path::new("sim"))
}

fn verify(image: &Image) -> Result<Verification, OpenError> {
    verify_as(image, &config())
}

fn verify_as(image: &Image, config: &LogConfig) -> Result<Verification, OpenError> {
    let disk = SimDisk::new(image.clone());
    let folder = folder(&disk)?.marks_prove(config.marks_prove);
    let verification = folder.verify(config.known_durable, &mut |_| ());
    assert_eq!(disk.events(), 0, "nothing was changed");
    verification
}

fn read_only(image: &Image) -> Result<ReadOnlyLog, OpenError> {
    read_only_as(image, &config())
}

fn read_only_as(image: &Image, config: &LogConfig) -> Result<ReadOnlyLog, OpenError> {
    let disk = SimDisk::new(image.clone());
    let log = open_read_only_on(Arc::new(disk.clone()), config, LogPosition(0), &mut |_| ());
    assert_eq!(disk.events(), 0, "nothing was changed");
    log
}

/// Everything that is served, going on behind each damaged range; and how many such ranges were met.
fn served(log: &ReadOnlyLog) -> (Vec<Entry>, usize) {
    let (mut entries, mut ranges, mut from) = (Vec::new(), 0, log.reader.start());
    loop {
        let mut walk = log.reader.entries_from(from);
        let error = walk.by_ref().find_map(|entry| entry.map(|entry| entries.push(entry)).err());
        match error {
            None => return (entries, ranges),
            Some(ReadError::Damaged { resume, .. }) => (from, ranges) = (resume, ranges + 1),
            Some(error) => panic!("{error}: {:?}", log.verification),
        }
    }
}

/// Whether the look and the start agree about these files.
fn agree(image: &Image) -> Result<(), String> {
    agree_as(image, &config())
}

fn agree_as(image: &Image, config: &LogConfig) -> Result<(), String> {
    let started = open_disk(SimDisk::new(image.clone()), config);
    let looked = match (verify_as(image, config), &started) {
        (Ok(looked), _) => looked,
        // Without a sound header there is no log to look at, and a start begins one.
        (Err(OpenError::NoLog { .. }), _) => return Ok(()),
        (Err(error), Err(refusal)) if error.to_string() == refusal.to_string() => return Ok(()),
        (Err(error), started) => {
            return Err(format!("{error}; the start: {:?}", started.as_ref().map(|opened| &opened.recovery)));
        }
    };
    let first = looked.damage.first();
    let same = match &started {
        Ok(opened) => {
            let (recovery, entries) = (&opened.recovery, opened.entries.len() as u64);
            // Of a file whose creation was cut short a look says just that.
            let of_file = |reason: &str| reason.contains("segment header") || reason.contains("instead of");
            let reason = looked.tail.as_ref().map(|tail| tail.reason.as_str()).filter(|reason| !of_file(reason));
            let tail = looked.tail.as_ref().map(|tail| tail.at);
            let cut = recovery.cut.as_ref().map(|cut| cut.at);
            let same_reason = reason.is_none() || reason == recovery.cut.as_ref().map(|cut| cut.reason.as_str());
            // The very first file's creation was cut short: a start makes it anew.
            let begun = looked.end == recovery.start && entries == 0;
            first.is_none()
                && same_reason
                && (looked.end == recovery.end || begun)
                && (looked.entries, tail) == (entries, cut)
        }
        Err(OpenError::Damaged { file, position, reason, .. }) => {
            looked.damage.iter().any(|range| (&range.file, &range.from, &range.reason) == (file, position, reason))
        }
        Err(OpenError::SegmentMissing { file } | OpenError::SegmentLength { file, .. }) => {
            looked.damage.iter().any(|range| range.file == *file)
        }
        Err(_) => false,
    };
    let start = started.map(|opened| opened.recovery);
    if same { Ok(()) } else { Err(format!("the look: {looked:?}\nthe start: {start:?}")) }
}

/// Every entry that the damage does not touch is served, and nothing else.
fn serves_the_whole(image: &Image, submitted: &[Submitted], config: &LogConfig) -> Result<(), String> {
    let log = match read_only_as(image, config) {
        Ok(log) => log,
        Err(OpenError::NoLog { .. }) => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let (verification, (entries, ranges)) = (&log.verification, served(&log));
    let touched =
        |entry: &Entry| verification.damage.iter().any(|range| range.from < entry.end && entry.position < range.to);
    let inside = |entry: &Entry| entry.position >= verification.start && entry.position < verification.end;
    let expected: Vec<&Entry> =
        submitted.iter().map(|submitted| &submitted.entry).filter(|entry| inside(entry) && !touched(entry)).collect();
    let lost = verification.damage.iter().filter(|range| range.length > 0).count();
    if !entries.iter().eq(expected.iter().copied()) || ranges > lost || verification.entries != entries.len() as u64 {
        let at = |entries: &[&Entry]| entries.iter().map(|entry| entry.position.0).collect::<Vec<_>>();
        let (found, expected) = (at(&entries.iter().collect::<Vec<_>>()), at(&expected));
        return Err(format!("{ranges} ranges met, served {found:?}\nexpected {expected:?}\n{verification:?}"));
    }
    Ok(())
}

/// Damages an image in one of the ways a disk or a person does.
fn damage(image: &mut Image, rng: &mut Rng) {
    let Some(name) = image.keys().nth(rng.below(image.len() as u64) as usize).cloned() else { return };
    let way = rng.below(6);
    if way == 0 {
        image.remove(&name);
        return;
    }
    let bytes = image.get_mut(&name).unwrap();
    // A file whose creation was cut short may be short already.
    let from = rng.below(bytes.len().max(1) as u64) as usize;
    match way {
        // A rest of less than 8 bytes cannot hold an entry, and a look does not mention it.
        1 => bytes.truncate(from / 8 * 8),
        2 => bytes.iter_mut().skip(from % 4096).take(1).for_each(|byte| *byte ^= 1),
        3 => bytes.iter_mut().skip(from).take(600).for_each(|byte| *byte = 0),
        _ => bytes.iter_mut().skip(from).take(1).for_each(|byte| *byte ^= 4),
    }
}

pub(super) fn violation(seed: u64) -> Option<String> {
    let mut rng = Rng::new(seed);
    let mut run = Run::new(Image::new(), Rng::new(rng.next()));
    for _ in 0..40 + rng.below(80) {
        run.step().unwrap();
    }
    for number in 0..20 {
        let at = rng.below(run.log.disk.events() as u64 + 1) as usize;
        let mut image = run.log.disk.after_power_cut(at, LOSSES[number % 4], &mut rng);
        let before = agree(&image).err();
        if !image.is_empty() {
            damage(&mut image, &mut rng);
        }
        let found = before
            .or_else(|| agree(&image).err())
            .or_else(|| serves_the_whole(&image, &run.submitted, &config()).err());
        if let Some(found) = found {
            return Some(format!("seed {seed}, cut {number} after event {at}: {found}"));
        }
    }
    None
}

#[test]
fn a_look_judges_as_a_start_does_and_serves_what_is_whole() {
    println!("seeds 2000 to 2200");
    for seed in 2000..2200 {
        if let Some(violation) = violation(seed) {
            panic!("{violation}");
        }
    }
}

/// The same of the log of a replica, whose entries others wrote: its own note tells, and their marks do not.
fn violation_in_a_group(seed: u64) -> Option<String> {
    let mut rng = Rng::new(seed);
    let mut run = Run::with(SimDisk::new(Image::new()), &replica(), Rng::new(rng.next()));
    for _ in 0..40 + rng.below(80) {
        run.step_of_a_replica();
    }
    for number in 0..20 {
        let at = run.opened_at + rng.below((run.log.disk.events() - run.opened_at) as u64 + 1) as usize;
        let (history, None) = run.history(at) else { continue };
        let mut image = run.log.disk.after_power_cut(at, LOSSES[number % 4], &mut rng);
        let known_durable = LogPosition(rng.below(run.log.disk.reported(at) + 1));
        let config = LogConfig { known_durable, ..replica() };
        let before = agree_as(&image, &config).err();
        if before.is_none() && verify_as(&image, &config).is_ok_and(|looked| !looked.is_sound()) {
            return Some(format!(
                "seed {seed}, cut {number} after event {at}: damage, though nothing but the power was lost"
            ));
        }
        damage(&mut image, &mut rng);
        let served = |image: &Image| serves_the_whole(image, history, &config).err();
        if let Some(found) = before.or_else(|| agree_as(&image, &config).err()).or_else(|| served(&image)) {
            return Some(format!("seed {seed}, cut {number} after event {at}: {found}"));
        }
    }
    None
}

#[test]
fn a_look_at_a_replica_judges_by_its_own_note_as_a_start_does() {
    println!("seeds 3000 to 3150");
    for seed in 3000..3150 {
        if let Some(violation) = violation_in_a_group(seed) {
            panic!("{violation}");
        }
    }
}

/// Three segments of entries of 900 bytes and a mark; the image and the entries.
fn closed_log() -> (Image, Vec<Submitted>) {
    let mut run = Run::new(Image::new(), Rng::new(8));
    while run.log.appender.appended().0 < 3 * SEGMENT + 6000 {
        run.append(EntryKind::Records, 900).unwrap();
        run.settle();
    }
    let submitted = run.submitted.clone();
    (run.close(), submitted)
}

#[test]
fn damaged_ranges_are_named_and_stepped_over() {
    let (mut image, submitted) = closed_log();
    let (first, second) = (&submitted[3], &submitted[4]);
    let bytes = image.get_mut(&file_name(0)).unwrap();
    bytes[first.entry.payload_position.0 as usize + 10] ^= 1;
    bytes[second.entry.position.0 as usize + 30] ^= 1;
    image.remove(&file_name(SEGMENT));
    image.get_mut(&file_name(2 * SEGMENT)).unwrap()[100] ^= 1;
    let log = read_only(&image).unwrap();
    let found = &log.verification.damage;
    assert_eq!(found.len(), 3, "{found:#?}");
    let [entries, missing, header] = &found[..] else { unreachable!() };
    assert_eq!((entries.from, entries.to), (first.entry.position, second.entry.end));
    assert_eq!((entries.offset, entries.length), (first.entry.position.0, second.entry.end.0 - first.entry.position.0));
    assert_eq!((entries.headers, entries.entries_lost()), (1, Some(2)));
    assert_eq!(entries.reason, "the payload does not match its checksum");
    assert!(entries.file.ends_with("00000000000000000000.log"));
    assert!(missing.file.ends_with(file_name(SEGMENT)) && missing.reason == "the file is missing");
    assert_eq!((missing.offset, missing.length), (0, SEGMENT));
    let lost = submitted.iter().filter(|one| one.entry.position.0 / SEGMENT == 1).count() as u64;
    assert_eq!(missing.entries_lost(), Some(lost));
    assert!(header.file.ends_with(file_name(2 * SEGMENT)) && header.reason.contains("segment header"));
    assert_eq!((header.offset, header.length, header.entries_lost()), (0, 4096, Some(lost)));
    let (entries, _) = served(&log);
    assert_eq!(entries.len(), submitted.len() + 1 - 2 - lost as usize);
    let inside = log.reader.read(first.entry.payload_position, 900).unwrap_err();
    assert_eq!(inside, ReadError::Damaged { position: first.entry.payload_position, resume: second.entry.end });
    assert!(log.verification.to_owned().tail.is_none() && !log.verification.is_sound());
}

#[test]
fn sectors_that_cannot_be_read_are_damage_and_no_crash() {
    let (image, submitted) = closed_log();
    let broken = &submitted[20].entry;
    let disk = SimDisk::new(image);
    let at = broken.position.0 % SEGMENT;
    disk.break_sectors(&file_name(broken.position.0 - at), at..at + 10);
    assert!(matches!(super::driver::open_disk(disk.clone(), &config()), Err(OpenError::Io { .. })));
    let log = open_read_only_on(Arc::new(disk), &config(), LogPosition(0), &mut |_| ()).unwrap();
    let [range] = &log.verification.damage[..] else { panic!("{:#?}", log.verification.damage) };
    assert!(range.reason.contains("the disk cannot read it"), "{range}");
    // What shares the page cannot be read either.
    let page = at / 4096 * 4096 + (broken.position.0 - at);
    assert!(range.from.0 <= broken.position.0 && range.to >= broken.end);
    assert!(range.from.0 + 1000 > page && range.to.0 <= page + 4096 + 1000, "{range}");
    let (entries, ranges) = served(&log);
    assert_eq!(ranges, 1);
    assert_eq!(entries.len() as u64, submitted.len() as u64 + 1 - range.entries_lost().unwrap());
}

#[test]
fn a_look_may_begin_in_the_middle_and_knows_what_a_snapshot_knows() {
    let (mut image, submitted) = closed_log();
    image.get_mut(&file_name(0)).unwrap()[5000] ^= 1;
    let disk = SimDisk::new(image.clone());
    let from = LogPosition(SEGMENT + 5000);
    let log = open_read_only_on(Arc::new(disk), &config(), from, &mut |_| ()).unwrap();
    assert!(log.verification.is_sound() && log.reader.start().0 == SEGMENT);
    let looked = folder(&SimDisk::new(image.clone())).unwrap().verify_from(from, LogPosition(0), &mut |_| ());
    assert_eq!(looked.unwrap(), log.verification);
    // The last entries are gone, and with them every mark that tells: only the checkpoint knows that they were durable.
    let lost = submitted.last().unwrap();
    let (start, bytes) = (3 * SEGMENT, image.get_mut(&file_name(3 * SEGMENT)).unwrap());
    bytes[(lost.entry.position.0 - start) as usize..].fill(0);
    image.get_mut(&file_name(0)).unwrap()[5000] ^= 1;
    let disk = Arc::new(SimDisk::new(image.clone()));
    assert!(read_only(&image).unwrap().verification.is_sound());
    let config = LogConfig { checkpoint: Some(lost.checkpoint), ..config() };
    let log = open_read_only_on(disk, &config, LogPosition(0), &mut |_| ()).unwrap();
    let [range] = &log.verification.damage[..] else { panic!("{:#?}", log.verification.damage) };
    assert_eq!((range.from, range.to), (lost.entry.position, lost.entry.end));
    assert_eq!(log.verification.end, lost.entry.end);
    assert_eq!(served(&log).0.len(), submitted.len() - 1);
}

#[test]
fn segments_are_described_by_their_headers() {
    let (image, submitted) = closed_log();
    let disk = SimDisk::new(image);
    let folder = folder(&disk).unwrap();
    let identity = folder.identity();
    assert_eq!((identity.cluster_id, identity.shard, identity.segment_size), (*b"cluster-of-tests", 3, SEGMENT));
    let before = disk.bytes_read();
    let quick = folder.segments().unwrap();
    let thorough = folder.verify(LogPosition(0), &mut |_| ()).unwrap();
    assert_eq!(quick, thorough.segments);
    assert!(disk.bytes_read() > before && disk.events() == 0);
    assert_eq!(quick.len(), 4);
    for (number, info) in (0..).zip(&quick) {
        let of = |one: &&Submitted| one.entry.position.0 / SEGMENT == number;
        let indexes: Vec<u64> = submitted.iter().filter(of).map(|one| one.entry.index).collect();
        assert_eq!((info.start.0, info.size, info.header_sound), (number * SEGMENT, SEGMENT, true));
        assert_eq!(info.first_index, indexes.first().copied());
        match number {
            3 => assert_eq!((info.entries, info.last_index), (indexes.len() as u64 + 1, thorough_last(&submitted))),
            _ => assert_eq!((info.entries, info.used_bytes, info.prepared_bytes), (indexes.len() as u64, SEGMENT, 0)),
        }
    }
    assert_eq!(quick[3].used_bytes, thorough.end.0 - 3 * SEGMENT);
    assert_eq!(quick[3].durable_mark, submitted.last().unwrap().entry.end);
}

/// Found by fuzzing: behind a damaged header the quick look found the next entry and never went on from there.
#[test]
fn the_quick_look_goes_on_behind_damage() {
    let (mut image, submitted) = closed_log();
    let bad = submitted[5].entry.position.0 as usize;
    image.get_mut(&file_name(0)).unwrap()[bad] ^= 1;
    let disk = SimDisk::new(image);
    let whole = submitted.len() as u64 + 1;
    let found: u64 = folder(&disk).unwrap().segments().unwrap().iter().map(|info| info.entries).sum();
    assert_eq!(found, whole - 1);
}

/// Found by fuzzing: a start skipped by the length what the tools looked through, and cut what had been durable.
#[test]
fn a_header_with_an_impossible_length_hides_nothing_behind_it() {
    let mut run = Run::new(Image::new(), Rng::new(8));
    for _ in 0..4 {
        run.append(EntryKind::Records, 100).unwrap();
        run.settle();
    }
    let bad = run.submitted[1].entry.position;
    let mut image = run.close();
    let bytes = &mut image.get_mut(&file_name(0)).unwrap()[bad.0 as usize..][..ENTRY_HEADER_LEN as usize];
    let seed = checksum_seed(&config().cluster_id, config().shard);
    let mut header = StoredHeader::decode(seed, (&*bytes).try_into().unwrap(), bad.0).unwrap();
    header.payload_len = u32::MAX - 7;
    bytes.copy_from_slice(&header.encode(seed, &[]).0);
    agree(&image).unwrap();
    assert!(matches!(open(image), Err(OpenError::Damaged { position, .. }) if position == bad));
}

/// The closing mark has the next index.
fn thorough_last(submitted: &[Submitted]) -> Option<u64> {
    submitted.last().map(|last| last.entry.index + 1)
}

#[test]
fn a_dump_gives_entries_and_names_what_is_damaged_between_them() {
    let (mut image, submitted) = closed_log();
    let dump = |image: &Image, from: u64, to: u64| -> Vec<Result<Entry, DumpError>> {
        let disk = SimDisk::new(image.clone());
        let folder = folder(&disk).unwrap();
        folder.entries(LogPosition(from), LogPosition(to)).unwrap().collect()
    };
    let all = dump(&image, 0, u64::MAX);
    assert_eq!(all.len(), submitted.len() + 1);
    for (found, submitted) in all.iter().zip(&submitted) {
        assert_eq!(found.as_ref().unwrap(), &submitted.entry);
    }
    let (from, to) = (submitted[18].entry.position.0, submitted[25].entry.position.0);
    let indexes: Vec<u64> = dump(&image, from, to).iter().map(|entry| entry.as_ref().unwrap().index).collect();
    assert_eq!(indexes, (19..=25).collect::<Vec<_>>());
    let bad = &submitted[5].entry;
    image.get_mut(&file_name(0)).unwrap()[bad.payload_position.0 as usize] ^= 1;
    image.remove(&file_name(SEGMENT));
    let found = dump(&image, 0, u64::MAX);
    let damage: Vec<_> = found.iter().filter_map(|item| item.as_ref().err().map(ToString::to_string)).collect();
    assert_eq!(damage.len(), 2, "{damage:?}");
    assert!(matches!(&found[5], Err(DumpError::Damaged(range)) if range.entries_lost() == Some(1)));
    assert!(damage[0].contains(&format!("offset {}", bad.position)) && damage[1].contains("the file is missing"));
}

#[test]
fn progress_reaches_its_total() {
    let (image, _) = closed_log();
    let disk = SimDisk::new(image);
    let mut seen = Vec::new();
    folder(&disk).unwrap().verify(LogPosition(0), &mut |progress| seen.push(progress)).unwrap();
    assert!(seen.is_sorted_by_key(|progress| progress.done_bytes));
    assert!(seen.iter().all(|progress| progress.total_bytes == 4 * SEGMENT));
    assert_eq!(seen.last().unwrap().done_bytes, 4 * SEGMENT);
}

/// What a read-only open serves; `None` where it refuses.
pub(super) fn served_by_a_look(image: &Image) -> Option<Vec<Entry>> {
    read_only(image).ok().map(|log| served(&log).0)
}

#[test]
fn files_with_impossible_names_do_not_disturb_a_look() {
    let (mut image, _) = closed_log();
    let before = verify(&image).unwrap();
    for name in ["00000000000000000005.log", "18446744073709551615.log", "99999999999999999999.log", "1.log"] {
        image.insert(name.to_owned(), vec![1; 5000]);
    }
    assert_eq!(verify(&image).unwrap(), before);
    // A start refuses the first, which it cannot place, and takes the others for somebody else's.
    assert!(open(image.clone()).is_err());
    image.remove("00000000000000000005.log");
    assert!(open(image).is_ok());
}
