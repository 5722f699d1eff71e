//! Leases: who may answer for a message, until when, and how deliveries are counted (ruling 10).

use crate::record::{Again, ChangeInvisible, LeasedRange, Record, Renew};
use crate::state::{Applied, Effect, Exception, UNFINISHED_MAX};
use crate::testing::{RecordLog, START, ack, again, lease, whole};
use crate::{Generation, GroupConfig, GroupId, Handle, Millis, QueueOffset, RecordPosition, Refusal, TopicId};

/// A group that holds the first message of a topic with three of them, by generation 1, for 60 s.
fn leased() -> (RecordLog, GroupId, TopicId) {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    log.send_all(topic, &[None; 3]);
    let group = log.member("g", topic, GroupConfig::default());
    log.apply(lease(&log, group, topic, 1, whole(0, 0, 1))).unwrap();
    (log, group, topic)
}

fn change(group: GroupId, topic: TopicId, generation: u64, deadline: Millis, uncounted: bool) -> Record {
    let (queue, offset, new_generation) = (0, 0, generation + 1);
    Record::ChangeInvisible(ChangeInvisible {
        group,
        topic,
        queue,
        offset: QueueOffset(offset),
        generation: Generation(generation),
        new_generation: Generation(new_generation),
        deadline,
        uncounted,
    })
}

fn held(log: &RecordLog, group: GroupId, topic: TopicId) -> &Exception {
    log.progress(group, topic).exception(0, QueueOffset(0)).unwrap()
}

fn stale(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::InvalidHandle(_))
}

#[test]
fn a_leased_message_is_in_flight_until_its_deadline() {
    let (log, group, topic) = leased();
    let progress = log.progress(group, topic);
    let exception = held(&log, group, topic);
    assert_eq!((exception.attempts, exception.generation, exception.leased_at), (1, Generation(1), START));
    assert_eq!(exception.visible_at, START.plus_ms(60_000));
    assert_eq!(progress.due().collect::<Vec<_>>(), [(START.plus_ms(60_000), 0, QueueOffset(0))]);
    assert_eq!((progress.next(0), progress.unfinished()), (QueueOffset(1), 1));
    assert_eq!(progress.in_flight(START.plus_ms(59_999)), 1);
    assert_eq!(progress.in_flight(START.plus_ms(60_000)), 0);
    assert_eq!(log.effects, [Effect::VisibleAt(group, topic, START.plus_ms(60_000))]);
}

#[test]
fn an_ack_is_taken_until_the_deadline_and_not_at_it() {
    let (mut log, group, topic) = leased();
    log.pass_ms(59_999);
    assert_eq!(log.apply(ack(group, topic, 0, 1)), Ok(Applied::Done));
    assert_eq!(log.progress(group, topic).unfinished(), 0);
    let (mut log, group, topic) = leased();
    log.pass_ms(60_000);
    assert!(stale(&log.refused(ack(group, topic, 0, 1))));
}

#[test]
fn an_ack_may_be_repeated() {
    let (mut log, group, topic) = leased();
    for _ in 0..2 {
        assert_eq!(log.apply(ack(group, topic, 0, 1)), Ok(Applied::Done));
    }
    log.pass_ms(100_000);
    assert_eq!(log.apply(ack(group, topic, 0, 1)), Ok(Applied::Done), "after its deadline too");
    assert_eq!(log.progress(group, topic).next(0), QueueOffset(1));
}

#[test]
fn a_handle_of_an_earlier_delivery_is_refused() {
    let (mut log, group, topic) = leased();
    log.pass_ms(60_000);
    log.apply(again(&log, group, topic, 2, &[(0, Again::Leased)])).unwrap();
    assert_eq!(held(&log, group, topic).attempts, 2);
    assert!(stale(&log.refused(ack(group, topic, 0, 1))));
    assert!(stale(&log.refused(change(group, topic, 1, log.now, false))));
    assert_eq!(log.apply(ack(group, topic, 0, 2)), Ok(Applied::Done));
}

#[test]
fn a_handle_of_a_message_that_was_never_delivered_is_refused() {
    let (mut log, group, topic) = leased();
    assert!(stale(&log.refused(ack(group, topic, 1, 1))));
    assert!(stale(&log.refused(ack(group, topic, u64::MAX, 1))));
    let Record::Ack(mut elsewhere) = ack(group, topic, 0, 1) else { unreachable!() };
    elsewhere.queue = u32::MAX;
    assert!(stale(&log.refused(Record::Ack(elsewhere))));
}

