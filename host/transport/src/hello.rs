//! What the dialer says first. Its bytes are described in `docs/frames.md`.

use bytes::{Buf, BufMut, Bytes};

use crate::identity::{Lane, PeerIdentity};

/// The version of the protocol that this code speaks.
pub const TRANSPORT_VERSION: u16 = 1;
/// The most bytes of a credential.
pub const CREDENTIAL_MAX_BYTES: usize = 1024;
/// Magic, version and length: these have their place in every version.
pub(crate) const OPENING_BYTES: usize = 12;
/// Bytes of a hello behind the opening, without the credential.
const FIXED_BYTES: usize = 74;
/// The most bytes of a hello behind the opening. Those of other versions are read up to here, to be refused.
pub(crate) const HELLO_MAX_BYTES: usize = FIXED_BYTES + CREDENTIAL_MAX_BYTES;
const MAGIC: &[u8; 8] = b"VOUCHHLO";

/// Who dials, whom, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHello {
    /// What the connection is for.
    pub lane: Lane,
    /// Who dials.
    pub from: PeerIdentity,
    /// The node that is meant, of the same cluster; [`crate::ANY_NODE`] for whoever answers.
    pub to_node: u64,
    /// The life of it that is meant; zero for whichever.
    pub to_incarnation: u64,
    /// Drawn for this connection: what was sent on one never passes for a frame of another.
    pub nonce: u64,
    /// What a node that joins shows, and nobody here reads: see [`crate::PeerAdmission`].
    pub credential: Bytes,
}

/// Bytes that are no hello of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HelloFault {
    /// It begins with something else, or its checksum is wrong.
    Foreign,
    /// It is longer or shorter than any.
    Length,
    /// Another version.
    Version(u16),
    /// A lane that this version does not know, or what must not be zero is.
    Unknown,
}

/// Version and length of what follows, of an opening with this magic.
pub(crate) fn open(opening: &[u8; OPENING_BYTES], magic: &[u8; 8]) -> Option<(u16, usize)> {
    let mut rest = opening.strip_prefix(magic)?;
    Some((rest.get_u16_le(), usize::from(rest.get_u16_le())))
}

/// Magic and version, a place for the length, and what follows; the length and a checksum over everything are filled in.
pub(crate) fn closed(magic: &[u8; 8], follows: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(OPENING_BYTES + follows.len() + 4);
    bytes.put_slice(magic);
    bytes.put_u16_le(TRANSPORT_VERSION);
    bytes.put_u16_le(u16::try_from(follows.len() + 4).expect("credentials and sentences are bounded"));
    bytes.put_slice(follows);
    let crc = crc32c::crc32c(&bytes);
    bytes.put_u32_le(crc);
    bytes
}

/// What stands between an opening and a checksum that is right.
pub(crate) fn checked<'a>(opening: &[u8; OPENING_BYTES], rest: &'a [u8]) -> Option<&'a [u8]> {
    let (follows, crc) = rest.split_last_chunk::<4>()?;
    let is = crc32c::crc32c_append(crc32c::crc32c(opening), follows);
    (is.to_le_bytes() == *crc).then_some(follows)
}

