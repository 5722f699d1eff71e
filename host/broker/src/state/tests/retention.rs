//! What goes when it is past its retention, what is kept all the same, and what is carried on.

use std::time::Duration;

use bytes::Bytes;

use crate::check::CheckOverrides;
use crate::record::{
    Carried, DeadLetter, DeadLetterSized, Expire, Join, MessagePlace, NodeStarted, PluginChunk, Queued, Record, Seen,
    before_carried, decode_stored, encode_message,
};
use crate::state::{Applied, GAPS_MAX, Gap, PIN_MS};
use crate::testing::{RecordLog, ack, end, lease, message, whole};
use crate::{
    Generation, GroupConfig, HalfPosition, MessageKind, NewMessage, QueueOffset, RecordPosition, StartPosition,
    TopicConfig, TopicId, TransactionOutcome, Unconsumed,
};

const HOUR_MS: u64 = 3_600_000;

/// A topic with one queue and this setting.
fn topic(log: &mut RecordLog, config: TopicConfig) -> TopicId {
    log.put_topic("t", &TopicConfig { queues: 1, ..config }).unwrap();
    log.topic_id("t")
}

fn for_an_hour(unconsumed: Unconsumed) -> TopicConfig {
    TopicConfig { retention: Some(Duration::from_hours(1)), unconsumed, ..TopicConfig::default() }
}

/// Sends so many messages and seals them.
fn send_and_seal(log: &mut RecordLog, topic: TopicId, count: u64, part: u64) {
    for _ in 0..count {
        log.send(topic, 0, None);
    }
    log.state.seal(part).unwrap();
}

/// What a node would propose now.
fn expirations(log: &RecordLog) -> Vec<Expire> {
    log.state.expirations(log.now, None).0
}

/// Applies it.
fn expire(log: &mut RecordLog) -> (u64, u64) {
    let mut sum = (0, 0);
    for expire in expirations(log) {
        let Applied::Expired { messages, missed } = log.apply(Record::Expire(expire)).unwrap() else { unreachable!() };
        sum = (sum.0 + messages, sum.1 + missed);
    }
    assert!(expirations(log).is_empty(), "what was applied is asked for again");
    sum
}

fn start(log: &RecordLog, topic: TopicId) -> u64 {
    log.state.topics().get(topic).unwrap().start(0).0
}

#[test]
fn messages_go_part_by_part_when_all_of_a_part_is_past_its_time() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, for_an_hour(Unconsumed::Keep));
    send_and_seal(&mut log, topic, 3, 1000);
    log.pass_ms(HOUR_MS / 2);
    send_and_seal(&mut log, topic, 2, 2000);
    log.pass_ms(HOUR_MS / 2);
    assert!(expirations(&log).is_empty(), "a message of just an hour is not past it");
    log.pass_ms(1);
    assert_eq!(expirations(&log), [Expire { topic, starts: vec![(0, QueueOffset(3))] }]);
    assert_eq!(expire(&mut log), (3, 0));
    assert_eq!((start(&log, topic), log.state.parts()), (3, vec![2000]));
    log.send(topic, 0, None);
    log.pass_ms(HOUR_MS * 2);
    assert_eq!(expire(&mut log), (2, 0));
    assert_eq!(start(&log, topic), 5, "what is in no part stays");
}

#[test]
fn messages_go_when_newer_ones_fill_the_size_that_is_kept() {
    let mut log = RecordLog::new();
    // A record of the test log counts 100 bytes.
    let config = TopicConfig { retention_size: Some(500), ..TopicConfig::default() };
    let topic = topic(&mut log, config);
    send_and_seal(&mut log, topic, 2, 1000);
    send_and_seal(&mut log, topic, 2, 2000);
    log.send(topic, 0, None);
    log.send(topic, 0, None);
    assert!(expirations(&log).is_empty(), "without the first part 400 bytes would be left");
    log.send(topic, 0, None);
    assert_eq!(expire(&mut log), (2, 0));
    assert_eq!(start(&log, topic), 2);
}

