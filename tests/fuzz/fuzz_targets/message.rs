//! Messages as producers give them: what is encoded reads back the same.
#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use vouch_broker::check::CheckOverrides;
use vouch_broker::record::{Frame, MessagePlace, Record, decode_stored, encode_message};
use vouch_broker::{BodyEncoding, MessageKind, Millis, NewMessage, StoredMessage, TopicId};
use vouch_fuzz::within_memory;

#[derive(Arbitrary, Debug)]
struct Case {
    id: String,
    producer: String,
    tag: Option<String>,
    keys: Vec<String>,
    properties: Vec<(String, String)>,
    kind: u8,
    encoding: u8,
    times: (u64, u64, Option<u64>),
    host: String,
    trace: Option<String>,
    group: Option<String>,
    topic: u32,
    queue: u32,
    checks: (Option<u32>, Option<u32>, Option<u16>),
    body: Vec<u8>,
}

fuzz_target!(|case: Case| {
    let kinds = [MessageKind::Normal, MessageKind::Fifo, MessageKind::Delay, MessageKind::Transaction];
    let encodings: Vec<BodyEncoding> = (0..=u8::MAX).filter_map(BodyEncoding::from_number).collect();
    let (born_at, stored_at) = (Millis(case.times.0), Millis(case.times.1));
    let (first_ms, interval_ms, max) = case.checks;
    // The highest numbers stand for "not set".
    let checks = CheckOverrides {
        first_ms: first_ms.filter(|ms| *ms != u32::MAX),
        interval_ms: interval_ms.filter(|ms| *ms != u32::MAX),
        max: max.filter(|max| *max != u16::MAX),
    };
    let message = NewMessage {
        message_id: case.id,
        tag: case.tag,
        keys: case.keys,
        properties: case.properties,
        kind: kinds[usize::from(case.kind) % kinds.len()],
        encoding: encodings[usize::from(case.encoding) % encodings.len()],
        born_at,
        born_host: case.host,
        trace_context: case.trace,
        message_group: case.group,
        deliver_at: case.times.2.map(Millis),
        recovery_ms: checks.first_ms.map(u64::from),
        body: case.body.into(),
    };
    let place = MessagePlace { topic: TopicId(case.topic), queue: case.queue, stored_at };
    let mut buffer = Vec::new();
    let len = encode_message(&mut buffer, place, &case.producer, &message, checks);
    assert_eq!(len, buffer.len());
    let record = Bytes::from(buffer);
    let (head, stored) = within_memory(record.len(), 128, || decode_stored(&record)).expect("what was written is read");
    assert_eq!(stored, StoredMessage { message, producer: case.producer, stored_at });
    assert_eq!((head.topic, head.queue, head.checks), (place.topic, place.queue, checks));
    assert_eq!(head.record_len as usize, len);
    let (frame, _) = Frame::split(&record).expect("it is framed");
    match Record::decode(&frame) {
        Ok(Record::Message(decoded) | Record::Half(decoded)) => assert_eq!(decoded, head),
        other => panic!("{other:?}"),
    }
});
