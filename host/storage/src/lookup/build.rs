//! Making the lookup file of a part from the part and the log.

use std::fs;
use std::io;
use std::path::Path;

use vouch_broker::RecordPosition;
use vouch_broker::state::{PartView, SnapshotError};
use vouch_commitlog::{Checkpoint, LogPosition, LogReader, ReadError};

use super::format::Term;
use super::writer::{LookupWriter, RUN_MAX};
use crate::position::record_position;
use crate::stored;

/// Messages that are read in the order of the log before the next ones: 24 MiB of memory.
const CHUNK: usize = 1 << 20;
/// Messages or entries between two looks at whether to stop.
const LOOK_EVERY: usize = 256;

/// Why a file was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    /// Writing it; it is tried again.
    #[error("it cannot be written: {0}")]
    Io(#[from] io::Error),
    /// The part; nothing can be made of it.
    #[error(transparent)]
    Part(#[from] SnapshotError),
    /// The log around the part.
    #[error("the log cannot be read: {0}")]
    Log(#[from] ReadError),
    /// The part is of another log.
    #[error("no entry of the log ends at position {0}, where the part ends")]
    OtherLog(u64),
    /// More than the format can say.
    #[error("it has {0} messages of one queue, which are too many")]
    TooMany(u64),
    /// The node stops.
    #[error("the node is stopping")]
    Stopping,
}

/// What a file is made from.
pub(super) struct PartSource<'a> {
    /// The part's id.
    pub(super) id: u64,
    pub(super) part: &'a PartView,
    pub(super) log: &'a LogReader,
    /// An entry begins or ends here, or a segment begins, at or before the last entry that the part covers.
    pub(super) near: LogPosition,
    pub(super) stopping: &'a dyn Fn() -> bool,
}

/// Makes the file. It appears under its name when it is whole. Returns how many messages could not be read.
pub(super) fn build(path: &Path, unfinished: &Path, source: &PartSource<'_>) -> Result<u64, BuildError> {
    let built = write(unfinished, source).and_then(|unreadable| {
        fs::rename(unfinished, path)?;
        Ok(unreadable)
    });
    if built.is_err() {
        // The disk may be full: what is half written must not keep it so.
        let _ = fs::remove_file(unfinished);
    }
    built
}

/// Writes all of the file under its unfinished name. It is not synced: what a power cut takes of it is found by the
/// checksums, and made again.
fn write(path: &Path, source: &PartSource<'_>) -> Result<u64, BuildError> {
    let part = source.part;
    let checkpoint = last_entry(source)?;
    if let Some(row) = part.queue_rows().find(|row| row.count > u64::from(u32::MAX)) {
        return Err(BuildError::TooMany(row.count));
    }
    let rows = part.queue_rows().map(|row| (row.topic, row.queue, row.first, row.count));
    let mut writer = LookupWriter::create(path, part.checksum(), checkpoint, rows, RUN_MAX)?;
    let mut chunk = Vec::new();
    let mut unreadable = 0;
    for (row, queue) in (0..).zip(part.queue_rows()) {
        for (index, entry) in (0..).zip(part.entries(&queue)?.iter()) {
            chunk.push((entry.position, row, index));
            if chunk.len() == CHUNK {
                unreadable += file(&mut chunk, &mut writer, source)?;
            }
        }
    }
    unreadable += file(&mut chunk, &mut writer, source)?;
    writer.finish()?;
    Ok(unreadable)
}

/// The last entry that the part covers. By its checksum the file belongs to one history of the log.
fn last_entry(source: &PartSource<'_>) -> Result<Checkpoint, BuildError> {
    let mut last = None;
    for (n, entry) in source.log.entries_from(source.near).enumerate() {
        let entry = entry?;
        if n % LOOK_EVERY == 0 && (source.stopping)() {
            return Err(BuildError::Stopping);
        }
        if entry.end.0 >= source.id {
            last = Some(entry).filter(|entry| entry.end.0 == source.id);
            break;
        }
    }
    let last = last.ok_or(BuildError::OtherLog(source.id))?;
    Ok(source.log.checkpoint_at(last.position)?)
}

/// Files messages in the order in which the log has them, so that it is read once and forwards.
fn file(
    chunk: &mut Vec<(RecordPosition, u32, u32)>,
    writer: &mut LookupWriter,
    source: &PartSource<'_>,
) -> Result<u64, BuildError> {
    chunk.sort_unstable();
    let mut unreadable = 0;
    for (n, (position, row, index)) in chunk.drain(..).enumerate() {
        if n % LOOK_EVERY == 0 && (source.stopping)() {
            return Err(BuildError::Stopping);
        }
        match stored::message(source.log, position) {
            Ok((_, stored)) => {
                let message = &stored.message;
                let keys = message.keys.iter().map(|key| Term::Key(key));
                let terms = std::iter::once(Term::Id(&message.message_id)).chain(keys);
                writer.message((row, index), position, stored.stored_at.0, terms)?;
            }
            // What the log has released is past its retention, and nobody is shown it.
            Err(_) if position < record_position(source.log.start()) => {}
            Err(refusal) => {
                tracing::warn!(%refusal, part = source.id, "a message is left out of the lookup index");
                unreadable += 1;
            }
        }
    }
    Ok(unreadable)
}
