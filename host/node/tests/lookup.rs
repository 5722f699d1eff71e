//! Messages are found by id, key and time, whatever the lookup index covers and in whatever state it is.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{config, half, message, prepare, receive_now, send, topic};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use vouch_broker::record::EndedBy;
use vouch_broker::{NewMessage, Refusal, ResourceName, TransactionOutcome};
use vouch_node::{EndRequest, MessageQuery, MessageView, Node, NodeConfig, Receipt, SendRequest, StartError};

const PAGE: usize = 4096;

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
            Err(StartError::Locked(_)) => tokio::task::yield_now().await,
            started => return started.unwrap(),
        }
    }
}

/// Waits until every part has its file.
async fn indexed(node: &Node) {
    while read(&node.lookup().missing) > 0 {
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
    texts(&node.messages(topic, id).await.unwrap())
}

fn query(topic: &str, limit: usize) -> MessageQuery {
    MessageQuery { topic: topic.to_owned(), limit, ..MessageQuery::default() }
}

/// All pages of a list.
async fn all(node: &Node, mut query: MessageQuery) -> Vec<MessageView> {
    let mut views = Vec::new();
    loop {
        let page = node.list_messages(query.clone()).await.unwrap();
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
    while read(&node.lookup().files) < 3 {
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
    assert_eq!(read(&node.lookup().damaged), 0);
    let there = read(&node.lookup().files) - read(&node.lookup().builds);
    assert!(there >= 3, "files that are there are used, {there} were");
    assert_eq!(read(&node.lookup().bytes), files(folder.path()).values().map(|bytes| bytes.len() as u64).sum::<u64>());
    let after = files(folder.path());
    assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "and do not change");
    node.stop().await;
}

#[tokio::test]
async fn missing_files_are_made_again_as_they_were_and_strange_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let node = started(often(folder.path())).await;
    fill(&node).await;
    indexed(&node).await;
    node.stop().await;
    drop(node);
    let node = started(never(folder.path())).await;
    indexed(&node).await;
    node.stop().await;
    drop(node);
    let before = files(folder.path());
    fs::remove_dir_all(lookup_folder(folder.path())).unwrap();
    fs::create_dir(lookup_folder(folder.path())).unwrap();
    for stray in ["00000000000000000005.lookup", "00000000000000000009.unfinished"] {
        fs::write(lookup_folder(folder.path()).join(stray), b"left over").unwrap();
    }
    let node = started(never(folder.path())).await;
    check(&node).await;
    indexed(&node).await;
    check(&node).await;
    assert_eq!(read(&node.lookup().builds), before.len() as u64);
    node.stop().await;
    assert!(files(folder.path()) == before, "the same files, byte for byte");
}

/// One page of one file at a time is damaged on the disk while the node is down, and then all but the first pages of all
/// of them while it runs.
#[tokio::test]
async fn a_damaged_file_is_never_believed_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let node = started(often(folder.path())).await;
    fill(&node).await;
    node.stop().await;
    drop(node);
    let node = started(never(folder.path())).await;
    indexed(&node).await;
    node.stop().await;
    drop(node);
    let whole = files(folder.path());
    let (path, bytes) = whole.iter().next().unwrap();
    for page in 0..bytes.len() / PAGE {
        let mut damaged = bytes.clone();
        damaged[page * PAGE + 40] ^= 4;
        fs::write(path, damaged).unwrap();
        let node = started(never(folder.path())).await;
        // With the damaged file in use, if it can be opened, and with the new one.
        indexed(&node).await;
        check(&node).await;
        indexed(&node).await;
        check(&node).await;
        assert_eq!((page, read(&node.lookup().damaged), read(&node.lookup().builds)), (page, 1, 1));
        node.stop().await;
        assert!(files(folder.path()) == whole, "page {page} is as it was");
    }

    let node = started(never(folder.path())).await;
    indexed(&node).await;
    for (path, bytes) in &whole {
        let mut damaged = bytes.clone();
        damaged[PAGE..].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(path, damaged).unwrap();
    }
    check(&node).await;
    indexed(&node).await;
    assert_eq!(read(&node.lookup().damaged), whole.len() as u64);
    check(&node).await;
    node.stop().await;
    assert!(files(folder.path()) == whole);
}

