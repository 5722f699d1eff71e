use std::collections::BTreeSet;

use crate::*;

pub(super) const TOKEN: [u8; 32] = [7; 32];

pub(super) fn invitation() -> NodeInvitation {
    NodeInvitation { token: TOKEN, until_ms: 1_000 }
}

pub(super) fn at(host: &str) -> NodeAddresses {
    NodeAddresses { peer: format!("{host}:7000"), grpc: String::new() }
}

pub(super) fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// The first node, and so many that came.
pub(super) fn cluster(more: u64) -> ClusterNodes {
    let mut nodes = ClusterNodes::default();
    nodes.moved(NodeId::FIRST, at("n1")).unwrap();
    for id in 2..2 + more {
        assert_eq!(nodes.invite(invitation(), false, 0), Ok(NodeId(id)));
        nodes.join(NodeId(id), TOKEN, at("n"), 0).unwrap();
    }
    nodes
}

pub(super) fn to(voters: &[u64], learners: &[u64]) -> Option<MembersChange> {
    Some(MembersChange::To { voters: ids(voters), learners: ids(learners) })
}

#[test]
fn a_token_is_good_for_one_node_once_and_not_for_ever() {
    let mut nodes = ClusterNodes::default();
    let node = nodes.invite(invitation(), false, 0).unwrap();
    let refused = Err(NodeRefused::Token(node));
    assert_eq!(nodes.join(node, [8; 32], at("n"), 0), refused, "another secret");
    assert_eq!(nodes.join(NodeId(1), TOKEN, at("n"), 0), Err(NodeRefused::Token(NodeId(1))));
    assert_eq!(nodes.join(node, TOKEN, at("n"), 1_000), refused, "too late");
    nodes.join(node, TOKEN, at("n"), 999).unwrap();
    assert_eq!(nodes.join(node, TOKEN, at("n"), 999), refused, "twice");
}

#[test]
fn an_id_is_never_given_again() {
    let mut nodes = cluster(2);
    nodes.leaves(NodeId(3), &ids(&[1])).unwrap();
    nodes.members_are(&GroupMembers::voters([1, 2].map(NodeId)));
    assert!(nodes.is_gone(NodeId(3)) && !nodes.is_gone(NodeId(4)));
    assert_eq!(nodes.invite(invitation(), false, 0), Ok(NodeId(4)));
    assert_eq!(nodes.invite(invitation(), false, 5_000), Ok(NodeId(5)), "the one before has run out");
    assert!(nodes.is_gone(NodeId(4)));
}

#[test]
fn whoever_was_invited_is_waited_for_until_he_is_a_member_or_too_late() {
    let mut nodes = ClusterNodes::default();
    let one = ids(&[1]);
    assert!(!nodes.awaits_others(&one, 0));
    nodes.invite(invitation(), false, 0).unwrap();
    assert!(nodes.awaits_others(&one, 999) && !nodes.awaits_others(&one, 1_000));
    nodes.join(NodeId(2), TOKEN, at("n"), 0).unwrap();
    assert!(nodes.awaits_others(&one, 1_000) && !nodes.awaits_others(&ids(&[1, 2]), 0));
    nodes.leaves(NodeId(2), &one).unwrap();
    assert!(!nodes.awaits_others(&one, 0));
}

#[test]
fn there_are_so_many_and_the_last_voter_stays() {
    let mut nodes = ClusterNodes::default();
    for _ in 1..MEMBERS_MAX {
        nodes.invite(invitation(), false, 0).unwrap();
    }
    assert_eq!(nodes.invite(invitation(), false, 0), Err(NodeRefused::TooMany));
    assert!(nodes.invite(invitation(), false, 1_000).is_ok(), "those that ran out make room");
    assert_eq!(nodes.leaves(NodeId::FIRST, &ids(&[1])), Err(NodeRefused::Last(NodeId::FIRST)));
    assert_eq!(nodes.leaves(NodeId(99), &ids(&[1])), Err(NodeRefused::Unknown(NodeId(99))));
}

#[test]
fn addresses_are_a_host_and_a_port() {
    let mut nodes = ClusterNodes::default();
    for wrong in ["", "host", "host:", ":1", "host:0", "host:70000", &format!("{}:1", "h".repeat(300))] {
        let addresses = NodeAddresses { peer: wrong.to_owned(), grpc: String::new() };
        let refused = nodes.moved(NodeId::FIRST, addresses).unwrap_err();
        assert!(matches!(refused, NodeRefused::Address(_)), "{wrong}: {refused}");
    }
    let both = NodeAddresses { peer: "[::1]:7000".to_owned(), grpc: "host:8081".to_owned() };
    assert_eq!(nodes.moved(NodeId::FIRST, both.clone()), Ok(true));
    assert_eq!(nodes.moved(NodeId::FIRST, both), Ok(false), "that is known");
    let wrong = NodeAddresses { grpc: "host".to_owned(), ..at("n") };
    assert_eq!(nodes.moved(NodeId::FIRST, wrong), Err(NodeRefused::Address("host".to_owned())));
}

#[test]
fn one_becomes_three_when_both_others_have_the_log() {
    let (nodes, mut members) = (cluster(2), GroupMembers::voters([NodeId::FIRST]));
    let step = |members: &GroupMembers, have: &[u64]| next_change(members, &nodes, &ids(have));
    assert_eq!(step(&members, &[]), to(&[1], &[2, 3]));
    members = members.after(&step(&members, &[]).unwrap()).unwrap();
    members = if members.is_joint() { members.after(&MembersChange::Finish).unwrap() } else { members };
    assert_eq!(step(&members, &[]), None);
    assert_eq!(step(&members, &[2]), None, "the second waits for the third");
    let three = step(&members, &[2, 3]);
    assert_eq!(three, to(&[1, 2, 3], &[]));
    members = members.after(&three.unwrap()).unwrap();
    assert_eq!(step(&members, &[2, 3]), Some(MembersChange::Finish));
    members = members.after(&MembersChange::Finish).unwrap();
    assert_eq!(step(&members, &[2, 3]), None);
}

#[test]
fn two_vote_where_somebody_wants_that() {
    let mut nodes = cluster(0);
    let second = nodes.invite(invitation(), true, 0).unwrap();
    nodes.join(second, TOKEN, at("n"), 0).unwrap();
    let members = GroupMembers { learners: ids(&[2]), ..GroupMembers::voters([NodeId::FIRST]) };
    assert_eq!(next_change(&members, &nodes, &ids(&[2])), to(&[1, 2], &[]));
}

#[test]
fn who_leaves_votes_no_more_and_a_fourth_takes_his_place() {
    let mut nodes = cluster(3);
    let members = GroupMembers { learners: ids(&[4]), ..GroupMembers::voters([1, 2, 3].map(NodeId)) };
    assert_eq!(next_change(&members, &nodes, &ids(&[4])), None, "four are no better than three");
    nodes.leaves(NodeId(2), &members.voters).unwrap();
    assert_eq!(next_change(&members, &nodes, &ids(&[4])), to(&[1, 3, 4], &[]));
    assert_eq!(next_change(&members, &nodes, &ids(&[])), to(&[1, 3], &[4]), "also where nobody takes it");
}
