//! Snapshots and their parts lie on the disk twice. The log's beginning is released here, so nothing else says what is in
//! them: whatever happens to one copy, the other one is read, and made into two again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{config, message, receive, receive_now, send, topic};
use vouch_broker::state::PartView;
use vouch_broker::{QueueOffset, ResourceName, TopicId};
use vouch_commitlog::LogPosition;
use vouch_node::{LostMessages, MessageQuery, Node, NodeConfig, NodeHealth, OnDamage, StartError};
use vouch_storage::{BackupError, CopyFate, StoredCopies, backup, verify_snapshots};

/// A condition that should come true by itself is given up after this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages of topic `t`, which has one queue.
const MESSAGES: u64 = 100;

/// A snapshot for every mebibyte of log, and retention at once; nothing is scrubbed.
fn eager(folder: &Path) -> NodeConfig {
    NodeConfig { snapshot_every: 1 << 20, retention_every: Duration::from_millis(20), scrub_rate: 0, ..config(folder) }
}

/// No snapshot is made: what is there stays.
fn quiet(folder: &Path) -> NodeConfig {
    NodeConfig { snapshot_every: 1 << 40, ..eager(folder) }
}

fn scrubbed(folder: &Path) -> NodeConfig {
    NodeConfig { scrub_rate: 1 << 30, ..quiet(folder) }
}

fn read_only(folder: &Path) -> NodeConfig {
    NodeConfig { on_damage: OnDamage::ReadOnly, ..quiet(folder) }
}

fn snapshots(data: &Path) -> PathBuf {
    data.join("shards/0/snapshots")
}