/// Recomputes the checksum of a file's first page, as somebody would who puts files of another log there.
fn sign(bytes: &mut [u8]) {
    let part: [u8; 8] = bytes[16..24].try_into().unwrap();
    let place = crc32c::crc32c_append(crc32c::crc32c(&part), &0u64.to_le_bytes());
    let checksum = crc32c::crc32c_append(place, &bytes[..PAGE - 4]);
    bytes[PAGE - 4..PAGE].copy_from_slice(&checksum.to_le_bytes());
}

#[tokio::test]
async fn a_file_of_another_log_part_or_version_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let node = started(often(folder.path())).await;
    fill(&node).await;
    node.stop().await;
    drop(node);
    let node = started(never(folder.path())).await;
    indexed(&node).await;
    node.stop().await;
    drop(node);
    let whole = files(folder.path());
    let (path, bytes) = whole.iter().next_back().unwrap();
    let checkpoint = 24..72;
    let change = |change: &dyn Fn(&mut [u8])| {
        let mut changed = bytes.clone();
        change(&mut changed);
        sign(&mut changed);
        changed
    };
    let another = [
        ("version", change(&|bytes| bytes[8] = 2)),
        ("part", change(&|bytes| bytes[12] ^= 1)),
        (
            "log",
            change(&|bytes| {
                // The checksum of the log's entry, and that of the checkpoint.
                bytes[24 + 12] ^= 1;
                let checksum = crc32c::crc32c(&bytes[checkpoint.clone()][8..]);
                bytes[24 + 4..24 + 8].copy_from_slice(&checksum.to_le_bytes());
            }),
        ),
    ];
    assert!(change(&|_| ()) == *bytes, "this is how it is signed");
    for (what, changed) in another {
        fs::write(path, changed).unwrap();
        let node = started(never(folder.path())).await;
        indexed(&node).await;
        assert_eq!((what, read(&node.lookup().damaged), read(&node.lookup().builds)), (what, 1, 1));
        check(&node).await;
        node.stop().await;
        assert!(files(folder.path()) == whole);
    }
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
        let first = node.list_messages(query("t", 1)).await.unwrap();
        let keyed = MessageQuery { key: Some("k".to_owned()), ..query("t", 1) };
        let first_keyed = node.list_messages(keyed.clone()).await.unwrap();
        assert_eq!(texts(&first_keyed.messages), [format!("{round}-2")]);
        let crossed = [
            MessageQuery { after: first_keyed.next.clone(), ..query("t", 1) },
            MessageQuery { after: first.next.clone(), ..keyed },
        ];
        for query in crossed {
            assert!(matches!(node.list_messages(query).await, Err(Refusal::Invalid(_))));
        }
        node.delete_topic("t", true).await.unwrap();
        topic(&node, "t", "{}").await;
        let gone = MessageQuery { after: first.next, ..query("t", 1) };
        assert!(matches!(node.list_messages(gone).await, Err(Refusal::Invalid(_))), "another topic of this name");
        node.delete_topic("t", true).await.unwrap();
    }
    assert!(matches!(node.list_messages(query("t", 1)).await, Err(Refusal::TopicNotFound(_))));
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
    let view = node.messages("t", "h").await.unwrap().remove(0);
    assert!(view.place.is_some() && view.transaction.is_some());
    node.stop().await;
}

async fn end(node: &Node, transaction: u64, outcome: TransactionOutcome) {
    let by = EndedBy::Operator { name: "test".to_owned() };
    let request = EndRequest { topic: None, message_id: None, transaction, outcome, by, reason: String::new() };
    node.end_transaction(request).await.unwrap();
}

/// A message of the model: its number in the order of sending, its id and its keys.
#[derive(Clone)]
struct Sent {
    number: u64,
    id: String,
    keys: Vec<String>,
}

/// What should be found, by topic.
#[derive(Default)]
struct Model {
    /// In queues, by place.
    stored: BTreeMap<(u32, u64), Sent>,
    open: Vec<(u64, Sent)>,
}

impl Model {
    /// Numbers of what has an id or key, newest first.
    fn named(&self, named: impl Fn(&Sent) -> bool) -> Vec<String> {
        let all = self.stored.values().chain(self.open.iter().map(|(_, sent)| sent));
        let mut numbers: Vec<u64> = all.filter(|sent| named(sent)).map(|sent| sent.number).collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        numbers.iter().map(u64::to_string).collect()
    }
}