#[test]
fn a_living_lease_is_not_taken_over() {
    let (mut log, group, topic) = leased();
    log.pass_ms(59_999);
    let before = held(&log, group, topic).clone();
    for becomes in [Again::Leased, Again::Left, Again::Done] {
        log.apply(again(&log, group, topic, 2, &[(0, becomes)])).unwrap();
        assert_eq!(held(&log, group, topic), &before, "{becomes:?}");
    }
    log.pass_ms(1);
    log.apply(again(&log, group, topic, 2, &[(0, Again::Leased)])).unwrap();
    assert_eq!(held(&log, group, topic).generation, Generation(2));
}

#[test]
fn a_changed_lease_has_another_handle_and_the_same_attempt() {
    let (mut log, group, topic) = leased();
    log.apply(change(group, topic, 1, START.plus_ms(5_000), false)).unwrap();
    assert_eq!(log.effects, [Effect::VisibleAt(group, topic, START.plus_ms(5_000))]);
    let exception = held(&log, group, topic);
    assert_eq!((exception.attempts, exception.generation, exception.visible_at.0), (1, Generation(2), START.0 + 5_000));
    assert_eq!(log.progress(group, topic).due().count(), 1);
    assert!(stale(&log.refused(ack(group, topic, 0, 1))));
    assert_eq!(log.apply(ack(group, topic, 0, 2)), Ok(Applied::Done));
    assert!(stale(&log.refused(change(group, topic, 2, START, false))), "done");
}

#[test]
fn a_delivery_counts_unless_it_was_suspended() {
    for (uncounted, attempts) in [(false, 2), (true, 1)] {
        let (mut log, group, topic) = leased();
        log.apply(change(group, topic, 1, START, uncounted)).unwrap();
        assert_eq!(held(&log, group, topic).attempts, attempts - 1);
        log.apply(again(&log, group, topic, 3, &[(0, Again::Leased)])).unwrap();
        assert_eq!(held(&log, group, topic).attempts, attempts);
    }
}

#[test]
fn a_delivery_that_is_suspended_twice_gives_one_attempt_back() {
    let (mut log, group, topic) = leased();
    log.pass_ms(60_000);
    log.apply(again(&log, group, topic, 2, &[(0, Again::Leased)])).unwrap();
    let deadline = log.now.plus_ms(5_000);
    for (generation, uncounted, attempts) in [(2, true, 1), (3, true, 1), (4, false, 2), (5, true, 1)] {
        log.apply(change(group, topic, generation, deadline, uncounted)).unwrap();
        assert_eq!(held(&log, group, topic).attempts, attempts, "generation {generation}");
    }
}

#[test]
fn a_renewed_lease_keeps_its_handle_and_never_gets_shorter() {
    let (mut log, group, topic) = leased();
    let renew =
        |deadline| Record::Renew(Renew { group, topic, deadline, leases: vec![(0, QueueOffset(0), Generation(1))] });
    log.pass_ms(50_000);
    log.apply(renew(START.plus_ms(120_000))).unwrap();
    assert_eq!(held(&log, group, topic).visible_at, START.plus_ms(120_000));
    log.apply(renew(START.plus_ms(70_000))).unwrap();
    assert_eq!(held(&log, group, topic).visible_at, START.plus_ms(120_000));
    log.pass_ms(69_999);
    assert_eq!(log.apply(ack(group, topic, 0, 1)), Ok(Applied::Done));
}

#[test]
fn a_lease_that_is_over_or_superseded_is_not_renewed() {
    let (mut log, group, topic) = leased();
    let renew = |generation| {
        let leases = vec![
            (0, QueueOffset(0), generation),
            (0, QueueOffset(1), Generation(1)),
            (9, QueueOffset(0), Generation(1)),
        ];
        Record::Renew(Renew { group, topic, deadline: Millis(u64::MAX / 2), leases })
    };
    log.pass_ms(60_000);
    log.apply(renew(Generation(1))).unwrap();
    assert_eq!(held(&log, group, topic).visible_at, START.plus_ms(60_000));
    log.apply(again(&log, group, topic, 2, &[(0, Again::Leased)])).unwrap();
    log.apply(renew(Generation(1))).unwrap();
    assert_eq!(held(&log, group, topic).visible_at, START.plus_ms(120_000));
}

