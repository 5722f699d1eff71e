//! Resends are stored once (ruling 14).

use crate::record::{MessageHead, Record, TopicDelete};
use crate::state::{Applied, DEDUP_WINDOW_MS};
use crate::testing::{RecordLog, end, head};
use crate::{HalfPosition, QueueOffset, ResourceName, TopicId, TransactionOutcome};

fn send(log: &mut RecordLog, head: MessageHead) -> Applied {
    log.apply(Record::Message(head)).unwrap()
}

fn stored(queue: u32, offset: u64) -> Applied {
    Applied::Stored { queue, offset: QueueOffset(offset) }
}

fn messages(log: &RecordLog, topic: TopicId) -> u64 {
    log.state.topics().get(topic).unwrap().messages()
}

#[test]
fn a_resend_gets_the_place_of_the_first_copy() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 4);
    log.send(topic, 2, None);
    assert_eq!(send(&mut log, head(topic, 2, "a", 7)), stored(2, 1));
    assert_eq!(send(&mut log, head(topic, 3, "a", 7)), stored(2, 1), "another queue was chosen for the retry");
    assert!(log.effects.is_empty());
    assert_eq!((messages(&log, topic), log.state.resends()), (2, (1, 0)));
}

#[test]
fn the_same_id_with_other_content_is_stored_and_counted() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 1);
    send(&mut log, head(topic, 0, "a", 7));
    assert_eq!(send(&mut log, head(topic, 0, "a", 8)), stored(0, 1));
    assert_eq!((messages(&log, topic), log.state.resends()), (2, (0, 1)));
    assert_eq!(send(&mut log, head(topic, 0, "a", 8)), stored(0, 1), "the latest under this id is the one compared");
}

#[test]
fn another_client_may_use_the_same_id() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 1);
    send(&mut log, head(topic, 0, "a", 7));
    let identity = crate::record::Identity::of("another client", "a");
    assert_eq!(send(&mut log, MessageHead { identity, ..head(topic, 0, "a", 7) }), stored(0, 1));
    assert_eq!(log.state.resends(), (0, 0));
}

#[test]
fn a_resend_is_recognised_to_the_end_of_the_window_and_not_longer() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 1);
    send(&mut log, head(topic, 0, "a", 7));
    log.pass_ms(DEDUP_WINDOW_MS);
    assert_eq!(send(&mut log, head(topic, 0, "a", 7)), stored(0, 0));
    log.pass_ms(1);
    assert_eq!(send(&mut log, head(topic, 0, "a", 7)), stored(0, 1));
    assert_eq!(log.state.resends(), (1, 0));
}

#[test]
fn a_message_for_another_topic_is_no_resend() {
    let mut log = RecordLog::new();
    let (a, b) = (log.topic("a", 1), log.topic("b", 1));
    send(&mut log, head(a, 0, "id", 7));
    assert_eq!(send(&mut log, head(b, 0, "id", 7)), stored(0, 0));
    assert_eq!((messages(&log, a), messages(&log, b)), (1, 1));
}

#[test]
fn a_message_for_a_topic_made_anew_is_no_resend_of_one_that_went_with_the_first() {
    let mut log = RecordLog::new();
    let first = log.topic("orders", 1);
    send(&mut log, head(first, 0, "a", 7));
    let name = ResourceName::plain("orders");
    log.apply(Record::TopicDelete(TopicDelete { name, force: true })).unwrap();
    let second = log.topic("orders", 1);
    send(&mut log, head(second, 0, "a", 7));
    assert_eq!((messages(&log, second), log.state.resends()), (1, (0, 1)));
}

#[test]
fn a_repeated_half_gets_the_transaction_of_the_first() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 1);
    let half = Record::Half(head(topic, 0, "a", 7));
    let prepared = log.apply(half.clone()).unwrap();
    assert_eq!(prepared, Applied::Prepared { transaction: HalfPosition::of(log.last_position()) });
    let transaction = HalfPosition::of(log.last_position());
    assert_eq!(log.apply(half.clone()), Ok(prepared.clone()));
    assert_eq!(log.state.open_transactions().len(), 1);
    log.apply(end(transaction, TransactionOutcome::Committed)).unwrap();
    assert_eq!(log.apply(half), Ok(prepared), "ended meanwhile: still the first one, and no second transaction");
    assert_eq!((log.state.open_transactions().len(), messages(&log, topic)), (0, 1));
}

#[test]
fn a_half_message_and_a_plain_one_are_never_the_same() {
    let mut log = RecordLog::new();
    let topic = log.topic("orders", 1);
    log.apply(Record::Half(head(topic, 0, "a", 7))).unwrap();
    assert_eq!(send(&mut log, head(topic, 0, "a", 7)), stored(0, 0));
    let again = log.apply(Record::Half(head(topic, 0, "a", 7))).unwrap();
    assert_eq!(again, Applied::Prepared { transaction: HalfPosition::of(log.last_position()) });
    assert_eq!(log.state.resends(), (0, 2), "counted as what they are");
}

#[test]
fn a_message_that_was_refused_is_not_remembered() {
    let mut log = RecordLog::new();
    log.refused(Record::Message(head(TopicId(1), 0, "a", 7)));
    let topic = log.topic("orders", 1);
    assert_eq!(topic, TopicId(1));
    assert_eq!(send(&mut log, head(topic, 0, "a", 7)), stored(0, 0));
}
