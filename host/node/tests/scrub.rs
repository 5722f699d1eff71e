//! The scrubber of a running node.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod common;

use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use common::{config, message, send, topic};
use vouch_node::{Node, NodeConfig};

#[tokio::test]
async fn what_a_disk_lost_in_a_sealed_segment_is_found_while_the_node_serves() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(NodeConfig { scrub_rate: 1 << 30, ..config(folder.path()) }).unwrap();
    topic(&node, "t", "{}").await;
    // Segments have 4 MiB: two are full, and the next one is begun.
    for n in 0..20 {
        send(&node, "t", message(&format!("m{n}"), &"b".repeat(1 << 19))).await;
    }
    let rounds = |node: &Node| node.status.scrub().rounds.load(Ordering::Relaxed);
    let sealed_was_read = |node: &Node| node.status.scrub().bytes.load(Ordering::Relaxed) >= 8 << 20;
    while !sealed_was_read(&node) {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.status.scrub().damaged.load(Ordering::Relaxed), 0);
    node.stop().await;
    drop(node);

    let segment = folder.path().join("shards/0/log/00000000000000000000.log");
    std::fs::File::options().write(true).open(segment).unwrap().write_all_at(b"lost", 2 << 20).unwrap();
    // The damage lies behind the snapshot, where a start does not look.
    let node = Node::start(NodeConfig { scrub_rate: 1 << 30, ..config(folder.path()) }).unwrap();
    while rounds(&node) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.status.scrub().damaged.load(Ordering::Relaxed), 1);
    send(&node, "t", message("after", "x")).await;
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_starts_again_goes_on_where_the_scrubber_was() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(NodeConfig { scrub_rate: 1 << 30, ..config(folder.path()) }).unwrap();
    topic(&node, "t", "{}").await;
    for n in 0..20 {
        send(&node, "t", message(&format!("m{n}"), &"b".repeat(1 << 19))).await;
    }
    let place = folder.path().join("shards/0/scrub");
    while node.status.scrub().bytes.load(Ordering::Relaxed) < 8 << 20 || !place.exists() {
        tokio::task::yield_now().await;
    }
    node.stop().await;
    drop(node);
    let kept: u64 = std::fs::read_to_string(&place).unwrap().parse().unwrap();
    assert!(kept.is_multiple_of(4 << 20) && kept <= 8 << 20, "{kept}");

    // As if it had been stopped in the second of the two full segments: that one is read, and then both.
    std::fs::write(&place, (4 << 20).to_string()).unwrap();
    let node = Node::start(NodeConfig { scrub_rate: 1 << 30, ..config(folder.path()) }).unwrap();
    while node.status.scrub().rounds.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let read = node.status.scrub().bytes.load(Ordering::Relaxed);
    assert!((12 << 20..13 << 20).contains(&read), "{read}");
    node.stop().await;
}
