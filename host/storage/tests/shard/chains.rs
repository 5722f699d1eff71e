//! Backups of what was restored, and of folders in every state; what a restore takes, and what it leaves.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use vouch_storage::{
    Backup, BackupError, BackupProgress, BackupStep, COMPONENTS, backup, check_backup, restore, verify_snapshots,
};

use crate::common::{
    Shard, config, damage, files, flip, ids, named, open, refused, scrubbed_once, segment, still_has, stopped,
};
use crate::snapshots::released;

fn take(data: &Path, target: &Path) -> Result<Backup, BackupError> {
    backup(data, target, &mut |_| ())
}

fn put_back(from: &Path, to: &Path) -> Result<Backup, BackupError> {
    restore(from, to, &mut |_| ()).map(|restored| restored.backup)
}

#[test]
fn what_was_restored_can_be_backed_up_and_restored_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut data = stopped(folder.path());
    let mut expected = ids(0..20);
    let mut cluster = None;
    for round in 0..4 {
        let (target, next) = (folder.path().join(format!("backup{round}")), folder.path().join(format!("data{round}")));
        let taken = take(&data, &target).unwrap();
        assert_eq!(check_backup(&target, &mut |_| ()).unwrap(), taken);
        assert_eq!(put_back(&target, &next).unwrap(), taken);
        assert_eq!(cluster.get_or_insert(taken.cluster_id.clone()), &taken.cluster_id, "it keeps its identity");
        // It goes on, and what it adds is in the next one.
        let mut shard = Shard::start(&next);
        assert_eq!(shard.listed("t"), expected);
        let topic = shard.state.topics().iter().next().unwrap().id;
        shard.fill(topic, 20 + round..21 + round);
        expected.extend(ids(20 + round..21 + round));
        shard.stop();
        data = next;
    }
    // All of them are still what they were.
    for round in 0..4 {
        let again = folder.path().join(format!("again{round}"));
        put_back(&folder.path().join(format!("backup{round}")), &again).unwrap();
        still_has(&again, &ids(0..20 + round));
    }
}

#[test]
fn a_backup_of_a_shard_without_the_beginning_of_its_log_is_as_good() {
    let folder = tempfile::tempdir().unwrap();
    let data = released(folder.path());
    let (target, restored) = (folder.path().join("backup"), folder.path().join("restored"));
    let taken = take(&data, &target).unwrap();
    assert!(taken.log_start.0 >= 4 << 20 && taken.snapshot.is_some(), "{taken:?}");
    // One copy of each file, of the newest snapshot alone.
    assert!(named(&target, "snapshot2").is_empty() && named(&target, "part2").is_empty());
    assert_eq!(named(&target, "snapshot").len(), 1);
    put_back(&target, &restored).unwrap();
    let shard = Shard::start(&restored);
    assert_eq!(shard.listed("t"), ids(20..32));
    // The second copies are made by then.
    scrubbed_once(&shard, &restored);
    shard.kill();
    let whole = verify_snapshots(&restored, vouch_commitlog::LogPosition(4 << 20), &mut |_| ()).unwrap();
    assert!(whole.damage.is_empty() && whole.to_be_made.is_empty(), "{whole:?}");
}

#[test]
fn progress_goes_from_nothing_to_all_of_each_step_and_never_back() {
    let folder = tempfile::tempdir().unwrap();
    let (data, target, restored) =
        (stopped(folder.path()), folder.path().join("backup"), folder.path().join("restored"));
    let check = |what: &str, told: Vec<BackupProgress>| {
        for step in [BackupStep::Files, BackupStep::Log] {
            let of_step: Vec<_> = told.iter().filter(|progress| progress.step == step).collect();
            let (Some(first), Some(last)) = (of_step.first(), of_step.last()) else { panic!("{what}: {step:?}") };
            assert!(of_step.is_sorted_by_key(|progress| progress.done_bytes), "{what}: {step:?}");
            assert!(of_step.iter().all(|progress| progress.total_bytes == first.total_bytes), "{what}: {step:?}");
            assert_eq!(last.done_bytes, last.total_bytes, "{what}: {step:?}");
        }
        let steps: Vec<_> = told.iter().map(|progress| progress.step == BackupStep::Log).collect();
        assert!(steps.is_sorted(), "{what}: the log comes behind the files");
    };
    let mut told = Vec::new();
    backup(&data, &target, &mut |progress| told.push(progress)).unwrap();
    check("backup", std::mem::take(&mut told));
    check_backup(&target, &mut |progress| told.push(progress)).unwrap();
    check("check", std::mem::take(&mut told));
    restore(&target, &restored, &mut |progress| told.push(progress)).unwrap();
    check("restore", told);
}

#[test]
fn a_log_in_which_nothing_is_known_to_be_durable_cannot_be_backed_up_yet() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // As a node that has just begun: nothing but the header is there.
    let opened = open(&config(&data)).unwrap();
    fs::copy(data.join("identity.part"), data.join("identity.json")).unwrap();
    let error = take(&data, &folder.path().join("backup")).unwrap_err();
    assert!(matches!(error, BackupError::NothingDurable), "{error}");
    drop(opened);
    assert!(!folder.path().join("backup").exists());
}

