//! A node alone that becomes one of three, and a leader that is to go.

use vouch_broker::record::{MembersChanged, TopicPut};
use vouch_broker::{NotDone, Refusal, ResourceName, TopicConfig};
use vouch_cluster::{GroupMembers, MembersChange, NodeId};
use vouch_commitlog::EntryKind;
use vouch_consensus::{AppendAnswer, Said};

use super::bench::Bench;

fn to(voters: &[u64], learners: &[u64]) -> MembersChanged {
    let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
    MembersChanged { change: MembersChange::To { voters: nodes(voters), learners: nodes(learners) } }
}

fn kinds(bench: &Bench) -> Vec<EntryKind> {
    bench.entries().into_iter().map(|(kind, _)| kind).collect()
}

/// The other node has all that there is.
fn has_all(bench: &mut Bench, node: u64) {
    let (index, term) = (bench.entries().len() as u64, bench.core.leads_in().unwrap());
    bench.say(node, term, Said::Appended(AppendAnswer { index, commit: 0, rejected: None }), Vec::new());
}

/// Leads nodes 2 and 3, which do not vote yet.
fn with_learners() -> Bench {
    let mut bench = Bench::new();
    for learners in [&[2][..], &[2, 3]] {
        bench.happen(|out| _ = to(&[1], learners).encode(out)).unwrap();
    }
    bench
}

fn conflict<T: std::fmt::Debug>(answer: Result<T, NotDone>) -> String {
    match answer {
        Err(NotDone::Refused(Refusal::Conflict(why))) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_alone_notes_that_it_is_one_of_several_before_the_entry_that_says_so_which_holds_nothing_else() {
    let mut bench = Bench::new();
    let before = kinds(&bench).len();
    let put = TopicPut { name: ResourceName::plain("t"), config: TopicConfig::default(), expected_revision: None };
    let (first, mut topic) = Bench::propose(|out| _ = put.encode(out));
    let (change, mut changed) = Bench::propose(|out| _ = to(&[1], &[2]).encode(out));
    let again = TopicPut { name: ResourceName::plain("u"), ..put };
    let (last, mut other) = Bench::propose(|out| _ = again.encode(out));
    bench.turn(vec![first, change, last]);
    assert_eq!(kinds(&bench)[before..], [EntryKind::Records, EntryKind::Members, EntryKind::Records]);
    let at = |what: &str| bench.trace.iter().rposition(|line| line.contains(what)).unwrap();
    assert!(at("join the group as 1") < at("kind: Members"));
    bench.sync();
    for outcomes in [&mut topic, &mut changed, &mut other] {
        assert!(outcomes.try_recv().unwrap().is_ok());
    }
    assert!(!bench.core.is_alone());
    assert!(bench.take_sent().iter().any(|message| message.to == NodeId(2)), "the new one gets the log");
}

#[test]
fn one_becomes_three_when_both_majorities_have_it_and_the_change_ends_by_itself() {
    let mut bench = with_learners();
    let (change, mut changed) = Bench::propose(|out| _ = to(&[1, 2, 3], &[]).encode(out));
    bench.turn(vec![change]);
    bench.sync();
    assert!(changed.try_recv().unwrap().is_ok(), "those of before decide that it begins");
    assert!(bench.core.state().members().is_joint());
    let joint = kinds(&bench).len();
    let (change, mut refused) = Bench::propose(|out| _ = to(&[1], &[]).encode(out));
    bench.turn(vec![change]);
    assert!(conflict(refused.try_recv().unwrap()).contains("under way"));
    assert_eq!(kinds(&bench)[joint - 1..], [EntryKind::Members], "the end of the change is proposed, and nothing else");
    bench.sync();
    assert!(bench.core.state().members().is_joint(), "one disk of three has it");
    has_all(&mut bench, 2);
    assert_eq!(bench.core.state().members(), &GroupMembers::voters([1, 2, 3].map(NodeId)));
}

#[test]
fn a_leader_proposes_no_group_without_itself_and_no_change_that_does_not_fit() {
    let mut bench = with_learners();
    let why = conflict(bench.happen(|out| _ = to(&[2], &[]).encode(out)));
    assert!(why.contains("node 1 leads") && why.contains("hand leadership over"), "{why}");
    assert!(conflict(bench.happen(|out| _ = to(&[1], &[2, 3]).encode(out))).contains("already"));
    let finish = MembersChanged { change: MembersChange::Finish };
    assert!(conflict(bench.happen(|out| _ = finish.encode(out))).contains("no change"));
    let both = bench.happen(|out| {
        finish.encode(out);
        finish.encode(out);
    });
    assert!(matches!(both, Err(NotDone::Refused(Refusal::Invalid(why))) if why.contains("alone")));
    assert_eq!(kinds(&bench).iter().filter(|kind| **kind == EntryKind::Members).count(), 2);
}
