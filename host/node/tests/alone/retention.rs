//! What leaves the log, what stays all the same, and what a full disk does.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::common::{config, half, message, prepare, receive, receive_now, send, topic};
use vouch_broker::record::EndedBy;
use vouch_broker::{
    HalfPosition, NotDone, NothingStored, QueueOffset, Refusal, ResourceName, TopicConfig, TransactionId,
    TransactionOutcome,
};
use vouch_node::{EndRequest, Expect, Node, NodeConfig, PluginUpload, Receipt, SendRequest, TransactionState};
use vouch_storage::{backup, check_backup, restore};

const MIB: usize = 1 << 20;
/// A condition that should come true by itself is given up after this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of log that a sender may be ahead of the newest snapshot. One is due for each mebibyte.
const AHEAD: u64 = 8 << 20;

/// A snapshot for every mebibyte of log, and retention at once.
fn eager(folder: &Path) -> NodeConfig {
    NodeConfig { snapshot_every: 1 << 20, retention_every: Duration::from_millis(20), scrub_rate: 0, ..config(folder) }
}

fn log_start(node: &Node) -> u64 {
    node.status.log_usage().start.0
}

/// Log position that the newest snapshot covers.
fn newest_snapshot(folder: &Path) -> Option<u64> {
    let files = std::fs::read_dir(folder.join("shards/0/snapshots")).unwrap();
    let covered = files.filter_map(|file| file.ok()?.file_name().to_str()?.strip_suffix(".snapshot")?.parse().ok());
    covered.max()
}

async fn send_one(node: &Node, n: usize) -> Result<Receipt, NotDone> {
    let (topic, producer) = (ResourceName::plain("t"), "producer-1".to_owned());
    let messages = vec![message(&format!("m{n}"), &"b".repeat(MIB / 4))];
    node.messages.send(SendRequest { topic, producer, messages }).await.map(|receipts| receipts[0])
}

/// Snapshots, which let go of the log, are not left far behind.
fn may_send(node: &Node, folder: &Path) -> bool {
    node.status.log_usage().end.0 < newest_snapshot(folder).unwrap_or(0) + AHEAD
}

/// Sends a quarter of a mebibyte at a time until this holds; returns the number of the next message.
async fn send_until(node: &Node, folder: &Path, first: usize, done: impl Fn() -> bool) -> usize {
    let began = Instant::now();
    let mut n = first;
    while !done() {
        assert!(began.elapsed() < PATIENCE, "it never comes true, after {} messages", n - first);
        if may_send(node, folder) {
            send_one(node, n).await.unwrap();
            n += 1;
        } else {
            tokio::task::yield_now().await;
        }
    }
    n
}

async fn end(node: &Node, transaction: TransactionId, outcome: TransactionOutcome) -> Result<bool, NotDone> {
    let by = EndedBy::Client { client_id: "producer-1".to_owned(), from_check: false };
    let (topic, reason) = (Some(ResourceName::plain("x")), String::new());
    let request = EndRequest { transaction, outcome, topic, message_id: Some("h".to_owned()), by, reason };
    node.transactions.end(request).await.map(|receipt| receipt.repeated)
}

/// Offsets and ids of everything that a new group gets of topic `t`, which has one queue.
async fn all(node: &Node, group: &str) -> Vec<(u64, String)> {
    let received = receive_now(node, "t", group).await;
    let mut all: Vec<_> = received.into_iter().map(|d| (d.offset.0, d.message.message.message_id)).collect();
    all.sort();
    all
}

/// The newest messages without a gap, down to some offset above 0.
async fn assert_only_the_newest(node: &Node, group: &str, sent: usize) {
    let kept = all(node, group).await;
    let first = kept.first().unwrap().0;
    assert!(first > 0, "nothing expired");
    let expected: Vec<_> = (first..sent as u64).map(|n| (n, format!("m{n}"))).collect();
    assert!(kept == expected, "from {first} to {sent}, {} are there", kept.len());
}