#[test]
fn a_running_shard_is_copied_up_to_its_last_mark_and_a_killed_one_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut shard = Shard::start(&data);
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.fill(topic, 0..3);
    shard.mark();
    shard.fill(topic, 3..4);
    let (running, killed) = (folder.path().join("running"), folder.path().join("killed"));
    let taken = take(&data, &running).unwrap();
    assert!(taken.node_was_running && taken.log_end < shard.reader.end(), "{taken:?}");
    let end = shard.reader.end();
    shard.kill();
    let taken = take(&data, &killed).unwrap();
    assert_eq!((taken.node_was_running, taken.log_end), (false, end));
    for (from, expected) in [(running, ids(0..3)), (killed, ids(0..4))] {
        let restored = from.with_extension("restored");
        put_back(&from, &restored).unwrap();
        still_has(&restored, &expected);
    }
}

#[test]
fn components_that_are_whole_are_in_a_backup_and_those_that_are_not_are_left_to_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path());
    let components = data.join(COMPONENTS);
    fs::create_dir_all(&components).unwrap();
    let store = vouch_registry::ArtifactStore::open(&components).unwrap();
    let whole = store.put(b"a component").unwrap();
    let damaged = store.put(b"another one").unwrap();
    let path = |folder: &Path, digest: &vouch_registry::Digest| {
        folder.join(COMPONENTS).join(format!("{}.wasm", digest.to_string().trim_start_matches("sha256:")))
    };
    flip(&path(&data, &damaged), 3);
    fs::write(components.join("notes.wasm"), "mine").unwrap();
    let (target, restored) = (folder.path().join("backup"), folder.path().join("restored"));
    take(&data, &target).unwrap();
    put_back(&target, &restored).unwrap();
    for copy in [&target, &restored] {
        assert_eq!(files(&copy.join(COMPONENTS)), [path(copy, &whole)]);
    }
    assert_eq!(fs::read(path(&restored, &whole)).unwrap(), b"a component");
}

#[test]
fn a_damaged_log_can_be_read_and_not_be_backed_up() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut shard = Shard::start(&data);
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.fill(topic, 0..4);
    shard.stop();
    let file = damage(&data, "m001");
    let error = take(&data, &folder.path().join("backup")).unwrap_err();
    assert!(matches!(&error, BackupError::SourceDamaged(why) if why.contains(file.to_str().unwrap())), "{error}");
    assert!(error.to_string().contains("log verify"), "{error}");
    assert!(!folder.path().join("backup").exists());
}

#[test]
fn a_restore_takes_a_folder_that_is_there_and_empty_and_leaves_one_alone_that_somebody_holds() {
    let folder = tempfile::tempdir().unwrap();
    let (data, target, restored) =
        (stopped(folder.path()), folder.path().join("backup"), folder.path().join("restored"));
    take(&data, &target).unwrap();
    fs::create_dir(&restored).unwrap();
    let held = File::open(&restored).unwrap();
    held.lock().unwrap();
    let error = put_back(&target, &restored).unwrap_err();
    assert!(matches!(error, BackupError::NotEmpty { .. }), "{error}");
    drop(held);
    // What every new file system has is nothing.
    fs::create_dir(restored.join("lost+found")).unwrap();
    put_back(&target, &restored).unwrap_err();
    fs::remove_dir(restored.join("lost+found")).unwrap();
    put_back(&target, &restored).unwrap();
    still_has(&restored, &ids(0..20));
    // Folders above it that are missing are made.
    let deep = folder.path().join("a/b/c");
    put_back(&target, &deep).unwrap();
    still_has(&deep, &ids(0..20));
    let left: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| !path.to_string_lossy().contains("restoring")), "{left:?}");
}

/// What a restore leaves that was killed while it copied beside the folder may be as large as the backup.
#[test]
fn what_a_restore_left_that_was_killed_goes_with_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let (data, target, restored) =
        (stopped(folder.path()), folder.path().join("backup"), folder.path().join("restored"));
    take(&data, &target).unwrap();
    let beside = |name: &str| folder.path().join(name);
    let [killed, running, others, no_number] =
        [".restored.restoring-77", ".restored.restoring-78", ".other.restoring-77", ".restored.restoring-7x"]
            .map(beside);
    for left in [&killed, &running, &others, &no_number] {
        fs::create_dir_all(left.join("shards/0/log")).unwrap();
    }
    let held = File::open(&running).unwrap();
    held.lock().unwrap();
    put_back(&target, &restored).unwrap();
    still_has(&restored, &ids(0..20));
    assert!(!killed.exists());
    assert!(running.exists(), "it is under way");
    assert!(others.exists() && no_number.exists(), "these are nobody's restores into this folder");
}

/// What a restore leaves that was killed while it copied into the folder itself.
#[test]
fn a_restore_that_was_cut_short_is_refused_by_a_start_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let hidden = data.join(".restoring-77");
    fs::create_dir_all(hidden.join("shards/0/log")).unwrap();
    let error = refused(&config(&data));
    assert!(error.to_string().contains(".restoring-77 is left of it"), "{error}");
    fs::remove_dir_all(&hidden).unwrap();
    Shard::start(&data).stop();
    // Half of what it renames at its end: the log is there, and whose it is was to come last.
    fs::remove_file(data.join("identity.json")).unwrap();
    let error = refused(&config(&data)).to_string();
    assert!(error.contains("identity.json") && error.contains("restore it from a backup"), "{error}");
    assert!(segment(&data, 0).exists());
}
