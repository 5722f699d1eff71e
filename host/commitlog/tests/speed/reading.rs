//! Reading what is in memory, through the mapping.

use std::time::Instant;

use vouch_commitlog::{LogPosition, map_file};

use super::log::{Log, SEGMENT};
use super::{ROUNDS, folder, median};

/// Looks at every byte once, in words.
fn sum(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().fold(0, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
}

#[test]
#[ignore = "a measurement"]
fn sequential_reads_beside_a_sum_over_memory() {
    let folder = folder();
    let mut log = Log::new(folder.path());
    let body = vec![7; 16 << 10];
    while log.appender.appended().0 < SEGMENT + (1 << 20) {
        log.append(&body, 1);
    }
    while log.appender.durable() < log.appender.appended() {
        log.wait();
    }
    let positions: Vec<LogPosition> = log
        .reader
        .entries_from(LogPosition(0))
        .map(Result::unwrap)
        .take_while(|entry| entry.end.0 <= SEGMENT)
        .map(|entry| entry.payload_position)
        .collect();
    let file = map_file(&folder.path().join("log/00000000000000000000.log")).unwrap();
    let rate = |bytes: u64, started: Instant| bytes as f64 / started.elapsed().as_secs_f64() / 1e9;
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let (started, mut bytes) = (Instant::now(), 0);
            for position in &positions {
                let range = &file[position.0 as usize..][..body.len()];
                bytes += range.len() as u64;
                std::hint::black_box(sum(range));
            }
            let memory = rate(bytes, started);
            let (started, mut bytes) = (Instant::now(), 0);
            for position in &positions {
                let payload = log.reader.read(*position, body.len()).unwrap();
                bytes += payload.len() as u64;
                std::hint::black_box(sum(&payload));
            }
            let read = rate(bytes, started);
            let (started, mut bytes) = (Instant::now(), 0);
            for entry in log.reader.entries_from(LogPosition(0)).map(Result::unwrap) {
                bytes += entry.payload.len() as u64;
            }
            (read / memory, rate(bytes, started) / memory, memory)
        })
        .collect();
    println!(
        "ranges of 16 KiB: {:.2} of a sum over mapped memory ({:.1} GB/s); entries with their checksums: {:.2} of it",
        median(&rounds, |(read, _, _)| *read),
        median(&rounds, |(_, _, memory)| *memory),
        median(&rounds, |(_, entries, _)| *entries),
    );
}
