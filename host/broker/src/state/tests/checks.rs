//! When open transactions are asked about, and when the asking stops (rulings 1, 3 and 5).

use std::time::Duration;

use crate::check::CheckOverrides;
use crate::record::{BindingDelete, BindingPut, ComponentFailed, EndedBy, Park, Record, Resume};
use crate::state::{Applied, Effect, OpenTransaction};
use crate::testing::{RecordLog, START, end, unknown};
use crate::{CheckPolicy, HalfPosition, Millis, RecordPosition, Refusal, TopicConfig, TopicId, TransactionOutcome};

fn policy() -> CheckPolicy {
    CheckPolicy { immunity: Duration::from_secs(6), interval: Duration::from_secs(30), max_checks: 3, schedule: vec![] }
}

fn topic(log: &mut RecordLog, name: &str, transaction: CheckPolicy) -> TopicId {
    log.put_topic(name, &TopicConfig { queues: 1, transaction, ..TopicConfig::default() }).unwrap();
    log.topic_id(name)
}

fn open(log: &RecordLog, transaction: HalfPosition) -> &OpenTransaction {
    log.state.open_transactions().get(transaction).unwrap()
}

fn due(log: &RecordLog, topic: TopicId) -> Vec<(u64, HalfPosition)> {
    log.state.open_transactions().due(topic, None).map(|(at, id)| (at.0 - START.0, id)).collect()
}

fn resume(transaction: HalfPosition) -> Record {
    Record::Resume(Resume { transaction, by: "op".to_owned(), reason: String::new() })
}

#[test]
fn open_transactions_are_listed_by_the_time_of_their_next_check() {
    let mut log = RecordLog::new();
    let orders = topic(&mut log, "orders", policy());
    let other = topic(&mut log, "other", policy());
    let first_s = |first_ms| CheckOverrides { first_ms: Some(first_ms), ..CheckOverrides::default() };
    let late = log.half_with(orders, first_s(60_000));
    let soon = log.half_with(orders, first_s(0));
    let usual = log.half(orders);
    let elsewhere = log.half(other);
    assert_eq!(due(&log, orders), [(0, soon), (6_000, usual), (60_000, late)]);
    assert_eq!(due(&log, other), [(6_000, elsewhere)]);
    let after = log.state.open_transactions().due(orders, Some((START, soon)));
    assert_eq!(after.map(|(_, id)| id).collect::<Vec<_>>(), [usual, late]);
    assert_eq!(log.state.open_transactions().topics_to_check().collect::<Vec<_>>(), [orders, other]);
    log.apply(end(elsewhere, TransactionOutcome::RolledBack)).unwrap();
    assert_eq!(log.state.open_transactions().topics_to_check().collect::<Vec<_>>(), [orders]);
}

#[test]
fn the_next_check_is_one_step_after_the_time_of_the_ask() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, "orders", policy());
    let transaction = log.half(topic);
    assert_eq!(log.effects, [Effect::CheckDue(topic, START.plus_ms(6_000))]);
    log.pass_ms(6_500);
    let asked_at = START.plus_ms(6_010);
    assert_eq!(log.apply(unknown(transaction, 1, asked_at)), Ok(Applied::Counted { parked: false }));
    assert_eq!(log.effects, [Effect::CheckDue(topic, asked_at.plus_ms(30_000))]);
    assert_eq!(due(&log, topic), [(36_010, transaction)]);
    let answer = open(&log, transaction).last_answer.as_ref().unwrap();
    assert_eq!((answer.reason.as_str(), answer.at), ("not paid yet", log.now));
}

#[test]
fn a_schedule_replaces_the_interval_and_its_last_step_repeats() {
    let mut log = RecordLog::new();
    let schedule = [10, 20].map(Duration::from_secs).to_vec();
    let topic = topic(&mut log, "orders", CheckPolicy { schedule, max_checks: 9, ..policy() });
    let transaction = log.half(topic);
    for (number, step) in [(1, 10_000), (2, 20_000), (3, 20_000)] {
        log.apply(unknown(transaction, number, START)).unwrap();
        assert_eq!(due(&log, topic), [(step, transaction)]);
    }
}

#[test]
fn what_the_half_asks_for_comes_before_the_topic() {
    let mut log = RecordLog::new();
    let schedule = vec![Duration::from_secs(10)];
    let topic = topic(&mut log, "orders", CheckPolicy { schedule, ..policy() });
    let checks = CheckOverrides { first_ms: Some(1), interval_ms: Some(2), max: Some(2) };
    let transaction = log.half_with(topic, checks);
    assert_eq!(due(&log, topic), [(1, transaction)]);
    log.apply(unknown(transaction, 1, START)).unwrap();
    assert_eq!(due(&log, topic), [(2, transaction)]);
    assert_eq!(log.apply(unknown(transaction, 2, START)), Ok(Applied::Counted { parked: true }));
}

