//! A member that lacks what its leader does not keep any more.

use std::collections::VecDeque;

use super::bench::{Line, Member, Rng, Sent};
use crate::{Descriptor, EndsAt, EntryId, GroupMembers, NodeId, Replica, ReplicaBeginning, Said};

/// Delivers everything that is under way, and what follows from it; not to and from the node that is away. What is appended is
/// durable at once.
fn deliver(nodes: &mut [Member], network: &mut VecDeque<Sent>, away: Option<u64>) {
    while let Some((message, lines)) = network.pop_front() {
        if [message.from, message.to].iter().any(|node| Some(node.0) == away) {
            continue;
        }
        let to = &mut nodes[message.to.0 as usize - 1];
        to.replica().message(&message, lines);
        to.carry_out(network);
        for node in nodes.iter_mut() {
            let all = node.log.len();
            node.sync(all, network);
        }
    }
}

/// Three nodes, of which the first leads and the third was away from its third entry on; how many entries the others have.
fn one_away() -> (Vec<Member>, VecDeque<Sent>, u64) {
    let members = GroupMembers::voters([1, 2, 3].map(NodeId));
    let mut nodes: Vec<_> = (1..=3).map(|node| Member::new(node, &members, Rng(node))).collect();
    let mut network = VecDeque::new();
    nodes[0].replica().campaign();
    nodes[0].carry_out(&mut network);
    deliver(&mut nodes, &mut network, None);
    assert!(nodes[0].leads());
    for what in 0..20 {
        let id = nodes[0].propose(what, &mut network).unwrap();
        let all = nodes[0].log.len();
        nodes[0].sync(all, &mut network);
        deliver(&mut nodes, &mut network, (id.index > 3).then_some(3));
    }
    assert_eq!((nodes[0].commit, nodes[1].commit), (21, 21));
    (nodes, network, 21)
}

fn tick(nodes: &mut [Member], network: &mut VecDeque<Sent>, times: usize) {
    for _ in 0..times {
        nodes[0].replica().tick();
        nodes[0].carry_out(network);
        deliver(nodes, network, None);
    }
}

/// The log of the first node, up to so many entries, takes the place of the third one's.
fn pull(nodes: &mut [Member], lines: usize) {
    let log: Vec<Line> = nodes[0].log[..lines].to_vec();
    let (vote, members) = (nodes[2].vote, nodes[2].members.clone());
    let (before, kept) = (log[lines - 3].id, log[lines - 2..].iter());
    let kept = kept.map(|line| Descriptor { term: line.id.term, end: line.end(), kind: crate::EntryRole::Ordinary });
    let commit = log[lines - 1].id.index;
    let third = &mut nodes[2];
    third.replica = Some(
        Replica::new(ReplicaBeginning {
            node: NodeId(3),
            members,
            vote,
            applied: commit,
            commit,
            before,
            before_end: before.index * 10,
            entries: kept.collect(),
            pace: super::bench::PACE,
            draw: Box::new(|below| below / 2),
        })
        .unwrap(),
    );
    (third.commit, third.synced, third.log, third.behind) = (commit, log.len(), log, None);
}

#[test]
fn a_follower_that_lacks_what_is_released_is_told_and_goes_on_when_it_has_that_from_a_disk() {
    let (mut nodes, mut network, committed) = one_away();
    nodes[0].replica().is_released(true);
    nodes[0].replica().forget(15);
    let had = nodes[2].log.len();
    tick(&mut nodes, &mut network, 12);
    assert_eq!(nodes[2].behind, Some(EntryId { index: 15, term: 1 }));
    assert_eq!((nodes[2].log.len(), nodes[0].leads()), (had, true), "it has what it had, and its leader lives on");
    // It is told again, and again: what is told may be lost.
    nodes[2].behind = None;
    tick(&mut nodes, &mut network, 12);
    assert!(nodes[2].behind.is_some());
    pull(&mut nodes, 18);
    tick(&mut nodes, &mut network, 12);
    assert_eq!((nodes[2].behind, nodes[2].commit, nodes[2].log.len() as u64), (None, committed, committed));
    let what: Vec<_> = nodes[2].log.iter().map(|line| line.what).collect();
    assert_eq!(what, nodes[0].log.iter().map(|line| line.what).collect::<Vec<_>>());
    let id = nodes[0].propose(99, &mut network).unwrap();
    tick(&mut nodes, &mut network, 3);
    assert_eq!(nodes[2].log.last().map(|line| line.id), Some(id));
}

#[test]
fn a_log_that_went_on_meanwhile_is_taken_once_more() {
    let (mut nodes, mut network, committed) = one_away();
    nodes[0].replica().is_released(true);
    nodes[0].replica().forget(10);
    tick(&mut nodes, &mut network, 12);
    pull(&mut nodes, 12);
    nodes[0].replica().forget(17);
    tick(&mut nodes, &mut network, 12);
    assert_eq!(nodes[2].behind, Some(EntryId { index: 17, term: 1 }));
    pull(&mut nodes, 17);
    tick(&mut nodes, &mut network, 12);
    assert_eq!((nodes[2].behind, nodes[2].commit), (None, committed));
}

#[test]
fn names_that_are_only_forgotten_are_read_again_and_nobody_is_told_to_take_them_from_a_disk() {
    let (mut nodes, mut network, committed) = one_away();
    let all = nodes[0].log.iter().map(|line| Descriptor {
        term: line.id.term,
        end: line.end(),
        kind: crate::EntryRole::Ordinary,
    });
    let all: VecDeque<_> = all.take(15).collect();
    nodes[0].replica().forget(15);
    tick(&mut nodes, &mut network, 12);
    assert_eq!(nodes[2].behind, None);
    nodes[0].replica().learn(EntryId::default(), 0, all);
    tick(&mut nodes, &mut network, 12);
    assert_eq!((nodes[2].behind, nodes[2].commit), (None, committed));
}

/// What a leader of the past says, or one that is wrong about what a follower has, moves nobody.
#[test]
fn a_follower_that_has_the_entry_is_not_behind_whatever_it_is_told() {
    let (mut nodes, mut network, _) = one_away();
    for (covered, term) in [(3, 1), (15, 1), (30, 0)] {
        let body = Said::Behind { covered: EntryId { index: covered, term: 1 } };
        let said = crate::GroupMessage { from: NodeId(1), to: NodeId(2), term, body };
        nodes[1].replica().message(&said, Vec::new());
        nodes[1].carry_out(&mut network);
        assert_eq!(nodes[1].behind, None, "{covered}");
    }
    deliver(&mut nodes, &mut network, Some(3));
    assert!(nodes[0].leads());
}

/// It began anew with all of its log, and noted less as committed than its leader keeps.
#[test]
fn a_follower_that_has_the_entry_and_does_not_know_that_it_is_committed_learns_that() {
    let (mut nodes, mut network, committed) = one_away();
    let members = nodes[1].members.clone();
    nodes[1].start(&members, Rng(7));
    assert_eq!((nodes[1].replica().commit(), nodes[1].log.len() as u64), (0, committed));
    let body = Said::Behind { covered: EntryId { index: 15, term: 1 } };
    let said = crate::GroupMessage { from: NodeId(1), to: NodeId(2), term: 1, body };
    nodes[1].replica().message(&said, Vec::new());
    nodes[1].carry_out(&mut network);
    assert_eq!((nodes[1].behind, nodes[1].replica().commit()), (None, 15));
    deliver(&mut nodes, &mut network, Some(3));
    assert!(nodes[0].leads());
}
