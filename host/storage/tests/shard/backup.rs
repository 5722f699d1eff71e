//! Backups: what is in them, what is not, and what is never restored.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use vouch_commitlog::{LogFolder, LogPosition};
use vouch_storage::{Backup, BackupError, BackupProgress, BackupStep, backup, check_backup, restore};

use crate::common::{MIB, SEGMENT, Shard, files, ids, still_has, stopped};

fn quiet() -> impl FnMut(BackupProgress) {
    |_| ()
}

fn take(data: &Path, target: &Path) -> Result<Backup, BackupError> {
    backup(data, target, &mut quiet())
}

fn put_back(from: &Path, to: &Path) -> Result<Backup, BackupError> {
    restore(from, to, &mut quiet()).map(|restored| restored.backup)
}

fn check(from: &Path) -> Result<Backup, BackupError> {
    check_backup(from, &mut quiet())
}

fn log_of(data: &Path) -> LogFolder {
    LogFolder::open(&data.join("shards/0/log")).unwrap()
}

#[test]
fn what_no_mark_covers_is_left_out_while_a_node_runs_and_taken_when_none_does() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path());
    fs::remove_dir_all(data.join("shards/0/snapshots")).unwrap();
    let found = log_of(&data).verify(LogPosition(0), &mut |_| ()).unwrap();
    // The mark of the stop tells that all before it is durable, and is itself covered by none.
    assert!(found.durable < found.end);
    let stopped = take(&data, &folder.path().join("stopped")).unwrap();
    assert_eq!((stopped.log_end, stopped.node_was_running), (found.end, false));
    let lock = File::open(data.join("lock")).unwrap();
    lock.lock().unwrap();
    let running = take(&data, &folder.path().join("running")).unwrap();
    assert_eq!((running.log_end, running.node_was_running), (found.durable, true));
    drop(lock);
    for backup in ["stopped", "running"] {
        let restored = folder.path().join(format!("restored-{backup}"));
        put_back(&folder.path().join(backup), &restored).unwrap();
        still_has(&restored, &ids(0..20));
    }
}

#[test]
fn a_backup_is_as_sparse_as_its_source_and_a_restored_node_can_be_backed_up() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path());
    let (first, second, restored) =
        (folder.path().join("first"), folder.path().join("second"), folder.path().join("restored"));
    let taken = take(&data, &first).unwrap();
    fs::create_dir(&restored).unwrap();
    put_back(&first, &restored).unwrap();
    for copy in [&first, &restored] {
        let logs = files(&copy.join("shards/0/log"));
        assert_eq!(logs.len(), 3);
        assert!(logs.iter().all(|log| fs::metadata(log).unwrap().len() == SEGMENT));
        let occupied: u64 = logs.iter().map(|log| fs::metadata(log).unwrap().blocks() * 512).sum();
        assert!(occupied < taken.log_end.0 + MIB as u64, "{occupied} bytes are occupied");
    }
    let again = take(&restored, &second).unwrap();
    assert_eq!((again.log_end, again.snapshot, again.node_was_running), (taken.log_end, taken.snapshot, false));
}

#[test]
fn whatever_is_wrong_with_a_backup_it_is_refused_and_nothing_appears() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path());
    let (target, restored) = (folder.path().join("backup"), folder.path().join("restored"));
    take(&data, &target).unwrap();
    let refused = |case: &str, sentence: &str| {
        for error in [check(&target).unwrap_err(), put_back(&target, &restored).unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains(sentence), "{case}: {error}");
        }
        assert!(!restored.exists(), "{case}");
        assert_eq!(files(folder.path()).len(), files(&data).len() + files(&target).len(), "{case}: nothing is left");
    };
    for file in files(&target) {
        let (name, bytes) = (file.display().to_string(), fs::read(&file).unwrap());
        for at in [0, bytes.len() / 2, bytes.len() - 2] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            fs::write(&file, flipped).unwrap();
            refused(&format!("{name}: byte {at} flipped"), "damaged");
        }
        fs::write(&file, &bytes[..bytes.len() - 2]).unwrap();
        refused(&format!("{name}: truncated"), "damaged");
        fs::remove_file(&file).unwrap();
        let manifest = file.ends_with("backup.json");
        refused(&format!("{name}: missing"), if manifest { "is no backup" } else { "it is missing" });
        fs::write(&file, &bytes).unwrap();
    }
    let manifest = target.join("backup.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    refused("another version", "format version 2");
    fs::write(&manifest, text.replace("identity.json", "../dentity.js")).unwrap();
    refused("a path that leads out", "damaged");
    fs::write(&manifest, text).unwrap();
    put_back(&target, &restored).unwrap();
}

