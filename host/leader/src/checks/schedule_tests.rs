//! The schedule against a state that is driven by records, as the executor drives it.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use vouch_broker::check::CheckOverrides;
use vouch_broker::record::{CheckAnswered, End, EndedBy, Frame, MessagePlace, Park, Resume, TopicPut, encode_message};
use vouch_broker::state::{Applied, Effect, Outcome, RecordAt};
use vouch_broker::{
    BodyEncoding, CheckPolicy, HalfPosition, MessageKind, NewMessage, RecordPosition, TopicConfig, TopicType,
    TransactionOutcome,
};

use super::*;

#[path = "schedule_model_tests.rs"]
mod model;

/// Between two checks, and from a half to its first one.
const STEP_MS: u64 = 3000;

/// A node's executor, as far as checks go.
struct Bench {
    state: State,
    schedule: Schedule,
    now: Millis,
    position: RecordPosition,
    /// Who may be asked.
    with_checker: bool,
}

impl Bench {
    fn new(asks_max: usize, asks_per_topic_max: usize, topics: u32) -> Self {
        let schedule = Schedule::with_room(asks_max, asks_per_topic_max);
        let mut bench = Self {
            state: State::default(),
            schedule,
            now: Millis(1_000_000),
            position: RecordPosition(0),
            with_checker: true,
        };
        for topic in 0..topics {
            bench.put_topic(topic, 4);
        }
        bench
    }

    fn put_topic(&mut self, number: u32, max_checks: u32) {
        let step = std::time::Duration::from_millis(STEP_MS);
        let transaction = CheckPolicy { immunity: step, interval: step, max_checks, ..CheckPolicy::default() };
        let config = TopicConfig { topic_type: TopicType::Transaction, transaction, ..TopicConfig::default() };
        let name = ResourceName::plain(format!("t{number}"));
        self.apply(&Record::TopicPut(TopicPut { name, config, expected_revision: None })).unwrap();
    }

    fn topic(&self, number: u32) -> TopicId {
        self.state.topics().named(&ResourceName::plain(format!("t{number}"))).unwrap().id
    }

    fn apply(&mut self, record: &Record) -> Outcome {
        self.position = self.position.plus(64);
        let mut effects = Vec::new();
        let outcome = self.state.apply(RecordAt { position: self.position, time: self.now }, record, &mut effects);
        self.schedule.applied(record, &self.state);
        for effect in effects {
            if let Effect::CheckDue(topic, at) = effect {
                self.schedule.due_changed(topic, at);
            }
        }
        outcome
    }

    fn open(&mut self, topic: TopicId) -> HalfPosition {
        self.open_with(topic, CheckOverrides::default())
    }

