//! The two records that carry a body: a message for a queue, and a half message.
//!
//! The first fields have fixed places, so that applying a message reads 64 bytes and no text:
//!
//! | offset | field |
//! |---|---|
//! | 0 | topic, 4 |
//! | 4 | queue, 4 |
//! | 8 | identity: hash of producer and message id, 8 |
//! | 16 | content: hash of the bytes from the tag to the end of the body, 8 |
//! | 24 | tag hash, 8 (0: no tag) |
//! | 32 | born at, ms, 8 |
//! | 40 | first check after, ms, 4 (`u32::MAX`: the topic's) |
//! | 44 | check interval, ms, 4 (`u32::MAX`: the topic's) |
//! | 48 | maximum of checks, 2 (`u16::MAX`: the topic's) |
//! | 50 | kind, 1 |
//! | 51 | encoding, 1 |
//! | 52 | body length, 4 |
//! | 56 | stored at, ms, 8 (the leader's clock when it took the message; the entry may be a little later) |
//! | 64 | message id, producer, born host, trace context?, then tag?, message group?, deliver at?, keys, properties, body |
//!
//! The content hash tells a resend from another message under the same id (ruling 14). Birth and tracing are left out
//! of it: a client may stamp them anew on every try.

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::codec::{DecodeError, Reader, Writer};
use super::{frame, retention};
use crate::check::CheckOverrides;
use crate::{BodyEncoding, MessageKind, Millis, NewMessage, StoredMessage, TagHash, TopicId};

/// Bytes of the head with fixed places.
const HEAD_LEN: usize = 64;
const UNSET_32: u32 = u32::MAX;
const UNSET_16: u16 = u16::MAX;

/// Kind number of a message for a queue.
pub(super) const KIND_MESSAGE: u16 = 16;
/// Kind number of a half message.
pub(super) const KIND_HALF: u16 = 17;
/// Version of the layout of both.
pub(super) const VERSION: u8 = 1;

/// What applying a message or a half needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHead {
    /// The topic's life.
    pub topic: TopicId,
    /// The queue that the leader chose.
    pub queue: u32,
    /// Who sent it under which id (ruling 14).
    pub identity: Identity,
    /// Hash of the content (ruling 14).
    pub content: u64,
    /// Hash of the tag.
    pub tag: TagHash,
    /// What the producer asked of checks.
    pub checks: CheckOverrides,
    /// Bytes of the whole record, its frame included: what the message takes of the log.
    pub record_len: u32,
}

/// What the leader decides about a message when it takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessagePlace {
    /// The topic's life.
    pub topic: TopicId,
    /// The queue it goes to, at once or when its transaction commits.
    pub queue: u32,
    /// The leader's clock.
    pub stored_at: Millis,
}

/// Hash of a producer's client id and a message id: what de-duplication and the ends of transactions compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(pub u64);

impl Identity {
    /// The identity of this message id sent by this client.
    pub fn of(producer: &str, message_id: &str) -> Self {
        let mut hash = Xxh3::new();
        hash.update(producer.as_bytes());
        hash.update(&[0]);
        hash.update(message_id.as_bytes());
        Identity(hash.digest())
    }
}

/// Appends the record of a message to `buffer`; the kind follows from the message. Returns the record's length.
pub fn encode_message(
    buffer: &mut Vec<u8>,
    place: MessagePlace,
    producer: &str,
    message: &NewMessage,
    checks: CheckOverrides,
) -> usize {
    let kind = if message.kind == MessageKind::Transaction { KIND_HALF } else { KIND_MESSAGE };
    buffer.reserve(frame::FRAME_LEN + HEAD_LEN + 256 + message.body.len());
    frame::write(buffer, kind, VERSION, |buffer| {
        let start = buffer.len();
        let mut w = Writer(buffer);
        w.u32(place.topic.0);
        w.u32(place.queue);
        w.u64(Identity::of(producer, &message.message_id).0);
        w.u64(0); // the content hash, filled in below
        w.u64(TagHash::of(message.tag.as_deref()).0);
        w.u64(message.born_at.0);
        w.u32(checks.first_ms.unwrap_or(UNSET_32));
        w.u32(checks.interval_ms.unwrap_or(UNSET_32));
        w.u16(checks.max.unwrap_or(UNSET_16));
        w.u8(message.kind as u8);
        w.u8(message.encoding as u8);
        w.u32(message.body.len() as u32);
        w.u64(place.stored_at.0);
        w.text(&message.message_id);
        w.text(producer);
        w.text(&message.born_host);
        w.option(message.trace_context.as_deref(), |w, trace| w.text(trace));
        let content_at = w.0.len();
        write_content(&mut w, message);
        let content = xxhash_rust::xxh3::xxh3_64(&buffer[content_at..]);
        buffer[start + 16..start + 24].copy_from_slice(&content.to_le_bytes());
    })
}

