//! A log that is damaged inside: refused, or read, and never changed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use vouch_commitlog::{LogFolder, LogPosition};

use vouch_storage::{StartError, is_break, newest_bound};

use crate::common::{
    Damaged, MIB, SEGMENT, Shard, config, contents, copy_tree, damage, first_entry, flip, ids, listed, log_folder,
    named, number, open, read_only, refused, segment, snapshot_folder, stopped,
};
use crate::snapshots::released;

fn opened_file(path: PathBuf) -> File {
    File::options().write(true).open(path).unwrap()
}

#[test]
fn a_log_that_is_damaged_behind_its_snapshot_is_refused_or_read_up_to_the_damage_and_never_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.fill(topic, 0..3);
    let covered = shard.snapshot();
    shard.fill(topic, 3..8);
    shard.stop();
    let file = damage(folder.path(), "m005");
    let before = contents(folder.path());
    let error = refused(&config(folder.path()));
    assert!(matches!(error, StartError::Damaged(_)), "{error}");
    let told = error.to_string();
    assert!(told.contains(file.to_str().unwrap()) && told.contains("--on-damage read-only"), "{told}");
    assert!(contents(folder.path()) == before, "a refused start changes nothing");

    let opened = Damaged::open(folder.path()).unwrap();
    assert_eq!(opened.listed("t"), ids(0..5));
    let log = &opened.log;
    let [stretch] = log.found.damage.as_slice() else { panic!("{:?}", log.found) };
    assert_eq!((log.served_to, log.doubtful_to), (stretch.from, LogPosition::START));
    assert!(covered < stretch.from.0 && log.lost.is_none());
    let behind = log.found.end.0 - stretch.to.0;
    assert_eq!(log.not_served_bytes(), behind, "two messages are whole behind it");
    assert!(behind > MIB as u64);
    drop(opened);
    assert!(contents(folder.path()) == before, "reading changes nothing");

    // The file is put back as it was.
    damage(folder.path(), "m005");
    let mut shard = Shard::start_with(&read_only(folder.path())).unwrap();
    assert_eq!(shard.listed("t"), ids(0..8), "a whole log is opened as ever");
    shard.fill(topic, 8..9);
    shard.stop();
}

#[test]
fn a_log_of_which_nothing_is_certain_is_refused_either_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    shard.topic("t", "{}");
    shard.stop();
    opened_file(segment(folder.path(), 0)).write_all_at(b"lost", 4096 + 80).unwrap();
    let before = contents(folder.path());
    let error = refused(&read_only(folder.path()));
    assert!(matches!(error, StartError::NothingCertain(_)), "{error}");
    assert!(error.to_string().contains("restore the folder from a backup"), "{error}");
    assert!(contents(folder.path()) == before);
}

/// What can happen to the file of a segment, to the last entry of a snapshot, and what is read then.
#[test]
fn whatever_is_damaged_what_is_read_is_a_beginning_of_what_was_or_all_that_is_whole() {
    let whole = tempfile::tempdir().unwrap();
    let origin = whole.path().join("data");
    let mut shard = Shard::start(&origin);
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.fill(topic, 0..20);
    shard.snapshot();
    shard.fill(topic, 20..33);
    let newest = shard.snapshot();
    shard.fill(topic, 33..36);
    shard.stop();
    let nth = |folder: &Path, n: u64| segment(folder, n * SEGMENT);
    type Happens<'a> = (&'a str, Box<dyn Fn(&Path) + 'a>, bool);
    let cases: [Happens; 5] = [
        ("a file is cut short", Box::new(|folder| opened_file(nth(folder, 1)).set_len(1 << 20).unwrap()), false),
        (
            "a header is damaged",
            Box::new(|folder| opened_file(nth(folder, 1)).write_all_at(b"lost", 12).unwrap()),
            true,
        ),
        ("the first byte is", Box::new(|folder| opened_file(nth(folder, 2)).write_all_at(b"?", 0).unwrap()), true),
        ("the last file is missing", Box::new(|folder| fs::remove_file(nth(folder, 5)).unwrap()), false),
        (
            "the last entry of the newest snapshot is damaged",
            Box::new(|folder| {
                let at = newest - 24;
                opened_file(nth(folder, at / SEGMENT)).write_all_at(b"????????", at % SEGMENT).unwrap();
            }),
            false,
        ),
    ];
    for (what, happens, all) in cases {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        copy_tree(&origin, &data);
        happens(&data);
        let before = contents(&data);
        let error = refused(&config(&data));
        assert!(matches!(error, StartError::Damaged(_)), "{what}: {error}");
        let opened = Damaged::open(&data).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!opened.log.found.damage.is_empty(), "{what}");
        let served = opened.state.topics().iter().next().unwrap().messages() as u32;
        let read = opened.listed("t");
        let lost: Vec<_> = ids(0..served).into_iter().filter(|id| !read.contains(id)).collect();
        assert_eq!(read, ids(0..served).into_iter().filter(|id| !lost.contains(id)).collect::<Vec<_>>(), "{what}");
        assert!(served >= 16 && lost.len() <= 8, "{what}: {served} are known, {lost:?} cannot be read");
        assert!(!all || (served, lost.len()) == (36, 0), "{what}: {served} are known, {lost:?} cannot be read");
        drop(opened);
        assert!(contents(&data) == before, "{what}: reading changes nothing");
    }
}

