//! A start reads what follows the checkpoint, however much lies before it: counted in bytes, not in time.

use std::sync::Arc;

use super::driver::{Run, SEGMENT, config, open, open_disk};
use crate::disk::{Disk, RealDisk};
use crate::format::{SEGMENT_HEADER_LEN, SegmentHeader, StoredHeader, StoredKind, checksum_seed};
use crate::log::open_on;
use crate::segment::file_name;
use crate::simulated::{Image, Rng, SimDisk};
use crate::{Checkpoint, EntryKind, LogConfig};

#[test]
fn a_start_reads_headers_and_what_follows_the_checkpoint() {
    let mut run = Run::new(Image::new(), Rng::new(4));
    while run.log.appender.appended().0 < 100 * SEGMENT {
        run.append(EntryKind::Records, 900).unwrap();
    }
    run.settle();
    let (end, last) = (run.log.appender.appended().0, run.submitted.len() - 1);
    for back in [0, 1, 5, 40] {
        let checkpoint = run.submitted[last - back].checkpoint;
        let disk = SimDisk::new(run.log.disk.image());
        let opened = open_disk(disk, &LogConfig { checkpoint: Some(checkpoint), ..config() }).unwrap();
        let files = end.div_ceil(SEGMENT) + 1;
        // Verified, compared, written again: each entry is looked at a few times. Behind the end is one segment.
        let bound = files * SEGMENT_HEADER_LEN + 4 * (end - checkpoint.position.0) + 4 * SEGMENT;
        let read = opened.disk.bytes_read();
        assert!(read <= bound && read < end / 2, "{back} entries back: {read} bytes read, {bound} allowed");
        assert_eq!(opened.entries.len(), back);
        assert!(opened.recovery.scanned_bytes <= end - checkpoint.position.0, "{:?}", opened.recovery);
    }
}

#[test]
fn damage_before_a_checkpoint_does_not_hinder_a_start() {
    let mut run = Run::new(Image::new(), Rng::new(4));
    while run.log.appender.appended().0 < 3 * SEGMENT {
        run.append(EntryKind::Records, 900).unwrap();
    }
    run.settle();
    let checkpoint = Some(run.submitted[20].checkpoint);
    let mut image = run.close();
    image.values_mut().next().unwrap()[5000] ^= 1;
    assert!(open(image.clone()).is_err());
    let opened = open_disk(SimDisk::new(image), &LogConfig { checkpoint, ..config() }).unwrap();
    assert_eq!(opened.entries[0].index, 22);
}

const GIB: u64 = 1 << 30;
const FILES: u64 = 100;
const ENTRIES: u64 = 1000;
const PAYLOAD: u64 = 1000;

/// A log of 100 GiB in shape: sparse files, and entries in the last one. Gives the checkpoint of each.
fn hundred_gibibytes(disk: &RealDisk, config: &LogConfig) -> Vec<Checkpoint> {
    let LogConfig { cluster_id, shard, segment_size, .. } = *config;
    let mut previous = 7;
    let mut checkpoints = Vec::new();
    for number in 0..FILES {
        let start = number * segment_size;
        let file = disk.create(&file_name(start)).unwrap();
        file.set_size(segment_size).unwrap();
        let header = SegmentHeader { cluster_id, shard, segment_size, start, recycled: false }.encode();
        file.write_at(0, &mut [std::io::IoSlice::new(&header)]).unwrap();
        if number + 1 < FILES {
            continue;
        }
        let mut position = start + SEGMENT_HEADER_LEN;
        for index in 1..=ENTRIES {
            let payload = vec![index as u8; PAYLOAD as usize];
            let header = StoredHeader {
                kind: StoredKind::Entry(EntryKind::Records),
                payload_len: PAYLOAD as u32,
                previous,
                term: 1,
                index,
                position,
                durable_mark: 0,
                leader_time_ms: 0,
            };
            let (bytes, crc) = header.encode(checksum_seed(&cluster_id, shard), &[&payload]);
            let mut parts = [std::io::IoSlice::new(&bytes), std::io::IoSlice::new(&payload)];
            file.write_at(position - start, &mut parts).unwrap();
            checkpoints.push(Checkpoint::new(&header, crc));
            (position, previous) = (header.end(), crc);
        }
    }
    checkpoints
}

fn start_of_hundred_gibibytes(covered: usize) -> crate::Recovery {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::open(folder.path()).unwrap());
    let mut config = LogConfig { segment_size: GIB, ..LogConfig::new(folder.path(), *b"cluster-of-tests", 0) };
    let checkpoints = hundred_gibibytes(&disk, &config);
    config.checkpoint = Some(checkpoints[covered]);
    let (_, reader, recovery) = open_on(disk, &config, Box::new(|_| ()), &mut |_| Ok(())).unwrap();
    assert_eq!(recovery.checkpoint, checkpoints.last().copied());
    assert_eq!((reader.start().0, reader.end()), (0, recovery.end));
    recovery
}

#[test]
fn a_log_of_100_gib_starts_without_reading_it() {
    for covered in [0, 900, 999] {
        let recovery = start_of_hundred_gibibytes(covered);
        assert_eq!(recovery.entries, ENTRIES - 1 - covered as u64);
        let behind = (ENTRIES - covered as u64) * (64 + PAYLOAD);
        assert_eq!(recovery.scanned_bytes, behind);
        assert!(recovery.searched_bytes <= 1 << 20, "holes behind the end are not read: {recovery:?}");
    }
}

#[test]
#[ignore = "a measurement"]
fn time_of_a_start_of_100_gib() {
    let recovery = start_of_hundred_gibibytes(0);
    println!("{FILES} files of 1 GiB, {} entries behind the checkpoint: {:?}", recovery.entries, recovery.duration);
}
