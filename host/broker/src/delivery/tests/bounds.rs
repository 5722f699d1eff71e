//! One receive takes bounded time, and a group bounded memory.

use super::{Desk, places};
use crate::delivery::scan::SCAN_MAX;
use crate::state::UNFINISHED_MAX;
use crate::testing::{ack, whole};
use crate::{GroupConfig, TagFilter};

fn tags(tags: &[&str]) -> TagFilter {
    TagFilter::tags(tags.iter().copied())
}

fn desk(count: usize, tag: Option<&str>) -> Desk {
    let mut desk = Desk::new(1, GroupConfig::default());
    desk.log.send_all(desk.topic, &vec![tag; count]);
    desk
}

#[test]
fn a_scan_for_a_rare_tag_stops_at_its_bound_and_goes_on_there() {
    let mut desk = desk(2 * SCAN_MAX, Some("b"));
    let rare = desk.log.send(desk.topic, 0, Some("a"));
    for _ in 0..2 {
        let picks = desk.take(&tags(&["a"]), &[], 9);
        assert!(picks.messages.is_empty() && picks.more);
    }
    assert_eq!(desk.next(0), 2 * SCAN_MAX as u64);
    let picks = desk.take(&tags(&["a"]), &[], 9);
    assert_eq!((places(&picks), picks.more), (vec![(0, rare.0, 1)], false));
}

#[test]
fn a_scan_that_ends_with_the_queue_asks_for_no_other() {
    let mut desk = desk(SCAN_MAX, Some("b"));
    assert!(!desk.take(&tags(&["a"]), &[], 9).more);
    assert_eq!(desk.next(0), SCAN_MAX as u64);
}

/// A member that does not come for its part must neither hide the others' messages nor keep them asking for ever.
#[test]
fn a_slow_member_does_not_stop_the_others() {
    let mut desk = desk(3 * SCAN_MAX, Some("slow"));
    let (fast, slow) = (tags(&["fast"]), tags(&["slow"]));
    let mine = desk.log.send(desk.topic, 0, Some("fast"));
    let mut rounds = 0;
    let picks = loop {
        rounds += 1;
        let picks = desk.take(&fast, std::slice::from_ref(&slow), 9);
        if !picks.more {
            break picks;
        }
    };
    assert_eq!((places(&picks), rounds), (vec![(0, mine.0, 1)], 4));
    assert!(desk.take(&fast, &[slow], 9).is_empty());
}

#[test]
fn expired_deliveries_of_a_slow_member_are_passed_on_once_and_not_looked_at_again() {
    let mut desk = desk(2 * SCAN_MAX, Some("slow"));
    let (fast, slow) = (tags(&["fast"]), tags(&["slow"]));
    while !desk.take(&slow, std::slice::from_ref(&fast), 32).messages.is_empty() {}
    let mine = desk.log.send(desk.topic, 0, Some("fast"));
    desk.log.pass_ms(60_000);
    let picks = desk.take(&fast, std::slice::from_ref(&slow), 9);
    assert_eq!(places(&picks), [(0, mine.0, 1)], "the scan of fresh messages has a bound of its own");
    assert!(desk.take(&fast, std::slice::from_ref(&slow), 9).lease.is_some());
    assert!(desk.take(&fast, std::slice::from_ref(&slow), 9).is_empty());
    assert_eq!(desk.take(&slow, &[fast], 32).messages[0].attempt, 2);
}

#[test]
fn a_group_at_its_bound_gets_no_fresh_messages_but_its_redeliveries() {
    let mut desk = desk(UNFINISHED_MAX as usize + 2, None);
    let lease = crate::testing::lease(&desk.log, desk.group, desk.topic, 1, whole(0, 0, UNFINISHED_MAX));
    desk.reservations.hold(&lease);
    desk.apply(lease);
    assert!(desk.all(9).is_empty());
    desk.log.apply(ack(desk.group, desk.topic, 5, 1)).unwrap();
    assert_eq!(places(&desk.take_all(9)), [(0, UNFINISHED_MAX, 1)]);
    assert!(desk.all(9).is_empty());
    desk.log.pass_ms(60_000);
    assert_eq!(places(&desk.take_all(2)), [(0, 0, 2), (0, 1, 2)]);
}

#[test]
fn what_waits_for_a_slow_member_is_bounded_too() {
    let mut desk = desk(UNFINISHED_MAX as usize + 5, Some("slow"));
    desk.log.send(desk.topic, 0, Some("fast"));
    let (fast, slow) = (tags(&["fast"]), tags(&["slow"]));
    while desk.take(&fast, std::slice::from_ref(&slow), 9).more {}
    assert_eq!(
        (desk.next(0), desk.unfinished()),
        (UNFINISHED_MAX, UNFINISHED_MAX),
        "the fast one waits, nothing is lost"
    );
    let picks = desk.take(&slow, std::slice::from_ref(&fast), 32);
    for picked in &picks.messages {
        desk.log.apply(ack(desk.group, desk.topic, picked.offset.0, desk.generation)).unwrap();
    }
    assert_eq!(places(&desk.take(&fast, &[slow], 9)), [(0, UNFINISHED_MAX + 5, 1)]);
}
