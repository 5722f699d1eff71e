use proptest::prelude::*;
use vouch_commitlog::simulated::{Image, SimDisk, open};
use vouch_commitlog::{EntryHeader, EntryKind, LogConfig, LogPosition};
use vouch_consensus::EntryRole;

use super::*;

const CLUSTER: [u8; 16] = [0xc1; 16];
const SEGMENT: u64 = 16 << 10;

fn identity() -> LogIdentity {
    LogIdentity { cluster_id: CLUSTER, shard: 0, segment_size: SEGMENT }
}

/// Three entries of a real log: records, a change of the members, a mark.
fn spans() -> Vec<EntrySpan> {
    let disk = SimDisk::new(Image::new());
    let config = LogConfig { segment_size: SEGMENT, zero_ahead: 4 << 10, ..LogConfig::new("log", CLUSTER, 0) };
    let (mut appender, reader, _) = open(&disk, &config, drop, &mut |_| Ok(())).unwrap();
    let entries: [(EntryKind, &[u8]); 3] =
        [(EntryKind::Records, b"records"), (EntryKind::Members, b"members"), (EntryKind::Mark, b"")];
    let mut from = LogPosition::START;
    let spans = (1..).zip(entries).map(|(index, (kind, payload))| {
        appender.append(EntryHeader { term: 3, index, leader_time_ms: 5, kind }, &[payload]).unwrap();
        let (begin, end) = (from, appender.appended());
        from = end;
        reader.span(begin, end).unwrap()
    });
    spans.collect()
}

fn append(previous: u64, spans: &[EntrySpan]) -> GroupMessage {
    let entries =
        spans.iter().map(|span| (EntryId { index: span.index(), term: span.term() }, role_of(span.kind()))).collect();
    let body = Said::Append(Append { previous: EntryId { index: previous, term: 2 }, commit: 1, entries });
    GroupMessage { from: NodeId(1), to: NodeId(2), term: 3, body }
}

fn bytes_of(message: &GroupMessage, spans: &[EntrySpan]) -> Vec<u8> {
    encode(message, spans).concat()
}

fn read(bytes: &[u8]) -> Result<(GroupMessage, Vec<EntrySpan>), GroupFrameFault> {
    decode(Bytes::copy_from_slice(bytes), &identity())
}

#[test]
fn every_kind_of_message_has_these_bytes() {
    let name = |index| EntryId { index, term: 2 };
    let number = |number: u8| [&[number][..], &[0; 7]].concat();
    let names = |index| [number(index), number(2)].concat();
    let rejected = Some(Rejected { hint: name(4) });
    for (said, kind, flags, body) in [
        (
            Said::Append(Append { previous: name(9), commit: 8, entries: Vec::new() }),
            0,
            0,
            [names(9), number(8), vec![0; 4]].concat(),
        ),
        (Said::Appended(AppendAnswer { index: 7, commit: 6, rejected: None }), 1, 0, [number(7), number(6)].concat()),
        (
            Said::Appended(AppendAnswer { index: 7, commit: 6, rejected }),
            1,
            1,
            [number(7), number(6), names(4)].concat(),
        ),
        (
            Said::AskVote { pre: true, last: name(5), commit: name(3), transfer: false },
            2,
            1,
            [names(5), names(3)].concat(),
        ),
        (
            Said::AskVote { pre: false, last: name(5), commit: name(3), transfer: true },
            2,
            2,
            [names(5), names(3)].concat(),
        ),
        (Said::Vote { pre: true, granted: false, commit: name(3) }, 3, 1, names(3)),
        (Said::Vote { pre: false, granted: true, commit: name(3) }, 3, 2, names(3)),
        (Said::Heartbeat { commit: 8 }, 4, 0, number(8)),
        (Said::HeartbeatAnswer { commit: 8 }, 5, 0, number(8)),
        (Said::TakeOver, 6, 0, Vec::new()),
        (Said::Behind { covered: name(4) }, 7, 0, names(4)),
    ] {
        let message = GroupMessage { from: NodeId(1), to: NodeId(2), term: 3, body: said };
        let golden = [vec![1, kind, flags, 0], number(1), number(2), number(3), body].concat();
        assert_eq!(bytes_of(&message, &[]), golden, "{message:?}");
        assert_eq!(read(&golden), Ok((message, Vec::new())));
    }
}

