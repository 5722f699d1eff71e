//! Requests that repeat one piece again and again: what is let through to the decoder takes little memory, and what can be
//! decoded is never called malformed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use vouch_fuzz::within_memory;
use vouch_protocol::limits::{CALL_MAX_BYTES, REQUEST_MESSAGES_MAX, REQUEST_TEXTS_MAX};
use vouch_protocol::shape::{self, Shaped, Unfit};
use vouch_protocol::wire;

/// Memory that the elements of lists and maps may take, whatever the bytes: a message is up to a kilobyte, and a text with
/// its place in a map a hundred bytes, twice as much while a list grows.
const ELEMENTS: usize = 2 * (REQUEST_MESSAGES_MAX as usize * 1024 + REQUEST_TEXTS_MAX as usize * 100);

fn decode<M: Message + Default + Shaped>(bytes: &[u8]) {
    match shape::check::<M>(bytes) {
        Ok(()) => {
            let _ = within_memory(bytes.len() + ELEMENTS / 4, 4, || M::decode(bytes));
        }
        Err(Unfit::TooMany(..)) => {}
        Err(Unfit::Malformed) => assert!(M::decode(bytes).is_err(), "what can be decoded is called malformed"),
    }
}

fuzz_target!(|data: &[u8]| {
    let [which, low, high, piece @ ..] = data else { return };
    let times = usize::from(u16::from_le_bytes([*low, *high])) * 8;
    let bytes = piece.repeat(times.clamp(1, (CALL_MAX_BYTES / piece.len().max(1)).max(1)));
    match which % 6 {
        0 => decode::<wire::SendMessageRequest>(&bytes),
        1 => decode::<wire::AckMessageRequest>(&bytes),
        2 => decode::<wire::TelemetryCommand>(&bytes),
        3 => decode::<wire::ReceiveMessageRequest>(&bytes),
        4 => decode::<wire::QueryRouteRequest>(&bytes),
        _ => decode::<wire::SyncLiteSubscriptionRequest>(&bytes),
    }
});
