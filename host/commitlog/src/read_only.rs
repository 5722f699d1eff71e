//! A log that cannot be opened for appending: what is whole in it can still be read.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{Disk, Mapping, RealDisk};
use crate::reader::View;
use crate::survey::files::Files;
use crate::survey::{SurveyBounds, survey};
use crate::{CommitLog, LogConfig, LogIdentity, LogPosition, LogReader, OpenError, SurveyProgress, Verification};

/// A log that is open for reading only.
pub struct ReadOnlyLog {
    /// Reads what is whole. A range that is not gives [`crate::ReadError::Damaged`], which says where to go on; an
    /// iterator ends with it, and [`LogReader::entries_from`] goes on behind it.
    pub reader: LogReader,
    /// What was found, the damage in particular.
    pub verification: Verification,
}

impl ReadOnlyLog {
    /// Serves nothing any more that lies before this position: reads there give [`crate::ReadError::Damaged`]. For whoever
    /// knows that what is whole there does not belong to what follows.
    pub fn distrust_before(&mut self, position: LogPosition) {
        self.reader = self.reader.without_before(position);
    }
}

impl CommitLog {
    /// Opens a log without changing one byte of it, whatever is damaged: the way out where [`CommitLog::open`] refuses
    /// with [`OpenError::Damaged`], [`OpenError::SegmentMissing`] or [`OpenError::SegmentLength`].
    ///
    /// Every segment that does not end at or before `from` is read and verified; 0 means all of them. Served are
    /// entries that are whole, in place and below the end as a start would judge it; `config.known_durable` and
    /// `config.checkpoint` count as known to be durable, and marks only with `config.marks_prove`. Nothing is cut, nothing is synced, no thread runs: what is
    /// served may not have been durable if the system crashed just before. The caller locks the folder: a node that runs
    /// on it may use the file of a released segment again, and what [`LogReader`] had handed out would change. For the
    /// log of a running node there is [`crate::LogFolder`], which reads by copies.
    ///
    /// # Errors
    /// The settings or the files belong to another log, a newer program wrote them, or the folder cannot be read.
    pub fn open_read_only(
        config: &LogConfig,
        from: LogPosition,
        progress: &mut dyn FnMut(SurveyProgress),
    ) -> Result<ReadOnlyLog, OpenError> {
        config.validate()?;
        open_read_only_on(Arc::new(RealDisk::read_only(&config.directory)), config, from, progress)
    }
}

pub(crate) fn open_read_only_on(
    disk: Arc<dyn Disk>,
    config: &LogConfig,
    from: LogPosition,
    progress: &mut dyn FnMut(SurveyProgress),
) -> Result<ReadOnlyLog, OpenError> {
    let LogConfig { cluster_id, shard, segment_size, .. } = *config;
    let identity = LogIdentity { cluster_id, shard, segment_size };
    let files = Files::new(disk, PathBuf::from(&config.directory), identity);
    let known =
        SurveyBounds { durable: config.known(), marks_prove: config.trusts_marks(), from: from.0, headers_only: false };
    let verification = survey(&files, known, progress)?;
    if verification.segments.is_empty() {
        return Err(OpenError::NoLog { directory: files.directory });
    }
    let (start, end) = (verification.start.0, verification.end.0);
    let mut mappings: VecDeque<Option<Arc<dyn Mapping>>> = VecDeque::new();
    for at in (start..end).step_by(segment_size as usize) {
        let mapping = match files.open(at)? {
            Some(segment) => {
                let len = segment.size.min(segment_size);
                Some(segment.file.map(len).map_err(files.io("map", at))?)
            }
            None => None,
        };
        mappings.push_back(mapping);
    }
    let damage = verification.damage.iter().map(|range| (range.from.0, range.to.0)).collect();
    let view = View::damaged(&identity, (start, end), verification.durable.0, mappings, damage);
    Ok(ReadOnlyLog { reader: LogReader::new(Arc::new(view)), verification })
}
