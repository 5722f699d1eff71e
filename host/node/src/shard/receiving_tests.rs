//! The work of one turn is bounded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use vouch_broker::check::CheckOverrides;
use vouch_broker::delivery::filters;
use vouch_broker::record::{
    FilterNoted, FiltersGone, Frame, GroupPut, Join, Lease, LeasedRange, MessagePlace, Record, TopicPut, encode_message,
};
use vouch_broker::state::{FILTERS_MAX, RecordAt};
use vouch_broker::{
    BodyEncoding, GroupConfig, GroupId, MessageKind, Millis, NewMessage, NotDone, NothingStored, ResourceName, State,
    TagFilter, TopicConfig, TopicId,
};

use super::{SCAN_COST, TURN_WORK};
use crate::clock::{Clock, SystemTimeSource};
use crate::shard::executor::Executor;
use crate::shard::{Batch, Inbox, Output, Poll, Shared};
use vouch_storage::Requests;

const TOPIC: TopicId = TopicId(1);

type Answer = oneshot::Receiver<Result<Option<Batch>, NotDone>>;

/// An executor that is stepped by hand, with so many groups on a topic of one queue that holds one message.
fn executor(groups: u32) -> Executor {
    let mut records = Vec::new();
    let (name, config) = (ResourceName::plain("t"), TopicConfig { queues: 1, ..TopicConfig::default() });
    TopicPut { name, config, expected_revision: None }.encode(&mut records);
    for n in 1..=groups {
        let (name, config) = (ResourceName::plain(format!("g{n}")), GroupConfig::default());
        GroupPut { name, config, expected_revision: None }.encode(&mut records);
        Join { group: GroupId(n), topic: TOPIC }.encode(&mut records);
    }
    let place = MessagePlace { topic: TOPIC, queue: 0, stored_at: Millis(1) };
    encode_message(&mut records, place, "producer", &message(), CheckOverrides::default());
    let (mut state, mut rest) = (State::default(), records.as_slice());
    while !rest.is_empty() {
        let (frame, next) = Frame::split(rest).unwrap();
        let record = Record::decode(&frame).unwrap();
        state.apply(RecordAt { position: 1, time: Millis(1) }, &record, &mut Vec::new()).unwrap();
        rest = next;
    }
    let shared = Arc::new(Shared::new(
        Clock::start(Millis(1), Arc::new(SystemTimeSource)),
        Arc::new(Requests::due_at(u64::MAX)),
    ));
    let output = Output::Refused { why: NothingStored::Stopping, positions: (0, 0, 0) };
    let mut executor = Executor::new(state, output, Arc::new(Inbox::new(1 << 20)), shared);
    executor.closed = None;
    executor
}

fn message() -> NewMessage {
    NewMessage {
        message_id: "m".to_owned(),
        tag: None,
        keys: vec![],
        properties: vec![],
        kind: MessageKind::Normal,
        encoding: BodyEncoding::Identity,
        born_at: Millis(1),
        born_host: "h".to_owned(),
        trace_context: None,
        message_group: None,
        deliver_at: None,
        recovery_ms: None,
        body: bytes::Bytes::from_static(b"x"),
    }
}

fn poll(group: u32, wait: Duration) -> (Poll, Answer) {
    let (reply, answer) = oneshot::channel();
    let (topic, group) = (ResourceName::plain("t"), ResourceName::plain(format!("g{group}")));
    let (client_id, filter, until) = ("c".to_owned(), TagFilter::All, Instant::now() + wait);
    (Poll { topic, group, client_id, filter, max: 1, invisible_ms: 1000, auto_renew: false, until, reply }, answer)
}

#[test]
fn many_who_want_one_message_are_served_in_several_turns_and_all_of_them() {
    const GROUPS: u32 = 3_000;
    let mut executor = executor(GROUPS);
    let mut answers = Vec::new();
    for group in 1..=GROUPS {
        let (poll, answer) = poll(group, Duration::from_secs(60));
        executor.polls.wait(TOPIC, poll, false);
        answers.push(answer);
    }
    executor.polls.wake_all(TOPIC);
    let mut turns = 0;
    while executor.polls.any_ready() {
        let before = executor.deliveries.len();
        executor.work = 0;
        executor.serve_ready();
        // One scan of one queue looks at two places here.
        assert!(executor.work < TURN_WORK + SCAN_COST + 8);
        assert!(executor.deliveries.len() > before);
        turns += 1;
    }
    assert_eq!(executor.deliveries.len(), GROUPS as usize);
    assert!(turns >= 3, "{turns} turns");
}

#[test]
fn a_receive_that_comes_when_the_turn_is_over_is_looked_at_in_the_next_one_however_short_it_waits() {
    let mut executor = executor(2);
    executor.work = TURN_WORK - 1;
    let (first, _first_answer) = poll(1, Duration::ZERO);
    executor.receive(first);
    assert_eq!(executor.deliveries.len(), 1, "there was work left");
    let (second, _second_answer) = poll(2, Duration::ZERO);
    executor.receive(second);
    executor.serve_ready();
    assert_eq!((executor.deliveries.len(), executor.polls.len()), (1, 1));
    assert!(executor.polls.timed_out(Instant::now() + Duration::from_secs(1)).is_empty());
    executor.work = 0;
    executor.serve_ready();
    assert_eq!((executor.deliveries.len(), executor.polls.len()), (2, 0));
}

