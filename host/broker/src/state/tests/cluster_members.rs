//! Who belongs to the cluster.

use vouch_cluster::{GroupMembers, MembersChange, NodeAddresses, NodeId};

use super::snapshots::{section, with_section};
use crate::record::{MembersChanged, NodeInvited, NodeJoined, NodeLeaves, NodeMoved, NodeReplaced, Record};
use crate::state::snapshot::layouts;
use crate::state::{Applied, Effect, SnapshotError};
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
    let invited = NodeInvited { token: [7; 32], until, votes_at_once: false, replaces: None };
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

fn invited(log: &RecordLog, replaces: Option<u64>) -> Record {
    let replaced = |node| NodeReplaced { node: NodeId(node), by: "op".to_owned(), reason: "old".to_owned() };
    let (until, replaces) = (log.now.plus_ms(60_000), replaces.map(replaced));
    Record::NodeInvited(NodeInvited { token: [7; 32], until, votes_at_once: false, replaces })
}

fn joins(log: &mut RecordLog, node: u64) {
    let addresses = NodeAddresses { peer: format!("n{node}:7000"), grpc: String::new() };
    log.apply(Record::NodeJoined(NodeJoined { node: NodeId(node), token: [7; 32], addresses })).unwrap();
}

/// Version of the section of members.
fn version(log: &RecordLog) -> Option<u8> {
    let bytes = log.state.snapshot(RecordPosition(1));
    let (_, read) = read_snapshot(&bytes).unwrap();
    assert_eq!(read.nodes(), log.state.nodes());
    layouts(&bytes).find(|(number, _)| *number == 9).map(|(_, version)| version)
}

#[test]
fn a_node_replaces_another_and_the_snapshot_says_so_until_it_has_its_place() {
    let mut log = RecordLog::new();
    let plain = invited(&log, None);
    log.apply(plain).unwrap();
    joins(&mut log, 2);
    log.apply(to(&[1], &[2])).unwrap();
    log.apply(to(&[1, 2], &[])).unwrap();
    assert_eq!(version(&log), Some(2), "a version of before reads it");
    let replaces = invited(&log, Some(2));
    assert_eq!(log.apply(replaces), Ok(Applied::Invited { node: NodeId(3) }));
    assert_eq!(log.effects, [Effect::Nodes]);
    assert_eq!((version(&log), log.state.nodes().nodes[&NodeId(3)].replaces), (Some(3), Some(NodeId(2))));
    // The same without it is nothing that any version writes.
    let bytes = log.state.snapshot(RecordPosition(1));
    let (says, place) = bytes[section(&bytes, 9)].split_last_chunk::<9>().unwrap();
    assert_eq!(place, &[1, 2, 0, 0, 0, 0, 0, 0, 0]);
    let read = read_snapshot(&with_section(&bytes, 9, &[says, &[0]].concat())).map(drop);
    assert!(matches!(read, Err(SnapshotError::Section { section: 9, .. })), "{read:?}");
    joins(&mut log, 3);
    log.apply(to(&[1, 2], &[3])).unwrap();
    assert!(!log.state.nodes().nodes[&NodeId(2)].is_leaving);
    log.apply(to(&[1, 3], &[])).unwrap();
    assert!(log.state.members().is_joint() && log.state.nodes().nodes[&NodeId(2)].is_leaving);
    assert_eq!(version(&log), Some(3));
    log.apply(Record::MembersChanged(MembersChanged { change: MembersChange::Finish })).unwrap();
    assert!(log.state.nodes().is_gone(NodeId(2)));
    assert_eq!((version(&log), log.state.nodes().nodes[&NodeId(3)].replaces), (Some(2), None));
}

#[test]
fn a_node_that_cannot_be_replaced_stays_as_it_is_and_why_is_said() {
    let mut log = RecordLog::new();
    let plain = invited(&log, None);
    log.apply(plain).unwrap();
    joins(&mut log, 2);
    let replace = |log: &mut RecordLog, node| {
        let record = invited(log, Some(node));
        log.apply(record)
    };
    assert_eq!(replace(&mut log, 2), Ok(Applied::Invited { node: NodeId(3) }));
    let before = log.state.nodes().clone();
    assert!(matches!(replace(&mut log, 9), Err(Refusal::NotFound(why)) if why.contains("no node 9")));
    for (node, says) in [(2, "node 3 is to take the place of node 2"), (3, "node 3 has not come yet")] {
        let Err(Refusal::Conflict(why)) = replace(&mut log, node) else { panic!("node {node} is replaced") };
        assert!(why.contains(says), "{why}");
    }
    assert_eq!(log.state.nodes(), &before);
    // One that has come and on which nobody counts yet is gone at once.
    let plain = invited(&log, None);
    log.apply(plain).unwrap();
    joins(&mut log, 4);
    let leaves = |node| Record::NodeLeaves(NodeLeaves { node: NodeId(node), by: String::new(), reason: String::new() });
    log.apply(leaves(4)).unwrap();
    assert!(log.state.nodes().is_gone(NodeId(4)));
    log.apply(to(&[1], &[2])).unwrap();
    log.apply(leaves(3)).unwrap();
    assert_eq!(replace(&mut log, 2), Ok(Applied::Invited { node: NodeId(5) }), "nobody else is to take its place");
    log.apply(leaves(2)).unwrap();
    let Err(Refusal::Conflict(why)) = replace(&mut log, 2) else { panic!("it leaves") };
    assert!(why.contains("node 2 leaves the cluster already"), "{why}");
    log.apply(to(&[1], &[])).unwrap();
    assert_eq!(log.state.nodes().nodes[&NodeId(5)].replaces, None, "whose place it would take is gone");
}
