//! Parts: what they take out of snapshots and memory, and when they are refused.

use std::collections::HashSet;

use super::replay::canonical;
use super::snapshots::{full, with_section};
use crate::record::{Record, TopicDelete};
use crate::state::{EntryAt, PartError, SnapshotError};
use crate::testing::{RecordLog, StoredParts, end};
use crate::{QueueOffset, RecordPosition, ResourceName, State, TransactionOutcome};

/// A sealed state with its part and snapshot.
fn sealed() -> (State, StoredParts, Vec<u8>) {
    let mut state = full().state;
    let mut parts = StoredParts::default();
    parts.0.insert(4711, state.seal(4711).unwrap());
    let snapshot = state.snapshot(RecordPosition(4711));
    (state, parts, snapshot)
}

fn part_error<T>(result: Result<T, SnapshotError>) -> PartError {
    match result.map(|_| "a state") {
        Err(SnapshotError::Part { part: 4711, why }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sealed_state_reads_and_is_read_back_as_the_same_state() {
    let (state, parts, snapshot) = sealed();
    assert_eq!(state.parts(), [4711]);
    let (position, read) = parts.read(&snapshot).unwrap();
    assert!(read.snapshot(position) == snapshot);
    assert_eq!(read.parts(), [4711]);
    assert!(canonical(&read, &parts) == full().state.snapshot(RecordPosition(7)));
    assert!(State::default().seal(1).is_none());
}

#[test]
fn the_place_of_a_message_is_had_without_reading_its_part() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    for _ in 0..100 {
        log.send(topic, 0, None);
    }
    log.state.seal(1_000_000).unwrap();
    for _ in 0..10 {
        log.send(topic, 0, None);
    }
    let topic = log.state.topics().get(topic).unwrap();
    for offset in 0..110 {
        let (at, entry) =
            (topic.entry_at(0, QueueOffset(offset)).unwrap(), topic.entry(0, QueueOffset(offset)).unwrap());
        assert_eq!(at.position(), Some(entry.position), "{offset}");
        assert_eq!(matches!(at, EntryAt::Part(1_000_000, _)), offset < 100, "{offset}");
    }
    assert_eq!((topic.entry_at(0, QueueOffset(110)), topic.entry_at(1, QueueOffset(0))), (None, None));
}

#[test]
fn a_snapshot_of_a_sealed_state_does_not_grow_with_messages() {
    let sizes = [10, 10_000].map(|messages| {
        let mut log = RecordLog::new();
        let topic = log.topic("t", 4);
        for n in 0..messages {
            log.send(topic, n % 4, None);
            let half = log.half(topic);
            log.apply(end(half, TransactionOutcome::Committed)).unwrap();
        }
        log.state.seal(1_000_000).unwrap();
        log.state.snapshot(RecordPosition(1_000_000)).len()
    });
    // Offsets are varints.
    assert!(sizes[1] <= sizes[0] + 8, "{sizes:?}");
}

#[test]
fn an_idle_queue_costs_nothing_in_a_part() {
    let sizes = [1, 1024].map(|queues| {
        let mut log = RecordLog::new();
        let topic = log.topic("t", queues);
        log.send(topic, 0, None);
        log.state.seal(1).unwrap().len()
    });
    assert_eq!(sizes[0], sizes[1]);
}

#[test]
fn every_byte_of_a_part_has_its_meaning() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 2);
    let half = log.half(topic);
    log.send(topic, 1, Some("a"));
    log.apply(end(half, TransactionOutcome::Committed)).unwrap();
    let entry = |queue, offset| log.state.topics().get(topic).unwrap().entry(queue, offset).unwrap();
    let (committed, sent) = (entry(0, QueueOffset(0)), entry(1, QueueOffset(0)));
    let bytes = log.state.seal(0x0102).unwrap();
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!((&bytes[..8], u32_at(8)), (&b"VOUCHPRT"[..], 2));
    let table = [&bytes[..12], &bytes[16..40 + 5 * 56]].concat();
    assert_eq!(u32_at(12), crc32c::crc32c(&table));
    assert_eq!((u64_at(16), u64_at(24), u64_at(32)), (0x0102, 5, bytes.len() as u64));
    let data = 40 + 5 * 56;
    let rows = [
        // Kind, topic, queue; first, count, lowest, highest, place, length.
        ([1, 1, 0], [0, 1, half.0, half.0, data as u64], 16),
        ([1, 1, 1], [0, 1, sent.position.0, sent.position.0, data as u64 + 16], 16),
        ([2, 0, 0], [0, 2, 0, 0, data as u64 + 32], 80),
        ([3, 0, 0], [0, 1, 0, 0, data as u64 + 112], 40),
        ([4, 1, 0], [0, 1, 0, 0, data as u64 + 152], 16),
    ];
    for (n, (ids, numbers, len)) in rows.into_iter().enumerate() {
        let at = 40 + n * 56;
        assert_eq!([0, 4, 8].map(|field| u32_at(at + field)), ids);
        assert_eq!([16, 24, 32, 40, 48].map(|field| u64_at(at + field)), numbers);
        let start = numbers[4] as usize;
        assert_eq!(start % 8, 0);
        assert_eq!(u32_at(at + 12), crc32c::crc32c(&bytes[start..start + len]));
    }
    assert_eq!((u64_at(data), u64_at(data + 8)), (committed.position.0, committed.tag.0));
    assert_eq!((u64_at(data + 16), u64_at(data + 24)), (sent.position.0, sent.tag.0));
    assert_eq!(bytes.len(), data + 168);
    // The outcome: transaction, time, the end's record, topic, checks, outcome.
    let (time, record) = (log.now.0, log.last_position());
    assert_eq!([112, 120, 128, 144].map(|at| u64_at(data + at)), [half.0, time, record.0, 1]);
    assert_eq!([136, 140].map(|at| u32_at(data + at)), [1, 0]);
    // The mark: bytes of a half and a message, time.
    assert_eq!([152, 160].map(|at| u64_at(data + at)), [200, time]);
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_part_is_found() {
    let (state, parts, snapshot) = sealed();
    let bytes = &parts.0[&4711];
    let unsealed = full().state.snapshot(RecordPosition(7));
    let mut live = full().state;
    let mut seen = HashSet::new();
    let mut refused = |damaged: Vec<u8>, what: &str| {
        let part = bytes::Bytes::from(damaged);
        let parts = StoredParts([(4711, part.clone())].into());
        seen.insert(std::mem::discriminant(&part_error(parts.read(&snapshot))));
        part_error(live.adopt(4711, part));
        assert!(live.snapshot(RecordPosition(7)) == unsealed, "{what}: a part that was refused changed the state");
    };
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refused(flipped, &format!("bit {bit}"));
    }
    for len in 0..bytes.len() {
        refused(bytes[..len].to_vec(), &format!("cut at {len}"));
    }
    refused([&bytes[..], &[0; 8]].concat(), "longer");
    assert!(seen.len() >= 4);
    live.adopt(4711, bytes.clone()).unwrap();
    assert!(live.snapshot(RecordPosition(4711)) == snapshot && state.snapshot(RecordPosition(4711)) == snapshot);
}

