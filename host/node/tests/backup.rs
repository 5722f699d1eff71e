//! Backups: what is in them, what is not, and what is never restored.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{config, half, message, prepare, receive, receive_now, send, topic};
use vouch_broker::TransactionOutcome;
use vouch_broker::record::EndedBy;
use vouch_commitlog::{LogFolder, LogPosition};
use vouch_node::{EndRequest, Node, NodeConfig, PluginUpload, TransactionState};
use vouch_storage::{Backup, BackupError, BackupProgress, BackupStep, backup, check_backup, restore};

const MIB: usize = 1 << 20;
const SEGMENT: u64 = 4 << 20;

fn quiet() -> impl FnMut(BackupProgress) {
    |_| ()
}

fn take(data: &Path, target: &Path) -> Result<Backup, BackupError> {
    backup(data, target, &mut quiet())
}

fn put_back(from: &Path, to: &Path) -> Result<Backup, BackupError> {
    restore(from, to, &mut quiet())
}

fn check(from: &Path) -> Result<Backup, BackupError> {
    check_backup(from, &mut quiet())
}

fn log_of(data: &Path) -> LogFolder {
    LogFolder::open(&data.join("shards/0/log")).unwrap()
}

/// Snapshots only on a stop, or for every mebibyte of log.
fn snapshots(folder: &Path, often: bool) -> NodeConfig {
    NodeConfig { snapshot_every: if often { 1 << 20 } else { 1 << 40 }, ..config(folder) }
}

async fn end(node: &Node, transaction: u64, outcome: TransactionOutcome) {
    let by = EndedBy::Operator { name: "test".to_owned() };
    let request = EndRequest { topic: None, message_id: None, transaction, outcome, by, reason: String::new() };
    node.transactions.end(request).await.unwrap();
}

/// Waits until the log itself says that everything acknowledged so far is durable.
async fn covered(node: &Node, data: &Path) {
    let durable = node.status.numbers().await.unwrap().durable;
    while log_of(data).verify(LogPosition(0), &mut |_| ()).unwrap().durable.0 < durable {
        tokio::task::yield_now().await;
    }
}

/// A stopped node's folder with 10 MiB of log in three segments, and a snapshot of all of it.
async fn stopped(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    let node = Node::start(snapshots(&data, false)).unwrap();
    topic(&node, "t", "{}").await;
    for n in 0..20 {
        send(&node, "t", message(&format!("m{n}"), &"b".repeat(MIB / 2))).await;
    }
    node.stop().await;
    data
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_node_under_load_is_copied_and_nothing_acknowledged_is_missing() {
    for often in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (data, target, restored) =
            (folder.path().join("data"), folder.path().join("backup"), folder.path().join("restored"));
        let node = Node::start(snapshots(&data, often)).unwrap();
        topic(&node, "t", r#"{"queues":2}"#).await;
        topic(&node, "later", "{}").await;
        topic(&node, "x", r#"{"type":"transaction","transaction":{"max_checks":0}}"#).await;
        let component = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
        let wasm = fs::read(component).unwrap().into();
        let upload = PluginUpload { name: "c".to_owned(), tag: "1".to_owned(), wasm, expected: None };
        node.components.upload(upload).await.unwrap();
        for n in 0..12 {
            send(&node, "t", message(&format!("m{n}"), &"b".repeat(MIB / 2))).await;
        }
        let mut transactions = Vec::new();
        for n in 0..3 {
            transactions.push(prepare(&node, "x", half(&format!("h{n}"), "half")).await);
        }
        end(&node, transactions[0], TransactionOutcome::Committed).await;
        end(&node, transactions[1], TransactionOutcome::RolledBack).await;
        // Three were received: one is done, one is in hand, and the third came with them.
        let in_hand = node.messages.receive(vouch_node::ReceiveRequest { max: 3, ..receive("t", "g") }).await.unwrap();
        assert!(in_hand.len() >= 2);
        node.messages.ack(&[in_hand[0].handle]).await.unwrap();
        let receive_lag = lag(&node).await;
        covered(&node, &data).await;

        let stop = Arc::new(AtomicBool::new(false));
        let load = tokio::spawn({
            let (node, stop) = (node.clone(), stop.clone());
            async move {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    send(&node, "later", message(&format!("l{sent}"), &"c".repeat(MIB / 8))).await;
                    sent += 1;
                }
                sent
            }
        });
        let taken = tokio::task::spawn_blocking({
            let (data, target) = (data.clone(), target.clone());
            move || take(&data, &target).unwrap()
        });
        let taken = taken.await.unwrap();
        stop.store(true, Ordering::Relaxed);
        let sent = load.await.unwrap();
        assert!(taken.node_was_running);
        assert!(taken.log_end <= node.status.numbers().await.unwrap().durable);
        let names: Vec<_> =
            files(&target).into_iter().map(|file| file.strip_prefix(&target).unwrap().to_owned()).collect();
        assert!(names.iter().any(|name| name.starts_with("plugins/components")), "{names:?}");
        assert!(!names.iter().any(|name| name.ends_with("lock")), "{names:?}");
        node.stop().await;
        drop(node);

        assert_eq!(check(&target).unwrap(), taken);
        assert_eq!(put_back(&target, &restored).unwrap(), taken);
        let node = Node::start(snapshots(&restored, often)).unwrap();
        let states = [TransactionState::Committed, TransactionState::RolledBack, TransactionState::Open];
        for (transaction, state) in transactions.iter().zip(states) {
            assert_eq!(node.transactions.get(*transaction).await.unwrap().state, state);
        }
        assert_eq!(receive_now(&node, "x", "newcomer").await.len(), 1);
        assert_eq!(receive_now(&node, "t", "newcomer").await.len(), 12);
        assert_eq!(lag(&node).await, receive_lag, "the group is where it was");
        node.messages.ack(&[in_hand[1].handle]).await.expect("a handle of the original is good here");
        assert_eq!(lag(&node).await, receive_lag - 1);
        end(&node, transactions[2], TransactionOutcome::Committed).await;
        // Of what was sent meanwhile a beginning is there, without a gap.
        let later = receive_now(&node, "later", "g").await;
        let mut numbers: Vec<usize> = later
            .iter()
            .map(|delivery| delivery.message.message.message_id.strip_prefix('l').unwrap().parse().unwrap())
            .collect();
        numbers.sort_unstable();
        assert!(numbers.len() <= sent);
        assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
        node.stop().await;
    }
}

async fn lag(node: &Node) -> u64 {
    node.settings.progress("g").await.unwrap().iter().filter(|topic| topic.topic == "t").map(|topic| topic.lag).sum()
}

#[tokio::test]
async fn what_no_mark_covers_is_left_out_while_a_node_runs_and_taken_when_none_does() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path()).await;
    fs::remove_dir_all(data.join("shards/0/snapshots")).unwrap();
    let found = log_of(&data).verify(LogPosition(0), &mut |_| ()).unwrap();
    // The mark of the stop tells that all before it is durable, and is itself covered by none.
    assert!(found.durable < found.end);
    let stopped = take(&data, &folder.path().join("stopped")).unwrap();
    assert_eq!((stopped.log_end, stopped.node_was_running), (found.end.0, false));
    let lock = File::open(data.join("lock")).unwrap();
    lock.lock().unwrap();
    let running = take(&data, &folder.path().join("running")).unwrap();
    assert_eq!((running.log_end, running.node_was_running), (found.durable.0, true));
    drop(lock);
    for backup in ["stopped", "running"] {
        let restored = folder.path().join(format!("restored-{backup}"));
        put_back(&folder.path().join(backup), &restored).unwrap();
        let node = Node::start(config(&restored)).unwrap();
        assert_eq!(receive_now(&node, "t", "g").await.len(), 20);
        node.stop().await;
    }
}

