//! Room on the disk that is set aside for the next snapshots.
//!
//! On a full disk it is snapshots that make room: a segment of the log goes only when neither of the two that are kept needs
//! it. So what two of them take must never be missing. It lies in files whose blocks are allocated, and a snapshot is written
//! into one of them: blocks that were freed for it might be gone before it is written, for the log wants them, too.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Once;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use vouch_files::create;

/// What is not finished is named so, and removed where it is met.
pub(super) const UNFINISHED: &str = "unfinished";
/// A file has at least so many bytes.
pub(super) const LEAST: u64 = 256 << 10;
/// Of what is free so much is left to others, for each byte that is taken.
const LEFT_TO_OTHERS: u64 = 3;
const EXTENSION: &str = "room";
/// So much of a file is written and synced at once.
const PIECE: usize = 4 << 20;

/// The file of a kind with this number.
fn path(folder: &Path, of: &str, n: usize) -> PathBuf {
    folder.join(format!("{of}-{n}.{EXTENSION}"))
}

/// Bytes of a file that are really there: one that was copied may have holes.
fn allocated(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len().min(file.blocks() * 512))
}

/// Sets room aside for files of this kind, of these sizes, as far as there is any: less where there is less, none where
/// others would miss it.
pub(super) fn set_aside(folder: &Path, of: &str, sizes: &[u64]) {
    for (n, size) in sizes.iter().enumerate() {
        let path = path(folder, of, n);
        let (wanted, there) = ((*size).max(LEAST), allocated(&path));
        if there > 4 * wanted {
            // Where it is: this needs no room of its own.
            let cut = File::options().write(true).open(&path).and_then(|file| file.set_len(wanted));
            cut.unwrap_or_else(|error| tell(&error, &path));
            continue;
        }
        if there >= wanted {
            continue;
        }
        let mut len = wanted;
        while len >= LEAST && free(folder) < len * (1 + LEFT_TO_OTHERS) {
            len /= 2;
        }
        if len < LEAST || len <= there {
            continue;
        }
        if let Err(error) = allocate(&path, len) {
            tell(&error, &path);
        }
    }
}

/// Bytes that this process could still have; 0 where the system does not say, and then none are taken.
fn free(folder: &Path) -> u64 {
    statvfs(folder).map_or(0, |disk| disk.f_bavail * disk.f_frsize)
}

/// What is there already stays until there is more.
fn allocate(path: &Path, len: u64) -> io::Result<()> {
    let new = path.with_extension(UNFINISHED);
    let allocated = create(&new).and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, len)?));
    let placed = allocated.and_then(|()| fs::rename(&new, path));
    if placed.is_err() {
        let _ = fs::remove_file(&new);
    }
    placed
}

/// A file system that cannot do it at all is worth a word, one.
fn tell(error: &io::Error, path: &Path) {
    static TOLD: Once = Once::new();
    let path = path.display();
    if error.kind() == io::ErrorKind::Unsupported {
        TOLD.call_once(|| {
            tracing::warn!(%error, %path, "this file system cannot set room aside: should the disk be full to its last \
                block, free some by hand so that a snapshot can be written");
        });
    } else {
        tracing::debug!(%error, %path, "no room can be set aside for snapshots now");
    }
}

/// Makes room for the next files of a kind out of one that nothing needs, if there is less in one of the `most` files:
/// whether it did. Its blocks stay allocated.
pub(super) fn give_back(folder: &Path, of: &str, most: usize, unneeded: &Path) -> bool {
    let least = (0..most).map(|n| path(folder, of, n)).min_by_key(|path| allocated(path));
    least.is_some_and(|least| allocated(&least) < allocated(unneeded) && fs::rename(unneeded, least).is_ok())
}

/// Writes all of it, and syncs each piece before the next: who syncs the log meanwhile waits behind one of them at most, where the file
/// system writes all that waits at once.
pub(super) fn write_in_pieces(file: &mut File, content: &[&[u8]]) -> io::Result<()> {
    for bytes in content {
        for piece in bytes.chunks(PIECE) {
            file.write_all(piece)?;
            if piece.len() == PIECE {
                file.sync_data()?;
            }
        }
    }
    Ok(())
}

/// Writes a file into room that was set aside for its kind, the least that suffices. It is complete and synced, under
/// another name.
///
/// # Errors
/// None was set aside, or not enough.
pub(super) fn write(folder: &Path, of: &str, most: usize, content: &[&[u8]]) -> io::Result<PathBuf> {
    let len: u64 = content.iter().map(|bytes| bytes.len() as u64).sum();
    let rooms = (0..most).map(|n| path(folder, of, n)).filter(|path| allocated(path) >= len.max(1));
    let path = rooms.min_by_key(|path| allocated(path)).ok_or(io::ErrorKind::StorageFull)?;
    let mut file = File::options().write(true).open(&path)?;
    write_in_pieces(&mut file, content)?;
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
        let len = |n| allocated(&path(folder.path(), "part", n));
        let write = |content: &[&[u8]]| write(folder.path(), "part", 2, content);
        assert!(write(&[b"x"]).is_err());
        set_aside(folder.path(), "part", &[1 << 20, 10]);
        assert_eq!((len(0), len(1)), (1 << 20, LEAST));
        assert!(write(&[&vec![1; 2 << 20]]).is_err(), "not enough");
        let least = write(&[b"ab", b"c"]).unwrap();
        assert_eq!((fs::read(&least).unwrap(), len(0)), (b"abc".to_vec(), 1 << 20), "the smaller one suffices");
        fs::rename(least, folder.path().join("1.part")).unwrap();
        fs::rename(write(&[b"x"]).unwrap(), folder.path().join("2.part")).unwrap();
        assert!(write(&[b"x"]).is_err(), "all of it is used");
        for (size, expected) in [(10, LEAST), (2 << 20, 2 << 20), (1 << 20, 2 << 20), (10, LEAST)] {
            set_aside(folder.path(), "part", &[size]);
            assert_eq!(len(0), expected, "as much as is needed now, and not much more");
        }
        // As a copy of the folder would be.
        File::create(path(folder.path(), "part", 0)).unwrap().set_len(1 << 20).unwrap();
        assert!(write(&[b"x"]).is_err(), "a hole is no room");
    }
}
