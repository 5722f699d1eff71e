//! What turns on a simulated disk is found where a real one would show it.

use std::io::IoSlice;

use super::driver::{Run, SEGMENT, open};
use crate::EntryKind;
use crate::disk::Disk;
use crate::simulated::{Image, LOSSES, PowerLoss, Rng, SimDisk, log_file, open_note, read_note};

fn after(disk: &SimDisk, loss: PowerLoss) -> Image {
    disk.after_power_cut(disk.events(), loss, &mut Rng::new(1))
}

/// Whether an entry is read of which a bit turned.
pub(super) fn turned_entry_is_read() -> bool {
    let mut run = Run::new(Image::new(), Rng::new(5));
    run.append(EntryKind::Records, 200).unwrap();
    run.settle();
    let position = run.submitted[0].entry.position;
    let log = open(run.close()).unwrap();
    let (file, at) = log_file(position.0 + 100, SEGMENT);
    let byte = log.disk.bytes_at(&file, at, 1).unwrap()[0];
    assert!(log.disk.rot(&file, at, vec![byte ^ 1], true));
    log.reader.entry_at(position).is_ok()
}

/// What a note says of whose newest slot the first copy turned.
pub(super) fn note_with_a_turned_copy() -> Option<Vec<u8>> {
    let disk = SimDisk::new(Image::new());
    let mut file = open_note(&disk, "note").unwrap();
    file.write(b"first").unwrap();
    let before = disk.bytes_at("note", 0, 8192).unwrap();
    file.write(b"second").unwrap();
    let now = disk.bytes_at("note", 0, 8192).unwrap();
    let slot = if before[..4096] == now[..4096] { 4096 } else { 0 };
    assert!(disk.rot("note", slot, vec![0; 512], true));
    read_note(&disk, "note").unwrap()
}

#[test]
fn what_turned_is_seen_at_once_or_when_the_power_went() {
    for seen in [true, false] {
        let disk = SimDisk::new([("file".to_owned(), vec![7; 4096])].into());
        assert!(disk.rot("file", 100, vec![9], seen));
        assert_eq!(disk.bytes_at("file", 100, 1), Some(vec![if seen { 9 } else { 7 }]));
        assert_eq!(disk.fork(disk.events()).bytes_at("file", 100, 1), disk.bytes_at("file", 100, 1));
        for loss in LOSSES {
            assert_eq!(after(&disk, loss)["file"][99..102], [7, 9, 7]);
        }
        disk.open("file").unwrap().write_at(100, &mut [IoSlice::new(&[8])]).unwrap();
        assert_eq!(after(&disk, PowerLoss::All)["file"][100], 9);
        assert_eq!(after(&disk, PowerLoss::Nothing)["file"][100], 8, "it was written over");
    }
}

#[test]
fn nothing_turns_that_is_not_durable_or_about_to_be_written_over() {
    let disk = SimDisk::new([("file".to_owned(), vec![7; 4096])].into());
    let file = disk.open("file").unwrap();
    file.write_at(600, &mut [IoSlice::new(&[8])]).unwrap();
    assert!(!disk.rot("file", 600, vec![9], true) && !disk.rot("file", 1000, vec![9], true));
    assert!(disk.rot("file", 511, vec![9], true) && !disk.rot("file", 511, vec![9, 9], true));
    file.sync().unwrap();
    assert!(disk.rot("file", 600, vec![9], true));
    assert!(!disk.rot("file", 4096, vec![9], true) && !disk.rot("other", 0, vec![9], true));
}
