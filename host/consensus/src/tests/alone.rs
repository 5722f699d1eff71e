//! A group of one: what is durable is committed.

use std::collections::VecDeque;

use super::bench::{Member, Rng};
use crate::{EntryId, GroupMembers, NodeId, NotLeading, Role};

fn alone() -> Member {
    Member::new(1, &GroupMembers::voters([NodeId(1)]), Rng(1))
}

#[test]
fn the_only_member_leads_when_it_campaigns_and_commits_what_is_durable() {
    let (mut member, mut network) = (alone(), VecDeque::new());
    assert_eq!(member.replica().slot(), Err(NotLeading::Nobody));
    member.replica().campaign();
    member.carry_out(&mut network);
    let first = EntryId { index: 1, term: 1 };
    assert_eq!((member.replica().role(), member.log[0].id), (Role::Leads { since: first }, first));
    assert_eq!(member.propose(5, &mut network), Some(EntryId { index: 2, term: 1 }));
    assert_eq!(member.commit, 0);
    member.sync(1, &mut network);
    assert_eq!(member.commit, 1);
    member.sync(2, &mut network);
    assert_eq!((member.commit, network.len()), (2, 0));
}

#[test]
fn after_a_start_it_leads_in_a_later_term_and_what_was_there_is_committed_with_it() {
    let (mut member, mut network) = (alone(), VecDeque::new());
    member.replica().campaign();
    member.carry_out(&mut network);
    member.propose(5, &mut network);
    member.sync(2, &mut network);
    member.crash(&mut Rng(3));
    member.start(&GroupMembers::voters([NodeId(1)]), Rng(2));
    member.replica().campaign();
    member.carry_out(&mut network);
    assert_eq!((member.vote.term, member.commit), (2, 0), "what is committed is known by an entry of the own term");
    member.sync(3, &mut network);
    assert_eq!(member.commit, 3);
}
