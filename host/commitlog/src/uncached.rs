//! Files beside the log that are read again to find what a disk has lost.

use std::io;
use std::path::Path;

use crate::disk::{Disk, RealDisk};
use crate::survey::window::{READ_STEP, ReadWindow};

/// A file that is read past the page cache where the system can do that, as the [`Scrubber`](crate::Scrubber) reads
/// segments: what is read is what the medium holds.
pub struct UncachedFile(ReadWindow);

impl UncachedFile {
    /// Opens a file, which must not change.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let file = RealDisk::read_only(folder).open_uncached(name)?;
        let len = file.size()?;
        Ok(Self(ReadWindow::new(file, len, READ_STEP)))
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.0.limit()
    }

    /// Fills a buffer from an offset on.
    ///
    /// # Errors
    /// The file ends before the buffer is full, or a sector cannot be read.
    pub fn read_exact_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if !self.0.copy(offset, into)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match self.0.unreadable(offset, offset + into.len() as u64) {
            Some(why) => Err(io::Error::other(why.to_owned())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_is_there_at_any_offset_and_nothing_behind_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..READ_STEP * 2 + 100).map(|n| (n / 7) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let mut file = UncachedFile::open(&path).unwrap();
        assert_eq!(file.size(), bytes.len() as u64);
        for (offset, len) in [(0, 40), (40, READ_STEP), (READ_STEP - 1, 2), (bytes.len() - 1, 1)] {
            let mut read = vec![0; len];
            file.read_exact_at(offset as u64, &mut read).unwrap();
            assert_eq!(read, bytes[offset..][..len]);
        }
        assert!(file.read_exact_at(bytes.len() as u64 - 1, &mut [0; 2]).is_err());
        assert!(UncachedFile::open(&folder.path().join("other")).is_err());
    }
}
