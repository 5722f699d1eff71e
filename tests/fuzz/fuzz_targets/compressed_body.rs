//! Compressed bodies of strangers: never more than asked for, and the two ways to measure one agree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vouch_fuzz::within_memory;
use vouch_protocol::{DecompressError, decompress_up_to, decompressed_len};

const MOST: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let Some((format, rest)) = data.split_first() else { return };
    let head: &[u8] = if format % 2 == 0 { &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0] } else { &[0x78, 0x9c] };
    let body = [head, rest].concat();
    // The buffer grows by doubling, and the old half lives while it is copied.
    let plain = within_memory(body.len() + MOST, 4, || decompress_up_to(&body, MOST));
    match (plain, decompressed_len(&body)) {
        (Ok(plain), Ok(len)) => assert_eq!(plain.len() as u64, len),
        (Err(DecompressError::TooLarge(_)), Ok(len)) => assert!(len > MOST as u64),
        // Damage behind the bound is found only by the one that reads on.
        (Err(DecompressError::TooLarge(_)), Err(_)) => {}
        (Err(one), Err(other)) => assert_eq!(one, other),
        (one, other) => panic!("{one:?} and {other:?}"),
    }
});