fn named(data: &Path, extension: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(snapshots(data)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = all.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "it never comes true that {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A folder of a node that was stopped.
struct Stopped {
    _folder: tempfile::TempDir,
    data: PathBuf,
    /// The id of the part in which the messages of `t` are, and where in it the first of them is, the last of them, and the
    /// end.
    part: u64,
    places: [u64; 3],
}

impl Stopped {
    /// The log begins with its second segment or later. All messages of `t` are in one part, which both snapshots name, and
    /// behind it come others.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        // What is before `t` goes, and is in a part of its own.
        let node = Node::start(eager(&data)).unwrap();
        topic(&node, "old", r#"{"queues": 1}"#).await;
        topic(&node, "t", r#"{"queues": 1}"#).await;
        topic(&node, "fill", r#"{"queues": 1}"#).await;
        for n in 0..30 {
            send(&node, "old", message(&format!("old{n}"), &"b".repeat(1 << 18))).await;
        }
        node.settings.delete_topic("old", true).await.unwrap();
        node.stop().await;
        drop(node);
        let node = Node::start(quiet(&data)).unwrap();
        for n in 0..MESSAGES {
            send(&node, "t", message(&format!("m{n:03}"), "body")).await;
        }
        let behind = node.status.log_usage().end.0;
        let id = node.settings.topic(&ResourceName::plain("t")).await.unwrap().id;
        node.stop().await;
        drop(node);
        let node = Node::start(eager(&data)).unwrap();
        let both_are_behind = || {
            let covered = named(&data, "snapshot").into_iter();
            covered.filter(|file| number(file) > behind + (1 << 20)).count() == 2
        };
        let began = Instant::now();
        while node.status.log_usage().start.0 < 4 << 20 || !both_are_behind() {
            assert!(began.elapsed() < PATIENCE, "the log's beginning is not released");
            send(&node, "fill", message("f", &"b".repeat(1 << 18))).await;
        }
        node.stop().await;
        drop(node);
        let (part, places) = named(&data, "part").iter().find_map(|file| places(file, id)).expect("a part holds `t`");
        let whole = verify(&data);
        assert!(whole.damage.is_empty() && whole.to_be_made.is_empty(), "{whole:?}");
        Self { _folder: folder, data, part, places }
    }

    /// Another folder with the same in it.
    fn copy(&self) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let copied = std::process::Command::new("cp").arg("-a").arg(&self.data).arg(&data).status().unwrap();
        assert!(copied.success());
        (folder, data)
    }

    fn part(&self, data: &Path, extension: &str) -> PathBuf {
        snapshots(data).join(format!("{:020}.{extension}", self.part))
    }
}

fn number(file: &Path) -> u64 {
    file.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

/// The id of a part, the places of the first and the last message of a topic, and its length; if all messages are in it.
fn places(file: &Path, topic: TopicId) -> Option<(u64, [u64; 3])> {
    let bytes = fs::read(file).unwrap();
    let (id, len) = (number(file), bytes.len() as u64);
    let mut at = 40 + 56 * u64::from_le_bytes(bytes[24..32].try_into().unwrap());
    let view = PartView::open(id, bytes.into()).unwrap();
    for row in view.queue_rows() {
        if (row.topic, row.first, row.count) == (topic, QueueOffset(0), MESSAGES) {
            return Some((id, [at, at + 16 * (MESSAGES - 1), len]));
        }
        at += 16 * row.count;
    }
    None
}

fn flip(file: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn damage(what: &str, file: &Path, at: u64) {
    match what {
        "flipped" => flip(file, at),
        "cut" => File::options().write(true).open(file).unwrap().set_len(at).unwrap(),
        _ => fs::remove_file(file).unwrap(),
    }
}

#[tokio::test]
async fn what_a_start_makes_again_is_no_damage_while_it_does() {
    let stopped = Stopped::new().await;
    let (_folder, data) = stopped.copy();
    damage("flipped", &stopped.part(&data, "part"), stopped.places[0]);
    assert_eq!(verify(&data).damage.len(), 1);
    let node = Node::start(scrubbed(&data)).unwrap();
    // At once: the node may have mended it, or be at it.
    let found = verify(&data);
    assert!(found.damage.is_empty(), "{found:?}");
    node.stop().await;
}

/// Everything in the folder of the snapshots that is no room set aside.
fn contents(data: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(snapshots(data)).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_none_or(|extension| extension != "room"));
    files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())).collect()
}

fn verify(data: &Path) -> StoredCopies {
    verify_snapshots(data, LogPosition(4 << 20), &mut |_| ()).unwrap()
}

fn expected() -> Vec<String> {
    (0..MESSAGES).map(|n| format!("m{n:03}")).collect()
}

async fn received(node: &Node, group: &str) -> Vec<String> {
    let mut ids: Vec<_> =
        receive_now(node, "t", group).await.into_iter().map(|found| found.message.message.message_id).collect();
    ids.sort();
    ids
}

async fn listed(node: &Node, topic: &str) -> usize {
    let query = MessageQuery { topic: topic.to_owned(), key: None, since_ms: None, after: None, limit: 1000 };
    node.search.list(query).await.unwrap().messages.len()
}

#[tokio::test]
async fn a_running_node_reads_on_from_the_other_copy_and_mends_the_damaged_one() {
    let stopped = Stopped::new().await;
    let data = &stopped.data;
    let node = Node::start(quiet(data)).unwrap();
    let (first, second) = (stopped.part(data, "part"), stopped.part(data, "part2"));
    let whole = fs::read(&first).unwrap();
    // The first message of the first copy, which is the one that is read, and the last of the other. That one first: whoever reads
    // meanwhile must not find the first one damaged, and mend it, before the other is.
    flip(&second, stopped.places[1] + 9);
    flip(&first, stopped.places[0] + 1);
    assert_eq!(received(&node, "g1").await, expected(), "what was stored is delivered");
    until("both are mended", || [&first, &second].iter().all(|file| fs::read(file).unwrap() == whole)).await;
    assert_eq!(received(&node, "g2").await, expected());
    // It is read from the files that were mended: damage in those is met as well, by whoever reads after the node took them up,
    // which is a moment after they were written.
    flip(&first, stopped.places[0] + 1);
    let began = Instant::now();
    for group in 3.. {
        assert_eq!(received(&node, &format!("g{group}")).await, expected());
        if fs::read(&first).unwrap() == whole {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "it is never mended again");
    }
    assert_eq!(node.status.health(), NodeHealth::Ready);
    node.stop().await;
}

#[tokio::test]
async fn a_running_node_that_finds_neither_copy_of_what_it_is_asked_for_says_nothing_rather_than_something_wrong() {
    let stopped = Stopped::new().await;
    let data = &stopped.data;
    let node = Node::start(quiet(data)).unwrap();
    for extension in ["part", "part2"] {
        // The tag of the first message: it would be passed over by whoever filters.
        flip(&stopped.part(data, extension), stopped.places[0] + 8);
    }
    let received =
        node.messages.receive(vouch_node::ReceiveRequest { wait: Duration::ZERO, ..receive("t", "g") }).await;
    assert!(received.is_err() || received.unwrap().is_empty());
    until("it stops writing", || matches!(node.status.health(), NodeHealth::Poisoned(_))).await;
    let NodeHealth::Poisoned(reason) = node.status.health() else { unreachable!() };
    assert!(reason.contains(&format!("part {}", stopped.part)) && reason.contains("log verify"), "{reason}");
    node.stop().await;
}

#[tokio::test]
async fn what_both_copies_lost_is_refused_or_left_out_and_told_by_topic_queue_and_offset() {
    let stopped = Stopped::new().await;
    let (first, last) = (stopped.places[0], stopped.places[1]);
    let fill = {
        let (_folder, data) = stopped.copy();
        let node = Node::start(quiet(&data)).unwrap();
        let fill = listed(&node, "fill").await;
        node.stop().await;
        fill
    };
    for (a, b) in [("cut", "removed"), ("removed", "removed"), ("cut", "cut")] {
        let case = format!("{a}, {b}");
        let (_folder, data) = stopped.copy();
        let files = ["part", "part2"].map(|extension| stopped.part(&data, extension));
        damage(a, &files[0], first);
        damage(b, &files[1], last);
        let fates: Vec<_> = verify(&data).damage.into_iter().map(|copy| (copy.file, copy.fate)).collect();
        assert_eq!(fates, files.clone().map(|file| (file, CopyFate::Lost)), "{case}");
        let refused = backup(&data, &data.with_file_name("backup"), &mut |_| ()).unwrap_err();
        let told = refused.to_string();
        assert!(matches!(refused, BackupError::SourceDamaged(_)) && told.contains(&stopped.part.to_string()), "{told}");
        let before = contents(&data);
        let refused = Node::start(quiet(&data)).err().unwrap();
        assert!(matches!(refused, StartError::NoSnapshot { .. }), "{case}: {refused}");
        assert!(refused.to_string().contains("--on-damage read-only"), "{refused}");

        let node = Node::start(read_only(&data)).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert!(matches!(node.status.health(), NodeHealth::ReadOnly(_)), "{case}");
        let damage = node.damage.report().await.unwrap();
        let [stretch] = damage.stretches.as_slice() else { panic!("{case}: {damage:?}") };
        let lost = &stretch.known.as_ref().unwrap().messages;
        let of_t =
            LostMessages { topic: "t".to_owned(), queue: 0, offsets: QueueOffset(0)..=QueueOffset(MESSAGES - 1) };
        assert!(lost.contains(&of_t), "{case}: {lost:?}");
        assert_eq!((&stretch.file, stretch.to.0), (&files[0], stopped.part), "{case}");
        assert_eq!(listed(&node, "t").await, 0, "{case}");
        let also_lost: u64 = lost
            .iter()
            .filter(|lost| lost.topic == "fill")
            .map(|lost| lost.offsets.end().next().since(*lost.offsets.start()))
            .sum();
        // It is one message, sent again and again: nobody takes a resend for another one, with what it resends forgotten.
        assert_eq!(listed(&node, "fill").await as u64 + also_lost, fill as u64, "{case}: the rest is read");
        let newest = number(named(&data, "snapshot").last().unwrap());
        assert_eq!(damage.served_to, Some(LogPosition(newest)), "{case}: what follows stood on what is lost");
        node.stop().await;
        drop(node);
        assert!(contents(&data) == before, "{case}: reading changes nothing");
    }
}

/// A lookup file is made from its part: of a damaged one, from the other copy.
#[tokio::test]
async fn lookup_files_are_made_again_also_where_their_part_is_damaged() {
    let stopped = Stopped::new().await;
    let (_folder, data) = stopped.copy();
    let lookup = data.join(format!("shards/0/lookup/{:020}.lookup", stopped.part));
    let whole = fs::read(&lookup).unwrap();
    flip(&lookup, 100);
    flip(&stopped.part(&data, "part"), stopped.places[0]);
    let node = Node::start(quiet(&data)).unwrap();
    until("it is made again", || fs::read(&lookup).is_ok_and(|bytes| bytes == whole)).await;
    assert_eq!(node.search.by_id("t", "m042").await.unwrap().len(), 1);
    node.stop().await;
}
