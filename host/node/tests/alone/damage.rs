//! A log that is damaged inside: refused, or served read-only, and never changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::common::{config, half, message, prepare, receive, send, topic, topic_config};
use vouch_broker::record::EndedBy;
use vouch_broker::{NotDone, NothingStored, QueueOffset, ResourceName, TransactionId, TransactionOutcome};
use vouch_node::{
    Damage, EndRequest, Expect, LostMessages, MessageQuery, Node, NodeConfig, NodeHealth, OnDamage, PluginUpload,
    SendRequest, StartError, TransactionState,
};

/// What a message holds: unique, so that it can be found in the log's files, and long enough to fill segments.
fn body(id: &str) -> String {
    format!("<{id}>").repeat(60_000)
}

fn read_only(folder: &Path) -> NodeConfig {
    NodeConfig { on_damage: OnDamage::ReadOnly, scrub_rate: 0, ..config(folder) }
}

/// A snapshot for every mebibyte of log.
fn often(folder: &Path) -> NodeConfig {
    NodeConfig { snapshot_every: 1 << 20, scrub_rate: 0, ..config(folder) }
}

/// A stopped node with these messages in topic `t`, which has one queue.
async fn fill(folder: &Path, numbers: std::ops::Range<u32>) {
    let node = Node::start(often(folder)).unwrap();
    topic(&node, "t", r#"{"queues": 1}"#).await;
    send_numbered(&node, "t", numbers).await;
    node.stop().await;
}

async fn send_numbered(node: &Node, topic: &str, ids: std::ops::Range<u32>) {
    for n in ids {
        send(node, topic, message(&format!("m{n:03}"), &body(&format!("m{n:03}")))).await;
    }
}

/// Every file of the log and the snapshots.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let folders = ["shards/0/log", "shards/0/snapshots", "shards/0/lookup"];
    let files = folders.iter().flat_map(|name| fs::read_dir(folder.join(name)).unwrap());
    files.map(|file| file.unwrap().path()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Changes one byte of the body of a message, wherever it lies, and says in which file.
fn damage(folder: &Path, id: &str) -> PathBuf {
    let needle = body(id).into_bytes();
    for (path, bytes) in contents(folder) {
        if let Some(at) = bytes.windows(64).position(|window| window == &needle[..64]) {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[bytes[at + 100] ^ 1], at as u64 + 100).unwrap();
            return path;
        }
    }
    panic!("{id} is not in the log");
}

/// Ids of the messages that can be read, in the order of the list.
async fn listed(node: &Node, topic: &str) -> Vec<String> {
    let query = MessageQuery { topic: topic.to_owned(), key: None, since_ms: None, after: None, limit: 1000 };
    let page = node.search.list(query).await.unwrap();
    page.messages.into_iter().map(|view| view.message.message.message_id).collect()
}

fn ids(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|n| format!("m{n:03}")).collect()
}

/// Offsets from the first to the last.
fn numbers(lost: &LostMessages) -> std::ops::RangeInclusive<u64> {
    lost.offsets.start().0..=lost.offsets.end().0
}

fn lost(topic: &str, offsets: std::ops::RangeInclusive<u64>) -> LostMessages {
    let offsets = QueueOffset(*offsets.start())..=QueueOffset(*offsets.end());
    LostMessages { topic: topic.to_owned(), queue: 0, offsets }
}

async fn assert_nothing_is_written(node: &Node, open: TransactionId) {
    let refused = |what: &str, refusal: NotDone| {
        assert!(matches!(refusal, NotDone::NothingStored(NothingStored::ReadOnly(_))), "{what}: {refusal}");
    };
    let (t, producer) = (ResourceName::plain("t"), "producer-1".to_owned());
    let messages = vec![message("new", "x")];
    refused("send", node.messages.send(SendRequest { topic: t.clone(), producer, messages }).await.unwrap_err());
    refused("receive", node.messages.receive(receive("t", "g")).await.unwrap_err());
    refused("receive, new group", node.messages.receive(receive("t", "another")).await.unwrap_err());
    refused("topic", node.settings.put_topic("new", topic_config("{}"), Expect::Anything).await.unwrap_err());
    refused("delete", node.settings.delete_topic("t", true).await.unwrap_err());
    let by = EndedBy::Operator { name: "ann".to_owned() };
    let (outcome, reason) = (TransactionOutcome::Committed, String::new());
    let end = EndRequest { topic: None, message_id: None, transaction: open, outcome, by, reason };
    refused("end", node.transactions.end(end).await.unwrap_err());
    let wasm = bytes::Bytes::from_static(b"\0asm");
    let upload = PluginUpload { name: "p".to_owned(), tag: "latest".to_owned(), wasm, expected: None };
    let error = node.components.upload(upload).await.unwrap_err();
    assert!(error.to_string().contains("only reads"), "{error}");
}

