//! Bytes above the durable position are overwritten, as by one who cuts the log off, under readers that hold them.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{Disk, RealDisk};
use crate::log::open_on;
use crate::segment::file_name;
use crate::{EntryHeader, EntryKind, LogConfig, LogPosition};

/// What went wrong, if anything did.
pub(super) fn bytes_changed_above_the_durable_position() -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_size: 4 << 20, ..LogConfig::new(folder.path(), [7; 16], 0) };
    let disk = Arc::new(RealDisk::open(folder.path()).unwrap());
    let (mut appender, reader, _) = open_on(disk.clone(), &config, Box::new(|_| ()), &mut |_| Ok(())).unwrap();
    let mut held: Vec<(u64, LogPosition, Bytes)> = Vec::new();
    for index in 1..=40 {
        let header = EntryHeader { term: 1, index, leader_time_ms: 0, kind: EntryKind::Records };
        let appended = appender.append_deferred(header, &[&[index as u8; 900]]).unwrap();
        held.push((index, appended.payload_position, reader.read(appended.payload_position, 900).unwrap()));
        held.push((index, appended.payload_position, reader.entry_at(appended.position).unwrap().payload));
        if index % 7 == 0 {
            appender.sync_here().unwrap();
        }
    }
    let (durable, end) = (appender.durable(), appender.appended());
    assert!(durable < end);
    // Held before it was durable, and after.
    let (_, first, _) = held[0];
    held.push((1, first, reader.read(first, 900).unwrap()));
    let other = vec![0xEE; (end.0 - durable.0) as usize];
    disk.open(&file_name(0)).unwrap().write_at(durable.0, &mut [IoSlice::new(&other)]).unwrap();
    let changed = held.iter().find(|(index, _, bytes)| **bytes != [*index as u8; 900]);
    changed.map(|(index, at, _)| format!("bytes of entry {index} at {at} changed while they were held"))
}

#[test]
fn bytes_above_the_durable_position_do_not_change_while_they_are_held() {
    assert_eq!(bytes_changed_above_the_durable_position(), None);
}