#[test]
fn a_retry_after_replaces_one_step_and_counts() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, "orders", policy());
    let transaction = log.half(topic);
    let Record::CheckAnswered(mut answer) = unknown(transaction, 1, START) else { unreachable!() };
    answer.retry_after_ms = Some(1_000);
    log.apply(Record::CheckAnswered(answer)).unwrap();
    assert_eq!((due(&log, topic), open(&log, transaction).checks), (vec![(1_000, transaction)], 1));
    log.apply(unknown(transaction, 2, START)).unwrap();
    assert_eq!(due(&log, topic), [(30_000, transaction)]);
}

#[test]
fn an_answer_to_another_check_than_the_next_counts_nothing() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, "orders", policy());
    let transaction = log.half(topic);
    log.apply(unknown(transaction, 1, START)).unwrap();
    let before = log.state.snapshot(RecordPosition(0));
    for stale in [0, 1, 3, u32::MAX] {
        assert_eq!(log.apply(unknown(transaction, stale, START.plus_ms(5))), Ok(Applied::Done));
        assert!(log.effects.is_empty() && before == log.state.snapshot(RecordPosition(0)), "answer to check {stale}");
    }
}

#[test]
fn the_last_counted_unknown_parks_and_nothing_else_is_asked() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, "orders", policy());
    let transaction = log.half(topic);
    for number in 1..=2 {
        assert_eq!(log.apply(unknown(transaction, number, START)), Ok(Applied::Counted { parked: false }));
        assert_eq!(log.state.open_transactions().parked(), 0);
    }
    assert_eq!(log.apply(unknown(transaction, 3, START)), Ok(Applied::Counted { parked: true }));
    assert!(log.effects.is_empty());
    let parked = open(&log, transaction);
    assert_eq!((parked.next_due, parked.checks), (Millis::NEVER, 3));
    assert!(parked.parked.as_ref().unwrap().reason.contains('3'));
    assert_eq!((log.state.open_transactions().parked(), due(&log, topic)), (1, vec![]));
    let before = log.state.snapshot(RecordPosition(0));
    assert_eq!(log.apply(unknown(transaction, 4, START)), Ok(Applied::Done));
    assert!(before == log.state.snapshot(RecordPosition(0)), "a parked transaction counts nothing");
}

#[test]
fn a_park_keeps_the_count_and_the_first_reason() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, "orders", policy());
    let transaction = log.half(topic);
    log.apply(unknown(transaction, 1, START)).unwrap();
    for reason in ["no answer", "another"] {
        let park = Park { transaction, reason: reason.to_owned() };
        assert_eq!(log.apply(Record::Park(park)), Ok(Applied::Counted { parked: true }));
    }
    let parked = open(&log, transaction);
    let reason = parked.parked.as_ref().map(|parked| parked.reason.as_ref());
    assert_eq!((reason, parked.checks), (Some("no answer"), 1));
    assert_eq!(due(&log, topic), []);
}

#[test]
fn a_resumed_transaction_is_asked_at_once_with_a_fresh_count() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, "orders", policy());
    let transaction = log.half(topic);
    (1..=3).for_each(|number| assert!(log.apply(unknown(transaction, number, START)).is_ok()));
    log.pass_ms(1_000);
    let counts = |log: &RecordLog| {
        let open = log.state.open_transactions();
        (open.in_topic(topic), open.parked_in_topic(topic), open.parked())
    };
    assert_eq!((counts(&log), open(&log, transaction).is_resumed()), ((1, 1, 1), false));
    log.apply(resume(transaction)).unwrap();
    let said = open(&log, transaction).last_answer.as_ref().unwrap();
    assert_eq!(
        (counts(&log), said.by.as_str(), open(&log, transaction).is_resumed()),
        ((1, 0, 0), "operator op", true)
    );
    assert_eq!(log.effects, [Effect::CheckDue(topic, START.plus_ms(1_000))]);
    assert_eq!((due(&log, topic), open(&log, transaction).checks), (vec![(1_000, transaction)], 0));
    assert_eq!(log.state.open_transactions().parked(), 0);
    assert_eq!(log.apply(unknown(transaction, 1, log.now)), Ok(Applied::Counted { parked: false }));
}

/// A topic with a binding, and a transaction that is parked because the component failed on it.
fn parked_by_failure(log: &mut RecordLog) -> (TopicId, HalfPosition) {
    parked_by_failure_with(log, [])
}

