//! A node on a file system of its own, which is really full. It is made and mounted here, so these tests are for root and
//! a mount namespace of their own: `tests/run 'rust: the log on a virtual disk'`.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod common;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{config, half, message, prepare, receive_now, send, topic};
use vouch_broker::record::EndedBy;
use vouch_broker::{NotDone, NothingStored, ResourceName, TransactionId, TransactionOutcome};
use vouch_node::{EndRequest, Node, NodeConfig, Receipt, SendRequest, TransactionState};

/// A condition that should come true by itself is given up after this long.
const PATIENCE: Duration = Duration::from_secs(60);
const DISK_BYTES: u64 = 80 << 20;

/// A small ext4, mounted for the life of a test.
struct SmallDisk {
    folder: tempfile::TempDir,
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
}

impl SmallDisk {
    fn mount() -> Self {
        let disk = Self { folder: tempfile::tempdir().unwrap() };
        let image = disk.folder.path().join("image");
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        std::fs::create_dir(disk.root()).unwrap();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", image.to_str().unwrap()]);
        run("mount", &["-o", "loop", image.to_str().unwrap(), disk.root().to_str().unwrap()]);
        disk
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn data(&self) -> PathBuf {
        self.root().join("data")
    }

    /// Another program writes until nothing more fits.
    fn fill(&self) {
        let mut file = File::create(self.root().join("somebody-elses")).unwrap();
        for len in [1 << 20, 64 << 10, 4096, 1] {
            while file.write_all(&vec![1; len]).is_ok() {}
        }
        file.sync_all().unwrap();
    }

    fn free(&self) {
        std::fs::remove_file(self.root().join("somebody-elses")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that fails may still have files open. What is mounted goes with the namespace at the latest.
        let _ = Command::new("umount").arg("--lazy").arg(self.root()).status();
    }
}

/// The mark as high as it can be: most of what is tested is behind it.
fn eager(data: &Path) -> NodeConfig {
    let often = Duration::from_millis(20);
    NodeConfig { snapshot_every: 1 << 20, retention_every: often, scrub_rate: 0, disk_high_water: 99, ..config(data) }
}

async fn try_send(node: &Node, topic: &str, id: &str, len: usize) -> Result<Vec<Receipt>, NotDone> {
    let messages = vec![message(id, &"b".repeat(len))];
    node.messages
        .send(SendRequest { topic: ResourceName::plain(topic), producer: "producer-1".to_owned(), messages })
        .await
}

/// The disk is measured once a second: until then only the log itself knows that it is full, and is written until no more
/// is left than what is kept for ends and acknowledgements.
fn measured_late(data: &Path) -> NodeConfig {
    NodeConfig { retention_every: Duration::from_secs(3600), ..eager(data) }
}

/// Sends until not even the smallest message finds space; ids of those that were accepted.
async fn send_until_full(node: &Node, topic: &str) -> Vec<String> {
    let mut accepted = Vec::new();
    for len in [64 << 10, 4096, 1] {
        loop {
            let id = format!("m{:05}", accepted.len());
            match try_send(node, topic, &id, len).await {
                Ok(_) => accepted.push(id),
                Err(NotDone::NothingStored(NothingStored::StorageFull(_))) => break,
                Err(refusal) => panic!("{refusal}"),
            }
        }
    }
    accepted
}

/// Sends one message until it is accepted.
async fn send_when_there_is_room(node: &Node, topic: &str, id: &str) {
    let began = Instant::now();
    while let Err(refusal) = try_send(node, topic, id, 64 << 10).await {
        assert!(matches!(refusal, NotDone::NothingStored(NothingStored::StorageFull(_))), "{refusal}");
        assert!(began.elapsed() < PATIENCE, "there is room again, and sends are still refused");
        tokio::task::yield_now().await;
    }
}

async fn commit(node: &Node, transaction: TransactionId) {
    let by = EndedBy::Operator { name: "ann".to_owned() };
    let (outcome, reason) = (TransactionOutcome::Committed, String::new());
    let end = EndRequest { topic: None, message_id: None, transaction, outcome, by, reason };
    node.transactions.end(end).await.unwrap();
}

async fn received(node: &Node, topic: &str, group: &str) -> BTreeSet<String> {
    let received = receive_now(node, topic, group).await;
    received.into_iter().map(|delivery| delivery.message.message.message_id).collect()
}

#[tokio::test]
#[ignore = "mounts a file system; tests/run runs it"]
async fn a_disk_that_somebody_else_fills_refuses_sends_takes_ends_and_acks_and_recovers_by_itself() {
    let disk = SmallDisk::mount();
    let node = Node::start(measured_late(&disk.data())).unwrap();
    topic(&node, "t", r#"{"queues": 1}"#).await;
    topic(&node, "x", r#"{"type": "transaction", "transaction": {"max_checks": 0}}"#).await;
    let mut open = Vec::new();
    for n in 0..100 {
        open.push(prepare(&node, "x", half(&format!("h{n}"), "half")).await);
        send(&node, "t", message(&format!("first{n}"), "body")).await;
    }
    let deliveries = receive_now(&node, "t", "g").await;
    assert_eq!(deliveries.len(), 100);

    disk.fill();
    let accepted = send_until_full(&node, "t").await;
    // Ends and acknowledgements find the space that was kept for them, and a message that comes out of a commit too.
    for transaction in &open {
        commit(&node, *transaction).await;
    }
    for delivery in &deliveries {
        node.messages.ack(&[delivery.handle]).await.unwrap().remove(0).unwrap();
    }
    assert!(
        matches!(try_send(&node, "t", "refused", 1).await, Err(NotDone::NothingStored(NothingStored::StorageFull(_)))),
        "the disk is still full"
    );
    assert_eq!(received(&node, "x", "g").await.len(), 100);

    disk.free();
    send_when_there_is_room(&node, "t", "again").await;
    node.stop().await;
    drop(node);

    let node = Node::start(eager(&disk.data())).unwrap();
    let expected: BTreeSet<String> = accepted.into_iter().chain(["again".to_owned()]).collect();
    assert_eq!(received(&node, "t", "g").await, expected, "what was acknowledged stays so, what was accepted is there");
    assert_eq!(node.transactions.get(open[0]).await.unwrap().state, TransactionState::Committed);
    node.stop().await;
}

#[tokio::test]
#[ignore = "mounts a file system; tests/run runs it"]
async fn a_disk_that_the_log_fills_is_freed_by_deleting_a_topic_without_a_restart() {
    let disk = SmallDisk::mount();
    let node = Node::start(measured_late(&disk.data())).unwrap();
    topic(&node, "old", r#"{"queues": 1}"#).await;
    topic(&node, "t", r#"{"queues": 1}"#).await;
    topic(&node, "x", r#"{"type": "transaction", "transaction": {"max_checks": 0}}"#).await;
    send(&node, "t", message("kept", "body")).await;
    let mut open = Vec::new();
    for n in 0..60 {
        open.push(prepare(&node, "x", half(&format!("h{n}"), "half")).await);
    }
    let filled = send_until_full(&node, "old").await;
    assert!(filled.len() > 500, "{} messages filled it", filled.len());

    // Not one block is left, and the work goes on for a while, as it may before anybody looks: the snapshots that make room
    // have what was set aside for them all the same.
    disk.fill();
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    for transaction in &open {
        pace.tick().await;
        commit(&node, *transaction).await;
    }
    node.settings.delete_topic("old", true).await.unwrap();
    send_when_there_is_room(&node, "t", "m00000").await;
    // Most of the disk is free again, not only the rest of a segment.
    let mut expected = BTreeSet::from(["kept".to_owned(), "m00000".to_owned()]);
    for n in 1..400 {
        let id = format!("m{n:05}");
        send_when_there_is_room(&node, "t", &id).await;
        expected.insert(id);
    }
    node.stop().await;
    drop(node);
    let node = Node::start(eager(&disk.data())).unwrap();
    assert_eq!(received(&node, "t", "g").await, expected);
    assert_eq!(received(&node, "x", "g").await.len(), open.len());
    node.stop().await;
}

/// What a snapshot takes beside its state is a part: some bytes for each message since the last one.
#[tokio::test]
#[ignore = "mounts a file system; tests/run runs it"]
async fn a_full_disk_is_freed_however_many_messages_came_since_the_last_snapshot() {
    let disk = SmallDisk::mount();
    let config = NodeConfig { snapshot_every: 8 << 20, ..eager(&disk.data()) };
    let node = Node::start(config).unwrap();
    topic(&node, "old", r#"{"queues": 1}"#).await;
    topic(&node, "t", r#"{"queues": 1}"#).await;
    // More than half of what makes a snapshot due, with ids as clients make them.
    for batch in 0..1000 {
        let messages = (0..32).map(|n| message(&format!("{batch:017}{n:017}"), "")).collect();
        let (topic, producer) = (ResourceName::plain("old"), "p".to_owned());
        node.messages.send(SendRequest { topic, producer, messages }).await.unwrap();
    }
    let snapshots = || std::fs::read_dir(disk.data().join("shards/0/snapshots")).unwrap();
    let made = snapshots().filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|of| of == "snapshot"));
    assert_eq!(made.count(), 0, "all of them are to be in the next one");
    assert!(node.status.log_usage().end.0 > 4 << 20);
    disk.fill();
    send_until_full(&node, "t").await;
    node.settings.delete_topic("old", true).await.unwrap();
    node.settings.delete_topic("t", true).await.unwrap();
    topic(&node, "new", r#"{"queues": 1}"#).await;
    let mut sent = 0;
    while node.status.log_usage().start.0 == 0 {
        send_when_there_is_room(&node, "new", &format!("m{sent:05}")).await;
        sent += 1;
    }
    // More than the segment has left that is written: the blocks of the released file are for it.
    for n in sent..sent + 30 {
        send_when_there_is_room(&node, "new", &format!("m{n:05}")).await;
    }
    node.stop().await;
}
