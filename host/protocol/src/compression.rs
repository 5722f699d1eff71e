//! Compressed bodies: `GZIP` on the wire does not name the format, the first bytes do (protocol paper §4.4.6).

use std::io::{self, Read};

use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};

use crate::limits::DECOMPRESSED_BODY_MAX_BYTES;

/// Why a body stays compressed on delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// Neither gzip nor zlib.
    #[error("the body is neither gzip nor zlib")]
    Format,
    /// The stream is damaged.
    #[error("the compressed body is damaged")]
    Damaged,
    /// It would grow beyond the bound.
    #[error("the body has more than {0} bytes when decompressed")]
    TooLarge(usize),
}

/// Whether the first bytes are those of a format that [`decompress`] reads.
pub(crate) fn is_known(body: &[u8]) -> bool {
    is_gzip(body) || is_zlib(body)
}

/// By its first two bytes (RFC 1952).
fn is_gzip(body: &[u8]) -> bool {
    body.starts_with(&[0x1f, 0x8b])
}

/// The two header bytes of zlib with method deflate, as a number, are a multiple of 31.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [0x78, flags, ..] if u16::from_be_bytes([0x78, *flags]).is_multiple_of(31))
}

/// The body as the producer's application had it.
pub fn decompress(body: &[u8]) -> Result<Bytes, DecompressError> {
    decompress_up_to(body, DECOMPRESSED_BODY_MAX_BYTES)
}

/// As [`decompress`], for a caller that has room for `max` bytes.
pub fn decompress_up_to(body: &[u8], max: usize) -> Result<Bytes, DecompressError> {
    let mut plain = Vec::new();
    let len = reader(body)?.take(max as u64 + 1).read_to_end(&mut plain).map_err(|_| DecompressError::Damaged)?;
    if len > max { Err(DecompressError::TooLarge(max)) } else { Ok(plain.into()) }
}

/// How many bytes [`decompress`] would give. Keeps none of them.
pub fn decompressed_len(body: &[u8]) -> Result<u64, DecompressError> {
    let max = DECOMPRESSED_BODY_MAX_BYTES as u64;
    let len = io::copy(&mut reader(body)?.take(max + 1), &mut io::sink()).map_err(|_| DecompressError::Damaged)?;
    if len > max { Err(DecompressError::TooLarge(DECOMPRESSED_BODY_MAX_BYTES)) } else { Ok(len) }
}

/// What decompresses a body piece by piece. Whoever reads from it bounds what comes out: a few bytes may become
/// gigabytes.
fn reader(body: &[u8]) -> Result<Box<dyn Read + '_>, DecompressError> {
    if is_gzip(body) {
        Ok(Box::new(MultiGzDecoder::new(body)))
    } else if is_zlib(body) {
        Ok(Box::new(ZlibDecoder::new(body)))
    } else {
        Err(DecompressError::Format)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(body: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_and_zlib_are_told_by_their_first_bytes() {
        for compressed in [gzip(b"body"), zlib(b"body")] {
            assert!(is_known(&compressed));
            assert_eq!(decompress(&compressed), Ok(Bytes::from_static(b"body")));
        }
        for other in [&b"\x04\x22\x4d\x18"[..], b"\x28\xb5\x2f\xfd", b"plain", b"x", b""] {
            assert!(!is_known(other));
            assert_eq!(decompress(other), Err(DecompressError::Format));
        }
    }

    #[test]
    fn the_size_is_capped_on_both_sides() {
        for compressed in [gzip(&[0; 100]), zlib(&[0; 100])] {
            assert_eq!(decompress_up_to(&compressed, 100).map(|body| body.len()), Ok(100));
            assert_eq!(decompress_up_to(&compressed, 99), Err(DecompressError::TooLarge(99)));
            assert_eq!(decompressed_len(&compressed), Ok(100));
        }
    }

    #[test]
    fn a_damaged_stream_is_an_error() {
        let mut body = gzip(b"a body of some length, so that there is something to damage");
        let middle = body.len() / 2;
        body[middle] ^= 0xff;
        assert_eq!(decompress(&body), Err(DecompressError::Damaged));
        assert_eq!(decompress(&gzip(b"body")[..12]), Err(DecompressError::Damaged));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(mut body: Vec<u8>, format in 0..2) {
            body.splice(0..0, if format == 0 { vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0] } else { vec![0x78, 0x9c] });
            let _ = decompress(&body);
        }
    }
}
