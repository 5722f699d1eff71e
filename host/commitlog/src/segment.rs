//! One segment: its file, its mapping, and how a new one comes to be.

use std::io::{self, IoSlice};
use std::sync::Arc;

use crate::disk::{Disk, File, Mapping};
use crate::format::{SEGMENT_HEADER_LEN, SegmentHeader};
use crate::spares::Spares;

/// Name of the file of the segment that starts at `start`: 20 digits, so that names sort like positions.
pub(crate) fn file_name(start: u64) -> String {
    format!("{start:020}.log")
}

/// Start position in a segment's file name; `None` for any other file, and for a position so high that no log gets there
/// and that it could not be added to.
pub(crate) fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|start| *start <= u64::MAX / 2)
}

/// A segment that may still be written.
pub(crate) struct WriteSegment {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Made of a used file: what is behind the end are old bytes, all of its blocks are there, and nothing is written
    /// beyond the horizon.
    pub(crate) recycled: bool,
    pub(crate) name: String,
    /// The writer's and the zero-filler's description. Nobody syncs through it but the filler.
    pub(crate) file: Arc<dyn File>,
    /// One open file description for each sync in flight, and a last one for the appender's
    /// own. The kernel reports a failed write-back once to each
    /// description, so no sync can use up an error that another one had to see (ruling 18).
    pub(crate) sync_files: Vec<Arc<dyn File>>,
    pub(crate) mapping: Arc<dyn Mapping>,
}

impl WriteSegment {
    /// Offset in the file of a position in this segment.
    pub(crate) fn offset(&self, position: u64) -> u64 {
        position - self.start
    }
}

/// Everything the segments of one log have in common.
#[derive(Clone)]
pub(crate) struct SegmentFactory {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) cluster_id: [u8; 16],
    pub(crate) shard: u16,
    pub(crate) segment_size: u64,
    pub(crate) syncs_in_flight: usize,
    pub(crate) spares: Arc<Spares>,
}

impl SegmentFactory {
    /// The header of the segment that starts at `start`, made of a new file.
    pub(crate) fn header(&self, start: u64) -> SegmentHeader {
        let Self { cluster_id, shard, segment_size, .. } = *self;
        SegmentHeader { cluster_id, shard, segment_size, start, recycled: false }
    }

    /// Creates a segment, of a spare file if there is one. When this returns, file, size, header and name survive a power cut: entries may follow.
    /// On failure nothing is left behind that would hinder another try.
    pub(crate) fn create(&self, start: u64) -> io::Result<WriteSegment> {
        if let Some(segment) = self.recycle(start)? {
            return Ok(segment);
        }
        let name = file_name(start);
        let file = self.disk.create(&name)?;
        let made = self.lay_header(&*file, start).and_then(|()| self.open(start, file, false));
        if made.is_err() {
            // Best effort: recovery knows such a leftover too.
            let _ = self.disk.remove(&name);
        }
        made
    }

    fn lay_header(&self, file: &dyn File, start: u64) -> io::Result<()> {
        file.set_size(self.segment_size)?;
        file.write_at(0, &mut [IoSlice::new(&self.header(start).encode())])?;
        file.sync()?;
        #[cfg(test)]
        if crate::bugs::DIRECTORY_NOT_SYNCED.injected() {
            return Ok(());
        }
        self.disk.sync_directory()
    }

    /// Opens what an existing segment needs to be written on.
    pub(crate) fn open(&self, start: u64, file: Arc<dyn File>, recycled: bool) -> io::Result<WriteSegment> {
        self.open_as(&file_name(start), start, file, recycled)
    }

    /// As [`Self::open`], of a file that has another name as yet.
    pub(crate) fn open_as(
        &self,
        name: &str,
        start: u64,
        file: Arc<dyn File>,
        recycled: bool,
    ) -> io::Result<WriteSegment> {
        let sync_files = self.open_for_sync(name)?;
        let mapping = file.map(self.segment_size)?;
        let (name, end) = (file_name(start), start + self.segment_size);
        Ok(WriteSegment { start, end, recycled, name, file, sync_files, mapping })
    }

    fn open_for_sync(&self, name: &str) -> io::Result<Vec<Arc<dyn File>>> {
        #[cfg(test)]
        if crate::bugs::SHARED_SYNC_DESCRIPTION.injected() {
            return Ok(vec![self.disk.open(name)?; self.syncs_in_flight + 1]);
        }
        (0..=self.syncs_in_flight).map(|_| self.disk.open(name)).collect()
    }

    pub(crate) fn first_entry(&self, segment_start: u64) -> u64 {
        segment_start + SEGMENT_HEADER_LEN
    }

    pub(crate) fn segment_start(&self, position: u64) -> u64 {
        position - position % self.segment_size
    }
}
