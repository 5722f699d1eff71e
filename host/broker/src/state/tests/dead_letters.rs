//! Dead letters: moved once, or left alone without an error (protocol paper §4.9).

use crate::record::{Again, DeadLetter, LeasedRange, Record, TopicDelete};
use crate::state::{Applied, Effect};
use crate::testing::{RecordLog, ack, again, lease, whole};
use crate::{Generation, GroupConfig, GroupId, QueueOffset, RecordPosition, Refusal, ResourceName, TagHash, TopicId};

fn letter(group: GroupId, topic: TopicId, offset: u64, generation: u64) -> Record {
    let reason = "17 deliveries".to_owned();
    Record::DeadLetter(DeadLetter {
        group,
        topic,
        queue: 0,
        offset: QueueOffset(offset),
        generation: Generation(generation),
        reason,
    })
}

fn leased(config: GroupConfig) -> (RecordLog, GroupId, TopicId) {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    log.send_all(topic, &[Some("a"), None]);
    let group = log.member("g", topic, config);
    log.apply(lease(&log, group, topic, 1, whole(0, 0, 2))).unwrap();
    (log, group, topic)
}

fn entries(log: &RecordLog, name: &str) -> Vec<(RecordPosition, TagHash)> {
    let topic = log.state.topics().get(log.topic_id(name)).unwrap();
    QueueOffset::each(topic.start(0)..topic.end(0))
        .map(|offset| topic.entry(0, offset).unwrap())
        .map(|e| (e.position, e.tag))
        .collect()
}

#[test]
fn a_dead_letter_moves_to_a_topic_made_on_first_use_and_the_original_is_done() {
    let (mut log, group, topic) = leased(GroupConfig::default());
    let original = log.state.topics().get(topic).unwrap().entry(0, QueueOffset(0)).unwrap();
    assert_eq!(log.apply(letter(group, topic, 0, 1)), Ok(Applied::Done));
    let dead = log.topic_id("%DLQ%g");
    assert_eq!(log.effects, [Effect::Directory, Effect::Arrived(dead, original.tag)]);
    assert_eq!(entries(&log, "%DLQ%g"), [(original.position, original.tag)], "the body stays where it is");
    assert_eq!(log.state.topics().get(dead).unwrap().queue_count(), 1);
    assert_eq!(log.progress(group, topic).unfinished(), 1);
    log.apply(letter(group, topic, 1, 1)).unwrap();
    assert_eq!(log.effects, [Effect::Arrived(dead, entries(&log, "%DLQ%g")[1].1)]);
    assert_eq!(entries(&log, "%DLQ%g").len(), 2);
}

#[test]
fn a_repeated_forward_is_fine_and_moves_nothing() {
    let (mut log, group, topic) = leased(GroupConfig::default());
    for _ in 0..3 {
        assert_eq!(log.apply(letter(group, topic, 0, 1)), Ok(Applied::Done));
    }
    assert_eq!(entries(&log, "%DLQ%g").len(), 1);
}

#[test]
fn a_message_that_was_acknowledged_or_is_in_other_hands_is_left_alone() {
    let (mut log, group, topic) = leased(GroupConfig::default());
    log.apply(ack(group, topic, 0, 1)).unwrap();
    assert_eq!(log.apply(letter(group, topic, 0, 1)), Ok(Applied::Done));
    log.pass_ms(60_000);
    log.apply(again(&log, group, topic, 2, &[(1, Again::Leased)])).unwrap();
    assert_eq!(log.apply(letter(group, topic, 1, 1)), Ok(Applied::Done));
    assert!(log.state.topics().named(&ResourceName::plain("%DLQ%g")).is_err());
    assert_eq!(log.progress(group, topic).exception(0, QueueOffset(1)).unwrap().generation, Generation(2));
}

#[test]
fn a_lease_that_ran_out_but_was_not_given_to_another_still_moves() {
    let (mut log, group, topic) = leased(GroupConfig::default());
    log.pass_ms(60_000);
    assert_eq!(log.apply(letter(group, topic, 0, 1)), Ok(Applied::Done));
    assert_eq!(entries(&log, "%DLQ%g").len(), 1);
}

#[test]
fn a_message_that_waits_for_another_member_moves_by_generation_0_only() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    log.send(topic, 0, Some("a"));
    let group = log.member("g", topic, GroupConfig::default());
    log.apply(lease(
        &log,
        group,
        topic,
        1,
        LeasedRange { queue: 0, from: QueueOffset(0), to: QueueOffset(1), leased: vec![], left: vec![QueueOffset(0)] },
    ))
    .unwrap();
    assert_eq!(log.apply(letter(group, topic, 0, 1)), Ok(Applied::Done));
    assert_eq!(log.progress(group, topic).unfinished(), 1);
    log.apply(letter(group, topic, 0, 0)).unwrap();
    assert_eq!((entries(&log, "%DLQ%g").len(), log.progress(group, topic).left_tags().count()), (1, 0));
}

#[test]
fn the_groups_own_dead_letter_topic_is_used_if_it_names_one() {
    let config = GroupConfig { dead_letter_topic: Some("graveyard".to_owned()), ..GroupConfig::default() };
    let (mut log, group, topic) = leased(config.clone());
    log.apply(letter(group, topic, 0, 1)).unwrap();
    assert_eq!(entries(&log, "graveyard").len(), 1, "made on first use");
    let (mut log, group, topic) = leased(config);
    let graveyard = log.topic("graveyard", 4);
    log.apply(letter(group, topic, 0, 1)).unwrap();
    assert_eq!((log.topic_id("graveyard"), entries(&log, "graveyard").len()), (graveyard, 1));
}

#[test]
fn a_message_that_was_never_delivered_or_a_group_that_is_gone_is_refused() {
    let (mut log, group, topic) = leased(GroupConfig::default());
    assert!(matches!(log.refused(letter(group, topic, 2, 1)), Refusal::InvalidHandle(_)));
    assert!(matches!(log.refused(letter(GroupId(9), topic, 0, 1)), Refusal::InvalidHandle(_)));
    assert!(matches!(log.refused(letter(group, TopicId(9), 0, 1)), Refusal::InvalidHandle(_)));
}

#[test]
fn dead_letters_outlive_the_topic_that_they_came_from() {
    let (mut log, group, topic) = leased(GroupConfig::default());
    log.apply(letter(group, topic, 0, 1)).unwrap();
    let dead = log.topic_id("%DLQ%g");
    log.apply(Record::TopicDelete(TopicDelete { name: ResourceName::plain("t"), force: true })).unwrap();
    assert_eq!(entries(&log, "%DLQ%g").len(), 1);
    let reader = log.member("reader", dead, GroupConfig::default());
    log.apply(lease(&log, reader, dead, 5, whole(0, 0, 1))).unwrap();
    assert_eq!(
        log.progress(reader, dead).exception(0, QueueOffset(0)).unwrap().attempts,
        1,
        "their attempts begin anew"
    );
}
