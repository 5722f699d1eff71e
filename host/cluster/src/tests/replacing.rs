use std::collections::BTreeSet;

use proptest::prelude::*;

use super::nodes::{TOKEN, at, cluster, ids, invitation, to};
use crate::*;

/// A node that came to take this one's place.
fn comes_for(nodes: &mut ClusterNodes, old: u64) -> NodeId {
    let node = nodes.replace(NodeId(old), invitation(), false, 0).unwrap();
    nodes.join(node, TOKEN, at("n"), 0).unwrap();
    node
}

fn group(voters: &[u64], learners: &[u64]) -> GroupMembers {
    GroupMembers { voters: ids(voters), learners: ids(learners), ..GroupMembers::default() }
}

/// Takes all steps that there are while these have the log, and says which.
fn steps(members: &mut GroupMembers, nodes: &mut ClusterNodes, have: &[u64]) -> Vec<MembersChange> {
    let mut taken = Vec::new();
    while let Some(step) = next_change(members, nodes, &ids(have)) {
        *members = members.after(&step).unwrap();
        nodes.members_are(members);
        taken.push(step);
        assert!(taken.len() < 50, "it goes on for ever: {taken:?}");
    }
    taken
}

fn some(step: (&[u64], &[u64])) -> MembersChange {
    to(step.0, step.1).unwrap()
}

#[test]
fn a_node_that_has_the_log_takes_the_place_of_another_in_one_step() {
    let (mut nodes, mut members) = (cluster(2), group(&[1, 2, 3], &[]));
    assert_eq!(comes_for(&mut nodes, 2), NodeId(4));
    assert_eq!(steps(&mut members, &mut nodes, &[]), [some((&[1, 2, 3], &[4]))], "it gets the log first");
    let joint = some((&[1, 3, 4], &[]));
    assert_eq!(next_change(&members, &nodes, &ids(&[4])), Some(joint.clone()));
    members = members.after(&joint).unwrap();
    nodes.members_are(&members);
    assert!(nodes.nodes[&NodeId(2)].is_leaving, "it votes until the change is over");
    assert_eq!(nodes.nodes[&NodeId(4)].replaces, Some(NodeId(2)));
    assert_eq!(steps(&mut members, &mut nodes, &[4]), [MembersChange::Finish]);
    assert_eq!(members, group(&[1, 3, 4], &[]));
    assert!(nodes.is_gone(NodeId(2)));
    assert_eq!(nodes.nodes[&NodeId(4)].replaces, None, "it is one like all others");
}

#[test]
fn of_two_voters_one_is_replaced_and_two_are_left() {
    let (mut nodes, mut members) = (cluster(1), group(&[1, 2], &[]));
    comes_for(&mut nodes, 2);
    steps(&mut members, &mut nodes, &[]);
    assert_eq!(steps(&mut members, &mut nodes, &[3]), [some((&[1, 3], &[])), MembersChange::Finish]);
}

#[test]
fn the_only_voter_votes_beside_its_successor_until_that_one_can_lead() {
    let (mut nodes, mut members) = (cluster(0), group(&[1], &[]));
    comes_for(&mut nodes, 1);
    steps(&mut members, &mut nodes, &[]);
    assert_eq!(steps(&mut members, &mut nodes, &[2]), [some((&[1, 2], &[])), some((&[2], &[]))]);
    assert!(nodes.is_gone(NodeId(1)));
}

#[test]
fn a_learner_is_replaced_by_a_learner_and_not_before_that_one_has_the_log() {
    let (mut nodes, mut members) = (cluster(3), group(&[1, 2, 3], &[4]));
    comes_for(&mut nodes, 4);
    assert_eq!(steps(&mut members, &mut nodes, &[4]), [some((&[1, 2, 3], &[4, 5]))]);
    assert_eq!(steps(&mut members, &mut nodes, &[4, 5]), [some((&[1, 2, 3], &[5]))]);
    assert!(nodes.is_gone(NodeId(4)) && nodes.nodes[&NodeId(5)].replaces.is_none());
}

#[test]
fn who_waits_for_a_place_takes_no_other() {
    // A fifth voter would be welcome, beside the fourth; it comes for node 2, which is replaced when node 5 has the log.
    let (mut nodes, mut members) = (cluster(3), group(&[1, 2, 3], &[4]));
    comes_for(&mut nodes, 2);
    steps(&mut members, &mut nodes, &[4]);
    let taken = steps(&mut members, &mut nodes, &[4, 5]);
    assert_eq!(taken, [some((&[1, 3, 5], &[4])), MembersChange::Finish]);
}

#[test]
fn several_are_replaced_one_after_the_other() {
    let (mut nodes, mut members) = (cluster(2), group(&[1, 2, 3], &[]));
    for old in [3, 1, 2] {
        comes_for(&mut nodes, old);
    }
    steps(&mut members, &mut nodes, &[]);
    let finish = || MembersChange::Finish;
    assert_eq!(
        steps(&mut members, &mut nodes, &[4, 5, 6]),
        [some((&[1, 2, 4], &[5, 6])), finish(), some((&[2, 4, 5], &[6])), finish(), some((&[4, 5, 6], &[])), finish()]
    );
}

