//! The folder of one of several replicas: what it noted as committed is applied, the rest waits for a leader; marks of other
//! disks prove nothing; and its log ends with an entry.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use vouch_broker::record::MembersChanged;
use vouch_cluster::MembersChange;
use vouch_commitlog::LogPosition;
use vouch_consensus::NodeId;
use vouch_storage::{Committed, StartError};

use crate::common::{Shard, config, refused, segment};

/// A killed member with three messages behind its first entries, of which the first is noted as committed; where the log ended.
fn killed_member(data: &Path) -> LogPosition {
    let mut shard = Shard::start(data);
    shard.replica.is_member(NodeId(2)).unwrap();
    shard.replica.term_and_vote(9, Some(NodeId(3))).unwrap();
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.send(topic, "m000", 1000);
    let (position, index) = (shard.appender.durable(), shard.last_index());
    shard.replica.durable(position, Committed { index, position }).unwrap();
    for id in ["m001", "m002"] {
        shard.send(topic, id, 1000);
    }
    let end = shard.appender.durable();
    shard.kill();
    end
}

#[test]
fn what_was_noted_as_committed_is_applied_and_the_rest_waits() {
    let folder = tempfile::tempdir().unwrap();
    let end = killed_member(folder.path());
    let shard = Shard::start(folder.path());
    assert_eq!(shard.listed("t"), ["m000"]);
    let base = shard.base.unwrap();
    let behind: Vec<u64> = shard.tail.iter().map(|entry| entry.index).collect();
    assert_eq!(behind, [base.index + 1, base.index + 2]);
    assert_eq!((shard.tail[1].end, shard.recovery.end), (end, end));
    assert_eq!(
        (shard.replica.note().term, shard.replica.note().vote),
        (9, Some(NodeId(3))),
        "nor is its vote forgotten"
    );
}

#[test]
fn what_is_torn_behind_what_was_noted_as_durable_is_cut_whatever_marks_say() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let mut shard = Shard::start(data);
    shard.replica.is_member(NodeId(2)).unwrap();
    shard.replica.term_and_vote(9, None).unwrap();
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.send(topic, "m000", 1000);
    let (position, index) = (shard.appender.durable(), shard.last_index());
    shard.replica.durable(position, Committed { index, position }).unwrap();
    let torn = shard.send(topic, "m001", 1000);
    // As one of another disk does, this mark says that all before it was durable.
    shard.mark();
    shard.kill();
    File::options().write(true).open(segment(data, 0)).unwrap().write_all_at(&[0xff; 8], torn + 100).unwrap();
    let shard = Shard::start(data);
    assert_eq!(shard.recovery.end, position);
    assert!(shard.recovery.cut.is_some() && shard.tail.is_empty());
    shard.kill();

    // Below what was noted it is damage.
    File::options().write(true).open(segment(data, 0)).unwrap().write_all_at(&[0xff; 8], position.0 - 500).unwrap();
    assert!(refused(&config(data)).to_string().contains("damaged"), "{}", refused(&config(data)));
}

/// Without the note nobody knows how it voted: it must not start as if it had been alone all the time.
#[test]
fn a_log_that_names_other_members_does_not_start_without_what_its_node_noted() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    shard.replica.is_member(NodeId(1)).unwrap();
    shard.replica.term_and_vote(9, Some(NodeId(1))).unwrap();
    let (voters, learners) = ([NodeId(1)].into(), [NodeId(2)].into());
    let changed = MembersChanged { change: MembersChange::To { voters, learners } };
    let mut records = Vec::new();
    changed.encode(&mut records);
    shard.write(&records);
    shard.kill();
    let replica = folder.path().join("shards/0/replica");
    let noted = fs::read(&replica).unwrap();
    fs::remove_file(&replica).unwrap();
    let why = refused(&config(folder.path()));
    assert!(matches!(&why, StartError::MemberWithoutNote { members: 2, .. }), "{why}");
    assert!(why.to_string().contains("put the file back"), "{why}");
    fs::write(&replica, noted).unwrap();
    Shard::start(folder.path());
}
