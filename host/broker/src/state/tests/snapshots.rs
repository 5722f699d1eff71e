//! Snapshots: read back as written, and refused when they are damaged.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::State;
use crate::record::codec::Writer;
use crate::record::{Again, LeasedRange, Park, Record, TopicDelete};
use crate::state::SnapshotError;
use crate::testing::{RecordLog, ack, again, end, lease, read_snapshot, unknown, whole};
use crate::{GroupConfig, QueueOffset, RecordPosition, ResourceName, TransactionOutcome};

/// A state in which every section holds something that every log has, in a log of the first feature level.
pub(super) fn full() -> RecordLog {
    full_at(1)
}

/// The same in a log of this level.
pub(super) fn full_at(feature_level: u32) -> RecordLog {
    let mut log = RecordLog::at_level(feature_level);
    let topic = log.topic("t", 2);
    log.topic("gone", 1);
    log.apply(Record::TopicDelete(TopicDelete { name: ResourceName::plain("gone"), force: false })).unwrap();
    log.send_all(topic, &[Some("a"), None, Some("b"), None]);
    let [open, asked, parked, committed] = [(); 4].map(|()| log.half(topic));
    log.apply(unknown(asked, 1, log.now)).unwrap();
    log.apply(Record::Park(Park { transaction: parked, reason: "no answer".to_owned() })).unwrap();
    log.apply(end(committed, TransactionOutcome::Committed)).unwrap();
    assert_ne!(open, asked);
    let group = log.member("g", topic, GroupConfig::default());
    log.apply(lease(&log, group, topic, 1, whole(0, 0, 2))).unwrap();
    let range = LeasedRange {
        queue: 0,
        from: QueueOffset(2),
        to: QueueOffset(4),
        leased: vec![QueueOffset(3)],
        left: vec![QueueOffset(2)],
    };
    let Record::Lease(mut renewed) = lease(&log, group, topic, 2, range) else { unreachable!() };
    renewed.renewed_for = Some("client".to_owned());
    log.apply(Record::Lease(renewed)).unwrap();
    log.apply(ack(group, topic, 0, 1)).unwrap();
    log.pass_ms(60_000);
    log.apply(again(&log, group, topic, 3, &[(1, Again::Leased)])).unwrap();
    super::plugins::push(&mut log, "p", "1", 1).unwrap();
    log.apply(super::plugins::chunk(2, 0, 9, 3)).unwrap();
    let binding = crate::record::BindingPut {
        name: "b".to_owned(),
        digest: [1; 32],
        spec: r#"{"plugin":"p:1","topics":["t"],"groups":["g"]}"#.to_owned(),
        expected_revision: None,
        secrets: BTreeSet::new(),
        keeps: None,
        names_life: false,
    };
    log.apply(Record::BindingPut(binding)).unwrap();
    log
}

/// The section with this number, as a range of the snapshot's bytes without its head.
pub(super) fn section(bytes: &[u8], number: u16) -> std::ops::Range<usize> {
    let mut at = 20;
    loop {
        let found = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let len = u64::from_le_bytes(bytes[at + 3..at + 11].try_into().unwrap()) as usize;
        let body = at + 15..at + 15 + len;
        if found == number {
            return body;
        }
        at = body.end;
    }
}

/// Replaces the contents of a section, with length and checksum that fit.
pub(super) fn with_section(bytes: &[u8], number: u16, contents: &[u8]) -> Vec<u8> {
    let range = section(bytes, number);
    let mut out = bytes[..range.start].to_vec();
    let head = range.start;
    out[head - 12..head - 4].copy_from_slice(&(contents.len() as u64).to_le_bytes());
    let checked = if out[head - 13] == 1 { vec![] } else { out[head - 15..head - 4].to_vec() };
    out[head - 4..].copy_from_slice(&crc32c::crc32c(&[&checked, contents].concat()).to_le_bytes());
    out.extend_from_slice(contents);
    out.extend_from_slice(&bytes[range.end..]);
    out
}

