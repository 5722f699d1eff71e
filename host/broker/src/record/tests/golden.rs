//! Every byte of every kind of record, and every number.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::xxh3_64;

use super::samples::{message_bytes, samples};
use super::says_levels;
use crate::MessageKind;
use crate::check::CheckOverrides;
use crate::record::{BindingPut, Frame, Join, NodeInvited, Record, changes_delivery, written_from};
use crate::{GroupId, Millis, TopicId};

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b' ').collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// With a blank between the fields of the frame; those of the record begin behind the last one.
fn hex(bytes: &[u8]) -> String {
    let fields = [&bytes[..4], &bytes[4..8], &bytes[8..10], &bytes[10..11], &bytes[11..12], &bytes[12..]];
    fields.map(|field| field.iter().map(|byte| format!("{byte:02x}")).collect::<String>()).join(" ")
}

#[test]
fn every_kind_has_the_bytes_that_its_layout_says() {
    let others = samples().into_iter().filter(|sample| sample.bytes != unhex(sample.golden));
    let others: Vec<_> =
        others.map(|sample| format!("{} is written as \"{}\"", sample.name, hex(&sample.bytes))).collect();
    assert!(others.is_empty(), "{}", others.join("\n"));
}

#[test]
fn the_golden_bytes_read_back_as_the_records_that_they_were() {
    for sample in samples() {
        let (bytes, name) = (unhex(sample.golden), sample.name);
        let (frame, rest) = Frame::split(&bytes).unwrap();
        assert!(rest.is_empty() && frame.verify() == Ok(()), "{name}");
        assert_eq!(Record::decode(&frame), Ok(sample.record), "{name}");
    }
}

/// The layouts of before bindings named secrets, and of before they kept anything: written where they say all, and read for ever.
#[test]
fn a_binding_has_the_bytes_of_the_first_version_that_says_all_of_it() {
    let first = "3a000000 fc45f44f 4400 01 00 0162 \
         dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd 027b7d 010000000000000000";
    let second = "3f000000 324ba278 4400 02 00 0162 \
         dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd 027b7d 010000000000000000 02 0171 0172";
    for (golden, secrets) in [(first, BTreeSet::new()), (second, ["q", "r"].map(str::to_owned).into())] {
        let (name, spec) = ("b".to_owned(), "{}".to_owned());
        let put = BindingPut {
            name,
            digest: [0xdd; 32],
            spec,
            expected_revision: Some(0),
            secrets,
            keeps: None,
            names_life: false,
        };
        let mut written = Vec::new();
        put.encode(&mut written);
        is_written_so(golden, &written, Record::BindingPut(put));
    }
}

/// The layout of before a group could begin at a topic's end though its settings say otherwise.
#[test]
fn a_join_that_begins_where_the_group_says_has_the_bytes_of_version_1() {
    let join = Join { group: GroupId(1), topic: TopicId(3), at_end: false };
    let mut written = Vec::new();
    join.encode(&mut written);
    is_written_so("14000000 76167d5d 0700 01 00 01000000 03000000", &written, Record::Join(join));
}

/// The layout of before a node could take another's place.
#[test]
fn a_node_that_takes_nobodys_place_is_invited_by_the_bytes_of_version_1() {
    let golden = "35000000 9157866b 1200 01 00 \
         cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc 0605000000000000 01";
    let invited = NodeInvited { token: [0xcc; 32], until: Millis(0x0506), votes_at_once: true, replaces: None };
    let mut written = Vec::new();
    invited.encode(&mut written);
    is_written_so(golden, &written, Record::NodeInvited(invited));
}

fn is_written_so(golden: &str, written: &[u8], record: Record) {
    assert!(written == unhex(golden), "it is written as {}", hex(written));
    assert_eq!(Record::decode(&Frame::split(written).unwrap().0), Ok(record));
}

