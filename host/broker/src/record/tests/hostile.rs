//! Bytes that no version wrote: an error that says what is wrong, never a panic and never a guess.

use bytes::Bytes;
use proptest::prelude::*;

use super::samples::{Sample, full_message, message_bytes, samples};
use crate::check::CheckOverrides;
use crate::record::codec::{Reader, Writer};
use crate::record::*;
use crate::{Generation, GroupId, MessageKind, Millis, QUEUES_MAX, QueueOffset, ResourceName, TopicConfig, TopicId};

fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let (frame, _) = Frame::split(bytes)?;
    Record::decode(&frame)
}

/// The record with other bytes and a checksum that fits them.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

#[test]
fn an_unknown_kind_or_version_is_refused_and_says_what_to_start() {
    let mut unknown_kind = samples().remove(3).bytes;
    unknown_kind[8..10].copy_from_slice(&999u16.to_le_bytes());
    let error = decode(&unknown_kind).unwrap_err();
    assert_eq!(error, DecodeError::UnknownKind { kind: 999, version: 1 });
    assert!(error.to_string().contains("start the version that wrote it"));
    for mut sample in samples() {
        let newest = sample.bytes[10];
        for unknown in [0, newest + 1, 255] {
            sample.bytes[10] = unknown;
            let refused =
                matches!(decode(&sample.bytes), Err(DecodeError::UnknownKind { version, .. }) if version == unknown);
            assert!(refused, "{} {unknown}", sample.name);
        }
    }
    let mut message = message_bytes(MessageKind::Normal, CheckOverrides::default());
    message[10] = 2;
    let error = decode_stored(&Bytes::from(sealed(message))).unwrap_err();
    assert_eq!(error, DecodeError::UnknownKind { kind: 16, version: 2 });
}

#[test]
fn the_reserved_byte_is_kept_for_later_versions() {
    for mut sample in samples() {
        sample.bytes[11] = 1;
        assert!(matches!(decode(&sample.bytes), Err(DecodeError::Value { value: 1, .. })), "{}", sample.name);
    }
}

#[test]
fn a_record_that_ends_early_or_late_is_refused_at_every_byte() {
    for Sample { name, bytes, .. } in samples() {
        for len in 0..bytes.len() {
            assert!(Frame::split(&bytes[..len]).is_err(), "{name} at {len}");
        }
        let message = matches!(name, "Message" | "Half");
        for len in FRAME_LEN..bytes.len() {
            let cut = sealed(bytes[..len].to_vec());
            if message {
                assert!(decode_stored(&Bytes::from(cut)).is_err(), "{name} at {len}");
            } else {
                assert!(decode(&cut).is_err(), "{name} at {len}");
            }
        }
        let longer = sealed([bytes.as_slice(), &[0]].concat());
        let read = if message { decode_stored(&Bytes::from(longer)).map(|_| ()) } else { decode(&longer).map(|_| ()) };
        assert_eq!(read, Err(DecodeError::Trailing(1)), "{name}");
    }
}

#[test]
fn a_flipped_bit_is_found_when_a_message_is_read() {
    let bytes = message_bytes(MessageKind::Transaction, CheckOverrides::default());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_stored(&Bytes::from(flipped)).is_err(), "bit {bit}");
    }
}

#[test]
fn a_flipped_bit_is_found_by_the_frame_of_every_record() {
    for Sample { name, bytes, .. } in samples() {
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let found = Frame::split(&flipped).and_then(|(frame, _)| frame.verify());
            assert!(found.is_err(), "{name} bit {bit}");
        }
    }
}

#[test]
fn a_message_record_says_the_same_kind_twice_or_is_refused() {
    let mut bytes = message_bytes(MessageKind::Transaction, CheckOverrides::default());
    bytes[8..10].copy_from_slice(&16u16.to_le_bytes());
    let error = decode_stored(&Bytes::from(sealed(bytes))).unwrap_err();
    assert_eq!(error, DecodeError::Value { field: "kind", value: 4 });
    let mut other = Vec::new();
    BindingDelete { name: "b".to_owned() }.encode(&mut other);
    assert!(matches!(decode_stored(&Bytes::from(other)), Err(DecodeError::Value { value: 69, .. })));
}

