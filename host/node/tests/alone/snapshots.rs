//! Snapshots of a node that serves, and a start that can use none.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{config, half, message, prepare, receive, receive_now, send, topic};
use vouch_broker::{ResourceName, TransactionId, TransactionOutcome};
use vouch_commitlog::LogPosition;
use vouch_node::{EndRequest, Node, NodeConfig, TransactionState};
use vouch_storage::verify_snapshots;

const MIB: usize = 1 << 20;

/// Snapshots only on a stop.
fn rarely(folder: &Path) -> NodeConfig {
    NodeConfig { snapshot_every: 1 << 40, ..config(folder) }
}

/// A snapshot for every mebibyte of log.
fn often(folder: &Path) -> NodeConfig {
    NodeConfig { snapshot_every: 1 << 20, ..config(folder) }
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(folder.join("shards/0/snapshots")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = all.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

/// Ten mebibytes of messages, some of them consumed, and transactions in every state.
async fn fill(node: &Node) -> Vec<TransactionId> {
    topic(node, "t", r#"{"queues":2}"#).await;
    topic(node, "x", r#"{"type":"transaction","transaction":{"immunity":"1h","interval":"1h"}}"#).await;
    let mut transactions = Vec::new();
    for n in 0..20 {
        send(node, "t", message(&format!("m{n}"), &"b".repeat(MIB / 2))).await;
        transactions.push(prepare(node, "x", half(&format!("h{n}"), "half")).await);
        if n == 10 {
            let first = node.messages.receive(receive("t", "g")).await.unwrap();
            node.messages.ack(&[first[0].handle]).await.unwrap();
        }
    }
    end(node, transactions[3], TransactionOutcome::Committed).await;
    end(node, transactions[4], TransactionOutcome::RolledBack).await;
    transactions
}

async fn end(node: &Node, transaction: TransactionId, outcome: TransactionOutcome) {
    let request = EndRequest {
        transaction,
        outcome,
        topic: Some(ResourceName::plain("x")),
        message_id: None,
        by: vouch_broker::record::EndedBy::Operator { name: "test".to_owned() },
        reason: "test".to_owned(),
    };
    node.transactions.end(request).await.unwrap();
}

/// Everything that [`fill`] wrote is there, and goes on from where it was.
async fn check(node: &Node, transactions: &[TransactionId]) {
    let state = async |n: usize| node.transactions.get(transactions[n]).await.unwrap().state;
    assert_eq!(state(3).await, TransactionState::Committed);
    assert_eq!(state(4).await, TransactionState::RolledBack);
    assert_eq!(state(5).await, TransactionState::Open);
    let mut ids: Vec<_> = receive_now(node, "t", "newcomer")
        .await
        .into_iter()
        .map(|delivery| delivery.message.message.message_id)
        .collect();
    ids.sort();
    let mut sent: Vec<_> = (0..20).map(|n| format!("m{n}")).collect();
    sent.sort();
    assert_eq!(ids, sent);
    assert_eq!(receive_now(node, "x", "newcomer").await.len(), 1, "one transaction was committed");
    let progress = node.settings.progress("g").await.unwrap();
    let lag: u64 = progress.iter().filter(|topic| topic.topic == "t").map(|topic| topic.lag).sum();
    assert_eq!(lag, 19, "one message was acknowledged");
}

#[tokio::test]
async fn a_start_that_can_use_no_snapshot_makes_one_at_once_and_takes_away_what_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(rarely(folder.path())).unwrap();
    let transactions = fill(&node).await;
    node.stop().await;
    drop(node);
    let copies = [files(folder.path(), "snapshot"), files(folder.path(), "snapshot2")].concat();
    assert_eq!(copies.len(), 2, "one snapshot, twice");
    for copy in &copies {
        let mut bytes = fs::read(copy).unwrap();
        bytes[60] ^= 1;
        fs::write(copy, bytes).unwrap();
    }
    let damaged = || verify_snapshots(folder.path(), LogPosition(0), &mut |_| ()).unwrap().damage.len();
    assert_eq!(damaged(), 2);
    let node = Node::start(rarely(folder.path())).unwrap();
    assert!(node.status.recovery().unwrap().scanned_bytes > 9 * MIB as u64, "all of the log was read");
    // Nobody sends anything.
    let began = Instant::now();
    while damaged() > 0 || copies.iter().any(|copy| copy.exists()) {
        assert!(began.elapsed() < Duration::from_secs(60), "the damaged snapshot is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    check(&node, &transactions).await;
    node.stop().await;
    drop(node);
    let node = Node::start(rarely(folder.path())).unwrap();
    let scanned = node.status.recovery().unwrap().scanned_bytes;
    assert!(scanned < MIB as u64, "{scanned} bytes were read");
    node.stop().await;
}

#[tokio::test]
async fn a_snapshot_made_while_serving_changes_nothing_that_anybody_sees() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(often(folder.path())).unwrap();
    let transactions = fill(&node).await;
    // The log is 10 MiB long and each snapshot covers the next one: the last is on its way, earlier ones are there.
    while files(folder.path(), "snapshot").is_empty() {
        tokio::task::yield_now().await;
    }
    check(&node, &transactions).await;
    node.stop().await;
    drop(node);
    assert!(files(folder.path(), "snapshot").len() <= 2, "older ones are removed");
    let node = Node::start(often(folder.path())).unwrap();
    let scanned = node.status.recovery().unwrap().scanned_bytes;
    assert!(scanned < 9 * MIB as u64, "{scanned} bytes were read");
    let names = node.settings.topics(None, 10).await.unwrap().into_iter().map(|(topic, _)| topic.name.to_string());
    assert_eq!(names.collect::<Vec<_>>(), ["t", "x"]);
    assert_eq!(receive_now(&node, "t", "another").await.len(), 20);
    node.stop().await;
}
