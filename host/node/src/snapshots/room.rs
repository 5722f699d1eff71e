//! Room on the disk that is set aside for the next snapshots.
//!
//! On a full disk it is snapshots that make room: a segment of the log goes only when neither of the two that are kept needs
//! it. So what two of them take must never be missing. It lies in files whose blocks are allocated, and a snapshot is written
//! into one of them: blocks that were freed for it might be gone before it is written, for the log wants them, too.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// So many files of a kind: two snapshots are needed.
const FILES: usize = 2;
/// A file has at least so many bytes.
const LEAST: u64 = 256 << 10;
const EXTENSION: &str = "room";

fn path(folder: &Path, of: &str, n: usize) -> PathBuf {
    folder.join(format!("{of}-{n}.{EXTENSION}"))
}

/// Sets room aside for files of this kind, of which the last had `len` bytes: a quarter more. As far as there is any.
pub(super) fn set_aside(folder: &Path, of: &str, len: u64) {
    let wanted = (len + len / 4).max(LEAST);
    for n in 0..FILES {
        let path = path(folder, of, n);
        let there = fs::metadata(&path).map_or(0, |file| file.len());
        if there >= wanted && there <= 4 * wanted {
            continue;
        }
        if let Err(error) = allocate(&path, wanted) {
            tracing::debug!(%error, path = %path.display(), "no room can be set aside for snapshots");
        }
    }
}

/// What is there already stays until there is more.
fn allocate(path: &Path, len: u64) -> io::Result<()> {
    let new = path.with_extension("new");
    let allocated = File::create(&new).and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, len)?));
    let placed = allocated.and_then(|()| fs::rename(&new, path));
    if placed.is_err() {
        let _ = fs::remove_file(&new);
    }
    placed
}

/// Writes a file into room that was set aside for its kind. It is complete and synced, under another name.
///
/// # Errors
/// None was set aside, or not enough.
pub(super) fn write(folder: &Path, of: &str, content: &[&[u8]]) -> io::Result<PathBuf> {
    let len: u64 = content.iter().map(|bytes| bytes.len() as u64).sum();
    let fits = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.len() >= len);
    let path = (0..FILES).map(|n| path(folder, of, n)).find(fits).ok_or(io::ErrorKind::StorageFull)?;
    let mut file = File::options().write(true).open(&path)?;
    for bytes in content {
        file.write_all(bytes)?;
    }
    file.set_len(len)?;
    file.sync_all()?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_aside_is_written_into_once_each_and_set_aside_again() {
        let folder = tempfile::tempdir().unwrap();
        let blocks = |path: &Path| std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path).unwrap());
        assert!(write(folder.path(), "part", &[b"x"]).is_err());
        set_aside(folder.path(), "part", 1 << 20);
        assert!(blocks(&path(folder.path(), "part", 0)) >= (1 << 20) / 512, "its blocks are allocated");
        assert!(write(folder.path(), "part", &[&vec![1; 2 << 20]]).is_err(), "not enough");
        for n in 0..FILES {
            let written = write(folder.path(), "part", &[b"ab", b"c"]).unwrap();
            assert_eq!(fs::read(&written).unwrap(), b"abc");
            fs::rename(written, folder.path().join(format!("{n}.part"))).unwrap();
        }
        assert!(write(folder.path(), "part", &[b"x"]).is_err(), "all of it is used");
        set_aside(folder.path(), "part", 10);
        assert_eq!(fs::metadata(path(folder.path(), "part", 1)).unwrap().len(), LEAST);
        set_aside(folder.path(), "part", 1 << 20);
        assert_eq!(fs::metadata(path(folder.path(), "part", 1)).unwrap().len(), 5 << 18, "more is needed");
        set_aside(folder.path(), "part", 10);
        assert_eq!(fs::metadata(path(folder.path(), "part", 1)).unwrap().len(), LEAST, "much less is");
    }
}