#[tokio::test]
async fn a_backup_is_as_sparse_as_its_source_and_a_restored_node_can_be_backed_up() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path()).await;
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
        assert!(occupied < taken.log_end + MIB as u64, "{occupied} bytes are occupied");
    }
    let again = take(&restored, &second).unwrap();
    assert_eq!((again.log_end, again.snapshot, again.node_was_running), (taken.log_end, taken.snapshot, false));
}

#[tokio::test]
async fn whatever_is_wrong_with_a_backup_it_is_refused_and_nothing_appears() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path()).await;
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

#[tokio::test]
async fn folders_that_hold_something_or_are_not_a_nodes_are_refused_and_left_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path()).await;
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

#[tokio::test]
async fn a_damaged_log_is_told_and_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path()).await;
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

/// A stopped node whose snapshot refers to nothing that was there before.
async fn emptied(folder: &Path) -> PathBuf {
    let data = stopped(folder).await;
    let node = Node::start(config(&data)).unwrap();
    for (topic, _) in node.settings.topics(None, 100).await.unwrap() {
        node.settings.delete_topic(&topic.name.name, true).await.unwrap();
    }
    for (plugin, _) in node.components.plugins(None, 100).await.unwrap() {
        node.components.delete_plugin(&plugin).await.unwrap();
    }
    topic(&node, "late", "{}").await;
    // More than a stop thinks worth a snapshot.
    for n in 0..20 {
        send(&node, "late", message(&format!("late{n}"), &"b".repeat(MIB / 2))).await;
    }
    node.stop().await;
    data
}

#[tokio::test]
async fn a_segment_that_is_released_or_used_again_meanwhile_lets_the_copy_begin_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = emptied(folder.path()).await;
    let log = data.join("shards/0/log");
    let (first, second) = (log.join(format!("{:020}.log", 0)), log.join(format!("{SEGMENT:020}.log")));
    let spare = log.join(format!("{:020}.spare", 0));
    // Before it was copied.
    let target = folder.path().join("released");
    let mut release = at_byte(1, || fs::rename(&first, &spare).unwrap());
    let taken = backup(&data, &target, &mut release).unwrap();
    assert_eq!(taken.log_start, SEGMENT);
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
    assert_eq!(taken.log_start, 2 * SEGMENT);
    assert_eq!(check(&target).unwrap(), taken);
}

#[tokio::test]
async fn a_snapshot_that_is_tidied_away_meanwhile_lets_the_copy_begin_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path()).await;
    let target = folder.path().join("backup");
    let mut tidy = at_byte(1, || fs::remove_dir_all(data.join("shards/0/snapshots")).unwrap());
    let taken = backup(&data, &target, &mut tidy).unwrap();
    assert_eq!((taken.log_start, taken.snapshot), (0, None));
    let restored = folder.path().join("restored");
    put_back(&target, &restored).unwrap();
    let node = Node::start(config(&restored)).unwrap();
    assert_eq!(receive_now(&node, "t", "g").await.len(), 20);
    node.stop().await;
}

#[tokio::test]
async fn a_folder_that_never_holds_still_is_given_up_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path()).await;
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
