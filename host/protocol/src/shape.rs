//! How much a request may unfold, judged on its bytes before anything is made of them.
//!
//! Two bytes on the wire (`0a 00`, an empty message in a list) become hundreds in memory. So the elements of lists and maps
//! are counted before a request is decoded. Which fields those are comes from the interface definition (`build.rs`):
//! a field added there is counted without anybody thinking of it.

use crate::limits::{REQUEST_MESSAGES_MAX, REQUEST_TEXTS_MAX};

/// Groups are a relic that nobody sends; what is inside of one is skipped, nested so deep at most.
const GROUPS_MAX: usize = 100;

/// Which fields of a message matter.
#[derive(Debug)]
pub struct Shape {
    fields: &'static [Field],
}

/// What a field of the interface definition may hold, as `build.rs` writes it down.
#[derive(Debug)]
struct Field {
    number: u32,
    name: &'static str,
    /// What its elements are, if there may be many.
    repeats: Option<Kind>,
    /// What is inside of it, if that is a message.
    within: Option<&'static Shape>,
}

/// What an element takes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The struct of a message, up to some hundreds of bytes.
    Message,
    /// A string, or an entry of a map of strings: up to a hundred bytes besides the text.
    Text,
}

/// A message of the interface definition.
pub trait Shaped {
    /// Its fields, if it comes from strangers.
    const SHAPE: Option<&'static Shape>;
}

/// Why a request is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Not the encoding of any message.
    #[error("the request cannot be read: its bytes are no message of the protocol")]
    Malformed,
    /// More elements than any request needs.
    #[error("the request has more than {1} elements in lists such as `{0}`; split it")]
    TooMany(&'static str, u32),
}

/// Whether a request of so many bytes may have too many elements at all: each takes its key and its length.
pub fn may_unfold(bytes: usize) -> bool {
    bytes > 2 * REQUEST_MESSAGES_MAX.min(REQUEST_TEXTS_MAX) as usize
}

/// Counts the elements of a request.
///
/// # Errors
/// [`Unfit`]. What is accepted here takes at most a small multiple of its bytes, and some megabytes, when it is decoded.
pub fn check<M: Shaped>(bytes: &[u8]) -> Result<(), Unfit> {
    M::SHAPE.map_or(Ok(()), |shape| Count::default().walk(bytes, shape))
}

/// Elements so far, in the whole request.
#[derive(Default)]
struct Count {
    messages: u32,
    texts: u32,
}

impl Count {
    /// Counts one element, which may be one too many of its kind in the whole request.
    fn add(&mut self, field: &Field) -> Result<(), Unfit> {
        let (count, most) = match field.repeats {
            None => return Ok(()),
            Some(Kind::Message) => (&mut self.messages, REQUEST_MESSAGES_MAX),
            Some(Kind::Text) => (&mut self.texts, REQUEST_TEXTS_MAX),
        };
        *count += 1;
        if *count > most { Err(Unfit::TooMany(field.name, most)) } else { Ok(()) }
    }

    /// The definition is not recursive: this goes as deep as its deepest message.
    fn walk(&mut self, mut bytes: &[u8], shape: &Shape) -> Result<(), Unfit> {
        while !bytes.is_empty() {
            let (number, wire_type) = key(&mut bytes)?;
            if wire_type != LENGTH_DELIMITED {
                skip(&mut bytes, number, wire_type, 0)?;
                continue;
            }
            let inside = length_delimited(&mut bytes)?;
            if let Some(field) = shape.fields.iter().find(|field| field.number == number) {
                self.add(field)?;
                if let Some(shape) = field.within {
                    self.walk(inside, shape)?;
                }
            }
        }
        Ok(())
    }
}

const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const GROUP: u64 = 3;
const GROUP_END: u64 = 4;
const FOUR_BYTES: u64 = 5;

/// Number and wire type of the next field.
fn key(bytes: &mut &[u8]) -> Result<(u32, u64), Unfit> {
    let key = u32::try_from(varint(bytes)?).map_err(|_| Unfit::Malformed)?;
    match key >> 3 {
        0 => Err(Unfit::Malformed),
        number => Ok((number, u64::from(key & 7))),
    }
}

/// A number of one to ten bytes, and what follows. It is read before anything is decoded, so each length is held
/// against what is there.
fn varint(bytes: &mut &[u8]) -> Result<u64, Unfit> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Unfit::Malformed)?;
        *bytes = rest;
        // The tenth byte holds the last bit of 64.
        if shift == 63 && *byte > 1 {
            return Err(Unfit::Malformed);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Unfit::Malformed)
}

/// So many bytes, if there are so many.
fn take<'a>(bytes: &mut &'a [u8], len: u64) -> Result<&'a [u8], Unfit> {
    let len = usize::try_from(len).map_err(|_| Unfit::Malformed)?;
    let (taken, rest) = bytes.split_at_checked(len).ok_or(Unfit::Malformed)?;
    *bytes = rest;
    Ok(taken)
}

fn length_delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Unfit> {
    let len = varint(bytes)?;
    take(bytes, len)
}