#[test]
fn dead_letters_count_as_the_messages_that_they_keep() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, TopicConfig::default());
    let group = log.member("g", topic, GroupConfig::default());
    for offset in 0..4 {
        log.send(topic, 0, None);
        log.apply(lease(&log, group, topic, 1 + offset, whole(0, offset, offset + 1))).unwrap();
        let letter = DeadLetter {
            group,
            topic,
            queue: 0,
            offset: QueueOffset(offset),
            generation: Generation(1 + offset),
            reason: String::new(),
        };
        log.apply(Record::DeadLetterSized(DeadLetterSized { letter, record_len: 100 })).unwrap();
        log.state.seal(1000 * (offset + 1)).unwrap();
    }
    let keep = |log: &mut RecordLog, bytes| {
        let config = TopicConfig { retention_size: Some(bytes), ..TopicConfig::dead_letters() };
        log.put_topic("%DLQ%g", &config).unwrap();
    };
    keep(&mut log, 301);
    assert!(expirations(&log).is_empty(), "without the first 300 bytes would be left");
    keep(&mut log, 300);
    assert_eq!(expire(&mut log), (1, 0));
    let dead = log.topic_id("%DLQ%g");
    assert_eq!(start(&log, dead), 1);
}

#[test]
fn what_a_group_has_not_finished_is_kept_for_it_until_nobody_was_there_for_a_week() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, for_an_hour(Unconsumed::Keep));
    let group = log.member("g", topic, GroupConfig::default());
    send_and_seal(&mut log, topic, 5, 1000);
    log.apply(lease(&log, group, topic, 1, whole(0, 0, 3))).unwrap();
    log.apply(ack(group, topic, 0, 1)).unwrap();
    log.apply(ack(group, topic, 2, 1)).unwrap();
    log.pass_ms(HOUR_MS * 2);
    assert_eq!(expire(&mut log), (1, 0));
    assert_eq!(start(&log, topic), 1, "the second message is in hand");
    // Somebody lives, though nothing was received.
    log.pass_ms(PIN_MS - HOUR_MS);
    log.apply(Record::Seen(Seen { groups: vec![group] })).unwrap();
    log.pass_ms(PIN_MS);
    assert!(expirations(&log).is_empty());
    log.pass_ms(1);
    assert_eq!(expire(&mut log), (4, 3));
    let seen = log.state.groups().get(group).unwrap();
    let gap = Gap { topic, queue: 0, from: QueueOffset(1), to: QueueOffset(5), messages: 3, at: log.now };
    assert_eq!((seen.missed, seen.gaps().collect::<Vec<_>>()), (3, vec![&gap]));
    let progress = log.progress(group, topic);
    assert_eq!((progress.next(0), progress.unfinished()), (QueueOffset(5), 0));
    // The handle that was in hand names a message that is done.
    assert_eq!(log.apply(ack(group, topic, 1, 1)), Ok(Applied::Done));
}

#[test]
fn time_in_which_no_node_ran_is_not_held_against_a_group() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, for_an_hour(Unconsumed::Keep));
    log.member("g", topic, GroupConfig::default());
    send_and_seal(&mut log, topic, 2, 1000);
    log.pass_ms(HOUR_MS);
    log.apply(Record::Seen(Seen { groups: vec![] })).unwrap();
    log.pass_ms(4 * PIN_MS);
    log.apply(Record::NodeStarted(NodeStarted { version: "0.1.0".to_owned() })).unwrap();
    assert!(expirations(&log).is_empty());
    log.pass_ms(PIN_MS - HOUR_MS);
    assert!(expirations(&log).is_empty());
    log.pass_ms(1);
    assert_eq!(expirations(&log).len(), 1);
}

#[test]
fn where_the_topic_says_so_a_group_that_lives_misses_what_it_was_late_for() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, for_an_hour(Unconsumed::Expire));
    let group = log.member("g", topic, GroupConfig::default());
    send_and_seal(&mut log, topic, 4, 1000);
    log.apply(lease(&log, group, topic, 1, whole(0, 0, 2))).unwrap();
    log.pass_ms(HOUR_MS + 1);
    assert_eq!(expire(&mut log), (4, 4));
    let fresh = log.send(topic, 0, None).0;
    log.apply(lease(&log, group, topic, 2, whole(0, fresh, fresh + 1))).unwrap();
    assert_eq!(log.progress(group, topic).unfinished(), 1);
}

#[test]
fn only_the_latest_gaps_are_remembered_and_all_are_counted() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, TopicConfig { unconsumed: Unconsumed::Expire, ..TopicConfig::default() });
    let group = log.member("g", topic, GroupConfig::default());
    for offset in 0..=GAPS_MAX as u64 {
        log.send(topic, 0, None);
        log.apply(Record::Expire(Expire { topic, starts: vec![(0, QueueOffset(offset + 1)), (7, QueueOffset(1))] }))
            .unwrap();
    }
    let group = log.state.groups().get(group).unwrap();
    assert_eq!((group.missed, group.gaps().len()), (GAPS_MAX as u64 + 1, GAPS_MAX));
    assert_eq!(group.gaps().next().unwrap().from, QueueOffset(1));
}

