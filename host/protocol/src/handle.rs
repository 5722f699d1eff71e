//! The text form of a receipt handle (ruling 10, protocol paper §5.1).
//!
//! | byte | field (big-endian) |
//! |---|---|
//! | 0 | version, 1 |
//! | 1–2 | shard |
//! | 3–6 | topic |
//! | 7–10 | group |
//! | 11–14 | queue |
//! | 15–22 | offset |
//! | 23–30 | generation |
//! | 31–38 | deadline, ms since 1970 |
//! | 39–54 | HMAC-SHA-256 over bytes 0–38, first 16 bytes |
//!
//! in URL-safe base64 without padding: 74 printable characters.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use vouch_broker::{Generation, GroupId, Handle, Millis, QueueOffset, ShardId, TopicId};

/// First byte of every handle; one of another version is none of ours.
const VERSION: u8 = 1;
/// Bytes of what a handle says.
const FIELDS_LEN: usize = 39;
/// Bytes of the check value behind it: enough that nobody guesses one.
const MAC_LEN: usize = 16;
const BYTES_LEN: usize = FIELDS_LEN + MAC_LEN;
/// Length of a handle's text in characters.
pub const HANDLE_TEXT_LEN: usize = (BYTES_LEN * 8).div_ceil(6);

/// Why text is not a receipt handle of this broker. The caller should receive the message again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// Not the form of a handle: cut short, edited, or something else.
    #[error("it is not in the form that this broker gives out")]
    Malformed,
    /// A form that this version does not know.
    #[error("it was given out by another version of the broker")]
    Version,
    /// The fields were changed, or another cluster gave it out.
    #[error("it was not given out by this broker")]
    Forged,
}

impl HandleError {
    /// The error's sentence, for [`vouch_broker::Refusal::InvalidHandle`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "it is not in the form that this broker gives out",
            Self::Version => "it was given out by another version of the broker",
            Self::Forged => "it was not given out by this broker",
        }
    }
}

/// Writes and verifies handles under the cluster's key, which every node has from the log.
#[derive(Clone)]
pub struct HandleKey {
    /// The keyed state: cloning it saves half the work of each handle.
    mac: Hmac<Sha256>,
}

impl fmt::Debug for HandleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandleKey(..)")
    }
}

impl HandleKey {
    /// Prepares the key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { mac: Hmac::new_from_slice(key).expect("HMAC takes keys of any length") }
    }

    /// The handle as clients carry it.
    pub fn seal(&self, handle: &Handle) -> String {
        let mut bytes = [0; BYTES_LEN];
        bytes[0] = VERSION;
        bytes[1..3].copy_from_slice(&handle.shard.0.to_be_bytes());
        bytes[3..7].copy_from_slice(&handle.topic.0.to_be_bytes());
        bytes[7..11].copy_from_slice(&handle.group.0.to_be_bytes());
        bytes[11..15].copy_from_slice(&handle.queue.to_be_bytes());
        bytes[15..23].copy_from_slice(&handle.offset.0.to_be_bytes());
        bytes[23..31].copy_from_slice(&handle.generation.0.to_be_bytes());
        bytes[31..39].copy_from_slice(&handle.deadline.0.to_be_bytes());
        let mac = self.mac.clone().chain_update(&bytes[..FIELDS_LEN]).finalize().into_bytes();
        bytes[FIELDS_LEN..].copy_from_slice(&mac[..MAC_LEN]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a handle back. The check value is compared in constant time.
    pub fn open(&self, text: &str) -> Result<Handle, HandleError> {
        let mut bytes = [0; BYTES_LEN];
        if text.len() != HANDLE_TEXT_LEN || URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) != Ok(BYTES_LEN) {
            return Err(HandleError::Malformed);
        }
        if bytes[0] != VERSION {
            return Err(HandleError::Version);
        }
        let (fields, mac) = bytes.split_at(FIELDS_LEN);
        let verified = self.mac.clone().chain_update(fields).verify_truncated_left(mac);
        verified.map_err(|_| HandleError::Forged)?;
        Ok(Handle {
            shard: ShardId(u16::from_be_bytes(part(fields, 1))),
            topic: TopicId(u32::from_be_bytes(part(fields, 3))),
            group: GroupId(u32::from_be_bytes(part(fields, 7))),
            queue: u32::from_be_bytes(part(fields, 11)),
            offset: QueueOffset(u64::from_be_bytes(part(fields, 15))),
            generation: Generation(u64::from_be_bytes(part(fields, 23))),
            deadline: Millis(u64::from_be_bytes(part(fields, 31))),
        })
    }
}

/// So many bytes of the fields, from a place on. The length was checked before.
fn part<const N: usize>(fields: &[u8], at: usize) -> [u8; N] {
    fields[at..at + N].try_into().expect("the fields end at byte 39")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> HandleKey {
        HandleKey::new(&[7; 32])
    }

    fn handle() -> Handle {
        Handle {
            shard: ShardId(1),
            topic: TopicId(2),
            group: GroupId(3),
            queue: 4,
            offset: QueueOffset(5),
            generation: Generation(6),
            deadline: Millis(1_700_000_000_000),
        }
    }

    #[test]
    fn a_handle_comes_back_as_it_was_given_out() {
        let text = key().seal(&handle());
        assert_eq!(text.len(), HANDLE_TEXT_LEN);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
        assert_eq!(key().open(&text), Ok(handle()));
    }

    #[test]
    fn the_text_form_is_the_one_that_earlier_versions_gave_out() {
        // Computed with another HMAC implementation.
        let golden = "AQABAAAAAgAAAAMAAAAEAAAAAAAAAAUAAAAAAAAABgAAAYvP5WgAaXPZsKLXNiqrTtLbHRj-0g";
        assert_eq!(key().seal(&handle()), golden);
    }

    #[test]
    fn a_handle_with_any_byte_changed_is_refused() {
        let bytes = URL_SAFE_NO_PAD.decode(key().seal(&handle())).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut forged = bytes.clone();
                forged[at] ^= 1 << bit;
                let expected = if at == 0 { HandleError::Version } else { HandleError::Forged };
                assert_eq!(key().open(&URL_SAFE_NO_PAD.encode(&forged)), Err(expected), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_handle_of_another_cluster_is_refused() {
        assert_eq!(HandleKey::new(&[8; 32]).open(&key().seal(&handle())), Err(HandleError::Forged));
    }

    #[test]
    fn cut_padded_or_spelled_otherwise_handles_are_refused() {
        let text = key().seal(&handle());
        // The last character carries four unused bits: only one spelling of a handle is accepted.
        let mut respelled = text.clone();
        let last = respelled.pop().unwrap();
        respelled.push(char::from(last as u8 + 1));
        for wrong in
            ["", &text[1..], &text[..text.len() - 1], &format!("{text}="), &format!("{text}A"), &respelled, "é"]
        {
            assert_eq!(key().open(wrong), Err(HandleError::Malformed), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in any::<String>()) {
            prop_assert!(key().open(&text).is_err());
        }

        #[test]
        fn every_handle_survives_the_round_trip(
            shard: u16, topic: u32, group: u32, queue: u32, offset: u64, generation: u64, deadline: u64,
        ) {
            let handle = Handle {
                shard: ShardId(shard), topic: TopicId(topic), group: GroupId(group), queue, offset: QueueOffset(offset), generation: Generation(generation), deadline: Millis(deadline),
            };
            prop_assert_eq!(key().open(&key().seal(&handle)), Ok(handle));
        }
    }
}
