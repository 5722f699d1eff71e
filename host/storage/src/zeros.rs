//! Whether anything was ever written somewhere.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};

/// Bytes read at once.
const STEP: usize = 64 << 10;

/// Whether a file holds only zeros in a stretch of bytes, which may be empty. Holes are skipped, not read, and so is what
/// lies behind the end of the file.
///
/// # Errors
/// It cannot be read.
pub(crate) fn only_zeros(file: &File, stretch: Range<u64>) -> io::Result<bool> {
    let mut buffer = vec![0; STEP];
    let mut at = stretch.start;
    while at < stretch.end {
        match seek(file, SeekFrom::Data(at)) {
            Ok(data) => at = data,
            Err(rustix::io::Errno::NXIO) => return Ok(true),
            // A file system that does not tell holes: all of it is read.
            Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
        let hole = seek(file, SeekFrom::Hole(at)).unwrap_or(stretch.end).min(stretch.end);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_anywhere_in_the_stretch_is_found_and_none_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::options().read(true).write(true).create(true).truncate(true).open(folder.path().join("file"));
        let file = file.unwrap();
        let len = 4 << 20;
        file.set_len(len).unwrap();
        assert!(only_zeros(&file, 0..len).unwrap(), "a hole");
        for at in [100, STEP as u64, len / 2, len - 1] {
            file.write_all_at(&[1], at).unwrap();
            assert!(!only_zeros(&file, 0..len).unwrap(), "byte {at}");
            assert!(!only_zeros(&file, at..at + 1).unwrap());
            assert!(only_zeros(&file, 0..at).unwrap() && only_zeros(&file, at + 1..len).unwrap());
            assert!(only_zeros(&file, at..at).unwrap(), "an empty stretch");
            file.write_all_at(&[0], at).unwrap();
            assert!(only_zeros(&file, 0..len).unwrap(), "written, and zero");
        }
    }

    #[test]
    fn behind_the_end_of_a_file_nothing_was_written() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), [0; 10]).unwrap();
        let file = File::open(folder.path().join("file")).unwrap();
        assert!(only_zeros(&file, 0..10).unwrap());
        assert!(only_zeros(&file, 5..11).unwrap() && only_zeros(&file, 100..110).unwrap());
    }
}
