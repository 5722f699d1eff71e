//! SendMessage (§4.4): the checks in reference order, and the kind of each message.

use std::time::Duration;

use prost::Message as _;
use prost_types::Timestamp;
use vouch_broker::check::CheckOverrides;
use vouch_broker::{BodyEncoding, MessageKind, Millis, NewMessage, Refusal, ResourceName};

use super::{CallNames, Violation, has_control, is_blank, refuse};
use crate::convert::{duration, millis};
use crate::reserved::is_reserved;
use crate::wire::{self, Code, Encoding, MessageType, SystemProperties};
use crate::{compression, limits};

/// When and from where a request came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The server's clock.
    pub at: Millis,
    /// Address of the peer, for messages that do not name the host they were made on.
    pub peer: &'a str,
}

/// A request to send that broke no rule of the wire. Whether the topic exists and takes the kind is the broker's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidSend {
    /// The one topic of all messages.
    pub topic: ResourceName,
    /// At least one, in the order of the request.
    pub messages: Vec<NewMessage>,
}

/// Checks a request to send. All or nothing: one bad message refuses the request.
pub fn send(
    request: wire::SendMessageRequest,
    names: CallNames<'_>,
    arrival: Arrival<'_>,
) -> Result<ValidSend, Violation> {
    let mut messages = request.messages;
    let Some(first) = messages.first_mut() else {
        return refuse(Code::MessageCorrupted, "the request has no messages; send at least one");
    };
    let resource = first.topic.take();
    let topic = names.topic(resource.clone())?;
    if messages[1..].iter().any(|message| message.topic != resource) {
        return refuse(Code::MessageCorrupted, "the messages of one request must have the same topic; split the batch");
    }
    check_batch(&messages)?;
    let messages = messages.into_iter().map(|message| new_message(message, arrival)).collect::<Result<_, _>>()?;
    Ok(ValidSend { topic, messages })
}

/// Checks a message that a component publishes by the rules for those that clients send.
pub fn published(message: &NewMessage) -> Result<(), Violation> {
    check_body(&message.body)?;
    let properties: Properties = message.properties.iter().cloned().collect();
    if properties.len() < message.properties.len() {
        return refuse(Code::IllegalMessagePropertyKey, "a property is there twice; a name has one value");
    }
    check_properties(&properties, message.tag.as_deref(), &message.keys)?;
    check_group(message.message_group.as_deref())
}

/// Bounds a batch by the number of its messages and by their bytes. A single one is bounded elsewhere, with a code of
/// its own.
fn check_batch(messages: &[wire::Message]) -> Result<(), Violation> {
    if messages.len() > limits::SEND_BATCH_MAX {
        let text =
            format!("the request has {} messages; at most {} are allowed", messages.len(), limits::SEND_BATCH_MAX);
        return refuse(Code::PayloadTooLarge, text);
    }
    // A single message that is too large breaks a bound of its own, with a code of its own.
    let bytes = if messages.len() > 1 { messages.iter().map(wire::Message::encoded_len).sum() } else { 0 };
    if bytes > limits::SEND_BATCH_MAX_BYTES {
        let max = limits::SEND_BATCH_MAX_BYTES;
        let text = format!("the messages have {bytes} bytes together; at most {max} are allowed, split the batch");
        return refuse(Code::PayloadTooLarge, text);
    }
    Ok(())
}

