//! What nobody lived through makes nothing older while it is in doubt, and nothing that was stored meanwhile ever.

use std::time::Duration;

use proptest::prelude::*;

use super::snapshots::with_section;
use crate::record::codec::Writer;
use crate::record::{Expire, LeapsBelieved, Leapt, NodeStarted, Record};
use crate::state::{Applied, DEDUP_WINDOW_MS, LEAPS_MAX, Leap, OUTCOME_MEMORY_MS, PIN_MS};
use crate::testing::{RecordLog, end, head, read_snapshot};
use crate::{
    GroupConfig, Millis, QueueOffset, RecordPosition, Refusal, TopicConfig, TopicId, TransactionOutcome, Unconsumed,
};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const YEARS_MS: u64 = 10 * 365 * 24 * HOUR_MS;

/// A node starts, and the wall clock says that so much time passed.
fn start_after(log: &mut RecordLog, ms: u64) {
    let from = log.now;
    log.pass_ms(ms);
    log.apply(Record::NodeStarted(NodeStarted { version: "0.1.0".to_owned() })).unwrap();
    log.apply(Record::Leapt(Leapt { from, doubted: true })).unwrap();
}

/// A running node follows a wall clock that was ahead since a moment.
fn follow(log: &mut RecordLog, ms: u64, since: Millis) {
    log.pass_ms(ms);
    log.apply(Record::Leapt(Leapt { from: since, doubted: false })).unwrap();
}

fn believe(log: &mut RecordLog) {
    let to = log.now;
    log.apply(Record::LeapsBelieved(LeapsBelieved { to })).unwrap();
}

fn for_an_hour(log: &mut RecordLog, unconsumed: Unconsumed) -> TopicId {
    let kept =
        TopicConfig { queues: 1, retention: Some(Duration::from_hours(1)), unconsumed, ..TopicConfig::default() };
    log.put_topic("t", &kept).unwrap();
    log.topic_id("t")
}

fn expirations(log: &RecordLog) -> Vec<Expire> {
    log.state.expirations(log.now, None).0
}

#[test]
fn a_resend_after_a_doubtful_start_is_recognised_until_its_window_was_lived() {
    for ms in [HOUR_MS, 24 * HOUR_MS, YEARS_MS] {
        let mut log = RecordLog::new();
        let topic = log.topic("t", 1);
        log.apply(Record::Message(head(topic, 0, "a", 7))).unwrap();
        log.pass_ms(MINUTE_MS);
        start_after(&mut log, ms);
        log.pass_ms(DEDUP_WINDOW_MS - MINUTE_MS);
        // Whatever else is stored, the first copy is not dropped for its age.
        log.send(topic, 0, None);
        let again = log.apply(Record::Message(head(topic, 0, "a", 7)));
        assert_eq!(again, Ok(Applied::Stored { queue: 0, offset: QueueOffset(0) }));
        log.pass_ms(1);
        let again = log.apply(Record::Message(head(topic, 0, "a", 7)));
        assert_eq!(again, Ok(Applied::Stored { queue: 0, offset: QueueOffset(2) }));
    }
}

#[test]
fn an_outcome_outlives_a_doubtful_start_and_not_one_that_is_believed() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    let transaction = log.half(topic);
    log.apply(end(transaction, TransactionOutcome::Committed)).unwrap();
    start_after(&mut log, OUTCOME_MEMORY_MS + 1);
    let conflict = log.apply(end(transaction, TransactionOutcome::RolledBack));
    assert!(matches!(conflict, Err(Refusal::OutcomeConflict { .. })), "{conflict:?}");
    believe(&mut log);
    let forgotten = log.apply(end(transaction, TransactionOutcome::RolledBack));
    assert!(matches!(forgotten, Err(Refusal::AlreadyEnded { .. })), "{forgotten:?}");
    assert_eq!(log.state.leaps().iter().count(), 0);
}

