//! What is promised when a shard takes nothing any more, or not yet for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vouch_broker::record::{TopicDelete, TopicPut};
use vouch_broker::state::Applied;
use vouch_broker::{AckLevel, NotDone, NothingStored, ResourceName, TopicConfig};
use vouch_commitlog::EntryKind;

use super::bench::Bench;
use super::runs::topic_and_group;
use crate::core::{Claim, Request};

#[test]
fn a_sender_who_asked_for_it_hears_when_it_is_written_and_what_is_then_not_stored_is_counted() {
    let mut bench = Bench::new();
    let config = TopicConfig { queues: 1, ack: AckLevel::Memory, ..TopicConfig::default() };
    let put = TopicPut { name: ResourceName::plain("t"), config, expected_revision: None };
    bench.happen(|out| _ = put.encode(out)).unwrap();
    let topic = bench.core.state().topics().named(&ResourceName::plain("t")).unwrap().id;
    let delete = TopicDelete { name: ResourceName::plain("t"), force: true };
    let (delete, mut deleted) = Bench::propose(|out| _ = delete.encode(out));
    let (send, mut outcomes) = Bench::send(topic, &Bench::plain(1), bench.now().time, Claim::RoomInMemory);
    bench.turn(vec![delete, send]);
    assert_eq!(outcomes.try_recv().unwrap().unwrap(), [Ok(Applied::Done)], "before it is durable");
    assert!(deleted.try_recv().is_err(), "whoever did not ask for that waits");
    bench.sync();
    assert!(deleted.try_recv().unwrap().unwrap()[0].is_ok());
    assert!(bench.trace.iter().any(|told| told == "refused in memory 1"), "its topic was gone when it was its turn");
}

#[test]
fn a_log_that_is_only_read_is_looked_at_as_if_it_led_and_takes_nothing() {
    let why = NothingStored::ReadOnly("restore it".to_owned());
    let mut bench = Bench::read_only(why.clone());
    assert_eq!(bench.lead(|_, leader| leader.waiting()), 0);
    let (send, mut outcomes) = Bench::send(vouch_broker::TopicId(1), &Bench::plain(1), bench.now().time, Claim::Room);
    let (receive, caller) = bench.receive(1, 1000, 1000);
    bench.turn(vec![send, receive]);
    assert_eq!(outcomes.try_recv().unwrap(), Err(NotDone::NothingStored(why.clone())));
    assert_eq!(caller.heard().unwrap().unwrap_err(), NotDone::NothingStored(why));
    bench.idle();
    bench.cover_end();
    assert_eq!(bench.entries(), [], "not even a mark");
}

#[test]
fn a_member_whose_vote_cannot_be_noted_leads_nobody_and_writes_nothing() {
    let mut bench = Bench::before_a_start();
    bench.notes_fail = true;
    bench.may_lead();
    assert!(bench.closed.is_some(), "its own vote was to make it the leader");
    bench.cover_end();
    assert_eq!(bench.entries(), [], "no entry of a term that it does not know after a start");
}

#[test]
fn a_full_log_refuses_sends_and_keeps_what_is_left_for_ends_and_acknowledgements() {
    let mut bench = Bench::new();
    let (topic, _) = topic_and_group(&mut bench);
    bench.nearly_fill();
    for claim in [Claim::Room, Claim::RoomInMemory] {
        let (send, mut outcomes) = Bench::send(topic, &Bench::plain(1), bench.now().time, claim);
        bench.turn(vec![send]);
        let refused = outcomes.try_recv().unwrap();
        assert!(matches!(refused, Err(NotDone::NothingStored(NothingStored::StorageFull(_)))), "{refused:?}");
    }
    let delete = TopicDelete { name: ResourceName::plain("t"), force: true };
    assert!(bench.happen(|out| _ = delete.encode(out)).is_ok(), "that makes room");
}

#[test]
fn a_shard_that_stops_answers_everybody_and_covers_the_end_of_its_log() {
    let mut bench = Bench::new();
    let (topic, _) = topic_and_group(&mut bench);
    let (receive, waits) = bench.receive(1, 60_000, 1000);
    let (send, mut written) = Bench::send(topic, &Bench::plain(1), bench.now().time, Claim::Room);
    bench.turn(vec![send]);
    bench.turn(vec![receive]);
    bench.hear(vec![Request::Stop]);
    assert!(matches!(waits.heard(), Some(Ok(None))));
    let (late, mut refused) = Bench::send(topic, &Bench::plain(2), bench.now().time, Claim::Room);
    let (receive, too_late) = bench.receive(1, 60_000, 1000);
    bench.hear(vec![late, receive]);
    assert_eq!(refused.try_recv().unwrap(), Err(NothingStored::Stopping.into()));
    assert_eq!(too_late.heard().unwrap().unwrap_err(), NothingStored::Stopping.into());
    assert!(bench.core.waits_for_the_log());
    bench.sync();
    assert!(written.try_recv().unwrap().is_ok() && !bench.core.waits_for_the_log());
    bench.cover_end();
    assert_eq!(bench.entries().last().unwrap().0, EntryKind::Mark);
}

#[test]
fn a_fence_lets_go_of_the_log_before_it_is_answered_and_nothing_is_written_after_it() {
    let mut bench = Bench::new();
    let (topic, _) = topic_and_group(&mut bench);
    let (send, mut outcomes) = Bench::send(topic, &Bench::plain(1), bench.now().time, Claim::Room);
    bench.turn(vec![send]);
    let entries = bench.entries().len();
    let done = Arc::new(AtomicBool::new(false));
    let tell = done.clone();
    let fence = Request::Fence("it was moved".to_owned(), Box::new(move || tell.store(true, Ordering::Relaxed)));
    bench.turn(vec![fence]);
    assert!(done.load(Ordering::Relaxed));
    assert!(matches!(outcomes.try_recv().unwrap(), Err(NotDone::Unknown(_))), "it may be in the log");
    let at = |what: &str| bench.trace.iter().position(|told| told.starts_with(what)).unwrap();
    assert!(at("drop the log") < at("close") && at("close") < at("done"));
    bench.idle();
    bench.cover_end();
    assert_eq!(bench.entries().len(), entries);
}

#[test]
fn a_log_that_refused_the_first_entry_of_a_term_gets_no_mark_behind_the_gap() {
    let mut bench = Bench::before_a_start();
    bench.fill(true);
    bench.may_lead();
    assert!(matches!(bench.closed, Some(NothingStored::Poisoned(_))), "{:?}", bench.closed);
    bench.fill(false);
    bench.uncover();
    bench.cover_end();
    assert_eq!(bench.entries(), []);
}