#[test]
fn entries_travel_behind_a_table_of_their_lengths_and_their_payloads_are_not_copied() {
    let spans = spans();
    let message = append(0, &spans);
    let bytes = bytes_of(&message, &spans);
    assert_eq!(bytes[52..56], 3_u32.to_le_bytes());
    let lengths: Vec<u8> = spans.iter().flat_map(|span| (span.encoded_len() as u32).to_le_bytes()).collect();
    assert_eq!(bytes[56..68], lengths);
    assert_eq!(bytes[68..], spans.iter().flat_map(EntrySpan::encode).collect::<Vec<_>>());
    let (read, read_spans) = read(&bytes).unwrap();
    assert_eq!((read, &read_spans), (message.clone(), &spans));
    let Said::Append(appended) = &message.body else { unreachable!() };
    let roles: Vec<_> = appended.entries.iter().map(|(_, role)| *role).collect();
    assert_eq!(roles, [EntryRole::Ordinary, EntryRole::Members, EntryRole::Ordinary]);
    let pieces = encode(&message, &spans);
    assert!(pieces.iter().any(|piece| piece.as_ptr() == spans[0].payload().as_ptr()));
}

#[test]
fn what_is_wrong_with_a_frame_is_told() {
    let spans = spans();
    let good = bytes_of(&append(0, &spans), &spans);
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        read(&bytes).unwrap_err()
    };
    assert_eq!(refused(&|bytes| bytes[0] = 2), GroupFrameFault::Version(2));
    assert_eq!(refused(&|bytes| bytes[1] = 8), GroupFrameFault::Kind { kind: 8, flags: 0 });
    assert_eq!(refused(&|bytes| bytes[2] = 4), GroupFrameFault::Kind { kind: 0, flags: 4 });
    assert_eq!(refused(&|bytes| bytes.push(0)), GroupFrameFault::Long(1));
    assert_eq!(refused(&|bytes| bytes[52..56].fill(0xff)), GroupFrameFault::Short);
    assert_eq!(refused(&|bytes| bytes[28] = 1), GroupFrameFault::Order { expected: 2, found: 1 });
    assert!(matches!(refused(&|bytes| *bytes.last_mut().unwrap() ^= 1), GroupFrameFault::Entry(_)));
    let other = LogIdentity { cluster_id: [9; 16], ..identity() };
    assert!(matches!(decode(good.into(), &other), Err(GroupFrameFault::Entry(_))));
}

fn names() -> impl Strategy<Value = EntryId> {
    (any::<u64>(), any::<u64>()).prop_map(|(index, term)| EntryId { index, term })
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        (any::<u64>(), any::<u64>(), proptest::option::of(names())).prop_map(|(index, commit, hint)| {
            Said::Appended(AppendAnswer { index, commit, rejected: hint.map(|hint| Rejected { hint }) })
        }),
        (any::<bool>(), names(), names(), any::<bool>()).prop_map(|(pre, last, commit, transfer)| Said::AskVote {
            pre,
            last,
            commit,
            transfer
        }),
        (any::<bool>(), any::<bool>(), names()).prop_map(|(pre, granted, commit)| Said::Vote { pre, granted, commit }),
        any::<u64>().prop_map(|commit| Said::Heartbeat { commit }),
        any::<u64>().prop_map(|commit| Said::HeartbeatAnswer { commit }),
        Just(Said::TakeOver),
        names().prop_map(|covered| Said::Behind { covered }),
    ]
}

proptest! {
    #[test]
    fn a_message_reads_back_as_it_was_said(from: u64, to: u64, term: u64, body in said()) {
        let message = GroupMessage { from: NodeId(from), to: NodeId(to), term, body };
        prop_assert_eq!(read(&bytes_of(&message, &[])), Ok((message, Vec::new())));
    }

    #[test]
    fn some_entries_of_a_log_read_back(first in 0_usize..3, count in 0_usize..3) {
        let all = spans();
        let spans = &all[first..(first + count).min(3)];
        let message = append(first as u64, spans);
        prop_assert_eq!(read(&bytes_of(&message, spans)), Ok((message, spans.to_vec())));
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes_and_nothing_panics(
        head in proptest::option::of((0_u8..8, 0_u16..4)), tail in proptest::collection::vec(any::<u8>(), 0..200)
    ) {
        let mut bytes = head.map_or_else(Vec::new, |(kind, flags)| vec![1, kind, flags as u8, 0]);
        bytes.extend(tail);
        if let Ok((message, spans)) = read(&bytes) {
            prop_assert_eq!(bytes_of(&message, &spans), bytes);
        }
    }

    #[test]
    fn a_frame_with_a_byte_changed_is_refused_or_another_message(at in 0_usize..400, by in 1_u8..) {
        let spans = spans();
        let message = append(0, &spans);
        let mut bytes = bytes_of(&message, &spans);
        let at = at % bytes.len();
        bytes[at] ^= by;
        if let Ok(read) = read(&bytes) {
            prop_assert!(read.0 != message && read.1 == spans, "what the entries hold is theirs");
        }
    }
}
