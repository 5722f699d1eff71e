//! A node alone that becomes one of three, and a leader that is to go.

use vouch_broker::record::{MembersChanged, NodeInvited, NodeJoined, NodeLeaves, NodeReplaced, TopicPut};
use vouch_broker::{Millis, NotDone, Refusal, ResourceName, TopicConfig};
use vouch_cluster::{GroupMembers, MembersChange, NodeAddresses, NodeId};
use vouch_commitlog::{EntryKind, LogPosition};
use vouch_consensus::{AppendAnswer, Said};

use super::bench::Bench;
use crate::core::Request;

fn kinds(bench: &Bench) -> Vec<EntryKind> {
    bench.entries().into_iter().map(|(kind, _)| kind).collect()
}

/// A leader alone that keeps the names of entries.
pub(super) fn ready() -> Bench {
    let mut bench = Bench::new();
    bench.turn(vec![Request::KeepNames(Box::new(|_| ()))]);
    bench
}

/// A node is given an id, and what it says when it comes.
pub(super) fn invite(bench: &mut Bench, node: u64) -> NodeJoined {
    invite_instead_of(bench, node, None)
}

fn invite_instead_of(bench: &mut Bench, node: u64, old: Option<u64>) -> NodeJoined {
    let (token, until) = ([7; 32], Millis(u64::MAX));
    let replaces = old.map(|old| NodeReplaced { node: NodeId(old), by: "op".to_owned(), reason: String::new() });
    let (request, mut answer) =
        Bench::propose(|out| _ = NodeInvited { token, until, votes_at_once: false, replaces }.encode(out));
    bench.turn(vec![request]);
    bench.sync();
    others_have_all(bench);
    answer.try_recv().unwrap().unwrap();
    let addresses = NodeAddresses { peer: format!("n{node}:7000"), grpc: String::new() };
    NodeJoined { node: NodeId(node), token, addresses }
}

/// The other node has all that there is.
pub(super) fn has_all(bench: &mut Bench, node: u64) {
    let (index, term) = (bench.entries().len() as u64, bench.core.leads_in().unwrap());
    bench.say(node, term, Said::Appended(AppendAnswer { index, commit: 0, rejected: None }), Vec::new());
}

/// All others that vote have all that there is.
fn others_have_all(bench: &mut Bench) {
    let members = bench.core.state().members();
    let voters: Vec<u64> =
        members.voters.union(&members.outgoing).map(|node| node.0).filter(|node| *node != 1).collect();
    for node in voters {
        has_all(bench, node);
    }
}

/// Leads nodes 2 and 3, and node 4 has come and gets the log: it is to take this one's place.
fn replacing(old: u64) -> Bench {
    let mut bench = of_three();
    let joined = invite_instead_of(&mut bench, 4, Some(old));
    let (come, mut came) = Bench::propose(|out| _ = joined.encode(out));
    bench.turn(vec![come]);
    for _ in 0..3 {
        bench.sync();
        others_have_all(&mut bench);
    }
    came.try_recv().unwrap().unwrap();
    assert_eq!(bench.core.state().members().learners, [4].map(NodeId).into());
    bench
}

fn changes(bench: &Bench) -> usize {
    kinds(bench).iter().filter(|kind| **kind == EntryKind::Members).count()
}

/// Leads nodes 2 and 3, which vote.
pub(super) fn of_three() -> Bench {
    let mut bench = with_learners();
    for node in [2, 3, 2, 3] {
        has_all(&mut bench, node);
        bench.sync();
    }
    has_all(&mut bench, 2);
    assert_eq!(bench.core.state().members(), &GroupMembers::voters([1, 2, 3].map(NodeId)));
    bench
}

/// Leads nodes 2 and 3, which do not vote yet.
pub(super) fn with_learners() -> Bench {
    let mut bench = ready();
    for node in [2, 3] {
        let joined = invite(&mut bench, node);
        bench.happen(|out| _ = joined.encode(out)).unwrap();
        bench.sync();
    }
    assert_eq!(bench.core.state().members().learners, [2, 3].map(NodeId).into());
    bench
}

