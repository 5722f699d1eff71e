//! Who belongs to the cluster.

use vouch_cluster::{GroupMembers, MembersChange, NodeAddresses, NodeId};

use crate::record::{MembersChanged, NodeInvited, NodeJoined, NodeLeaves, NodeMoved, Record};
use crate::state::{Applied, Effect};
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

#[test]
fn a_node_is_invited_comes_once_moves_and_leaves_and_all_of_it_is_in_the_snapshot() {
    let mut log = RecordLog::new();
    let until = log.now.plus_ms(60_000);
    let invited = NodeInvited { token: [7; 32], until, votes_at_once: false };
    assert_eq!(log.apply(Record::NodeInvited(invited.clone())), Ok(Applied::Invited { node: NodeId(2) }));
    assert_eq!(log.apply(Record::NodeInvited(invited)), Ok(Applied::Invited { node: NodeId(3) }));
    let addresses = NodeAddresses { peer: "n2:7000".to_owned(), grpc: "c2:8081".to_owned() };
    let joined = NodeJoined { node: NodeId(2), token: [7; 32], addresses: addresses.clone() };
    log.apply(Record::NodeJoined(joined.clone())).unwrap();
    let Err(Refusal::Conflict(why)) = log.apply(Record::NodeJoined(joined)) else { panic!("a token is good once") };
    assert!(why.contains("vouch cluster add"), "{why}");
    let moved = NodeMoved { node: NodeId(2), addresses: NodeAddresses { peer: "m2:7000".to_owned(), ..addresses } };
    log.apply(Record::NodeMoved(moved.clone())).unwrap();
    assert_eq!(log.state.nodes().nodes[&NodeId(2)].addresses, Some(moved.addresses.clone()));
    assert_eq!(log.effects, [Effect::Nodes]);
    log.apply(Record::NodeMoved(moved)).unwrap();
    assert_eq!(log.effects, [], "it is where it was");
    log.apply(to(&[1], &[2])).unwrap();
    let (_, read) = read_snapshot(&log.state.snapshot(RecordPosition(1))).unwrap();
    assert_eq!(read.nodes(), log.state.nodes());

    let leaves = |node| Record::NodeLeaves(NodeLeaves { node, by: "op".to_owned(), reason: "old".to_owned() });
    assert!(matches!(log.apply(leaves(NodeId(1))), Err(Refusal::Conflict(_))), "nobody would vote");
    assert!(matches!(log.apply(leaves(NodeId(4))), Err(Refusal::NotFound(_))));
    log.apply(leaves(NodeId(2))).unwrap();
    assert!(log.state.nodes().nodes[&NodeId(2)].is_leaving, "others still count on it");
    log.apply(to(&[1], &[])).unwrap();
    assert!(log.state.nodes().is_gone(NodeId(2)) && !log.state.nodes().is_gone(NodeId(3)));
}
