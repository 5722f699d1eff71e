//! Who belongs to the cluster.

use vouch_cluster::{GroupMembers, MembersChange, NodeId};

use crate::record::{MembersChanged, Record};
use crate::state::Effect;
use crate::testing::{RecordLog, read_snapshot};
use crate::{RecordPosition, Refusal, State};

fn to(voters: &[u64], learners: &[u64]) -> Record {
    let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
    Record::MembersChanged(MembersChanged {
        change: MembersChange::To { voters: nodes(voters), learners: nodes(learners) },
    })
}

#[test]
fn a_cluster_begins_with_its_first_node_and_becomes_three_in_two_steps() {
    let mut log = RecordLog::new();
    let first = GroupMembers::voters([NodeId::FIRST]);
    assert_eq!(log.state.members(), &first);
    log.apply(to(&[1], &[2])).unwrap();
    assert_eq!(log.effects, [Effect::Members]);
    log.apply(to(&[1, 2, 3], &[])).unwrap();
    assert!(log.state.members().is_joint());
    let Err(Refusal::Conflict(why)) = log.apply(to(&[1], &[])) else { panic!("a change is under way") };
    assert!(why.contains("under way"), "{why}");
    log.apply(Record::MembersChanged(MembersChanged { change: MembersChange::Finish })).unwrap();
    assert_eq!(log.state.members(), &GroupMembers::voters([1, 2, 3].map(NodeId)));
}

#[test]
fn members_are_in_the_snapshot_of_a_cluster_that_has_several_and_not_in_that_of_a_node_alone() {
    let mut log = RecordLog::new();
    let alone = log.state.snapshot(RecordPosition(1));
    log.apply(to(&[1], &[2])).unwrap();
    log.apply(to(&[2, 3], &[1])).unwrap();
    let bytes = log.state.snapshot(RecordPosition(1));
    State::check_snapshot(&bytes).unwrap();
    let (_, read) = read_snapshot(&bytes).unwrap();
    assert_eq!(read.members(), log.state.members());
    assert!(read.members().is_joint() && read.members().learners_next.contains(&NodeId::FIRST));
    // Programs of before clusters read it.
    assert!(bytes.len() > alone.len() && !alone.windows(3).any(|head| head == [9, 0, 2]));
}
