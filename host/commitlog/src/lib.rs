//! The commit log: segments on disk, append, group commit, recovery and zero-copy reads.
//!
//! It stores entries and knows nothing of what is in them. One thread appends ([`Appender`]), any number read
//! ([`LogReader`]), the log's own threads make entries durable in groups and report it ([`Durable`]). The format is
//! described in `docs/log-format.md`.

mod appender;
#[cfg(any(test, feature = "simulated-disk"))]
pub mod bugs;
mod checkpoint;
mod config;
mod cutting;
mod disk;
mod durations;
mod error;
mod factory;
mod folder;
mod format;
mod group_commit;
mod horizon;
mod housekeeping;
mod log;
mod note;
mod position;
mod preallocate;
mod read_only;
mod reader;
mod recovery;
mod scrub;
mod segment;
mod settled;
mod shortage;
#[cfg(any(test, feature = "simulated-disk"))]
pub mod simulated;
mod span;
mod spares;
mod survey;
#[cfg(test)]
mod tests;
mod threads;
mod uncached;

pub use appender::{Appended, Appender, EntryHeader, MARK_AFTER};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use config::{
    ConfigError, DEFAULT_SEGMENT_SIZE, DEFAULT_SYNCS_IN_FLIGHT, DEFAULT_ZERO_AHEAD, LogConfig, MAX_SEGMENT_SIZE,
    MAX_SYNCS_IN_FLIGHT, MAX_ZERO_AHEAD, MIN_SEGMENT_SIZE, MIN_ZERO_AHEAD, SEGMENT_SIZE_STEP, Settles, UnfinishedCut,
};
pub use disk::{map_file, map_spare_file};
pub use durations::{DURATION_BOUNDS, DurationCounts, Durations};
pub use error::{
    AppendError, AppendSpanError, CutError, DumpError, OpenError, Operation, PoisonReport, ReadError, ReleaseError,
    ScrubError,
};
pub use folder::{FolderEntries, LogFolder, segments_span};
pub use format::{ENTRY_HEADER_LEN, EntryKind, FORMAT_VERSION, MAX_PAYLOAD, SEGMENT_HEADER_LEN};
pub use group_commit::Durable;
pub use housekeeping::{Housekeeping, LogUsage, Released};
pub use log::CommitLog;
pub use note::{MAX_NOTE_LEN, NoteError, NoteFile};
pub use position::LogPosition;
pub use read_only::ReadOnlyLog;
pub use reader::{Entries, Entry, EntryHeaderAt, EntryHeaders, LogReader};
pub use recovery::Recovery;
pub use scrub::{ScrubStep, Scrubber};
pub use shortage::Shortage;
pub use span::{EntrySpan, SpanError};
pub use survey::report::{Cut, DamagedRange, LogIdentity, SegmentInfo, SurveyProgress, Verification};
pub use uncached::UncachedFile;
