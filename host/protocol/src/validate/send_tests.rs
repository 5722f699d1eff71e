use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::wire::{Message, Resource, SendMessageRequest};

const NOW: Millis = Millis(1_700_000_000_000);

fn topic(name: &str) -> Option<Resource> {
    Some(Resource { name: name.into(), ..Default::default() })
}

fn message() -> Message {
    Message {
        topic: topic("orders"),
        body: Bytes::from_static(b"body"),
        system_properties: Some(SystemProperties { message_id: "01AB".into(), ..Default::default() }),
        ..Default::default()
    }
}

fn check(messages: Vec<Message>) -> Result<ValidSend, Violation> {
    send(SendMessageRequest { messages }, CallNames::default(), Arrival { at: NOW, peer: "10.0.0.9" })
}

/// The code that a change of the good message earns; none if it is still good.
fn code(change: impl FnOnce(&mut Message, &mut SystemProperties)) -> Option<Code> {
    let mut message = message();
    let mut system = message.system_properties.take().unwrap();
    change(&mut message, &mut system);
    message.system_properties = Some(system);
    check(vec![message]).err().map(|violation| violation.code)
}

#[test]
fn a_plain_message_passes_with_all_it_says() {
    let mut sent = message();
    sent.user_properties = [("b", "2"), ("a", "ä")].map(|(name, value)| (name.into(), value.into())).into();
    let system = sent.system_properties.as_mut().unwrap();
    system.tag = Some("t".into());
    system.keys = vec!["k1".into(), "k2".into()];
    system.born_timestamp = Some(Timestamp { seconds: 5, nanos: 6_999_999 });
    system.born_host = "host".into();
    system.trace_context = Some("trace".into());
    system.delivery_attempt = Some(77);
    let ValidSend { topic, messages } = check(vec![sent]).unwrap();
    assert_eq!(topic, ResourceName::plain("orders"));
    let expected = NewMessage {
        message_id: "01AB".into(),
        tag: Some("t".into()),
        keys: vec!["k1".into(), "k2".into()],
        properties: vec![("a".into(), "ä".into()), ("b".into(), "2".into())],
        kind: MessageKind::Normal,
        encoding: BodyEncoding::Identity,
        born_at: Millis(5006),
        born_host: "host".into(),
        trace_context: Some("trace".into()),
        message_group: None,
        deliver_at: None,
        recovery_ms: None,
        body: Bytes::from_static(b"body"),
    };
    assert_eq!(messages, [expected]);
}

#[test]
fn the_body_is_a_slice_of_the_request() {
    let sent = message();
    let at = sent.body.as_ptr();
    assert_eq!(check(vec![sent]).unwrap().messages[0].body.as_ptr(), at);
}

#[test]
fn missing_birth_is_filled_from_the_arrival() {
    let kept = check(vec![message()]).unwrap().messages.remove(0);
    assert_eq!((kept.born_at, kept.born_host.as_str()), (NOW, "10.0.0.9"));
    let mut sent = message();
    sent.system_properties.as_mut().unwrap().born_timestamp = Some(Timestamp { seconds: -1, nanos: 0 });
    assert_eq!(check(vec![sent]).unwrap().messages[0].born_at, NOW);
}

#[test]
fn a_request_without_messages_or_with_two_topics_is_corrupted() {
    assert_eq!(check(vec![]).unwrap_err().code, Code::MessageCorrupted);
    let other = Message { topic: topic("payments"), ..message() };
    assert_eq!(check(vec![message(), other]).unwrap_err().code, Code::MessageCorrupted);
    assert_eq!(check(vec![message(), message()]).unwrap().messages.len(), 2);
    let nameless = Message { topic: None, ..message() };
    assert_eq!(check(vec![nameless]).unwrap_err().code, Code::IllegalTopic);
}

#[test]
fn one_bad_message_refuses_the_batch() {
    let bad = Message { body: Bytes::new(), ..message() };
    assert_eq!(check(vec![message(), bad]).unwrap_err().code, Code::MessageBodyEmpty);
}

#[test]
fn the_body_is_bounded_on_both_sides() {
    let body = |len| code(|message, _| message.body = vec![1; len].into());
    assert_eq!(body(0), Some(Code::MessageBodyEmpty));
    assert_eq!(body(1), None);
    assert_eq!(body(limits::BODY_MAX_BYTES), None);
    assert_eq!(body(limits::BODY_MAX_BYTES + 1), Some(Code::MessageBodyTooLarge));
}

#[test]
fn the_batch_is_bounded_on_both_sides() {
    assert!(check(vec![message(); limits::SEND_BATCH_MAX]).is_ok());
    assert_eq!(check(vec![message(); limits::SEND_BATCH_MAX + 1]).unwrap_err().code, Code::PayloadTooLarge);
    let of = |bytes: usize| Message { body: vec![1; bytes].into(), ..message() };
    // The first message goes in without its topic, which all share.
    let rest = of(1).encoded_len() - 1 + Message { topic: None, ..of(1) }.encoded_len() - 1;
    let lengths_of_large_bodies = 2 * 3;
    let body = (limits::SEND_BATCH_MAX_BYTES - rest - lengths_of_large_bodies) / 2;
    assert!(body <= limits::BODY_MAX_BYTES);
    assert_eq!(check(vec![of(body), of(body)]).map(|send| send.messages.len()), Ok(2));
    assert_eq!(check(vec![of(body), of(body + 2)]).unwrap_err().code, Code::PayloadTooLarge);
}

