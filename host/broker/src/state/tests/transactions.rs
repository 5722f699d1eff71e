//! A transaction ends exactly once, and its outcome is remembered for a day (I4, ruling 6).

use crate::record::{Park, Record, TopicDelete};
use crate::state::{Applied, Effect, Ended, OUTCOME_MEMORY_MS};
use crate::testing::{RecordLog, end, head, unknown};
use crate::{HalfPosition, QueueOffset, Refusal, ResourceName, TagHash, TransactionOutcome};

use TransactionOutcome::{Committed, RolledBack};

fn first(outcome: TransactionOutcome) -> Result<Applied, Refusal> {
    Ok(Applied::Ended { outcome, repeated: false })
}

fn repeated(outcome: TransactionOutcome) -> Result<Applied, Refusal> {
    Ok(Applied::Ended { outcome, repeated: true })
}

#[test]
fn a_half_message_is_in_no_queue_until_its_commit() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 4);
    let transaction = log.half(topic);
    assert_eq!(transaction, HalfPosition::of(log.last_position()));
    assert_eq!(log.state.topics().get(topic).unwrap().messages(), 0);
    assert_eq!(log.state.open_transactions().in_topic(topic), 1);

    assert_eq!(log.apply(end(transaction, Committed)), first(Committed));
    assert_eq!(log.effects, [Effect::Arrived(topic, TagHash(0))]);
    let entry = log.state.topics().get(topic).unwrap().entry(0, QueueOffset(0)).unwrap();
    assert_eq!(entry.position, transaction.first_place(), "the index points at the half's body");
    assert_eq!(log.state.open_transactions().in_topic(topic), 0);
}

#[test]
fn a_committed_message_keeps_the_tag_of_its_half() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 1);
    let tag = TagHash::of(Some("paid"));
    log.apply(Record::Half(crate::record::MessageHead { tag, ..head(topic, 0, "h", 0) })).unwrap();
    log.apply(end(HalfPosition::of(log.last_position()), Committed)).unwrap();
    assert_eq!(log.state.topics().get(topic).unwrap().entry(0, QueueOffset(0)).unwrap().tag, tag);
}

#[test]
fn a_rolled_back_message_never_reaches_a_queue() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 4);
    let transaction = log.half(topic);
    assert_eq!(log.apply(end(transaction, RolledBack)), first(RolledBack));
    assert!(log.effects.is_empty());
    assert_eq!(log.state.topics().get(topic).unwrap().messages(), 0);
    assert!(log.state.open_transactions().is_empty());
}

#[test]
fn a_repeat_gets_the_recorded_outcome_and_adds_nothing() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 4);
    for outcome in [Committed, RolledBack] {
        let transaction = log.half(topic);
        log.apply(end(transaction, outcome)).unwrap();
        let messages = log.state.topics().get(topic).unwrap().messages();
        assert_eq!(log.apply(end(transaction, outcome)), repeated(outcome));
        assert!(log.effects.is_empty());
        assert_eq!(log.state.topics().get(topic).unwrap().messages(), messages);
    }
}

#[test]
fn the_opposite_end_is_a_conflict_that_names_the_recorded_outcome() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 4);
    for (recorded, opposite, text) in [(Committed, RolledBack, "committed"), (RolledBack, Committed, "rolled back")] {
        let transaction = log.half(topic);
        log.apply(end(transaction, recorded)).unwrap();
        let refusal = log.refused(end(transaction, opposite));
        assert!(matches!(&refusal, Refusal::OutcomeConflict { recorded: r, .. } if *r == recorded));
        assert!(refusal.to_string().contains(&format!("already {text}")), "{refusal}");
    }
}

#[test]
fn an_outcome_is_remembered_to_the_end_of_its_day_and_not_longer() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 1);
    let transaction = log.half(topic);
    log.apply(end(transaction, Committed)).unwrap();
    log.pass_ms(OUTCOME_MEMORY_MS);
    assert_eq!(log.apply(end(transaction, Committed)), repeated(Committed));
    assert!(matches!(log.refused(end(transaction, RolledBack)), Refusal::OutcomeConflict { .. }));
    log.pass_ms(1);
    for outcome in [Committed, RolledBack] {
        assert!(matches!(log.refused(end(transaction, outcome)), Refusal::AlreadyEnded { .. }));
    }
    assert_eq!(log.state.topics().get(topic).unwrap().messages(), 1);
}

#[test]
fn outcomes_that_are_too_old_leave_the_memory_when_another_comes() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 1);
    let (old, young) = (log.half(topic), log.half(topic));
    log.apply(end(old, Committed)).unwrap();
    log.pass_ms(OUTCOME_MEMORY_MS + 1);
    log.apply(end(young, RolledBack)).unwrap();
    let outcomes = log.state.outcomes();
    assert_eq!((outcomes.len(), outcomes.get(old)), (1, None));
    let ended = Ended { outcome: RolledBack, at: log.now, topic, record: log.last_position(), checks: 0 };
    assert_eq!(outcomes.get(young), Some(&ended));
}

#[test]
fn an_end_for_what_is_no_transaction_changes_nothing() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 1);
    log.send(topic, 0, None);
    let position = HalfPosition::of(log.last_position());
    assert!(matches!(log.refused(end(position, Committed)), Refusal::AlreadyEnded { .. }));
    assert!(matches!(log.refused(end(HalfPosition(u64::MAX), RolledBack)), Refusal::AlreadyEnded { .. }));
}

#[test]
fn a_parked_transaction_is_still_ended_by_a_decision() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 1);
    let (a, b) = (log.half(topic), log.half(topic));
    for (transaction, outcome) in [(a, Committed), (b, RolledBack)] {
        log.apply(Record::Park(Park { transaction, reason: "no answer".to_owned() })).unwrap();
        assert_eq!(log.state.open_transactions().parked(), 1);
        assert_eq!(log.apply(end(transaction, outcome)), first(outcome));
        assert_eq!(log.state.open_transactions().parked(), 0);
    }
    assert_eq!(log.state.topics().get(topic).unwrap().messages(), 1);
}

#[test]
fn a_commit_goes_to_a_queue_that_exists_even_if_the_leader_named_another() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 4);
    let transaction = log.half(topic);
    let Record::End(mut end) = end(transaction, Committed) else { unreachable!() };
    end.queue = 7;
    log.apply(Record::End(end)).unwrap();
    assert_eq!(log.state.topics().get(topic).unwrap().end(3), QueueOffset(1));
}

#[test]
fn an_answer_or_a_park_after_the_end_changes_nothing() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 1);
    let transaction = log.half(topic);
    log.apply(end(transaction, Committed)).unwrap();
    let now = log.now;
    assert!(matches!(log.refused(unknown(transaction, 1, now)), Refusal::AlreadyEnded { .. }));
    let park = Park { transaction, reason: "no answer".to_owned() };
    assert!(matches!(log.refused(Record::Park(park)), Refusal::AlreadyEnded { .. }));
}

#[test]
fn a_transaction_lost_with_its_topic_cannot_be_committed_into_the_next_one() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 1);
    let (lost, kept_elsewhere) = (log.half(topic), log.topic("other", 1));
    let other = log.half(kept_elsewhere);
    let name = ResourceName::plain("orders");
    log.apply(Record::TopicDelete(TopicDelete { name, force: true })).unwrap();
    let next = log.topic("orders", 1);
    assert!(matches!(log.refused(end(lost, Committed)), Refusal::AlreadyEnded { .. }));
    assert_eq!(log.state.topics().get(next).unwrap().messages(), 0);
    assert_eq!(log.apply(end(other, Committed)), first(Committed));
}
