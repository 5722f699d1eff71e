//! Filters: what is passed over, and what waits for another member (ruling 12).

use super::{Desk, places};
use crate::record::Again;
use crate::{Generation, GroupConfig, QueueOffset, TagFilter};

fn tags(tags: &[&str]) -> TagFilter {
    TagFilter::tags(tags.iter().copied())
}

fn desk(messages: &[Option<&str>]) -> Desk {
    let mut desk = Desk::new(1, GroupConfig::default());
    desk.log.send_all(desk.topic, messages);
    desk
}

#[test]
fn what_matches_no_member_is_done_for_the_group() {
    let mut desk = desk(&[Some("a"), Some("b"), None, Some("a")]);
    assert_eq!(places(&desk.take(&tags(&["a"]), &[], 9)), [(0, 0, 1), (0, 3, 1)]);
    assert_eq!((desk.next(0), desk.unfinished()), (4, 2));
    assert!(desk.all(9).messages.is_empty(), "a member that comes later does not get them");
}

#[test]
fn what_only_another_member_wants_waits_for_it() {
    let mut desk = desk(&[Some("a"), Some("b"), None, Some("c")]);
    let (a, b) = (tags(&["a"]), tags(&["b"]));
    assert_eq!(places(&desk.take(&a, std::slice::from_ref(&b), 9)), [(0, 0, 1)]);
    assert_eq!((desk.next(0), desk.unfinished()), (4, 2));
    assert_eq!(places(&desk.take(&b, std::slice::from_ref(&a), 9)), [(0, 1, 1)]);
    assert!(desk.take(&b, std::slice::from_ref(&a), 9).is_empty());
}

#[test]
fn a_member_that_takes_all_finds_what_others_left_with_every_tag_and_none() {
    let mut desk = desk(&[Some("a"), Some("b"), None]);
    let a = tags(&["a"]);
    desk.take(&a, &[TagFilter::All], 9);
    let mut got = places(&desk.take(&TagFilter::All, std::slice::from_ref(&a), 9));
    got.sort_unstable();
    assert_eq!(got, [(0, 1, 1), (0, 2, 1)]);
}

#[test]
fn what_was_left_is_done_when_the_member_that_wanted_it_is_gone() {
    let mut desk = desk(&[Some("a"), Some("b"), Some("c")]);
    let (a, b, c) = (tags(&["a"]), tags(&["b"]), tags(&["c"]));
    desk.take(&a, &[b, c.clone()], 9);
    let picks = desk.take(&a, std::slice::from_ref(&c), 9);
    assert!(picks.messages.is_empty() && !picks.more);
    let decided: Vec<_> = picks.lease.unwrap().again.iter().map(|again| (again.offset, again.becomes)).collect();
    assert_eq!(decided, [(QueueOffset(1), Again::Done)], "c still has its member");
    assert_eq!(desk.unfinished(), 2);
    assert_eq!(places(&desk.take(&c, &[a], 9)), [(0, 2, 1)]);
}

#[test]
fn nothing_that_was_left_is_dropped_while_a_member_takes_all() {
    let mut desk = desk(&[Some("a"), Some("b")]);
    let (a, b) = (tags(&["a"]), tags(&["b"]));
    desk.take(&a, &[b], 9);
    assert!(desk.take(&a, &[TagFilter::All], 9).is_empty());
    assert_eq!(places(&desk.take(&TagFilter::All, &[a], 9)), [(0, 1, 1)]);
}

#[test]
fn a_delivery_that_ran_out_goes_to_the_member_that_wants_it_and_counts() {
    let mut desk = desk(&[Some("b")]);
    let (a, b) = (tags(&["a"]), tags(&["b"]));
    assert_eq!(places(&desk.take(&b, std::slice::from_ref(&a), 1)), [(0, 0, 1)]);
    desk.log.pass_ms(60_000);
    let picks = desk.take(&a, std::slice::from_ref(&b), 1);
    assert!(picks.messages.is_empty());
    assert_eq!(picks.lease.unwrap().again[0].becomes, Again::Left);
    assert!(desk.take(&a, std::slice::from_ref(&b), 1).is_empty(), "it is not met again");
    assert_eq!(places(&desk.take(&b, &[a], 1)), [(0, 0, 2)]);
}

#[test]
fn a_delivery_that_ran_out_and_matches_nobody_any_more_is_done() {
    let mut desk = desk(&[Some("b")]);
    desk.take(&tags(&["b"]), &[], 1);
    desk.log.pass_ms(60_000);
    let picks = desk.take(&tags(&["a"]), &[], 1);
    assert_eq!(picks.lease.unwrap().again[0].becomes, Again::Done);
    assert_eq!(desk.unfinished(), 0);
}

#[test]
fn what_waits_for_a_member_and_was_delivered_often_enough_is_for_the_dead_letters() {
    let mut desk = desk(&[Some("b")]);
    let (a, b) = (tags(&["a"]), tags(&["b"]));
    desk.take(&b, &[], 1);
    desk.log.pass_ms(60_000);
    desk.take(&a, std::slice::from_ref(&b), 1);
    desk.log.group("g", GroupConfig { max_attempts: 1, ..GroupConfig::default() });
    let picks = desk.pick(&b, &[a], 1);
    assert_eq!((picks.messages.len(), picks.exhausted.as_slice()), (0, &[(0, QueueOffset(0), Generation::NONE)][..]));
}