/// The same with a binding that names these secrets.
fn parked_by_failure_with<const N: usize>(log: &mut RecordLog, secrets: [&str; N]) -> (TopicId, HalfPosition) {
    let topic = topic(log, "orders", policy());
    super::plugins::push(log, "p", "1", 1).unwrap();
    let revision = bind_with(log, "b", r#"{"plugin":"p:1","topics":["orders"]}"#.to_owned(), secrets);
    let transaction = log.half(topic);
    log.apply(unknown(transaction, 1, START)).unwrap();
    assert_eq!(log.apply(failed(transaction, 2, revision)), Ok(Applied::Counted { parked: true }));
    (topic, transaction)
}

fn bind(log: &mut RecordLog, name: &str, topic: &str) -> u64 {
    let spec = format!(r#"{{"plugin":"p:1","topics":["{topic}"]}}"#);
    bind_with(log, name, spec, [])
}

fn bind_with<const N: usize>(log: &mut RecordLog, name: &str, spec: String, secrets: [&str; N]) -> u64 {
    let secrets = secrets.map(str::to_owned).into();
    let put = BindingPut {
        name: name.to_owned(),
        digest: [1; 32],
        spec,
        expected_revision: None,
        secrets,
        keeps: None,
        names_life: false,
    };
    log.apply(Record::BindingPut(put)).unwrap();
    log.state.plugins().binding(name).unwrap().revision
}

fn failed(transaction: HalfPosition, check_number: u32, binding_revision: u64) -> Record {
    Record::ComponentFailed(ComponentFailed {
        transaction,
        check_number,
        binding_revision,
        failures: 10,
        by: EndedBy::Component { binding: "b".to_owned(), digest: "d".to_owned() },
        error: "unreachable".to_owned(),
        trace: "0: check".to_owned(),
    })
}

#[test]
fn what_its_component_fails_on_is_parked_with_the_error_until_the_binding_is_set_again() {
    let mut log = RecordLog::new();
    let (topic, transaction) = parked_by_failure(&mut log);
    let parked = open(&log, transaction);
    assert!(parked.parked.as_ref().unwrap().reason.contains("10 times"), "{parked:?}");
    assert_eq!((parked.checks, due(&log, topic)), (1, vec![]));
    bind(&mut log, "other", "elsewhere");
    assert!(open(&log, transaction).parked.is_some(), "another binding has nothing to do with it");

    log.pass_ms(1_000);
    bind(&mut log, "b", "orders");
    assert!(log.effects.contains(&Effect::CheckDue(topic, log.now)), "{:?}", log.effects);
    let resumed = open(&log, transaction);
    assert_eq!((resumed.parked.is_none(), resumed.checks), (true, 1), "what was counted stays counted");
    assert_eq!(due(&log, topic), [(1_000, transaction)]);
    let failure = resumed.failure.as_ref().unwrap();
    assert_eq!((failure.error.as_str(), failure.trace.as_str(), failure.failures), ("unreachable", "0: check", 10));
    assert_eq!(log.state.open_transactions().waiting_for_binding().count(), 0);
}

#[test]
fn what_its_component_fails_on_is_asked_about_again_when_a_secret_of_its_binding_gets_another_value() {
    let mut log = RecordLog::new();
    for name in ["orders-db", "other"] {
        log.apply(super::secrets::set(name, 1)).unwrap();
    }
    let (topic, transaction) = parked_by_failure_with(&mut log, ["orders-db"]);
    log.apply(super::secrets::set("other", 2)).unwrap();
    assert!(open(&log, transaction).parked.is_some(), "another secret has nothing to do with it");
    log.apply(super::secrets::set("orders-db", 1)).unwrap();
    assert!(open(&log, transaction).parked.is_some(), "the same value, sealed anew, helps nobody");

    log.pass_ms(1_000);
    log.apply(super::secrets::set("orders-db", 2)).unwrap();
    assert_eq!((open(&log, transaction).parked.is_none(), due(&log, topic)), (true, vec![(1_000, transaction)]));
    assert_eq!(log.effects, [Effect::CheckDue(topic, log.now), Effect::Secrets]);
}

#[test]
fn without_its_binding_a_failed_transaction_is_no_longer_parked() {
    let mut log = RecordLog::new();
    let (topic, transaction) = parked_by_failure(&mut log);
    log.apply(Record::BindingDelete(BindingDelete { name: "b".to_owned() })).unwrap();
    assert_eq!((open(&log, transaction).parked.is_none(), due(&log, topic).len()), (true, 1));
    assert!(log.effects.contains(&Effect::CheckDue(topic, log.now)));
}

#[test]
fn a_topic_that_its_binding_no_longer_names_is_freed_too() {
    let mut log = RecordLog::new();
    let (topic, transaction) = parked_by_failure(&mut log);
    bind(&mut log, "b", "elsewhere");
    assert_eq!((open(&log, transaction).parked.is_none(), due(&log, topic).len()), (true, 1));
}

#[test]
fn setting_a_binding_resumes_nothing_that_was_parked_by_its_answers() {
    let mut log = RecordLog::new();
    let (topic, _) = parked_by_failure(&mut log);
    let answered = log.half(topic);
    (1..=3).for_each(|number| assert!(log.apply(unknown(answered, number, START)).is_ok()));
    bind(&mut log, "b", "orders");
    assert!(open(&log, answered).parked.is_some());
}

#[test]
fn a_failure_of_a_check_that_was_answered_or_of_a_binding_that_was_set_anew_parks_nothing() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, "orders", policy());
    super::plugins::push(&mut log, "p", "1", 1).unwrap();
    let old = bind(&mut log, "b", "orders");
    let new = bind(&mut log, "b", "orders");
    let transaction = log.half(topic);
    log.apply(unknown(transaction, 1, START)).unwrap();
    for late in [failed(transaction, 1, new), failed(transaction, 2, old)] {
        assert_eq!(log.apply(late), Ok(Applied::Counted { parked: false }));
        assert!(open(&log, transaction).parked.is_none());
    }
    assert_eq!(log.apply(failed(transaction, 2, new)), Ok(Applied::Counted { parked: true }));
    log.apply(end(transaction, TransactionOutcome::Committed)).unwrap();
    assert!(matches!(log.refused(failed(transaction, 2, new)), Refusal::AlreadyEnded { .. }));
}

