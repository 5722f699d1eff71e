//! Primitives of the record encoding: little-endian numbers, lengths as LEB128, text as UTF-8.

use std::collections::BTreeSet;

/// Why bytes are not a record. The node refuses to start on any of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("the record ends inside {0}")]
    Short(&'static str),
    /// A field holds a value that no version wrote.
    #[error("{field} has the value {value}, which no version of Vouch writes")]
    Value {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// Text that is not UTF-8.
    #[error("{0} is not UTF-8")]
    Text(&'static str),
    /// Bytes after the last field.
    #[error("{0} bytes follow the last field of the record")]
    Trailing(usize),
    /// The record's own checksum does not match.
    #[error("the record's checksum is {found:08x}, its bytes give {computed:08x}")]
    Checksum {
        /// As written.
        found: u32,
        /// As computed.
        computed: u32,
    },
    /// A kind that this version does not know.
    #[error(
        "record kind {kind} version {version} is unknown to this version of Vouch: start the version that wrote it, or a newer one"
    )]
    UnknownKind {
        /// Number of the kind.
        kind: u16,
        /// Version of its layout.
        version: u8,
    },
    /// JSON inside the record cannot be read.
    #[error("{field} cannot be read: {why}")]
    Json {
        /// The field.
        field: &'static str,
        /// The parser's words.
        why: String,
    },
}

/// Appends fields to a buffer.
#[derive(Debug)]
pub(crate) struct Writer<'a>(pub(crate) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// LEB128, so that small lengths take one byte.
    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A list of texts, ascending.
    pub(crate) fn texts(&mut self, texts: &BTreeSet<String>) {
        self.varint(texts.len() as u64);
        texts.iter().for_each(|text| self.text(text));
    }

    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// Takes fields off a slice.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(DecodeError::Short(field))?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Short(field))?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(field)?[0])
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(crate) fn varint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(field)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let too_large = shift == 63 && byte > 1;
                // One number has one encoding: a last byte of 0 would say nothing.
                let padded = shift > 0 && byte == 0;
                return if too_large || padded { Err(DecodeError::Value { field, value }) } else { Ok(value) };
            }
        }
        Err(DecodeError::Value { field, value })
    }

    /// A number of 32 bits, written as a varint.
    pub(crate) fn varint_u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let value = self.varint(field)?;
        u32::try_from(value).map_err(|_| DecodeError::Value { field, value })
    }

    /// A count of things that take at least one byte each, so that damaged bytes cannot ask for a huge allocation.
    pub(crate) fn count(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        let count = self.varint(field)?;
        if count > self.0.len() as u64 { Err(DecodeError::Short(field)) } else { Ok(count as usize) }
    }

    /// A count of things that take `len` bytes each, and their bytes.
    pub(crate) fn fixed(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let count = self.count(field)?;
        self.take(count.checked_mul(len).ok_or(DecodeError::Short(field))?, field)
    }

    pub(crate) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.count(field)?;
        self.take(len, field)
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| DecodeError::Text(field))
    }

    pub(crate) fn string(&mut self, field: &'static str) -> Result<String, DecodeError> {
        self.text(field).map(str::to_owned)
    }

    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Value { field, value: other.into() }),
        }
    }

    pub(crate) fn option<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.flag(field)? { read(self).map(Some) } else { Ok(None) }
    }

    pub(crate) fn list<T>(
        &mut self,
        field: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count(field)?;
        (0..count).map(|_| read(self)).collect()
    }

    /// A list of texts, each of which comes once, ascending.
    pub(crate) fn texts(&mut self, field: &'static str) -> Result<BTreeSet<String>, DecodeError> {
        let mut texts = BTreeSet::new();
        for number in 0..self.count(field)? {
            let text = self.string(field)?;
            if texts.last().is_some_and(|last| *last >= text) {
                return Err(DecodeError::Value { field, value: number as u64 });
            }
            texts.insert(text);
        }
        Ok(texts)
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.0.len())) }
    }
}

/// Refuses numbers that do not ascend, so that a list without an order of its own has one encoding.
pub(super) fn ascending(field: &'static str, numbers: impl Iterator<Item = u32>) -> Result<(), DecodeError> {
    let mut before = None;
    for number in numbers {
        if before >= Some(number) {
            return Err(DecodeError::Value { field, value: number.into() });
        }
        before = Some(number);
    }
    Ok(())
}
