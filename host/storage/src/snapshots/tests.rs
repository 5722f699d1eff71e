use super::store::{CopyKind, Rooms, Which};
use super::take::{LARGEST_GROWN_PART, part_bytes_when};
use super::*;
use vouch_commitlog::LogPosition;

#[test]
fn what_is_set_aside_for_parts_follows_the_log_between_snapshots_within_bounds() {
    for (part_bytes, expected) in [(1 << 20, room::LEAST), (8 << 20, 2 << 20), (u64::MAX, ROOM_BYTES)] {
        let folder = tempfile::tempdir().unwrap();
        Snapshots::of_folder(folder.path()).set_room_aside(part_bytes);
        let len = |name: &str| std::fs::metadata(folder.path().join(name)).map_or(0, |file| file.len());
        // A disk that is nearly full gives less.
        assert!((0..4).all(|n| len(&format!("part-{n}.room")) <= expected), "{part_bytes}");
        assert!((4..8).all(|n| len(&format!("part-{n}.room")) <= room::LEAST), "{part_bytes}");
        assert!((0..4).all(|n| len(&format!("snapshot-{n}.room")) <= room::LEAST), "{part_bytes}");
        let free = rustix::fs::statvfs(folder.path()).map(|disk| disk.f_bavail * disk.f_frsize).unwrap();
        let all = (0..4).all(|n| len(&format!("part-{n}.room")) == expected && len(&format!("snapshot-{n}.room")) > 0);
        assert!(free < 1 << 30 || all, "{part_bytes}: {free} bytes are free");
    }
}

#[test]
fn parts_grow_where_snapshots_are_behind_and_no_further_than_they_must() {
    const MIB: u64 = 1 << 20;
    assert_eq!(part_bytes_when(MIB, MIB), MIB);
    assert_eq!(part_bytes_when(8 * MIB, MIB), MIB);
    assert_eq!(part_bytes_when(80 * MIB, MIB), 10 * MIB);
    assert_eq!(part_bytes_when(1 << 40, MIB), LARGEST_GROWN_PART);
    assert_eq!(part_bytes_when(1 << 40, 1 << 30), 1 << 30);
}

#[test]
fn parts_of_a_snapshot_that_was_not_made_are_room_again_unless_one_may_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::of_folder(folder.path());
    let parts = || snapshots.store.positions(CopyKind::Part).unwrap();
    for part in [3, 7] {
        snapshots.store.put(CopyKind::Part, part, &[&[1; 8192]], Rooms::Taken).unwrap();
    }
    let unreadable = snapshots.store.path(CopyKind::Snapshot, 9, Which::First);
    std::fs::write(&unreadable, b"cut short").unwrap();
    assert!(snapshots.take_back(&[7], true).is_err(), "nobody knows what it names");
    assert_eq!(parts(), [3, 7]);
    std::fs::remove_file(unreadable).unwrap();
    snapshots.take_back(&[7], true).unwrap();
    assert_eq!(parts(), [3]);
    for n in 0..2 {
        assert_eq!(std::fs::metadata(folder.path().join(format!("part-{n}.room"))).unwrap().len(), 8192);
    }
    snapshots.give_up();
    assert!(snapshots.take_back(&[3], true).is_err());
    assert_eq!(parts(), [3]);
}

#[test]
fn who_reads_snapshots_back_keeps_their_files_however_many_newer_ones_come() {
    let folder = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::of_folder(folder.path());
    let there = |kind| snapshots.store.positions(kind).unwrap();
    for position in [3, 7, 9] {
        snapshots.store.put(CopyKind::Part, position, &[b"part"], Rooms::Taken).unwrap();
        snapshots.store.put(CopyKind::Snapshot, position, &[b"snapshot"], Rooms::Taken).unwrap();
    }
    let reading = snapshots.keep_files();
    snapshots.tidy(&[LogPosition(7), LogPosition(9)], &[9]).unwrap();
    assert_eq!((there(CopyKind::Snapshot), there(CopyKind::Part)), (vec![3, 7, 9], vec![3, 7, 9]));
    drop(reading);
    snapshots.tidy(&[LogPosition(7), LogPosition(9)], &[9]).unwrap();
    assert_eq!((there(CopyKind::Snapshot), there(CopyKind::Part)), (vec![7, 9], vec![9]));
}

#[test]
fn that_a_snapshot_went_says_nothing_of_the_parts_that_were_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::of_folder(folder.path());
    let part = StoredFile::Part(3, 1);
    snapshots.making().verified.insert(part);
    assert!(snapshots.load(LogPosition(9)).is_err());
    assert!(snapshots.is_verified(part));
    snapshots.store.put(CopyKind::Snapshot, 9, &[b"damaged"], Rooms::Taken).unwrap();
    assert!(snapshots.load(LogPosition(9)).is_err());
    assert!(!snapshots.is_verified(part), "now each copy is looked at again");
}
