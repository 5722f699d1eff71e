//! Backups of a node that serves. What else is in one, and what is never restored, is tested where backups are made.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{config, half, message, prepare, receive, receive_now, send, topic};
use vouch_broker::record::EndedBy;
use vouch_broker::{TransactionId, TransactionOutcome};
use vouch_commitlog::{LogFolder, LogPosition};
use vouch_node::{EndRequest, Node, NodeConfig, PluginUpload, TransactionState};
use vouch_storage::{Backup, BackupError, BackupProgress, backup, check_backup, restore};

const MIB: usize = 1 << 20;

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

/// Snapshots only on a stop, or for every mebibyte of log.
fn snapshots(folder: &Path, often: bool) -> NodeConfig {
    NodeConfig { snapshot_every: if often { 1 << 20 } else { 1 << 40 }, ..config(folder) }
}

async fn end(node: &Node, transaction: TransactionId, outcome: TransactionOutcome) {
    let by = EndedBy::Operator { name: "test".to_owned() };
    let request = EndRequest { topic: None, message_id: None, transaction, outcome, by, reason: String::new() };
    node.transactions.end(request).await.unwrap();
}

/// Waits until the log itself says that everything acknowledged so far is durable.
async fn covered(node: &Node, data: &Path) {
    let durable = node.status.numbers().await.unwrap().durable;
    while log_of(data).verify(LogPosition(0), &mut |_| ()).unwrap().durable < durable {
        tokio::task::yield_now().await;
    }
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
