//! What can go wrong, by operation.

mod replicas;
mod told_again;

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use self::replicas::{AppendSpanError, CutError};
pub(crate) use self::told_again::ToldAgain;
use crate::{Checkpoint, ConfigError, LogPosition, Shortage};

/// Which operation on the disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writing an entry.
    Write,
    /// Making entries durable.
    Sync,
    /// Creating or zero-filling a segment ahead of use.
    Prepare,
    /// Taking a segment away that was cut off.
    Remove,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Write => "writing",
            Self::Sync => "syncing",
            Self::Prepare => "preparing",
            Self::Remove => "removing",
        })
    }
}

/// The first I/O failure of a log, which ended it (FL-4).
///
/// What was acknowledged before stays durable. What was appended and not acknowledged is *unknown*: it may or may not
/// be there after a restart. Nothing is retried: stop serving, look at the disk, and open the log again.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{operation} {} at offset {offset} failed: {cause}; the log takes no more entries: check the disk, then restart \
     to recover from what is durable",
    file.display()
)]
pub struct PoisonReport {
    /// The segment file.
    pub file: PathBuf,
    /// Where in the file the failed operation began, in bytes.
    pub offset: u64,
    /// What was being done.
    pub operation: Operation,
    /// What the operating system said.
    pub cause: Arc<io::Error>,
}

/// Why an entry was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Nothing was written. Split the batch.
    #[error("the payload has {len} bytes and an entry of this log holds at most {max}; split the batch")]
    TooLarge {
        /// Bytes of the payload.
        len: u64,
        /// Most bytes an entry can carry here.
        max: u64,
    },
    /// Nothing was written. A mark carries no payload: append records instead.
    #[error("a mark carries no payload, but {len} bytes were given; append them as records")]
    MarkWithPayload {
        /// Bytes of the payload.
        len: u64,
    },
    /// Nothing was written and the log goes on: refuse the request and try again when the shortage has passed.
    #[error("no {shortage} left to prepare {} for more entries; {} and try again", file.display(), shortage.remedy())]
    Short {
        /// Of what.
        shortage: Shortage,
        /// The segment file that could not be prepared.
        file: PathBuf,
    },
    /// The log is poisoned: see [`PoisonReport`] for what to do. The entry's fate is unknown if this is the append
    /// that failed, otherwise it was not written.
    #[error(transparent)]
    Poisoned(#[from] PoisonReport),
}

