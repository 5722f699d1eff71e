//! Making it certain: the torn tail goes, and what stays is on the disk.

use std::io::{self, IoSlice};

use super::Scan;
use super::headers::FoundSegment;
use super::leftover::Remains;
use crate::cutting::write_zeros;
use crate::segment::file_name;
use crate::{Cut, LogPosition, OpenError};

impl Scan<'_> {
    /// Removes everything behind the end. Nothing in it was acknowledged, and none of it may come back: an old entry
    /// behind new ones would look like a kept group behind a lost one.
    pub(super) fn cut(&mut self, remains: &Remains) -> Result<(), OpenError> {
        // From the last one down, each made durable before the next, so that a power cut leaves no gap.
        let keep = self.found.get(self.at).map_or(0, |found| self.at + usize::from(found.sound));
        while self.found.len() > keep {
            let Some(found) = self.found.pop() else { break };
            self.factory.disk.remove(&file_name(found.start)).map_err(self.io("remove", found.start))?;
            self.factory.disk.sync_directory().map_err(self.io("remove", found.start))?;
        }
        let Some(last_byte) = remains.last_byte else { return Ok(()) };
        let reason = self.end.fault.to_string();
        self.report.cut = Some(Cut { at: LogPosition(self.tail.end), bytes: last_byte + 1 - self.tail.end, reason });
        let (Some(found), Some(here)) = (self.found.get(self.at), remains.last_byte_here) else { return Ok(()) };
        write_zeros(&*found.file, self.tail.end - found.start, here + 1 - self.tail.end)
            .map_err(self.io("cut the torn tail of", found.start))
    }

    /// What was read may be in the page cache only. It is made durable before anyone sees it, and so is the cut.
    ///
    /// A sync alone would not do: if a write-back failed before this process started, the kernel keeps the lost bytes
    /// as if they were clean, and a sync succeeds without writing them. So whatever no mark covers is written again,
    /// the same bytes to the same place, before the sync.
    pub(super) fn sync_what_was_read(&self) -> Result<(), OpenError> {
        #[cfg(any(test, feature = "simulated-disk"))]
        if crate::bugs::TAIL_NOT_SYNCED.injected() && self.report.cut.is_none() {
            return Ok(());
        }
        let doubtful = |found: &&FoundSegment| found.start + self.config.segment_size > self.certain();
        for found in self.found.iter().filter(doubtful) {
            self.write_again(found).map_err(self.io("write again the last entries of", found.start))?;
            found.file.sync().map_err(self.io("sync", found.start))?;
        }
        // A name may be as fresh as the bytes.
        self.factory.disk.sync_directory().map_err(self.io("sync the folder of", self.tail.end))
    }

    fn write_again(&self, found: &FoundSegment) -> io::Result<()> {
        #[cfg(any(test, feature = "simulated-disk"))]
        if crate::bugs::CLEAN_PAGES_TRUSTED.injected() {
            return Ok(());
        }
        let mut offset = self.certain().saturating_sub(found.start);
        let end = self.tail.end.saturating_sub(found.start).min(found.size);
        let mut buffer = vec![0; 1 << 20];
        while offset < end {
            let len = (end - offset).min(buffer.len() as u64);
            found.mapping.copy(offset, &mut buffer[..len as usize]);
            found.file.write_at(offset, &mut [IoSlice::new(&buffer[..len as usize])])?;
            offset += len;
        }
        Ok(())
    }
}
