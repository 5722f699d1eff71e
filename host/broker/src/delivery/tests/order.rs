//! Which messages come, and in which order.

use super::{Desk, deadline, places};
use crate::delivery::BATCH_MAX;
use crate::record::{ChangeInvisible, DeadLetter, Record};
use crate::testing::ack;
use crate::{Generation, GroupConfig, GroupId, QueueOffset, TagFilter, TopicId};

#[test]
fn fresh_messages_of_a_queue_come_in_their_order() {
    let mut desk = Desk::new(1, GroupConfig::default());
    desk.log.send_all(desk.topic, &[None; 5]);
    let picks = desk.take_all(3);
    assert_eq!(places(&picks), [(0, 0, 1), (0, 1, 1), (0, 2, 1)]);
    assert_eq!(deadline(&picks), desk.log.now.plus_ms(60_000));
    let entry = desk.log.state.topics().get(desk.topic).unwrap().entry(0, QueueOffset(1)).unwrap();
    assert_eq!(picks.messages[1].position, entry.position);
    assert_eq!(places(&desk.take_all(3)), [(0, 3, 1), (0, 4, 1)]);
    assert!(desk.take_all(3).is_empty());
}

#[test]
fn a_batch_has_at_least_one_and_at_most_32_messages() {
    let mut desk = Desk::new(1, GroupConfig::default());
    desk.log.send_all(desk.topic, &[None; 100]);
    assert_eq!(desk.take_all(0).messages.len(), 1);
    assert_eq!(desk.take_all(BATCH_MAX).messages.len(), BATCH_MAX);
    assert_eq!(desk.take_all(usize::MAX).messages.len(), BATCH_MAX);
}

#[test]
fn queues_take_turns() {
    let mut desk = Desk::new(3, GroupConfig::default());
    for queue in [0, 0, 0, 1, 1, 2] {
        desk.log.send(desk.topic, queue, None);
    }
    let queues: Vec<u32> = (0..6).map(|_| desk.take_all(1).messages[0].queue).collect();
    assert_eq!(queues, [0, 1, 2, 0, 1, 0]);
}

#[test]
fn one_batch_takes_from_several_queues() {
    let mut desk = Desk::new(3, GroupConfig::default());
    for queue in [0, 2, 2] {
        desk.log.send(desk.topic, queue, None);
    }
    assert_eq!(places(&desk.take_all(9)), [(0, 0, 1), (2, 0, 1), (2, 1, 1)]);
}

#[test]
fn a_message_whose_time_has_come_is_delivered_again_before_fresh_ones() {
    let mut desk = Desk::new(1, GroupConfig::default());
    desk.log.send_all(desk.topic, &[None; 3]);
    desk.take_all(2);
    desk.log.apply(ack(desk.group, desk.topic, 0, 1)).unwrap();
    desk.log.pass_ms(59_999);
    assert_eq!(places(&desk.all(9)), [(0, 2, 1)]);
    desk.log.pass_ms(1);
    assert_eq!(places(&desk.take_all(9)), [(0, 1, 2), (0, 2, 1)]);
    desk.log.pass_ms(60_000);
    assert_eq!(places(&desk.take_all(9)), [(0, 1, 3), (0, 2, 2)]);
}

#[test]
fn a_suspended_message_is_delivered_again_with_the_same_attempt() {
    let mut desk = Desk::new(1, GroupConfig::default());
    desk.log.send(desk.topic, 0, None);
    desk.take_all(1);
    let (group, topic) = (desk.group, desk.topic);
    let (queue, offset, generation, new_generation) = (0, 0, 1, 50);
    let deadline = desk.log.now;
    let change = ChangeInvisible {
        group,
        topic,
        queue,
        offset: QueueOffset(offset),
        generation: Generation(generation),
        new_generation: Generation(new_generation),
        deadline,
        uncounted: true,
    };
    desk.log.apply(Record::ChangeInvisible(change)).unwrap();
    assert_eq!(places(&desk.take_all(1)), [(0, 0, 1)]);
}

#[test]
fn a_message_that_was_delivered_often_enough_is_for_the_dead_letters() {
    let mut desk = Desk::new(1, GroupConfig { max_attempts: 2, ..GroupConfig::default() });
    desk.log.send_all(desk.topic, &[None; 2]);
    for attempt in [1, 2] {
        assert_eq!(places(&desk.take_all(1)), [(0, 0, attempt)]);
        desk.log.pass_ms(60_000);
    }
    let picks = desk.all(1);
    assert_eq!(
        (places(&picks), picks.exhausted.as_slice()),
        (vec![(0, 1, 1)], &[(0, QueueOffset(0), Generation(2))][..])
    );
    let (group, topic, reason) = (desk.group, desk.topic, String::new());
    let letter = Record::DeadLetter(DeadLetter {
        group,
        topic,
        queue: 0,
        offset: QueueOffset(0),
        generation: Generation(2),
        reason,
    });
    desk.reservations.hold(&letter);
    assert!(desk.all(1).exhausted.is_empty(), "proposed once");
    desk.apply(letter);
    assert!(desk.all(1).exhausted.is_empty());
    assert_eq!(desk.log.state.topics().get(desk.log.topic_id("%DLQ%g")).unwrap().messages(), 1);
}

#[test]
fn a_lower_bound_of_attempts_reaches_messages_that_were_delivered_before() {
    let mut desk = Desk::new(1, GroupConfig::default());
    desk.log.send(desk.topic, 0, None);
    desk.take_all(1);
    desk.log.group("g", GroupConfig { max_attempts: 1, ..GroupConfig::default() });
    desk.log.pass_ms(60_000);
    let picks = desk.all(1);
    assert_eq!((picks.messages.len(), picks.exhausted.len(), picks.lease), (0, 1, None));
}

#[test]
fn a_group_or_topic_that_is_not_there_gets_nothing() {
    let mut desk = Desk::new(1, GroupConfig::default());
    desk.log.send(desk.topic, 0, None);
    let (group, topic) = (desk.group, desk.topic);
    let stranger = desk.log.group("stranger", GroupConfig::default());
    for (group, topic) in [(GroupId(99), topic), (group, TopicId(99)), (stranger, topic)] {
        (desk.group, desk.topic) = (group, topic);
        assert!(desk.pick(&TagFilter::All, &[], 1).is_empty());
    }
}
