//! What is on its way to the log is handed out to nobody else.

use super::{Desk, places};
use crate::record::{FilterNoted, FiltersGone, Record, Renew, TopicDelete};
use crate::state::FilterTags;
use crate::testing::ack;
use crate::{Generation, GroupConfig, QueueOffset, TagFilter};

fn desk(count: usize) -> Desk {
    let mut desk = Desk::new(1, GroupConfig::default());
    desk.log.send_all(desk.topic, &vec![None; count]);
    desk
}

#[test]
fn fresh_messages_of_a_lease_on_its_way_are_not_picked_again() {
    let mut desk = desk(4);
    let first = desk.all(2);
    let first = desk.hold(&first);
    let second = desk.all(1);
    assert_eq!(places(&second), [(0, 2, 1)]);
    let second = desk.hold(&second);
    desk.apply(first);
    assert_eq!(places(&desk.all(9)), [(0, 3, 1)]);
    desk.apply(second);
    assert_eq!(places(&desk.all(9)), [(0, 3, 1)]);
}

#[test]
fn a_redelivery_on_its_way_is_not_picked_again() {
    let mut desk = desk(1);
    desk.take_all(1);
    desk.log.pass_ms(60_000);
    let picks = desk.all(1);
    let record = desk.hold(&picks);
    assert!(desk.all(1).is_empty());
    desk.apply(record);
    assert!(desk.all(1).is_empty());
}

#[test]
fn a_message_whose_ack_or_renewal_is_on_its_way_is_not_picked_meanwhile() {
    let mut desk = desk(2);
    desk.take_all(2);
    let (group, topic) = (desk.group, desk.topic);
    let ack = ack(group, topic, 0, 1);
    let deadline = desk.log.now.plus_ms(120_000);
    let renew = Record::Renew(Renew { group, topic, deadline, leases: vec![(0, QueueOffset(1), Generation(1))] });
    for record in [&ack, &renew, &renew] {
        desk.reservations.hold(record);
    }
    // Both reach the log in time, and come back after the leases would have ended.
    let (in_time, late) = (desk.log.now.plus_ms(59_999), desk.log.now.plus_ms(60_001));
    desk.log.now = late;
    assert!(desk.all(9).is_empty());
    desk.log.now = in_time;
    desk.apply(ack);
    desk.apply(renew.clone());
    desk.log.now = late;
    assert!(desk.all(9).is_empty());
    desk.log.pass_ms(60_000);
    assert!(desk.all(9).is_empty(), "one renewal is still on its way");
    desk.reservations.release(&renew);
    assert_eq!(places(&desk.all(9)), [(0, 1, 2)]);
}

#[test]
fn what_the_log_did_not_take_is_handed_out_again() {
    let mut desk = desk(4);
    let picks = desk.all(2);
    let lost = desk.hold(&picks);
    let picks = desk.all(1);
    let after = desk.hold(&picks);
    desk.reservations.abandon(&lost);
    let again = desk.all(9);
    assert_eq!(places(&again), [(0, 0, 1), (0, 1, 1), (0, 2, 1), (0, 3, 1)]);
    let again = desk.hold(&again);
    desk.apply(after);
    assert_eq!((desk.next(0), desk.unfinished()), (0, 0), "the lease behind the lost one takes nothing");
    assert!(desk.all(9).is_empty(), "the new one still holds all");
    desk.apply(again);
    assert_eq!((desk.next(0), desk.unfinished()), (4, 4));
}

#[test]
fn the_last_lease_that_the_log_did_not_take_gives_up_its_own_messages_only() {
    let mut desk = desk(4);
    let picks = desk.all(2);
    let kept = desk.hold(&picks);
    let picks = desk.all(1);
    let lost = desk.hold(&picks);
    desk.reservations.abandon(&lost);
    assert_eq!(places(&desk.all(9)), [(0, 2, 1), (0, 3, 1)]);
    desk.apply(kept);
    assert_eq!(places(&desk.all(9)), [(0, 2, 1), (0, 3, 1)]);
}

#[test]
fn nothing_is_kept_for_groups_and_topics_that_are_gone() {
    let mut desk = desk(1);
    let picks = desk.all(1);
    let lease = desk.hold(&picks);
    desk.reservations.retain_living(&desk.log.state);
    assert!(desk.all(1).is_empty(), "alive: the lease is still on its way");
    let name = crate::ResourceName::plain("t");
    desk.log.apply(Record::TopicDelete(TopicDelete { name, force: true })).unwrap();
    desk.reservations.retain_living(&desk.log.state);
    // It is on its way still, and comes back.
    desk.reservations.release(&lease);
    let nothing = format!("{:?}", crate::delivery::Reservations::default());
    assert_eq!(format!("{:?}", desk.reservations), nothing);
}

/// A record that was held for a topic that went comes back after another one was held for it: an acknowledgement with a handle
/// from before.
#[test]
fn filters_on_their_way_to_a_topic_that_is_gone_are_forgotten_once() {
    let (a, b) = (TagFilter::tags(["a"]), TagFilter::tags(["b"]));
    for late in [None, Some(&a), Some(&b)] {
        let mut desk = desk(1);
        let (group, topic) = (desk.group, desk.topic);
        let noted = |filter: &TagFilter| Record::FilterNoted(FilterNoted { group, topic, filter: filter.clone() });
        let gone = Record::FiltersGone(FiltersGone { group, topic, filters: vec![b.clone()] });
        let on_their_way = [noted(&a), gone];
        on_their_way.iter().for_each(|record| desk.reservations.hold(record));
        let name = crate::ResourceName::plain("t");
        desk.log.apply(Record::TopicDelete(TopicDelete { name, force: true })).unwrap();
        desk.reservations.retain_living(&desk.log.state);
        assert_eq!(desk.reservations.filter_tags(group), FilterTags::default());
        let late = late.map_or_else(|| ack(group, topic, 0, 1), noted);
        desk.reservations.hold(&late);
        on_their_way.iter().for_each(|record| desk.reservations.release(record));
        desk.reservations.release(&late);
        assert_eq!(desk.reservations.filter_tags(group), FilterTags::default());
    }
}

#[test]
#[should_panic(expected = "is released and was not held")]
fn what_was_held_once_is_not_released_twice() {
    let mut desk = desk(1);
    let picks = desk.all(1);
    let record = desk.hold(&picks);
    desk.reservations.abandon(&record);
    desk.reservations.abandon(&record);
}

#[test]
#[should_panic(expected = "a lease takes offset 0 of a queue, held up to 2")]
fn no_lease_takes_what_one_on_its_way_takes() {
    let mut desk = desk(2);
    let picks = desk.all(2);
    desk.hold(&picks);
    let mut again = picks.lease.clone().unwrap();
    again.generation = Generation(again.generation.0 + 1);
    desk.reservations.hold(&Record::Lease(again));
}

#[test]
#[should_panic(expected = "two leases of a queue have one generation")]
fn no_two_leases_of_a_queue_have_one_generation() {
    let mut desk = desk(2);
    let first = desk.all(1);
    desk.hold(&first);
    let mut second = desk.all(1);
    second.lease.as_mut().unwrap().generation = first.lease.unwrap().generation;
    desk.hold(&second);
}
