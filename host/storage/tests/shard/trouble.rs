//! Snapshots that cannot be made: it is said why, and the next one is tried.

use std::sync::atomic::Ordering;

use vouch_broker::Millis;
use vouch_broker::record::{LevelRaised, NodeInvited, NodeReplaced};
use vouch_cluster::NodeId;
use vouch_storage::StorageConfig;

use crate::common::{Shard, config};

#[test]
fn what_belongs_to_a_later_level_than_the_log_has_is_in_no_snapshot_and_the_next_one_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start_with(&StorageConfig { feature_level: 1, ..config(folder.path()) }).unwrap();
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.send(topic, "m1", 100);
    let first = shard.snapshot();
    // No leader writes that at this level, but for a fault of Vouch.
    let replaces = Some(NodeReplaced { node: NodeId(1), by: "ann".to_owned(), reason: String::new() });
    let mut records = Vec::new();
    NodeInvited { token: [7; 32], until: Millis(u64::MAX), votes_at_once: false, replaces }.encode(&mut records);
    shard.write(&records);
    for message in ["m2", "m3"] {
        shard.send(topic, message, 100);
        shard.requests.want(shard.reader.end());
        let why = shard.trouble();
        assert!(why.contains("needs feature level 2"), "{why}");
        assert_eq!(shard.snapshots.newest_position().unwrap().0, first);
    }
    let mut records = Vec::new();
    LevelRaised { level: 2, by: "ann".to_owned(), written_by: "0.1.0".to_owned() }.encode(&mut records);
    shard.write(&records);
    assert!(shard.snapshot() > first);
    assert_eq!(shard.requests.trouble(), None);
    assert_eq!(shard.listed("t"), ["m1", "m2", "m3"]);
    shard.stop_with(false);
}

#[test]
fn a_panic_ends_one_snapshot_and_not_those_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.send(topic, "m1", 100);
    let mut before = shard.snapshot();
    for messages in [["m2", "m3"], ["m4", "m5"]] {
        shard.send(topic, messages[0], 100);
        shard.stumbles.store(true, Ordering::Relaxed);
        shard.requests.want(shard.reader.end());
        let why = shard.trouble();
        assert!(why.contains("panic: it stumbles"), "{why}");
        shard.send(topic, messages[1], 100);
        let newest = shard.snapshot();
        assert!(newest > before);
        assert_eq!(shard.requests.trouble(), None);
        before = newest;
    }
    shard.kill();
    let shard = Shard::start(folder.path());
    assert_eq!(shard.listed("t"), ["m1", "m2", "m3", "m4", "m5"]);
    shard.stop_with(false);
}
