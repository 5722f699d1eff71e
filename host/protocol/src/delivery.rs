//! Stored messages as consumers and checked producers get them (§4.4.5, §4.4.6, §4.12.3).

use std::time::Duration;

use bytes::Bytes;
use md5::{Digest as _, Md5};
use prost::Message as _;
use vouch_broker::{BodyEncoding, MessageKind, QueueOffset, StoredMessage};

use crate::compression;
use crate::convert::{timestamp, wire_duration};
use crate::limits::ELEMENT_MAX_BYTES;
use crate::wire::{DeadLetterQueue, Digest, DigestType, Encoding, Message, MessageType, Resource, SystemProperties};

/// What a delivery adds to a stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The topic as the consumer asked for it: acks are addressed with it.
    pub topic: Resource,
    /// Queue number.
    pub queue: u32,
    /// Queue offset.
    pub offset: QueueOffset,
    /// 1 for the first delivery.
    pub attempt: u32,
    /// The lease, sealed.
    pub handle: String,
    /// Length of the lease.
    pub invisible: Duration,
    /// Original topic and message id of a dead letter.
    pub dead_letter_origin: Option<(String, String)>,
}

/// Bodies of more bytes are digested aside.
const LONG_BODY_BYTES: usize = 64 * 1024;

/// Whether making the message of it takes long: its body is compressed, or large.
pub fn takes_long(stored: &StoredMessage) -> bool {
    stored.message.encoding != BodyEncoding::Identity || stored.message.body.len() > LONG_BODY_BYTES
}

/// The message as a consumer gets it. The body is not copied, unless it has to be decompressed. Of what
/// [`takes_long`], not to be called where others wait.
///
/// `store_host` is the address of this node. A committed half message is an ordinary message to its consumers.
pub fn delivered_message(stored: StoredMessage, delivered: Delivered, store_host: &str) -> Message {
    let kind = match stored.message.kind {
        MessageKind::Normal | MessageKind::Transaction => MessageType::Normal,
        MessageKind::Fifo => MessageType::Fifo,
        MessageKind::Delay => MessageType::Delay,
    };
    let (mut message, body, encoding) = without_body(stored, delivered.topic, kind, store_host);
    let system = message.system_properties.get_or_insert_default();
    system.receipt_handle = Some(delivered.handle);
    system.queue_id = i32::try_from(delivered.queue).unwrap_or(i32::MAX);
    system.queue_offset = Some(i64::try_from(delivered.offset.0).unwrap_or(i64::MAX));
    system.invisible_duration = Some(wire_duration(delivered.invisible));
    system.delivery_attempt = Some(i32::try_from(delivered.attempt).unwrap_or(i32::MAX));
    system.dead_letter_queue =
        delivered.dead_letter_origin.map(|(topic, message_id)| DeadLetterQueue { topic, message_id });
    with_body(message, body, encoding)
}

/// The half message as its producer is shown it when it is asked to decide. As with [`delivered_message`], it may take
/// long.
pub fn half_message(stored: StoredMessage, topic: Resource, store_host: &str) -> Message {
    let (message, body, encoding) = without_body(stored, topic, MessageType::Transaction, store_host);
    with_body(message, body, encoding)
}

fn without_body(
    stored: StoredMessage,
    topic: Resource,
    kind: MessageType,
    store_host: &str,
) -> (Message, Bytes, BodyEncoding) {
    let StoredMessage { message, stored_at, .. } = stored;
    let system = SystemProperties {
        tag: message.tag,
        keys: message.keys,
        message_id: message.message_id,
        message_type: kind as i32,
        born_timestamp: Some(timestamp(message.born_at)),
        born_host: message.born_host,
        store_timestamp: Some(timestamp(stored_at)),
        store_host: store_host.to_owned(),
        delivery_timestamp: message.deliver_at.map(timestamp),
        message_group: message.message_group,
        trace_context: message.trace_context,
        ..Default::default()
    };
    let user_properties = message.properties.into_iter().collect();
    let without = Message { topic: Some(topic), user_properties, system_properties: Some(system), body: Bytes::new() };
    (without, message.body, message.encoding)
}

/// Adds the body, its encoding and its digest.
fn with_body(mut message: Message, body: Bytes, encoding: BodyEncoding) -> Message {
    /// Digest, encoding, and the lengths and keys of what contains them.
    const REST_BYTES: usize = 128;
    let max = ELEMENT_MAX_BYTES.saturating_sub(message.encoded_len() + REST_BYTES);
    let (body, encoding) = plain_body(body, encoding, max);
    let system = message.system_properties.get_or_insert_default();
    system.body_digest = Some(Digest { r#type: DigestType::Md5 as i32, checksum: md5_text(&body) });
    system.body_encoding = encoding as i32;
    Message { body, ..message }
}

/// Clients differ in what they can decompress, so they get plain bytes. What cannot be decompressed, or has more than
/// `max` bytes then, is passed on as it was sent: some consumer may know what to do with it.
fn plain_body(body: Bytes, encoding: BodyEncoding, max: usize) -> (Bytes, Encoding) {
    match encoding {
        BodyEncoding::Identity => (body, Encoding::Identity),
        BodyEncoding::Gzip => match compression::decompress_up_to(&body, max) {
            Ok(plain) if !plain.is_empty() => (plain, Encoding::Identity),
            _ => (body, Encoding::Gzip),
        },
    }
}

/// MD5 in 32 upper-case hexadecimal digits: the one form that every client computes alike.
fn md5_text(body: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(32);
    for byte in Md5::digest(body) {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
