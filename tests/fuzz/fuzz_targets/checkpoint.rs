//! Checkpoints of the commit log: what decodes, encodes to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vouch_commitlog::Checkpoint;
use vouch_fuzz::within_memory;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    // The first byte says whether the checksum is made true.
    if bytes.first().is_some_and(|first| first % 2 == 0) && bytes.len() > 8 {
        bytes[..4].copy_from_slice(b"VLcp");
        let checksum = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    }
    let Ok(checkpoint) = within_memory(bytes.len(), 1, || Checkpoint::decode(&bytes)) else { return };
    let encoded = checkpoint.encode();
    assert_eq!(Checkpoint::decode(&encoded), Ok(checkpoint));
    assert_eq!(encoded[..], bytes[..], "one checkpoint has one encoding");
});
