//! Messages are found by id, key and time, whatever the lookup index covers and in whatever state it is.

mod cost;
mod damage;
mod random;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{config, half, message, prepare, receive_now, send, topic};
use vouch_broker::record::EndedBy;
use vouch_broker::{NewMessage, NotDone, Refusal, TransactionId, TransactionOutcome};
use vouch_node::{EndRequest, MessageQuery, MessageView, Node, NodeConfig, StartError};

/// A part for every 256 KiB of log.
fn often(folder: &Path) -> NodeConfig {
    NodeConfig { snapshot_every: 256 << 10, ..config(folder) }
}

/// No further part while the node runs.
fn never(folder: &Path) -> NodeConfig {
    NodeConfig { snapshot_every: 1 << 40, ..config(folder) }
}

fn lookup_folder(folder: &Path) -> PathBuf {
    folder.join("shards/0/lookup")
}

/// Names and bytes of the files of the index.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = fs::read_dir(lookup_folder(folder)).unwrap().map(|entry| entry.unwrap().path());
    all.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Starts a node in a folder whose last node was stopped just now: a task of that one may still be about to end.
async fn started(config: NodeConfig) -> Node {
    loop {
        match Node::start(config.clone()) {
            Err(StartError::Locked { .. }) => tokio::task::yield_now().await,
            started => return started.unwrap(),
        }
    }
}

/// Waits until every part has its file.
async fn indexed(node: &Node) {
    while read(&node.status.lookup().missing) > 0 {
        tokio::task::yield_now().await;
    }
}

/// Body of so many bytes that begins with a text.
fn padded(text: &str, bytes: usize) -> String {
    format!("{text:<bytes$}")
}

fn with_keys(id: &str, keys: &[&str], bytes: usize) -> NewMessage {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    NewMessage { keys, ..message(id, &padded(id, bytes)) }
}

/// What the body begins with.
fn texts(views: &[MessageView]) -> Vec<String> {
    let text =
        |view: &MessageView| String::from_utf8(view.message.message.body.to_vec()).unwrap().trim_end().to_owned();
    views.iter().map(text).collect()
}

async fn by_id(node: &Node, topic: &str, id: &str) -> Vec<String> {
    texts(&node.search.by_id(topic, id).await.unwrap())
}

fn query(topic: &str, limit: usize) -> MessageQuery {
    MessageQuery { topic: topic.to_owned(), limit, ..MessageQuery::default() }
}

/// All pages of a list.
async fn all(node: &Node, mut query: MessageQuery) -> Vec<MessageView> {
    let mut views = Vec::new();
    loop {
        let page = node.search.list(query.clone()).await.unwrap();
        assert!(page.messages.len() <= query.limit);
        views.extend(page.messages);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return views,
        }
    }
}

async fn by_key(node: &Node, topic: &str, key: &str, limit: usize) -> Vec<String> {
    texts(&all(node, MessageQuery { key: Some(key.to_owned()), ..query(topic, limit) }).await)
}

async fn since(node: &Node, topic: &str, since_ms: u64, limit: usize) -> Vec<MessageView> {
    all(node, MessageQuery { since_ms: Some(since_ms), ..query(topic, limit) }).await
}

