//! Bytes that go to the device for each byte appended. The device's own counters tell, so nothing else may write to it:
//! best a file system of its own.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::folder;
use super::log::{Log, SEGMENT};
use super::raw::Raw;

const LONG: Duration = Duration::from_secs(600);

/// Bytes written so far to the device that holds `path`.
fn written_to_device(path: &Path) -> u64 {
    // What has been waiting to be written belongs to whoever wrote it.
    rustix::fs::sync();
    let device = path.metadata().unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).unwrap();
    stat.split_whitespace().nth(6).unwrap().parse::<u64>().unwrap() * 512
}

fn ratio(folder: &Path, run: impl FnOnce() -> u64) -> f64 {
    let before = written_to_device(folder);
    let bytes = run();
    (written_to_device(folder) - before) as f64 / bytes as f64
}

#[test]
#[ignore = "a measurement"]
fn bytes_written_to_the_device_for_each_byte_appended() {
    let folder = folder();
    let path = folder.path();
    let raw = Raw::new(path);
    let mut used = Log::in_used_files(path);
    for (record, writers, bytes) in
        [(1 << 10, 2, 4 << 20), (16 << 10, 2, 64 << 20), (64 << 10, 2, SEGMENT), (1 << 20, 2, SEGMENT)]
    {
        let bare = ratio(path, || raw.closed_loop(record, 2, LONG, bytes).bytes);
        used.release();
        let in_used = ratio(path, || used.closed_loop(writers, record, LONG, bytes).bytes);
        let new_folder = path.join("new");
        let mut new = Log::new(&new_folder);
        // What is prepared for the next entries is paid by them.
        new.closed_loop(1, 1 << 20, LONG, 32 << 20);
        let in_new = ratio(path, || new.closed_loop(writers, record, LONG, bytes).bytes);
        drop(new);
        std::fs::remove_dir_all(new_folder).unwrap();
        println!("groups of {:4} KiB: bare {bare:.2}, used files {in_used:.2}, new files {in_new:.2}", record >> 10);
    }
}
