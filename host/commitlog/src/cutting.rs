//! Cutting off the end of a log, on the disk: by the appender in a running log, or by a start that finishes what one began.
//!
//! # To ensure correctness
//! - The caller has noted the cut, durably, before any of this begins: whatever a power cut leaves of it, a start with the
//!   note takes the same steps from the beginning and comes to the same log.
//! - The bytes of the segment in which the log is to end come first, the filler that leads to the next one among them: at
//!   no time does a filler lead to a segment that is gone.
//! - Later segments go from the last one down, each durably before the next, so there is never a gap. None of them becomes
//!   a spare file: their very positions come again.
//! - The horizon stays where it is. It says where nothing was ever written, and that stays true.

use std::io::{self, IoSlice};

use crate::Operation;
use crate::disk::{Disk, File};
use crate::group_commit::IoFailure;
use crate::segment::file_name;

/// Zeros written at once.
const STEP: u64 = 1 << 20;

/// What is to go.
pub(crate) struct Doomed<'a> {
    /// Start of the segment in which the log is to end.
    pub(crate) segment: u64,
    /// Its file, and a description of it that nobody else syncs.
    pub(crate) file: &'a dyn File,
    pub(crate) sync: &'a dyn File,
    /// Positions in it from and up to which there are to be zeros.
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Starts of the segments that go as a whole, by position.
    pub(crate) later: Vec<u64>,
}

impl Doomed<'_> {
    /// Takes it off the disk. When this returns, all of it is gone for good.
    pub(crate) fn take_off(&self, disk: &dyn Disk) -> Result<(), IoFailure> {
        #[cfg(any(test, feature = "simulated-disk"))]
        if crate::bugs::SUFFIX_NOT_CUT.injected() {
            return Ok(());
        }
        if self.from < self.to {
            let offset = self.from - self.segment;
            let failed = |operation| move |cause| failure(self.segment, offset, operation, cause);
            write_zeros(self.file, offset, self.to - self.from).map_err(failed(Operation::Write))?;
            self.sync.sync().map_err(failed(Operation::Sync))?;
        }
        for start in self.later.iter().rev() {
            let removed = disk.remove(&file_name(*start)).and_then(|()| disk.sync_directory());
            removed.map_err(|cause| failure(*start, 0, Operation::Remove, cause))?;
        }
        Ok(())
    }
}

#[cfg(any(test, feature = "simulated-disk"))]
impl Doomed<'_> {
    /// The mistake of keeping the file of the last segment for one that comes.
    pub(crate) fn but_keep(mut self, factory: &crate::factory::SegmentFactory) -> Self {
        if let Some(start) = self.later.pop() {
            let spare = crate::spares::spare_name(start);
            let kept = factory.disk.rename(&file_name(start), &spare).and_then(|()| factory.disk.sync_directory());
            kept.expect("nothing fails where this is injected");
            factory.spares.add(spare);
        }
        self
    }
}

fn failure(segment: u64, offset: u64, operation: Operation, cause: io::Error) -> IoFailure {
    IoFailure { segment: file_name(segment), offset, operation, cause }
}

/// Overwrites a range with zeros.
pub(crate) fn write_zeros(file: &dyn File, mut offset: u64, mut len: u64) -> io::Result<()> {
    let zeros = vec![0; STEP.min(len) as usize];
    while len > 0 {
        let part = len.min(STEP);
        file.write_at(offset, &mut [IoSlice::new(&zeros[..part as usize])])?;
        (offset, len) = (offset + part, len - part);
    }
    Ok(())
}