fn damaged_section(bytes: &[u8]) -> u16 {
    match read_snapshot(bytes) {
        Err(SnapshotError::Section { section, .. }) => section,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_snapshot_says_where_it_ends_and_reads_back_as_the_same_state() {
    let log = full();
    let bytes = log.state.snapshot(RecordPosition(4711));
    let (position, state) = read_snapshot(&bytes).unwrap();
    assert_eq!(position, RecordPosition(4711));
    assert!(state.snapshot(RecordPosition(4711)) == bytes);
    assert_eq!(state.cluster(), log.state.cluster());
    assert_eq!(state.plugins(), log.state.plugins());
    assert_eq!(state.open_transactions().len(), log.state.open_transactions().len());
}

#[test]
fn an_empty_state_has_a_snapshot_too() {
    let bytes = State::default().snapshot(RecordPosition(0));
    let (position, state) = read_snapshot(&bytes).unwrap();
    assert_eq!((position, state.snapshot(RecordPosition(0)) == bytes), (RecordPosition(0), true));
}

#[test]
fn the_head_and_the_sections_of_a_snapshot_have_these_bytes() {
    let bytes = State::default().snapshot(RecordPosition(0x0102));
    let head: Vec<u8> = [b"VOUCHSNP".as_slice(), &[2, 1, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(&bytes[..16], head);
    assert_eq!(bytes[16..20], crc32c::crc32c(&head).to_le_bytes());
    // Parts: section 7 version 2, one byte: none. The checksum covers the head too.
    assert_eq!(bytes[20..31], [7, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[31..35], crc32c::crc32c(&[7, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]).to_le_bytes());
    assert_eq!(bytes[35], 0);
    // Cluster: section 1 version 1, ten bytes: no identity, no version text, clock 0.
    assert_eq!(bytes[36..47], [1, 0, 1, 10, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[47..51], crc32c::crc32c(&[0; 10]).to_le_bytes());
    assert_eq!(bytes[51..61], [0; 10]);
    assert_eq!((1..=7).map(|n| section(&bytes, n).len()).collect::<Vec<_>>(), [10, 6, 5, 19, 33, 3, 1]);
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let bytes = full().state.snapshot(RecordPosition(4711));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(read_snapshot(&flipped).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(read_snapshot(&bytes[..len]).is_err(), "cut at {len}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(read_snapshot(&longer), Err(SnapshotError::Trailing(_))));
}

#[test]
fn a_section_of_another_version_is_refused_by_name() {
    let mut bytes = State::default().snapshot(RecordPosition(0));
    bytes[38] = 2;
    let error = read_snapshot(&bytes).unwrap_err();
    assert_eq!(error, SnapshotError::Unexpected { found: 1, version: 2, expected: 1 });
    assert!(error.to_string().contains("another version of Vouch"));
    assert_eq!(read_snapshot(b"something else").unwrap_err(), SnapshotError::Magic);
}

#[test]
fn huge_counts_with_a_fitting_checksum_ask_for_no_memory() {
    let bytes = State::default().snapshot(RecordPosition(0));
    let huge = |prefix: &[u8]| {
        let mut contents = prefix.to_vec();
        Writer(&mut contents).varint(u64::MAX);
        contents
    };
    // In front of the count: last topic, last group, nothing, no open ones and two numbers, two counters and two numbers,
    // nothing, nothing.
    let prefixes = [(2, &[0; 4][..]), (3, &[0; 4]), (4, &[]), (4, &[0; 17]), (5, &[0; 32]), (6, &[]), (7, &[])];
    for (number, prefix) in prefixes {
        assert_eq!(damaged_section(&with_section(&bytes, number, &huge(prefix))), number);
    }
}

#[test]
fn a_queue_of_an_impossible_length_asks_for_no_memory() {
    let mut log = RecordLog::new();
    log.topic("t", 1);
    let bytes = log.state.snapshot(RecordPosition(0));
    let contents = bytes[section(&bytes, 2)].to_vec();
    // The queue's length is the byte in front of the empty list of deleted topics.
    let mut longer = contents[..contents.len() - 2].to_vec();
    Writer(&mut longer).varint(u64::from(u32::MAX));
    longer.extend([0; 64]);
    assert_eq!(damaged_section(&with_section(&bytes, 2, &longer)), 2);
}

#[test]
fn settings_with_too_many_queues_ask_for_no_memory() {
    let mut log = RecordLog::new();
    log.topic("t", 1024);
    let bytes = log.state.snapshot(RecordPosition(0));
    let contents = bytes[section(&bytes, 2)].to_vec();
    let at = contents.windows(4).position(|window| window == b"1024").unwrap();
    let mut more = contents;
    more[at..at + 4].copy_from_slice(b"9999");
    assert_eq!(damaged_section(&with_section(&bytes, 2, &more)), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Damage that a checksum would not find: a refusal or a state, never a panic.
    #[test]
    fn changed_sections_with_fitting_checksums_never_panic(
        number in 1u16..=7,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let bytes = full().state.snapshot(RecordPosition(0));
        let mut contents = bytes[section(&bytes, number)].to_vec();
        for (at, value) in changes {
            let at = at.index(contents.len());
            contents[at] = value;
        }
        if let Ok((_, state)) = read_snapshot(&with_section(&bytes, number, &contents)) {
            state.snapshot(RecordPosition(0));
        }
    }
}
