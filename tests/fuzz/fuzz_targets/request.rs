//! Requests of strangers, from their bytes to the broker's own types: what is accepted keeps every bound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use vouch_broker::check::CheckOverrides;
use vouch_broker::{MessageKind, Millis, TransactionId};
use vouch_fuzz::within_memory;
use vouch_protocol::validate::{self, Arrival, CallNames};
use vouch_protocol::{limits, wire};

/// Memory per byte of a request: a message of two bytes is one of many fields in memory.
const FACTOR: usize = 1024;

fn decode<M: Message + Default + PartialEq>(bytes: &[u8]) -> Option<M> {
    let request = within_memory(bytes.len(), FACTOR, || M::decode(bytes)).ok()?;
    let again = M::decode(&request.encode_to_vec()[..]).expect("what was read can be read again");
    assert!(again == request, "a request changes when it is written and read");
    Some(request)
}

fn send(bytes: &[u8]) -> Option<()> {
    let request: wire::SendMessageRequest = decode(bytes)?;
    let count = request.messages.len();
    let arrival = Arrival { at: Millis(1_700_000_000_000), peer: "192.0.2.1" };
    let sent = validate::send(request, CallNames::default(), arrival).ok()?;
    assert!((1..=limits::SEND_BATCH_MAX).contains(&count) && sent.messages.len() == count);
    for message in sent.messages {
        assert!((1..=limits::BODY_MAX_BYTES).contains(&message.body.len()));
        assert!(message.properties.is_sorted() && message.properties.len() <= limits::PROPERTIES_MAX);
        assert!(!message.message_id.is_empty() && message.tag.as_deref() != Some(""));
        assert!(message.kind != MessageKind::Transaction || CheckOverrides::of(&message).is_ok());
    }
    Some(())
}

fn receive(bytes: &[u8]) -> Option<()> {
    let received = validate::receive(decode(bytes)?, CallNames::default(), limits::RECEIVE_INVISIBLE_MIN).ok()?;
    assert!((1..=limits::RECEIVE_BATCH_MAX).contains(&received.max));
    let allowed = limits::RECEIVE_INVISIBLE_MIN..=limits::INVISIBLE_MAX;
    assert!(received.invisible.is_none_or(|length| allowed.contains(&length)));
    assert!(!received.topic.name.is_empty() && !received.group.name.is_empty());
    Some(())
}

fn ack(bytes: &[u8]) -> Option<()> {
    let mut request: wire::AckMessageRequest = decode(bytes)?;
    validate::acks(&mut request, CallNames::default()).ok()?;
    assert!((1..=limits::ACK_BATCH_MAX).contains(&request.entries.len()));
    Some(())
}

fn end(bytes: &[u8]) -> Option<()> {
    let request: wire::EndTransactionRequest = decode(bytes)?;
    let text = request.transaction_id.clone();
    let decision = validate::decision(request, CallNames::default()).ok()?;
    assert_eq!(text.parse::<TransactionId>(), Ok(decision.transaction));
    assert!(!decision.message_id.is_empty());
    Some(())
}

fn change(bytes: &[u8]) -> Option<()> {
    let mut request: wire::ChangeInvisibleDurationRequest = decode(bytes)?;
    let change = validate::change(&mut request, CallNames::default()).ok()?;
    assert!(change.invisible <= limits::INVISIBLE_MAX);
    Some(())
}

fn settings(bytes: &[u8]) -> Option<()> {
    let request: wire::Settings = decode(bytes)?;
    let declared = validate::settings(&request, CallNames::default()).ok()?;
    assert!(declared.topics.iter().all(|topic| !topic.name.is_empty()));
    Some(())
}

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else { return };
    let _ = match which % 7 {
        0 => send(bytes),
        1 => receive(bytes),
        2 => ack(bytes),
        3 => end(bytes),
        4 => change(bytes),
        5 => settings(bytes),
        _ => decode(bytes).and_then(|request| validate::forward(request, CallNames::default()).ok()).map(drop),
    };
});
