//! Every decoder takes any bytes: mutations of sound encodings give an error or what was encoded, never a crash and
//! never something else.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::fixture;
use crate::format::{SegmentHeader, StoredHeader, StoredKind};
use crate::horizon;
use crate::simulated::Rng;
use crate::{Checkpoint, CheckpointError, EntryKind, LogPosition};

const ROUNDS: u64 = 20_000;

/// Changes some bytes, or the length.
fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(bytes.len().max(1) as u64) as usize;
        match rng.below(5) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << rng.below(8)),
            1 => bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = rng.next() as u8),
            2 => bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = 0),
            3 => bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = 0xFF),
            _ => bytes.truncate(at),
        }
    }
}

/// Runs `check` on many mutations; it says whether a decoded value is one that was not encoded.
fn fuzz(seed: u64, encode: impl Fn(&mut Rng) -> Vec<u8>, check: impl Fn(&[u8], &[u8]) -> bool) {
    println!("seeds {seed} to {}", seed + ROUNDS);
    for seed in seed..seed + ROUNDS {
        let mut rng = Rng::new(seed);
        let original = encode(&mut rng);
        let mut bytes = original.clone();
        mutate(&mut bytes, &mut rng);
        let wrong = catch_unwind(AssertUnwindSafe(|| check(&bytes, &original)));
        assert!(matches!(wrong, Ok(false)), "seed {seed}: {wrong:?}");
    }
}

/// Any number, and often one at the edge of what fits.
fn number(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => rng.below(3),
        1 => u64::MAX - rng.below(3),
        _ => rng.next(),
    }
}

#[test]
fn a_checkpoint_is_read_as_it_was_written_or_not_at_all() {
    let encode = |rng: &mut Rng| {
        let [position, end] = [number(rng), number(rng)].map(LogPosition);
        let (term, index, checksum) = (number(rng), number(rng), rng.next() as u32);
        Checkpoint { position, end, term, index, checksum }.encode().to_vec()
    };
    fuzz(40_000, encode, |bytes, original| {
        let sound = Checkpoint::decode(original).expect("it is sound");
        bytes != original && Checkpoint::decode(bytes).is_ok() || sound.encode() != original
    });
}

/// Found by fuzzing: with a true checksum over them, the bytes that say nothing were not looked at.
#[test]
fn a_checkpoint_with_something_in_its_unused_bytes_is_refused() {
    let [position, end] = [4096, 8192].map(LogPosition);
    let sound = Checkpoint { position, end, term: 1, index: 2, checksum: 3 }.encode();
    for unused in 9..12 {
        let mut bytes = sound;
        bytes[unused] = 1;
        let checksum = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Checkpoint::decode(&bytes), Err(CheckpointError::Damaged));
    }
}

#[test]
fn a_segment_header_is_read_as_it_was_written_or_not_at_all() {
    let encode = |rng: &mut Rng| {
        let mut cluster_id = [0; 16];
        cluster_id.fill_with(|| rng.next() as u8);
        let (shard, segment_size, start) = (rng.next() as u16, number(rng), number(rng));
        SegmentHeader { cluster_id, shard, segment_size, start, recycled: rng.chance(2) }.encode()
    };
    fuzz(60_000, encode, |bytes, original| {
        let sound = SegmentHeader::decode(original).expect("it is sound");
        bytes != original && SegmentHeader::decode(bytes).is_ok() || sound.encode() != original
    });
}

#[test]
fn a_horizon_is_read_as_it_was_written_or_not_at_all() {
    fuzz(
        70_000,
        |rng| horizon::encode(7, number(rng)),
        |bytes, original| {
            let sound = horizon::decode(7, original).expect("it is sound");
            let of_another_log = horizon::decode(8, original).is_some();
            bytes != original && horizon::decode(7, bytes).is_some()
                || horizon::encode(7, sound) != original
                || of_another_log
        },
    );
}

#[test]
fn an_entry_header_is_read_as_it_was_written_or_not_at_all() {
    let position = 81_920;
    let encode = |rng: &mut Rng| {
        let kinds = [StoredKind::Entry(EntryKind::Records), StoredKind::Entry(EntryKind::Mark), StoredKind::Filler];
        let header = StoredHeader {
            kind: kinds[rng.below(3) as usize],
            payload_len: number(rng) as u32,
            previous: rng.next() as u32,
            term: number(rng),
            index: number(rng),
            position,
            durable_mark: rng.below(position + 1),
            leader_time_ms: number(rng),
        };
        header.encode(7, &[]).0.to_vec()
    };
    fuzz(80_000, encode, |bytes, original| {
        let Ok(mutated) = <&[u8; 64]>::try_from(bytes) else { return false };
        // The entry's own checksum is no part of what the header's covers.
        let same = bytes[..4] == original[..4] && bytes[8..] == original[8..];
        let elsewhere = StoredHeader::decode(7, mutated, position + 8).is_ok();
        let of_another_log = StoredHeader::decode(8, mutated, position).is_ok();
        StoredHeader::decode(7, mutated, position).is_ok() != same || elsewhere || of_another_log
    });
}

/// The log of format version 1, with bytes of its files changed: read or refused by all that read, never a crash, and
/// no entry that is not in it.
#[test]
fn the_log_of_version_1_is_read_as_it_was_written_or_refused() {
    let (image, entries) = fixture::write();
    println!("seeds 100000 to 100400");
    for seed in 100_000..100_400 {
        let mut rng = Rng::new(seed);
        let mut image = image.clone();
        for _ in 0..1 + rng.below(3) {
            let file = rng.below(image.len() as u64) as usize;
            let bytes = image.values_mut().nth(file).expect("it was counted");
            let at = rng.below(bytes.len() as u64) as usize;
            let mut part = bytes[at..(at + 64).min(bytes.len())].to_vec();
            let len = part.len();
            mutate(&mut part, &mut rng);
            part.resize(len, 0);
            bytes[at..at + len].copy_from_slice(&part);
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let all_known = |found: &[crate::Entry]| found.iter().all(|entry| entries.contains(entry));
            let opened = super::driver::open(image.clone()).is_ok_and(|opened| !all_known(&opened.entries));
            opened || super::survey::served_by_a_look(&image).is_some_and(|found| !all_known(&found))
        }));
        assert!(matches!(outcome, Ok(false)), "seed {seed}: {outcome:?}");
    }
}