/// Why old segments were not released.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The appender is gone and with it the right to change the folder. Open the log again.
    #[error("the log is closed; open it again to release segments")]
    Closed,
    /// A file could not be removed for certain. The segment is no longer read from; a restart finds it or not. Nothing
    /// more is released until the log is opened again: look at the disk.
    #[error("cannot remove {}: {source}; check the disk, then restart", file.display())]
    Io {
        /// The segment file.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file could not be removed for the moment, and nothing changed but that it is no longer read from. Try again: the
    /// next release begins with it.
    #[error("no {shortage} left to remove {}; {} and try again", file.display(), shortage.remedy())]
    Short {
        /// Of what.
        shortage: Shortage,
        /// The segment file.
        file: PathBuf,
    },
    /// An earlier release failed, and going on might leave a gap in the log. Look at the disk and restart.
    #[error("an earlier removal of a segment failed; check the disk, then restart")]
    FailedBefore,
    /// The log is poisoned: see [`PoisonReport`] for what to do.
    #[error(transparent)]
    Poisoned(#[from] PoisonReport),
}

/// A file that the scrubber could not read at all. Look at the disk; the next step goes on with the next segment. If
/// [`Shortage::of`] says that it was for a shortage, nothing is known of the disk, and the next step tries again.
#[derive(Debug, thiserror::Error)]
#[error("cannot verify {}: {source}; check the disk", file.display())]
pub struct ScrubError {
    /// The segment file.
    pub file: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

/// Why [`crate::FolderEntries`] cannot give an entry.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// No entry is whole in this range. The next item is what follows it.
    #[error("{0}")]
    Damaged(crate::DamagedRange),
    /// The files cannot be read any further, or are of a newer version. This is the last item.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Why a range cannot be read. Ranges are checked against what was appended, so none of these is an I/O error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Retention removed the range, or it never existed.
    #[error("position {position} lies before the start of the log at {start}")]
    BeforeStart {
        /// The position asked for.
        position: LogPosition,
        /// First position that is there.
        start: LogPosition,
    },
    /// The range touches one that was found damaged when the log was opened for reading only; see
    /// [`crate::ReadOnlyLog::verification`]. What follows can be read from `resume` on.
    #[error("position {position} lies in a damaged range of the log, which ends at {resume}")]
    Damaged {
        /// The position asked for.
        position: LogPosition,
        /// First position after the damage.
        resume: LogPosition,
    },
    /// Not appended (yet): read again when the log has grown.
    #[error("{len} bytes at position {position} reach beyond the end of the log at {end}")]
    BeyondEnd {
        /// The position asked for.
        position: LogPosition,
        /// The length asked for, in bytes.
        len: u64,
        /// End of the log.
        end: LogPosition,
    },
    /// No entry lies there: entries never cross segments and never touch their headers. The position is wrong.
    #[error("{len} bytes at position {position} are not inside the entries of one segment")]
    OutsideEntries {
        /// The position asked for.
        position: LogPosition,
        /// The length asked for, in bytes.
        len: u64,
    },
    /// The two positions are not the ends of two entries that follow one another: one of them is wrong.
    #[error("what lies between positions {from} and {to} is not one entry with what belongs to it")]
    NotOneEntry {
        /// Where the entry before it should end.
        from: LogPosition,
        /// Where it should end.
        to: LogPosition,
    },
    /// No sound entry starts there: the position is not an entry's, or the bytes were damaged since they were
    /// written. In the second case stop using the file and recover.
    #[error("no sound entry at offset {offset} of segment {segment} (position {position}): {reason}")]
    NotAnEntry {
        /// The position asked for.
        position: LogPosition,
        /// The segment file's name.
        segment: String,
        /// Offset in that file, in bytes.
        offset: u64,
        /// What does not hold.
        reason: String,
    },
}

/// Why a log cannot be opened. Nothing was cut where this is returned for damage or foreign files; whatever entries
/// were handed over before must be dropped.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Correct the setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The operating system refused something; look at the cause.
    #[error("cannot {action} {}: {source}", file.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The folder holds the log of another cluster. Check the data folder in the configuration.
    #[error("{} belongs to cluster {found}, not to {expected}; check the data folder", file.display())]
    WrongCluster {
        /// The segment file.
        file: PathBuf,
        /// Cluster in the file, in hexadecimal digits.
        found: String,
        /// Cluster of the configuration, in hexadecimal digits.
        expected: String,
    },
    /// The folder holds the log of another shard. Check the data folder in the configuration.
    #[error("{} belongs to shard {found}, not to shard {expected}; check the data folder", file.display())]
    WrongShard {
        /// The segment file.
        file: PathBuf,
        /// Shard in the file.
        found: u16,
        /// Shard of the configuration.
        expected: u16,
    },
    /// The segment size of a log is fixed when it is created. Configure the one it has.
    #[error("{} was written with segments of {found} bytes, not {expected}; configure {found}", file.display())]
    WrongSegmentSize {
        /// The segment file.
        file: PathBuf,
        /// Size in the file's header, in bytes.
        found: u64,
        /// Size of the configuration, in bytes.
        expected: u64,
    },
    /// The file holds another stretch of the log than its name says: somebody renamed or copied it. Restore the name.
    #[error("{} holds the segment that starts at {found}; restore its name", file.display())]
    Misnamed {
        /// The segment file.
        file: PathBuf,
        /// Start position in the header.
        found: LogPosition,
    },
    /// There is no segment with a sound header, so nothing tells which log this is. Check the folder.
    #[error("{} holds no segment of a log with a sound header; check the folder", directory.display())]
    NoLog {
        /// The folder.
        directory: PathBuf,
    },
    /// Written by a newer program. Open it with a version that knows the format.
    #[error("{} has format version {version} at offset {offset}, which this version cannot read; use the one that wrote it or a later one", file.display())]
    UnknownFormat {
        /// The segment file.
        file: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// The version found.
        version: u8,
    },
    /// Written by a newer program. Open it with a version that knows the entry.
    #[error("{} has an entry of unknown kind {kind} at offset {offset}; use the version that wrote it or a later one", file.display())]
    UnknownKind {
        /// The segment file.
        file: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// The kind found.
        kind: u8,
    },
    /// A file in the middle, or the one after a full segment, is gone. Restore it from a backup or a replica.
    #[error("segment {} is missing; restore it from a backup or a replica", file.display())]
    SegmentMissing {
        /// The file that should be there.
        file: PathBuf,
    },
    /// The file has not the size of a segment: somebody cut or extended it. Restore it from a backup or a replica.
    #[error("{} has {found} bytes instead of {expected}; restore it from a backup or a replica", file.display())]
    SegmentLength {
        /// The segment file.
        file: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The segment size in bytes.
        expected: u64,
    },
    /// Something that was durable is not as it was written (interior damage, ruling 17). Nothing was cut or changed.
    /// Restore the file from a backup or a replica; the disk needs a check.
    #[error(
        "{} is damaged at offset {offset} (position {position}): {reason}, though everything below position \
         {durable} was durable; nothing was changed: restore the file from a backup or a replica",
        file.display()
    )]
    Damaged {
        /// The segment file.
        file: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// Where in the log.
        position: LogPosition,
        /// What does not hold.
        reason: String,
        /// Highest position known durable.
        durable: LogPosition,
    },
    /// The entry that the snapshot ends with is not in the log as it was: the snapshot belongs to another log, or the
    /// log was damaged. Nothing was changed. Use an older snapshot, or [`crate::LogConfig::whole_log`], which reads
    /// everything and still knows that this entry was durable; if that refuses too, restore the log.
    #[error(
        "the snapshot ends with {checkpoint}, which is not at offset {offset} of {}: {reason}; nothing was changed: \
         use another snapshot, or replay the whole log",
        file.display()
    )]
    Checkpoint {
        /// The entry that should be there.
        checkpoint: Checkpoint,
        /// The segment file.
        file: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is there instead.
        reason: String,
    },
    /// The cut that was noted cannot be one of this log. Nothing was changed. The note or the snapshot belongs to another
    /// state of the folder: restore it from a backup or a replica.
    #[error(
        "a cut of the log from position {end} to {to} was noted, which cannot be finished: {reason}; nothing was \
         changed: restore the folder from a backup or a replica"
    )]
    UnfinishedCut {
        /// Where the log was to end.
        to: LogPosition,
        /// Where it ended before.
        end: LogPosition,
        /// What does not hold.
        reason: &'static str,
    },
    /// The caller refused an entry; the cause says why.
    #[error("the entry at position {position} was refused: {source}")]
    Entry {
        /// Position of the entry.
        position: LogPosition,
        /// The caller's error.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// A cluster id for messages.
pub(crate) fn hexadecimal(id: &[u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
