//! Records of the log, of every kind: what decodes, encodes to the same bytes.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use vouch_broker::record::{Frame, Record, before_carried, decode_stored};
use vouch_fuzz::{repair_record, within_memory};

/// Memory per byte of a record: a list of empty texts takes one byte each, and 24 in memory.
const FACTOR: usize = 128;

/// `None` of a message: only its head is decoded, so nothing could encode it again.
fn encode(record: &Record) -> Option<Vec<u8>> {
    let mut buffer = Vec::new();
    record.encode(&mut buffer).then_some(buffer)
}

fuzz_target!(|data: &[u8]| {
    let _ = Frame::announced_len(data);
    let mut bytes = data.to_vec();
    repair_record(&mut bytes);
    let Ok((frame, rest)) = Frame::split(&bytes) else { return };
    assert!(rest.is_empty() && frame.verify().is_ok());
    let record = within_memory(bytes.len(), FACTOR, || Record::decode(&frame));
    if let Ok(record) = &record
        && let Some(encoded) = encode(record)
    {
        let (again, _) = Frame::split(&encoded).expect("what was written is framed");
        assert_eq!(Record::decode(&again).as_ref(), Ok(record));
        if record.has_one_encoding() {
            assert_eq!(encoded, bytes, "{record:?} has one encoding");
        }
    }
    let whole = Bytes::from(bytes);
    let len = whole.len();
    let stored = within_memory(len, FACTOR, || decode_stored(&whole));
    if let Ok((head, _)) = &stored {
        match &record {
            Ok(Record::Message(decoded) | Record::Half(decoded)) => assert_eq!(decoded, head),
            Ok(Record::Carried(_)) => {}
            other => panic!("a message was read from {other:?}"),
        }
    }
    let _ = within_memory(len, FACTOR, || before_carried(&whole));
});
