//! What the acceptor says to a hello. Its bytes are described in `docs/frames.md`.

use bytes::{Buf, BufMut};

use crate::hello::{self, OPENING_BYTES, TRANSPORT_VERSION};
use crate::identity::PeerIdentity;
use crate::sentence::{self, SENTENCE_MAX_BYTES};

/// The most bytes of an answer behind the opening.
pub(crate) const ANSWER_MAX_BYTES: usize = 4 + 2 + SENTENCE_MAX_BYTES + 4;
const ACCEPTED_BYTES: usize = 4 + 16 + 4 + 8 + 8 + 8;
const MAGIC: &[u8; 8] = b"VOUCHANS";

/// What the acceptor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HelloAnswer {
    /// Frames may follow.
    Accepted {
        /// Who accepts.
        by: PeerIdentity,
        /// Drawn for this connection, as the one of the hello is.
        nonce: u64,
    },
    /// Nothing follows. The sentence is for the operator.
    Refused(String),
}

impl HelloAnswer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ANSWER_MAX_BYTES);
        match self {
            Self::Accepted { by, nonce } => {
                bytes.put_u32_le(0);
                bytes.put_slice(&by.cluster);
                bytes.put_u32_le(by.cluster_incarnation);
                bytes.put_u64_le(by.node);
                bytes.put_u64_le(by.incarnation);
                bytes.put_u64_le(*nonce);
            }
            Self::Refused(why) => {
                let why = sentence::bounded(why.clone());
                bytes.put_u32_le(1);
                bytes.put_u16_le(why.len() as u16);
                bytes.put_slice(why.as_bytes());
            }
        }
        hello::closed(MAGIC, &bytes)
    }

    /// How many bytes follow an opening. Nothing if it is none, or longer than any.
    pub(crate) fn follows(opening: &[u8; OPENING_BYTES]) -> Option<usize> {
        let (_, length) = hello::open(opening, MAGIC)?;
        (length <= ANSWER_MAX_BYTES).then_some(length)
    }

    /// Reads what follows an opening. A refusal is read whatever its version is, so that the operator learns why.
    pub(crate) fn decode(opening: &[u8; OPENING_BYTES], rest: &[u8]) -> Option<Self> {
        let (version, _) = hello::open(opening, MAGIC)?;
        let mut rest = hello::checked(opening, rest)?;
        if rest.len() < 6 {
            return None;
        }
        match rest.get_u32_le() {
            0 if version == TRANSPORT_VERSION && rest.len() == ACCEPTED_BYTES - 4 => {
                let mut cluster = [0; 16];
                rest.copy_to_slice(&mut cluster);
                let by = PeerIdentity {
                    cluster,
                    cluster_incarnation: rest.get_u32_le(),
                    node: rest.get_u64_le(),
                    incarnation: rest.get_u64_le(),
                };
                Some(Self::Accepted { by, nonce: rest.get_u64_le() })
            }
            1 if usize::from(rest.get_u16_le()) == rest.len() => Some(Self::Refused(sentence::heard(rest))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::tests::node;

    fn decode(bytes: &[u8]) -> Option<HelloAnswer> {
        let (opening, rest) = bytes.split_first_chunk()?;
        (HelloAnswer::follows(opening)? == rest.len()).then(|| HelloAnswer::decode(opening, rest)).flatten()
    }

    #[test]
    fn both_answers_have_these_bytes() {
        let accepted = HelloAnswer::Accepted { by: node(2), nonce: 0x55 };
        let mut golden = b"VOUCHANS\x01\0\x34\0\0\0\0\0".to_vec();
        golden.extend([0xab; 16]);
        golden.extend(b"\x03\0\0\0\x02\0\0\0\0\0\0\0\x66\0\0\0\0\0\0\0\x55\0\0\0\0\0\0\0");
        golden.extend(crc32c::crc32c(&golden).to_le_bytes());
        assert_eq!(accepted.encode(), golden);
        assert_eq!(decode(&golden), Some(accepted));

        let refused = HelloAnswer::Refused("not you".to_owned());
        let mut golden = b"VOUCHANS\x01\0\x11\0\x01\0\0\0\x07\0not you".to_vec();
        golden.extend(crc32c::crc32c(&golden).to_le_bytes());
        assert_eq!(refused.encode(), golden);
        assert_eq!(decode(&golden), Some(refused));
    }

    #[test]
    fn a_refusal_of_a_later_version_is_read_and_a_welcome_is_not() {
        for (answer, reads) in [
            (HelloAnswer::Refused("too old".to_owned()), true),
            (HelloAnswer::Accepted { by: node(2), nonce: 1 }, false),
        ] {
            let mut bytes = answer.encode();
            bytes[8] = 9;
            let end = bytes.len() - 4;
            let crc = crc32c::crc32c(&bytes[..end]);
            bytes[end..].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(decode(&bytes), reads.then_some(answer));
        }
    }

    #[test]
    fn the_longest_sentence_fits_and_a_longer_one_is_cut() {
        for length in [SENTENCE_MAX_BYTES, SENTENCE_MAX_BYTES + 100] {
            let bytes = HelloAnswer::Refused("x".repeat(length)).encode();
            assert_eq!(bytes.len(), OPENING_BYTES + ANSWER_MAX_BYTES);
            assert_eq!(decode(&bytes), Some(HelloAnswer::Refused("x".repeat(SENTENCE_MAX_BYTES))));
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_without_a_panic(tail in proptest::collection::vec(any::<u8>(), 0..600), right in any::<bool>()) {
            decode(&if right { hello::closed(MAGIC, &tail) } else { tail });
        }
    }
}
