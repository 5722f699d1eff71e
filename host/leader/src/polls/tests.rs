//! Lines, turns and times of receives that wait.

use std::time::Duration;

use super::*;

use crate::testing::ReceiveCaller;

fn poll(group: &str, filter: TagFilter, until: Instant) -> (Poll, ReceiveCaller) {
    let (waiter, answer) = ReceiveCaller::new();
    let (topic, group) = (ResourceName::plain("t"), ResourceName::plain(group));
    let client_id = "client".to_owned();
    let (max, invisible_ms, auto_renew, machine) = (1, 1, false, None);
    (Poll { topic, group, client_id, machine, filter, max, invisible_ms, auto_renew, until, waiter }, answer)
}

const TOPIC: TopicId = TopicId(1);

fn tags(tags: &[u64]) -> TagFilter {
    TagFilter::Tags(tags.iter().copied().map(TagHash).collect())
}

/// Lines that are ready, in their order.
fn ready(polls: &mut Polls) -> Vec<LineNumber> {
    std::iter::from_fn(|| polls.next_ready()).map(|(_, line)| line).collect()
}

#[test]
fn receives_of_one_group_and_filter_stand_in_one_line_and_are_served_in_their_order() {
    let (mut polls, now) = (Polls::default(), Instant::now());
    let at = |seconds| now + Duration::from_secs(seconds);
    let mut answers = Vec::new();
    let mut lines = Vec::new();
    for (group, filter, until) in
        [("g", TagFilter::All, 9), ("g", TagFilter::All, 5), ("g", tags(&[1]), 6), ("h", TagFilter::All, 7)]
    {
        let (poll, answer) = poll(group, filter, at(until));
        lines.push(polls.wait(TOPIC, poll));
        answers.push(answer);
    }
    assert!(lines[0] == lines[1] && lines[1] != lines[2] && lines[0] != lines[3]);
    assert_eq!((polls.len(), polls.first_timeout()), (4, Some(at(5))));
    let first = polls.take_first(lines[0]).unwrap();
    assert_eq!(first.until, at(9));
    polls.wait(TOPIC, first);
    assert_eq!(polls.take_first(lines[0]).unwrap().until, at(9), "it keeps its place");
    assert_eq!(polls.timed_out(at(6)).iter().map(|poll| poll.until).collect::<Vec<_>>(), [at(5), at(6)]);
    assert!(polls.take_first(lines[0]).is_none());
    assert_eq!((polls.len(), polls.first_timeout()), (1, Some(at(7))));
    assert_eq!(polls.drain().len(), 1);
    assert!(!polls.any_on(TOPIC));
}

#[test]
fn a_receive_whose_caller_is_gone_is_passed_over_and_its_line_goes_with_the_last() {
    let (mut polls, until) = (Polls::default(), Instant::now());
    let (gone, answer) = poll("g", tags(&[1, 2]), until);
    drop(answer);
    let (there, _answer) = poll("g", tags(&[1, 2]), until + Duration::from_secs(1));
    polls.wait(TOPIC, gone);
    let line = polls.wait(TOPIC, there);
    assert_eq!(polls.take_first(line).unwrap().until, until + Duration::from_secs(1));
    assert!(polls.any_on(TOPIC));
    polls.settle(line);
    assert!(!polls.any_on(TOPIC) && polls.lines.is_empty());
}

#[test]
fn who_goes_away_leaves_nothing_wherever_he_stands_and_the_others_keep_their_order() {
    let (mut polls, until) = (Polls::default(), Instant::now());
    let (mut answers, mut numbers, mut line) = (Vec::new(), Vec::new(), 0);
    for _ in 0..5 {
        let (poll, answer) = poll("g", TagFilter::All, until);
        numbers.push(poll.waiter.number());
        answers.push(answer);
        line = polls.wait(TOPIC, poll);
    }
    for gone in [2, 0, 4] {
        assert!(polls.remove(numbers[gone]).is_some() && polls.remove(numbers[gone]).is_none());
    }
    assert_eq!((polls.len(), polls.by_time.len(), polls.lines[&line].polls.len()), (2, 2, 2));
    let first = polls.take_first(line).unwrap();
    assert_eq!(first.waiter.number(), numbers[1]);
    polls.wait(TOPIC, first);
    assert_eq!(polls.take_first(line).unwrap().waiter.number(), numbers[1], "it keeps its place");
    polls.remove(numbers[3]);
    assert!(polls.len() == 0 && !polls.any_on(TOPIC) && polls.lines.is_empty() && polls.by_time.is_empty());
}

#[test]
fn the_first_to_wait_for_a_record_is_told_so_and_all_come_back_with_it() {
    let mut polls = Polls::default();
    let until = Instant::now();
    assert!(polls.wait_to_join(b"join".to_vec(), poll("g", TagFilter::All, until).0));
    assert!(!polls.wait_to_join(b"join".to_vec(), poll("g", TagFilter::All, until).0));
    assert!(polls.joined(b"other").is_empty());
    assert_eq!(polls.joined(b"join").len(), 2);
    assert!(polls.wait_to_join(b"join".to_vec(), poll("g", TagFilter::All, until).0), "it is proposed anew");
}