#[test]
fn every_flipped_bit_of_a_snapshot_that_names_parts_is_found() {
    let (_, parts, snapshot) = sealed();
    for at in 0..snapshot.len() {
        for flip in 1..=255 {
            let mut flipped = snapshot.clone();
            flipped[at] ^= flip;
            assert!(parts.read(&flipped).is_err(), "byte {at} with {flip}");
        }
    }
    for len in 0..snapshot.len() {
        assert!(parts.read(&snapshot[..len]).is_err(), "cut at {len}");
    }
}

#[test]
fn a_part_that_is_missing_or_another_one_is_refused_by_its_id() {
    let (_, parts, snapshot) = sealed();
    let missing = part_error(StoredParts::default().read(&snapshot));
    assert!(matches!(missing, PartError::Io { kind: std::io::ErrorKind::NotFound, .. }));
    let other_id = full().state.seal(4712).unwrap();
    assert_eq!(part_error(StoredParts([(4711, other_id.clone())].into()).read(&snapshot)), PartError::Id(4712));
    assert_eq!(part_error(full().state.adopt(4711, other_id)), PartError::Id(4712));
    let mut log = full();
    let topic = log.topic_id("t");
    log.send(topic, 0, None);
    let other = log.state.seal(4711).unwrap();
    assert!(matches!(part_error(StoredParts([(4711, other)].into()).read(&snapshot)), PartError::Other { .. }));
    let error = parts.read(&snapshot[..snapshot.len() - 1]).unwrap_err();
    assert!(matches!(error, SnapshotError::Short(_)));
    assert!(part_error(StoredParts::default().read(&snapshot)).to_string().contains("cannot be read"));
}

/// Damage that a checksum would not find.
#[test]
fn a_snapshot_whose_queues_need_a_part_that_it_does_not_name_is_refused() {
    let (_, parts, snapshot) = sealed();
    let unnamed = with_section(&snapshot, 7, &[0]);
    assert!(matches!(parts.read(&unnamed), Err(SnapshotError::Section { section: 2, .. })));
}

