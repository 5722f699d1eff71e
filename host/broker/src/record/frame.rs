//! The frame around every record.
//!
//! | bytes | field |
//! |---|---|
//! | 0–3 | length of the whole record, this field included |
//! | 4–7 | CRC-32C over bytes 8 to the end |
//! | 8–9 | kind |
//! | 10 | version of the kind's layout |
//! | 11 | reserved, 0 |
//! | 12– | fields of the kind |
//!
//! The log's entry has a checksum of its own; this one lets a reader verify a single message of a large batch.

use super::codec::DecodeError;

/// Bytes before the fields of a record.
pub const FRAME_LEN: usize = 12;

/// Begins a record in `buffer`, runs `fields`, then fills in length and checksum. Returns the record's length.
pub(crate) fn write(buffer: &mut Vec<u8>, kind: u16, version: u8, fields: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 8]);
    buffer.extend_from_slice(&kind.to_le_bytes());
    buffer.extend_from_slice(&[version, 0]);
    fields(buffer);
    let len = buffer.len() - start;
    let len_field = u32::try_from(len).expect("a record is far below 4 GiB: bodies are at most 4 MiB");
    let checksum = crc32c::crc32c(&buffer[start + 8..]);
    buffer[start..start + 4].copy_from_slice(&len_field.to_le_bytes());
    buffer[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    len
}

/// One framed record: its kind, its version and its fields. The checksum is not verified yet.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The length that the first four bytes of a record announce.
    pub fn announced_len(head: &[u8]) -> Result<usize, DecodeError> {
        let head = head.first_chunk::<4>().ok_or(DecodeError::Short("the record's length"))?;
        let len = u32::from_le_bytes(*head);
        if (len as usize) < FRAME_LEN {
            return Err(DecodeError::Value { field: "the record's length", value: len.into() });
        }
        Ok(len as usize)
    }

    /// Splits the first record off `bytes`.
    pub fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        let len = Self::announced_len(bytes)?;
        let (bytes, rest) = bytes.split_at_checked(len).ok_or(DecodeError::Short("the record"))?;
        if bytes[11] != 0 {
            return Err(DecodeError::Value { field: "the record's reserved byte", value: bytes[11].into() });
        }
        Ok((Self { bytes }, rest))
    }

    /// Compares the checksum with the bytes.
    pub fn verify(&self) -> Result<(), DecodeError> {
        let found = u32::from_le_bytes(self.bytes[4..8].try_into().expect("a frame has at least 12 bytes"));
        let computed = crc32c::crc32c(&self.bytes[8..]);
        if found == computed { Ok(()) } else { Err(DecodeError::Checksum { found, computed }) }
    }

    /// The number of the kind.
    pub fn kind(&self) -> u16 {
        u16::from_le_bytes([self.bytes[8], self.bytes[9]])
    }

    /// The version of the kind's layout.
    pub fn version(&self) -> u8 {
        self.bytes[10]
    }

    /// The fields after the frame.
    pub fn fields(&self) -> &'a [u8] {
        &self.bytes[FRAME_LEN..]
    }

    /// Length of the whole record in bytes.
    pub fn record_len(&self) -> u32 {
        self.bytes.len() as u32
    }
}