#[test]
fn a_new_group_begins_at_the_oldest_message_that_is_there() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, for_an_hour(Unconsumed::Keep));
    send_and_seal(&mut log, topic, 3, 1000);
    log.pass_ms(HOUR_MS + 1);
    expire(&mut log);
    log.send(topic, 0, None);
    let begin = |start| GroupConfig { start, ..GroupConfig::default() };
    let first = log.member("first", topic, begin(StartPosition::Beginning));
    let last = log.member("last", topic, begin(StartPosition::End));
    assert_eq!(
        (log.progress(first, topic).next(0), log.progress(last, topic).next(0)),
        (QueueOffset(3), QueueOffset(4))
    );
    let beyond = log.refused(Record::Join(Join { group: first, topic: TopicId(77), at_end: false }));
    assert!(matches!(beyond, crate::Refusal::TopicNotFound(_)));
}

#[test]
fn a_topic_is_deleted_without_force_when_all_that_is_left_was_consumed_or_went() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, for_an_hour(Unconsumed::Keep));
    send_and_seal(&mut log, topic, 3, 1000);
    log.pass_ms(HOUR_MS + 1);
    expire(&mut log);
    let name = crate::ResourceName::plain("t");
    log.apply(Record::TopicDelete(crate::record::TopicDelete { name, force: false })).unwrap();
}

/// A half message's record as it lies in the log.
fn half_record(log: &RecordLog, topic: TopicId) -> Vec<u8> {
    let mut record = Vec::new();
    let half = NewMessage { kind: MessageKind::Transaction, ..message("h") };
    let place = MessagePlace { topic, queue: 0, stored_at: log.now };
    encode_message(&mut record, place, "client", &half, CheckOverrides::default());
    record
}

#[test]
fn a_half_that_was_carried_is_committed_from_where_it_lies_now() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, TopicConfig::default());
    let (committed, rolled_back, open) = (log.half(topic), log.half(topic), log.half(topic));
    let bodies = log.state.bodies_in(RecordPosition(0)..open.first_place(), 10);
    assert_eq!(
        bodies.iter().map(|body| body.position).collect::<Vec<_>>(),
        [committed, rolled_back].map(HalfPosition::first_place)
    );
    let mut places = Vec::new();
    for body in bodies {
        log.apply(Record::Carried(Carried {
            from: body.transaction.unwrap().first_place(),
            queued: None,
            record: half_record(&log, topic),
        }))
        .unwrap();
        places.push(log.last_position());
    }
    assert!(log.state.bodies_in(RecordPosition(0)..open.first_place(), 10).is_empty());
    assert_eq!(log.state.place_of_half(committed), Some(places[0]));
    assert_eq!(log.state.needed_from(), open.first_place());
    log.apply(end(rolled_back, TransactionOutcome::RolledBack)).unwrap();
    log.apply(end(committed, TransactionOutcome::Committed)).unwrap();
    assert_eq!(log.state.topics().get(topic).unwrap().entry(0, QueueOffset(0)).unwrap().position, places[0]);
    assert_eq!(log.state.place_of_half(committed), None);
    // One that comes too late changes nothing.
    log.apply(Record::Carried(Carried {
        from: committed.first_place(),
        queued: None,
        record: half_record(&log, topic),
    }))
    .unwrap();
    assert_eq!(log.state.bodies_in(RecordPosition(0)..RecordPosition::BEYOND, 10).len(), 1);
    assert_eq!(log.replay().snapshot(RecordPosition(7)), log.state.snapshot(RecordPosition(7)));
}

#[test]
fn a_carried_half_is_read_like_the_first_and_says_which_transaction_it_is() {
    let log = RecordLog::new();
    let half = half_record(&log, TopicId(3));
    let mut carried = Vec::new();
    Carried { from: RecordPosition(4711), queued: None, record: half.clone() }.encode(&mut carried);
    let (half, carried) = (Bytes::from(half), Bytes::from(carried));
    assert_eq!(decode_stored(&carried).unwrap(), decode_stored(&half).unwrap());
    assert_eq!(before_carried(&half), Ok(None));
    assert_eq!(before_carried(&carried), Ok(Some((RecordPosition(4711), half))));
    for at in 0..carried.len() {
        let mut damaged = carried.to_vec();
        damaged[at] ^= 1;
        assert!(decode_stored(&damaged.into()).is_err(), "byte {at}");
    }
}

