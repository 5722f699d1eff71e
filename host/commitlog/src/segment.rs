//! One segment: its name, its file and its mapping.

use std::sync::Arc;

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
}

impl WriteSegment {
    /// Offset in the file of a position in this segment.
    pub(crate) fn offset(&self, position: u64) -> u64 {
        position - self.start
    }
}