/// A segment of another life of the same shard, as somebody may put it there who has an older backup.
#[test]
fn of_a_log_that_is_put_together_from_two_histories_only_the_one_of_the_snapshot_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (data, other) = (folder.path().join("data"), folder.path().join("other"));
    let mut shard = Shard::start(&data);
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.fill(topic, 0..4);
    shard.stop();
    copy_tree(&data, &other);
    for (folder, numbers) in [(&data, 4..30), (&other, 104..130)] {
        let mut shard = Shard::start(folder);
        shard.fill(topic, numbers);
        shard.stop();
    }
    for foreign in [0, 1] {
        let mixed = folder.path().join(format!("mixed{foreign}"));
        copy_tree(&data, &mixed);
        fs::copy(segment(&other, foreign * SEGMENT), segment(&mixed, foreign * SEGMENT)).unwrap();
        // Below the snapshot a start does not look; the file that is missing makes it look at everything.
        fs::remove_file(segment(&mixed, 2 * SEGMENT)).unwrap();
        let opened = Damaged::open(&mixed).unwrap();
        let log = &opened.log;
        let [seam, missing] = log.found.damage.as_slice() else { panic!("{:?}", log.found) };
        assert!(is_break(seam) && !is_break(missing), "{seam} {missing}");
        assert!((SEGMENT..5 << 20).contains(&seam.from.0), "{seam}");
        // What has no whole way to the snapshot is not believed.
        assert_eq!((log.doubtful_to.0, missing.to.0), (3 * SEGMENT, 3 * SEGMENT));
        let read = opened.listed("t");
        assert!(!read.is_empty() && ids(0..30).ends_with(&read), "{read:?}");
        assert!(!read.contains(&"m000".to_owned()) && !read.contains(&"m012".to_owned()), "{read:?}");
    }
}

#[test]
fn segments_that_are_missing_at_the_beginning_are_told_while_the_rest_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path());
    let bound = newest_bound(&data).unwrap().expect("there is a snapshot");
    assert_eq!(bound.missing_before(LogPosition::START), None);
    fs::remove_file(segment(&data, 0)).unwrap();
    let opened = open(&config(&data)).unwrap();
    let missing = opened.missing.clone().expect("something is missing");
    assert_eq!(bound.missing_before(opened.reader.start()), Some(missing.clone()), "without a start the same is told");
    assert!(missing.start > LogPosition::START && missing.end == LogPosition(SEGMENT), "{missing:?}");
    let read = listed(&opened.state, &opened.reader, "t");
    assert!(ids(0..20).ends_with(&read) && (10..20).contains(&read.len()), "{read:?}");
    drop(opened);
    let mut shard = Shard::start(&data);
    let topic = shard.state.topics().iter().next().unwrap().id;
    shard.fill(topic, 20..21);
    assert!(shard.listed("t").ends_with(&ids(20..21)));
    shard.stop();
}