/// Sixty messages of 32 KiB and a small one, and others in another topic, over several parts.
async fn fill(node: &Node) {
    topic(node, "t", r#"{"queues":3}"#).await;
    for n in 0..60 {
        send(node, "t", with_keys(&format!("m{n}"), &[&format!("even-{}", n % 2), "all"], 32 << 10)).await;
    }
    // Parts are sealed as the log grows, at the pace of a thread that stands back.
    topic(node, "other", "{}").await;
    let mut n = 0;
    while read(&node.status.lookup().files) < 3 {
        send(node, "other", with_keys(&format!("m{n}"), &["all"], 8 << 10)).await;
        n += 1;
    }
    send(node, "t", with_keys("last", &["all"], 10)).await;
}

/// Everything that [`fill`] sent is found, newest first, and nothing else.
async fn check(node: &Node) {
    for n in [0, 1, 20, 30, 44, 59] {
        assert_eq!(by_id(node, "t", &format!("m{n}")).await, [format!("m{n}")]);
    }
    assert_eq!(by_id(node, "t", "last").await, ["last"]);
    assert!(by_id(node, "t", "m60").await.is_empty());
    assert!(by_id(node, "t", "all").await.is_empty(), "a key is no id");
    let even: Vec<_> = (0..60).rev().step_by(2).map(|n| format!("m{}", n - 1)).collect();
    assert_eq!(by_key(node, "t", "even-0", 7).await, even);
    let newest: Vec<_> = std::iter::once("last".to_owned()).chain((0..60).rev().map(|n| format!("m{n}"))).collect();
    assert_eq!(by_key(node, "t", "all", 1000).await, newest);
    let every = since(node, "t", 0, 10).await;
    assert_eq!(every.len(), 61);
    for first in [0, 25, 59] {
        let time = every[first].message.stored_at;
        let (expected, late): (Vec<_>, Vec<_>) = (
            every.iter().filter(|view| view.message.stored_at >= time).collect(),
            since(node, "t", time.0, 1000).await,
        );
        assert_eq!(
            late.iter().map(|view| view.place).collect::<Vec<_>>(),
            expected.iter().map(|view| view.place).collect::<Vec<_>>()
        );
    }
    let after_all = every.iter().map(|view| view.message.stored_at.0).max().unwrap() + 1;
    assert!(since(node, "t", after_all, 10).await.is_empty());
}

#[tokio::test]
async fn messages_are_found_across_parts_and_behind_them_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = started(often(folder.path())).await;
    fill(&node).await;
    check(&node).await;
    indexed(&node).await;
    check(&node).await;
    node.stop().await;
    drop(node);
    let before = files(folder.path());
    let node = started(never(folder.path())).await;
    check(&node).await;
    indexed(&node).await;
    check(&node).await;
    assert_eq!(read(&node.status.lookup().damaged), 0);
    let there = read(&node.status.lookup().files) - read(&node.status.lookup().builds);
    assert!(there >= 3, "files that are there are used, {there} were");
    assert_eq!(
        read(&node.status.lookup().bytes),
        files(folder.path()).values().map(|bytes| bytes.len() as u64).sum::<u64>()
    );
    let after = files(folder.path());
    assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "and do not change");
    node.stop().await;
}

#[tokio::test]
async fn marks_belong_to_one_list_of_one_topic() {
    let folder = tempfile::tempdir().unwrap();
    let node = started(never(folder.path())).await;
    for round in 0..2 {
        topic(&node, "t", "{}").await;
        for n in 0..3 {
            send(&node, "t", with_keys(&format!("{round}-{n}"), &["k"], 10)).await;
        }
        let first = node.search.list(query("t", 1)).await.unwrap();
        let keyed = MessageQuery { key: Some("k".to_owned()), ..query("t", 1) };
        let first_keyed = node.search.list(keyed.clone()).await.unwrap();
        assert_eq!(texts(&first_keyed.messages), [format!("{round}-2")]);
        let crossed = [
            MessageQuery { after: first_keyed.next.clone(), ..query("t", 1) },
            MessageQuery { after: first.next.clone(), ..keyed },
        ];
        for query in crossed {
            assert!(matches!(node.search.list(query).await, Err(NotDone::Refused(Refusal::Invalid(_)))));
        }
        node.settings.delete_topic("t", true).await.unwrap();
        topic(&node, "t", "{}").await;
        let gone = MessageQuery { after: first.next, ..query("t", 1) };
        assert!(
            matches!(node.search.list(gone).await, Err(NotDone::Refused(Refusal::Invalid(_)))),
            "another topic of this name"
        );
        node.settings.delete_topic("t", true).await.unwrap();
    }
    assert!(matches!(node.search.list(query("t", 1)).await, Err(NotDone::Refused(Refusal::TopicNotFound(_)))));
    node.stop().await;
}