#[tokio::test]
async fn segments_without_anything_that_is_kept_leave_the_log_and_the_rest_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(eager(folder.path())).unwrap();
    topic(&node, "t", r#"{"queues":1,"retention":"1s"}"#).await;
    let sent = send_until(&node, folder.path(), 0, || log_start(&node) >= 8 << 20).await;
    assert!(node.status.retention().expired.load(Ordering::Relaxed) > 0);
    assert_eq!(node.status.retention().missed.load(Ordering::Relaxed), 0);
    // Nothing expires any more from here on, so that what is there now is there later.
    topic(&node, "t", r#"{"queues":1}"#).await;
    assert_only_the_newest(&node, "before", sent).await;
    node.stop().await;
    drop(node);
    let node = Node::start(eager(folder.path())).unwrap();
    assert!(log_start(&node) >= 8 << 20);
    assert_only_the_newest(&node, "after", sent).await;
    node.stop().await;
}

#[tokio::test]
async fn a_topic_keeps_its_newest_messages_up_to_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(eager(folder.path())).unwrap();
    topic(&node, "t", r#"{"queues":1,"retention_size":"2MiB"}"#).await;
    let sent = send_until(&node, folder.path(), 0, || log_start(&node) >= 8 << 20).await;
    let kept = all(&node, "g").await;
    assert!(kept.len() >= 8, "{} messages of a quarter of a mebibyte are less than the size", kept.len());
    assert_eq!(kept.last().unwrap().1, format!("m{}", sent - 1));
    node.stop().await;
}

#[tokio::test]
async fn dead_letters_keep_to_the_retention_of_their_topic() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(eager(folder.path())).unwrap();
    topic(&node, "t", r#"{"queues":1}"#).await;
    let dead_letter = async |n| {
        send_one(&node, n).await.unwrap();
        let held = node.messages.receive(receive("t", "g")).await.unwrap();
        assert_eq!(held.len(), 1);
        node.messages.forward_to_dead_letter(held[0].handle, "in vain").await.unwrap();
    };
    dead_letter(0).await;
    let made = node.settings.topic(&ResourceName::plain("%DLQ%g")).await.unwrap().config;
    let config = TopicConfig { retention_size: Some(2 << 20), ..made };
    node.settings.put_topic("%DLQ%g", config, Expect::Anything).await.unwrap();
    let (began, mut dead) = (Instant::now(), 1);
    while node.status.retention().expired.load(Ordering::Relaxed) == 0 {
        assert!(began.elapsed() < PATIENCE, "none of {dead} dead letters expires");
        if may_send(&node, folder.path()) {
            dead_letter(dead).await;
            dead += 1;
        } else {
            tokio::task::yield_now().await;
        }
    }
    let kept = receive_now(&node, "%DLQ%g", "undertaker").await;
    let offsets: Vec<u64> = kept.iter().map(|delivery| delivery.offset.0).collect();
    assert!(offsets[0] > 0 && offsets.len() >= 8, "{offsets:?}");
    assert_eq!(*offsets.last().unwrap(), dead as u64 - 1);
    node.stop().await;
}

#[tokio::test]
async fn what_a_group_has_not_consumed_keeps_the_log_until_it_is_consumed() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(eager(folder.path())).unwrap();
    topic(&node, "t", r#"{"queues":1,"retention_size":"1MiB"}"#).await;
    send_one(&node, 0).await.unwrap();
    let held = node.messages.receive(receive("t", "slow")).await.unwrap();
    assert_eq!((held.len(), held[0].offset), (1, QueueOffset(0)));
    let mut sent = 1;
    while sent < 64 {
        send_one(&node, sent).await.unwrap();
        sent += 1;
    }
    assert_eq!(log_start(&node), 0, "a message that is in hand is gone");
    // The others are consumed, the first one still not.
    for delivery in receive_now(&node, "t", "slow").await {
        node.messages.ack(&[delivery.handle]).await.unwrap();
    }
    for _ in 0..40 {
        send_one(&node, sent).await.unwrap();
        sent += 1;
    }
    assert_eq!(log_start(&node), 0, "a message that is in hand is gone");
    node.messages.ack(&[held[0].handle]).await.unwrap()[0].clone().unwrap();
    send_until(&node, folder.path(), sent, || log_start(&node) > 0).await;
    assert_eq!(node.status.retention().missed.load(Ordering::Relaxed), 0);
    assert!(node.settings.gaps("slow").await.unwrap().is_empty());
    node.stop().await;
}

#[tokio::test]
async fn where_the_topic_says_so_nobody_holds_the_log_and_the_gap_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(eager(folder.path())).unwrap();
    topic(&node, "t", r#"{"queues":1,"retention_size":"1MiB","unconsumed":"expire"}"#).await;
    send_one(&node, 0).await.unwrap();
    assert_eq!(node.messages.receive(receive("t", "slow")).await.unwrap().len(), 1);
    let sent = send_until(&node, folder.path(), 1, || log_start(&node) > 0).await;
    let gaps = node.settings.gaps("slow").await.unwrap();
    let first = gaps.last().unwrap();
    assert_eq!((first.topic.as_str(), first.gap.queue, first.gap.from.0), ("t", 0, 0));
    let missed: u64 = gaps.iter().map(|gap| gap.gap.messages).sum();
    assert_eq!(node.status.retention().missed.load(Ordering::Relaxed), missed);
    topic(&node, "t", r#"{"queues":1}"#).await;
    let rest = all(&node, "slow").await;
    let begins = node.settings.gaps("slow").await.unwrap().first().unwrap().gap.to.0;
    assert_eq!((rest.first().unwrap().0, rest.last().unwrap().0), (begins, sent as u64 - 1));
    node.stop().await;
}

#[tokio::test]
async fn open_transactions_and_components_are_carried_on_and_are_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().join("here");
    let node = Node::start(eager(&here)).unwrap();
    topic(&node, "x", r#"{"type":"transaction","transaction":{"immunity":"1h","interval":"1h"}}"#).await;
    topic(&node, "t", r#"{"queues":1,"retention_size":"1MiB"}"#).await;
    let component = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
    let wasm: bytes::Bytes = std::fs::read(component).unwrap().into();
    let upload = PluginUpload { name: "c".to_owned(), tag: "1".to_owned(), wasm: wasm.clone(), expected: None };
    let (verdict, _) = node.components.upload(upload).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(prepare(&node, "x", half("h", &format!("half {}", open.len()))).await);
    }
    assert_eq!(end(&node, open[3], TransactionOutcome::RolledBack).await, Ok(false));
    // Twice around: what was carried is carried again.
    // The three halves and the pieces of the component.
    let sent = send_until(&node, &here, 0, || node.status.retention().carried.load(Ordering::Relaxed) >= 8).await;
    // Twice around: the log goes on from their second place, too.
    let end_now = node.status.log_usage().end.0;
    let sent = send_until(&node, &here, sent, || log_start(&node) >= end_now).await;
    for transaction in &open[..3] {
        assert!(log_start(&node) > transaction.half.0);
        let view = node.transactions.get(*transaction).await.unwrap();
        assert_eq!((view.state, view.message_id.as_str()), (TransactionState::Open, "h"));
        assert_eq!(view.keys, ["key-h"]);
    }
    // Its half is gone, its outcome is not (ruling 6).
    let ended = node.transactions.get(open[3]).await.unwrap();
    assert_eq!((ended.state, ended.message_id.as_str()), (TransactionState::RolledBack, ""));
    assert_eq!(end(&node, open[3], TransactionOutcome::RolledBack).await, Ok(true));
    assert!(matches!(
        end(&node, open[3], TransactionOutcome::Committed).await,
        Err(NotDone::Refused(Refusal::OutcomeConflict { .. }))
    ));
    assert_eq!(end(&node, open[0], TransactionOutcome::Committed).await, Ok(false));
    let nowhere = TransactionId { half: HalfPosition(12_345), ..open[0] };
    assert!(matches!(
        end(&node, nowhere, TransactionOutcome::Committed).await,
        Err(NotDone::Refused(Refusal::UnknownTransaction { .. }))
    ));

    // A copy that was taken while it serves holds what was noted as durable by then: all of this.
    for n in sent..sent + 8 {
        send_one(&node, n).await.unwrap();
    }
    let (copy, elsewhere) = (folder.path().join("copy"), folder.path().join("elsewhere"));
    backup(&here, &copy, &mut |_| ()).unwrap();
    node.stop().await;
    drop(node);
    check_backup(&copy, &mut |_| ()).unwrap();
    restore(&copy, &elsewhere, &mut |_| ()).unwrap();
    for place in [&here, &elsewhere] {
        let store = place.join("plugins/components");
        if store.is_dir() {
            std::fs::remove_dir_all(store).unwrap();
        }
        let node = Node::start(eager(place)).unwrap();
        let digest = verdict.digest.parse().unwrap();
        assert!(node.components.file(digest).await.unwrap() == wasm, "the component differs");
        assert_eq!(end(&node, open[1], TransactionOutcome::Committed).await, Ok(false));
        let mut bodies: Vec<_> =
            receive_now(&node, "x", "g").await.into_iter().map(|d| d.message.message.body).collect();
        bodies.sort();
        assert_eq!(bodies, ["half 0", "half 1"]);
        let view = node.transactions.get(open[2]).await.unwrap();
        assert_eq!((view.state, view.message_id.as_str()), (TransactionState::Open, "h"));
        assert!(all(&node, "g").await.last().unwrap().0 >= sent as u64 - 1);
        node.stop().await;
    }
}

#[tokio::test]
async fn a_message_that_is_kept_for_ever_does_not_hold_the_log_and_is_found_in_its_new_place() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(eager(folder.path())).unwrap();
    topic(&node, "x", r#"{"type":"transaction","transaction":{"immunity":"1h","interval":"1h"}}"#).await;
    topic(&node, "t", r#"{"queues":1,"retention_size":"1MiB"}"#).await;
    topic(&node, "kept", r#"{"queues":1}"#).await;
    send(&node, "kept", message("first", "body")).await;
    let transaction = prepare(&node, "x", half("h", "half")).await;
    assert_eq!(end(&node, transaction, TransactionOutcome::Committed).await, Ok(false));
    let held = node.messages.receive(receive("kept", "g")).await.unwrap();
    send_until(&node, folder.path(), 0, || log_start(&node) >= 40 << 20).await;
    assert!(node.status.retention().carried.load(Ordering::Relaxed) >= 4, "both were carried twice");
    let id = async |node: &Node, topic: &str, group: &str| {
        let received = receive_now(node, topic, group).await;
        assert_eq!(received.len(), 1);
        (received[0].offset.0, received[0].message.message.message_id.clone())
    };
    assert_eq!(id(&node, "kept", "another").await, (0, "first".to_owned()));
    assert_eq!(id(&node, "x", "another").await, (0, "h".to_owned()));
    node.messages.ack(&[held[0].handle]).await.unwrap()[0].clone().unwrap();
    let found = node.search.by_id("x", "h").await.unwrap();
    let state = found[0].transaction.as_ref().map(|view| (view.transaction, view.state));
    assert_eq!((found.len(), state), (1, Some((transaction, TransactionState::Committed))));
    node.stop().await;
    drop(node);
    let node = Node::start(eager(folder.path())).unwrap();
    assert_eq!(id(&node, "kept", "third").await, (0, "first".to_owned()));
    node.stop().await;
}

#[tokio::test]
async fn a_full_disk_refuses_sends_and_nothing_else_and_takes_them_again_when_space_returns() {
    let folder = tempfile::tempdir().unwrap();
    // Once sends are refused the log does not grow: the snapshots that free space are made because the disk is full.
    let full = NodeConfig { disk_limit: Some(24 << 20), disk_high_water: 99, ..eager(folder.path()) };
    let node = Node::start(full).unwrap();
    topic(&node, "x", r#"{"type":"transaction","transaction":{"immunity":"1h","interval":"1h"}}"#).await;
    topic(&node, "t", r#"{"queues":1,"retention_size":"1MiB"}"#).await;
    let transaction = prepare(&node, "x", half("h", "half")).await;
    let held = {
        send_one(&node, 0).await.unwrap();
        node.messages.receive(receive("t", "g")).await.unwrap()
    };
    let began = Instant::now();
    let mut sent = 1;
    let refusal = loop {
        match send_one(&node, sent).await {
            Ok(_) => sent += 1,
            Err(refusal) => break refusal,
        }
        assert!(began.elapsed() < PATIENCE, "the disk never fills, after {sent} messages");
    };
    assert!(
        matches!(&refusal, NotDone::NothingStored(NothingStored::StorageFull(text)) if text.contains("high-water")),
        "{refusal}"
    );
    assert!(node.status.disk().is_full() && node.status.disk().refused.load(Ordering::Relaxed) > 0);
    let prepared = SendRequest {
        topic: ResourceName::plain("x"),
        producer: "producer-1".to_owned(),
        messages: vec![half("h2", "half")],
    };
    assert!(
        matches!(node.messages.send(prepared).await, Err(NotDone::NothingStored(NothingStored::StorageFull(_)))),
        "a half is a send"
    );
    assert_eq!(end(&node, transaction, TransactionOutcome::Committed).await, Ok(false));
    topic(&node, "another", "{}").await;
    assert_eq!(log_start(&node), 0, "what the group has not consumed is gone");
    // Consumed, it may go, and does so without a restart and without anybody's sending.
    node.messages.ack(&[held[0].handle]).await.unwrap()[0].clone().unwrap();
    for delivery in receive_now(&node, "t", "g").await {
        node.messages.ack(&[delivery.handle]).await.unwrap();
    }
    let began = Instant::now();
    while node.status.disk().is_full() {
        assert!(began.elapsed() < PATIENCE, "space never returns");
        tokio::task::yield_now().await;
    }
    assert!(log_start(&node) > 0);
    send_one(&node, sent).await.unwrap();
    assert_eq!(receive_now(&node, "x", "g").await.len(), 1);
    node.stop().await;
}

#[tokio::test]
async fn a_full_disk_is_freed_by_deleting_what_fills_it() {
    let folder = tempfile::tempdir().unwrap();
    let full = NodeConfig { disk_limit: Some(24 << 20), disk_high_water: 99, ..eager(folder.path()) };
    let node = Node::start(full).unwrap();
    topic(&node, "t", r#"{"queues":1}"#).await;
    let began = Instant::now();
    let mut sent = 0;
    while send_one(&node, sent).await.is_ok() {
        sent += 1;
        assert!(began.elapsed() < PATIENCE, "the disk never fills, after {sent} messages");
    }
    // The last snapshot that was due knows nothing of what makes room: another one must come though the log hardly grows.
    let end = node.status.numbers().await.unwrap().durable;
    let began = Instant::now();
    while newest_snapshot(folder.path()).is_none_or(|newest| newest + MIB as u64 <= end.0) {
        assert!(began.elapsed() < PATIENCE, "a snapshot that is due is not made");
        tokio::task::yield_now().await;
    }
    node.settings.delete_topic("t", true).await.unwrap();
    let began = Instant::now();
    while node.status.disk().is_full() {
        assert!(began.elapsed() < PATIENCE, "space never returns");
        tokio::task::yield_now().await;
    }
    assert!(log_start(&node) > 0);
    topic(&node, "t", r#"{"queues":1}"#).await;
    send_one(&node, sent).await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn a_node_refuses_a_limit_that_would_always_be_full() {
    let folder = tempfile::tempdir().unwrap();
    let little = NodeConfig { disk_limit: Some(12 << 20), ..eager(folder.path()) };
    let error = Node::start(little).err().expect("three segments are no room").to_string();
    assert!(error.contains("disk_limit") && error.contains("segment_size"), "{error}");
}

/// They would take what is set aside for the ones that free something.
#[tokio::test]
async fn on_a_full_disk_no_snapshot_is_made_that_frees_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let full = NodeConfig { disk_limit: Some(24 << 20), disk_high_water: 99, ..eager(folder.path()) };
    let node = Node::start(full).unwrap();
    topic(&node, "x", r#"{"type":"transaction","transaction":{"immunity":"1h","interval":"1h"}}"#).await;
    topic(&node, "t", r#"{"queues":1}"#).await;
    let mut open = Vec::new();
    for n in 0..70 {
        open.push(prepare(&node, "x", half("h", &format!("half {n}"))).await);
    }
    let mut n = 0;
    while send_one(&node, n).await.is_ok() {
        n += 1;
    }
    // The log goes on, and two would be due in this time. First may still come the one that was made when sends ended, and the one
    // that was due then.
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let mut seen = Vec::new();
    for transaction in open {
        pace.tick().await;
        end(&node, transaction, TransactionOutcome::Committed).await.unwrap();
        seen.push(newest_snapshot(folder.path()));
    }
    assert_eq!(seen[30], seen[69], "nothing was to be freed: {seen:?}");
    node.settings.delete_topic("t", true).await.unwrap();
    let began = Instant::now();
    while newest_snapshot(folder.path()) == seen[69] {
        assert!(began.elapsed() < PATIENCE, "there is something to be freed");
        tokio::task::yield_now().await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_send_in_memory_is_answered_at_once_and_its_message_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(eager(folder.path())).unwrap();
    topic(&node, "t", r#"{"type":"mixed","ack":"memory"}"#).await;
    assert_eq!(send(&node, "t", message("m", "body")).await, Receipt::InMemory);
    // Losing a half that a producer relies on would lose its transaction.
    let transaction = prepare(&node, "t", half("h", "half")).await;
    let received = node.messages.receive(receive("t", "g")).await.unwrap();
    assert_eq!(received[0].message.message.message_id, "m");
    assert_eq!(node.transactions.get(transaction).await.unwrap().state, TransactionState::Open);
    assert_eq!(node.metrics.messages_in_memory.load(Ordering::Relaxed), 1);
    assert_eq!(node.metrics.messages_in.load(Ordering::Relaxed), 2);
    node.stop().await;
}

#[tokio::test]
async fn a_message_in_memory_whose_topic_is_deleted_before_it_is_stored_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(eager(folder.path())).unwrap();
    for n in 0.. {
        let name = format!("t{n}");
        topic(&node, &name, r#"{"ack":"memory"}"#).await;
        send(&node, &name, message("before", "x")).await;
        let request = SendRequest {
            topic: ResourceName::plain(&name),
            producer: "producer-1".to_owned(),
            messages: vec![message("m", "x")],
        };
        // In this order; if the deletion was quicker than the send's look at the topic, that is refused.
        let (deleted, sent) = tokio::join!(node.settings.delete_topic(&name, true), node.messages.send(request));
        deleted.unwrap();
        if sent.is_ok() {
            break;
        }
    }
    // Behind it in the log: what this waits for, that has happened by now, too.
    topic(&node, "last", "{}").await;
    assert_eq!(node.status.refused_in_memory(), 1);
    node.stop().await;
}