#[test]
fn whoever_of_the_two_is_removed_meanwhile_the_other_is_one_like_all_others() {
    let (mut nodes, mut members) = (cluster(2), group(&[1, 2, 3], &[]));
    comes_for(&mut nodes, 2);
    steps(&mut members, &mut nodes, &[]);
    let (mut others, mut other) = (nodes.clone(), members.clone());
    nodes.leaves(NodeId(2), &members.voters).unwrap();
    nodes.members_are(&members);
    assert_eq!(nodes.replacements().next(), None);
    assert_eq!(steps(&mut members, &mut nodes, &[3]), [some((&[1, 3], &[4]))]);
    assert_eq!(nodes.nodes[&NodeId(4)].replaces, None);
    assert_eq!(steps(&mut members, &mut nodes, &[3, 4]), [some((&[1, 3, 4], &[]))]);

    others.leaves(NodeId(4), &other.voters).unwrap();
    others.members_are(&other);
    assert_eq!(others.replacements().next(), None);
    assert_eq!(others.clone().replace(NodeId(2), invitation(), false, 0), Ok(NodeId(5)), "while the first one leaves");
    assert_eq!(steps(&mut other, &mut others, &[2, 3, 4]), [some((&[1, 2, 3], &[]))]);
    assert!(others.is_gone(NodeId(4)) && !others.is_gone(NodeId(2)));
    assert_eq!(others.replace(NodeId(2), invitation(), false, 0), Ok(NodeId(5)), "another may come for it");
}

#[test]
fn who_cannot_be_replaced_is_refused_with_what_to_do() {
    let mut nodes = cluster(4);
    nodes.leaves(NodeId(3), &ids(&[1, 2, 3])).unwrap();
    let invited = nodes.invite(invitation(), false, 0).unwrap();
    let first = nodes.replace(NodeId(2), invitation(), false, 0).unwrap();
    let coming = comes_for(&mut nodes, 4);
    let before = nodes.clone();
    for (old, refused, says) in [
        (NodeId(99), NodeRefused::Unknown(NodeId(99)), "vouch cluster status"),
        (NodeId(3), NodeRefused::Leaves(NodeId(3)), "vouch cluster add"),
        (invited, NodeRefused::NotCome(invited), "vouch cluster remove 6"),
        (NodeId(2), NodeRefused::Replaced { node: NodeId(2), by: first }, "vouch cluster remove 7"),
        (NodeId(4), NodeRefused::Replaced { node: NodeId(4), by: coming }, "vouch cluster remove 8"),
        (coming, NodeRefused::Replaces { node: coming, old: NodeId(4) }, "vouch cluster remove 8"),
    ] {
        let why = nodes.replace(old, invitation(), false, 999).unwrap_err();
        assert!(why == refused && why.to_string().contains(says), "{why}");
    }
    assert_eq!(nodes, before);
    assert_eq!(nodes.replace(NodeId(2), invitation(), false, 1_000), Ok(NodeId(9)), "that invitation has run out");
    assert_eq!(nodes.replacements().collect::<Vec<_>>(), [(coming, NodeId(4)), (NodeId(9), NodeId(2))]);
}

proptest! {
    /// Whoever is replaced, and in whatever order they get the log: it comes to an end, the group never has fewer voters than it
    /// had, each step keeps somebody who votes before and after it, and all successors are where those were whom they replace.
    #[test]
    fn all_who_came_for_a_place_take_it_and_the_group_never_gets_smaller(
        voters in 1..6_u64, learners in 0..3_u64, replaced in any::<u8>(), order in Just((1..20_u64).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut nodes = cluster(voters + learners - 1);
        let all: Vec<_> = (1..=voters + learners).collect();
        let (some, others) = all.split_at(voters as usize);
        let mut members = group(some, others);
        let mut expected = BTreeSet::from_iter(some.iter().copied().map(NodeId));
        for old in all.iter().filter(|old| replaced >> **old & 1 == 1) {
            let node = comes_for(&mut nodes, *old);
            if expected.remove(&NodeId(*old)) {
                expected.insert(node);
            }
        }
        let mut have = BTreeSet::new();
        for node in order {
            have.insert(NodeId(node));
            for _ in 0..100 {
                let Some(step) = next_change(&members, &nodes, &have) else { break };
                let next = members.after(&step).unwrap();
                prop_assert!(next.voters.len() >= voters as usize, "{step:?}");
                prop_assert!(members.voters.intersection(&next.voters).next().is_some(), "{step:?}");
                members = next;
                nodes.members_are(&members);
            }
        }
        prop_assert_eq!(next_change(&members, &nodes, &have), None);
        prop_assert_eq!(nodes.replacements().next(), None);
        prop_assert!(nodes.nodes.values().all(|node| node.replaces.is_none() && !node.is_leaving));
        prop_assert!(expected.is_subset(&members.voters), "{:?} of {:?}", expected, members);
    }
}
