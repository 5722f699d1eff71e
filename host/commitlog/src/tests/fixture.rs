//! Format version 1 for ever: a log that was written when the format was fixed, opened by every later version.

use std::path::PathBuf;
use std::sync::Arc;

use super::driver::{Run, config};
use super::rng::Rng;
use super::sim_disk::Image;
use crate::disk::RealDisk;
use crate::log::open_on;
use crate::{Entry, EntryKind};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

/// The input that the fixture was written from.
pub(super) fn write() -> (Image, Vec<Entry>) {
    let mut run = Run::new(Image::new(), Rng::new(0));
    for len in [0, 1, 7, 8, 100, 4000, 3000, 5000, 9000, 250] {
        run.append(EntryKind::Records, len).unwrap();
        run.settle();
    }
    let mut entries: Vec<Entry> = run.submitted.iter().map(|submitted| submitted.entry.clone()).collect();
    let image = run.close();
    let mark = super::driver::open(image.clone()).unwrap().entries.pop().unwrap();
    entries.push(mark);
    (image, entries)
}

/// Writes the fixture anew. Only for a new format version, in a folder of its own: version 1 must never change.
#[test]
#[ignore = "writes the fixture"]
fn write_fixture() {
    std::fs::create_dir_all(folder()).unwrap();
    for (name, bytes) in write().0 {
        std::fs::write(folder().join(name), bytes).unwrap();
    }
}

#[test]
fn a_log_of_format_version_1_opens() {
    // A copy, because opening may remove or zero what an interrupted stop left.
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder()).unwrap() {
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
    assert_eq!(entries, write().1);
    assert!(recovery.end.0 > 2 * config().segment_size, "the fixture has full segments");
}

/// Tools and a read-only open read the fixture itself: they change nothing.
#[test]
fn a_log_of_format_version_1_is_looked_at_in_place() {
    let tools = crate::LogFolder::open(&folder()).unwrap();
    let verification = tools.verify(crate::LogPosition(0), &mut |_| ()).unwrap();
    assert!(verification.is_sound() && verification.tail.is_none(), "{verification:?}");
    let entries = tools.entries(crate::LogPosition(0), verification.end).unwrap();
    assert_eq!(entries.map(Result::unwrap).collect::<Vec<_>>(), write().1);
}

#[test]
fn the_same_input_gives_the_bytes_of_format_version_1() {
    let (image, _) = write();
    assert!(image.len() > 2);
    for (name, bytes) in image {
        assert!(std::fs::read(folder().join(&name)).unwrap() == bytes, "{name} is written differently now");
    }
}
