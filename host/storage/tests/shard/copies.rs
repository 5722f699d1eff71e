//! Snapshots and their parts lie on the disk twice. The log's beginning is released here, so nothing else says what is in
//! them: whatever happens to one copy, the other one is read, and made into two again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use vouch_storage::{
    BackupError, CopyFate, DamagedCopy, ScrubReport, StoredCopies, backup, check_backup, restore, verify_snapshots,
};

use crate::common::{
    Damaged, Heard, PATIENCE, SEGMENT, Shard, config, contents, copy_tree, first_entry, flip, ids, named, number,
    refused, scrubbed_once, snapshot_folder,
};
use crate::snapshots::released;

fn verify(data: &Path) -> StoredCopies {
    verify_snapshots(data, vouch_commitlog::LogPosition(SEGMENT), &mut |_| ()).unwrap()
}

/// The files of the snapshots by name.
fn stored(data: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = contents(data).into_iter().filter(|(path, _)| path.starts_with(snapshot_folder(data)));
    all.map(|(path, bytes)| (path.strip_prefix(data).unwrap().to_owned(), bytes)).collect()
}

/// A folder whose log begins with its second segment or later, to be copied for each case.
struct Origin {
    _folder: tempfile::TempDir,
    data: PathBuf,
    /// Id of the part in which the messages 20 to 23 are, which both snapshots name.
    part: u64,
    /// Where in its file the first of them is told.
    first: u64,
    newest: u64,
}

impl Origin {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = released(folder.path());
        let part = named(&data, "part").into_iter().nth_back(1).unwrap();
        let whole = verify(&data);
        assert!(whole.damage.is_empty() && whole.to_be_made.is_empty() && whole.files >= 10, "{whole:?}");
        let newest = number(named(&data, "snapshot").last().unwrap());
        Self { _folder: folder, part: number(&part), first: first_entry(&part), newest, data }
    }

    fn copy(&self) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        copy_tree(&self.data, &data);
        (folder, data)
    }

    fn part(&self, data: &Path, extension: &str) -> PathBuf {
        snapshot_folder(data).join(format!("{:020}.{extension}", self.part))
    }

    /// Scrubs a folder until everything was read once.
    fn scrub(data: &Path) -> std::sync::Arc<ScrubReport> {
        let shard = Shard::start(data);
        let report = scrubbed_once(&shard, data);
        assert_eq!(shard.listed("t"), ids(20..32));
        shard.kill();
        report
    }
}

/// What can happen to a file.
const DAMAGES: [&str; 3] = ["flipped", "cut", "removed"];

fn damage(what: &str, file: &Path, at: u64) {
    match what {
        "flipped" => flip(file, at),
        "cut" => File::options().write(true).open(file).unwrap().set_len(at).unwrap(),
        _ => fs::remove_file(file).unwrap(),
    }
}

#[test]
fn whatever_happens_to_one_copy_of_a_part_or_snapshot_a_start_reads_everything_and_both_are_whole_again() {
    let origin = Origin::new();
    let before = stored(&origin.data);
    for what in DAMAGES {
        for extension in ["part", "part2", "snapshot", "snapshot2"] {
            let case = format!("{extension}, {what}");
            let (_folder, data) = origin.copy();
            let is_part = extension.starts_with("part");
            let (number, at) = if is_part { (origin.part, origin.first) } else { (origin.newest, 60) };
            let file = snapshot_folder(&data).join(format!("{number:020}.{extension}"));
            damage(what, &file, at);

            let found = verify(&data);
            if what == "removed" && extension.ends_with('2') {
                assert_eq!((&found.to_be_made, found.damage.len()), (&vec![file.clone()], 0), "{case}");
            } else {
                let [DamagedCopy { file: named, fate: CopyFate::FromOtherCopy, .. }] = found.damage.as_slice() else {
                    panic!("{case}: {found:?}")
                };
                assert_eq!(*named, file, "{case}");
            }
            let kept = stored(&data);
            // A backup takes the copy that is whole.
            let target = data.with_file_name("backup");
            let taken = backup(&data, &target, &mut |_| ()).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(taken.snapshot, Some(vouch_commitlog::LogPosition(origin.newest)), "{case}");
            check_backup(&target, &mut |_| ()).unwrap();
            assert!(stored(&data) == kept, "{case}: looking changes nothing");

            // The one that the start met is mended at once, the other one by the scrubber.
            Origin::scrub(&data);
            assert!(stored(&data) == before, "{case}");
            let found = verify(&data);
            assert!(found.damage.is_empty() && found.to_be_made.is_empty(), "{case}: {found:?}");
        }
    }
}

