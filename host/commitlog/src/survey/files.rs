//! The segment files of a folder, seen read-only.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::report::LogIdentity;
use super::walker::{entries_limit, whole_entry_at};
use super::window::ReadWindow;
use crate::OpenError;
use crate::disk::{Disk, File};
use crate::error::hexadecimal;
use crate::format::{SEGMENT_HEADER_LEN, SegmentHeader, SegmentHeaderFault, checksum_seed};
use crate::segment::{file_name, parse_file_name};

/// The folder of one log.
pub(crate) struct Files {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) directory: PathBuf,
    pub(crate) identity: LogIdentity,
    pub(crate) seed: u32,
}

/// What a segment's file is.
pub(crate) struct SegmentFile {
    pub(crate) file: Arc<dyn File>,
    pub(crate) size: u64,
    pub(crate) header: HeaderState,
    /// Behind the last entry lie bytes of the file's earlier life.
    pub(crate) recycled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderState {
    Sound,
    Damaged,
    /// A sound one of another segment of the same log.
    Of(u64),
}

/// Starts of the segments in a folder, in order.
pub(crate) fn segment_starts(disk: &dyn Disk) -> io::Result<Vec<u64>> {
    let mut starts: Vec<u64> = disk.names()?.iter().filter_map(|name| parse_file_name(name)).collect();
    starts.sort_unstable();
    Ok(starts)
}

/// The header block of a file.
pub(crate) fn read_header(file: &Arc<dyn File>, size: u64) -> io::Result<Result<SegmentHeader, SegmentHeaderFault>> {
    let mut block = vec![0; SEGMENT_HEADER_LEN as usize];
    let mut window = ReadWindow::new(file.clone(), size.min(SEGMENT_HEADER_LEN), SEGMENT_HEADER_LEN as usize);
    // A block that cannot be read shows zeros, and is damaged.
    Ok(match window.copy(0, &mut block)? {
        true => SegmentHeader::decode(&block),
        false => Err(SegmentHeaderFault::Damaged),
    })
}

impl Files {
    pub(crate) fn new(disk: Arc<dyn Disk>, directory: PathBuf, identity: LogIdentity) -> Self {
        let seed = checksum_seed(&identity.cluster_id, identity.shard);
        Self { disk, directory, identity, seed }
    }

    /// The folder's files, and the identity that the first sound segment header in it states.
    pub(crate) fn of_folder(disk: Arc<dyn Disk>, directory: PathBuf) -> Result<Self, OpenError> {
        let starts = segment_starts(&*disk).map_err(|source| OpenError::Io {
            action: "list",
            file: directory.clone(),
            source,
        })?;
        for start in starts {
            let path = disk.path(&file_name(start));
            let io = |source| OpenError::Io { action: "read", file: path.clone(), source };
            let file = match disk.open(&file_name(start)) {
                // A running node may release it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(io)?,
            };
            match read_header(&file, file.size().map_err(io)?).map_err(io)? {
                Ok(SegmentHeader { cluster_id, shard, segment_size, .. }) => {
                    let identity = LogIdentity { cluster_id, shard, segment_size };
                    return Ok(Self::new(disk, directory, identity));
                }
                Err(SegmentHeaderFault::Version(version)) => {
                    return Err(OpenError::UnknownFormat { file: path, offset: 0, version });
                }
                Err(SegmentHeaderFault::Damaged) => {}
            }
        }
        Err(OpenError::NoLog { directory })
    }

    pub(crate) fn path(&self, start: u64) -> PathBuf {
        self.disk.path(&file_name(start))
    }

    pub(crate) fn io(&self, action: &'static str, start: u64) -> impl FnOnce(io::Error) -> OpenError + use<> {
        let file = self.path(start);
        move |source| OpenError::Io { action, file, source }
    }

    /// Starts of the segments that are there. A file whose name is not a place where a segment begins is none of them:
    /// what it may hold is missed where it belongs.
    pub(crate) fn starts(&self) -> Result<Vec<u64>, OpenError> {
        let starts = segment_starts(&*self.disk).map_err(|source| OpenError::Io {
            action: "list",
            file: self.directory.clone(),
            source,
        })?;
        Ok(starts.into_iter().filter(|start| start.is_multiple_of(self.identity.segment_size)).collect())
    }

    /// Whether the segment's file is there now.
    pub(crate) fn exists(&self, start: u64) -> Result<bool, OpenError> {
        match self.disk.open(&file_name(start)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(self.io("open", start)(source)),
        }
    }

    /// Whether the segment is missing, though the one before it is there. Segments are released from the oldest up: if
    /// this one is gone for that reason, the one before went first.
    pub(crate) fn is_missing(&self, start: u64) -> Result<bool, OpenError> {
        Ok(!self.exists(start)? && self.exists(start - self.identity.segment_size)?)
    }

    /// Whether a whole entry starts at `position` by now. A node that is running writes one entry after the other: what
    /// was torn when it was read, and is followed by others, is whole when it is read again.
    pub(crate) fn is_whole_by_now(&self, position: u64) -> Result<bool, OpenError> {
        let size = self.identity.segment_size;
        let start = position - position % size;
        let file = match self.disk.open(&file_name(start)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(self.io("open", start))?,
        };
        let limit = entries_limit(file.size().map_err(self.io("look at", start))?, size);
        Ok(whole_entry_at(file, limit, self.seed, position, start))
    }

    /// Opens a segment; `None` if there is no such file. A file of another log is refused: nothing that is said about
    /// this one would hold for it.
    pub(crate) fn open(&self, start: u64) -> Result<Option<SegmentFile>, OpenError> {
        let file = match self.disk.open(&file_name(start)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(self.io("open", start))?,
        };
        let size = file.size().map_err(self.io("look at", start))?;
        let path = self.path(start);
        let header = read_header(&file, size).map_err(self.io("read", start))?;
        let recycled = header.as_ref().is_ok_and(|header| header.recycled);
        let header = match header {
            Err(SegmentHeaderFault::Damaged) => HeaderState::Damaged,
            Err(SegmentHeaderFault::Version(version)) => {
                return Err(OpenError::UnknownFormat { file: path, offset: 0, version });
            }
            Ok(header) if header.cluster_id != self.identity.cluster_id => {
                let (found, expected) = (hexadecimal(&header.cluster_id), hexadecimal(&self.identity.cluster_id));
                return Err(OpenError::WrongCluster { file: path, found, expected });
            }
            Ok(header) if header.shard != self.identity.shard => {
                let (found, expected) = (header.shard, self.identity.shard);
                return Err(OpenError::WrongShard { file: path, found, expected });
            }
            Ok(header) if header.segment_size != self.identity.segment_size => {
                let (found, expected) = (header.segment_size, self.identity.segment_size);
                return Err(OpenError::WrongSegmentSize { file: path, found, expected });
            }
            Ok(header) if header.start != start => HeaderState::Of(header.start),
            Ok(_) => HeaderState::Sound,
        };
        Ok(Some(SegmentFile { file, size, header, recycled }))
    }
}