#[test]
fn a_binding_of_version_2_names_secrets_each_once_and_ascending() {
    let (name, spec, secrets) = ("b".to_owned(), "{}".to_owned(), ["q", "r"].map(str::to_owned).into());
    let mut sample = Vec::new();
    BindingPut { name, digest: [1; 32], spec, expected_revision: None, secrets, keeps: None, names_life: false }
        .encode(&mut sample);
    assert!(sample.ends_with(b"\x02\x01q\x01r"), "the list that the others replace");
    let with = |list: &[u8]| decode(&sealed([&sample[..sample.len() - 5], list].concat()));
    assert!(with(b"\x02\x01q\x01s").is_ok());
    for refused in [&b"\x02\x01r\x01q"[..], b"\x02\x01q\x01q", b"\x00"] {
        assert!(matches!(with(refused), Err(DecodeError::Value { field: "secrets", .. })), "{refused:?}");
    }
    let mut of_version_1 = sample;
    of_version_1[10] = 1;
    assert_eq!(decode(&sealed(of_version_1)), Err(DecodeError::Trailing(5)));
}

fn lease(fresh: Vec<LeasedRange>) -> Lease {
    let (group, topic) = (GroupId(1), TopicId(1));
    Lease { group, topic, generation: Generation(1), deadline: Millis(1), renewed_for: None, fresh, again: vec![] }
}

#[test]
fn a_lease_names_only_offsets_of_its_range_each_once() {
    let with = |leased: Vec<u64>, left: Vec<u64>| {
        let [leased, left] = [leased, left].map(|offsets| offsets.into_iter().map(QueueOffset).collect());
        let mut bytes = Vec::new();
        lease(vec![LeasedRange { queue: 0, from: QueueOffset(5), to: QueueOffset(8), leased, left }])
            .encode(&mut bytes);
        decode(&bytes)
    };
    assert!(with(vec![5, 7], vec![6]).is_ok());
    for (leased, left) in [(vec![8], vec![]), (vec![], vec![8]), (vec![5, 5], vec![]), (vec![], vec![6, 6])] {
        assert!(matches!(with(leased, left), Err(DecodeError::Value { field: "offset", .. })));
    }
}

#[test]
fn a_range_beyond_the_last_offset_is_refused() {
    let mut bytes = Vec::new();
    lease(vec![LeasedRange {
        queue: 0,
        from: QueueOffset(u64::MAX - 1),
        to: QueueOffset(u64::MAX),
        leased: vec![],
        left: vec![],
    }])
    .encode(&mut bytes);
    assert!(decode(&bytes).is_ok());
    // The length is the byte before the two empty lists and the empty list of redeliveries.
    let at = bytes.len() - 4;
    assert_eq!(bytes[at], 1);
    bytes[at] = 2;
    assert!(matches!(decode(&sealed(bytes)), Err(DecodeError::Value { field: "length", value: 2 })));
}

#[test]
fn a_topic_without_queues_or_with_too_many_is_refused() {
    let with = |queues| {
        let config = TopicConfig { queues, ..TopicConfig::default() };
        let mut bytes = Vec::new();
        TopicPut { name: ResourceName::plain("t"), config, expected_revision: None }.encode(&mut bytes);
        decode(&bytes)
    };
    assert!(with(1).is_ok() && with(QUEUES_MAX).is_ok());
    assert!(with(0).is_err() && with(QUEUES_MAX + 1).is_err() && with(u32::MAX).is_err());
}