fn write_content(w: &mut Writer<'_>, message: &NewMessage) {
    w.option(message.tag.as_deref(), |w, tag| w.text(tag));
    w.option(message.message_group.as_deref(), |w, group| w.text(group));
    w.option(message.deliver_at, |w, at| w.u64(at.0));
    w.varint(message.keys.len() as u64);
    message.keys.iter().for_each(|key| w.text(key));
    w.varint(message.properties.len() as u64);
    for (name, value) in &message.properties {
        w.text(name);
        w.text(value);
    }
    w.0.extend_from_slice(&message.body);
}

impl MessageHead {
    /// Reads the head of a message record's fields.
    pub(super) fn decode(fields: &[u8]) -> Result<Self, DecodeError> {
        let head: &[u8; HEAD_LEN] = fields.first_chunk().ok_or(DecodeError::Short("the head of a message"))?;
        let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let max = u16::from_le_bytes([head[48], head[49]]);
        Ok(Self {
            topic: TopicId(u32_at(0)),
            queue: u32_at(4),
            identity: Identity(u64_at(8)),
            content: u64_at(16),
            tag: TagHash(u64_at(24)),
            checks: CheckOverrides {
                first_ms: Some(u32_at(40)).filter(|ms| *ms != UNSET_32),
                interval_ms: Some(u32_at(44)).filter(|ms| *ms != UNSET_32),
                max: Some(max).filter(|max| *max != UNSET_16),
            },
            record_len: (frame::FRAME_LEN + fields.len()) as u32,
        })
    }
}

/// When a message or half was stored, from its record. Looks at the head alone, and does not verify it: for what is shown,
/// and not for what is decided.
pub fn stored_at(record: &Bytes) -> Result<Millis, DecodeError> {
    const STORED_AT: usize = 56;
    let record = &retention::message_of(record)?;
    let (frame, _) = frame::Frame::split(record)?;
    if !matches!(frame.kind(), KIND_MESSAGE | KIND_HALF) {
        return Err(DecodeError::Value { field: "the kind of a message record", value: frame.kind().into() });
    }
    let mut head = Reader(frame.fields());
    head.take(STORED_AT, "head of a message")?;
    head.u64("stored at").map(Millis)
}

/// Reads a whole message back. `record` is the complete record with its frame; its checksum is verified here, on read.
/// The body is a slice of `record`. A half message that was carried to another place is read like the first.
///
/// `recovery_ms` comes back as the first check that was agreed on, whether the message or a property asked for it.
pub fn decode_stored(record: &Bytes) -> Result<(MessageHead, StoredMessage), DecodeError> {
    let record = &retention::message_of(record)?;
    let (frame, _) = frame::Frame::split(record)?;
    frame.verify()?;
    if !matches!(frame.kind(), KIND_MESSAGE | KIND_HALF) {
        return Err(DecodeError::Value { field: "the kind of a message record", value: frame.kind().into() });
    }
    if frame.version() != VERSION {
        return Err(DecodeError::UnknownKind { kind: frame.kind(), version: frame.version() });
    }
    let fields = frame.fields();
    let head = MessageHead::decode(fields)?;
    let mut fixed = Reader(&fields[32..HEAD_LEN]);
    let born_at = Millis(fixed.u64("born at")?);
    fixed.take(10, "check settings")?;
    let (kind, encoding) = (fixed.u8("kind")?, fixed.u8("encoding")?);
    let wrong_kind = DecodeError::Value { field: "kind", value: kind.into() };
    let kind = MessageKind::from_number(kind)
        .filter(|kind| (*kind == MessageKind::Transaction) == (frame.kind() == KIND_HALF))
        .ok_or(wrong_kind)?;
    let body_len = fixed.u32("body length")? as usize;
    let stored_at = Millis(fixed.u64("stored at")?);

    let mut r = Reader(&fields[HEAD_LEN..]);
    let message_id = r.string("message id")?;
    let producer = r.string("producer")?;
    let born_host = r.string("born host")?;
    let trace_context = r.option("trace context", |r| r.string("trace context"))?;
    let tag = r.option("tag", |r| r.string("tag"))?;
    let message_group = r.option("message group", |r| r.string("message group"))?;
    let deliver_at = r.option("deliver at", |r| r.u64("deliver at").map(Millis))?;
    let keys = r.list("keys", |r| r.string("key"))?;
    let properties = r.list("properties", |r| Ok((r.string("property name")?, r.string("property value")?)))?;
    let body = r.take(body_len, "body")?;
    r.end()?;

    let message = NewMessage {
        message_id,
        tag,
        keys,
        properties,
        kind,
        encoding: BodyEncoding::from_number(encoding)
            .ok_or(DecodeError::Value { field: "encoding", value: encoding.into() })?,
        born_at,
        born_host,
        trace_context,
        message_group,
        deliver_at,
        recovery_ms: head.checks.first_ms.map(u64::from),
        body: record.slice_ref(body),
    };
    Ok((head, StoredMessage { message, producer, stored_at }))
}
