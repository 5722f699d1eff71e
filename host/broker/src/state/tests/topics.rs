//! Topics: revisions, what may change, and what a deletion takes along.

use crate::record::{Join, Record, TopicDelete, TopicPut};
use crate::state::{Applied, Effect};
use crate::testing::{RecordLog, ack, head, lease, whole};
use crate::{GroupConfig, QueueOffset, Refusal, ResourceName, TopicConfig, TopicId, TopicType};

fn put(name: &str, config: TopicConfig, expected_revision: Option<u64>) -> Record {
    Record::TopicPut(TopicPut { name: ResourceName::plain(name), config, expected_revision })
}

fn delete(name: &str, force: bool) -> Record {
    Record::TopicDelete(TopicDelete { name: ResourceName::plain(name), force })
}

fn with_queues(queues: u32) -> TopicConfig {
    TopicConfig { queues, ..TopicConfig::default() }
}

#[test]
fn a_topic_has_the_position_of_its_last_change_as_revision() {
    let mut log = RecordLog::new();
    let created = log.apply(put("t", with_queues(1), None)).unwrap();
    assert_eq!(created, Applied::Set { created: true, revision: log.last_position().0 });
    assert_eq!(log.effects, [Effect::Directory]);
    let changed = log.apply(put("t", with_queues(2), None)).unwrap();
    assert_eq!(changed, Applied::Set { created: false, revision: log.last_position().0 });
    let topic = log.state.topics().named(&ResourceName::plain("t")).unwrap();
    assert_eq!((topic.revision, topic.queue_count()), (log.last_position().0, 2));
}

#[test]
fn a_change_with_a_stale_revision_is_refused() {
    let mut log = RecordLog::new();
    assert!(matches!(log.refused(put("t", with_queues(1), Some(77))), Refusal::PreconditionFailed(_)));
    log.apply(put("t", with_queues(1), Some(0))).unwrap();
    let revision = log.last_position().0;
    assert!(matches!(log.refused(put("t", with_queues(1), Some(0))), Refusal::PreconditionFailed(_)));
    assert!(matches!(log.refused(put("t", with_queues(1), Some(revision + 1))), Refusal::PreconditionFailed(_)));
    log.apply(put("t", with_queues(2), Some(revision))).unwrap();
    assert!(matches!(log.refused(put("t", with_queues(3), Some(revision))), Refusal::PreconditionFailed(_)));
}

#[test]
fn queues_grow_and_never_shrink() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 2);
    log.send(topic, 1, None);
    assert!(matches!(log.refused(put("t", with_queues(1), None)), Refusal::Conflict(_)));
    assert_eq!(log.topic("t", 3), topic, "the same life");
    let topic = log.state.topics().get(topic).unwrap();
    assert_eq!((topic.queue_count(), topic.end(1), topic.end(2)), (3, QueueOffset(1), QueueOffset(0)));
}

#[test]
fn the_type_of_a_topic_stays() {
    let mut log = RecordLog::new();
    log.topic("t", 1);
    let mixed = TopicConfig { topic_type: TopicType::Mixed, queues: 1, ..TopicConfig::default() };
    assert!(matches!(log.refused(put("t", mixed, None)), Refusal::Conflict(text) if text.contains("mixed")));
}

#[test]
fn offsets_are_counted_in_each_queue_from_0() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 2);
    assert_eq!([0, 1, 0, 3].map(|queue| log.send(topic, queue, None)), [0, 0, 1, 1].map(QueueOffset));
    let topic = log.state.topics().get(topic).unwrap();
    assert_eq!(
        (topic.end(0), topic.end(1), topic.end(2), topic.messages()),
        (QueueOffset(2), QueueOffset(2), QueueOffset(0), 4)
    );
    assert!(topic.entry(0, QueueOffset(2)).is_none() && topic.entry(2, QueueOffset(0)).is_none());
}

