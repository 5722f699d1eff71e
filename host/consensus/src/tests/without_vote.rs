//! Members without a vote: they ask for none, and notice all the same that nobody leads.

use std::collections::VecDeque;

use super::bench::{Member, PACE, Rng};
use crate::{Append, EntryId, GroupMembers, GroupMessage, NodeId, NotLeading, Role, Said};

/// The leader says that it is there.
fn is_heard(member: &mut Member) {
    let body = Said::Append(Append { previous: EntryId::default(), commit: 0, entries: Vec::new() });
    let said = GroupMessage { from: NodeId(1), to: member.node, term: 1, body };
    member.replica().message(&said, Vec::new());
    member.carry_out(&mut VecDeque::new());
}

fn known_leader(member: &mut Member) -> Option<NodeId> {
    let replica = member.replica();
    let Role::Follows { leader } = replica.role() else { panic!("it leads") };
    assert_eq!(replica.slot(), Err(leader.map_or(NotLeading::Nobody, NotLeading::Another)));
    leader
}

#[test]
fn a_member_without_a_vote_forgets_a_leader_of_which_it_hears_nothing_and_asks_for_no_votes() {
    let learns = GroupMembers { learners: [NodeId(4)].into(), ..GroupMembers::voters([1, 2, 3].map(NodeId)) };
    let removed = GroupMembers::voters([1, 2, 3].map(NodeId));
    for members in [learns, removed] {
        let mut member = Member::new(4, &members, Rng(1));
        for _ in 0..2 {
            is_heard(&mut member);
            for _ in 1..PACE.election {
                member.replica().tick();
                assert_eq!(known_leader(&mut member), Some(NodeId(1)));
            }
            // It waits no longer than a voter would.
            for _ in 0..PACE.election {
                member.replica().tick();
            }
            assert_eq!(known_leader(&mut member), None);
        }
        is_heard(&mut member);
        assert_eq!(known_leader(&mut member), Some(NodeId(1)));
        let mut network = VecDeque::new();
        member.carry_out(&mut network);
        assert_eq!((network.len(), member.vote.term), (0, 1));
    }
}
