//! Of messages and halves. Of these a record is only the head, so they are written and read by functions of their own.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::step::Step;
use super::values::{millis, text};
use super::{Drawn, Sample};
use crate::check::CheckOverrides;
use crate::record::{Frame, MessageHead, MessagePlace, Record, encode_message};
use crate::testing::head;
use crate::{BodyEncoding, MessageKind, Millis, NewMessage, TagHash, TopicId};

const GOLDEN_MESSAGE: &str = "76000000 476150a7 1000 01 00 03000000 04000000 dfa61425732cd2b5 362d102dd65fa836 \
     2df9acf0853e0376 0201000000000000 ffffffff ffffffff ffff 01 02 04000000 0605000000000000 \
     026964 0163 0168 01027472 010174 010167 010403000000000000 02 026b31 026b32 01 0170 0176 \
     626f6479";

const GOLDEN_HALF: &str = "76000000 05789385 1100 01 00 03000000 04000000 dfa61425732cd2b5 362d102dd65fa836 \
     2df9acf0853e0376 0201000000000000 581b0000 09000000 0200 04 02 04000000 0605000000000000 \
     026964 0163 0168 01027472 010174 010167 010403000000000000 02 026b31 026b32 01 0170 0176 \
     626f6479";

pub(super) const MESSAGE: Drawn =
    Drawn { name: "Message", often: 105, refused: true, draw: |_, step| Record::Message(drawn_head(step)) };

pub(super) const HALF: Drawn =
    Drawn { name: "Half", often: 45, refused: true, draw: |_, step| Record::Half(drawn_head(step)) };

/// One of both.
pub(super) fn samples() -> Vec<Sample> {
    let checks = CheckOverrides { first_ms: Some(7000), interval_ms: Some(9), max: Some(2) };
    vec![
        sample("Message", GOLDEN_MESSAGE, message_bytes(MessageKind::Normal, CheckOverrides::default())),
        sample("Half", GOLDEN_HALF, message_bytes(MessageKind::Transaction, checks)),
    ]
}

fn sample(name: &'static str, golden: &'static str, bytes: Vec<u8>) -> Sample {
    let record = Record::decode(&Frame::split(&bytes).unwrap().0).unwrap();
    Sample { name, record, bytes, golden }
}

pub(in crate::record::tests) fn full_message(kind: MessageKind) -> NewMessage {
    NewMessage {
        message_id: "id".to_owned(),
        tag: Some("t".to_owned()),
        keys: vec!["k1".to_owned(), "k2".to_owned()],
        properties: vec![("p".to_owned(), "v".to_owned())],
        kind,
        encoding: BodyEncoding::Gzip,
        born_at: Millis(0x0102),
        born_host: "h".to_owned(),
        trace_context: Some("tr".to_owned()),
        message_group: Some("g".to_owned()),
        deliver_at: Some(Millis(0x0304)),
        recovery_ms: Some(7000),
        body: Bytes::from_static(b"body"),
    }
}

pub(in crate::record::tests) fn message_bytes(kind: MessageKind, checks: CheckOverrides) -> Vec<u8> {
    let mut bytes = Vec::new();
    let place = MessagePlace { topic: TopicId(3), queue: 4, stored_at: Millis(0x0506) };
    let len = encode_message(&mut bytes, place, "c", &full_message(kind), checks);
    assert_eq!(len, bytes.len());
    bytes
}

/// Any message, as it is sent.
pub(in crate::record::tests) fn any_message() -> impl Strategy<Value = NewMessage> {
    let kinds = vec![MessageKind::Normal, MessageKind::Fifo, MessageKind::Delay, MessageKind::Transaction];
    let encodings = vec![BodyEncoding::Identity, BodyEncoding::Gzip];
    let fixed = (select(kinds), select(encodings), millis(), option::of(millis()));
    let texts = (text(), text(), option::of(text()), option::of(text()), option::of(text()));
    let lists = (vec(text(), 0..4), vec((text(), text()), 0..4), vec(any::<u8>(), 0..2000));
    (fixed, texts, lists).prop_map(
        |(
            (kind, encoding, born_at, deliver_at),
            (message_id, born_host, tag, trace_context, message_group),
            (keys, properties, body),
        )| NewMessage {
            message_id,
            tag,
            keys,
            properties,
            kind,
            encoding,
            born_at,
            born_host,
            trace_context,
            message_group,
            deliver_at,
            recovery_ms: None,
            body: Bytes::from(body),
        },
    )
}

fn drawn_head(step: Step) -> MessageHead {
    let tag = [None, Some("a"), Some("b")][usize::from(step.c) % 3];
    let max = [None, None, Some(0), Some(1), Some(2)][usize::from(step.c >> 4) % 5];
    let checks = CheckOverrides { first_ms: None, interval_ms: (step.c & 8 == 0).then_some(5), max };
    let head = head(step.topic(), u32::from(step.b % 4), &format!("id{}", step.b >> 2 & 7), u64::from(step.c >> 8) % 2);
    MessageHead { tag: TagHash::of(tag), checks, ..head }
}