#[test]
fn receives_that_come_leave_half_of_a_turn_to_those_that_wait_for_theirs() {
    let mut executor = executor(2);
    let (first, _first_answer) = poll(1, Duration::from_secs(60));
    executor.polls.wait(TOPIC, first, false);
    executor.polls.wake_all(TOPIC);
    executor.work = TURN_WORK / 2;
    let (second, _second_answer) = poll(2, Duration::from_secs(60));
    executor.receive(second);
    assert_eq!((executor.deliveries.len(), executor.polls.len()), (0, 2));
    executor.serve_ready();
    let served: Vec<_> = executor.deliveries.iter().map(|(poll, _)| poll.group.to_string()).collect();
    assert_eq!(served, ["g1", "g2"]);
}

/// The log of this executor takes nothing.
#[test]
fn who_waits_behind_a_receive_that_the_log_refused_looks_again() {
    let mut executor = executor(1);
    let (first, mut first_answer) = poll(1, Duration::from_secs(60));
    let (second, mut second_answer) = poll(1, Duration::from_secs(60));
    executor.receive(first);
    executor.receive(second);
    assert_eq!((executor.deliveries.len(), executor.polls.len()), (1, 1), "there is one message");
    executor.write_batch();
    assert!(first_answer.try_recv().unwrap().is_err());
    assert!(second_answer.try_recv().is_err() && !executor.polls.any_ready());
    executor.wake_unserved();
    executor.serve_ready();
    assert_eq!((executor.deliveries.len(), executor.polls.len()), (1, 0));
    assert!(executor.unserved.is_empty());
}

/// One time of a group is kept, the first: the next one must come from whoever was woken.
#[test]
fn a_receive_that_is_woken_in_vain_says_when_to_look_again() {
    let mut executor = executor(1);
    let deadline = executor.shared.clock.now().plus_ms(3_600_000);
    let fresh = vec![LeasedRange { queue: 0, from: 0, to: 1, leased: vec![0], left: vec![] }];
    let (group, again) = (GroupId(1), vec![]);
    let lease = Lease { group, topic: TOPIC, generation: 1, deadline, renewed_for: None, fresh, again };
    let at = RecordAt { position: 1, time: Millis(1) };
    executor.state.apply(at, &Record::Lease(lease), &mut Vec::new()).unwrap();
    let (poll, _answer) = poll(1, Duration::from_secs(60));
    executor.receive(poll);
    assert_eq!((executor.polls.len(), executor.polls.next_wake()), (1, Some(deadline)));
    executor.polls.wake_at(Millis(1), TOPIC, group);
    assert_eq!(executor.polls.awake(executor.shared.clock.now()), [(TOPIC, group)]);
    assert_eq!(executor.polls.next_wake(), None);
    executor.polls.wake_group(TOPIC, &ResourceName::plain("g1"));
    executor.serve_ready();
    assert_eq!((executor.polls.len(), executor.polls.next_wake()), (1, Some(deadline)));
}

#[test]
fn a_group_that_has_all_its_filters_looks_at_no_others() {
    let mut executor = executor(1);
    let (name, topic, group) = (ResourceName::plain("g1"), ResourceName::plain("t"), GroupId(1));
    let tag = |n: usize| TagFilter::tags([n.to_string().as_str()]);
    let at = RecordAt { position: 1, time: Millis(1) };
    for n in 0..3 * FILTERS_MAX {
        let client = format!("c{n}");
        let asks = (&topic, &tag(n));
        executor.shared.sessions.note_receive(client.as_str(), &name, asks, false, Instant::now()).unwrap();
    }
    for n in 0..FILTERS_MAX {
        let noted = Record::FilterNoted(FilterNoted { group, topic: TOPIC, filter: tag(n) });
        executor.state.apply(at, &noted, &mut Vec::new()).unwrap();
    }
    let receive = |executor: &mut Executor| {
        let (mut poll, answer) = poll(1, Duration::from_secs(60));
        poll.filter = tag(0);
        executor.work = 0;
        executor.receive(poll);
        (executor.work, answer)
    };
    let (work, _first_answer) = receive(&mut executor);
    // One scan of one queue looks at two places here.
    assert!(work < SCAN_COST + 8, "{work}");
    let gone = FiltersGone { group, topic: TOPIC, filters: vec![tag(1), tag(2)] };
    executor.state.apply(at, &Record::FiltersGone(gone), &mut Vec::new()).unwrap();
    let (work, _second_answer) = receive(&mut executor);
    assert!((SCAN_COST + 2..SCAN_COST + FILTERS_MAX + 8).contains(&work), "its looks at the others count: {work}");
    assert_eq!(filters(&executor.state, &executor.reservations, (group, TOPIC)), FILTERS_MAX);
}
