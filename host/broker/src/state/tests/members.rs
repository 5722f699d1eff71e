//! Members of one group with different filters (ruling 12).

use crate::record::{Again, LeasedRange, Record};
use crate::state::Effect;
use crate::testing::{RecordLog, ack, again, lease, whole};
use crate::{Generation, GroupConfig, GroupId, QueueOffset, Refusal, TagHash, TopicId};

fn tag(text: &str) -> TagHash {
    TagHash::of(Some(text))
}

/// Messages a, b, none; the first is leased, the others are left for another member.
fn left() -> (RecordLog, GroupId, TopicId) {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    log.send_all(topic, &[Some("a"), Some("b"), None]);
    let group = log.member("g", topic, GroupConfig::default());
    let range = LeasedRange {
        queue: 0,
        from: QueueOffset(0),
        to: QueueOffset(3),
        leased: vec![QueueOffset(0)],
        left: vec![QueueOffset(1), QueueOffset(2)],
    };
    log.apply(lease(&log, group, topic, 1, range)).unwrap();
    (log, group, topic)
}

#[test]
fn what_is_left_for_others_waits_by_its_tag_and_is_not_done() {
    let (log, group, topic) = left();
    let progress = log.progress(group, topic);
    assert_eq!(log.effects.last(), Some(&Effect::AvailableTo(group, topic)), "the others are woken");
    assert_eq!((progress.next(0), progress.unfinished(), progress.in_flight(log.now)), (QueueOffset(3), 3, 1));
    assert_eq!(progress.due().count(), 1);
    let mut tags = vec![tag("b"), TagHash(0)];
    tags.sort_unstable();
    assert_eq!(progress.left_tags().collect::<Vec<_>>(), tags);
    assert_eq!(progress.left(tag("b")).collect::<Vec<_>>(), [(0, QueueOffset(1))]);
    assert_eq!(progress.left(tag("a")).count(), 0);
}

#[test]
fn no_handle_fits_a_message_that_is_left() {
    let (mut log, group, topic) = left();
    for generation in [0, 1] {
        assert!(matches!(log.refused(ack(group, topic, 1, generation)), Refusal::InvalidHandle(_)));
    }
}

#[test]
fn the_member_that_wants_it_gets_its_first_delivery() {
    let (mut log, group, topic) = left();
    log.apply(again(&log, group, topic, 2, &[(1, Again::Leased)])).unwrap();
    let progress = log.progress(group, topic);
    assert_eq!(
        progress.exception(0, QueueOffset(1)).map(|e| (e.attempts, e.generation, e.left)),
        Some((1, Generation(2), None))
    );
    assert_eq!((progress.left(tag("b")).count(), progress.unfinished()), (0, 3));
    log.apply(ack(group, topic, 1, 2)).unwrap();
    assert_eq!(log.progress(group, topic).unfinished(), 2);
}

#[test]
fn what_nobody_wants_any_more_is_done() {
    let (mut log, group, topic) = left();
    log.apply(again(&log, group, topic, 2, &[(1, Again::Done), (2, Again::Done)])).unwrap();
    let progress = log.progress(group, topic);
    assert_eq!((progress.unfinished(), progress.left_tags().count()), (1, 0));
}

#[test]
fn a_delivery_that_ran_out_and_is_passed_on_still_counts() {
    let (mut log, group, topic) = left();
    log.pass_ms(60_000);
    log.apply(again(&log, group, topic, 2, &[(0, Again::Left)])).unwrap();
    assert_eq!(log.effects.last(), Some(&Effect::AvailableTo(group, topic)));
    assert_eq!(log.progress(group, topic).left(tag("a")).collect::<Vec<_>>(), [(0, QueueOffset(0))]);
    assert!(matches!(log.refused(ack(group, topic, 0, 1)), Refusal::InvalidHandle(_)));
    log.apply(again(&log, group, topic, 3, &[(0, Again::Leased)])).unwrap();
    assert_eq!(log.progress(group, topic).exception(0, QueueOffset(0)).unwrap().attempts, 2);
}

#[test]
fn what_matches_no_member_is_passed_over() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    log.send_all(topic, &[None; 5]);
    let group = log.member("g", topic, GroupConfig::default());
    let range =
        LeasedRange { queue: 0, from: QueueOffset(0), to: QueueOffset(4), leased: vec![QueueOffset(2)], left: vec![] };
    log.apply(lease(&log, group, topic, 1, range)).unwrap();
    assert_eq!((log.progress(group, topic).next(0), log.progress(group, topic).unfinished()), (QueueOffset(4), 1));
    log.apply(lease(&log, group, topic, 2, whole(0, 4, 5))).unwrap();
    assert_eq!(log.progress(group, topic).unfinished(), 2);
    let Record::Ack(skipped) = ack(group, topic, 0, 1) else { unreachable!() };
    assert!(log.apply(Record::Ack(skipped)).is_ok(), "done, as if acknowledged");
}
