//! Every byte of every kind of record. What is written here lies in users' logs: a change of these literals is a change
//! of the format, and needs a new version of the layout next to the old one.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::xxh3_64;

use super::samples::{message_bytes, samples};
use crate::MessageKind;
use crate::check::CheckOverrides;
use crate::record::{Frame, Record, changes_delivery};

/// Names and bytes of [`samples`], a blank between two fields.
const GOLDEN: &[(&str, &str)] = &[
    (
        "Message",
        "76000000 476150a7 1000 01 00 03000000 04000000 dfa61425732cd2b5 362d102dd65fa836 \
         2df9acf0853e0376 0201000000000000 ffffffff ffffffff ffff 01 02 04000000 0605000000000000 \
         026964 0163 0168 01027472 010174 010167 010403000000000000 02 026b31 026b32 01 0170 0176 \
         626f6479",
    ),
    (
        "Half",
        "76000000 05789385 1100 01 00 03000000 04000000 dfa61425732cd2b5 362d102dd65fa836 \
         2df9acf0853e0376 0201000000000000 581b0000 09000000 0200 04 02 04000000 0605000000000000 \
         026964 0163 0168 01027472 010174 010167 010403000000000000 02 026b31 026b32 01 0170 0176 \
         626f6479",
    ),
    (
        "ClusterInit",
        "4e000000 97e00aa1 0100 01 00 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 0000004000000000 \
         bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb 01000000 05302e312e30",
    ),
    ("NodeStarted", "12000000 dbcdde9a 0200 01 00 05302e312e30"),
    (
        "TopicPut",
        "87000000 a9762915 0300 01 00 016e 0174 \
         6d7b2274797065223a226e6f726d616c222c22717565756573223a382c2261636b223a2264757261626c65222c22 \
         7472616e73616374696f6e223a7b22696d6d756e697479223a223673222c22696e74657276616c223a2233307322 \
         2c226d61785f636865636b73223a31357d7d 010500000000000000",
    ),
    ("TopicDelete", "11000000 2a7743dd 0400 01 00 016e 0174 01"),
    ("TopicForced", "18000000 1d5f7ec7 2700 01 00 016e 0174 03616e6e 03776879"),
    (
        "GroupPut",
        "b5000000 460a79a2 0500 01 00 016e 0167 \
         a2017b226f726465726564223a66616c73652c227374617274223a22626567696e6e696e67222c226d61785f6174 \
         74656d707473223a31372c226261636b6f6666223a5b223173222c223573222c22313073222c22333073222c2231 \
         6d222c22326d222c22336d222c22346d222c22356d222c22366d222c22376d222c22386d222c22396d222c223130 \
         6d222c2232306d222c2233306d222c223168222c223268225d7d 00",
    ),
    ("GroupDelete", "10000000 e9d75764 0600 01 00 016e 0167"),
    (
        "GroupMade",
        "b4000000 e15617c6 0b00 01 00 016e 0167 \
         a2017b226f726465726564223a66616c73652c227374617274223a22626567696e6e696e67222c226d61785f6174 \
         74656d707473223a31372c226261636b6f6666223a5b223173222c223573222c22313073222c22333073222c2231 \
         6d222c22326d222c22336d222c22346d222c22356d222c22366d222c22376d222c22386d222c22396d222c223130 \
         6d222c2232306d222c2233306d222c223168222c223268225d7d",
    ),
    ("GroupsUnused", "15000000 e419b2d6 0c00 01 00 02 01000000 07000000"),
    ("Join", "14000000 76167d5d 0700 01 00 01000000 03000000"),
    ("Expire", "29000000 e560d50a 0800 01 00 03000000 02 00000000 0500000000000000 02000000 0201000000000000"),
    ("Seen", "15000000 15c02825 0900 01 00 02 01000000 07000000"),
    ("Leapt", "15000000 165ad9f2 0d00 01 00 0605000000000000 01"),
    ("LeapsBelieved", "14000000 1370f6b7 0e00 01 00 0605000000000000"),
    (
        "Carried",
        "56000000 34f9fe14 0a00 01 00 0403000000000000 00 40 \
         40000000deab9b8840000100dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\
         1000000000000000130000000000000003010203",
    ),
    ("End", "1e000000 c7bf0dff 2000 01 00 2211000000000000 01 02000000 01016301 00"),
    (
        "CheckAnswered",
        "32000000 f9eed699 2100 01 00 2211000000000000 03000000 0807000000000000 01e803000000000000 \
         0201620164 03776879",
    ),
    ("Park", "18000000 59236d15 2200 01 00 2211000000000000 03776879"),
    ("Resume", "1a000000 6bbbef07 2300 01 00 2211000000000000 016f 03776879"),
    (
        "ComponentFailed",
        "2d000000 77ab1d2c 2400 01 00 2211000000000000 03000000 0605000000000000 0a000000 \
         020162016401650174",
    ),
    (
        "Lease",
        "41000000 90c627d4 3000 01 00 01000000 03000000 0900000000000000 0807000000000000 010163 01 \
         01 ac02 0a 020003 0109 03 c801ac0201 c801ac0200 c801ac0202",
    ),
    ("Renew", "29000000 c5c8f264 3100 01 00 01000000 03000000 0807000000000000 01 c801ac020900000000000000"),
    ("Ack", "20000000 19107455 3200 01 00 01000000 03000000 c801 ac02 0900000000000000"),
    (
        "ChangeInvisible",
        "31000000 cb4c6476 3300 01 00 01000000 03000000 c801 ac02 0900000000000000 0a00000000000000 \
         0807000000000000 01",
    ),
    ("DeadLetter", "24000000 79161df9 3400 01 00 01000000 03000000 c801 ac02 0900000000000000 03776879"),
    (
        "DeadLetterSized",
        "28000000 a5e02811 3700 01 00 01000000 03000000 c801 ac02 0900000000000000 03776879 \
         10090000",
    ),
    ("FilterNoted", "26000000 38b2f58d 3500 01 00 01000000 03000000 01 02 0201000000000000 0403000000000000"),
    ("FiltersGone", "20000000 d6fb0243 3600 01 00 01000000 03000000 02 00 01 01 0700000000000000"),
    (
        "PluginChunk",
        "40000000 deab9b88 4000 01 00 \
         dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd 1000000000000000 \
         1300000000000000 03010203",
    ),
    (
        "PluginPublish",
        "54000000 f0a608e4 4100 01 00 0170 0131 \
         dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd \
         01eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee 027b7d",
    ),
    ("TagDelete", "10000000 d5168cb1 4200 01 00 0170 0131"),
    ("PluginDelete", "0e000000 798aedd2 4300 01 00 0170"),
    (
        "BindingPut",
        "3a000000 fc45f44f 4400 01 00 0162 \
         dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd 027b7d 010000000000000000",
    ),
    ("BindingDelete", "0e000000 55aaf14a 4500 01 00 0162"),
];

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b' ').collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn every_kind_has_the_bytes_that_its_layout_says() {
    let samples = samples();
    assert_eq!(samples.len(), GOLDEN.len());
    for (sample, (name, bytes)) in samples.iter().zip(GOLDEN) {
        assert_eq!((sample.name, sample.bytes.as_slice()), (*name, unhex(bytes).as_slice()));
    }
}

#[test]
fn the_golden_bytes_read_back_as_the_records_that_they_were() {
    for (sample, (name, bytes)) in samples().into_iter().zip(GOLDEN) {
        let bytes = unhex(bytes);
        let (frame, rest) = Frame::split(&bytes).unwrap();
        assert!(rest.is_empty() && frame.verify() == Ok(()), "{name}");
        assert_eq!(Record::decode(&frame), Ok(sample.record), "{name}");
    }
}

#[test]
fn every_kind_has_a_number_of_its_own_and_a_sample() {
    let numbers: BTreeSet<u16> = Record::KINDS.iter().copied().collect();
    assert_eq!(numbers.len(), Record::KINDS.len());
    let sampled: BTreeSet<u16> = samples().iter().map(|s| Frame::split(&s.bytes).unwrap().0.kind()).collect();
    assert_eq!(sampled, numbers);
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
