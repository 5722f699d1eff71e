//! Copies and digests of single files.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use sha2::{Digest, Sha256};

use super::{BackupError, damaged, failed};
use vouch_files::create_dir_all;

/// Bytes read at once.
const STEP: usize = 1 << 20;
/// A block of zeros of this size becomes a hole.
const BLOCK: usize = 64 << 10;

/// How much of a file counts: what lies behind `data` is zeros up to `length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) data: u64,
    pub(super) length: u64,
}

impl Extent {
    /// All of a file.
    pub(super) fn whole(length: u64) -> Self {
        Self { data: length, length }
    }
}

/// A copy that is on the disk.
pub(super) struct Copied {
    /// Of the bytes that count, in hexadecimal digits.
    pub(super) sha256: String,
    /// Where the bytes came from.
    pub(super) source: File,
}

/// Copies a file to a new one, synced, with the blocks of zeros left out.
///
/// # Errors
/// The system refuses, or the file is shorter than it must be.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    extent: Extent,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Copied, BackupError> {
    let source = File::open(from).map_err(failed("open", from))?;
    if let Some(folder) = to.parent() {
        create_dir_all(folder).map_err(failed("create", folder))?;
    }
    // It holds messages and the key of the handles: for the operator's eyes only.
    let target = File::options().write(true).create_new(true).mode(0o600).open(to).map_err(failed("create", to))?;
    target.set_len(extent.length).map_err(failed("write", to))?;
    let mut at = 0;
    let sha256 = digest(&source, from, extent.data, &mut |bytes| {
        for block in bytes.chunks(BLOCK) {
            if block.iter().any(|byte| *byte != 0) {
                target.write_all_at(block, at).map_err(failed("write", to))?;
            }
            at += block.len() as u64;
        }
        on_bytes(bytes.len() as u64);
        Ok(())
    })?;
    target.sync_all().map_err(failed("sync", to))?;
    // Only a hint: the copy must not push what a running node reads out of memory, and is verified from the disk.
    let _ = fadvise(&target, 0, None, Advice::DontNeed);
    Ok(Copied { sha256, source })
}

/// The digest of a file's first `data` bytes, which `each` sees one step after the other.
fn digest(
    file: &File,
    path: &Path,
    data: u64,
    each: &mut dyn FnMut(&[u8]) -> Result<(), BackupError>,
) -> Result<String, BackupError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; STEP];
    let mut at = 0;
    while at < data {
        let step = buffer.len().min(usize::try_from(data - at).unwrap_or(usize::MAX));
        file.read_exact_at(&mut buffer[..step], at).map_err(failed("read", path))?;
        hash.update(&buffer[..step]);
        each(&buffer[..step])?;
        at += step as u64;
    }
    Ok(hexadecimal(&hash.finalize()))
}

/// Refuses a file that is not as the manifest says.
pub(super) fn compare(
    path: &Path,
    extent: Extent,
    sha256: &str,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<(), BackupError> {
    let file = open_exact(path, extent)?;
    let found = digest(&file, path, extent.data, &mut |bytes| {
        on_bytes(bytes.len() as u64);
        Ok(())
    })?;
    if found == sha256 { Ok(()) } else { Err(damaged(path, "its bytes do not match their digest")) }
}

/// Opens a file that must have a certain length, and nothing behind what counts in it.
pub(super) fn open_exact(path: &Path, extent: Extent) -> Result<File, BackupError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged(path, "it is missing")),
        opened => opened.map_err(failed("open", path))?,
    };
    let found = file.metadata().map_err(failed("look at", path))?.len();
    if found != extent.length {
        return Err(damaged(path, format!("it has {found} bytes instead of {}", extent.length)));
    }
    match zeros_from(&file, extent).map_err(failed("read", path))? {
        true => Ok(file),
        false => Err(damaged(path, format!("something was written behind its {} bytes", extent.data))),
    }
}

/// Whether a file holds only zeros behind what counts. Holes are skipped, not read.
fn zeros_from(file: &File, extent: Extent) -> io::Result<bool> {
    let mut buffer = vec![0; BLOCK];
    let mut at = extent.data;
    while at < extent.length {
        match seek(file, SeekFrom::Data(at)) {
            Ok(data) => at = data,
            Err(rustix::io::Errno::NXIO) => return Ok(true),
            // A file system that does not tell holes: all of it is read.
            Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
        let hole = seek(file, SeekFrom::Hole(at)).unwrap_or(extent.length);
        while at < hole {
            let step = buffer.len().min(usize::try_from(hole - at).unwrap_or(usize::MAX));
            file.read_exact_at(&mut buffer[..step], at)?;
            if buffer[..step].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += step as u64;
        }
    }
    Ok(true)
}

/// Whether a file still has this name. A segment loses its name for ever before its bytes change: if it has it still,
/// what was read from it before was the segment.
pub(super) fn still_named(file: &File, path: &Path) -> Result<bool, BackupError> {
    let of_file = file.metadata().map_err(failed("look at", path))?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (of_file.dev(), of_file.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("look at", path)(error)),
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_bytes_that_count_the_full_length_and_no_blocks_for_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("new/to"));
        let mut bytes = vec![0; 4 << 20];
        bytes[5] = 1;
        bytes[(3 << 20) + 7] = 2;
        fs::write(&from, &bytes).unwrap();
        let extent = Extent { data: (3 << 20) + 8, length: 8 << 20 };
        let mut seen = 0;
        let copied = copy(&from, &to, extent, &mut |bytes| seen += bytes).unwrap();
        assert_eq!(seen, extent.data);
        assert_eq!(copied.sha256, hexadecimal(&Sha256::digest(&bytes[..extent.data as usize])));
        bytes.resize(8 << 20, 0);
        assert_eq!(fs::read(&to).unwrap(), bytes);
        let occupied = fs::metadata(&to).unwrap().blocks() * 512;
        assert!(occupied <= 3 * BLOCK as u64, "{occupied} bytes are occupied");
        compare(&to, extent, &copied.sha256, &mut |_| ()).unwrap();
        assert!(copy(&from, &to, extent, &mut |_| ()).is_err(), "nothing is overwritten");
    }

    #[test]
    fn every_difference_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let extent = Extent { data: 100_000, length: 300_000 };
        let digest = hexadecimal(&Sha256::digest(vec![7; 100_000]));
        let sound = || [vec![7; 100_000], vec![0; 200_000]].concat();
        let compare = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            compare(&path, extent, &digest, &mut |_| ()).map_err(|error| error.to_string())
        };
        compare(&sound()).unwrap();
        for flipped in [0, 99_999, 100_000, 299_999] {
            let mut bytes = sound();
            bytes[flipped] ^= 1;
            assert!(compare(&bytes).is_err(), "byte {flipped}");
        }
        assert!(compare(&sound()[1..]).unwrap_err().contains("299999 bytes instead of 300000"));
    }

    #[test]
    fn a_file_that_was_replaced_or_renamed_is_not_the_named_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "a").unwrap();
        let file = File::open(&path).unwrap();
        assert!(still_named(&file, &path).unwrap());
        fs::rename(&path, folder.path().join("spare")).unwrap();
        assert!(!still_named(&file, &path).unwrap());
        fs::write(&path, "a").unwrap();
        assert!(!still_named(&file, &path).unwrap());
    }
}