#[test]
fn a_node_alone_notes_that_it_is_one_of_several_before_the_entry_that_says_so_which_holds_nothing_else() {
    let mut bench = ready();
    let joined = invite(&mut bench, 2);
    let before = kinds(&bench).len();
    let (come, mut came) = Bench::propose(|out| _ = joined.encode(out));
    bench.turn(vec![come]);
    bench.sync();
    let put = TopicPut { name: ResourceName::plain("t"), config: TopicConfig::default(), expected_revision: None };
    let (beside, mut topic) = Bench::propose(|out| _ = put.encode(out));
    bench.turn(vec![beside]);
    assert_eq!(kinds(&bench)[before..], [EntryKind::Records, EntryKind::Members, EntryKind::Records]);
    let at = |what: &str| bench.trace.iter().rposition(|line| line.contains(what)).unwrap();
    assert!(at("join the group as 1") < at("kind: Members"));
    bench.sync();
    assert!(came.try_recv().unwrap().is_ok() && topic.try_recv().unwrap().is_ok());
    assert!(!bench.core.is_alone());
    assert!(bench.take_sent().iter().any(|message| message.to == NodeId(2)), "the new one gets the log");
}

#[test]
fn who_never_acknowledged_anything_does_not_vote_however_short_the_log_is() {
    let mut bench = ready();
    let (token, until) = ([7; 32], Millis(u64::MAX));
    bench.happen(|out| _ = NodeInvited { token, until, votes_at_once: true, replaces: None }.encode(out)).unwrap();
    let addresses = NodeAddresses { peer: "n2:7000".to_owned(), grpc: String::new() };
    bench.happen(|out| _ = NodeJoined { node: NodeId(2), token, addresses }.encode(out)).unwrap();
    bench.sync();
    for _ in 0..3 {
        bench.turn(Vec::new());
        bench.sync();
        assert_eq!(bench.core.state().members().voters, [NodeId(1)].into());
    }
    has_all(&mut bench, 2);
    bench.sync();
    has_all(&mut bench, 2);
    assert_eq!(bench.core.state().members().voters, [1, 2].map(NodeId).into());
}

#[test]
fn one_becomes_three_when_both_have_the_log_and_both_majorities_agree() {
    let mut bench = with_learners();
    has_all(&mut bench, 2);
    bench.pass(1_000);
    assert!(!bench.core.state().members().is_joint(), "the second waits for the third");
    has_all(&mut bench, 3);
    bench.sync();
    assert!(bench.core.state().members().is_joint());
    let joint = kinds(&bench).len();
    let change = MembersChanged { change: MembersChange::Finish };
    let (change, mut refused) = Bench::propose(|out| _ = change.encode(out));
    bench.turn(vec![change]);
    let refused = refused.try_recv().unwrap();
    assert!(
        matches!(&refused, Err(NotDone::Refused(Refusal::Conflict(why))) if why.contains("under way")),
        "{refused:?}"
    );
    assert_eq!(kinds(&bench)[joint - 1..], [EntryKind::Members], "the end of the change is proposed, and nothing else");
    bench.sync();
    assert!(bench.core.state().members().is_joint(), "one disk of three has it");
    has_all(&mut bench, 2);
    assert_eq!(bench.core.state().members(), &GroupMembers::voters([1, 2, 3].map(NodeId)));
}

#[test]
fn a_leader_that_is_to_go_hands_leadership_over_and_proposes_no_group_without_itself() {
    let mut bench = with_learners();
    for node in [2, 3, 2, 3] {
        has_all(&mut bench, node);
        bench.sync();
    }
    has_all(&mut bench, 2);
    assert_eq!(bench.core.state().members().voters.len(), 3);
    let members = kinds(&bench).iter().filter(|kind| **kind == EntryKind::Members).count();
    let leaves = NodeLeaves { node: NodeId(1), by: "op".to_owned(), reason: String::new() };
    let (leave, _answer) = Bench::propose(|out| _ = leaves.encode(out));
    bench.turn(vec![leave]);
    bench.sync();
    has_all(&mut bench, 2);
    bench.turn(Vec::new());
    let take_over = bench.take_sent().into_iter().find(|message| message.body == Said::TakeOver);
    assert_eq!(take_over.map(|message| message.to), Some(NodeId(2)), "the one that has all of the log");
    assert_eq!(kinds(&bench).iter().filter(|kind| **kind == EntryKind::Members).count(), members);
}