#[test]
fn properties_are_bounded_by_number_and_by_bytes() {
    let count = |count| {
        code(|message, _| message.user_properties = (0..count).map(|n| (n.to_string(), String::new())).collect())
    };
    assert_eq!(count(128), None);
    assert_eq!(count(129), Some(Code::MessagePropertiesTooLarge));
    let bytes = |extra: usize| {
        code(|message, system| {
            system.tag = Some("tag".into());
            system.keys = vec!["key".into()];
            let value = "v".repeat(limits::PROPERTIES_MAX_BYTES - 3 - 3 - 4 + extra);
            message.user_properties = [("name".to_owned(), value)].into();
        })
    };
    assert_eq!(bytes(0), None);
    assert_eq!(bytes(1), Some(Code::MessagePropertiesTooLarge));
}

#[test]
fn reserved_names_and_control_characters_in_properties_are_refused() {
    let property = |name: &str, value: &str| {
        code(|message, _| message.user_properties = [(name.to_owned(), value.to_owned())].into())
    };
    assert_eq!(property("color", "red|blue"), None);
    for (name, value) in [("KEYS", "x"), ("__LITE_TOPIC", "x"), ("a\nb", "x"), ("a", "x\u{0}"), ("a", "\u{85}")] {
        assert_eq!(property(name, value), Some(Code::IllegalMessagePropertyKey), "{name:?} {value:?}");
    }
}

#[test]
fn tags_and_keys_have_their_rules() {
    let tag = |tag: &str| code(|_, system| system.tag = Some(tag.into()));
    assert_eq!((tag("a b"), tag("")), (None, None));
    for bad in [" ", "a|b", "a\tb"] {
        assert_eq!(tag(bad), Some(Code::IllegalMessageTag), "{bad:?}");
    }
    let key = |key: &str| code(|_, system| system.keys = vec!["good".into(), key.into()]);
    assert_eq!((key("a|b"), key("")), (None, None));
    for bad in ["  ", "a\nb"] {
        assert_eq!(key(bad), Some(Code::IllegalMessageKey), "{bad:?}");
    }
}

#[test]
fn the_message_id_is_bounded_on_both_sides() {
    let id = |id: &str| code(|_, system| system.message_id = id.into());
    for bad in ["", " \t", "a\u{7f}"] {
        assert_eq!(id(bad), Some(Code::IllegalMessageId), "{bad:?}");
    }
    assert_eq!(id(&"x".repeat(limits::MESSAGE_ID_MAX_BYTES)), None);
    assert_eq!(id(&"x".repeat(limits::MESSAGE_ID_MAX_BYTES + 1)), Some(Code::IllegalMessageId));
}

#[test]
fn the_recovery_duration_is_bounded_and_kept_for_half_messages_only() {
    let recovery = |seconds, nanos| {
        code(|_, system| system.orphaned_transaction_recovery_duration = Some(prost_types::Duration { seconds, nanos }))
    };
    assert_eq!((recovery(0, 0), recovery(3600, 0)), (None, None));
    assert_eq!(recovery(3600, 1), Some(Code::BadRequest));
    assert_eq!(recovery(-1, 0), Some(Code::BadRequest));
    let mut sent = message();
    let system = sent.system_properties.as_mut().unwrap();
    system.orphaned_transaction_recovery_duration = Some(prost_types::Duration { seconds: 2, nanos: 0 });
    assert_eq!(check(vec![sent.clone()]).unwrap().messages[0].recovery_ms, None);
    sent.system_properties.as_mut().unwrap().message_type = MessageType::Transaction as i32;
    assert_eq!(check(vec![sent]).unwrap().messages[0].recovery_ms, Some(2000));
}

#[test]
fn the_delivery_time_is_bounded_and_the_past_is_allowed() {
    let now_s = NOW.0 as i64 / 1000;
    let at = |seconds, nanos| code(|_, system| system.delivery_timestamp = Some(Timestamp { seconds, nanos }));
    assert_eq!((at(now_s + 86_400, 0), at(now_s - 5, 0), at(-5, 0)), (None, None, None));
    for (seconds, nanos) in [(now_s + 86_400, 1_000_000), (i64::MAX, 0), (now_s, -1), (now_s, 1_000_000_000)] {
        assert_eq!(at(seconds, nanos), Some(Code::IllegalDeliveryTime), "{seconds} {nanos}");
    }
}

#[test]
fn the_message_group_is_bounded_on_both_sides() {
    let group = |group: &str| code(|_, system| system.message_group = Some(group.into()));
    assert_eq!((group(""), group(&"g".repeat(63))), (None, None));
    for bad in [" ", "a\nb", &"g".repeat(64), &"é".repeat(32)] {
        assert_eq!(group(bad), Some(Code::IllegalMessageGroup), "{bad:?}");
    }
}