#[test]
fn what_retention_released_is_not_missing() {
    let folder = tempfile::tempdir().unwrap();
    let data = released(folder.path());
    let opened = open(&config(&data)).unwrap();
    assert!(opened.reader.start().0 >= SEGMENT);
    assert_eq!(opened.missing, None);
    let bound = newest_bound(&data).unwrap().expect("there is a snapshot");
    assert_eq!(bound.missing_before(opened.reader.start()), None);
}

/// What is told of damage before it is served is what a start then makes of it.
#[test]
fn damage_below_the_newest_snapshot_stops_a_start_only_if_it_is_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let mut shard = Shard::start(data);
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.fill(topic, 0..12);
    shard.snapshot();
    shard.fill(topic, 12..13);
    shard.stop();
    let bound = newest_bound(data).unwrap().expect("there is a snapshot");
    let is_behind = || {
        let found = LogFolder::open(&log_folder(data)).unwrap().verify(bound.covers, &mut |_| ()).unwrap();
        assert!(!found.is_sound());
        found.damage.iter().all(|range| bound.is_behind(range, &found))
    };
    damage(data, "m002");
    assert!(is_behind());
    let mut shard = Shard::start(data);
    shard.fill(topic, 13..14);
    shard.stop();
    damage(data, "m002");

    flip(&segment(data, 0), 12);
    assert!(!is_behind());
    assert!(matches!(refused(&config(data)), StartError::Damaged(_)));
    flip(&segment(data, 0), 12);
    fs::rename(segment(data, SEGMENT), data.join("aside")).unwrap();
    assert!(!is_behind());
    assert!(matches!(refused(&config(data)), StartError::Damaged(_)));
    fs::rename(data.join("aside"), segment(data, SEGMENT)).unwrap();
    damage(data, "m013");
    assert!(!is_behind(), "behind the snapshot");
    assert!(matches!(refused(&config(data)), StartError::Damaged(_)));
}

/// The log's beginning is gone, and with it what would say again what is in the parts.
#[test]
fn what_both_copies_of_a_part_lost_is_left_out_and_the_rest_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let data = released(folder.path());
    let newest = number(named(&data, "snapshot").last().unwrap());
    let lost = named(&data, "part").into_iter().rfind(|file| number(file) < newest).unwrap();
    for file in [lost.clone(), lost.with_extension("part2")] {
        fs::remove_file(file).unwrap();
    }
    let before = contents(&data);
    let error = refused(&config(&data));
    assert!(matches!(error, StartError::NoSnapshot { .. }), "{error}");

    let opened = Damaged::open(&data).unwrap();
    let told = opened.log.lost.as_ref().expect("a part is lost");
    assert_eq!(told.files, std::slice::from_ref(&lost));
    assert_eq!(told.stretch.end.0, number(&lost));
    let gaps: Vec<_> = told.gaps.queues.iter().map(|gap| gap.offsets.end.since(gap.offsets.start)).collect();
    assert_eq!(gaps, [4]);
    assert!(told.to_string().contains("nobody knows any more where 4 messages lie"), "{told}");
    // With what was remembered of resends forgotten, nothing behind the snapshot is believed.
    assert_eq!(opened.log.served_to.0, newest);
    assert_eq!(opened.listed("t"), ids(24..28));
    assert!(opened.log.found.is_sound() && opened.log.usage().start.0 >= SEGMENT);
    drop(opened);
    assert!(contents(&data) == before, "reading changes nothing");
}

/// The log still has what the part covers.
#[test]
fn a_part_that_both_copies_lost_is_made_again_from_the_log_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let data = released(folder.path());
    let before = contents(&data);
    let part = named(&data, "part").into_iter().nth_back(1).unwrap();
    let first = first_entry(&part);
    for (a, b) in [(first, first), (first, first + 16), (first + 40, first)] {
        flip(&part, a);
        flip(&part.with_extension("part2"), b);
        let opened = open(&config(&data)).unwrap();
        assert_eq!(listed(&opened.state, &opened.reader, "t"), ids(20..32));
        drop(opened);
        // A start that has to look closely mends both at once.
        let after = contents(&data);
        let same = before.iter().filter(|(path, _)| path.starts_with(snapshot_folder(&data)));
        same.for_each(|(path, bytes)| assert!(after[path] == *bytes, "{}: {a} and {b}", path.display()));
    }
}
