//! A cluster that begins anew: who belongs to it then, and what transactions are called in each of its lives.

use vouch_cluster::{ClusterIncarnation, GroupMembers, MembersChange, NodeId};

use super::snapshots::with_section;
use crate::record::{ClusterBegunAnew, MembersChanged, NodeInvited, Record};
use crate::state::{Effect, INCARNATIONS_MAX, RecordAt, SnapshotError};
use crate::testing::{RecordLog, read_snapshot};
use crate::{RecordPosition, Refusal, State, TransactionId};

fn anew(incarnation: u32, node: u64, since: u64) -> ClusterBegunAnew {
    ClusterBegunAnew {
        incarnation: ClusterIncarnation(incarnation),
        node: NodeId(node),
        since: RecordPosition(since),
        handle_key: [incarnation as u8; 32],
        written_by: "0.2.0".to_owned(),
    }
}

/// A log of three nodes.
fn three() -> RecordLog {
    let mut log = RecordLog::new();
    for _ in 2..=3 {
        let until = log.now.plus_ms(60_000);
        log.apply(Record::NodeInvited(NodeInvited { token: [7; 32], until, votes_at_once: true, replaces: None }))
            .unwrap();
    }
    let to = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
    let change = MembersChange::To { voters: to(&[1, 2]), learners: to(&[3]) };
    log.apply(Record::MembersChanged(MembersChanged { change })).unwrap();
    log
}

#[test]
fn a_cluster_that_begins_anew_is_one_node_with_another_key_and_none_of_before_belongs_to_it() {
    let mut log = three();
    log.apply(Record::ClusterBegunAnew(anew(9, 4, u64::MAX))).unwrap();
    assert_eq!(log.effects, [Effect::Members, Effect::Nodes]);
    let state = &log.state;
    assert_eq!(state.members(), &GroupMembers::voters([NodeId(4)]));
    assert!([1, 2, 3].map(NodeId).iter().all(|node| state.nodes().is_gone(*node)) && !state.nodes().is_gone(NodeId(4)));
    assert_eq!(state.cluster().init.as_ref().unwrap().handle_key, [9; 32]);
    assert_eq!(
        (state.incarnations().current(), state.cluster().last_version.as_str()),
        (ClusterIncarnation(9), "0.2.0")
    );
    let until = log.now.plus_ms(60_000);
    log.apply(Record::NodeInvited(NodeInvited { token: [7; 32], until, votes_at_once: true, replaces: None })).unwrap();
    assert_eq!(log.state.nodes().last, NodeId(5), "ids are counted on");
}

#[test]
fn a_life_that_was_or_a_node_that_was_is_refused_and_changes_nothing() {
    let mut log = three();
    let at = RecordAt { position: RecordPosition(1), time: log.now };
    let nobodys = State::default().apply(at, &Record::ClusterBegunAnew(anew(9, 4, 0)), &mut Vec::new());
    assert!(matches!(nobodys, Err(Refusal::Conflict(_))), "{nobodys:?}");
    log.apply(Record::ClusterBegunAnew(anew(9, 4, 0))).unwrap();
    let before = log.state.snapshot(RecordPosition(1));
    for wrong in [anew(9, 5, 0), anew(0, 5, 0), anew(8, 4, 0), anew(8, 1, 0)] {
        assert!(matches!(log.apply(Record::ClusterBegunAnew(wrong)), Err(Refusal::Conflict(_))));
    }
    assert!(log.state.snapshot(RecordPosition(1)) == before);
}

#[test]
fn what_was_written_in_one_life_is_named_by_it_for_ever_and_no_other_name_means_it() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    let first = log.half(topic);
    log.apply(Record::ClusterBegunAnew(anew(7, 2, u64::MAX))).unwrap();
    let second = log.half(topic);
    log.apply(Record::ClusterBegunAnew(anew(8, 3, u64::MAX))).unwrap();
    let third = log.half(topic);
    let lives = log.state.incarnations();
    for (half, life) in [(first, 0), (second, 7), (third, 8)] {
        let id = lives.transaction_id(half);
        assert_eq!(id.incarnation, ClusterIncarnation(life));
        assert_eq!(lives.half_of(id), Ok(half));
        for other in [0, 7, 8, 9].into_iter().filter(|other| *other != life) {
            let other = TransactionId { incarnation: ClusterIncarnation(other), ..id };
            let Err(Refusal::UnknownTransaction { why, .. }) = lives.half_of(other) else { panic!("{other}") };
            assert!(why.contains("another life"), "{why}");
        }
    }
}

/// What a node had and did not know to be committed may be another message in what is left of its cluster.
#[test]
fn what_nobody_knew_to_be_committed_is_named_as_of_the_new_life() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    let (committed, undecided) = (log.half(topic), log.half(topic));
    log.apply(Record::ClusterBegunAnew(anew(7, 2, undecided.0))).unwrap();
    let lives = log.state.incarnations();
    assert!(lives.transaction_id(committed).incarnation.is_first());
    assert_eq!(lives.transaction_id(undecided).incarnation, ClusterIncarnation(7));
}

#[test]
fn lives_are_in_the_snapshot_of_a_cluster_that_had_several_and_the_latest_are_remembered() {
    let mut log = RecordLog::new();
    let alone = log.state.snapshot(RecordPosition(1));
    assert!(!alone.windows(3).any(|head| head == [12, 0, 2]), "programs of before read it");
    for life in 1..=INCARNATIONS_MAX as u32 + 1 {
        log.apply(Record::ClusterBegunAnew(anew(life, u64::from(life) + 1, u64::MAX))).unwrap();
    }
    let bytes = log.state.snapshot(RecordPosition(1));
    State::check_snapshot(&bytes).unwrap();
    let (_, read) = read_snapshot(&bytes).unwrap();
    assert_eq!((read.incarnations(), read.members()), (log.state.incarnations(), log.state.members()));
    assert!(read.incarnations().at(RecordPosition(0)).is_first());
}

#[test]
fn a_section_of_lives_that_no_version_writes_is_refused() {
    let mut log = RecordLog::new();
    log.apply(Record::ClusterBegunAnew(anew(7, 2, u64::MAX))).unwrap();
    let bytes = log.state.snapshot(RecordPosition(1));
    let life = |since: u64, life: u32| [&since.to_le_bytes()[..], &life.to_le_bytes()].concat();
    let read = |lives: &[Vec<u8>]| {
        let contents = [&[lives.len() as u8][..], &lives.concat()].concat();
        read_snapshot(&with_section(&bytes, 12, &contents)).map(drop)
    };
    read(&[life(5, 7), life(5, 8)]).unwrap();
    for wrong in [vec![life(5, 0)], vec![life(5, 7), life(4, 8)], vec![life(5, 7), life(6, 7)]] {
        assert!(matches!(read(&wrong), Err(SnapshotError::Section { section: 12, .. })), "{wrong:?}");
    }
}