#[tokio::test]
async fn a_log_that_is_damaged_behind_its_snapshot_is_refused_or_read_up_to_the_damage_and_never_changed() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(read_only(folder.path())).unwrap();
    assert_eq!(node.status.health(), NodeHealth::Ready, "a whole log is served as ever");
    topic(&node, "t", r#"{"queues": 1}"#).await;
    topic(&node, "x", r#"{"type": "transaction", "transaction": {"max_checks": 0}}"#).await;
    let open = prepare(&node, "x", half("h", "half")).await;
    send_numbered(&node, "t", 0..8).await;
    node.stop().await;
    drop(node);

    let file = damage(folder.path(), "m005");
    let before = contents(folder.path());
    let refused = Node::start(config(folder.path())).err().unwrap();
    assert!(matches!(refused, StartError::Damaged(_)), "{refused}");
    let told = refused.to_string();
    assert!(told.contains(file.to_str().unwrap()) && told.contains("--on-damage read-only"), "{told}");
    assert!(contents(folder.path()) == before, "a refused start changes nothing");

    let node = Node::start(read_only(folder.path())).unwrap();
    assert!(matches!(node.status.health(), NodeHealth::ReadOnly(_)), "{:?}", node.status.health());
    assert_eq!(listed(&node, "t").await, ids(0..5));
    assert_eq!(node.search.by_id("t", "m004").await.unwrap()[0].message.message.body, body("m004").as_bytes());
    assert_eq!(
        node.search.by_id("t", "m005").await.unwrap().len() + node.search.by_id("t", "m006").await.unwrap().len(),
        0
    );
    let shown = node.transactions.get(open).await.unwrap();
    assert_eq!((shown.state, shown.message_id.as_str()), (TransactionState::Open, "h"));
    assert_nothing_is_written(&node, open).await;

    let Damage { served_to, log_end, not_served_bytes, stretches, omitted, .. } = node.damage.report().await.unwrap();
    let [stretch] = stretches.as_slice() else { panic!("{stretches:?}") };
    assert_eq!((&stretch.file, served_to, omitted), (&file, Some(stretch.from), 0));
    assert_eq!((stretch.entries_lost, &stretch.known), (Some(1), &None), "nobody knows what was in it");
    assert!(stretch.length >= 300_000 && stretch.from < stretch.to && stretch.to < log_end, "{stretch:?}");
    assert!(
        not_served_bytes >= 600_000 && not_served_bytes <= log_end.since(stretch.to),
        "two messages are whole behind it"
    );
    node.stop().await;
    drop(node);
    assert!(contents(folder.path()) == before, "reading changes nothing");

    // The file is put back as it was.
    damage(folder.path(), "m005");
    let node = Node::start(read_only(folder.path())).unwrap();
    assert_eq!((node.status.health(), listed(&node, "t").await), (NodeHealth::Ready, ids(0..8)));
    assert!(node.damage.report().await.unwrap().stretches.is_empty());
    send_numbered(&node, "t", 8..9).await;
    node.stop().await;
}

#[tokio::test]
async fn what_was_damaged_below_the_snapshot_is_told_by_queue_and_offset_and_the_rest_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(often(folder.path())).unwrap();
    topic(&node, "t", r#"{"queues": 1}"#).await;
    topic(&node, "u", r#"{"queues": 1}"#).await;
    topic(&node, "x", r#"{"type": "transaction", "transaction": {"max_checks": 0}}"#).await;
    send_numbered(&node, "t", 0..4).await;
    let open = prepare(&node, "x", half("h", &body("half"))).await;
    send_numbered(&node, "u", 4..8).await;
    send_numbered(&node, "t", 8..60).await;
    node.stop().await;
    drop(node);

    // The first segment has damaged entries, the second is missing.
    let log = folder.path().join("shards/0/log");
    for id in ["m002", "m003", "half"] {
        damage(folder.path(), id);
    }
    let missing = log.join(format!("{:020}.log", 4 << 20));
    fs::remove_file(&missing).unwrap();
    let before = contents(folder.path());
    let refused = Node::start(config(folder.path())).err().unwrap();
    assert!(matches!(refused, StartError::Damaged(_)), "{refused}");

    let node = Node::start(read_only(folder.path())).unwrap();
    let Damage { served_to, log_end, not_served_bytes, stretches, .. } = node.damage.report().await.unwrap();
    assert_eq!((served_to, not_served_bytes), (Some(log_end), 0), "the snapshot says what lay in the damage");
    // Marks may lie between the three messages of the first segment: then they are not one stretch.
    let (entries, file) = stretches.split_at(stretches.len() - 1);
    let known: Vec<_> = entries.iter().map(|stretch| stretch.known.as_ref().unwrap()).collect();
    let offsets: Vec<u64> = known.iter().flat_map(|known| &known.messages).flat_map(numbers).collect();
    let open_ones: Vec<TransactionId> = known.iter().flat_map(|known| known.transactions.clone()).collect();
    assert_eq!((offsets, open_ones), (vec![2, 3], vec![open]), "{entries:?}");
    assert!(known.iter().flat_map(|known| &known.messages).all(|lost| lost.topic == "t" && lost.queue == 0));
    assert_eq!(entries.iter().filter_map(|stretch| stretch.entries_lost).sum::<u64>(), 3);
    let file = &file[0];
    assert_eq!((file.length, &file.file), (4 << 20, &missing));
    let [gone] = file.known.as_ref().unwrap().messages.as_slice() else { panic!("{file:?}") };
    let gone_ids: Vec<u32> = numbers(gone).map(|offset| offset as u32 + 4).collect();
    assert!(gone.topic == "t" && gone_ids.len() > 8, "{gone:?}");

    let whole = (0..60).filter(|n| !(2..8).contains(n) && !gone_ids.contains(n));
    assert_eq!(listed(&node, "t").await, ids(whole), "what is lost is left out, and the rest is there");
    assert_eq!(listed(&node, "u").await, ids(4..8));
    assert_nothing_is_written(&node, open).await;
    node.stop().await;
    drop(node);
    assert!(contents(folder.path()) == before, "reading changes nothing");
}

#[tokio::test]
async fn a_node_that_writes_tells_what_its_scrubber_found() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 0..40).await;
    damage(folder.path(), "m003");

    let node = Node::start(NodeConfig { scrub_rate: 1 << 30, ..often(folder.path()) }).unwrap();
    assert_eq!(node.status.health(), NodeHealth::Ready, "it lies below the snapshot, where a start does not look");
    while node.status.scrub().rounds.load(Ordering::Relaxed) < 1 {
        tokio::task::yield_now().await;
    }
    let Damage { served_to, stretches, .. } = node.damage.report().await.unwrap();
    let [stretch] = stretches.as_slice() else { panic!("{stretches:?}") };
    assert_eq!((served_to, &stretch.known.as_ref().unwrap().messages), (None, &vec![lost("t", 3..=3)]));
    send_numbered(&node, "t", 40..41).await;
    node.stop().await;
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// A segment of another life of the same node, as somebody may put it there who has an older backup.
#[tokio::test]
async fn of_a_log_that_is_put_together_from_two_histories_only_the_one_of_the_snapshot_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (data, other) = (folder.path().join("data"), folder.path().join("other"));
    fill(&data, 0..4).await;
    copy_folder(&data, &other);
    for (folder, numbers) in [(&data, 4..60), (&other, 104..160)] {
        let node = Node::start(often(folder)).unwrap();
        send_numbered(&node, "t", numbers).await;
        node.stop().await;
    }
    let name = |n: u64| format!("shards/0/log/{:020}.log", n << 22);
    // Below the snapshot a start does not look; the file that is missing makes it look at everything.
    for foreign in [0, 1] {
        let mixed = folder.path().join(format!("mixed{foreign}"));
        copy_folder(&data, &mixed);
        fs::copy(other.join(name(foreign)), mixed.join(name(foreign))).unwrap();
        fs::remove_file(mixed.join(name(2))).unwrap();

        let node = Node::start(read_only(&mixed)).unwrap();
        let damage = node.damage.report().await.unwrap();
        let [doubtful, seam, missing] = damage.stretches.as_slice() else { panic!("{damage:?}") };
        // The seam is in front of the second segment either way. What has no whole way to the snapshot is not believed.
        assert!((4 << 20..5 << 20).contains(&seam.from.0) && seam.length == 0, "{damage:?}");
        assert!(seam.known.is_none() && seam.reason.contains("another history"), "{seam:?}");
        assert_eq!((doubtful.from.0, doubtful.to.0, missing.to.0), (0, 12 << 20, 12 << 20), "{damage:?}");
        let lost = [doubtful, missing].map(|stretch| stretch.known.as_ref().unwrap().messages.clone());
        let lost: Vec<u64> = lost.iter().flatten().flat_map(numbers).collect();
        assert!(lost.contains(&0) && lost.contains(&12) && lost.contains(&25), "{lost:?}");
        assert_eq!(listed(&node, "t").await, ids((0..60).filter(|n| !lost.contains(&u64::from(*n)))));
        node.stop().await;
    }
}

#[tokio::test]
async fn messages_of_segments_that_are_missing_at_the_beginning_are_listed_while_the_node_writes() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 0..40).await;
    let first = folder.path().join("shards/0/log/00000000000000000000.log");
    fs::remove_file(&first).unwrap();
    let node = Node::start(often(folder.path())).unwrap();
    let damage = node.damage.report().await.unwrap();
    let [stretch] = damage.stretches.as_slice() else { panic!("{damage:?}") };
    assert_eq!((damage.served_to, &stretch.file, stretch.to.0), (None, &first, 4 << 20));
    let [lost] = stretch.known.as_ref().unwrap().messages.as_slice() else { panic!("{stretch:?}") };
    let gone = lost.offsets.end().0 as u32 + 1;
    assert_eq!((lost.offsets.start().0, listed(&node, "t").await), (0, ids(gone..40)));
    send_numbered(&node, "t", 40..41).await;
    node.stop().await;
}
