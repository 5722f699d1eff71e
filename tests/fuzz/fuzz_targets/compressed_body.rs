//! Compressed bodies, whole ones and those of strangers: never more than asked for, and the two ways to measure agree.
#![no_main]

use std::io::Write;

use arbitrary::Arbitrary;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use libfuzzer_sys::fuzz_target;
use vouch_fuzz::within_memory;
use vouch_protocol::{DecompressError, decompress_up_to, decompressed_len};

/// What the caller has room for, in bytes.
const MOST: usize = 256;

#[derive(Arbitrary, Debug)]
struct Case<'a> {
    zlib: bool,
    /// Repeated so often, and compressed.
    body: (&'a [u8], u8),
    /// Taken for the bytes behind the magic.
    stranger: &'a [u8],
}

fn check(body: &[u8]) -> Result<usize, DecompressError> {
    // The buffer grows by doubling, and the old half lives while it is copied.
    let plain = within_memory(body.len() + MOST, 4, || decompress_up_to(body, MOST)).map(|plain| plain.len());
    match (&plain, decompressed_len(body)) {
        (Ok(plain), Ok(len)) => assert_eq!(*plain as u64, len),
        (Err(DecompressError::TooLarge(_)), Ok(len)) => assert!(len > MOST as u64),
        // Damage behind the bound is found only by the one that reads on.
        (Err(DecompressError::TooLarge(_)), Err(_)) => {}
        (Err(one), Err(other)) => assert_eq!(*one, other),
        (one, other) => panic!("{one:?} and {other:?}"),
    }
    plain
}

fuzz_target!(|case: Case| {
    let plain = case.body.0.repeat(case.body.1.into());
    let compressed = if case.zlib {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&plain).and_then(|()| encoder.finish())
    } else {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&plain).and_then(|()| encoder.finish())
    };
    let fits = if plain.len() > MOST { Err(DecompressError::TooLarge(MOST)) } else { Ok(plain.len()) };
    assert_eq!(check(&compressed.expect("memory takes everything")), fits);

    let magic: &[u8] = if case.zlib { &[0x78, 0x9c] } else { &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0] };
    let _ = check(&[magic, case.stranger].concat());
});