/// Passes over a field that nobody knows. Groups may lie in one another, up to a depth.
fn skip(bytes: &mut &[u8], number: u32, wire_type: u64, depth: usize) -> Result<(), Unfit> {
    match wire_type {
        VARINT => varint(bytes).map(drop),
        EIGHT_BYTES => take(bytes, 8).map(drop),
        FOUR_BYTES => take(bytes, 4).map(drop),
        LENGTH_DELIMITED => length_delimited(bytes).map(drop),
        GROUP if depth < GROUPS_MAX => loop {
            match key(bytes)? {
                (end, GROUP_END) if end == number => return Ok(()),
                (_, GROUP_END) => return Err(Unfit::Malformed),
                (inner, wire_type) => skip(bytes, inner, wire_type, depth + 1)?,
            }
        },
        _ => Err(Unfit::Malformed),
    }
}

/// Written by `build.rs`.
#[allow(dead_code, reason = "answers have shapes, too, and are not counted")]
mod shapes {
    use super::{Field, Kind, Shape, Shaped};

    include!(concat!(env!("OUT_DIR"), "/shapes.rs"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::wire;

    fn send(bytes: &[u8]) -> Result<(), Unfit> {
        check::<wire::SendMessageRequest>(bytes)
    }

    #[test]
    fn elements_are_counted_from_both_sides_of_their_bounds_however_deep_they_lie() {
        let messages = |count: u32| [0x0a, 0].repeat(count as usize);
        assert_eq!(send(&messages(REQUEST_MESSAGES_MAX)), Ok(()));
        assert_eq!(send(&messages(REQUEST_MESSAGES_MAX + 1)), Err(Unfit::TooMany("messages", REQUEST_MESSAGES_MAX)));
        assert_eq!(
            check::<wire::AckMessageRequest>(&[0x1a, 0].repeat(1 << 19)),
            Err(Unfit::TooMany("entries", REQUEST_MESSAGES_MAX))
        );
        // The properties of two messages.
        let properties = |count: u32| {
            let half = [0x12, 0].repeat(count as usize / 2);
            let message = |inside: &[u8]| [&[0x0a][..], &varint_of(inside.len()), inside].concat();
            [message(&half), message(&half)].concat()
        };
        assert_eq!(send(&properties(REQUEST_TEXTS_MAX)), Ok(()));
        assert_eq!(send(&properties(REQUEST_TEXTS_MAX + 2)), Err(Unfit::TooMany("user_properties", REQUEST_TEXTS_MAX)));
    }

    #[test]
    fn a_request_that_may_not_unfold_has_too_few_bytes_for_too_many_elements() {
        let most = (0..).take_while(|bytes| !may_unfold(*bytes)).last().unwrap();
        for key in [0x0a, 0x12, 0x1a] {
            let bytes = [key, 0].repeat(most / 2);
            assert_eq!(send(&bytes), Ok(()), "{key}");
            assert_eq!(check::<wire::AckMessageRequest>(&bytes), Ok(()), "{key}");
        }
        assert!(may_unfold(2 * REQUEST_MESSAGES_MAX as usize + 2));
    }

    fn varint_of(mut value: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    #[test]
    fn what_clients_send_at_their_bounds_is_let_through() {
        let system = wire::SystemProperties { keys: vec!["k".into(); 64], ..Default::default() };
        let properties = (0..crate::limits::PROPERTIES_MAX).map(|n| (n.to_string(), String::new())).collect();
        let message =
            wire::Message { user_properties: properties, system_properties: Some(system), ..Default::default() };
        let messages = vec![message; crate::limits::SEND_BATCH_MAX / 2];
        assert_eq!(send(&wire::SendMessageRequest { messages }.encode_to_vec()), Ok(()));
        let entries = vec![wire::AckMessageEntry::default(); crate::limits::ACK_BATCH_MAX + 1];
        let acks = wire::AckMessageRequest { entries, ..Default::default() };
        assert_eq!(check::<wire::AckMessageRequest>(&acks.encode_to_vec()), Ok(()));
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        for wrong in [
            &[0x0a][..],
            &[0x0a, 2, 0],
            &[0x08],
            &[0x00, 0],
            &[0x0c],
            &[0x0e],
            &[0x0f],
            &[0x09, 1, 2, 3],
            &[0x0b, 0x14],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[0x0b; 1000],
        ] {
            assert_eq!(send(wrong), Err(Unfit::Malformed), "{wrong:?}");
            assert!(wire::SendMessageRequest::decode(wrong).is_err(), "{wrong:?}");
        }
        // A group with a group inside, unknown to all.
        assert_eq!(send(&[0xa3, 6, 0x0b, 0x08, 1, 0x0c, 0xa4, 6]), Ok(()));
    }

    proptest! {
        #[test]
        fn what_can_be_decoded_is_never_called_malformed(bytes: Vec<u8>) {
            if wire::TelemetryCommand::decode(&bytes[..]).is_ok() {
                prop_assert_ne!(check::<wire::TelemetryCommand>(&bytes), Err(Unfit::Malformed));
            }
        }
    }
}