#[test]
fn a_topic_with_open_transactions_is_deleted_by_force_only() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    let transaction = log.half(topic);
    assert!(matches!(log.refused(delete("t", false)), Refusal::Conflict(text) if text.contains("1 open")));
    log.apply(delete("t", true)).unwrap();
    assert!(log.state.open_transactions().get(transaction).is_none());
    assert!(log.state.open_transactions().topics_to_check().next().is_none());
}

#[test]
fn a_topic_with_messages_that_a_group_did_not_finish_is_deleted_by_force_only() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    assert!(log.apply(delete("t", false)).is_ok(), "empty");
    let topic = { log.topic("t", 1).max(topic) };
    log.send(topic, 0, None);
    assert!(matches!(log.refused(delete("t", false)), Refusal::Conflict(text) if text.contains("1 messages")));
    let group = log.member("g", topic, GroupConfig::default());
    assert!(log.refused(delete("t", false)).to_string().contains("1 messages"), "not seen yet");
    log.apply(lease(&log, group, topic, 1, whole(0, 0, 1))).unwrap();
    assert!(log.refused(delete("t", false)).to_string().contains("1 messages"), "in flight");
    log.apply(ack(group, topic, 0, 1)).unwrap();
    assert!(log.apply(delete("t", false)).is_ok());
    assert!(log.state.groups().get(group).unwrap().progress(topic).is_none());
}

#[test]
fn the_slowest_group_decides_whether_a_topic_is_consumed() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    log.send(topic, 0, None);
    let fast = log.member("fast", topic, GroupConfig::default());
    log.apply(lease(&log, fast, topic, 1, whole(0, 0, 1))).unwrap();
    log.apply(ack(fast, topic, 0, 1)).unwrap();
    log.member("slow", topic, GroupConfig::default());
    assert!(matches!(log.refused(delete("t", false)), Refusal::Conflict(_)));
}

#[test]
fn a_topic_made_anew_resurrects_nothing() {
    let mut log = RecordLog::new();
    let first = log.topic("t", 1);
    log.send(first, 0, None);
    let group = log.member("g", first, GroupConfig::default());
    log.apply(lease(&log, group, first, 1, whole(0, 0, 1))).unwrap();
    log.apply(delete("t", true)).unwrap();
    let second = log.topic("t", 1);
    assert_ne!(first, second);
    assert_eq!(log.state.topics().get(second).unwrap().messages(), 0);
    assert!(log.state.topics().get(first).is_none());
    assert!(matches!(log.refused(ack(group, first, 0, 1)), Refusal::InvalidHandle(_)));
    assert!(matches!(log.refused(ack(group, second, 0, 1)), Refusal::InvalidHandle(_)));
    assert!(matches!(log.refused(Record::Message(head(first, 0, "m", 0))), Refusal::TopicNotFound(_)));
    assert!(matches!(
        log.refused(Record::Join(Join { group, topic: first, at_end: false })),
        Refusal::TopicNotFound(_)
    ));
}

#[test]
fn a_deleted_topic_keeps_its_name_for_its_dead_letters() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    log.apply(delete("t", false)).unwrap();
    assert_eq!(log.state.topics().name_of(topic), Some(&ResourceName::plain("t")));
    assert!(log.state.topics().name_of(TopicId(99)).is_none());
    assert!(log.refused(Record::Message(head(topic, 0, "m", 0))).to_string().contains("topic t does not exist"));
    assert!(matches!(log.refused(delete("t", true)), Refusal::TopicNotFound(_)));
}

#[test]
fn namespaces_keep_equal_names_apart() {
    let mut log = RecordLog::new();
    let name = ResourceName { namespace: "n".to_owned(), name: "t".to_owned() };
    let inside = TopicPut { name: name.clone(), config: with_queues(1), expected_revision: None };
    log.apply(Record::TopicPut(inside)).unwrap();
    let plain = log.topic("t", 1);
    assert_ne!(log.state.topics().named(&name).unwrap().id, plain);
    assert_eq!(log.state.topics().iter().count(), 2);
}
