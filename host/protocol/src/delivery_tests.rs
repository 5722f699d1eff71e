use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use prost::Message as _;
use vouch_broker::{Millis, NewMessage, QueueOffset};

use super::*;

fn stored() -> StoredMessage {
    StoredMessage {
        message: NewMessage {
            message_id: "01AB".into(),
            tag: Some("tag".into()),
            keys: vec!["key".into()],
            properties: vec![("a".into(), "1".into()), ("b".into(), "2".into())],
            kind: MessageKind::Normal,
            encoding: BodyEncoding::Identity,
            born_at: Millis(1_700_000_000_001),
            born_host: "host".into(),
            trace_context: Some("trace".into()),
            message_group: None,
            deliver_at: None,
            recovery_ms: None,
            body: Bytes::from_static(b"body"),
        },
        producer: "client".into(),
        stored_at: Millis(1_700_000_000_002),
    }
}

fn delivered() -> Delivered {
    Delivered {
        topic: Resource { name: "orders".into(), ..Default::default() },
        queue: 3,
        offset: QueueOffset(9),
        attempt: 1,
        handle: "handle".into(),
        invisible: Duration::from_secs(60),
        dead_letter_origin: None,
    }
}

fn compressed(body: &[u8]) -> Bytes {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap().into()
}

