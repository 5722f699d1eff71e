//! Starts from snapshots: what they read, and what happens when a snapshot is damaged or is not this log's.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{config, half, message, prepare, receive, receive_now, send, topic};
use vouch_broker::{ResourceName, TransactionOutcome};
use vouch_node::{EndRequest, Node, NodeConfig, StartError, StartProgress, StartStep, TransactionState};
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
async fn fill(node: &Node) -> Vec<u64> {
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

async fn end(node: &Node, transaction: u64, outcome: TransactionOutcome) {
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
async fn check(node: &Node, transactions: &[u64]) {
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
async fn after_a_stop_the_next_start_reads_the_snapshot_and_almost_nothing_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(rarely(folder.path())).unwrap();
    let transactions = fill(&node).await;
    node.stop().await;
    drop(node);
    assert_eq!((files(folder.path(), "snapshot").len(), files(folder.path(), "part").len()), (1, 1));
    let node = Node::start(rarely(folder.path())).unwrap();
    let scanned = node.status.recovery().unwrap().scanned_bytes;
    assert!(scanned < 4096, "{scanned} bytes were read");
    check(&node, &transactions).await;
    node.stop().await;
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
    let damaged = || verify_snapshots(folder.path(), 0, &mut |_| ()).unwrap().damage.len();
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
async fn a_start_that_is_given_up_says_how_far_it_was_and_changes_nothing_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(rarely(folder.path())).unwrap();
    let transactions = fill(&node).await;
    node.stop().await;
    drop(node);
    // So that there is something to replay.
    fs::remove_dir_all(folder.path().join("shards/0/snapshots")).unwrap();
    let log = || -> Vec<_> {
        let files = fs::read_dir(folder.path().join("shards/0/log")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.map(|path| (fs::read(&path).unwrap(), path)).collect();
        files.sort();
        files
    };
    let before = log();
    let progress = StartProgress::default();
    progress.give_up();
    let refused = Node::start_watched(rarely(folder.path()), &progress).err().unwrap();
    assert!(matches!(refused, StartError::GivenUp), "{refused}");
    let StartStep::Replaying { replayed_bytes: 0, total_bytes } = progress.step() else { panic!("{progress:?}") };
    // The folder's settings: segments of 4 MiB.
    assert!((10 << 20..20 << 20).contains(&total_bytes), "{total_bytes}");
    assert!(log() == before);
    let progress = StartProgress::default();
    let node = Node::start_watched(rarely(folder.path()), &progress).unwrap();
    assert_eq!(progress.step(), StartStep::Beginning);
    check(&node, &transactions).await;
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

#[tokio::test]
async fn a_damaged_snapshot_or_part_is_passed_over_and_the_log_is_read_instead() {
    for extension in ["snapshot", "part"] {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(rarely(folder.path())).unwrap();
        let transactions = fill(&node).await;
        node.stop().await;
        drop(node);
        // Both copies.
        for extension in [extension.to_owned(), format!("{extension}2")] {
            let [file] = files(folder.path(), &extension).try_into().unwrap();
            let mut bytes = fs::read(&file).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&file, bytes).unwrap();
        }
        let node = Node::start(rarely(folder.path())).unwrap();
        assert!(node.status.recovery().unwrap().scanned_bytes > 10 * MIB as u64, "{extension}: the whole log was read");
        check(&node, &transactions).await;
        node.stop().await;
    }
}

#[tokio::test]
async fn a_snapshot_of_another_log_is_passed_over() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = Node::start(rarely(other.path())).unwrap();
    fill(&node).await;
    node.stop().await;
    let node = Node::start(rarely(folder.path())).unwrap();
    let transactions = fill(&node).await;
    for n in 0..10 {
        send(&node, "x", half(&format!("more{n}"), &"b".repeat(MIB / 2))).await;
    }
    node.stop().await;
    drop(node);
    fs::remove_dir_all(folder.path().join("shards/0/snapshots")).unwrap();
    fs::create_dir(folder.path().join("shards/0/snapshots")).unwrap();
    for extension in ["snapshot", "part"] {
        for file in files(other.path(), extension) {
            fs::copy(&file, folder.path().join("shards/0/snapshots").join(file.file_name().unwrap())).unwrap();
        }
    }
    let node = Node::start(rarely(folder.path())).unwrap();
    check(&node, &transactions).await;
    node.stop().await;
}

#[tokio::test]
async fn a_log_that_lost_what_its_snapshot_covers_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(rarely(folder.path())).unwrap();
    topic(&node, "t", "{}").await;
    send(&node, "t", message("early", "x")).await;
    node.stop().await;
    drop(node);
    let log = folder.path().join("shards/0/log");
    let old = folder.path().join("old-log");
    copy_tree(&log, &old);
    let node = Node::start(rarely(folder.path())).unwrap();
    for n in 0..20 {
        send(&node, "t", message(&format!("m{n}"), &"b".repeat(MIB / 2))).await;
    }
    node.stop().await;
    drop(node);
    fs::remove_dir_all(&log).unwrap();
    fs::rename(&old, &log).unwrap();
    let error = Node::start(rarely(folder.path())).err().expect("what was acknowledged is gone").to_string();
    assert!(error.contains("durable") || error.contains("missing"), "{error}");
}

/// A log that was put back without its snapshots may have another history up to where they end.
#[tokio::test]
async fn a_snapshot_of_another_history_is_never_gone_on_from() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = Node::start(rarely(other.path())).unwrap();
    topic(&node, "t", "{}").await;
    topic(&node, "x", r#"{"type":"transaction","transaction":{"immunity":"1h","interval":"1h"}}"#).await;
    let transaction = prepare(&node, "x", half("h", "half")).await;
    node.stop().await;
    drop(node);
    let here = folder.path().join("data");
    copy_tree(other.path(), &here);

    // Two histories of the same length: committed there, rolled back here.
    let mut ends = Vec::new();
    for (data, outcome) in [(other.path(), TransactionOutcome::Committed), (&here, TransactionOutcome::RolledBack)] {
        let node = Node::start(rarely(data)).unwrap();
        end(&node, transaction, outcome).await;
        for n in 0..20 {
            send(&node, "t", message(&format!("m{n:02}"), &"b".repeat(MIB / 2))).await;
        }
        ends.push(node.status.numbers().await.unwrap().appended);
        node.stop().await;
    }
    // This one is longer, so that there is something to go on with.
    let node = Node::start(rarely(&here)).unwrap();
    for n in 20..40 {
        send(&node, "t", message(&format!("m{n:02}"), &"b".repeat(MIB / 2))).await;
    }
    node.stop().await;
    drop(node);
    fs::remove_dir_all(here.join("shards/0/snapshots")).unwrap();
    copy_tree(&other.path().join("shards/0/snapshots"), &here.join("shards/0/snapshots"));
    println!("the histories end at {ends:?}");

    for round in 0..3 {
        let node = Node::start(rarely(&here)).unwrap();
        let state = node.transactions.get(transaction).await.unwrap().state;
        assert_eq!(state, TransactionState::RolledBack, "start {round}");
        // Enough for another snapshot on the stop.
        for n in 0..20 {
            send(&node, "t", message(&format!("r{round}-{n:02}"), &"b".repeat(MIB / 2))).await;
        }
        node.stop().await;
        drop(node);
        assert!(files(&here, "snapshot").len() <= 2, "the other history's is gone");
    }
    let node = Node::start(rarely(&here)).unwrap();
    assert!(node.status.recovery().unwrap().scanned_bytes < 4096, "there is a snapshot of this history");
    assert_eq!(node.transactions.get(transaction).await.unwrap().state, TransactionState::RolledBack);
    node.stop().await;
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}