const TOPICS: [&str; 2] = ["a", "b"];
const IDS: usize = 40;
const KEYS: usize = 8;

async fn make(node: &Node, name: &str) -> Model {
    topic(node, name, r#"{"type":"mixed","queues":3,"transaction":{"immunity":"1h"}}"#).await;
    Model::default()
}

/// One random thing that changes what is found.
async fn step(node: &Node, rng: &mut StdRng, models: &mut [Model; 2], number: u64) {
    let at = rng.random_range(0..2);
    let (name, model) = (TOPICS[at], &mut models[at]);
    let keys: Vec<String> = (0..rng.random_range(0..4)).map(|_| format!("k{}", rng.random_range(0..KEYS))).collect();
    let sent = Sent { number, id: format!("i{}", rng.random_range(0..IDS)), keys };
    let body = padded(&number.to_string(), rng.random_range(100..12_000));
    match rng.random_range(0..100) {
        0..70 => {
            let message = NewMessage { keys: sent.keys.clone(), ..message(&sent.id, &body) };
            let Receipt::Stored { queue, offset } = send(node, name, message).await else { panic!("not stored") };
            model.stored.insert((queue, offset), sent);
        }
        70..85 => {
            let message = NewMessage { keys: sent.keys.clone(), ..half(&sent.id, &body) };
            model.open.push((prepare(node, name, message).await, sent));
        }
        85..99 => {
            if !model.open.is_empty() {
                let (transaction, sent) = model.open.remove(rng.random_range(0..model.open.len()));
                if rng.random_bool(0.7) {
                    end(node, transaction, TransactionOutcome::Committed).await;
                    let view = node.messages(name, &sent.id).await.unwrap().into_iter();
                    let mut own = view.filter(|view| texts(std::slice::from_ref(view)) == [sent.number.to_string()]);
                    model.stored.insert(own.next().unwrap().place.expect("it is in a queue"), sent);
                } else {
                    end(node, transaction, TransactionOutcome::RolledBack).await;
                }
            }
        }
        _ => {
            node.delete_topic(name, true).await.unwrap();
            *model = make(node, name).await;
        }
    }
}

/// Every search gives what the model has, and what a consumer gets is what the model has, too.
async fn agree(node: &Node, rng: &mut StdRng, models: &[Model; 2], round: usize) {
    for (name, model) in TOPICS.iter().zip(models) {
        for n in 0..=IDS {
            let id = format!("i{n}");
            assert_eq!(by_id(node, name, &id).await, model.named(|sent| sent.id == id), "{name} {id}");
        }
        for n in 0..=KEYS {
            let key = format!("k{n}");
            let expected = model.named(|sent| sent.keys.contains(&key));
            assert_eq!(by_key(node, name, &key, rng.random_range(1..30)).await, expected, "{name} {key}");
        }
        let mut walked = receive_now(node, name, &format!("g{round}")).await;
        walked.sort_by_key(|delivery| (delivery.queue, delivery.offset));
        let place = |delivery: &vouch_node::Delivery| (delivery.queue, delivery.offset);
        assert!(walked.iter().map(place).eq(model.stored.keys().copied()), "the model itself");
        let times: Vec<u64> = walked.iter().map(|delivery| delivery.message.stored_at.0).collect();
        let earliest = times.iter().min().copied().unwrap_or(0);
        let latest = times.iter().max().copied().unwrap_or(0);
        for from in [0, earliest + 1, rng.random_range(earliest..=latest), latest, latest + 1] {
            let listed = since(node, name, from, rng.random_range(1..50)).await;
            let mut places: Vec<_> = listed.iter().map(|view| view.place.unwrap()).collect();
            for queue in 0..3 {
                let offsets = places.iter().filter(|place| place.0 == queue).map(|place| place.1);
                assert!(offsets.is_sorted(), "a queue is listed in its order");
            }
            places.sort_unstable();
            let expected = walked.iter().filter(|delivery| delivery.message.stored_at.0 >= from).map(place);
            assert!(places.into_iter().eq(expected), "{name} since {from}");
            let key = format!("k{}", rng.random_range(0..KEYS));
            let query = MessageQuery { key: Some(key.clone()), since_ms: Some(from), ..query(name, 3) };
            let found: BTreeSet<_> = all(node, query).await.iter().filter_map(|view| view.place).collect();
            let late = walked.iter().filter(|delivery| delivery.message.stored_at.0 >= from);
            let expected: BTreeSet<_> = late.filter(|it| it.message.message.keys.contains(&key)).map(place).collect();
            assert_eq!(found, expected, "{name} {key} since {from}");
        }
    }
}

#[tokio::test]
async fn every_search_agrees_with_a_full_walk_on_a_random_history() {
    let seed = std::env::var("VOUCH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("VOUCH_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut node = started(often(folder.path())).await;
    let mut models = [make(&node, TOPICS[0]).await, make(&node, TOPICS[1]).await];
    let (mut used, mut number) = (0, 0);
    for round in 0..8 {
        for _ in 0..120 {
            step(&node, &mut rng, &mut models, number).await;
            number += 1;
        }
        agree(&node, &mut rng, &models, round).await;
        used = used.max(read(&node.lookup().files));
        if rng.random_bool(0.4) {
            node.stop().await;
            drop(node);
            let mut all: Vec<PathBuf> = files(folder.path()).into_keys().collect();
            if !all.is_empty() {
                let path = all.swap_remove(rng.random_range(0..all.len()));
                let mut bytes = fs::read(&path).unwrap();
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1;
                if rng.random_bool(0.5) { fs::write(path, bytes).unwrap() } else { fs::remove_file(path).unwrap() }
            }
            node = started(often(folder.path())).await;
            if rng.random_bool(0.5) {
                indexed(&node).await;
            }
            agree(&node, &mut rng, &models, round + 100).await;
        }
    }
    assert!(used > 1, "the index was used");
    node.stop().await;
}

/// The mean times of searches by id, by key and by time (a page of 100 from the middle on).
async fn search_times(node: &Node, messages: usize) -> [Duration; 3] {
    const SEARCHES: usize = 20;
    let mut means = [Duration::ZERO; 3];
    let middle = node.messages("t", &format!("m{}", messages / 2)).await.unwrap()[0].message.stored_at.0;
    for n in (0..SEARCHES).map(|n| n * messages / SEARCHES) {
        let began = Instant::now();
        assert_eq!(node.messages("t", &format!("m{n}")).await.unwrap().len(), 1);
        means[0] += began.elapsed();
        let began = Instant::now();
        let key = MessageQuery { key: Some(format!("k{n}")), ..query("t", 100) };
        assert_eq!(node.list_messages(key).await.unwrap().messages.len(), 1);
        means[1] += began.elapsed();
        let began = Instant::now();
        let late = MessageQuery { since_ms: Some(middle), ..query("t", 100) };
        assert_eq!(node.list_messages(late).await.unwrap().messages.len(), 100);
        means[2] += began.elapsed();
    }
    means.map(|sum| sum / SEARCHES as u32)
}

#[tokio::test]
#[ignore = "a measurement: cargo test --release -p vouch-node --test lookup -- --ignored --nocapture"]
async fn what_the_index_costs_and_saves() {
    const MESSAGES: usize = 1_000_000;
    let folder = tempfile::tempdir().unwrap();
    let node = started(never(folder.path())).await;
    topic(&node, "t", "{}").await;
    for first in (0..MESSAGES).step_by(1000) {
        let messages = (first..first + 1000).map(|n| with_keys(&format!("m{n}"), &[&format!("k{n}")], 200)).collect();
        let topic = ResourceName::plain("t");
        node.send(SendRequest { topic, producer: "p".to_owned(), messages }).await.unwrap();
    }
    println!("by id, key, time without the index: {:?}", search_times(&node, MESSAGES).await);
    node.stop().await;
    drop(node);
    let node = started(never(folder.path())).await;
    let began = Instant::now();
    indexed(&node).await;
    let (took, log) = (began.elapsed(), node.status().await.unwrap().appended);
    println!("made in {took:?}: {} bytes for {log} bytes of log", read(&node.lookup().bytes));
    println!("by id, key, time with the index: {:?}", search_times(&node, MESSAGES).await);
    node.stop().await;
}
