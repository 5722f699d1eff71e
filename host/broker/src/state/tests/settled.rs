//! Answers of components with what they staged: everything happens, or nothing.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::bindings::put;
use crate::record::{
    Ack, Again, BindingDelete, BindingPaused, BindingPut, DeadLetter, DeadLetterSized, End, EndedBy, GiveBack,
    KeepGrant, KeptAccess, KeptDeleted, KeyExpiry, KeyWrite, MessagePlace, Outbox, Record, Settled, SettledHead,
    TopicDelete, encode_message,
};
use crate::state::{Applied, Effect, KEPT_KEY_COST, KEPT_KEY_MAX, KEPT_VALUE_MAX, KeptValue, Outcome};
use crate::testing::{RecordLog, ack, again, lease, message, unknown, whole};
use crate::{
    Generation, GroupConfig, GroupId, HalfPosition, Millis, QueueOffset, RecordPosition, Refusal, ResourceName,
    TopicId, TransactionOutcome,
};

const GENERATION: Generation = Generation(7);

/// A binding that keeps things and publishes, and what it is about.
struct Bench {
    log: RecordLog,
    orders: TopicId,
    audit: TopicId,
    group: GroupId,
    half: HalfPosition,
}

impl Bench {
    fn new() -> Self {
        let mut log = RecordLog::new();
        let (orders, audit) = (log.topic("orders", 1), log.topic("audit", 1));
        let group = log.member("g", orders, GroupConfig::default());
        super::plugins::push(&mut log, "p", "1", 1).unwrap();
        let half = log.half(orders);
        log.send(orders, 0, None);
        log.send(orders, 0, None);
        let leased = lease(&log, group, orders, GENERATION.0, whole(0, 0, 2));
        log.apply(leased).unwrap();
        let mut bench = Self { log, orders, audit, group, half };
        bench.bind("b", "n", 10_000).unwrap();
        bench
    }

