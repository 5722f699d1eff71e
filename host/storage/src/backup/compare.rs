//! Whether a file is as a manifest says, and still the one that was read.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::copy::{Extent, digest};
use super::{BackupError, damaged, failed};
use crate::zeros::only_zeros;

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
    match only_zeros(&file, extent.data..extent.length).map_err(failed("read", path))? {
        true => Ok(file),
        false => Err(damaged(path, format!("something was written behind its {} bytes", extent.data))),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    use super::super::copy::hexadecimal;

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
