//! Reading a file through a buffer: by copies, so that a sector that cannot be read is a finding and not a signal, and
//! a file that changes meanwhile is no danger.

use std::io;
use std::sync::Arc;

use crate::disk::File;

/// Granularity and alignment of reads, in memory, too, as direct reads need it.
const PAGE: usize = 4096;
/// Bytes read at once where all is read.
pub(crate) const READ_STEP: usize = 256 << 10;

/// A part of a file in memory.
pub(crate) struct ReadWindow {
    file: Arc<dyn File>,
    /// Nothing from here on is looked at.
    limit: u64,
    memory: Vec<u8>,
    /// Where in `memory` the aligned buffer begins, and how long it is.
    aligned: usize,
    capacity: usize,
    /// The buffer holds this range of the file.
    from: u64,
    filled: usize,
    /// Pages that could not be read, and why not; they read as zeros.
    unreadable: Vec<(u64, String)>,
    /// Bytes read from the file so far.
    pub(crate) bytes_read: u64,
}

impl ReadWindow {
    /// Sees the first `limit` bytes of the file and reads `step` at a time, a multiple of 4096.
    pub(crate) fn new(file: Arc<dyn File>, limit: u64, step: usize) -> Self {
        let memory = vec![0; step + PAGE];
        let aligned = memory.as_ptr().align_offset(PAGE);
        Self { file, limit, memory, aligned, capacity: step, from: 0, filled: 0, unreadable: Vec::new(), bytes_read: 0 }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Forgets what was read: the file may have changed.
    pub(crate) fn forget(&mut self) {
        self.filled = 0;
        self.unreadable.clear();
    }

    /// The bytes from `offset` on that are in memory: at least one, unless `offset` is at the limit.
    pub(crate) fn at(&mut self, offset: u64) -> io::Result<&[u8]> {
        if offset >= self.limit {
            return Ok(&[]);
        }
        if offset < self.from || offset >= self.from + self.filled as u64 {
            self.load(offset)?;
        }
        let from = (offset - self.from) as usize;
        Ok(&self.memory[self.aligned..][from..self.filled])
    }

    /// Copies a range out; `false` if it reaches beyond the limit.
    pub(crate) fn copy(&mut self, mut offset: u64, mut into: &mut [u8]) -> io::Result<bool> {
        while !into.is_empty() {
            let bytes = self.at(offset)?;
            if bytes.is_empty() {
                return Ok(false);
            }
            let len = bytes.len().min(into.len());
            into[..len].copy_from_slice(&bytes[..len]);
            offset += len as u64;
            into = &mut into[len..];
        }
        Ok(true)
    }

    /// First offset at or after `offset` that is not in a hole, at most the limit.
    pub(crate) fn next_data(&self, offset: u64) -> io::Result<u64> {
        Ok(self.file.next_data(offset)?.unwrap_or(self.limit).min(self.limit))
    }

    /// Why a part of the range could not be read, if so.
    pub(crate) fn unreadable(&self, from: u64, to: u64) -> Option<&str> {
        let touches = |page: &&(u64, String)| page.0 < to && page.0 + PAGE as u64 > from;
        self.unreadable.iter().find(touches).map(|(_, why)| why.as_str())
    }

    fn load(&mut self, offset: u64) -> io::Result<()> {
        self.from = offset - offset % PAGE as u64;
        self.filled = 0;
        let Self { file, memory, aligned, capacity, from, limit, .. } = self;
        let (from, limit) = (*from, *limit);
        let buffer = &mut memory[*aligned..*aligned + *capacity];
        let wanted = buffer.len().min((limit - from) as usize);
        // Whole pages, as direct reads need them: the end of the file ends the read.
        let got = match file.read_at(from, &mut buffer[..wanted.next_multiple_of(PAGE)]) {
            Ok(got) => got.min(wanted),
            Err(_) => {
                // One bad sector must not hide what lies beside it.
                for (number, page) in buffer[..wanted.next_multiple_of(PAGE)].chunks_mut(PAGE).enumerate() {
                    let at = from + (number * PAGE) as u64;
                    if let Err(error) = file.read_at(at, page) {
                        page.fill(0);
                        if !self.unreadable.iter().any(|(known, _)| *known == at) {
                            self.unreadable.push((at, error.to_string()));
                        }
                    }
                }
                wanted
            }
        };
        self.bytes_read += got as u64;
        if from + (got as u64) <= offset {
            // Somebody cut the file shorter meanwhile: there is nothing to see any more.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.filled = got;
        Ok(())
    }
}