#[tokio::test]
async fn open_transactions_are_found_by_id_and_key_and_are_in_no_queue() {
    let folder = tempfile::tempdir().unwrap();
    let node = started(never(folder.path())).await;
    topic(&node, "t", r#"{"type":"mixed","transaction":{"immunity":"1h"}}"#).await;
    let transaction = prepare(&node, "t", half("h", "half")).await;
    send(&node, "t", message("m", "plain")).await;
    assert_eq!(by_id(&node, "t", "h").await, ["half"]);
    assert_eq!(by_key(&node, "t", "key-h", 1).await, ["half"]);
    assert_eq!(texts(&since(&node, "t", 0, 10).await), ["plain"]);
    end(&node, transaction, TransactionOutcome::Committed).await;
    assert_eq!(by_id(&node, "t", "h").await, ["half"]);
    assert_eq!(since(&node, "t", 0, 10).await.len(), 2);
    let view = node.search.by_id("t", "h").await.unwrap().remove(0);
    assert!(view.place.is_some() && view.transaction.is_some());
    node.stop().await;
}

async fn end(node: &Node, transaction: TransactionId, outcome: TransactionOutcome) {
    let by = EndedBy::Operator { name: "test".to_owned() };
    let request = EndRequest { topic: None, message_id: None, transaction, outcome, by, reason: String::new() };
    node.transactions.end(request).await.unwrap();
}

/// What retention took is not found, with the index and without, and what it carried on is.
#[tokio::test]
async fn expired_messages_are_not_found_and_carried_halves_are() {
    let folder = tempfile::tempdir().unwrap();
    let eager = NodeConfig { retention_every: Duration::from_millis(20), ..often(folder.path()) };
    let mut node = Node::start(eager).unwrap();
    topic(&node, "t", r#"{"queues":2,"retention_size":"1MiB"}"#).await;
    topic(&node, "x", r#"{"type":"transaction","transaction":{"immunity":"1h"}}"#).await;
    let transaction = prepare(&node, "x", half("h", "half")).await;
    // One queue each, so that there are parts that know of a queue only what lay in released log.
    topic(&node, "long", r#"{"queues":8}"#).await;
    let mut sent = 0;
    while node.status.log_usage().start.0 == 0 {
        send(&node, "t", with_keys(&format!("m{sent}"), &["all"], 32 << 10)).await;
        send(&node, "long", with_keys(&format!("l{sent}"), &["long"], 10)).await;
        sent += 1;
    }
    let long = since(&node, "long", 0, 100).await;
    assert_eq!(long.len(), sent as usize);
    // Nothing expires from here on.
    topic(&node, "t", r#"{"queues":2}"#).await;
    let kept = receive_now(&node, "t", "g").await;
    let number = |id: &str| id.trim_start_matches('m').parse::<u32>().unwrap();
    let mut kept: Vec<_> = kept.iter().map(|it| number(&it.message.message.message_id)).collect();
    kept.sort_unstable_by(|a, b| b.cmp(a));
    assert!(!kept.contains(&0) && kept.contains(&(sent - 1)), "{kept:?} of {sent}");
    for round in 0..3 {
        if round > 0 {
            node.stop().await;
            drop(node);
            fs::remove_dir_all(lookup_folder(folder.path())).unwrap();
            node = started(never(folder.path())).await;
        }
        if round == 2 {
            indexed(&node).await;
        }
        let keyed: Vec<_> = by_key(&node, "t", "all", 20).await.iter().map(|id| number(id)).collect();
        assert_eq!(keyed, kept);
        let mut listed: Vec<_> = texts(&since(&node, "t", 0, 30).await).iter().map(|id| number(id)).collect();
        listed.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(listed, kept);
        assert!(by_id(&node, "t", "m0").await.is_empty());
        let half = node.search.by_id("x", "h").await.unwrap().remove(0);
        assert_eq!(half.transaction.unwrap().transaction, transaction);
        for view in long.iter().step_by(5) {
            let found = node.search.by_id("long", &view.message.message.message_id).await.unwrap();
            assert_eq!(found.iter().map(|view| view.place).collect::<Vec<_>>(), [view.place]);
            let late = long.iter().filter(|other| other.message.stored_at >= view.message.stored_at);
            let found = since(&node, "long", view.message.stored_at.0, 100).await;
            assert!(found.iter().map(|view| view.place).eq(late.map(|view| view.place)));
        }
        assert_eq!(by_key(&node, "long", "long", 50).await.len(), long.len());
    }
    end(&node, transaction, TransactionOutcome::Committed).await;
    let half = node.search.by_id("x", "h").await.unwrap().remove(0);
    assert!(half.place.is_some() && half.transaction.unwrap().transaction == transaction);
    node.stop().await;
}