#[test]
fn every_kind_has_a_number_of_its_own_and_a_sample() {
    let numbers: BTreeSet<u16> = Record::KINDS.iter().copied().collect();
    assert_eq!(numbers.len(), Record::KINDS.len());
    let sampled: Vec<u16> = samples().iter().map(|s| Frame::split(&s.bytes).unwrap().0.kind()).collect();
    assert_eq!(sampled, Record::KINDS);
}

/// The number and the name of each kind in the first two columns of a row, or in the sentence about messages.
#[test]
fn the_document_of_the_format_has_a_row_for_every_kind() {
    let document = include_str!("../../../docs/records.md");
    let rows: BTreeSet<(u16, &str)> = document
        .lines()
        .filter_map(|line| {
            let mut columns = line.strip_prefix('|')?.split('|').map(str::trim);
            let (number, name) = (columns.next()?.parse().ok()?, columns.next()?);
            name.starts_with(char::is_uppercase).then_some((number, name))
        })
        .collect();
    let kinds = samples().into_iter().map(|sample| (Frame::split(&sample.bytes).unwrap().0.kind(), sample.name));
    let (messages, others): (BTreeSet<_>, BTreeSet<_>) =
        kinds.partition(|(_, name)| matches!(*name, "Message" | "Half"));
    assert!(document.contains("Kind 16 is a message for a queue, kind 17 a half message"), "{messages:?}");
    assert_eq!(rows, others);
}

#[test]
fn the_document_of_the_format_says_from_which_level_on_a_kind_is_written() {
    let document = include_str!("../../../docs/records.md");
    for (sample, (kind, newest)) in samples().iter().zip(Record::LAYOUTS) {
        let begins = format!("| {kind} | {} |", sample.name);
        let row = document.lines().find(|line| line.starts_with(&begins)).unwrap_or_default();
        says_levels(row, (1..=*newest).map(|version| written_from(*kind, version)));
    }
}

/// Whoever adds a kind takes one of these.
#[test]
fn the_document_of_the_format_lists_the_numbers_that_are_free() {
    let last = *Record::KINDS.iter().max().unwrap();
    let free: Vec<u16> = (1..last).filter(|number| !Record::KINDS.contains(number)).collect();
    let runs = free.chunk_by(|number, next| number + 1 == *next).map(|run| match run {
        [only] => only.to_string(),
        [first, second] => format!("{first}, {second}"),
        [first, .., last] => format!("{first}–{last}"),
        [] => unreachable!("a run has a number"),
    });
    let list = format!("Numbers {} and {} on are free", runs.collect::<Vec<_>>().join(", "), last + 1);
    let document: Vec<&str> = include_str!("../../../docs/records.md").split_whitespace().collect();
    assert!(document.join(" ").contains(&list), "docs/records.md, at the end of *Kinds*, is to say: {list}");
}

/// By these numbers a proposal's records are held until they are applied.
#[test]
fn the_kinds_that_change_deliveries_are_those_of_delivery() {
    for sample in samples() {
        let (frame, _) = Frame::split(&sample.bytes).unwrap();
        let changes = crate::delivery::subject(&sample.record).is_some();
        assert_eq!(changes_delivery(frame.kind()), changes, "{}", sample.name);
    }
}

#[test]
fn the_hashes_in_a_message_are_xxh3_of_what_the_layout_names() {
    let bytes = message_bytes(MessageKind::Normal, CheckOverrides::default());
    let u64_at = |at: usize| u64::from_le_bytes(bytes[12 + at..12 + at + 8].try_into().unwrap());
    assert_eq!(u64_at(8), xxh3_64(b"c\0id"));
    assert_eq!(u64_at(24), xxh3_64(b"t"));
    // Frame, head, then id, producer, host and tracing: 3 + 2 + 2 + 4 bytes.
    assert_eq!(u64_at(16), xxh3_64(&bytes[12 + 64 + 11..]));
    assert_eq!(xxh3_64(b""), 0x2d06_8005_38d3_94c2, "the published test value of XXH3-64");
}
