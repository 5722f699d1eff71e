//! The work of one turn is bounded.

use std::time::{Duration, Instant};

use vouch_broker::check::CheckOverrides;
use vouch_broker::delivery::filters;
use vouch_broker::record::{
    FilterNoted, FiltersGone, Frame, GroupPut, Join, Lease, LeasedRange, MessagePlace, Record, TopicPut, encode_message,
};
use vouch_broker::state::FILTERS_MAX;
use vouch_broker::testing::message;
use vouch_broker::{
    Generation, GroupConfig, GroupId, Millis, NothingStored, QueueOffset, ResourceName, State, TagFilter, TopicConfig,
    TopicId,
};

use super::{SCAN_COST, TURN_WORK};
use crate::testing::{Around, ReceiveCaller, next_at};
use crate::{Dead, Leader, Poll, Turn};

const TOPIC: TopicId = TopicId(1);
const NOW: Millis = Millis(1_000);

/// A leader that is stepped by hand.
struct Bench {
    state: State,
    leader: Leader,
    around: Around,
    began: Instant,
}

impl Bench {
    /// So many groups on a topic of one queue that holds one message.
    fn new(groups: u32) -> Self {
        let mut records = Vec::new();
        let (name, config) = (ResourceName::plain("t"), TopicConfig { queues: 1, ..TopicConfig::default() });
        TopicPut { name, config, expected_revision: None }.encode(&mut records);
        for n in 1..=groups {
            let (name, config) = (ResourceName::plain(format!("g{n}")), GroupConfig::default());
            GroupPut { name, config, expected_revision: None }.encode(&mut records);
            Join { group: GroupId(n), topic: TOPIC, at_end: false }.encode(&mut records);
        }
        let place = MessagePlace { topic: TOPIC, queue: 0, stored_at: Millis(1) };
        encode_message(&mut records, place, "producer", &message("m"), CheckOverrides::default());
        let (mut state, mut rest) = (State::default(), records.as_slice());
        while !rest.is_empty() {
            let (frame, next) = Frame::split(rest).unwrap();
            let record = Record::decode(&frame).unwrap();
            state.apply(next_at(&state), &record, &mut Vec::new()).unwrap();
            rest = next;
        }
        Self { leader: Leader::of(&state), state, around: Around::default(), began: Instant::now() }
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut Leader, &Turn<'_>) -> T) -> T {
        let turn = Turn { state: &self.state, time: NOW, at: self.began, outside: &self.around };
        act(&mut self.leader, &turn)
    }

    fn receive(&mut self, poll: Poll) {
        self.act(|leader, turn| leader.receive(turn, poll));
    }

    fn serve_ready(&mut self) {
        self.act(|leader, turn| leader.serve_ready(turn));
    }

    fn deliveries(&self) -> usize {
        self.leader.deliveries.len()
    }

    fn waiting(&self) -> usize {
        self.leader.polls.len()
    }

    /// A receive of this group that waits for so long.
    fn poll(&self, group: u32, wait: Duration) -> (Poll, ReceiveCaller) {
        let (waiter, answer) = ReceiveCaller::new();
        let (topic, group) = (ResourceName::plain("t"), ResourceName::plain(format!("g{group}")));
        let (client_id, filter, until) = ("c".to_owned(), TagFilter::All, self.began + wait);
        let (max, invisible_ms, auto_renew, machine) = (1, 1000, false, None);
        (Poll { topic, group, client_id, machine, filter, max, invisible_ms, auto_renew, until, waiter }, answer)
    }

    /// The log takes nothing of what is wanted so far.
    fn refuse_all(&mut self) {
        let why = NothingStored::Stopping.into();
        self.leader.log_took(false);
        for records in self.leader.take_wants().records {
            self.leader.unproposed(&records, &why);
        }
        if self.leader.seal_deliveries() {
            self.leader.hand_out(None);
        }
        self.tell();
    }

    /// Answers whom the leader wants answered.
    fn tell(&mut self) {
        for (waiter, answer) in self.leader.take_wants().answers {
            waiter.answer(answer).unwrap();
        }
    }
}