#[test]
fn a_delivery_says_everything_that_clients_need() {
    let message = delivered_message(stored(), delivered(), "127.0.0.1:8081");
    let system = message.system_properties.unwrap();
    let digest = system.body_digest.unwrap();
    assert_eq!(digest.r#type, DigestType::Md5 as i32);
    assert_eq!(digest.checksum, "841A2D689AD86BD1611447453C22C6FC");
    assert_eq!(system.body_encoding, Encoding::Identity as i32);
    assert_eq!(system.message_type, MessageType::Normal as i32);
    assert_eq!((system.queue_id, system.queue_offset, system.delivery_attempt), (3, Some(9), Some(1)));
    assert_eq!((system.receipt_handle.as_deref(), system.store_host.as_str()), (Some("handle"), "127.0.0.1:8081"));
    assert_eq!(system.store_timestamp.unwrap().nanos, 2_000_000);
    assert_eq!((system.tag.as_deref(), system.keys.as_slice()), (Some("tag"), &["key".to_owned()][..]));
    assert_eq!(message.user_properties.len(), 2);
    assert_eq!(message.topic.unwrap().name, "orders");
}

#[test]
fn the_body_is_not_copied() {
    let stored = stored();
    let at = stored.message.body.as_ptr();
    assert_eq!(delivered_message(stored, delivered(), "").body.as_ptr(), at);
}

#[test]
fn a_committed_half_message_is_an_ordinary_one_and_a_checked_one_is_not() {
    let mut half = stored();
    half.message.kind = MessageKind::Transaction;
    let kind = |message: Message| message.system_properties.unwrap().message_type();
    assert_eq!(kind(delivered_message(half.clone(), delivered(), "")), MessageType::Normal);
    let checked = half_message(half, delivered().topic, "");
    assert_eq!(checked.system_properties.as_ref().unwrap().receipt_handle, None);
    assert!(checked.system_properties.as_ref().unwrap().body_digest.is_some());
    assert_eq!(kind(checked), MessageType::Transaction);
}

#[test]
fn a_compressed_body_arrives_plain_with_its_own_digest() {
    let mut sent = stored();
    sent.message.encoding = BodyEncoding::Gzip;
    sent.message.body = compressed(b"body");
    let message = delivered_message(sent, delivered(), "");
    let system = message.system_properties.unwrap();
    assert_eq!((&message.body[..], system.body_encoding()), (&b"body"[..], Encoding::Identity));
    assert_eq!(system.body_digest.unwrap().checksum, "841A2D689AD86BD1611447453C22C6FC");
}

#[test]
fn a_body_that_cannot_be_decompressed_is_passed_on_as_it_came() {
    let mut sent = stored();
    sent.message.encoding = BodyEncoding::Gzip;
    sent.message.body = compressed(b"some body").slice(..6);
    let expected = sent.message.body.clone();
    let message = delivered_message(sent, delivered(), "");
    assert_eq!(message.body, expected);
    assert_eq!(message.system_properties.unwrap().body_encoding(), Encoding::Gzip);
}

#[test]
fn a_body_is_delivered_plain_while_its_element_stays_below_the_bound_and_as_it_was_stored_beyond() {
    let delivered_with = |bytes: usize| {
        let mut sent = stored();
        sent.message.encoding = BodyEncoding::Gzip;
        sent.message.body = compressed(&vec![b'x'; bytes]);
        let as_stored = sent.message.body.clone();
        let message = delivered_message(sent, delivered(), "127.0.0.1:8081");
        let encoding = message.system_properties.as_ref().unwrap().body_encoding();
        (message.encoded_len(), encoding, message.body == as_stored)
    };
    let (len, encoding, _) = delivered_with(ELEMENT_MAX_BYTES - 1024);
    assert!(encoding == Encoding::Identity && len <= ELEMENT_MAX_BYTES, "{len}");
    let (len, encoding, as_stored) = delivered_with(ELEMENT_MAX_BYTES);
    assert!(encoding == Encoding::Gzip && as_stored && len < 64 * 1024, "{len}");
    let (_, encoding, as_stored) = delivered_with(crate::limits::DECOMPRESSED_BODY_MAX_BYTES);
    assert!(encoding == Encoding::Gzip && as_stored);
}

#[test]
fn only_small_plain_bodies_are_made_where_others_wait() {
    let with = |encoding, body: Vec<u8>| {
        let mut sent = stored();
        (sent.message.encoding, sent.message.body) = (encoding, body.into());
        takes_long(&sent)
    };
    assert!(!with(BodyEncoding::Identity, vec![0; LONG_BODY_BYTES]));
    assert!(with(BodyEncoding::Identity, vec![0; LONG_BODY_BYTES + 1]));
    assert!(with(BodyEncoding::Gzip, vec![0]));
}

#[test]
fn a_dead_letter_says_where_it_came_from() {
    let delivered = Delivered { dead_letter_origin: Some(("orders".into(), "01AB".into())), ..delivered() };
    let system = delivered_message(stored(), delivered, "").system_properties.unwrap();
    assert_eq!(system.dead_letter_queue, Some(DeadLetterQueue { topic: "orders".into(), message_id: "01AB".into() }));
}

/// The bytes on the wire, field by field as the interface definition numbers them. A change here breaks clients.
#[test]
fn the_bytes_of_a_delivery_are_those_that_clients_read() {
    let bytes = delivered_message(stored(), delivered(), "h").encode_to_vec();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let system = concat!(
        "0a03746167",   // 1 tag
        "12036b6579",   // 2 keys
        "1a0430314142", // 3 message_id
        "222408021220",
        "3834314132443638394144383642443136313134343734353343323243364643", // 4 body_digest
        "2801",                                                             // 5 body_encoding
        "3001",                                                             // 6 message_type
        "3a0a0880e2cfaa0610c0843d",                                         // 7 born_timestamp
        "4204686f7374",                                                     // 8 born_host
        "4a0a0880e2cfaa061080897a",                                         // 9 store_timestamp
        "520168",                                                           // 10 store_host
        "620668616e646c65",                                                 // 12 receipt_handle
        "6803",                                                             // 13 queue_id
        "7009",                                                             // 14 queue_offset
        "7a02083c",                                                         // 15 invisible_duration
        "800101",                                                           // 16 delivery_attempt
        "9201057472616365",                                                 // 18 trace_context
    );
    let expected = format!(
        "{topic}{properties}1a{len:02x}{system}{body}",
        topic = "0a0812066f7264657273",
        properties = "12060a016112013112060a0162120132",
        len = system.len() / 2,
        body = "2204626f6479",
    );
    assert_eq!(hex, expected);
}