#[test]
fn nothing_expires_for_a_doubtful_start_and_all_of_it_when_that_is_believed() {
    let mut log = RecordLog::new();
    let topic = for_an_hour(&mut log, Unconsumed::Expire);
    log.send(topic, 0, None);
    log.state.seal(1000).unwrap();
    log.pass_ms(MINUTE_MS);
    start_after(&mut log, YEARS_MS);
    assert_eq!(log.state.leaps().doubted_ms(), YEARS_MS);
    assert_eq!(expirations(&log), []);
    // What was lived counts all the same: a node that is never sure forgets, too.
    log.pass_ms(HOUR_MS - MINUTE_MS);
    assert_eq!(expirations(&log), []);
    log.pass_ms(1);
    assert_eq!(expirations(&log).len(), 1);

    let mut log = RecordLog::new();
    let topic = for_an_hour(&mut log, Unconsumed::Expire);
    log.send(topic, 0, None);
    log.state.seal(1000).unwrap();
    start_after(&mut log, HOUR_MS + 1);
    assert_eq!(expirations(&log), []);
    believe(&mut log);
    assert_eq!(expirations(&log).len(), 1);
}

#[test]
fn what_was_stored_while_the_wall_clock_was_ahead_is_not_older_for_following_it() {
    let mut log = RecordLog::new();
    let topic = for_an_hour(&mut log, Unconsumed::Expire);
    log.send(topic, 0, None);
    log.state.seal(1000).unwrap();
    let since = log.now;
    log.pass_ms(15 * MINUTE_MS);
    log.send(topic, 0, None);
    let before = log.now;
    log.state.seal(2000).unwrap();
    follow(&mut log, 2 * HOUR_MS, since);
    // The first is older than an hour now; the second was stored a moment ago.
    assert_eq!(log.state.at(log.now).age_ms(since), 2 * HOUR_MS + 15 * MINUTE_MS);
    assert_eq!(log.state.at(log.now).age_ms(before), 0);
    assert_eq!(expirations(&log), [Expire { topic, starts: vec![(0, QueueOffset(1))] }]);
    log.pass_ms(HOUR_MS);
    assert_eq!(expirations(&log), [Expire { topic, starts: vec![(0, QueueOffset(1))] }]);
    log.pass_ms(1);
    assert_eq!(expirations(&log), [Expire { topic, starts: vec![(0, QueueOffset(2))] }]);
}

#[test]
fn a_group_keeps_its_right_over_a_leap_of_either_kind() {
    for doubted in [true, false] {
        let mut log = RecordLog::new();
        let topic = for_an_hour(&mut log, Unconsumed::Keep);
        log.member("g", topic, GroupConfig::default());
        log.send(topic, 0, None);
        log.state.seal(1000).unwrap();
        let seen = log.now;
        if doubted {
            start_after(&mut log, 2 * PIN_MS);
            believe(&mut log);
        } else {
            follow(&mut log, 2 * PIN_MS, seen);
        }
        assert_eq!(expirations(&log), []);
        log.pass_ms(PIN_MS);
        assert_eq!(expirations(&log), []);
        log.pass_ms(1);
        assert_eq!(expirations(&log).len(), 1);
    }
}

#[test]
fn leaps_are_in_snapshots_and_a_log_without_them_has_none_there() {
    let mut log = RecordLog::new();
    let bytes = log.state.snapshot(RecordPosition(7));
    let (_, state) = read_snapshot(&bytes).unwrap();
    assert_eq!(state.leaps(), log.state.leaps());
    start_after(&mut log, HOUR_MS);
    let with = log.state.snapshot(RecordPosition(7));
    let mut section = vec![8, 0, 2];
    let mut contents = vec![1];
    let from = log.now.0 - HOUR_MS;
    [from, log.now.0].iter().for_each(|ms| contents.extend_from_slice(&ms.to_le_bytes()));
    contents.extend_from_slice(&[1, 0]);
    section.extend_from_slice(&(contents.len() as u64).to_le_bytes());
    section.extend_from_slice(&crc32c::crc32c_append(crc32c::crc32c(&section), &contents).to_le_bytes());
    assert!(with.ends_with(&[section, contents].concat()));
    let (_, state) = read_snapshot(&with).unwrap();
    assert_eq!(state.leaps(), log.state.leaps());
    assert!(state.snapshot(RecordPosition(7)) == with);
}

