//! Copies and digests of single files.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, fadvise};
use sha2::{Digest, Sha256};

use super::{BackupError, failed};
use vouch_files::create_dir_all;

/// Bytes read at once.
const STEP: usize = 1 << 20;
/// A block of zeros of this size becomes a hole.
pub(super) const BLOCK: usize = 64 << 10;

/// How much of a file counts: what lies behind `data` is zeros up to `length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) data: u64,
    pub(crate) length: u64,
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
pub(super) fn digest(
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

/// Bytes as hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::super::compare::compare;

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
}
