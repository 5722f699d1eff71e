//! What a log is opened with.

use std::path::PathBuf;

use crate::{Checkpoint, LogPosition};

/// Smallest segment, in bytes. (Fuzzers write whole logs many times a second, in smaller ones.)
pub const MIN_SEGMENT_SIZE: u64 = if cfg!(fuzzing) { 16 << 10 } else { 4 << 20 };
/// Largest segment, in bytes.
pub const MAX_SEGMENT_SIZE: u64 = 4 << 30;
/// A segment's size is a multiple of this, in bytes.
pub const SEGMENT_SIZE_STEP: u64 = if cfg!(fuzzing) { 16 << 10 } else { 1 << 20 };
/// Least space kept zero-filled ahead of the append point, in bytes.
pub const MIN_ZERO_AHEAD: u64 = if cfg!(fuzzing) { 8 << 10 } else { 1 << 20 };
/// Most space kept zero-filled ahead of the append point, in bytes.
pub const MAX_ZERO_AHEAD: u64 = 1 << 30;
/// Most syncs in flight at a time.
pub const MAX_SYNCS_IN_FLIGHT: usize = 4;
/// Bytes in a segment of a new log where nobody says otherwise.
pub const DEFAULT_SEGMENT_SIZE: u64 = 1 << 30;
/// Bytes kept zero-filled ahead of the append point where nobody says otherwise.
pub const DEFAULT_ZERO_AHEAD: u64 = 64 << 20;
/// Syncs in flight where nobody says otherwise.
pub const DEFAULT_SYNCS_IN_FLIGHT: usize = 2;

/// How a log is opened. The identity (`cluster_id`, `shard`) and `segment_size` are written into every segment and
/// must be the same at every later open.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Folder of the segment files; created if missing. The caller keeps two processes from opening it at once.
    pub directory: PathBuf,
    /// Size of a segment file in bytes: [`MIN_SEGMENT_SIZE`]`..=`[`MAX_SEGMENT_SIZE`], a multiple of
    /// [`SEGMENT_SIZE_STEP`].
    pub segment_size: u64,
    /// Bytes zero-filled ahead of the append point by a thread of their own, again when an eighth of them is used:
    /// [`MIN_ZERO_AHEAD`]`..=`[`MAX_ZERO_AHEAD`]. More than one segment ahead is not kept. On a full disk they are what
    /// can still be appended ([`crate::Appender::short_of_space`]).
    pub zero_ahead: u64,
    /// The cluster this log belongs to; a log of another cluster is refused.
    pub cluster_id: [u8; 16],
    /// The shard this log belongs to; a log of another shard is refused.
    pub shard: u16,
    /// Overlapping syncs: `1..=`[`MAX_SYNCS_IN_FLIGHT`]. More halves the wait of a group at the price of smaller groups.
    pub syncs_in_flight: usize,
    /// The last entry that the caller's snapshot covers. Only this entry and what follows it is read and verified, and
    /// only what follows is handed over; everything below its end counts as durable. `None` reads everything.
    pub checkpoint: Option<Checkpoint>,
    /// A position this node knows by itself to be durable here (a replica's own note, ruling 17): damage below it is
    /// never taken for a torn tail. 0 where nothing is known.
    pub known_durable: LogPosition,
    /// Whether the durable marks in entries prove anything of this disk. They do in the log of a node that wrote all of
    /// them itself. A replica has entries from others, whose marks speak of the disks of these: there `known_durable` and
    /// the checkpoint alone tell a torn tail from damage, and a start writes again all that lies behind both.
    pub marks_prove: bool,
    /// From where on the log stays as it is.
    pub settles: Settles,
    /// A cut ([`crate::Appender::cut`]) that was noted, and whose note was not taken back: it is finished before anything
    /// else, as often as it takes.
    pub unfinished_cut: Option<UnfinishedCut>,
}

