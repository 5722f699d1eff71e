//! What is cut off before it is durable was never acknowledged.

use std::collections::VecDeque;

use super::bench::{Line, Member, Rng, Sent};
use crate::{Append, EntryId, EntryRole, GroupMembers, GroupMessage, NodeId, Said};

fn append(from: u64, previous: EntryId, entries: &[EntryId]) -> Sent {
    let lines = entries.iter().map(|id| Line { id: *id, what: 1, change: None }).collect();
    let term = entries.last().map_or(previous.term, |id| id.term);
    let entries = entries.iter().map(|id| (*id, EntryRole::Ordinary)).collect();
    (
        GroupMessage {
            from: NodeId(from),
            to: NodeId(1),
            term,
            body: Said::Append(Append { previous, commit: 0, entries }),
        },
        lines,
    )
}

fn follower() -> (Member, VecDeque<Sent>) {
    (Member::new(1, &GroupMembers::voters([1, 2, 3].map(NodeId)), Rng(1)), VecDeque::new())
}

/// To whom it was said, and in which term, up to which index entries are durable.
fn acknowledged(network: &VecDeque<Sent>) -> Vec<(u64, u64, u64)> {
    let sent = network.iter().filter_map(|(message, _)| match &message.body {
        Said::Appended(appended) if appended.rejected.is_none() => Some((message.to.0, message.term, appended.index)),
        _ => None,
    });
    sent.collect()
}

#[test]
fn the_leader_of_before_never_hears_that_entries_were_appended_which_were_cut_off() {
    let (mut member, mut network) = follower();
    let id = |index, term| EntryId { index, term };
    let start = EntryId::default();
    for (message, lines) in [append(2, start, &[id(1, 1), id(2, 1), id(3, 1)]), append(3, id(1, 1), &[id(2, 2)])] {
        member.replica().message(&message, lines);
        member.carry_out(&mut network);
    }
    assert_eq!(acknowledged(&network), [], "nothing is durable yet");
    member.sync(1, &mut network);
    member.sync(2, &mut network);
    assert_eq!(acknowledged(&network), [(3, 2, 2)]);
}

#[test]
fn a_repetition_is_acknowledged_when_what_it_names_is_durable() {
    let (mut member, mut network) = follower();
    let id = |index| EntryId { index, term: 1 };
    for (message, lines) in [append(2, EntryId::default(), &[id(1), id(2)]), append(2, id(2), &[])] {
        member.replica().message(&message, lines);
        member.carry_out(&mut network);
    }
    assert_eq!(acknowledged(&network), []);
    member.sync(2, &mut network);
    assert_eq!(acknowledged(&network), [(2, 1, 2), (2, 1, 2)]);
}
