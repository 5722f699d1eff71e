//! The folder of one of several replicas: what it noted as committed is applied, the rest waits for a leader; marks of other
//! disks prove nothing; and its log ends with an entry.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use vouch_broker::record::MembersChanged;
use vouch_cluster::{ClusterIncarnation, GroupMembers, MembersChange};
use vouch_commitlog::{EntryKind, LogPosition};
use vouch_consensus::NodeId;
use vouch_storage::{Committed, JoinedCluster, OpenedLog, StartError, StorageConfig};

use crate::common::{SEGMENT, Shard, config, open, refused, segment};

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
    assert!(matches!(&why, StartError::MemberWithoutNote(_)), "{why}");
    assert!(why.to_string().contains("Put the file back"), "{why}");
    fs::write(&replica, noted).unwrap();
    Shard::start(folder.path());
}

/// Between two steps of a first start the process may be killed: whoever starts the folder then, with the token or without, starts
/// the node that it was made for.
#[test]
fn a_folder_that_was_made_to_join_never_begins_a_cluster_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let joins = JoinedCluster {
        cluster_id: [9; 16],
        node: NodeId(4),
        segment_size: SEGMENT,
        incarnation: ClusterIncarnation::FIRST,
    };
    drop(open(&StorageConfig { joins: Some(joins.clone()), ..config(folder.path()) }).unwrap());
    let replica = folder.path().join("shards/0/replica");
    for again in [None, Some(joins)] {
        fs::remove_file(&replica).unwrap();
        let opened = open(&StorageConfig { joins: again, ..config(folder.path()) }).unwrap();
        let OpenedLog::Whole { replica, .. } = opened.log else { panic!("the log is damaged") };
        assert_eq!((replica.note().member, replica.note().node), (true, NodeId(4)));
        drop(opened.folders);
    }
    let other = JoinedCluster {
        cluster_id: [9; 16],
        node: NodeId(5),
        segment_size: SEGMENT,
        incarnation: ClusterIncarnation::FIRST,
    };
    let why = refused(&StorageConfig { joins: Some(other), ..config(folder.path()) });
    assert!(matches!(why, StartError::OfAnotherNode { node: 4, token: 5, .. }), "{why}");
}

/// A start that counted on members of two changes ago could find a majority that has nothing in common with that of its cluster.
#[test]
fn changes_of_the_members_but_the_last_are_applied_whatever_was_noted_as_committed() {
    let folder = tempfile::tempdir().unwrap();
    let mut shard = Shard::start(folder.path());
    shard.replica.is_member(NodeId(1)).unwrap();
    shard.replica.term_and_vote(9, Some(NodeId(1))).unwrap();
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    let (position, index) = (shard.appender.durable(), shard.last_index());
    shard.replica.durable(position, Committed { index, position }).unwrap();
    let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
    let to = |voters: &[u64]| MembersChange::To { voters: nodes(voters), learners: nodes(&[]) };
    for (change, id) in [(to(&[1, 2, 3]), "m000"), (MembersChange::Finish, "m001"), (to(&[1, 2]), "m002")] {
        let mut records = Vec::new();
        MembersChanged { change }.encode(&mut records);
        shard.append(EntryKind::Members, &records).unwrap();
        shard.send(topic, id, 100);
    }
    shard.kill();
    let shard = Shard::start(folder.path());
    assert_eq!(shard.state.members(), &GroupMembers::voters([1, 2, 3].map(NodeId)));
    assert_eq!(shard.listed("t"), ["m000"], "up to the change before the last");
    assert_eq!(shard.tail.len(), 3);
    assert_eq!(shard.tail[0].index, shard.base.unwrap().index + 1);
}
