//! Lookup files for tests of who reads them.

use std::path::Path;

use vouch_broker::{QueueOffset, TopicId};
use vouch_commitlog::{Checkpoint, LogPosition};

use super::file::LookupFile;
use super::writer::LookupWriter;

pub(super) fn checkpoint_at(part: u64) -> Checkpoint {
    let (position, end) = (LogPosition(part - 128), LogPosition(part));
    Checkpoint { position, end, term: 1, index: 77, checksum: 0xfeed }
}

/// A file in this folder that covers these rows (topic, queue, first offset, messages) and in which nothing is found.
///
/// # Panics
/// It cannot be written.
pub fn covering(folder: &Path, part: u64, rows: &[(u32, u32, u64, u64)]) -> LookupFile {
    let rows = rows.iter().map(|(topic, queue, first, count)| (TopicId(*topic), *queue, QueueOffset(*first), *count));
    let path = folder.join(part.to_string());
    let written = LookupWriter::create(&path, 0, checkpoint_at(part), rows, 256).and_then(LookupWriter::finish);
    written.expect("a lookup file is written");
    LookupFile::open(&path, part).expect("what was written is whole")
}