#[test]
fn many_who_want_one_message_are_served_in_several_turns_and_all_of_them() {
    const GROUPS: u32 = 3_000;
    let mut bench = Bench::new(GROUPS);
    let mut answers = Vec::new();
    for group in 1..=GROUPS {
        let (poll, answer) = bench.poll(group, Duration::from_secs(60));
        bench.leader.polls.wait(TOPIC, poll);
        answers.push(answer);
    }
    bench.leader.polls.wake_all(TOPIC);
    let mut turns = 0;
    while bench.leader.polls.any_ready() {
        let before = bench.deliveries();
        bench.leader.work = 0;
        bench.serve_ready();
        // One scan of one queue looks at two places here.
        assert!(bench.leader.work < TURN_WORK + SCAN_COST + 8);
        assert!(bench.deliveries() > before);
        turns += 1;
    }
    assert_eq!(bench.deliveries(), GROUPS as usize);
    assert!(turns >= 3, "{turns} turns");
}

#[test]
fn a_receive_that_comes_when_the_turn_is_over_is_looked_at_in_the_next_one_however_short_it_waits() {
    let mut bench = Bench::new(2);
    bench.leader.work = TURN_WORK - 1;
    let (first, _first_answer) = bench.poll(1, Duration::ZERO);
    bench.receive(first);
    assert_eq!(bench.deliveries(), 1, "there was work left");
    let (second, _second_answer) = bench.poll(2, Duration::ZERO);
    bench.receive(second);
    bench.serve_ready();
    assert_eq!((bench.deliveries(), bench.waiting()), (1, 1));
    assert!(bench.leader.polls.timed_out(bench.began + Duration::from_secs(1)).is_empty());
    bench.leader.work = 0;
    bench.serve_ready();
    assert_eq!((bench.deliveries(), bench.waiting()), (2, 0));
}

#[test]
fn receives_that_come_leave_half_of_a_turn_to_those_that_wait_for_theirs() {
    let mut bench = Bench::new(2);
    let (first, _first_answer) = bench.poll(1, Duration::from_secs(60));
    bench.leader.polls.wait(TOPIC, first);
    bench.leader.polls.wake_all(TOPIC);
    bench.leader.work = TURN_WORK / 2;
    let (second, _second_answer) = bench.poll(2, Duration::from_secs(60));
    bench.receive(second);
    assert_eq!((bench.deliveries(), bench.waiting()), (0, 2));
    bench.serve_ready();
    let served: Vec<_> = bench.leader.deliveries.iter().map(|(poll, _)| poll.group.to_string()).collect();
    assert_eq!(served, ["g1", "g2"]);
}

/// The log of this leader takes nothing.
#[test]
fn who_waits_behind_a_receive_that_the_log_refused_looks_again() {
    let mut bench = Bench::new(1);
    let (first, first_answer) = bench.poll(1, Duration::from_secs(60));
    let (second, second_answer) = bench.poll(1, Duration::from_secs(60));
    bench.receive(first);
    bench.receive(second);
    assert_eq!((bench.deliveries(), bench.waiting()), (1, 1), "there is one message");
    bench.refuse_all();
    assert!(first_answer.heard().unwrap().is_err());
    assert!(second_answer.heard().is_none() && !bench.leader.polls.any_ready());
    bench.act(Leader::look_again);
    bench.serve_ready();
    assert_eq!((bench.deliveries(), bench.waiting()), (1, 0));
    assert!(bench.leader.unserved.is_empty());
}

/// One time of a group is kept, the first: the next one must come from whoever was woken.
#[test]
fn a_receive_that_is_woken_in_vain_says_when_to_look_again() {
    let mut bench = Bench::new(1);
    let deadline = NOW.plus_ms(3_600_000);
    let fresh = vec![LeasedRange {
        queue: 0,
        from: QueueOffset(0),
        to: QueueOffset(1),
        leased: vec![QueueOffset(0)],
        left: vec![],
    }];
    let (group, again) = (GroupId(1), vec![]);
    let lease = Lease { group, topic: TOPIC, generation: Generation(1), deadline, renewed_for: None, fresh, again };
    let at = next_at(&bench.state);
    bench.state.apply(at, &Record::Lease(lease), &mut Vec::new()).unwrap();
    let (poll, _answer) = bench.poll(1, Duration::from_secs(60));
    bench.receive(poll);
    assert_eq!((bench.waiting(), bench.leader.polls.next_wake()), (1, Some(deadline)));
    bench.leader.polls.wake_at(Millis(1), TOPIC, group);
    assert_eq!(bench.leader.polls.awake(NOW), [(TOPIC, group)]);
    assert_eq!(bench.leader.polls.next_wake(), None);
    bench.leader.polls.wake_group(TOPIC, &ResourceName::plain("g1"));
    bench.serve_ready();
    assert_eq!((bench.waiting(), bench.leader.polls.next_wake()), (1, Some(deadline)));
}

