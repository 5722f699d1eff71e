//! Pages: lookup files are written and read by them. Each has a checksum that is compared whenever it is read, so that
//! nothing damaged is served, whenever the damage came about.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::LookupFault;

/// Bytes of a page.
pub(super) const PAGE_LEN: usize = 4096;
/// Bytes of a page in front of its checksum.
pub(super) const CONTENT_LEN: usize = PAGE_LEN - 4;

/// Covers the place of a page, too: one of another file or another place is as wrong as a flipped bit.
pub(super) fn checksum(part: u64, page: u64, content: &[u8]) -> u32 {
    let place = crc32c::crc32c_append(crc32c::crc32c(&part.to_le_bytes()), &page.to_le_bytes());
    crc32c::crc32c_append(place, content)
}

/// The contents of a page, which are as they were written.
#[derive(Clone)]
pub(super) struct LookupPage([u8; PAGE_LEN]);

impl LookupPage {
    /// Everything in it but the checksum, and zeros behind what was written.
    pub(super) fn content(&self) -> &[u8] {
        &self.0[..CONTENT_LEN]
    }
}

/// The pages of a file. They are read and not mapped: a sector that cannot be read is then an error, and the file is made
/// again, where a mapping would end the process.
pub(super) struct Pages {
    file: File,
    part: u64,
    count: u64,
}

impl Pages {
    /// The pages of the file for this part.
    pub(super) fn open(file: File, part: u64) -> Result<Self, LookupFault> {
        let len = file.metadata()?.len();
        if len == 0 || !len.is_multiple_of(PAGE_LEN as u64) {
            return Err(LookupFault::Length(len));
        }
        Ok(Self { file, part, count: len / PAGE_LEN as u64 })
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Reads one page and compares it with its checksum.
    ///
    /// # Errors
    /// [`LookupFault::Page`] where it is not as it was written, [`LookupFault::Io`] where it cannot be read or lies
    /// behind the end.
    pub(super) fn read(&self, page: u64) -> Result<LookupPage, LookupFault> {
        let mut bytes = [0; PAGE_LEN];
        // Beyond the end it is an error, too: counts of pages come from the file.
        let at = page.checked_mul(PAGE_LEN as u64).ok_or(LookupFault::Page(page))?;
        self.file.read_exact_at(&mut bytes, at)?;
        let (content, found) = bytes.split_at(CONTENT_LEN);
        if checksum(self.part, page, content).to_le_bytes() != found {
            return Err(LookupFault::Page(page));
        }
        Ok(LookupPage(bytes))
    }
}