#[test]
fn where_checks_were_switched_off_meanwhile_nothing_is_due_after_the_binding_is_set() {
    let mut log = RecordLog::new();
    let (orders, transaction) = parked_by_failure(&mut log);
    topic(&mut log, "orders", CheckPolicy { max_checks: 0, ..policy() });
    bind(&mut log, "b", "orders");
    assert_eq!((open(&log, transaction).parked.is_none(), due(&log, orders)), (true, vec![]));
}

#[test]
fn only_a_parked_transaction_is_resumed() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, "orders", policy());
    let (asked, ended) = (log.half(topic), log.half(topic));
    assert!(matches!(log.refused(resume(asked)), Refusal::Conflict(_)));
    log.apply(end(ended, TransactionOutcome::RolledBack)).unwrap();
    let recorded = TransactionOutcome::RolledBack;
    assert!(matches!(log.refused(resume(ended)), Refusal::OutcomeConflict { recorded: r, .. } if r == recorded));
    assert!(matches!(log.refused(resume(HalfPosition(12))), Refusal::AlreadyEnded { .. }));
}

#[test]
fn with_no_checks_allowed_nobody_is_ever_asked() {
    let mut log = RecordLog::new();
    let never = topic(&mut log, "never", CheckPolicy { max_checks: 0, ..policy() });
    let usual = topic(&mut log, "usual", policy());
    let a = log.half(never);
    assert!(log.effects.is_empty());
    let none = CheckOverrides { max: Some(0), ..CheckOverrides::default() };
    let b = log.half_with(usual, none);
    for (topic, transaction) in [(never, a), (usual, b)] {
        assert_eq!((due(&log, topic), open(&log, transaction).next_due), (vec![], Millis::NEVER));
        assert!(open(&log, transaction).parked.is_none());
        assert!(
            matches!(log.refused(resume(transaction)), Refusal::Conflict(text) if text.contains("max_checks is 0"))
        );
        assert!(log.apply(end(transaction, TransactionOutcome::Committed)).is_ok());
    }
}

#[test]
fn switching_checks_off_and_on_reaches_transactions_that_are_open_already() {
    let mut log = RecordLog::new();
    let orders = topic(&mut log, "orders", policy());
    let (usual, parked) = (log.half(orders), log.half(orders));
    let own = log.half_with(orders, CheckOverrides { max: Some(5), ..CheckOverrides::default() });
    log.apply(Record::Park(Park { transaction: parked, reason: "no answer".to_owned() })).unwrap();

    topic(&mut log, "orders", CheckPolicy { max_checks: 0, ..policy() });
    assert_eq!(due(&log, orders), [(6_000, own)]);
    assert_eq!(log.apply(unknown(usual, 1, START)), Ok(Applied::Counted { parked: false }), "asked before the change");
    assert_eq!(due(&log, orders), [(6_000, own)]);

    log.pass_ms(20_000);
    topic(&mut log, "orders", policy());
    assert!(log.effects.contains(&Effect::CheckDue(orders, log.now)));
    assert_eq!(due(&log, orders), [(6_000, own), (20_000, usual)]);
}