/// What another log's state sealed, or this one's with a gap before it.
#[test]
fn a_part_that_does_not_fit_is_refused_and_changes_nothing() {
    let mut log = RecordLog::new();
    let (one, two) = (log.topic("one", 1), log.topic("two", 2));
    log.send(one, 0, None);
    let mut sealer = log.replay();
    let first = sealer.seal(10).unwrap();
    log.send(one, 0, None);
    log.send(two, 1, None);
    let mut sealer = crate::testing::replay(sealer, &log.records[log.records.len() - 2..]);
    let second = sealer.seal(20).unwrap();
    let refused = |state: &mut State, part, bytes: &bytes::Bytes| {
        let before = state.snapshot(RecordPosition(0));
        match state.adopt(part, bytes.clone()) {
            Err(SnapshotError::Part { part: named, why: PartError::Misfit(why) }) if named == part => {
                assert!(state.snapshot(RecordPosition(0)) == before, "{why}");
                why
            }
            other => panic!("{other:?}"),
        }
    };
    // A gap.
    assert!(refused(&mut log.state, 20, &second).contains("follow"));
    // Entries that this state does not have yet.
    assert!(refused(&mut State::default(), 10, &first).contains("never was"));
    let mut behind = crate::testing::replay(State::default(), &log.records[..3]);
    assert!(refused(&mut behind, 10, &first).contains("follow"));
    // Another message in the same place.
    let mut other = RecordLog::new();
    let topic = other.topic("one", 1);
    other.topic("two", 2);
    other.send(topic, 0, Some("tag"));
    assert!(refused(&mut other.state, 10, &first).contains("differs"));
    // The same queue, sent by somebody else.
    let mut other = RecordLog::new();
    let topic = other.topic("one", 1);
    other.topic("two", 2);
    let head = crate::testing::head(topic, 0, "somebody", 0);
    other.apply(Record::Message(head)).unwrap();
    assert!(refused(&mut other.state, 10, &first).contains("lately differs"));
    // In order, each once.
    log.state.adopt(10, first.clone()).unwrap();
    assert!(refused(&mut log.state, 10, &first).contains("already"));
    log.state.adopt(20, second).unwrap();
    assert!(refused(&mut log.state, 10, &first).contains("already"));
    assert!(log.state.snapshot(RecordPosition(0)) == sealer.snapshot(RecordPosition(0)));
}

#[test]
fn a_part_is_needed_until_its_topics_are_deleted_and_its_messages_forgotten() {
    let mut log = RecordLog::new();
    let (one, two) = (log.topic("one", 1), log.topic("two", 1));
    log.send(one, 0, None);
    assert!(log.state.seal(10).is_some());
    log.send(two, 0, None);
    assert!(log.state.seal(20).is_some());
    let delete = |name| Record::TopicDelete(TopicDelete { name: ResourceName::plain(name), force: true });
    log.apply(delete("one")).unwrap();
    assert_eq!(log.state.parts(), [10, 20], "a resend is still recognised by part 10");
    log.pass_ms(600_001);
    log.send(two, 0, None);
    assert_eq!(log.state.parts(), [20]);
    assert!(log.state.seal(30).is_some());
    assert_eq!(log.state.parts(), [20, 30]);
    log.apply(delete("two")).unwrap();
    assert_eq!(log.state.parts(), [30]);
    // A topic of the same name has another number: nothing of the old one comes back.
    let again = log.topic("one", 1);
    assert_eq!((log.state.topics().get(again).unwrap().end(0), log.state.seal(40)), (QueueOffset(0), None));
}

#[test]
fn a_state_adopts_a_part_whose_topics_and_messages_it_forgot_meanwhile() {
    let mut log = RecordLog::new();
    let (one, two) = (log.topic("one", 1), log.topic("two", 1));
    log.send(one, 0, None);
    log.send(two, 0, None);
    let part = log.replay().seal(10).unwrap();
    log.apply(Record::TopicDelete(TopicDelete { name: ResourceName::plain("one"), force: true })).unwrap();
    log.pass_ms(600_001);
    log.send(two, 0, None);
    let parts = StoredParts([(10, part.clone())].into());
    log.state.adopt(10, part).unwrap();
    assert_eq!(log.state.parts(), [10]);
    assert!(canonical(&log.state, &parts) == log.replay().snapshot(RecordPosition(7)));
    log.apply(Record::TopicDelete(TopicDelete { name: ResourceName::plain("two"), force: true })).unwrap();
    assert!(log.state.parts().is_empty());
    assert!(canonical(&log.state, &StoredParts::default()) == log.replay().snapshot(RecordPosition(7)));
}

#[test]
fn a_state_adopts_a_part_of_which_it_forgot_the_first_messages_and_is_read_back_without_them() {
    let mut log = RecordLog::new();
    let topic = log.topic("t", 1);
    log.send(topic, 0, None);
    log.pass_ms(300_000);
    log.send(topic, 0, None);
    log.send(topic, 0, Some("a"));
    let part = log.replay().seal(10).unwrap();
    log.pass_ms(300_001);
    log.send(topic, 0, None);
    let parts = StoredParts([(10, part.clone())].into());
    log.state.adopt(10, part).unwrap();
    assert!(canonical(&log.state, &parts) == log.replay().snapshot(RecordPosition(7)));
    let (_, mut read) = parts.read(&log.state.snapshot(RecordPosition(0))).unwrap();
    assert!(read.seal(20) == log.state.seal(20));
}
