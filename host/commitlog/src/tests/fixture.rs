//! Format versions for ever: logs that were written when each was fixed, opened by every later program. Version 1 is a
//! log in new files, version 2 one that went on in files of released segments.

use std::path::PathBuf;
use std::sync::Arc;

use super::driver::{Run, config};
use super::recycled;
use crate::disk::RealDisk;
use crate::log::open_on;
use crate::simulated::{Image, Rng};
use crate::{Entry, EntryKind};

fn folder(version: u8) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/v{version}"))
}

/// The input that the fixture of version 1 was written from.
pub(super) fn write() -> (Image, Vec<Entry>) {
    let mut run = Run::new(Image::new(), Rng::new(0));
    for len in [0, 1, 7, 8, 100, 4000, 3000, 5000, 9000, 250] {
        run.append(EntryKind::Records, len).unwrap();
        run.settle();
    }
    closed(run)
}

/// The input of the fixture of a version.
fn written(version: u8) -> (Image, Vec<Entry>) {
    if version == 1 { write() } else { closed(recycled::in_used_files()) }
}

/// The files after an orderly stop, and the entries in them.
fn closed(run: Run) -> (Image, Vec<Entry>) {
    let start = run.log.reader.start();
    let entries = run.submitted.iter().map(|submitted| submitted.entry.clone());
    let mut entries: Vec<Entry> = entries.filter(|entry| entry.position >= start).collect();
    let image = run.close();
    let mark = super::driver::open(image.clone()).unwrap().entries.pop().unwrap();
    entries.push(mark);
    (image, entries)
}

/// Writes the fixture anew. Only for a new format version, in a folder of its own: what is there must never change.
#[test]
#[ignore = "writes the fixture"]
fn write_fixture() {
    let newest = 2;
    std::fs::create_dir_all(folder(newest)).unwrap();
    for (name, bytes) in written(newest).0 {
        std::fs::write(folder(newest).join(name), bytes).unwrap();
    }
}

#[test]
fn logs_of_every_format_version_open() {
    for version in [1, 2] {
        // A copy, because opening may remove or zero what an interrupted stop left.
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(folder(version)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        let disk = Arc::new(RealDisk::open(copy.path()).unwrap());
        let mut entries = Vec::new();
        let mut keep = |entry| {
            entries.push(entry);
            Ok(())
        };
        let (_, _, recovery) = open_on(disk, &config(), Box::new(|_| ()), &mut keep).unwrap();
        assert!(recovery.clean, "{recovery:?}");
        assert_eq!(entries, written(version).1);
        let full = (recovery.end.0 - recovery.start.0) / config().segment_size;
        assert!(full >= 2, "the fixture has full segments");
    }
}

/// Tools and a read-only open read the fixture itself: they change nothing.
#[test]
fn logs_of_every_format_version_are_looked_at_in_place() {
    for version in [1, 2] {
        let tools = crate::LogFolder::open(&folder(version)).unwrap();
        let verification = tools.verify(crate::LogPosition(0), &mut |_| ()).unwrap();
        assert!(verification.is_sound() && verification.tail.is_none(), "{verification:?}");
        let entries = tools.entries(crate::LogPosition(0), verification.end).unwrap();
        assert_eq!(entries.map(Result::unwrap).collect::<Vec<_>>(), written(version).1);
    }
}

#[test]
fn the_same_input_gives_the_bytes_of_every_format_version() {
    for version in [1, 2] {
        let (image, _) = written(version);
        assert!(image.len() > 2);
        for (name, bytes) in image {
            let kept = std::fs::read(folder(version).join(&name)).unwrap();
            assert!(kept == bytes, "{name} of version {version} is written differently now");
        }
    }
}

/// A program that knows only version 1 refuses a log with a recycled segment by its header, and does not take old bytes
/// for a torn tail.
#[test]
fn a_recycled_segment_says_so_in_the_place_of_the_version() {
    let versions: Vec<u8> =
        written(2).0.iter().filter(|(name, _)| name.ends_with(".log")).map(|(_, file)| file[8]).collect();
    assert!(versions.contains(&1) && versions.ends_with(&[2]), "{versions:?}");
}