#[test]
fn a_message_wakes_the_lines_that_want_it_and_no_others_and_each_once() {
    let (mut polls, until) = (Polls::default(), Instant::now());
    let mut answers = Vec::new();
    let mut lines = Vec::new();
    for (group, filter) in
        [("g", tags(&[1])), ("g", tags(&[1, 2])), ("g", tags(&[3])), ("h", TagFilter::All), ("h", tags(&[2]))]
    {
        let (poll, answer) = poll(group, filter, until);
        lines.push(polls.wait(TOPIC, poll));
        answers.push(answer);
    }
    polls.wake_for(vec![(TOPIC, TagHash(1)), (TOPIC, TagHash(1))]);
    polls.wake_for(vec![(TOPIC, TagHash(1))]);
    assert_eq!(ready(&mut polls), [lines[3], lines[0], lines[1]]);
    polls.wake_for(vec![(TOPIC, TagHash(0))]);
    assert_eq!(ready(&mut polls), [lines[3]]);
    polls.wake_for(vec![(TopicId(2), TagHash(1)), (TOPIC, TagHash(3)), (TopicId(2), TagHash(3))]);
    assert_eq!(ready(&mut polls), [lines[3], lines[2]]);
    polls.wake_group(TOPIC, &ResourceName::plain("h"));
    assert_eq!(ready(&mut polls), [lines[3], lines[4]]);
    polls.wake_all(TOPIC);
    assert_eq!(ready(&mut polls), lines);
    assert!(!polls.any_ready());
}

#[test]
fn lines_that_take_everything_are_looked_at_once_however_many_different_tags_came() {
    let (mut polls, until) = (Polls::default(), Instant::now());
    let mut answers = Vec::new();
    let filters = std::iter::repeat_n(TagFilter::All, 1_000).chain([tags(&[7]), tags(&[8, 9])]);
    let lines: Vec<LineNumber> = filters
        .enumerate()
        .map(|(n, filter)| {
            let (poll, answer) = poll(&format!("g{n}"), filter, until);
            answers.push(answer);
            polls.wait(TOPIC, poll)
        })
        .collect();
    let arrived: Vec<_> = (0..5_000).map(|tag| (TOPIC, TagHash(tag))).collect();
    // One of the lines wants two of the tags.
    assert_eq!(polls.wanting(&arrived).len(), lines.len() + 1);
    polls.wake_for(arrived);
    assert_eq!(ready(&mut polls), lines);
}

#[test]
fn topics_take_turns_however_many_lines_one_of_them_has() {
    let (mut polls, until) = (Polls::default(), Instant::now());
    let mut answers = Vec::new();
    for (topic, group) in [(1, "a"), (1, "b"), (1, "c"), (2, "a")] {
        let (poll, answer) = poll(group, TagFilter::All, until);
        polls.wait(TopicId(topic), poll);
        answers.push(answer);
    }
    polls.wake_all(TopicId(1));
    polls.wake_for(vec![(TopicId(2), TagHash(7))]);
    let topics = std::iter::from_fn(|| polls.next_ready()).map(|(topic, _)| topic.0).collect::<Vec<_>>();
    assert_eq!(topics, [1, 2, 1, 1]);
}

#[test]
fn a_receive_whose_turn_is_still_to_come_does_not_time_out() {
    let (mut polls, now) = (Polls::default(), Instant::now());
    let (poll, _answer) = poll("g", TagFilter::All, now);
    let line = polls.wait(TOPIC, poll);
    polls.make_ready(line);
    assert!(polls.timed_out(now).is_empty());
    assert_eq!(polls.next_ready(), Some((TOPIC, line)));
    assert_eq!(polls.timed_out(now).len(), 1);
    assert!(!polls.any_on(TOPIC));
}

#[test]
fn a_group_is_looked_at_when_its_first_time_has_come_and_one_time_of_it_is_kept() {
    let mut polls = Polls::default();
    let wake_at = |polls: &mut Polls, times: &[(u64, u32)]| {
        times.iter().for_each(|(at, group)| polls.wake_at(Millis(*at), TOPIC, GroupId(*group)));
    };
    wake_at(&mut polls, &[(6, 1), (5, 1), (7, 1), (5, 1), (6, 2), (8, 3)]);
    assert_eq!((polls.wake_at.len(), polls.wake_of.len(), polls.next_wake()), (3, 3, Some(Millis(5))));
    assert_eq!(polls.awake(Millis(6)), [(TOPIC, GroupId(1)), (TOPIC, GroupId(2))]);
    assert_eq!((polls.next_wake(), polls.awake(Millis(7)).len()), (Some(Millis(8)), 0));
    // A time that is over is no reason to pass over the next one.
    wake_at(&mut polls, &[(9, 1), (7, 3)]);
    assert_eq!(polls.awake(Millis(9)), [(TOPIC, GroupId(1)), (TOPIC, GroupId(3))]);
    assert_eq!((polls.wake_at.len(), polls.wake_of.len()), (0, 0));
}