#[test]
fn leaps_that_no_version_writes_are_refused() {
    let mut log = RecordLog::new();
    start_after(&mut log, HOUR_MS);
    let bytes = log.state.snapshot(RecordPosition(7));
    let with = |leaps: &[(u64, u64, bool, bool)]| {
        let mut contents = Vec::new();
        let mut w = Writer(&mut contents);
        w.varint(leaps.len() as u64);
        for (from, to, doubted, stamped) in leaps {
            w.u64(*from);
            w.u64(*to);
            w.u8(u8::from(*doubted));
            w.u8(u8::from(*stamped));
        }
        read_snapshot(&with_section(&bytes, 8, &contents)).is_ok()
    };
    assert!(with(&[(1, 2, true, false), (2, 9, false, true), (10, 11, true, true)]));
    assert!(!with(&[(2, 2, true, false)]) && !with(&[(1, 3, true, false), (2, 9, true, false)]));
    assert!(!with(&[(1, 2, false, false)]));
    let many = |count: u64| (0..count).map(|n| (n, n + 1, true, false)).collect::<Vec<_>>();
    assert!(with(&many(LEAPS_MAX as u64)) && !with(&many(LEAPS_MAX as u64 + 1)));
}

#[test]
fn beyond_the_bound_the_oldest_leap_goes_and_what_is_in_doubt_stays_so() {
    let mut log = RecordLog::new();
    let first = log.now;
    start_after(&mut log, YEARS_MS);
    let second = log.now;
    for _ in 1..LEAPS_MAX {
        log.pass_ms(1);
        start_after(&mut log, MINUTE_MS);
    }
    assert_eq!(log.state.leaps().iter().count(), LEAPS_MAX);
    let lived = LEAPS_MAX as u64 - 1;
    assert_eq!(log.state.at(log.now).age_ms(first), lived);
    log.pass_ms(1);
    start_after(&mut log, MINUTE_MS);
    assert_eq!(log.state.leaps().iter().count(), LEAPS_MAX);
    // The millisecond between the two that are one now is in doubt, too.
    assert_eq!(log.state.at(log.now).age_ms(first), lived);
    assert_eq!(log.state.at(log.now).age_ms(second), lived);
    believe(&mut log);
    assert_eq!(log.state.at(log.now).age_ms(first), log.now.ms_since(first));

    let since = log.now;
    for _ in 0..=LEAPS_MAX {
        log.pass_ms(1);
        let since = log.now;
        follow(&mut log, MINUTE_MS, since);
    }
    let all: Vec<Leap> = log.state.leaps().iter().copied().collect();
    assert_eq!((all.len(), all[0].from.ms_since(since)), (LEAPS_MAX, MINUTE_MS + 2));
}

proptest! {
    /// Whatever leapt: nothing is older than the log's time says, the older of two is never the younger one, and what comes
    /// after the last leap has its plain age.
    #[test]
    fn ages_never_exceed_what_passed_and_keep_their_order(
        steps in proptest::collection::vec((0u8..5, 1u64..100), 1..60),
        probes in proptest::collection::vec(0u64..8000, 2..40),
    ) {
        let mut log = RecordLog::new();
        let begin = log.now;
        for (what, ms) in steps {
            match what {
                0 => start_after(&mut log, ms),
                1 => {
                    let since = log.now;
                    log.pass_ms(ms / 2);
                    follow(&mut log, ms, since);
                }
                2 => believe(&mut log),
                _ => log.pass_ms(ms),
            }
        }
        let now = log.state.at(log.now);
        let mut probes: Vec<Millis> =
            probes.into_iter().map(|ms| begin.plus_ms(ms)).filter(|then| *then <= log.now).collect();
        probes.sort_unstable();
        for pair in probes.windows(2) {
            prop_assert!(now.age_ms(pair[0]) >= now.age_ms(pair[1]));
        }
        let last = log.state.leaps().iter().last().map_or(begin, |leap| leap.to);
        for then in probes {
            prop_assert!(now.age_ms(then) <= log.now.ms_since(then));
            prop_assert!(then < last || now.age_ms(then) == log.now.ms_since(then));
        }
    }
}