#[test]
fn folders_that_hold_something_or_are_not_a_nodes_are_refused_and_left_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path());
    let (target, other) = (folder.path().join("backup"), folder.path().join("other"));
    fs::create_dir(&other).unwrap();
    fs::write(other.join("precious"), "mine").unwrap();
    assert!(matches!(take(&data, &other), Err(BackupError::NotEmpty { .. })));
    assert!(matches!(take(&other, &target), Err(BackupError::NotANode { .. })));
    assert!(matches!(take(&folder.path().join("nowhere"), &target), Err(BackupError::NotANode { .. })));
    assert!(matches!(take(&data, &data.join("backup")), Err(BackupError::InsideDataFolder(_))));
    assert!(!target.exists() && !data.join("backup").exists());
    take(&data, &target).unwrap();
    assert!(matches!(take(&data, &target), Err(BackupError::NotEmpty { .. })));
    assert!(matches!(put_back(&target, &other), Err(BackupError::NotEmpty { .. })));
    assert!(matches!(put_back(&other, &folder.path().join("restored")), Err(BackupError::NoBackup(_))));
    assert_eq!(files(&other), [other.join("precious")]);
    check(&target).expect("a refused backup leaves the one that is there alone");
}

#[test]
fn a_damaged_log_is_told_and_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path());
    let target = folder.path().join("backup");
    for segment in [0, 2 * SEGMENT] {
        let file = data.join(format!("shards/0/log/{segment:020}.log"));
        let sound = fs::read(&file).unwrap();
        let mut bytes = sound.clone();
        bytes[MIB] ^= 1;
        fs::write(&file, bytes).unwrap();
        let error = take(&data, &target).unwrap_err();
        assert!(matches!(&error, BackupError::SourceDamaged(_)), "{error}");
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
        assert!(!target.exists());
        fs::write(&file, sound).unwrap();
    }
    // Nobody releases segments of a folder on which no node runs: one that is missing at the beginning is lost.
    fs::remove_file(data.join(format!("shards/0/log/{:020}.log", 0))).unwrap();
    let error = take(&data, &target).unwrap_err();
    assert!(matches!(&error, BackupError::SourceDamaged(_)), "{error}");
    assert!(error.to_string().contains("needs it from"), "{error}");
}

/// Calls `once` when so many bytes are copied.
fn at_byte(bytes: u64, once: impl FnOnce()) -> impl FnMut(BackupProgress) {
    let mut once = Some(once);
    move |progress| {
        if progress.step == BackupStep::Files
            && progress.done_bytes >= bytes
            && let Some(once) = once.take()
        {
            once();
        }
    }
}

/// A stopped shard whose snapshot refers to nothing that was there before.
fn emptied(folder: &Path) -> PathBuf {
    let data = stopped(folder);
    let mut shard = Shard::start(&data);
    shard.delete("t");
    let late = shard.topic("late", r#"{"queues": 1}"#);
    // More than a stop thinks worth a snapshot.
    shard.fill(late, 20..40);
    shard.stop();
    data
}

#[test]
fn a_segment_that_is_released_or_used_again_meanwhile_lets_the_copy_begin_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = emptied(folder.path());
    let log = data.join("shards/0/log");
    let (first, second) = (log.join(format!("{:020}.log", 0)), log.join(format!("{SEGMENT:020}.log")));
    let spare = log.join(format!("{:020}.spare", 0));
    // Before it was copied.
    let target = folder.path().join("released");
    let mut release = at_byte(1, || fs::rename(&first, &spare).unwrap());
    let taken = backup(&data, &target, &mut release).unwrap();
    assert_eq!(taken.log_start.0, SEGMENT);
    assert_eq!(check(&target).unwrap(), taken);
    // While it is copied: it is used again for other bytes, under another name.
    let target = folder.path().join("used-again");
    let mut reuse = at_byte(2 * MIB as u64, || {
        let file = File::options().write(true).open(&second).unwrap();
        fs::rename(&second, log.join(format!("{SEGMENT:020}.spare"))).unwrap();
        file.set_len(0).unwrap();
        file.set_len(SEGMENT).unwrap();
    });
    let taken = backup(&data, &target, &mut reuse).unwrap();
    assert_eq!(taken.log_start.0, 2 * SEGMENT);
    assert_eq!(check(&target).unwrap(), taken);
}

#[test]
fn a_snapshot_that_is_tidied_away_meanwhile_lets_the_copy_begin_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path());
    let target = folder.path().join("backup");
    let mut tidy = at_byte(1, || fs::remove_dir_all(data.join("shards/0/snapshots")).unwrap());
    let taken = backup(&data, &target, &mut tidy).unwrap();
    assert_eq!((taken.log_start, taken.snapshot), (LogPosition::START, None));
    let restored = folder.path().join("restored");
    put_back(&target, &restored).unwrap();
    still_has(&restored, &ids(0..20));
}

#[test]
fn a_folder_that_never_holds_still_is_given_up_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path());
    fs::remove_dir_all(data.join("shards/0/snapshots")).unwrap();
    fs::remove_file(data.join(format!("shards/0/log/{:020}.log", 0))).unwrap();
    let target = folder.path().join("backup");
    // Where no node runs nobody changes anything: something is lost.
    let error = take(&data, &target).unwrap_err();
    assert!(matches!(&error, BackupError::SourceDamaged(_)), "{error}");
    // As a node that runs.
    let lock = File::open(data.join("lock")).unwrap();
    lock.lock().unwrap();
    let error = take(&data, &target).unwrap_err();
    assert!(matches!(error, BackupError::KeptChanging { .. }), "{error}");
    assert!(error.to_string().contains("no snapshot can be read"), "{error}");
    assert!(!target.exists());
}
