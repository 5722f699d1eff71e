//! A group that begins anew, as a member sees it that gets the log of all its lives.

use std::collections::BTreeSet;

use super::bench::{Member, Rng};
use crate::{GroupMembers, NodeId};

fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn with_learners(voters: &[u64], learners: &[u64]) -> GroupMembers {
    GroupMembers { learners: nodes(learners), ..GroupMembers::voters(nodes(voters)) }
}

#[test]
fn whoever_was_there_before_is_gone_with_the_entry_in_which_the_group_begins_anew() {
    let joint =
        GroupMembers { outgoing: nodes(&[1, 2, 3]), learners_next: nodes(&[3]), ..with_learners(&[1, 2, 4], &[]) };
    for before in [with_learners(&[1], &[]), with_learners(&[1, 2, 3], &[]), with_learners(&[2, 3], &[1]), joint] {
        // It came after that, and belonged to none of these.
        let mut member = Member::new(7, &before, Rng(1));
        let replica = member.replica();
        for members in [with_learners(&[6], &[]), with_learners(&[6], &[7]), with_learners(&[6, 7], &[])] {
            replica.members_are(&members);
            assert!(!replica.is_alone(), "{members:?} after {before:?}");
        }
    }
}