#[test]
fn a_number_has_one_encoding() {
    let read = |bytes: &[u8]| Reader(bytes).varint("n");
    for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
        let mut bytes = Vec::new();
        Writer(&mut bytes).varint(value);
        assert_eq!(read(&bytes), Ok(value));
        if let Some(last) = bytes.last_mut() {
            *last |= 0x80;
        }
        bytes.push(0);
        assert!(read(&bytes).is_err(), "{value} with a byte that says nothing");
    }
    assert!(read(&[0xff; 9]).is_err(), "cut off");
    assert!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).is_err(), "above 64 bits");
    assert!(read(&[0xff; 11]).is_err(), "too long");
    let mut bytes = Vec::new();
    Writer(&mut bytes).varint(u64::from(u32::MAX) + 1);
    assert!(Reader(&bytes).varint_u32("n").is_err());
}

#[test]
fn a_huge_count_asks_for_no_memory() {
    let mut bytes = Vec::new();
    let mut w = Writer(&mut bytes);
    w.varint(u64::MAX);
    assert_eq!(Reader(&bytes).list("things", |r| r.u8("thing")), Err(DecodeError::Short("things")));
    assert_eq!(Reader(&bytes).bytes("text"), Err(DecodeError::Short("text")));
}

#[test]
fn text_that_is_not_utf_8_is_refused() {
    let mut bytes = Vec::new();
    NodeStarted { version: "ab".to_owned() }.encode(&mut bytes);
    *bytes.last_mut().unwrap() = 0xff;
    assert_eq!(decode(&bytes), Err(DecodeError::Text("version")));
}

/// What is accepted after damage is written back as the same bytes: nothing is read that would be lost.
fn refused_or_means_its_bytes(name: &str, bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let read = decode(&bytes);
    if matches!(name, "Message" | "Half") {
        let _ = decode_stored(&Bytes::from(bytes));
    } else if let Ok(record) = read
        && record.has_one_encoding()
    {
        let mut again = Vec::new();
        record.encode(&mut again);
        prop_assert_eq!(again, bytes, "{}", name);
    }
    Ok(())
}

#[test]
fn any_one_byte_that_is_changed_is_refused_or_means_exactly_its_bytes() {
    for Sample { name, bytes, .. } in samples() {
        for at in FRAME_LEN..bytes.len() {
            for value in [0, 1, 2, 0x7f, 0x80, 0xff, bytes[at] ^ 1, bytes[at].wrapping_add(1)] {
                let mut changed = bytes.clone();
                changed[at] = value;
                refused_or_means_its_bytes(name, sealed(changed)).unwrap();
            }
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
        let _ = decode_stored(&Bytes::from(bytes));
    }

    /// The frame is right, so that the fields are reached.
    #[test]
    fn random_fields_of_every_kind_never_panic(
        kind in proptest::sample::select(Record::KINDS),
        fields in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = vec![0; 8];
        bytes.extend(kind.to_le_bytes());
        bytes.extend([1, 0]);
        bytes.extend(fields);
        let bytes = sealed(bytes);
        prop_assert_eq!(Frame::split(&bytes).unwrap().0.verify(), Ok(()));
        if let Ok(record) = decode(&bytes) {
            let mut again = Vec::new();
            if record.encode(&mut again) && record.has_one_encoding() {
                prop_assert_eq!(&again, &bytes);
            }
        }
        let _ = decode_stored(&Bytes::from(bytes));
    }

    #[test]
    fn a_changed_record_is_refused_or_means_exactly_its_bytes(
        sample in 0..Record::KINDS.len(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let Sample { mut bytes, name, .. } = samples().swap_remove(sample);
        for (at, value) in changes {
            let at = FRAME_LEN + at.index(bytes.len() - FRAME_LEN);
            bytes[at] = value;
        }
        refused_or_means_its_bytes(name, sealed(bytes))?;
    }
}

#[test]
fn a_body_is_a_slice_of_the_record_and_not_a_copy() {
    let record = Bytes::from(message_bytes(MessageKind::Normal, CheckOverrides::default()));
    let (_, stored) = decode_stored(&record).unwrap();
    assert_eq!(stored.message.body, full_message(MessageKind::Normal).body);
    let (body, record) = (stored.message.body.as_ptr_range(), record.as_ptr_range());
    assert!(record.start <= body.start && body.end == record.end);
}