#[test]
fn the_kind_comes_from_the_fields_and_transaction_from_the_type() {
    let kind = |change: fn(&mut SystemProperties)| {
        let mut sent = message();
        change(sent.system_properties.as_mut().unwrap());
        check(vec![sent]).map(|send| send.messages[0].kind).map_err(|violation| violation.code)
    };
    assert_eq!(kind(|_| ()), Ok(MessageKind::Normal));
    // Without the field that makes it so it is a normal one, whatever the client calls it.
    assert_eq!(kind(|system| system.message_type = MessageType::Fifo as i32), Ok(MessageKind::Normal));
    assert_eq!(kind(|system| system.message_type = MessageType::Delay as i32), Ok(MessageKind::Normal));
    assert_eq!(kind(|system| system.message_type = MessageType::Priority as i32), Ok(MessageKind::Normal));
    assert_eq!(kind(|system| system.message_type = 99), Ok(MessageKind::Normal));
    assert_eq!(kind(|system| system.message_type = MessageType::Transaction as i32), Ok(MessageKind::Transaction));
    assert_eq!(kind(|system| system.message_group = Some("g".into())), Ok(MessageKind::Fifo));
    assert_eq!(kind(|system| system.delivery_timestamp = Some(Timestamp::default())), Ok(MessageKind::Delay));
    assert_eq!(kind(|system| system.priority = Some(1)), Err(Code::NotImplemented));
    assert_eq!(kind(|system| system.lite_topic = Some("l".into())), Err(Code::NotImplemented));
    assert_eq!(kind(|system| system.lite_topic = Some("l l".into())), Err(Code::IllegalLiteTopic));
    assert_eq!(kind(|system| system.lite_topic = Some("l".repeat(65))), Err(Code::IllegalLiteTopic));
    let two = kind(|system| {
        system.message_group = Some("g".into());
        system.delivery_timestamp = Some(Timestamp::default());
    });
    assert_eq!(two, Err(Code::MessagePropertyConflictWithType));
}

#[test]
fn a_compressed_body_must_be_of_a_known_format() {
    let body = |encoding: i32, body: &'static [u8]| {
        code(|message, system| {
            message.body = Bytes::from_static(body);
            system.body_encoding = encoding;
        })
    };
    assert_eq!(body(2, &[0x1f, 0x8b, 8, 0]), None);
    assert_eq!(body(2, &[0x78, 0x9c, 1]), None);
    assert_eq!(body(2, b"plain"), Some(Code::MessageCorrupted));
    assert_eq!(body(3, b"plain"), Some(Code::MessageCorrupted));
    assert_eq!((body(0, b"plain"), body(1, b"plain")), (None, None));
}

#[test]
fn strings_without_another_bound_have_one() {
    let host = |len| code(|_, system| system.born_host = "h".repeat(len));
    assert_eq!(host(limits::BORN_HOST_MAX_BYTES), None);
    assert_eq!(host(limits::BORN_HOST_MAX_BYTES + 1), Some(Code::BadRequest));
    let trace = |len| code(|_, system| system.trace_context = Some("t".repeat(len)));
    assert_eq!(trace(limits::TRACE_CONTEXT_MAX_BYTES), None);
    assert_eq!(trace(limits::TRACE_CONTEXT_MAX_BYTES + 1), Some(Code::MessagePropertiesTooLarge));
}

#[test]
fn a_bad_check_property_refuses_a_half_message_and_no_other() {
    let with = |kind: MessageType| {
        code(|message, system| {
            message.user_properties = [("vouch-check-max".to_owned(), "many".to_owned())].into();
            system.message_type = kind as i32;
        })
    };
    assert_eq!(with(MessageType::Transaction), Some(Code::IllegalMessagePropertyKey));
    assert_eq!(with(MessageType::Normal), None);
}

#[test]
fn the_first_fault_in_reference_order_decides() {
    let found = code(|message, system| {
        message.body = Bytes::new();
        system.tag = Some("|".into());
        system.message_id = String::new();
    });
    assert_eq!(found, Some(Code::MessageBodyEmpty));
    let found = code(|_, system| {
        system.message_id = String::new();
        system.tag = Some("|".into());
    });
    assert_eq!(found, Some(Code::IllegalMessageTag));
}

proptest! {
    #[test]
    fn no_bytes_make_the_check_panic(bytes: Vec<u8>) {
        if let Ok(request) = SendMessageRequest::decode(&bytes[..]) {
            let _ = send(request, CallNames::default(), Arrival { at: NOW, peer: "" });
        }
    }

    #[test]
    fn no_times_make_the_check_panic(seconds: i64, nanos: i32, kind: i32) {
        let _ = code(|_, system| {
            system.delivery_timestamp = Some(Timestamp { seconds, nanos });
            system.born_timestamp = Some(Timestamp { seconds, nanos });
            system.message_type = kind;
        });
    }
}
