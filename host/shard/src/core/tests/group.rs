//! A member of a group that is elected, leads, and leads no more.

use vouch_broker::record::{ClusterInit, GroupPut, Join, TopicPut};
use vouch_broker::testing::cluster_init;
use vouch_broker::{GroupConfig, NotDone, NothingStored, ResourceName, TopicConfig};
use vouch_commitlog::LogPosition;
use vouch_consensus::{AppendAnswer, EntryId, NodeId, Said};

use super::bench::Bench;
use super::following::{append, entries, records};
use crate::core::{Claim, Request};
use crate::reply::Reply;

/// Passes time until it asks for votes, and lets node 2 give its own; the term that it leads then.
fn elect(bench: &mut Bench) -> u64 {
    for pre in [true, false] {
        let term = loop {
            let asks = bench.take_sent().into_iter().find_map(|message| match message.body {
                Said::AskVote { pre: asked, .. } if asked == pre => Some(message.term),
                _ => None,
            });
            match asks {
                Some(term) => break term,
                None => bench.pass(50),
            }
        };
        bench.say(2, term, Said::Vote { pre, granted: true, commit: EntryId::default() }, Vec::new());
        if !pre {
            return term;
        }
    }
    unreachable!("the second vote ends it")
}

/// Node 2 has all entries up to this index.
fn has(bench: &mut Bench, term: u64, index: u64) {
    bench.say(2, term, Said::Appended(AppendAnswer { index, commit: 0, rejected: None }), Vec::new());
}

/// Leads, with a topic and a group in its state and all of its log at node 2; the index of the last entry.
fn leading(bench: &mut Bench) -> (u64, u64) {
    let config = TopicConfig { queues: 1, ..TopicConfig::default() };
    let (init, name): (ClusterInit, _) = (cluster_init(), ResourceName::plain);
    let topic = TopicPut { name: name("t"), config, expected_revision: None };
    let group = GroupPut { name: name("g"), config: GroupConfig::default(), expected_revision: None };
    let given = [
        Vec::new(),
        records(|out| _ = init.encode(out)),
        records(|out| _ = topic.encode(out)),
        records(|out| _ = group.encode(out)),
    ];
    let given = entries(1, &given);
    bench.say(2, 1, append(1, 4, &given), given);
    bench.sync();
    let term = elect(bench);
    bench.sync();
    has(bench, term, 5);
    bench.sync();
    has(bench, term, 6);
    let state = bench.core.state();
    let topic = state.topics().named(&name("t")).unwrap().id;
    let group = state.groups().named(&name("g")).unwrap().id;
    let (join, mut joined) = Bench::propose(|out| _ = Join { group, topic, at_end: false }.encode(out));
    bench.turn(vec![join]);
    bench.sync();
    has(bench, term, 7);
    assert!(joined.try_recv().unwrap().is_ok());
    (term, 7)
}

fn not_leading(leader: Option<u64>) -> NotDone {
    NotDone::NothingStored(NothingStored::NotLeading { leader })
}

#[test]
fn a_vote_is_saved_before_it_is_told_and_a_term_begins_with_an_entry_that_holds_nothing() {
    let mut bench = Bench::member();
    let term = elect(&mut bench);
    let at = |what: &str| bench.trace.iter().position(|line| line.contains(what)).unwrap();
    assert!(at("save Vote { term: 1, given_to: Some(NodeId(1)) }") < at("AskVote { pre: false"));
    assert_eq!((term, bench.entries().len()), (1, 1), "what it has to say itself waits until that is committed");
    bench.sync();
    has(&mut bench, term, 1);
    assert_eq!(bench.entries().len(), 2);
}

/// Whoever lets a member go for a while must have led for long enough.
#[test]
fn since_when_a_replica_leads_is_known_when_it_has_applied_all_of_before_and_as_long_as_it_leads() {
    let mut bench = Bench::member();
    let leads_from = |bench: &Bench| bench.core.group_standing().unwrap().leads_from;
    let term = elect(&mut bench);
    assert_eq!(leads_from(&bench), None);
    bench.sync();
    has(&mut bench, term, 1);
    let began = bench.now().at;
    assert_eq!(leads_from(&bench), Some(began));
    bench.pass(20);
    assert_eq!(leads_from(&bench), Some(began));
    bench.say(3, term + 1, Said::Heartbeat { commit: 1 }, Vec::new());
    assert_eq!(leads_from(&bench), None);
}

#[test]
fn what_is_asked_while_a_term_begins_waits_for_that() {
    let mut bench = Bench::member();
    let term = elect(&mut bench);
    let put = TopicPut { name: ResourceName::plain("t"), config: TopicConfig::default(), expected_revision: None };
    let (request, mut outcomes) = Bench::propose(|out| _ = put.encode(out));
    bench.turn(vec![request]);
    // Of an operator, too: that it does not lead, or stops, would be wrong.
    let (reply, mut handed) = Reply::new();
    bench.turn(vec![Request::HandOver(NodeId(9), reply)]);
    assert!(outcomes.try_recv().is_err() && handed.try_recv().is_err() && bench.entries().len() == 1);
    bench.sync();
    has(&mut bench, term, 1);
    bench.sync();
    has(&mut bench, term, 3);
    assert!(outcomes.try_recv().unwrap().unwrap()[0].is_ok());
    let told = handed.try_recv().unwrap();
    assert!(
        matches!(&told, Err(NotDone::Refused(why)) if why.to_string().contains("node 9 does not vote")),
        "{told:?}"
    );
}

