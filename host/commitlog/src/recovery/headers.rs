//! The files of a log: which there are, whether each is what its name says, and whether one is missing.

use std::sync::Arc;

use super::Scan;
use crate::disk::{File, Mapping};
use crate::error::hexadecimal;
use crate::format::{SEGMENT_HEADER_LEN, SegmentHeader, SegmentHeaderFault};
use crate::segment::{file_name, parse_file_name};
use crate::{LogPosition, OpenError};

/// A file that may be a segment.
pub(crate) struct FoundSegment {
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) file: Arc<dyn File>,
    pub(crate) mapping: Arc<dyn Mapping>,
    /// Size and header are as they must be before the first entry is written.
    pub(super) sound: bool,
    /// Behind the last entry lie bytes of the file's earlier life.
    pub(crate) recycled: bool,
}

impl Scan<'_> {
    /// Lists the segments, checks their headers and that none is missing between them.
    pub(super) fn find_segments(&mut self) -> Result<(), OpenError> {
        let names = self.factory.disk.names().map_err(|source| OpenError::Io {
            action: "list",
            file: self.config.directory.clone(),
            source,
        })?;
        let mut starts: Vec<u64> = names.iter().filter_map(|name| parse_file_name(name)).collect();
        starts.sort_unstable();
        for start in starts {
            let found = self.look_at(start)?;
            let expected = self.found.last().map(|before| before.start + self.config.segment_size);
            if let Some(expected) = expected.filter(|expected| *expected != start) {
                return Err(OpenError::SegmentMissing { file: self.path(expected) });
            }
            self.found.push(found);
        }
        // An unsound file is a creation that was cut short, which only the last can be.
        match self.found.iter().rev().skip(1).find(|found| !found.sound) {
            Some(unsound) => Err(self.unsound(unsound, 0)),
            None => Ok(()),
        }
    }

    fn look_at(&self, start: u64) -> Result<FoundSegment, OpenError> {
        let file = self.factory.disk.open(&file_name(start)).map_err(self.io("open", start))?;
        let size = file.size().map_err(self.io("look at", start))?;
        let mapping = file.map(size).map_err(self.io("map", start))?;
        let header = self.check_header(start, size, &*mapping)?;
        let sound = header.is_some() && size == self.config.segment_size;
        let recycled = header.is_some_and(|header| header.recycled);
        #[cfg(any(test, feature = "simulated-disk"))]
        let recycled = recycled && !crate::bugs::OLD_BYTES_TAKEN_FOR_TAIL.injected();
        Ok(FoundSegment { start, size, file, mapping, sound, recycled })
    }

    /// The header, if it is sound; a sound one that does not fit is refused.
    fn check_header(&self, start: u64, size: u64, mapping: &dyn Mapping) -> Result<Option<SegmentHeader>, OpenError> {
        let file = self.path(start);
        if size < SEGMENT_HEADER_LEN {
            return Ok(None);
        }
        mapping.populate(0, SEGMENT_HEADER_LEN as usize).map_err(self.io("read", start))?;
        let mut block = vec![0; SEGMENT_HEADER_LEN as usize];
        mapping.copy(0, &mut block);
        let header = match SegmentHeader::decode(&block) {
            Ok(header) => header,
            Err(SegmentHeaderFault::Damaged) => return Ok(None),
            Err(SegmentHeaderFault::Version(version)) => {
                return Err(OpenError::UnknownFormat { file, offset: 0, version });
            }
        };
        let expected = self.factory.header(start);
        if header.cluster_id != expected.cluster_id {
            let (found, expected) = (hexadecimal(&header.cluster_id), hexadecimal(&expected.cluster_id));
            return Err(OpenError::WrongCluster { file, found, expected });
        }
        if header.shard != expected.shard {
            return Err(OpenError::WrongShard { file, found: header.shard, expected: expected.shard });
        }
        if header.segment_size != expected.segment_size {
            let (found, expected) = (header.segment_size, expected.segment_size);
            return Err(OpenError::WrongSegmentSize { file, found, expected });
        }
        if header.start != start || !start.is_multiple_of(self.config.segment_size) {
            return Err(OpenError::Misnamed { file, found: LogPosition(header.start) });
        }
        Ok(Some(header))
    }

    pub(super) fn unsound(&self, found: &FoundSegment, durable: u64) -> OpenError {
        let file = self.path(found.start);
        if found.size != self.config.segment_size {
            return OpenError::SegmentLength { file, found: found.size, expected: self.config.segment_size };
        }
        OpenError::Damaged {
            file,
            offset: 0,
            position: LogPosition(found.start),
            reason: "the segment header does not match its checksum".to_owned(),
            durable: LogPosition(durable),
        }
    }
}