#[test]
fn the_scrubber_counts_what_it_mends_and_finds_nothing_where_nothing_is() {
    let origin = Origin::new();
    let (_folder, data) = origin.copy();
    let report = Origin::scrub(&data);
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!((read(&report.mended), read(&report.damaged), report.lost().len()), (0, 0, 0));
    // Second copies are not looked at by a start, so it is the scrubber that finds them.
    flip(&origin.part(&data, "part2"), origin.first);
    flip(named(&data, "snapshot2").last().unwrap(), 60);
    let report = Origin::scrub(&data);
    assert_eq!((read(&report.mended), read(&report.damaged)), (2, 0));
    assert!(verify(&data).damage.is_empty());
}

#[test]
fn what_both_copies_lost_while_a_shard_runs_is_counted_and_told_with_its_part() {
    let origin = Origin::new();
    let (_folder, data) = origin.copy();
    let shard = Shard::start(&data);
    for extension in ["part", "part2"] {
        damage("cut", &origin.part(&data, extension), 30);
    }
    let report = scrubbed_once(&shard, &data);
    let lost = report.lost();
    let [lost] = lost.as_slice() else { panic!("{lost:?}") };
    assert_eq!((&lost.file, lost.part), (&origin.part(&data, "part"), Some(origin.part)));
    assert!(!lost.reason.is_empty());
    assert_eq!((report.damaged.load(Ordering::Relaxed), report.mended.load(Ordering::Relaxed)), (1, 0));
    shard.kill();
}

#[test]
fn a_running_shard_reads_on_from_the_other_copy_and_gets_the_mended_one() {
    let origin = Origin::new();
    let (_folder, data) = origin.copy();
    let before = stored(&data);
    let mut shard = Shard::start(&data);
    let (first, second) = (origin.part(&data, "part"), origin.part(&data, "part2"));
    for round in 0..2 {
        // The first message of the first copy, which is the one that is read, and something else of the other.
        flip(&first, origin.first + 1);
        flip(&second, fs::metadata(&second).unwrap().len() - 1);
        assert_eq!(shard.listed("t"), ids(20..32), "round {round}: what was stored is read");
        let damaged = shard.state.damaged_parts();
        assert_eq!(damaged, [origin.part], "round {round}");
        shard.requests.damaged(damaged);
        let Heard::Mended(part, copies) = shard.heard.recv_timeout(PATIENCE).unwrap() else { panic!("nothing else") };
        assert_eq!(part, origin.part);
        shard.state.read_from(part, copies).unwrap();
        assert!(stored(&data) == before, "round {round}: both are mended");
        assert_eq!(shard.state.damaged_parts(), [0; 0], "round {round}");
    }
    assert_eq!(shard.listed("t"), ids(20..32));
    shard.kill();
}

#[test]
fn a_part_that_no_snapshot_names_is_nobodys_to_mend() {
    let origin = Origin::new();
    let (_folder, data) = origin.copy();
    let shard = Shard::start(&data);
    shard.requests.damaged([origin.part + 1]);
    // It is told before what comes behind it.
    shard.requests.damaged([origin.part]);
    let Heard::Mended(part, _) = shard.heard.recv_timeout(PATIENCE).unwrap() else { panic!("nothing else") };
    assert_eq!(part, origin.part);
    shard.kill();
}

#[test]
fn what_both_copies_lost_is_refused_or_left_out() {
    let origin = Origin::new();
    for (a, b) in [("cut", "removed"), ("removed", "removed"), ("cut", "cut")] {
        let case = format!("{a}, {b}");
        let (_folder, data) = origin.copy();
        let files = ["part", "part2"].map(|extension| origin.part(&data, extension));
        damage(a, &files[0], origin.first);
        damage(b, &files[1], origin.first + 16);
        let fates: Vec<_> = verify(&data).damage.into_iter().map(|copy| (copy.file, copy.fate)).collect();
        assert_eq!(fates, files.clone().map(|file| (file, CopyFate::Lost)), "{case}");
        let error = backup(&data, &data.with_file_name("backup"), &mut |_| ()).unwrap_err();
        let told = error.to_string();
        assert!(matches!(error, BackupError::SourceDamaged(_)) && told.contains(&origin.part.to_string()), "{told}");
        assert!(refused(&config(&data)).to_string().contains("--on-damage read-only"), "{case}");
        let before = stored(&data);
        let opened = Damaged::open(&data).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(opened.listed("t"), ids(24..28), "{case}: the rest is read, up to the newest snapshot");
        drop(opened);
        assert!(stored(&data) == before, "{case}: reading changes nothing");
    }
}