#[test]
fn a_range_below_the_cursor_was_decided_before() {
    let (mut log, group, topic) = leased();
    log.apply(lease(&log, group, topic, 2, whole(0, 0, 1))).unwrap();
    assert_eq!(held(&log, group, topic).generation, Generation(1));
    log.apply(lease(&log, group, topic, 3, whole(0, 0, 2))).unwrap();
    assert_eq!(held(&log, group, topic).generation, Generation(1));
    assert_eq!(log.progress(group, topic).exception(0, QueueOffset(1)).unwrap().generation, Generation(3));
    log.apply(ack(group, topic, 0, 1)).unwrap();
    log.apply(lease(&log, group, topic, 4, whole(0, 0, 2))).unwrap();
    assert_eq!(log.progress(group, topic).exception(0, QueueOffset(0)), None, "what was done stays done");
    log.apply(lease(&log, group, topic, 5, whole(0, 0, 1))).unwrap();
    assert_eq!(log.progress(group, topic).next(0), QueueOffset(2), "the cursor stays");
}

#[test]
fn a_range_that_would_leave_a_gap_is_ignored_and_its_messages_come_again() {
    let (mut log, group, topic) = leased();
    log.apply(lease(&log, group, topic, 2, whole(0, 2, 3))).unwrap();
    assert_eq!((log.progress(group, topic).next(0), log.progress(group, topic).unfinished()), (QueueOffset(1), 1));
    assert!(stale(&log.refused(ack(group, topic, 2, 2))));
    log.apply(lease(&log, group, topic, 3, whole(0, 1, 3))).unwrap();
    assert_eq!((log.progress(group, topic).next(0), log.progress(group, topic).unfinished()), (QueueOffset(3), 3));
}

#[test]
fn a_range_beyond_the_queue_or_of_no_queue_is_ignored() {
    let (mut log, group, topic) = leased();
    let before = log.state.snapshot(RecordPosition(0));
    let empty = |queue, from, to| LeasedRange { queue, from, to, leased: vec![], left: vec![] };
    for range in [
        whole(0, 1, 4),
        empty(0, QueueOffset(1), QueueOffset(u64::MAX)),
        empty(1, QueueOffset(0), QueueOffset(1)),
        empty(u32::MAX, QueueOffset(0), QueueOffset(u64::MAX)),
    ] {
        log.apply(lease(&log, group, topic, 2, range)).unwrap();
        assert!(before == log.state.snapshot(RecordPosition(0)));
    }
}

#[test]
fn a_handle_is_checked_against_the_state_as_an_ack_would_be() {
    let (mut log, group, topic) = leased();
    let handle = |generation| Handle {
        shard: crate::ShardId::FIRST,
        topic,
        group,
        queue: 0,
        offset: QueueOffset(0),
        generation,
        deadline: Millis(0),
    };
    assert_eq!(log.state.check_handle(&handle(Generation(1)), log.now), Ok(true));
    assert!(log.state.check_handle(&handle(Generation(2)), log.now).is_err());
    assert!(log.state.check_handle(&handle(Generation(1)), log.now.plus_ms(60_000)).is_err());
    assert!(log.state.check_handle(&Handle { group: GroupId(9), ..handle(Generation(1)) }, log.now).is_err());
    log.apply(ack(group, topic, 0, 1)).unwrap();
    assert_eq!(log.state.check_handle(&handle(Generation(1)), log.now), Ok(false));
}

#[test]
fn a_group_at_its_bound_is_told_when_there_is_room_again() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    let count = UNFINISHED_MAX + 1;
    log.send_all(topic, &vec![None; count as usize]);
    let group = log.member("g", topic, GroupConfig::default());
    log.apply(lease(&log, group, topic, 1, whole(0, 0, count))).unwrap();
    log.apply(ack(group, topic, 0, 1)).unwrap();
    assert!(log.effects.is_empty(), "still at the bound");
    log.apply(ack(group, topic, 1, 1)).unwrap();
    assert_eq!(log.effects, [Effect::AvailableTo(group, topic)]);
    log.apply(ack(group, topic, 2, 1)).unwrap();
    assert!(log.effects.is_empty());
}
