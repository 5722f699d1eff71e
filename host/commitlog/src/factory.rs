//! How a segment comes to be: of a new file, or of a spare one under the rules of [`crate::spares`].

use std::io::{self, IoSlice};
use std::sync::Arc;

use crate::Shortage;
use crate::disk::{Disk, File, Mapping};
use crate::format::{SEGMENT_HEADER_LEN, SegmentHeader};
use crate::segment::{WriteSegment, WrittenBlocks, file_name};
use crate::spares::{Spares, parse_spare_name};

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
        #[cfg(any(test, feature = "simulated-disk"))]
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
        self.segment(start, recycled, file, sync_files, mapping)
    }

    /// Opens a segment that readers have mapped, to write on in it.
    pub(crate) fn reopen(&self, start: u64, mapping: Arc<dyn Mapping>) -> io::Result<WriteSegment> {
        let mut block = vec![0; SEGMENT_HEADER_LEN as usize];
        mapping.copy(0, &mut block);
        let header = SegmentHeader::decode(&block).ok().filter(|header| header.same_segment(&self.header(start)));
        let recycled = header.ok_or(io::ErrorKind::InvalidData)?.recycled;
        let name = file_name(start);
        let (file, sync_files) = (self.disk.open(&name)?, self.open_for_sync(&name)?);
        self.segment(start, recycled, file, sync_files, mapping)
    }

    fn segment(
        &self,
        start: u64,
        recycled: bool,
        file: Arc<dyn File>,
        sync_files: Vec<Arc<dyn File>>,
        mapping: Arc<dyn Mapping>,
    ) -> io::Result<WriteSegment> {
        let (name, end) = (file_name(start), start + self.segment_size);
        // A copy that somebody put back may have holes where payloads were zeros.
        let all = recycled && file.next_hole(0)? >= self.segment_size;
        let written = WrittenBlocks::new(if all { start..end } else { start..self.first_entry(start) });
        Ok(WriteSegment { start, end, recycled, name, file, sync_files, mapping, written })
    }

    fn open_for_sync(&self, name: &str) -> io::Result<Vec<Arc<dyn File>>> {
        #[cfg(any(test, feature = "simulated-disk"))]
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

    /// Removes a spare file, so that its blocks are free; whether there was one. If a power cut brings its name back it is
    /// a spare file again.
    pub(crate) fn give_up_spare(&self) -> bool {
        let name = self.spares.take();
        name.is_some_and(|name| self.disk.remove(&name).is_ok())
    }

    /// Takes over the spare files of an earlier life; what is too many or has not a segment's size goes. So does what
    /// was not below the segment that is written on: where the files of a log were put back to an earlier state, it may
    /// hold entries of the very positions that come next.
    pub(crate) fn adopt_spares(&self, current_start: u64) -> io::Result<()> {
        for name in self.disk.names()? {
            let Some(start) = parse_spare_name(&name) else { continue };
            let below = start < current_start;
            #[cfg(any(test, feature = "simulated-disk"))]
            let below = below || crate::bugs::SPARE_FROM_AHEAD_USED.injected();
            let fits = below && self.disk.open(&name)?.size()? == self.segment_size;
            if fits && self.spares.has_room() {
                self.spares.add(name);
            } else {
                self.disk.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Makes the segment that starts at `start` of a spare file, if there is one that can be used.
    pub(crate) fn recycle(&self, start: u64) -> io::Result<Option<WriteSegment>> {
        let Some(spare) = self.spares.take() else { return Ok(None) };
        // All that takes descriptors and memory comes before the name changes.
        let made = self.give_new_header(&spare, start).and_then(|file| self.open_as(&spare, start, file, true));
        let segment = match made {
            Ok(segment) => segment,
            Err(error) if matches!(Shortage::of(&error), Some(Shortage::Descriptors | Shortage::Memory)) => {
                // The file is as good as before.
                self.spares.add(spare);
                return Err(error);
            }
            Err(error) if another_will_do(&error) => {
                // Nothing of the log was touched: the segment gets a new file.
                tracing::warn!(spare, %error, "a spare file of the commit log cannot be used again; it is deleted");
                self.disk.remove(&spare)?;
                return Ok(None);
            }
            // A disk that fails here fails in the next file, too, and must not be written on.
            Err(error) => return Err(error),
        };
        if let Err(error) = self.disk.rename(&spare, &segment.name) {
            if Shortage::of(&error).is_some() {
                self.spares.add(spare);
            }
            return Err(error);
        }
        if let Err(error) = self.disk.sync_directory() {
            // Best effort: recovery knows such a leftover too.
            let _ = self.disk.remove(&segment.name);
            return Err(error);
        }
        Ok(Some(segment))
    }

    /// The new header, durable. The file keeps its blocks, so the segment cannot run out of space.
    fn give_new_header(&self, spare: &str, start: u64) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(spare)?;
        if file.size()? != self.segment_size {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it has not the size of a segment"));
        }
        // Reserved, they would not be told from written blocks any more once they were read.
        if file.next_hole(0)? < self.segment_size {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it has holes"));
        }
        let header = SegmentHeader { recycled: true, ..self.header(start) };
        file.write_at(0, &mut [IoSlice::new(&header.encode())])?;
        #[cfg(any(test, feature = "simulated-disk"))]
        if crate::bugs::RECYCLED_BEFORE_SYNC.injected() {
            return Ok(file);
        }
        file.sync()?;
        Ok(file)
    }
}

/// Whether another file will do where this one did not.
fn another_will_do(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound)
        || Shortage::of(error) == Some(Shortage::Space)
}