#[test]
fn a_sender_hears_that_his_message_is_stored_when_a_majority_has_it_and_not_before() {
    let mut bench = Bench::member();
    let (term, last) = leading(&mut bench);
    let topic = bench.core.state().topics().named(&ResourceName::plain("t")).unwrap().id;
    let (send, mut outcomes) = Bench::send(topic, &Bench::plain(1), bench.now().time, Claim::Room);
    bench.turn(vec![send]);
    bench.sync();
    assert!(outcomes.try_recv().is_err(), "only its own disk has it");
    has(&mut bench, term, last + 1);
    assert!(outcomes.try_recv().unwrap().is_ok());
}

#[test]
fn leased_messages_are_handed_out_when_their_lease_is_committed() {
    let mut bench = Bench::member();
    let (term, last) = leading(&mut bench);
    let topic = bench.core.state().topics().named(&ResourceName::plain("t")).unwrap().id;
    let (send, _outcomes) = Bench::send(topic, &Bench::plain(1), bench.now().time, Claim::Room);
    bench.turn(vec![send]);
    bench.sync();
    has(&mut bench, term, last + 1);
    let (receive, caller) = bench.receive(1, 1_000, 10_000);
    bench.turn(vec![receive]);
    bench.turn(Vec::new());
    bench.sync();
    assert!(caller.heard().is_none(), "the next leader may not know of the lease");
    has(&mut bench, term, last + 2);
    assert_eq!(caller.heard().unwrap().unwrap().unwrap().messages.len(), 1);
}

#[test]
fn when_another_leads_receives_hear_it_and_what_is_written_and_undecided_is_unknown() {
    let mut bench = Bench::member();
    let (term, _) = leading(&mut bench);
    let topic = bench.core.state().topics().named(&ResourceName::plain("t")).unwrap().id;
    let (receive, waits) = bench.receive(1, 60_000, 10_000);
    bench.turn(vec![receive]);
    let (send, mut written) = Bench::send(topic, &Bench::plain(1), bench.now().time, Claim::Room);
    bench.turn(vec![send]);
    bench.say(3, term + 1, Said::Heartbeat { commit: 0 }, Vec::new());
    assert_eq!(waits.heard().unwrap().unwrap_err(), not_leading(Some(3)));
    assert!(written.try_recv().is_err(), "it may still be decided");
    // Its leader lives, and says nothing of what this one wrote.
    for _ in 0..60 {
        bench.pass(50);
        bench.say(3, term + 1, Said::Heartbeat { commit: 0 }, Vec::new());
    }
    let answer = written.try_recv().unwrap();
    assert!(matches!(answer, Err(NotDone::Unknown(_))), "{answer:?}");
    let (late, mut refused) = Bench::send(topic, &Bench::plain(2), bench.now().time, Claim::Room);
    bench.turn(vec![late]);
    assert_eq!(refused.try_recv().unwrap(), Err(not_leading(Some(3))));
}

#[test]
fn what_a_member_may_ask_for_by_its_name_stays_in_the_log_and_all_of_it_while_a_new_leader_has_not_heard_from_all() {
    let mut bench = Bench::member();
    let (term, last) = leading(&mut bench);
    let needed = |bench: &Bench| bench.core.group_standing().unwrap().needed_from;
    // Node 3 was not heard yet: it may be there, and need all.
    bench.turn(vec![Request::Covered(5)]);
    assert_eq!(needed(&bench), Some(LogPosition::START));
    assert_eq!(bench.core.group_standing().unwrap().names_from, 0);
    // It is away: what a snapshot covers is not kept for it, and what has a name still is.
    for _ in 0..220 {
        bench.pass(50);
        has(&mut bench, term, last);
    }
    assert_eq!(needed(&bench), Some(LogPosition::START), "all have their names yet");
    bench.turn(vec![Request::Covered(5)]);
    let names_from = bench.core.group_standing().unwrap().names_from;
    assert_eq!(names_from, 4);
    let from = needed(&bench).unwrap();
    assert!(from > LogPosition::START, "what lies before may go");
    // Who leads no more may lead again.
    bench.say(3, term + 1, Said::Heartbeat { commit: 0 }, Vec::new());
    assert_eq!(bench.core.leads_in(), None);
    assert_eq!(needed(&bench), Some(from));
}

#[test]
fn a_leader_that_no_majority_answers_leads_no_more() {
    let mut bench = Bench::member();
    leading(&mut bench);
    assert!(bench.core.leads_in().is_some());
    (0..60).for_each(|_| bench.pass(50));
    assert_eq!(bench.core.leads_in(), None);
}

/// It says nothing in the group itself, since its log is damaged, and takes the word of no leader of an earlier term.
#[test]
fn who_leads_hears_that_a_member_without_a_replica_was_in_a_later_term_and_leads_no_more() {
    let mut bench = Bench::member();
    let (term, _) = leading(&mut bench);
    let me = bench.core.group_standing().unwrap().node;
    bench.turn(vec![Request::was_in(term, NodeId(3), me)]);
    assert_eq!(bench.core.leads_in(), Some(term));
    bench.turn(vec![Request::was_in(term + 1, NodeId(3), me)]);
    assert_eq!((bench.core.leads_in(), bench.core.group_standing().unwrap().term), (None, term + 1));
}
