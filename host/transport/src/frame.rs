//! The header of a frame. Its bytes are described in `docs/frames.md`.

use bytes::{Buf, BufMut, Bytes};

/// The most bytes that one frame carries: 64 MiB.
pub const FRAME_MAX_BYTES: usize = 64 << 20;
/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 28;
/// Where the checksum of the header lies in it, behind all that it covers.
const CHECKED_BYTES: usize = 24;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// Asks whether the other still lives.
    Ping = 0,
    /// It does.
    Pong = 1,
    /// A datagram of a group; its number counts from zero on each connection.
    Datagram = 2,
    /// A request; `argument` is the time that is left for it, in milliseconds.
    Request = 3,
    /// The answer to the request of this number.
    Answer = 4,
    /// The request of this number never reached a handler; the payload says why.
    NotTaken = 5,
    /// The request of this number reached a handler, and there is no answer; the payload says why.
    Failed = 6,
    /// Nobody waits for the answer to the request of this number.
    Cancel = 7,
    /// Asks for a file from the offset that is its number; the payload is the length and the name.
    Pull = 8,
    /// Bytes of the file at the offset that is its number.
    Chunk = 9,
    /// The pull is complete, and its number is the offset behind its last byte.
    Complete = 10,
}

impl FrameKind {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Ping,
            1 => Self::Pong,
            2 => Self::Datagram,
            3 => Self::Request,
            4 => Self::Answer,
            5 => Self::NotTaken,
            6 => Self::Failed,
            7 => Self::Cancel,
            8 => Self::Pull,
            9 => Self::Chunk,
            10 => Self::Complete,
            _ => return None,
        })
    }
}

/// What a header says beside length and checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    /// What the frame is; it says what the other two mean.
    pub(crate) kind: FrameKind,
    /// Which one it is.
    pub(crate) number: u64,
    /// The time that is left for a request, in milliseconds; else zero.
    pub(crate) argument: u32,
}

impl FrameHead {
    /// A head without an argument.
    pub(crate) fn new(kind: FrameKind, number: u64) -> Self {
        Self { kind, number, argument: 0 }
    }

    /// The header of a frame with these pieces as its payload. `seed` is what both ends derived from the hello.
    pub(crate) fn encode(self, seed: u32, pieces: &[Bytes]) -> [u8; HEADER_BYTES] {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        assert!(length <= FRAME_MAX_BYTES, "whoever queues a frame keeps its bound");
        let payload = pieces.iter().fold(seed, |crc, piece| crc32c::crc32c_append(crc, piece));
        let mut header = [0; HEADER_BYTES];
        let mut rest = &mut header[..];
        rest.put_u32_le(length as u32);
        rest.put_u8(self.kind as u8);
        rest.put_bytes(0, 3);
        rest.put_u64_le(self.number);
        rest.put_u32_le(self.argument);
        rest.put_u32_le(payload);
        let crc = crc32c::crc32c_append(seed, &header[..CHECKED_BYTES]);
        header[CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
        header
    }
}

/// A header that was read and whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// What the frame is.
    pub(crate) head: FrameHead,
    /// Bytes of its payload, [`FRAME_MAX_BYTES`] at most.
    pub(crate) length: usize,
    /// What the checksum of the payload must be.
    pub(crate) payload_crc: u32,
}

/// A header that cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// Its checksum is wrong.
    Checksum,
    /// It says what no version 1 says, with a right checksum.
    Unknown,
}

impl FrameHeader {
    /// Reads a header, and believes nothing of it before its checksum.
    pub(crate) fn decode(header: &[u8; HEADER_BYTES], seed: u32) -> Result<Self, HeaderFault> {
        let mut rest = &header[..];
        let length = rest.get_u32_le() as usize;
        let kind = rest.get_u8();
        let zeros = rest.get_uint_le(3);
        let (number, argument, payload_crc, crc) =
            (rest.get_u64_le(), rest.get_u32_le(), rest.get_u32_le(), rest.get_u32_le());
        if crc32c::crc32c_append(seed, &header[..CHECKED_BYTES]) != crc {
            return Err(HeaderFault::Checksum);
        }
        let kind = FrameKind::of(kind).ok_or(HeaderFault::Unknown)?;
        if length > FRAME_MAX_BYTES || zeros != 0 {
            return Err(HeaderFault::Unknown);
        }
        Ok(Self { head: FrameHead { kind, number, argument }, length, payload_crc })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u32 = 0x1234_5678;

    #[test]
    fn a_header_has_these_bytes() {
        let pieces = [Bytes::from_static(b"vo"), Bytes::from_static(b"uch")];
        let head = FrameHead { kind: FrameKind::Request, number: 0x0102_0304_0506_0708, argument: 1500 };
        let header = head.encode(SEED, &pieces);
        assert_eq!(header[..20], [5, 0, 0, 0, 3, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 0xdc, 5, 0, 0]);
        assert_eq!(header[20..24], crc32c::crc32c_append(SEED, b"vouch").to_le_bytes());
        assert_eq!(header[20..], GOLDEN_CHECKSUMS);
        let read = FrameHeader::decode(&header, SEED).unwrap();
        assert_eq!((read.head, read.length), (head, 5));
    }

    /// Both checksums of the frame above, as the first version wrote them.
    const GOLDEN_CHECKSUMS: [u8; 8] = [94, 229, 242, 32, 246, 72, 2, 125];

    #[test]
    fn each_kind_has_its_number_for_ever() {
        for byte in 0..=u8::MAX {
            assert_eq!(FrameKind::of(byte).map(|kind| kind as u8), (byte <= 10).then_some(byte));
        }
    }

    #[test]
    fn a_header_with_any_bit_flipped_or_of_another_connection_is_refused() {
        let header = FrameHead::new(FrameKind::Datagram, 7).encode(SEED, &[Bytes::from_static(b"x")]);
        assert_eq!(FrameHeader::decode(&header, SEED + 1), Err(HeaderFault::Checksum));
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = header;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&flipped, SEED), Err(HeaderFault::Checksum), "bit {bit}");
        }
    }

    #[test]
    fn a_length_beyond_the_bound_and_an_unknown_kind_are_refused_although_their_checksum_is_right() {
        let right = FrameHead::new(FrameKind::Ping, 0).encode(SEED, &[]);
        let changed = |change: &dyn Fn(&mut [u8])| {
            let mut header = right;
            change(&mut header);
            let crc = crc32c::crc32c_append(SEED, &header[..CHECKED_BYTES]);
            header[CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
            FrameHeader::decode(&header, SEED)
        };
        let length =
            |length: usize| move |header: &mut [u8]| header[..4].copy_from_slice(&(length as u32).to_le_bytes());
        assert!(changed(&length(FRAME_MAX_BYTES)).is_ok());
        assert_eq!(changed(&length(FRAME_MAX_BYTES + 1)), Err(HeaderFault::Unknown));
        assert_eq!(changed(&|header| header[4] = 11), Err(HeaderFault::Unknown));
        assert_eq!(changed(&|header| header[6] = 1), Err(HeaderFault::Unknown));
    }
}