/// A message as the broker takes it. Nothing is stored of a request of which one message is refused.
fn new_message(message: wire::Message, arrival: Arrival<'_>) -> Result<NewMessage, Violation> {
    let wire::Message { user_properties, system_properties, body, .. } = message;
    let system = system_properties.unwrap_or_default();
    check_body(&body)?;
    let tag = system.tag.as_deref().filter(|tag| !tag.is_empty());
    check_properties(&user_properties, tag, &system.keys)?;
    check_id(&system.message_id)?;
    let recovery = check_recovery(&system)?;
    let deliver_at = delivery_time(system.delivery_timestamp.as_ref(), arrival.at)?;
    let group = system.message_group.as_deref().filter(|group| !group.is_empty());
    check_group(group)?;
    let kind = kind(&system, group)?;
    let encoding = encoding(system.body_encoding, &body)?;
    check_bounds(&system)?;
    let message = NewMessage {
        message_id: system.message_id,
        tag: system.tag.filter(|tag| !tag.is_empty()),
        keys: system.keys,
        properties: user_properties.into_iter().collect(),
        kind,
        encoding,
        born_at: system.born_timestamp.as_ref().and_then(millis).unwrap_or(arrival.at),
        born_host: if system.born_host.is_empty() { arrival.peer.to_owned() } else { system.born_host },
        trace_context: system.trace_context.filter(|context| !context.is_empty()),
        message_group: system.message_group.filter(|group| !group.is_empty()),
        deliver_at,
        recovery_ms: recovery.filter(|_| kind == MessageKind::Transaction).map(|wait| wait.as_millis() as u64),
        body,
    };
    if kind == MessageKind::Transaction {
        // A bad wish about its checks would otherwise be found when nobody is there to be told.
        CheckOverrides::of(&message)
            .map_err(|refusal| Violation::new(Code::IllegalMessagePropertyKey, refusal.to_string()))?;
    }
    Ok(message)
}

fn check_body(body: &[u8]) -> Result<(), Violation> {
    if body.is_empty() {
        return refuse(Code::MessageBodyEmpty, "the body is empty; a message has at least one byte");
    }
    if body.len() > limits::BODY_MAX_BYTES {
        let (size, max) = (body.len(), limits::BODY_MAX_BYTES);
        return refuse(Code::MessageBodyTooLarge, format!("the body has {size} bytes; at most {max} are allowed"));
    }
    Ok(())
}

type Properties = std::collections::BTreeMap<String, String>;

fn check_properties(properties: &Properties, tag: Option<&str>, keys: &[String]) -> Result<(), Violation> {
    if properties.len() > limits::PROPERTIES_MAX {
        let (count, max) = (properties.len(), limits::PROPERTIES_MAX);
        let text = format!("the message has {count} properties; at most {max} are allowed");
        return refuse(Code::MessagePropertiesTooLarge, text);
    }
    let mut bytes = tag.map_or(0, str::len);
    for (name, value) in properties {
        if is_reserved(name) {
            let text = format!("the property name {name:?} is reserved; choose another");
            return refuse(Code::IllegalMessagePropertyKey, text);
        }
        if has_control(name) || has_control(value) {
            let text = format!("the property {name:?} contains a control character; encode it");
            return refuse(Code::IllegalMessagePropertyKey, text);
        }
        bytes += name.len() + value.len();
    }
    if tag.is_some_and(|tag| is_blank(tag) || tag.contains('|') || has_control(tag)) {
        return refuse(Code::IllegalMessageTag, "the tag is blank or contains '|' or a control character");
    }
    for key in keys {
        if (is_blank(key) && !key.is_empty()) || has_control(key) {
            return refuse(Code::IllegalMessageKey, "a key is blank or contains a control character");
        }
        bytes += key.len();
    }
    if bytes > limits::PROPERTIES_MAX_BYTES {
        let max = limits::PROPERTIES_MAX_BYTES;
        let text = format!("properties, tag and keys have {bytes} bytes together; at most {max} are allowed");
        return refuse(Code::MessagePropertiesTooLarge, text);
    }
    Ok(())
}

fn check_id(id: &str) -> Result<(), Violation> {
    if is_blank(id) {
        return refuse(Code::IllegalMessageId, "the message id is blank; every message needs one");
    }
    if id.len() > limits::MESSAGE_ID_MAX_BYTES || has_control(id) {
        let max = limits::MESSAGE_ID_MAX_BYTES;
        return refuse(
            Code::IllegalMessageId,
            format!("a message id has at most {max} bytes and no control characters"),
        );
    }
    Ok(())
}

fn check_recovery(system: &SystemProperties) -> Result<Option<Duration>, Violation> {
    let Some(wire) = &system.orphaned_transaction_recovery_duration else { return Ok(None) };
    match duration(wire) {
        Some(wait) if wait <= limits::RECOVERY_MAX => Ok(Some(wait)),
        _ => refuse(Code::BadRequest, "orphaned_transaction_recovery_duration must be 0 to 3600 seconds"),
    }
}