#[test]
fn a_message_that_was_carried_is_found_where_it_lies_now_until_it_goes() {
    let mut log = RecordLog::new();
    let topic = topic(&mut log, for_an_hour(Unconsumed::Keep));
    send_and_seal(&mut log, topic, 3, 1000);
    log.send(topic, 0, None);
    let place =
        |log: &RecordLog, offset| log.state.topics().get(topic).unwrap().entry(0, offset).map(|entry| entry.position);
    let before: Vec<_> = (0..4).map(|offset| place(&log, QueueOffset(offset)).unwrap()).collect();
    let (found, _) = log.state.messages_in(&(before[1]..before[3]), None);
    assert_eq!(found.iter().map(|body| body.position).collect::<Vec<_>>(), before[1..3]);
    for offset in [1, 3] {
        let (queued, mut record) = (Some(Queued { topic, queue: 0, offset: QueueOffset(offset) }), Vec::new());
        let at = MessagePlace { topic, queue: 0, stored_at: log.now };
        encode_message(&mut record, at, "client", &message("m"), CheckOverrides::default());
        log.apply(Record::Carried(Carried { from: before[offset as usize], queued, record })).unwrap();
    }
    let now: Vec<_> = (0..4).map(|offset| place(&log, QueueOffset(offset)).unwrap()).collect();
    assert_eq!((now[0], now[2], now[3]), (before[0], before[2], log.last_position()));
    assert!(now[1] > before[3]);
    assert!(log.state.messages_in(&(before[1]..before[2]), None).0.is_empty());
    assert_eq!(log.state.topics().get(topic).unwrap().lowest_position_from(0, QueueOffset(1)), Some(before[2]));
    let carried = |after| log.state.topics().get(topic).unwrap().carried(after, 1);
    assert_eq!(carried(None), [(0, QueueOffset(1), now[1])]);
    assert_eq!(carried(Some((0, QueueOffset(1)))), [(0, QueueOffset(3), now[3])]);
    assert!(carried(Some((0, QueueOffset(3)))).is_empty());
    // A part that was sealed meanwhile says where the records lay at first, and is no reason to look there.
    log.state.seal(2000).unwrap();
    assert_eq!((0..4).map(|offset| place(&log, QueueOffset(offset)).unwrap()).collect::<Vec<_>>(), now);
    log.pass_ms(HOUR_MS + 1);
    assert_eq!(expire(&mut log), (4, 0));
    assert_eq!((place(&log, QueueOffset(1)), log.state.needed_from()), (None, RecordPosition::BEYOND));
}

#[test]
fn a_piece_of_a_component_that_was_carried_lies_where_it_was_put() {
    let mut log = RecordLog::new();
    super::plugins::push(&mut log, "p", "1", 1).unwrap();
    let chunks = |log: &RecordLog| log.state.plugins().artifact(&[1; 32]).unwrap().chunks.clone();
    let before = chunks(&log);
    let (from, offset) = before[0];
    let mut record = Vec::new();
    PluginChunk { digest: [1; 32], offset, total: 9, data: vec![7] }.encode(&mut record);
    log.apply(Record::Carried(Carried { from, queued: None, record: record.clone() })).unwrap();
    let now = log.last_position();
    assert_eq!(chunks(&log)[0], (now, offset));
    assert_eq!(chunks(&log)[1..], before[1..]);
    // Another one of the same place says nothing new.
    log.apply(Record::Carried(Carried { from, queued: None, record })).unwrap();
    assert_eq!(chunks(&log)[0], (now, offset));
}

#[test]
fn topics_are_looked_at_in_steps_and_none_is_left_out() {
    let mut log = RecordLog::new();
    for (n, part) in (0..20).zip(1000..) {
        log.put_topic(&format!("t{n}"), &TopicConfig { queues: 1, ..for_an_hour(Unconsumed::Keep) }).unwrap();
        let topic = log.topic_id(&format!("t{n}"));
        send_and_seal(&mut log, topic, 1, part);
    }
    log.pass_ms(HOUR_MS + 1);
    let (mut found, mut after) = (0, None);
    loop {
        let (expirations, next) = log.state.expirations(log.now, after);
        found += expirations.len();
        let Some(next) = next else { break };
        after = Some(next);
    }
    assert_eq!(found, 20);
}