/// Who says which part of the log stays as it is: only that is handed out without a copy, and no cut reaches below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settles {
    /// What is durable stays: so it is on a node that has the log for itself.
    WithDurable,
    /// What the caller says by [`crate::Appender::settle`]: so it is in a group, whose members may have to cut off what
    /// is durable here and was not committed.
    ByCaller {
        /// What is known to stay at the start, such as what was committed before.
        from: LogPosition,
    },
}

/// A cut as its caller notes it, durably and before [`crate::Appender::cut`] begins.
///
/// The note is to be taken back, durably, when the cut has returned or a start with it has, and before anything is
/// appended: a start that finds it zeroes everything from `to` up to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnfinishedCut {
    /// Where the log is to end: the end of the entry that was given to the cut.
    pub to: LogPosition,
    /// Where it ended before ([`crate::Appender::appended`]).
    pub end: LogPosition,
}

impl LogConfig {
    /// The defaults: [`DEFAULT_SEGMENT_SIZE`], [`DEFAULT_ZERO_AHEAD`], [`DEFAULT_SYNCS_IN_FLIGHT`].
    pub fn new(directory: impl Into<PathBuf>, cluster_id: [u8; 16], shard: u16) -> Self {
        Self {
            directory: directory.into(),
            segment_size: DEFAULT_SEGMENT_SIZE,
            zero_ahead: DEFAULT_ZERO_AHEAD,
            cluster_id,
            shard,
            syncs_in_flight: DEFAULT_SYNCS_IN_FLIGHT,
            checkpoint: None,
            known_durable: LogPosition(0),
            marks_prove: true,
            settles: Settles::WithDurable,
            unfinished_cut: None,
        }
    }

    /// Whether a mark in an entry says anything of this disk.
    pub(crate) fn trusts_marks(&self) -> bool {
        #[cfg(any(test, feature = "simulated-disk"))]
        if crate::bugs::MARKS_OF_OTHERS_TRUSTED.injected() {
            return true;
        }
        self.marks_prove
    }

    /// What the caller knows to be durable, by itself and by its snapshot. What was to be cut off counts no more.
    pub(crate) fn known(&self) -> u64 {
        let kept = self.unfinished_cut.map_or(LogPosition::BEYOND, |cut| cut.to);
        self.known_durable.min(kept).max(self.checkpoint.map_or(LogPosition::START, |checkpoint| checkpoint.end)).0
    }

    /// The same without its checkpoint, to read the whole log after [`crate::OpenError::Checkpoint`]. What the
    /// checkpoint proves is kept: its entry was durable, so if the log ends before it, that is damage and no torn tail.
    #[must_use]
    pub fn whole_log(&self) -> Self {
        let durable = self.checkpoint.map_or(LogPosition(0), |checkpoint| checkpoint.end);
        Self { checkpoint: None, known_durable: self.known_durable.max(durable), ..self.clone() }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// The first setting that is out of its bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let in_step = self.segment_size.is_multiple_of(SEGMENT_SIZE_STEP);
        if !in_step || !(MIN_SEGMENT_SIZE..=MAX_SEGMENT_SIZE).contains(&self.segment_size) {
            return Err(ConfigError::SegmentSize(self.segment_size));
        }
        if !(MIN_ZERO_AHEAD..=MAX_ZERO_AHEAD).contains(&self.zero_ahead) {
            return Err(ConfigError::ZeroAhead(self.zero_ahead));
        }
        if !(1..=MAX_SYNCS_IN_FLIGHT).contains(&self.syncs_in_flight) {
            return Err(ConfigError::SyncsInFlight(self.syncs_in_flight));
        }
        Ok(())
    }
}

/// A setting out of its bounds; correct it and open again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The segment size is out of bounds or not a multiple of the step.
    #[error("segment size {0} bytes is not a multiple of 1 MiB between 4 MiB and 4 GiB; set one that is")]
    SegmentSize(u64),
    /// The space kept zero-filled is out of bounds.
    #[error("{0} bytes kept zero-filled ahead are not between 1 MiB and 1 GiB; set a value that is")]
    ZeroAhead(u64),
    /// The number of overlapping syncs is out of bounds.
    #[error("{0} syncs in flight are not between 1 and 4; set a value that is")]
    SyncsInFlight(usize),
}