fn delivery_time(at: Option<&Timestamp>, now: Millis) -> Result<Option<Millis>, Violation> {
    let Some(at) = at else { return Ok(None) };
    // A time before 1970 is in the past, which is delivered at once.
    let time = if at.seconds < 0 { Some(Millis(0)) } else { millis(at) };
    match time {
        Some(time) if u128::from(time.ms_since(now)) <= limits::DELIVERY_AHEAD_MAX.as_millis() => Ok(Some(time)),
        _ => refuse(Code::IllegalDeliveryTime, "the delivery time is too far ahead; at most 24 hours are allowed"),
    }
}

fn check_group(group: Option<&str>) -> Result<(), Violation> {
    let Some(group) = group else { return Ok(()) };
    if is_blank(group) || group.len() > limits::MESSAGE_GROUP_MAX_BYTES || has_control(group) {
        let max = limits::MESSAGE_GROUP_MAX_BYTES;
        let text = format!("a message group is not blank, has at most {max} bytes and no control characters");
        return refuse(Code::IllegalMessageGroup, text);
    }
    Ok(())
}

/// The kind comes from the fields, but for transactions (§4.4.2). Fields that exclude one another are refused.
fn kind(system: &SystemProperties, group: Option<&str>) -> Result<MessageKind, Violation> {
    let lite = system.lite_topic.as_deref().filter(|lite| !lite.is_empty());
    if let Some(lite) = lite {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if lite.len() > limits::LITE_TOPIC_MAX_BYTES || !lite.bytes().all(legal) {
            let text = "a lite topic has at most 64 letters, digits, '_' or '-'";
            return refuse(Code::IllegalLiteTopic, text);
        }
    }
    let found = [
        (system.message_type == MessageType::Transaction as i32, Ok(MessageKind::Transaction)),
        (system.delivery_timestamp.is_some(), Ok(MessageKind::Delay)),
        (group.is_some(), Ok(MessageKind::Fifo)),
        (system.priority.is_some(), Err("a message with a priority")),
        (lite.is_some(), Err("a message for a lite topic")),
    ];
    let mut kinds = found.into_iter().filter(|(present, _)| *present).map(|(_, kind)| kind);
    let kind = kinds.next().unwrap_or(Ok(MessageKind::Normal));
    if kinds.next().is_some() {
        let text = "transaction, delivery time, message group, priority and lite topic exclude one another; use one";
        return refuse(Code::MessagePropertyConflictWithType, text);
    }
    kind.map_err(|what| Refusal::NotBuilt(what).into())
}

/// What the body is, as the client says. One that is marked as compressed and begins otherwise is refused: no consumer
/// could read it.
fn encoding(number: i32, body: &[u8]) -> Result<BodyEncoding, Violation> {
    match Encoding::try_from(number) {
        Ok(Encoding::Unspecified | Encoding::Identity) => Ok(BodyEncoding::Identity),
        Ok(Encoding::Gzip) if compression::is_known(body) => Ok(BodyEncoding::Gzip),
        Ok(Encoding::Gzip) => {
            refuse(Code::MessageCorrupted, "the body is marked as compressed and is neither gzip nor zlib")
        }
        Err(_) => refuse(Code::MessageCorrupted, format!("body encoding {number} is unknown; use IDENTITY or GZIP")),
    }
}

fn check_bounds(system: &SystemProperties) -> Result<(), Violation> {
    if system.born_host.len() > limits::BORN_HOST_MAX_BYTES {
        return refuse(Code::BadRequest, format!("born_host has at most {} bytes", limits::BORN_HOST_MAX_BYTES));
    }
    if system.trace_context.as_ref().is_some_and(|context| context.len() > limits::TRACE_CONTEXT_MAX_BYTES) {
        let max = limits::TRACE_CONTEXT_MAX_BYTES;
        return refuse(Code::MessagePropertiesTooLarge, format!("trace_context has at most {max} bytes"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "send_tests.rs"]
mod tests;
