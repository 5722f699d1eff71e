//! Parts that a disk damages: read from the other copy, or left out and told.

use bytes::Bytes;

use crate::state::{Copies, Gaps, IndexEntry, PartError, QueueGap, SnapshotError};
use crate::testing::{RecordLog, StoredParts, end};
use crate::{QueueOffset, RecordPosition, State, TopicId, TransactionOutcome};

/// Three parts of two topics, each with messages that were sent and transactions that ended; and the last part's rest.
struct Sealed {
    state: State,
    parts: StoredParts,
    topics: [TopicId; 2],
}

fn sealed() -> Sealed {
    let mut log = RecordLog::new();
    let topics = [log.topic("a", 2), log.topic("b", 1)];
    let mut parts = StoredParts::default();
    for part in [10_000, 20_000, 30_000] {
        for n in 0..100 {
            log.send(topics[0], n % 2, None);
            log.send(topics[1], 0, None);
        }
        let half = log.half(topics[1]);
        log.apply(end(half, TransactionOutcome::RolledBack)).unwrap();
        parts.0.insert(part, log.state.seal(part).unwrap());
    }
    log.send(topics[1], 0, None);
    Sealed { state: log.state, parts, topics }
}

fn entries(state: &State, topic: TopicId, queue: u32) -> Vec<Option<IndexEntry>> {
    let topic = state.topics().get(topic).unwrap();
    QueueOffset::each(QueueOffset::FIRST..topic.end(queue)).map(|offset| topic.entry(queue, offset)).collect()
}

/// The same bytes, of which one differs.
fn damaged(bytes: &Bytes, at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes.into()
}

/// Where the entries of the first row begin: those of the first queue.
fn first_entry(part: &Bytes) -> usize {
    40 + 56 * u64::from_le_bytes(part[24..32].try_into().unwrap()) as usize
}

#[test]
fn what_one_copy_lost_is_read_from_the_other_and_noted_until_both_are_whole_again() {
    let Sealed { state, parts, topics } = sealed();
    let (position, mut read) = parts.read(&state.snapshot(RecordPosition(30_000))).unwrap();
    let expected = entries(&state, topics[0], 0);
    let part = &parts.0[&20_000];
    let (first, second) = (damaged(part, first_entry(part) + 3), part.clone());
    read.read_from(20_000, Copies { first, second }).unwrap();
    assert_eq!(read.damaged_parts(), [0; 0], "nothing was read yet");
    assert_eq!(entries(&read, topics[0], 0), expected);
    assert_eq!((read.damaged_parts(), read.lost_parts()), (vec![20_000], vec![]));
    read.read_from(20_000, part.clone().into()).unwrap();
    assert_eq!((entries(&read, topics[0], 0), read.damaged_parts()), (expected.clone(), vec![]));

    // Without a second copy it is lost, and so told.
    read.read_from(20_000, damaged(part, first_entry(part) + 3).into()).unwrap();
    let lost = entries(&read, topics[0], 0);
    assert_eq!((&lost[..50], &lost[100..]), (&expected[..50], &expected[100..]));
    assert!(lost[50..100].iter().all(Option::is_none));
    assert_eq!(read.lost_parts(), [20_000]);
    let lowest = read.topics().get(topics[0]).unwrap().lowest_position_from(0, QueueOffset(60));
    assert_eq!(lowest, Some(RecordPosition::START), "it may lie anywhere: the log keeps all of it");
    assert!(read.snapshot(position) == state.snapshot(RecordPosition(30_000)), "none of it is in a snapshot");

    // Another part is never taken for it.
    let refused = read.read_from(20_000, parts.0[&30_000].clone().into()).unwrap_err();
    assert!(matches!(refused, SnapshotError::Part { part: 20_000, why: PartError::Id(30_000) }));
    let refused = read.read_from(20_000, damaged(part, 12).into()).unwrap_err();
    assert!(matches!(refused, SnapshotError::Part { part: 20_000, why: PartError::Checksum { .. } }));
    read.read_from(25_000, part.clone().into()).expect("nobody asks for that part");
}

#[test]
fn without_a_part_that_is_lost_the_rest_is_read_and_what_is_missing_is_told() {
    let Sealed { state, parts, topics: [a, b] } = sealed();
    let snapshot = state.snapshot(RecordPosition(30_000));
    let with = |parts: &StoredParts| {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let read =
            State::from_snapshot_with_gaps(&snapshot, &mut |part| parts.0.get(&part).cloned().ok_or_else(missing));
        read.unwrap().1
    };
    let whole = with(&parts);
    assert_eq!(whole.gaps(), Gaps::default());
    assert_eq!(entries(&whole, b, 0), entries(&state, b, 0));

    // Which one is gone, and offsets of each queue from and to: 50 messages of each queue of `a` in a part, 100 of `b`.
    for (n, part) in [10_000, 20_000, 30_000].into_iter().enumerate() {
        let mut others = parts.clone();
        others.0.remove(&part);
        assert!(others.read(&snapshot).is_err());
        let read = with(&others);
        let n = n as u64;
        let gap = |topic, queue, len: u64| QueueGap {
            topic,
            queue,
            offsets: QueueOffset(n * len)..QueueOffset((n + 1) * len),
        };
        // What is remembered has no gaps: what came before a gap is forgotten with it.
        let gaps =
            Gaps { queues: vec![gap(a, 0, 50), gap(a, 1, 50), gap(b, 0, 100)], sent: (n + 1) * 201, outcomes: n + 1 };
        assert_eq!(read.gaps(), gaps, "{part}");
        let (found, expected) = (entries(&read, b, 0), entries(&state, b, 0));
        for (offset, (found, expected)) in (0..).zip(found.into_iter().zip(expected)) {
            let lost = (n * 100..(n + 1) * 100).contains(&offset);
            assert_eq!(found, expected.filter(|_| !lost), "{part}: offset {offset}");
        }
        let (left, all) = (read.outcomes().len(), state.outcomes().len());
        assert_eq!((left as u64, all as u64), (3 - gaps.outcomes, 3));
    }

    // One row is lost, and the others of its part are read.
    let mut one_row = parts.clone();
    let part = one_row.0.get_mut(&20_000).unwrap();
    *part = damaged(part, first_entry(part));
    assert!(one_row.read(&snapshot).is_err());
    let gaps = with(&one_row).gaps();
    assert_eq!(gaps.queues, [QueueGap { topic: a, queue: 0, offsets: QueueOffset(50)..QueueOffset(100) }]);
    assert_eq!((gaps.sent, gaps.outcomes), (0, 0));
}

#[test]
fn a_snapshot_says_which_parts_it_names_and_whether_it_is_as_it_was_written() {
    let Sealed { state, parts, .. } = sealed();
    let snapshot = state.snapshot(RecordPosition(30_000));
    State::check_snapshot(&snapshot).unwrap();
    assert_eq!(State::parts_of_snapshot(&snapshot).unwrap(), parts.read(&snapshot).unwrap().1.named_parts());
    for at in 0..snapshot.len() {
        let mut flipped = snapshot.clone();
        flipped[at] ^= 1;
        assert!(State::check_snapshot(&flipped).is_err(), "byte {at}");
        assert!(State::check_snapshot(&snapshot[..at]).is_err(), "cut at {at}");
    }
}