#[test]
fn two_copies_that_lost_different_things_give_a_whole_one() {
    let origin = Origin::new();
    let before = stored(&origin.data);
    let (_folder, data) = origin.copy();
    // In one row, and in what is remembered of the sends.
    flip(&origin.part(&data, "part"), origin.first);
    let last = fs::metadata(origin.part(&data, "part2")).unwrap().len() - 1;
    flip(&origin.part(&data, "part2"), last);
    Origin::scrub(&data);
    assert!(stored(&data) == before);
}

#[test]
fn a_snapshot_that_is_lost_in_both_copies_is_passed_over_for_the_older_one() {
    let origin = Origin::new();
    let (_folder, data) = origin.copy();
    for extension in ["snapshot", "snapshot2"] {
        flip(named(&data, extension).last().unwrap(), 60);
    }
    let fates: Vec<_> = verify(&data).damage.into_iter().map(|copy| copy.fate).collect();
    assert_eq!(fates, [CopyFate::FromLog; 2]);
    let mut shard = Shard::start(&data);
    assert_eq!((shard.passed_over, shard.listed("t")), (true, ids(20..32)));
    // The next one takes the place of what cannot be used.
    shard.snapshot();
    assert!(verify(&data).damage.is_empty());
    shard.stop();
}

/// What an earlier version left, which knew of no second copy, and what a kill leaves between two writes.
#[test]
fn a_folder_with_one_copy_of_each_file_gets_the_second_ones_at_its_first_start() {
    let origin = Origin::new();
    let before = stored(&origin.data);
    for all in [true, false] {
        let (_folder, data) = origin.copy();
        let mut removed = [named(&data, "snapshot2"), named(&data, "part2")];
        if !all {
            // Of each the newest.
            removed = removed.map(|mut files| files.split_off(files.len() - 1));
        }
        let removed = removed.concat();
        removed.iter().for_each(|file| fs::remove_file(file).unwrap());
        fs::write(removed[0].with_extension("unfinished"), "half").unwrap();
        let found = verify(&data);
        assert_eq!((found.to_be_made.len(), found.damage.len()), (removed.len(), 0), "{found:?}");
        Origin::scrub(&data);
        assert!(stored(&data) == before, "{all}");
    }
}

#[test]
fn a_restored_folder_has_two_copies_of_everything_when_it_has_started() {
    let origin = Origin::new();
    let (_folder, data) = origin.copy();
    flip(&origin.part(&data, "part"), origin.first);
    let (target, again) = (data.with_file_name("backup"), data.with_file_name("again"));
    backup(&data, &target, &mut |_| ()).unwrap();
    restore(&target, &again, &mut |_| ()).unwrap();
    let whole = verify(&again);
    assert!(named(&again, "part2").is_empty() && whole.damage.is_empty(), "a backup has one copy, which is whole");
    Origin::scrub(&again);
    assert!(verify(&again).to_be_made.is_empty());
    // It is one snapshot only, and no longer without a spare.
    flip(&origin.part(&again, "part"), origin.first);
    flip(named(&again, "snapshot").last().unwrap(), 60);
    let shard = Shard::start(&again);
    assert_eq!(shard.listed("t"), ids(20..32));
    shard.stop();
}

/// The log is released only when both kept snapshots were read back whole: their second copies count as well.
#[test]
fn before_the_log_is_released_what_is_missing_of_either_snapshot_is_made_again_or_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    let mut made = Vec::new();
    for n in 0..2 {
        shard.fill(topic, n..n + 1);
        made.push(shard.snapshot());
    }
    let bounds = shard.snapshotter.bounds().unwrap();
    let both = [bounds.older.unwrap(), bounds.newer];
    let file =
        |position: u64, extension: &str| snapshot_folder(folder.path()).join(format!("{position:020}.{extension}"));
    fs::remove_file(file(made[0], "part2")).unwrap();
    fs::remove_file(file(made[1], "snapshot")).unwrap();
    shard.snapshotter.read_back(both).unwrap();
    assert!(verify(folder.path()).damage.is_empty() && file(made[0], "part2").exists());
    for extension in ["snapshot", "snapshot2"] {
        fs::remove_file(file(made[0], extension)).unwrap();
    }
    assert!(shard.snapshotter.read_back(both).is_err(), "one is gone");
    assert_eq!(shard.reader.start().0, 0);
    shard.kill();
}
