//! Leaps of the clock, and marks on a log that is idle.

use vouch_broker::Millis;
use vouch_commitlog::EntryKind;

use super::bench::Bench;
use super::runs::topic_and_group;
use crate::clock::Ahead;
use crate::core::{Claim, ClockSays};

const HOUR_MS: u64 = 3_600_000;

#[test]
fn a_leap_has_an_entry_of_its_own_behind_what_came_before_it_and_is_followed_when_that_is_durable() {
    let mut bench = Bench::new();
    let (topic, _) = topic_and_group(&mut bench);
    let (from, to) = (bench.now().time, bench.now().time.plus_ms(HOUR_MS));
    let before = bench.entries().len();
    let (send, _outcomes) = Bench::send(topic, &Bench::plain(1), from, Claim::Room);
    bench.hear(vec![send]);
    bench.turn_with(ClockSays { leap: Some(Ahead { from, to }), agreed: false });
    let written: Vec<(EntryKind, Millis)> = bench.entries()[before..].to_vec();
    assert_eq!(written, [(EntryKind::Records, from), (EntryKind::Records, to)]);
    let follows = |bench: &Bench| bench.trace.iter().any(|told| told.starts_with("follow"));
    assert!(!follows(&bench), "nobody is told a time that a power cut may take back");
    // The clock has not leapt yet, and what comes now lies behind the leap all the same.
    let (send, _outcomes) = Bench::send(topic, &Bench::plain(2), from, Claim::Room);
    bench.turn(vec![send]);
    assert_eq!(bench.entries().last(), Some(&(EntryKind::Records, to)));
    bench.sync();
    assert!(follows(&bench));
}

#[test]
fn a_receive_that_is_served_when_a_leap_becomes_durable_gets_a_lease_that_lies_behind_it() {
    let mut bench = Bench::new();
    let (topic, _) = topic_and_group(&mut bench);
    let (from, to) = (bench.now().time, bench.now().time.plus_ms(HOUR_MS));
    let (receive, caller) = bench.receive(1, 60_000, 5000);
    bench.turn(vec![receive]);
    let (send, _outcomes) = Bench::send(topic, &Bench::plain(1), from, Claim::Room);
    bench.hear(vec![send]);
    bench.turn_with(ClockSays { leap: Some(Ahead { from, to }), agreed: false });
    bench.durable_untold();
    bench.go_on();
    let batch = caller.heard().unwrap().unwrap().expect("the message came with the leap");
    assert_eq!(batch.deadline, to.plus_ms(5000));
}

#[test]
fn a_leap_waits_while_the_last_one_is_ahead_of_the_clock() {
    let mut bench = Bench::new();
    let from = bench.now().time;
    let leap = |by| ClockSays { leap: Some(Ahead { from, to: from.plus_ms(by) }), agreed: false };
    bench.turn_with(leap(HOUR_MS));
    let written = bench.entries().len();
    bench.turn_with(leap(2 * HOUR_MS));
    assert_eq!(bench.entries().len(), written);
    bench.pass(HOUR_MS);
    bench.turn_with(leap(2 * HOUR_MS));
    assert_eq!(bench.entries().last(), Some(&(EntryKind::Records, from.plus_ms(2 * HOUR_MS))));
}

#[test]
fn an_idle_log_gets_one_mark_and_none_where_records_follow_at_once() {
    let mut bench = Bench::new();
    let marks = |bench: &Bench| bench.entries().iter().filter(|(kind, _)| *kind == EntryKind::Mark).count();
    bench.idle();
    bench.idle();
    assert_eq!(marks(&bench), 1, "it covers the log until something is written");
    let (topic, _) = topic_and_group(&mut bench);
    bench.idle();
    assert_eq!(marks(&bench), 2);
    let (send, _outcomes) = Bench::send(topic, &Bench::plain(1), bench.now().time, Claim::Room);
    bench.turn(vec![send]);
    let (send, _more) = Bench::send(topic, &Bench::plain(2), bench.now().time, Claim::Room);
    bench.hear(vec![send]);
    bench.idle();
    assert_eq!(
        (marks(&bench), bench.entries().last().unwrap().0),
        (2, EntryKind::Records),
        "they cover what came before, too"
    );
}

#[test]
fn a_leap_covers_what_came_before_it_and_gets_a_mark_itself_when_the_log_is_idle_behind_it() {
    let mut bench = Bench::new();
    topic_and_group(&mut bench);
    let before = bench.entries().len();
    let (from, to) = (bench.now().time, bench.now().time.plus_ms(HOUR_MS));
    bench.idle_with(ClockSays { leap: Some(Ahead { from, to }), agreed: false });
    assert_eq!(bench.entries()[before..], [(EntryKind::Records, to)]);
    bench.sync();
    bench.idle();
    assert_eq!(bench.entries()[before..], [(EntryKind::Records, to), (EntryKind::Mark, to)]);
}

#[test]
fn a_mark_for_which_there_is_no_room_is_tried_again_a_second_later() {
    let mut bench = Bench::new();
    let tried = |bench: &Bench| bench.trace.iter().filter(|told| told.contains("Mark")).count();
    bench.fill(true);
    bench.idle();
    bench.idle();
    assert_eq!(tried(&bench), 1);
    bench.pass(1000);
    bench.fill(false);
    bench.idle();
    assert_eq!((tried(&bench), bench.entries().last().unwrap().0), (2, EntryKind::Mark));
}