#[test]
fn a_node_that_has_the_log_takes_the_place_of_another_in_one_change() {
    let mut bench = replacing(2);
    let before = changes(&bench);
    bench.pass(1_000);
    assert_eq!(changes(&bench), before, "it has not acknowledged anything");
    has_all(&mut bench, 4);
    bench.sync();
    // Node 2 is gone for good: the others of before are enough.
    for node in [3, 4, 3, 4] {
        has_all(&mut bench, node);
        bench.sync();
    }
    assert_eq!(bench.core.state().members(), &GroupMembers::voters([1, 3, 4].map(NodeId)));
    assert_eq!(changes(&bench), before + 2, "the change, and its end");
    assert!(bench.core.state().nodes().is_gone(NodeId(2)));
    assert_eq!(bench.core.state().nodes().nodes[&NodeId(4)].replaces, None);
}

#[test]
fn a_leader_whose_place_is_taken_hands_leadership_over_first() {
    let mut bench = replacing(1);
    let before = changes(&bench);
    bench.take_sent();
    has_all(&mut bench, 4);
    bench.turn(Vec::new());
    let take_over = bench.take_sent().into_iter().find(|message| message.body == Said::TakeOver);
    assert!(take_over.is_some_and(|message| [2, 3].contains(&message.to.0)), "one that votes now");
    assert_eq!(changes(&bench), before);
    assert!(!bench.core.state().nodes().nodes[&NodeId(1)].is_leaving, "whoever leads next sees to it");
}

#[test]
fn a_change_of_the_members_is_proposed_alone() {
    let mut bench = ready();
    let finish = MembersChanged { change: MembersChange::Finish };
    let both = bench.happen(|out| {
        finish.encode(out);
        finish.encode(out);
    });
    assert!(matches!(both, Err(NotDone::Refused(Refusal::Invalid(why))) if why.contains("alone")));
}

/// A snapshot while a node is to come, or catches up, takes nothing from it that the log still has.
#[test]
fn names_that_a_snapshot_covers_are_kept_for_those_who_need_them_and_for_nobody_else() {
    let mut bench = ready();
    let covered = |bench: &mut Bench| {
        let committed = bench.core.group_standing().unwrap().committed;
        bench.turn(vec![Request::Covered(committed)]);
        (bench.core.group_standing().unwrap().names_from, committed)
    };
    let begin = bench.core.group_standing().unwrap().names_from;
    let joined = invite(&mut bench, 2);
    assert_eq!(covered(&mut bench).0, begin, "a node is invited");
    assert_eq!(bench.core.group_standing().unwrap().needed_from, Some(LogPosition::START));
    bench.happen(|out| _ = joined.encode(out)).unwrap();
    bench.sync();
    assert!(bench.core.state().members().learners.contains(&NodeId(2)));
    assert_eq!(covered(&mut bench).0, begin, "it has nothing yet");
    has_all(&mut bench, 2);
    let (from, committed) = covered(&mut bench);
    assert_eq!(from, committed - 1, "the last that is covered is still known");
    assert!(bench.core.group_standing().unwrap().needed_from > Some(LogPosition::START));
    let leaves = NodeLeaves { node: NodeId(2), by: "op".to_owned(), reason: String::new() };
    bench.happen(|out| _ = leaves.encode(out)).unwrap();
    bench.sync();
    assert!(bench.core.is_alone());
    covered(&mut bench);
    let put = TopicPut { name: ResourceName::plain("t"), config: TopicConfig::default(), expected_revision: None };
    bench.happen(|out| _ = put.encode(out)).unwrap();
    let standing = bench.core.group_standing().unwrap();
    assert_eq!(standing.names_from, standing.committed, "alone again, it remembers none");
    assert_eq!(standing.needed_from, None);
}
