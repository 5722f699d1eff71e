//! What replicas send each other of an index: what decodes, encodes to the same bytes, and could lie in a log.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use vouch_commitlog::{EntrySpan, LogIdentity};
use vouch_fuzz::within_memory;

const SEGMENT: u64 = vouch_commitlog::MIN_SEGMENT_SIZE;
const IDENTITY: LogIdentity = LogIdentity { cluster_id: *b"cluster-of-tests", shard: 3, segment_size: SEGMENT };
const HEADER: usize = 64;

/// Memory per byte: a header that travels in front of an entry is kept decoded, too.
const FACTOR: usize = 8;

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("it is eight bytes"))
}

/// Makes magic, version, kinds, lengths and checksums true (`log-format.md`), and lets most headers follow one another.
fn repair(bytes: &mut [u8]) {
    let seed = crc32c::crc32c_append(crc32c::crc32c(&IDENTITY.cluster_id), &IDENTITY.shard.to_le_bytes());
    let mut before: Option<(u32, u64)> = None;
    let mut rest = bytes;
    while rest.len() >= HEADER {
        let (head, behind) = rest.split_at_mut(HEADER);
        // A byte that says nothing in a header: whether it is made to follow the one before.
        let follows = head[10] % 4 != 0;
        head[..4].copy_from_slice(b"VLe\xC5");
        (head[8], head[9]) = (1, 1 + head[9] % 3);
        head[10..12].fill(0);
        if let Some((previous, end)) = before.filter(|_| follows) {
            head[16..20].copy_from_slice(&previous.to_le_bytes());
            let position = if end % SEGMENT == 0 { end.saturating_add(4096) } else { end };
            head[40..48].copy_from_slice(&position.to_le_bytes());
        }
        let position = u64_at(head, 40);
        let mark = u64_at(head, 48).min(position);
        head[48..56].copy_from_slice(&mark.to_le_bytes());
        let zeros = (SEGMENT - position % SEGMENT).saturating_sub(HEADER as u64);
        let len = match head[9] {
            1 => behind.len() as u64,
            2 => 0,
            _ => zeros,
        };
        head[12..16].copy_from_slice(&(len as u32).to_le_bytes());
        let own = crc32c::crc32c_append(crc32c::crc32c_append(seed, &head[8..20]), &head[24..]);
        head[20..24].copy_from_slice(&own.to_le_bytes());
        let payload = if head[9] == 1 { behind.to_vec() } else { vec![0; len as usize] };
        let padded = payload.len().next_multiple_of(8);
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(seed, &head[8..]), &payload);
        let crc = crc32c::crc32c_append(crc, &[0; 8][..padded - payload.len()]);
        head[4..8].copy_from_slice(&crc.to_le_bytes());
        if head[9] == 1 {
            return;
        }
        before = Some((crc, position.saturating_add((HEADER + padded) as u64)));
        rest = behind;
    }
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    // The first byte is that of a magic number: whether anything is repaired.
    if bytes.first().is_some_and(|first| first % 8 != 0) {
        repair(&mut bytes);
    }
    let bytes = Bytes::from(bytes);
    let Ok(span) = within_memory(bytes.len(), FACTOR, || EntrySpan::decode(bytes.clone(), &IDENTITY)) else { return };
    assert_eq!(span.encode(), bytes, "one span has one encoding");
    assert_eq!(span.encoded_len(), bytes.len());
    let (begins, position, end) = (span.begins().0, span.position().0, span.end().0);
    assert!(begins <= position && position % SEGMENT >= 4096 && begins % SEGMENT >= 4096);
    assert_eq!((end - 1) / SEGMENT, position / SEGMENT, "an entry does not cross segments");
});