#[test]
fn a_group_that_has_all_its_filters_looks_at_no_others() {
    let mut bench = Bench::new(1);
    let group = GroupId(1);
    let tag = |n: usize| TagFilter::tags([n.to_string().as_str()]);
    bench.around.living.filters = (0..3 * FILTERS_MAX).map(tag).collect();
    for n in 0..FILTERS_MAX {
        let noted = Record::FilterNoted(FilterNoted { group, topic: TOPIC, filter: tag(n) });
        let at = next_at(&bench.state);
        bench.state.apply(at, &noted, &mut Vec::new()).unwrap();
    }
    let receive = |bench: &mut Bench| {
        let (mut poll, answer) = bench.poll(1, Duration::from_secs(60));
        poll.filter = tag(0);
        bench.leader.work = 0;
        bench.receive(poll);
        (bench.leader.work, answer)
    };
    let (work, _first_answer) = receive(&mut bench);
    // One scan of one queue looks at two places here.
    assert!(work < SCAN_COST + 8, "{work}");
    let gone = FiltersGone { group, topic: TOPIC, filters: vec![tag(1), tag(2)] };
    let at = next_at(&bench.state);
    bench.state.apply(at, &Record::FiltersGone(gone), &mut Vec::new()).unwrap();
    let (work, _second_answer) = receive(&mut bench);
    assert!((SCAN_COST + 2..SCAN_COST + FILTERS_MAX + 8).contains(&work), "its looks at the others count: {work}");
    assert_eq!(filters(&bench.state, &bench.leader.reservations, (group, TOPIC)), FILTERS_MAX);
}

#[test]
fn a_log_that_refuses_leases_which_hand_nothing_out_fills_no_memory() {
    let mut bench = Bench::new(1);
    for _ in 0..3 {
        let (mut poll, _answer) = bench.poll(1, Duration::ZERO);
        // Nobody of the group wants the message: it is passed over, which is a lease without a message.
        poll.filter = TagFilter::tags(["another"]);
        bench.receive(poll);
        assert_eq!(bench.deliveries(), 0);
        assert!(!bench.leader.wants.records.is_empty(), "it was decided again");
        bench.refuse_all();
        assert!(bench.leader.unleased.is_empty());
    }
}

#[test]
fn leases_of_a_consumer_that_died_are_given_up_in_the_turn_that_hears_of_it() {
    let mut bench = Bench::new(1);
    let from = QueueOffset(0);
    let fresh = vec![LeasedRange { queue: 0, from, to: from.next(), leased: vec![from], left: vec![] }];
    let (group, deadline, renewed_for) = (GroupId(1), NOW.plus_ms(60_000), Some("dead".to_owned()));
    let lease = Lease { group, topic: TOPIC, generation: Generation(1), deadline, renewed_for, fresh, again: vec![] };
    bench.state.apply(next_at(&bench.state), &Record::Lease(lease), &mut Vec::new()).unwrap();
    bench.act(Leader::tick);
    assert!(bench.leader.wants.records.is_empty(), "nobody died yet");
    bench.leader.died(vec![Dead { client_id: "dead".into(), group: ResourceName::plain("g1") }]);
    bench.act(Leader::tick);
    let [given_up] = bench.leader.take_wants().records.try_into().unwrap();
    let record = Record::decode(&Frame::split(&given_up).unwrap().0).unwrap();
    assert!(matches!(record, Record::ChangeInvisible(change) if change.deadline == NOW && !change.uncounted));
}
