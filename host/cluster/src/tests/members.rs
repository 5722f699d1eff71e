use std::collections::BTreeSet;

use proptest::collection::btree_set;
use proptest::prelude::*;

use crate::*;

fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn to(voters: &[u64], learners: &[u64]) -> MembersChange {
    MembersChange::To { voters: nodes(voters), learners: nodes(learners) }
}

fn group(voters: &[u64], learners: &[u64]) -> GroupMembers {
    GroupMembers { voters: nodes(voters), learners: nodes(learners), ..GroupMembers::default() }
}

#[test]
fn one_node_comes_or_goes_at_once() {
    let one = GroupMembers::voters([NodeId::FIRST]);
    let with_learner = one.after(&to(&[1], &[2])).unwrap();
    assert_eq!(with_learner, group(&[1], &[2]));
    assert_eq!(with_learner.after(&to(&[1, 2], &[])).unwrap(), group(&[1, 2], &[]));
    assert_eq!(with_learner.after(&to(&[1], &[])).unwrap(), one);
    assert_eq!(group(&[1, 2, 3], &[]).after(&to(&[1, 2], &[3])).unwrap(), group(&[1, 2], &[3]));
}

#[test]
fn several_change_in_two_steps_between_which_both_majorities_decide() {
    let joint = group(&[1], &[2, 3]).after(&to(&[1, 2, 3], &[])).unwrap();
    assert_eq!(joint, GroupMembers { voters: nodes(&[1, 2, 3]), outgoing: nodes(&[1]), ..GroupMembers::default() });
    assert!(!joint.decide(&nodes(&[2, 3])), "the one who decided alone is asked as well");
    assert!(joint.decide(&nodes(&[1, 2])) && !joint.decide(&nodes(&[1])));
    assert_eq!(joint.after(&to(&[1], &[])), Err(ChangeRefused::UnderWay));
    assert_eq!(joint.after(&MembersChange::Finish).unwrap(), group(&[1, 2, 3], &[]));
}

#[test]
fn a_voter_that_is_to_listen_votes_among_those_of_before_until_the_change_is_over() {
    let joint = group(&[1, 2, 3], &[4]).after(&to(&[1, 2, 4], &[3])).unwrap();
    assert_eq!((&joint.learners, &joint.learners_next), (&nodes(&[]), &nodes(&[3])));
    assert!(joint.votes(NodeId(3)) && joint.votes(NodeId(4)));
    assert_eq!(joint.all(), nodes(&[1, 2, 3, 4]));
    assert_eq!(joint.after(&MembersChange::Finish).unwrap(), group(&[1, 2, 4], &[3]));
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let three = group(&[1, 2, 3], &[]);
    let many: Vec<u64> = (4..4 + MEMBERS_MAX as u64).collect();
    for (change, refused, says) in [
        (MembersChange::Finish, ChangeRefused::NothingToFinish, "under way"),
        (to(&[1, 2, 3], &[]), ChangeRefused::NoChange, "already"),
        (to(&[], &[1]), ChangeRefused::NoVoter, "at least one"),
        (to(&[1, 2], &[2]), ChangeRefused::Twice(NodeId(2)), "node 2"),
        (to(&[1], &many), ChangeRefused::TooMany(MEMBERS_MAX + 1), "remove some first"),
    ] {
        let why = three.after(&change).unwrap_err();
        assert!(why == refused && why.to_string().contains(says), "{why}");
    }
    assert!(three.after(&to(&[1], &many[1..])).is_ok(), "as many as may be");
}

fn some_nodes() -> impl Strategy<Value = BTreeSet<NodeId>> {
    btree_set((1..=7_u64).prop_map(NodeId), 0..6)
}

proptest! {
    /// Whoever decides before a step and whoever decides after it have a member in common, so they cannot decide differently.
    #[test]
    fn majorities_before_and_after_a_step_meet(
        first in some_nodes(), then in some_nodes(), learners in some_nodes(), one in some_nodes(), other in some_nodes(),
    ) {
        prop_assume!(!first.is_empty());
        let mut members = GroupMembers::voters(first);
        let learners = learners.difference(&then).copied().collect();
        for change in [MembersChange::To { voters: then, learners }, MembersChange::Finish] {
            let Ok(next) = members.after(&change) else { continue };
            if members.decide(&one) && next.decide(&other) {
                prop_assert!(one.intersection(&other).next().is_some(), "{members:?} and {next:?}: {one:?}, {other:?}");
            }
            members = next;
        }
        prop_assert!(!members.is_joint());
    }
}
