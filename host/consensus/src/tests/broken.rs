//! What cannot be breaks the replica instead of the process: it says why, and nothing after it.

use std::collections::VecDeque;

use super::bench::{Line, Member, Rng};
use crate::{
    Append, Decision, EntryId, EntryRole, GroupMembers, GroupMessage, NodeId, NotLeading, Replica, ReplicaBeginning,
    Said, Vote,
};

#[test]
fn a_leader_that_contradicts_what_is_committed_breaks_the_replica_and_nothing_of_it_is_done() {
    let members = GroupMembers::voters([1, 2, 3].map(NodeId));
    let (mut member, mut network) = (Member::new(1, &members, Rng(1)), VecDeque::new());
    let append = |term, entries: &[EntryId], commit| {
        let previous = EntryId { index: entries[0].index - 1, term: 1.min(entries[0].index - 1) };
        let lines = entries.iter().map(|id| Line { id: *id, what: 1, change: None }).collect::<Vec<_>>();
        let entries = entries.iter().map(|id| (*id, EntryRole::Ordinary)).collect();
        let body = Said::Append(Append { previous, commit, entries });
        (GroupMessage { from: NodeId(2), to: NodeId(1), term, body }, lines)
    };
    let ids = [1, 2].map(|index| EntryId { index, term: 1 });
    let (message, lines) = append(1, &ids, 0);
    member.replica().message(&message, lines);
    member.carry_out(&mut network);
    member.sync(2, &mut network);
    let (message, lines) = append(1, &[EntryId { index: 2, term: 1 }], 2);
    member.replica().message(&message, lines);
    member.carry_out(&mut network);
    assert_eq!(member.commit, 2);

    let (message, lines) = append(2, &[EntryId { index: 2, term: 2 }], 2);
    // Below what is committed: it is answered with what is committed.
    member.replica().message(&message, lines);
    member.carry_out(&mut network);
    // A heartbeat that names as committed what this replica never had.
    let heartbeat = GroupMessage { from: NodeId(2), to: NodeId(1), term: 2, body: Said::Heartbeat { commit: 9 } };
    member.replica().message(&heartbeat, Vec::new());
    let Some(Decision::Break(broken)) = member.replica().next_command() else { panic!("it breaks") };
    assert!(broken.to_string().contains("out of range"), "{broken}");
    assert_eq!(member.replica().next_command(), None);
    member.replica().tick();
    member.replica().campaign();
    assert_eq!(member.replica().next_command(), None, "a broken replica wants nothing more");
    assert_eq!(member.replica().slot(), Err(NotLeading::Another(NodeId(2))));
}

#[test]
fn a_beginning_that_cannot_be_is_refused_with_its_reason() {
    let beginning = ReplicaBeginning {
        node: NodeId(1),
        members: GroupMembers::voters([NodeId(1)]),
        vote: Vote { term: 3, given_to: None },
        applied: 0,
        commit: 7,
        before: EntryId::default(),
        before_end: 0,
        entries: VecDeque::new(),
        pace: super::bench::PACE,
        draw: Box::new(|_| 0),
    };
    let broken = Replica::<Line>::new(beginning).err().unwrap();
    assert!(broken.0.contains("out of range"), "{broken}");
}