impl PeerHello {
    /// The whole hello. A credential that is too long is cut, and so of no use: [`crate::Transport::set_credential`] takes none.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let credential = &self.credential[..self.credential.len().min(CREDENTIAL_MAX_BYTES)];
        let mut bytes = Vec::with_capacity(HELLO_MAX_BYTES);
        let (lane, shard) = match self.lane {
            Lane::Group(shard) => (0, shard),
            Lane::Calls => (1, 0),
            Lane::Sessions => (2, 0),
            Lane::Files => (3, 0),
        };
        bytes.put_u8(lane);
        bytes.put_bytes(0, 3);
        bytes.put_u32_le(shard);
        bytes.put_slice(&self.from.cluster);
        bytes.put_u32_le(self.from.cluster_incarnation);
        bytes.put_u64_le(self.from.node);
        bytes.put_u64_le(self.from.incarnation);
        bytes.put_u64_le(self.to_node);
        bytes.put_u64_le(self.to_incarnation);
        bytes.put_u64_le(self.nonce);
        bytes.put_u16_le(credential.len() as u16);
        bytes.put_slice(credential);
        closed(MAGIC, &bytes)
    }

    /// How many bytes follow an opening.
    pub(crate) fn follows(opening: &[u8; OPENING_BYTES]) -> Result<usize, HelloFault> {
        let (_, length) = open(opening, MAGIC).ok_or(HelloFault::Foreign)?;
        if length > HELLO_MAX_BYTES { Err(HelloFault::Length) } else { Ok(length) }
    }

    /// Reads what follows an opening.
    pub(crate) fn decode(opening: &[u8; OPENING_BYTES], rest: &[u8]) -> Result<Self, HelloFault> {
        let (version, _) = open(opening, MAGIC).ok_or(HelloFault::Foreign)?;
        if version != TRANSPORT_VERSION {
            return Err(HelloFault::Version(version));
        }
        if rest.len() < FIXED_BYTES {
            return Err(HelloFault::Length);
        }
        let mut rest = checked(opening, rest).ok_or(HelloFault::Foreign)?;
        let (kind, zeros, shard) = (rest.get_u8(), rest.get_uint_le(3), rest.get_u32_le());
        let lane = match (kind, shard, zeros) {
            (0, shard, 0) => Lane::Group(shard),
            (1, 0, 0) => Lane::Calls,
            (2, 0, 0) => Lane::Sessions,
            (3, 0, 0) => Lane::Files,
            _ => return Err(HelloFault::Unknown),
        };
        let mut cluster = [0; 16];
        rest.copy_to_slice(&mut cluster);
        let from = PeerIdentity {
            cluster,
            cluster_incarnation: rest.get_u32_le(),
            node: rest.get_u64_le(),
            incarnation: rest.get_u64_le(),
        };
        let (to_node, to_incarnation, nonce) = (rest.get_u64_le(), rest.get_u64_le(), rest.get_u64_le());
        if usize::from(rest.get_u16_le()) != rest.len() || from.node == 0 || from.incarnation == 0 {
            return Err(HelloFault::Unknown);
        }
        Ok(Self { lane, from, to_node, to_incarnation, nonce, credential: Bytes::copy_from_slice(rest) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::tests::node;

    fn hello() -> PeerHello {
        let (lane, credential) = (Lane::Group(0x0a0b), Bytes::from_static(b"let me in"));
        PeerHello { lane, from: node(1), to_node: 2, to_incarnation: 0x33, nonce: 0x4444, credential }
    }

    fn decode(bytes: &[u8]) -> Result<PeerHello, HelloFault> {
        let (opening, rest) = bytes.split_first_chunk().ok_or(HelloFault::Length)?;
        if PeerHello::follows(opening)? != rest.len() {
            return Err(HelloFault::Length);
        }
        PeerHello::decode(opening, rest)
    }

    #[test]
    fn a_hello_has_these_bytes() {
        let bytes = hello().encode();
        let mut golden = b"VOUCHHLO\x01\0\x53\0".to_vec();
        golden.extend(b"\0\0\0\0\x0b\x0a\0\0");
        golden.extend([0xab; 16]);
        golden.extend(b"\x03\0\0\0\x01\0\0\0\0\0\0\0\x65\0\0\0\0\0\0\0");
        golden.extend(b"\x02\0\0\0\0\0\0\0\x33\0\0\0\0\0\0\0\x44\x44\0\0\0\0\0\0\x09\0let me in");
        golden.extend(crc32c::crc32c(&golden).to_le_bytes());
        assert_eq!(bytes, golden);
        assert_eq!(decode(&bytes), Ok(hello()));
    }

    #[test]
    fn each_lane_is_read_back() {
        for lane in [Lane::Group(0), Lane::Group(u32::MAX), Lane::Calls, Lane::Sessions, Lane::Files] {
            let hello = PeerHello { lane, ..hello() };
            assert_eq!(decode(&hello.encode()), Ok(hello));
        }
    }

    #[test]
    fn the_longest_hello_is_read_and_one_byte_more_is_not_waited_for() {
        let longest = PeerHello { credential: vec![7; CREDENTIAL_MAX_BYTES].into(), ..hello() };
        let mut bytes = longest.encode();
        assert_eq!(bytes.len(), OPENING_BYTES + HELLO_MAX_BYTES);
        assert_eq!(decode(&bytes), Ok(longest));
        bytes[10..12].copy_from_slice(&(HELLO_MAX_BYTES as u16 + 1).to_le_bytes());
        assert_eq!(decode(&bytes), Err(HelloFault::Length));
    }

    #[test]
    fn another_version_is_told_from_a_stranger() {
        let mut bytes = hello().encode();
        bytes[8] = 2;
        assert_eq!(decode(&bytes), Err(HelloFault::Version(2)));
        bytes[0] = b'G';
        assert_eq!(decode(&bytes), Err(HelloFault::Foreign));
        let unnamed = PeerHello { from: PeerIdentity { node: 0, ..node(1) }, ..hello() };
        assert_eq!(decode(&unnamed.encode()), Err(HelloFault::Unknown));
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_without_a_panic(mut tail in proptest::collection::vec(any::<u8>(), 0..1200), right in any::<bool>()) {
            if right && tail.len() >= 4 {
                // A checksum that is right lets the bytes through to what reads the fields.
                let follows = tail.split_off(4);
                tail = closed(MAGIC, &follows);
            }
            if let Ok(hello) = decode(&tail) {
                prop_assert_eq!(hello.encode(), tail);
            }
        }

        #[test]
        fn a_flipped_bit_is_found(bit in 0..(OPENING_BYTES + FIXED_BYTES) * 8) {
            let mut bytes = hello().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
