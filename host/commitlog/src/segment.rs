//! One segment: its name, its file and its mapping.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{File, Mapping};

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
    pub(crate) written: WrittenBlocks,
}

/// Positions of a segment whose blocks are known to be written ones, durably: a sync of what is written over them changes
/// no metadata, and is one call ([`File::sync_new_blocks`]).
///
/// One stretch: where the appender has overtaken whoever fills ahead, what he fills from there on. After a start nothing is
/// known of a segment that was made of a new file, since a file tells of blocks that were read as of written ones.
pub(crate) struct WrittenBlocks(Mutex<Range<u64>>);

impl WrittenBlocks {
    pub(crate) fn new(positions: Range<u64>) -> Self {
        Self(Mutex::new(positions))
    }

    fn lock(&self) -> MutexGuard<'_, Range<u64>> {
        // A panic elsewhere leaves the range whole: it is replaced by a single assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are too: zeros were written to them, and synced as new ones.
    pub(crate) fn add(&self, filled: &Range<u64>) {
        let mut known = self.lock();
        *known = if known.end == filled.start { known.start..filled.end } else { filled.clone() };
    }

    /// Whether all of these are.
    pub(crate) fn hold(&self, positions: &Range<u64>) -> bool {
        let known = self.lock();
        known.start <= positions.start && positions.end <= known.end
    }
}

impl WriteSegment {
    /// Makes what was written to these positions durable, as far as they lie in this segment. The description is one that
    /// nobody else syncs.
    pub(crate) fn sync(&self, through: usize, positions: &Range<u64>) -> io::Result<()> {
        let here = positions.start.max(self.start)..positions.end.min(self.end);
        let file = &self.sync_files[through];
        if self.written.hold(&here) { file.sync() } else { file.sync_new_blocks() }
    }

    /// Offset in the file of a position in this segment.
    pub(crate) fn offset(&self, position: u64) -> u64 {
        position - self.start
    }
}