    fn bind(&mut self, name: &str, namespace: &str, quota: u64) -> Outcome {
        let keeps = Some(KeepGrant { namespace: namespace.to_owned(), quota });
        let Record::BindingPut(put) = put(name, 1, r#"{"plugin":"p:1"}"#, None) else { unreachable!("it is one") };
        self.log.apply(Record::BindingPut(BindingPut { keeps, names_life: true, ..put }))
    }

    fn created(&self) -> u64 {
        self.log.state.plugins().binding("b").map_or(0, |binding| binding.created)
    }

    fn ack(&self, offset: u64) -> SettledHead {
        let (group, topic, offset) = (self.group, self.orders, QueueOffset(offset));
        SettledHead::Ack(Ack { group, topic, queue: 0, offset, generation: GENERATION })
    }

    fn reject(&self, offset: u64) -> SettledHead {
        let (group, topic, offset) = (self.group, self.orders, QueueOffset(offset));
        let letter =
            DeadLetter { group, topic, queue: 0, offset, generation: GENERATION, reason: "no such item".to_owned() };
        SettledHead::DeadLetter(DeadLetterSized { letter, record_len: 1 })
    }

    fn end(&self, outcome: TransactionOutcome) -> SettledHead {
        let by = EndedBy::Component { binding: "b".to_owned(), digest: "d".to_owned() };
        SettledHead::End(End { transaction: self.half, outcome, queue: 0, by, reason: String::new() })
    }

    fn unknown(&self, number: u32) -> SettledHead {
        let Record::CheckAnswered(answered) = unknown(self.half, number, self.log.now) else {
            unreachable!("it is one")
        };
        SettledHead::CheckAnswered(answered)
    }

    /// With a write of `k`, which was read at this version, and a message to the topic `audit`.
    fn settled(&self, head: SettledHead, version: u64) -> Settled {
        Settled {
            outbox: to(self.audit),
            head,
            binding: "b".to_owned(),
            created: self.created(),
            kept: Some(access(&[("k", version)], &[("k", Some(b"v"), KeyExpiry::Never)])),
        }
    }

    fn value(&self, key: &str) -> Option<KeptValue> {
        let namespace = self.log.state.kept().namespace("n")?;
        namespace.get(key, self.log.now).cloned()
    }

    fn published(&self) -> Vec<RecordPosition> {
        let topic = self.log.state.topics().get(self.audit).unwrap();
        QueueOffset::each(QueueOffset::FIRST..topic.end(0)).map(|at| topic.entry(0, at).unwrap().position).collect()
    }

    /// Applies what must change nothing.
    fn changes_nothing(&mut self, settled: Settled) -> Applied {
        self.log.pass_ms(0);
        let before = self.log.state.snapshot(RecordPosition::START);
        let applied = self.log.apply(Record::Settled(settled)).unwrap();
        assert!(before == self.log.state.snapshot(RecordPosition::START), "{applied:?} changed the state");
        applied
    }
}

fn to(topic: TopicId) -> Outbox {
    let mut records = Vec::new();
    let place = MessagePlace { topic, queue: 0, stored_at: Millis(9) };
    encode_message(&mut records, place, "b", &message("noted"), Default::default());
    Outbox::new(records).unwrap()
}

fn access(reads: &[(&str, u64)], writes: &[(&str, Option<&[u8]>, KeyExpiry)]) -> KeptAccess {
    let write = |(key, value, expires): &(&str, Option<&[u8]>, KeyExpiry)| {
        ((*key).to_owned(), KeyWrite { value: value.map(<[u8]>::to_vec), expires: *expires })
    };
    KeptAccess {
        namespace: "n".to_owned(),
        reads: reads.iter().map(|(key, version)| ((*key).to_owned(), *version)).collect(),
        writes: writes.iter().map(write).collect(),
    }
}

#[test]
fn what_a_component_staged_happens_with_each_kind_of_answer() {
    for number in 0..5 {
        let mut bench = Bench::new();
        let head = match number {
            0 => bench.ack(0),
            1 => bench.reject(0),
            2 => bench.end(TransactionOutcome::Committed),
            3 => bench.end(TransactionOutcome::RolledBack),
            _ => bench.unknown(1),
        };
        let settled = bench.settled(head.clone(), 0);
        let outcome = bench.log.apply(Record::Settled(settled)).unwrap();
        assert!(!matches!(outcome, Applied::Late | Applied::Stale), "{head:?}");
        let at = bench.log.last_position();
        let kept = KeptValue { value: b"v".to_vec(), version: at.0, expires_at: None };
        assert_eq!(bench.value("k"), Some(kept));
        assert_eq!(bench.published(), [at.plus(13)], "{head:?}");
        assert!(bench.log.effects.iter().any(|e| matches!(e, Effect::Arrived(topic, _) if *topic == bench.audit)));
        // What it decided is decided.
        let again = bench.settled(head, at.0);
        assert_eq!(bench.changes_nothing(again), Applied::Late);
    }
}

#[test]
fn an_answer_that_changes_nothing_brings_nothing_with_it() {
    let mut bench = Bench::new();
    bench.log.apply(ack(bench.group, bench.orders, 0, GENERATION.0)).unwrap();
    let late = bench.settled(bench.ack(0), 0);
    assert_eq!(bench.changes_nothing(late), Applied::Late, "the message was acknowledged");
    let stale_number = bench.settled(bench.unknown(2), 0);
    assert_eq!(bench.changes_nothing(stale_number), Applied::Late, "of another check");
    let mut other = bench.settled(bench.ack(1), 0);
    if let SettledHead::Ack(ack) = &mut other.head {
        ack.generation = Generation(8);
    }
    assert_eq!(bench.changes_nothing(other), Applied::Late, "leased to somebody else");
    for head in [bench.ack(1), bench.reject(1)] {
        let settled = bench.settled(head, 0);
        bench.log.pass_ms(60_000);
        assert_eq!(bench.log.apply(Record::Settled(settled)), Ok(Applied::Late), "the lease is over");
        assert_eq!(
            bench.log.effects,
            [Effect::AvailableTo(bench.group, bench.orders)],
            "who passed over it looks again"
        );
    }
    assert!(bench.published().is_empty() && bench.value("k").is_none());
}

#[test]
fn an_answer_of_a_binding_that_was_deleted_changes_nothing_even_where_one_of_its_name_is_there_again() {
    let mut bench = Bench::new();
    let settled = bench.settled(bench.ack(0), 0);
    bench.log.apply(Record::BindingDelete(BindingDelete { name: "b".to_owned() })).unwrap();
    assert_eq!(bench.changes_nothing(settled.clone()), Applied::Late);
    bench.bind("b", "n", 10_000).unwrap();
    assert_eq!(bench.changes_nothing(settled.clone()), Applied::Late);
    // Set again it is the same one.
    let of_this_one = Settled { created: bench.created(), ..settled };
    bench.bind("b", "n", 20_000).unwrap();
    assert_eq!(bench.log.apply(Record::Settled(of_this_one)), Ok(Applied::Done));
}

#[test]
fn an_answer_is_stale_if_one_key_that_it_read_has_another_version() {
    let mut bench = Bench::new();
    let first = bench.settled(bench.ack(0), 0);
    bench.log.apply(Record::Settled(first)).unwrap();
    let written = bench.value("k").unwrap().version;
    for read in [0, written - 1, written + 1] {
        let stale = bench.settled(bench.ack(1), read);
        assert_eq!(bench.changes_nothing(stale), Applied::Stale, "{read}");
    }
    let both = |other| access(&[("k", written), ("other", other)], &[]);
    let stale = Settled { kept: Some(both(5)), ..bench.settled(bench.ack(1), 0) };
    assert_eq!(bench.changes_nothing(stale), Applied::Stale, "of two reads each counts");
    let good = Settled { kept: Some(both(0)), ..bench.settled(bench.ack(1), 0) };
    assert_eq!(bench.log.apply(Record::Settled(good)), Ok(Applied::Done));
}

#[test]
fn what_is_only_written_needs_no_version() {
    let mut bench = Bench::new();
    for offset in 0..2 {
        let blind = access(&[], &[("k", Some(&[offset]), KeyExpiry::Never)]);
        let settled = Settled { kept: Some(blind), ..bench.settled(bench.ack(offset.into()), 0) };
        bench.log.apply(Record::Settled(settled)).unwrap();
        assert_eq!(bench.value("k").unwrap().value, [offset]);
    }
}

#[test]
fn a_key_that_expired_is_as_good_as_never_written() {
    let mut bench = Bench::new();
    let for_a_second = access(&[], &[("k", Some(b"v"), KeyExpiry::AfterMs(1000))]);
    let settled = Settled { kept: Some(for_a_second), ..bench.settled(bench.ack(0), 0) };
    bench.log.apply(Record::Settled(settled)).unwrap();
    let written = bench.log.now;
    assert_eq!(bench.value("k").unwrap().expires_at, Some(written.plus_ms(1000)), "after the time of its entry");
    bench.log.pass_ms(999);
    assert!(bench.value("k").is_some());
    bench.log.pass_ms(1);
    assert!(bench.value("k").is_none());
    let namespace = bench.log.state.kept().namespace("n").unwrap();
    assert_eq!(namespace.keys_from(Bound::Unbounded, bench.log.now).count(), 0);
    assert_eq!(namespace.bytes(), KEPT_KEY_COST + 2, "until somebody writes");
    let at = Millis(bench.log.now.0 + 5);
    let settled = Settled {
        kept: Some(access(&[("k", 0)], &[("l", Some(b"v"), KeyExpiry::At(at))])),
        ..bench.settled(bench.ack(1), 0)
    };
    assert_eq!(bench.log.apply(Record::Settled(settled)), Ok(Applied::Done), "it was read as not there");
    assert_eq!(bench.log.state.kept().namespace("n").unwrap().len(), 1, "the expired one is taken away");
    assert_eq!(bench.value("l").unwrap().expires_at, Some(at));
}

#[test]
fn a_namespace_has_room_for_what_the_binding_may_keep_and_expired_keys_count_no_more() {
    let mut bench = Bench::new();
    let cost = |len: u64| KEPT_KEY_COST + 1 + len;
    bench.bind("b", "n", cost(10) + cost(20)).unwrap();
    let write = |bench: &mut Bench, key: &str, len: usize, expires: KeyExpiry| {
        let value = vec![0; len];
        let half = bench.log.half(bench.orders);
        bench.half = half;
        let kept = access(&[], &[(key, Some(&value), expires)]);
        let settled = Settled { kept: Some(kept), ..bench.settled(bench.end(TransactionOutcome::Committed), 0) };
        let before = bench.log.state.snapshot(RecordPosition::START);
        let outcome = bench.log.apply(Record::Settled(settled));
        if outcome.is_err() {
            assert!(before == bench.log.state.snapshot(RecordPosition::START), "a refusal changed the state");
        }
        outcome
    };
    write(&mut bench, "a", 10, KeyExpiry::AfterMs(1000)).unwrap();
    let refused = write(&mut bench, "b", 21, KeyExpiry::Never).unwrap_err();
    assert!(matches!(&refused, Refusal::TooMany(why) if why.contains("limits.state")), "{refused}");
    write(&mut bench, "b", 20, KeyExpiry::Never).unwrap();
    write(&mut bench, "b", 19, KeyExpiry::Never).unwrap();
    write(&mut bench, "b", 20, KeyExpiry::Never).expect("what is replaced counts no more");
    write(&mut bench, "c", 0, KeyExpiry::Never).unwrap_err();
    bench.log.pass_ms(1000);
    write(&mut bench, "c", 10, KeyExpiry::Never).expect("the first one expired");
    // Less may be kept from now on than there is: what shrinks is still taken.
    bench.bind("b", "n", 1).unwrap();
    write(&mut bench, "b", 19, KeyExpiry::Never).unwrap();
    write(&mut bench, "b", 20, KeyExpiry::Never).unwrap_err();
    let long = "k".repeat(KEPT_KEY_MAX + 1);
    bench.bind("b", "n", 1 << 30).unwrap();
    for (key, len, fits) in [
        (&long[1..], 1, true),
        (long.as_str(), 1, false),
        ("", 1, false),
        ("k", KEPT_VALUE_MAX, true),
        ("k", KEPT_VALUE_MAX + 1, false),
    ] {
        assert_eq!(write(&mut bench, key, len, KeyExpiry::Never).is_ok(), fits, "{} {len}", key.len());
    }
}

#[test]
fn an_answer_whose_message_has_no_topic_any_more_is_refused_as_a_whole() {
    let mut bench = Bench::new();
    let settled = bench.settled(bench.ack(0), 0);
    let name = ResourceName::plain("audit");
    bench.log.apply(Record::TopicDelete(TopicDelete { name, force: false })).unwrap();
    assert!(matches!(bench.log.refused(Record::Settled(settled)), Refusal::NotFound(_)));
}

#[test]
fn a_namespace_is_shared_outlives_a_put_and_goes_with_the_last_binding_that_had_it() {
    let mut bench = Bench::new();
    bench.bind("other", "n", 10_000).unwrap();
    let settled = bench.settled(bench.ack(0), 0);
    bench.log.apply(Record::Settled(settled)).unwrap();
    // Both have another one from now on; what is there stays there.
    bench.bind("b", "elsewhere", 10_000).unwrap();
    bench.bind("other", "elsewhere", 10_000).unwrap();
    assert!(bench.value("k").is_some());
    bench.log.apply(Record::BindingDelete(BindingDelete { name: "b".to_owned() })).unwrap();
    assert!(bench.value("k").is_some());
    bench.log.apply(Record::BindingDelete(BindingDelete { name: "other".to_owned() })).unwrap();
    assert_eq!(bench.log.state.kept().namespaces().count(), 0);
    assert_eq!(bench.log.state.kept().bytes(), 0);
}

#[test]
fn nothing_is_written_to_a_namespace_that_the_binding_never_had() {
    let mut bench = Bench::new();
    bench.bind("other", "theirs", 10_000).unwrap();
    for namespace in ["theirs", "nowhere"] {
        let mut settled = bench.settled(bench.ack(0), 0);
        settled.kept.as_mut().unwrap().namespace = namespace.to_owned();
        assert_eq!(bench.changes_nothing(settled), Applied::Late);
    }
}

#[test]
fn an_operator_deletes_a_key_or_all_of_them() {
    let mut bench = Bench::new();
    let both = access(&[], &[("k", Some(b"v"), KeyExpiry::Never), ("l", Some(b"v"), KeyExpiry::AfterMs(5))]);
    let settled = Settled { kept: Some(both), ..bench.settled(bench.ack(0), 0) };
    bench.log.apply(Record::Settled(settled)).unwrap();
    let delete = |namespace: &str, key: Option<&str>| {
        Record::KeptDeleted(KeptDeleted { namespace: namespace.to_owned(), key: key.map(str::to_owned) })
    };
    assert!(matches!(bench.log.refused(delete("m", None)), Refusal::NotFound(_)));
    assert!(matches!(bench.log.refused(delete("n", Some("m"))), Refusal::NotFound(_)));
    bench.log.apply(delete("n", Some("k"))).unwrap();
    assert!(bench.value("k").is_none() && bench.value("l").is_some());
    bench.log.apply(delete("n", None)).unwrap();
    assert_eq!(bench.log.state.kept().bytes(), 0);
    let settled = bench.settled(bench.ack(1), 0);
    bench.log.apply(Record::Settled(settled)).expect("the namespace is still there");
}

#[test]
fn a_binding_pauses_until_it_goes_on_whether_it_is_set_again_or_not() {
    let mut bench = Bench::new();
    let pause = |paused| Record::BindingPaused(BindingPaused { name: "b".to_owned(), paused });
    let paused = |bench: &Bench| bench.log.state.plugins().binding("b").unwrap().paused;
    assert!(!paused(&bench));
    bench.log.apply(pause(true)).unwrap();
    assert_eq!(bench.log.effects, [Effect::Plugins]);
    bench.bind("b", "n", 1).unwrap();
    assert!(paused(&bench));
    bench.log.apply(pause(false)).unwrap();
    assert!(!paused(&bench));
    bench.log.apply(Record::BindingDelete(BindingDelete { name: "b".to_owned() })).unwrap();
    assert!(matches!(bench.log.refused(pause(true)), Refusal::NotFound(_)));
}

#[test]
fn deliveries_that_are_given_back_count_no_more_whoever_has_the_message_by_then() {
    let mut bench = Bench::new();
    let attempts = |bench: &Bench| {
        let progress = bench.log.progress(bench.group, bench.orders);
        [0, 1].map(|offset| progress.exception(0, QueueOffset(offset)).unwrap().attempts)
    };
    let back = |bench: &Bench, attempts| {
        let (group, topic) = (bench.group, bench.orders);
        Record::GiveBack(GiveBack { group, topic, queue: 0, offset: QueueOffset(1), attempts })
    };
    bench.log.pass_ms(60_000);
    bench.log.apply(again(&bench.log, bench.group, bench.orders, 8, &[(1, Again::Leased)])).unwrap();
    assert_eq!(attempts(&bench), [1, 2]);
    let one = back(&bench, 1);
    bench.log.apply(one.clone()).unwrap();
    assert_eq!(attempts(&bench), [1, 1]);
    bench.log.apply(ack(bench.group, bench.orders, 1, 8)).expect("who has it keeps it");
    bench.log.apply(one).expect("it is done");
    let many = Record::GiveBack(GiveBack {
        group: bench.group,
        topic: bench.orders,
        queue: 0,
        offset: QueueOffset(0),
        attempts: 9,
    });
    bench.log.apply(many).unwrap();
    let progress = bench.log.progress(bench.group, bench.orders);
    assert_eq!(progress.exception(0, QueueOffset(0)).map(|left| left.attempts), Some(0), "never less than none");
}

#[test]
fn what_bindings_keep_is_in_snapshots() {
    let mut bench = Bench::new();
    let both = access(&[], &[("k", Some(b"v"), KeyExpiry::Never), ("l", Some(b"v"), KeyExpiry::AfterMs(5))]);
    let settled = Settled { kept: Some(both), ..bench.settled(bench.ack(0), 0) };
    bench.log.apply(Record::Settled(settled)).unwrap();
    let bytes = bench.log.state.snapshot(RecordPosition(9));
    let (_, read) = crate::testing::read_snapshot(&bytes).unwrap();
    assert_eq!(read.kept(), bench.log.state.kept());
    let names: BTreeMap<&str, usize> = read.kept().namespaces().map(|(name, n)| (name, n.len())).collect();
    assert_eq!(names, [("n", 2)].into());
}
