//! The scrubber of a running node.

use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use crate::common::{config, message, send, topic};
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