    fn open_with(&mut self, topic: TopicId, checks: CheckOverrides) -> HalfPosition {
        let message = NewMessage {
            message_id: format!("m{}", self.position),
            tag: None,
            keys: vec![],
            properties: vec![],
            kind: MessageKind::Transaction,
            encoding: BodyEncoding::Identity,
            born_at: Millis(1),
            born_host: "h".to_owned(),
            trace_context: None,
            message_group: None,
            deliver_at: None,
            recovery_ms: None,
            body: Bytes::from_static(b"x"),
        };
        let mut bytes = Vec::new();
        let place = MessagePlace { topic, queue: 0, stored_at: self.now };
        encode_message(&mut bytes, place, "producer", &message, checks);
        let record = Record::decode(&Frame::split(&bytes).unwrap().0).unwrap();
        match self.apply(&record).unwrap() {
            Applied::Prepared { transaction } => transaction,
            other => panic!("{other:?}"),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    fn take(&mut self) -> (Vec<Due>, Option<Millis>) {
        let checker = self.with_checker.then_some(Checker::Producer);
        self.schedule.take(&self.state, self.now, |_| checker.clone())
    }

    fn taken(&mut self) -> Vec<HalfPosition> {
        self.take().0.iter().map(|due| due.transaction).collect()
    }

    fn unknown(&mut self, due: &Due) -> Outcome {
        self.apply(&Record::CheckAnswered(CheckAnswered {
            transaction: due.transaction,
            check_number: due.number,
            asked_at: due.asked_at,
            retry_after_ms: None,
            by: by(),
            reason: String::new(),
        }))
    }

    fn end(&mut self, transaction: HalfPosition) -> Outcome {
        let outcome = TransactionOutcome::Committed;
        self.apply(&Record::End(End { transaction, outcome, queue: 0, by: by(), reason: String::new() }))
    }

    fn park(&mut self, transaction: HalfPosition) -> Outcome {
        self.apply(&Record::Park(Park { transaction, reason: "no answer".to_owned() }))
    }

    fn resume(&mut self, transaction: HalfPosition) -> Outcome {
        self.apply(&Record::Resume(Resume { transaction, by: "ada".to_owned(), reason: String::new() }))
    }

    /// How many asks in a row got no answer, this one included; `None` if it is over.
    fn no_answer(&mut self, due: &Due) -> Option<u32> {
        if !self.schedule.is_under_way(due) {
            assert_eq!(self.schedule.no_answer(due, self.error(), None), None);
            return None;
        }
        self.schedule.no_answer(due, self.error(), None);
        self.schedule.no_answers(due.transaction).map(|no_answers| no_answers.count)
    }

    fn error(&self) -> AskError {
        AskError { by: "b".to_owned(), text: "down".to_owned(), trace: String::new(), at: self.now }
    }

    /// Takes the one ask that is due, and lets the component of this binding fail on it.
    fn fail(&mut self, binding_revision: u64) -> Failing {
        self.pass(STEP_MS);
        let due = self.take().0.remove(0);
        self.schedule.no_answer(&due, self.error(), Some(binding_revision)).unwrap()
    }
}

fn by() -> EndedBy {
    EndedBy::Operator { name: "tester".to_owned() }
}

#[test]
fn one_that_is_to_be_asked_again_is_not_found_a_second_time_when_the_index_is_read_anew() {
    let mut bench = Bench::new(10, 2, 1);
    let topic = bench.topic(0);
    let transaction = bench.open(topic);
    bench.pass(STEP_MS);
    for round in 0..5 {
        let (asks, _) = bench.take();
        assert_eq!(asks.len(), 1, "round {round}");
        assert_eq!(asks[0].transaction, transaction);
        bench.schedule.due_changed(topic, Millis(0));
        assert!(bench.taken().is_empty(), "it is being asked about");
        bench.schedule.ask_again(&asks[0], bench.now.plus_ms(1000));
        bench.schedule.due_changed(topic, Millis(0));
        assert!(bench.taken().is_empty(), "it waits for its time");
        assert_eq!(bench.schedule.asking(), 0);
        bench.pass(1000);
    }
    assert_eq!(bench.taken(), [transaction], "its place was given back each time");
}

#[test]
fn those_that_are_due_take_none_along_that_is_not() {
    let mut bench = Bench::new(10, 10, 1);
    let topic = bench.topic(0);
    let again = bench.open(topic);
    bench.pass(STEP_MS);
    let due = bench.take().0.remove(0);
    bench.schedule.ask_again(&due, bench.now.plus_ms(1001));
    let first = bench.open(topic);
    bench.pass(1);
    let last = bench.open(topic);
    bench.pass(999);
    assert_eq!(bench.take().1, Some(bench.now.plus_ms(1)), "none is due");
    bench.pass(1);
    assert_eq!(bench.taken(), [again]);
    bench.pass(STEP_MS - 1001);
    assert_eq!(bench.take().0.iter().map(|due| due.transaction).collect::<Vec<_>>(), [first]);
    bench.pass(1);
    assert_eq!(bench.taken(), [last]);
}

#[test]
fn nobody_is_missed_in_a_topic_before_something_in_it_is_due() {
    let mut bench = Bench::new(10, 10, 1);
    let topic = bench.topic(0);
    bench.open(topic);
    bench.with_checker = false;
    bench.pass(STEP_MS - 1);
    assert_eq!(bench.take().1, Some(bench.now.plus_ms(1)));
    assert!(!bench.schedule.is_without_checker(topic));
    bench.pass(1);
    bench.take();
    assert!(bench.schedule.is_without_checker(topic));
}

#[test]
fn one_whose_checks_were_switched_off_while_it_waited_is_asked_when_they_are_on_again() {
    let mut bench = Bench::new(10, 10, 1);
    let topic = bench.topic(0);
    let switched = bench.open(topic);
    let asked_anyway = bench.open_with(topic, CheckOverrides { max: Some(4), ..CheckOverrides::default() });
    bench.pass(STEP_MS);
    for due in bench.take().0 {
        assert_eq!(bench.no_answer(&due), Some(1));
    }
    bench.put_topic(0, 0);
    bench.pass(STEP_MS);
    assert_eq!(bench.taken(), [asked_anyway]);
    bench.put_topic(0, 4);
    assert_eq!(bench.taken(), [switched]);
}

#[test]
fn a_transaction_that_was_parked_while_it_waited_is_asked_once_when_it_is_resumed() {
    let mut bench = Bench::new(10, 10, 1);
    let transaction = bench.open(bench.topic(0));
    bench.pass(STEP_MS);
    let due = bench.take().0.remove(0);
    assert_eq!(bench.no_answer(&due), Some(1));
    bench.park(transaction).unwrap();
    bench.pass(60_000);
    assert!(bench.taken().is_empty(), "it is parked");
    bench.resume(transaction).unwrap();
    assert_eq!(bench.taken(), [transaction]);
    assert_eq!((bench.taken(), bench.schedule.asking()), (vec![], 1));
    assert!(bench.schedule.no_answers(transaction).is_none(), "what was before it was parked is over");
}

#[test]
fn a_late_answer_to_an_earlier_ask_leaves_the_one_that_is_under_way() {
    let mut bench = Bench::new(10, 10, 1);
    bench.open(bench.topic(0));
    bench.pass(STEP_MS);
    let first = bench.take().0.remove(0);
    bench.unknown(&first).unwrap();
    bench.pass(STEP_MS);
    let second = bench.take().0.remove(0);
    assert_eq!(bench.unknown(&first), Ok(Applied::Done));
    assert!(bench.schedule.is_under_way(&second) && !bench.schedule.is_under_way(&first));
    assert_eq!((bench.taken(), bench.no_answer(&first)), (vec![], None));
    assert_eq!(bench.no_answer(&second), Some(1));
}

#[test]
fn those_who_ask_learn_that_the_ask_is_over_also_when_it_was_before_they_asked() {
    let mut bench = Bench::new(10, 10, 1);
    let transaction = bench.open(bench.topic(0));
    bench.pass(STEP_MS);
    let due = bench.take().0.remove(0);
    let told = Arc::new(AtomicUsize::new(0));
    let tell = || {
        let told = told.clone();
        move || _ = told.fetch_add(1, Ordering::Relaxed)
    };
    due.ask.at_end(tell());
    assert_eq!(told.load(Ordering::Relaxed), 0);
    bench.end(transaction).unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 1);
    due.ask.at_end(tell());
    assert_eq!(told.load(Ordering::Relaxed), 2);
}

#[test]
fn both_bounds_are_what_they_say_and_every_topic_has_its_turn() {
    let mut bench = Bench::new(5, 3, 3);
    for topic in 0..3 {
        for _ in 0..4 {
            bench.open(bench.topic(topic));
        }
    }
    bench.pass(STEP_MS);
    let mut under_way: Vec<Due> = bench.take().0;
    let of = |asks: &[Due], name: &str| asks.iter().filter(|due| due.topic.name == name).count();
    assert_eq!(["t0", "t1", "t2"].map(|name| of(&under_way, name)), [3, 2, 1], "its share of 5 is one");
    assert_eq!(bench.schedule.asking(), 6);
    assert!(bench.taken().is_empty());
    // The first topic's asks end, and its transactions are due again at once: it gets no more than its share of what is left.
    for due in under_way.extract_if(.., |due| due.topic.name == "t0").collect::<Vec<_>>() {
        bench.schedule.ask_again(&due, bench.now);
    }
    let more = bench.take().0;
    assert_eq!(["t0", "t1", "t2"].map(|name| of(&more, name)), [1, 1, 1]);
}

#[test]
fn topics_whose_asks_all_hang_leave_a_share_to_one_that_comes_later() {
    const ROOM: usize = 64;
    let mut bench = Bench::new(ROOM, 32, 3);
    let open = |bench: &mut Bench, topic: u32| {
        for _ in 0..100 {
            bench.open(bench.topic(topic));
        }
    };
    open(&mut bench, 0);
    open(&mut bench, 1);
    bench.pass(STEP_MS);
    assert_eq!(bench.taken().len(), ROOM, "both hang with all that there is");
    open(&mut bench, 2);
    bench.pass(STEP_MS);
    for _ in 0..3 {
        let asks = bench.take().0;
        assert_eq!(asks.len(), ROOM / 3, "and the third has its share, again and again");
        asks.iter().for_each(|due| drop(bench.end(due.transaction)));
    }
}

#[test]
fn failures_of_the_component_are_counted_in_a_row_for_one_binding() {
    let mut bench = Bench::new(10, 10, 1);
    let transaction = bench.open(bench.topic(0));
    let first = bench.fail(7);
    assert_eq!((first.failures, first.since), (1, bench.now));
    let second = bench.fail(7);
    assert_eq!((second.failures, second.since), (2, first.since));
    assert_eq!(bench.fail(8).failures, 1, "the binding was set anew");
    bench.fail(8);
    bench.pass(STEP_MS);
    let due = bench.take().0.remove(0);
    assert_eq!(bench.no_answer(&due), Some(5), "a service that is down is no failure of the component");
    assert_eq!(bench.fail(8).failures, 1);
    let kept = bench.schedule.last_error(transaction).cloned();
    bench.end(transaction).unwrap();
    assert!(kept.is_some() && bench.schedule.last_error(transaction).cloned() == kept, "its end hides no error");
}

#[test]
fn a_transaction_is_asked_about_for_as_long_as_there_is_no_answer() {
    let mut bench = Bench::new(10, 10, 1);
    bench.open(bench.topic(0));
    bench.pass(STEP_MS);
    for count in 1..=100 {
        let due = bench.take().0.remove(0);
        assert_eq!(due.number, 1, "nothing is counted");
        assert_eq!(bench.no_answer(&due), Some(count));
        bench.pass(STEP_MS);
    }
}

#[test]
fn those_without_an_answer_do_not_keep_others_waiting() {
    let mut bench = Bench::new(10, 2, 1);
    for _ in 0..6 {
        bench.open(bench.topic(0));
    }
    bench.pass(STEP_MS);
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        for due in bench.take().0 {
            seen.insert(due.transaction);
            assert!(bench.no_answer(&due).is_some());
        }
        // Longer than any pause: those that were asked could be asked again.
        bench.pass(STEP_MS);
    }
    assert_eq!(seen.len(), 6);
}

#[test]
fn nothing_is_kept_of_a_topic_without_open_transactions() {
    let mut bench = Bench::new(10, 10, 1);
    let ids: Vec<HalfPosition> = (0..3).map(|_| bench.open(bench.topic(0))).collect();
    bench.pass(STEP_MS);
    let asks = bench.take().0;
    bench.schedule.ask_again(&asks[0], bench.now);
    for id in ids {
        bench.end(id).unwrap();
    }
    bench.take();
    assert!(bench.schedule.tracked.is_empty() && bench.schedule.topics.is_empty());
}
