//! A log that is damaged inside: opening it without changing one byte, and telling what was lost.
//!
//! Where something that was durable is gone, nothing may be cut, and nothing may be appended behind it: what follows the
//! damage stood on what was lost. What came before it, and everything that a snapshot says, is as true as ever. So the
//! node can serve that, to be read only, until the folder is restored.
//!
//! The same holds where the log is whole and a part of the snapshots is lost, in both copies, with the log's beginning
//! released: nobody knows any more where some messages lie, and everything else is as true as ever.

use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use vouch_broker::State;
use vouch_broker::state::Gaps;
use vouch_commitlog::{
    CommitLog, DamagedRange, LogConfig, LogPosition, LogReader, OpenError, Progress, ReadOnlyLog, Usage, Verification,
};

use crate::config::OnDamage;
use crate::error::StartError;
use crate::progress::{StartProgress, StartStep};
use crate::replay::replay;
use crate::snapshots::{Loaded, Snapshots};

/// How often it is told how far the look at a long log has come.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What is served of a damaged log.
#[derive(Debug)]
pub struct DamagedLog {
    /// What a look at all of it found.
    pub found: Verification,
    /// The state is that of this position: nothing before it that counts is missing.
    pub served_to: u64,
    /// Before this position the log may be of another history, and nothing of it is read; 0 if all of it is of one.
    pub doubtful_to: u64,
    /// What is missing in the state with parts that are lost.
    pub lost: Option<LostParts>,
}

/// Parts of the newest snapshot that are lost, which no older one does without.
#[derive(Debug)]
pub struct LostParts {
    /// Their files.
    pub files: Vec<PathBuf>,
    /// The stretch of the log of which they told where messages lie.
    pub stretch: Range<u64>,
    /// What they told of it.
    pub gaps: Gaps,
}

impl std::fmt::Display for LostParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        let Gaps { queues, sent, outcomes } = &self.gaps;
        let messages: u64 = queues.iter().map(|gap| gap.offsets.end.since(gap.offsets.start)).sum();
        write!(
            f,
            "no copy of {} is whole: nobody knows any more where {messages} messages lie in the log; with that {outcomes} \
             outcomes of transactions and {sent} messages are lost that were remembered for resends",
            files.join(", ")
        )
    }
}

impl DamagedLog {
    /// Whole bytes behind [`Self::served_to`]: nobody knows what they would mean without what was lost before them.
    pub fn not_served_bytes(&self) -> u64 {
        let clip = |position: LogPosition| position.0.clamp(self.served_to, self.found.end.0.max(self.served_to));
        let lost: u64 = self.found.damage.iter().map(|range| clip(range.to) - clip(range.from)).sum();
        self.found.end.0.saturating_sub(self.served_to).saturating_sub(lost)
    }

    /// What it occupies.
    pub fn usage(&self) -> Usage {
        let Verification { start, end, segments, .. } = &self.found;
        Usage {
            start: *start,
            end: *end,
            segments: segments.len() as u64,
            segment_bytes: segments.iter().map(|segment| segment.size).sum(),
            spare_bytes: 0,
            held_bytes: 0,
        }
    }
}

/// A damaged log, with the state that is certain.
pub(crate) struct ReadOnly {
    pub(crate) state: State,
    /// Position that the snapshot covers from which the state was read; 0 without one.
    pub(crate) snapshot: u64,
    pub(crate) reader: LogReader,
    pub(crate) log: DamagedLog,
}

/// A log did not open. If that is for damage, what becomes of it is the operator's choice.
///
/// # Errors
/// The log is not damaged but cannot be opened; or it is, and the node shall not serve it, or nothing in it is certain.
pub(crate) fn judge(
    on_damage: OnDamage,
    config: &LogConfig,
    snapshots: &Snapshots,
    error: OpenError,
    progress: &StartProgress,
) -> Result<ReadOnly, StartError> {
    match on_damage {
        _ if !may_be_damage(&error) => return Err(error.into()),
        OnDamage::Refuse => return Err(StartError::Damaged(error)),
        OnDamage::ReadOnly => {}
    }
    tracing::error!(%error, "the log does not open; looking at all of it for what is whole");
    let mut config = config.clone();
    config.checkpoint = None;
    let opened = CommitLog::open_read_only(&config, LogPosition(0), &mut tell_progress(progress));
    match opened {
        // A sector that cannot be read stops a start, and is damage like any other.
        Ok(opened) if !opened.verification.is_sound() => read(opened, snapshots),
        // Whatever is wrong with it, it is nothing that reading would help against.
        Ok(_) | Err(_) => Err(error.into()),
    }
}

/// Makes parts again from the log that are lost, where it still has what they told; whether any was.
pub(crate) fn rebuild(config: &LogConfig, snapshots: &Snapshots, progress: &StartProgress) -> bool {
    let mut config = config.clone();
    config.checkpoint = None;
    let opened = CommitLog::open_read_only(&config, LogPosition(0), &mut tell_progress(progress));
    let Ok(opened) = opened.inspect_err(|error| tracing::error!(%error, "the log cannot be read")) else {
        return false;
    };
    let made = snapshots.rebuild(&opened.reader);
    made.inspect_err(|error| tracing::error!(%error, "a part cannot be made again")).is_ok_and(|made| made > 0)
}

/// No snapshot can be read, and the log does not begin at its beginning. What is whole of the newest one that is whole itself
/// can be served, with what follows in the log.
///
/// # Errors
/// The node shall not serve it, or no snapshot is whole.
pub(crate) fn without_parts(
    on_damage: OnDamage,
    config: &LogConfig,
    snapshots: &Snapshots,
    error: StartError,
    progress: &StartProgress,
) -> Result<ReadOnly, StartError> {
    if on_damage == OnDamage::Refuse {
        return Err(error);
    }
    tracing::error!(%error, "no snapshot can be read; looking for what is whole");
    let mut config = config.clone();
    config.checkpoint = None;
    let opened = CommitLog::open_read_only(&config, LogPosition(0), &mut tell_progress(progress))?;
    match read(opened, snapshots) {
        // That says more.
        Err(StartError::NothingCertain(_)) => Err(error),
        read => read,
    }
}

/// Whether a look at the whole log may find damage, and what is whole beside it. A disk that cannot read a sector says so
/// as an error of the system.
fn may_be_damage(error: &OpenError) -> bool {
    match error {
        OpenError::Damaged { .. }
        | OpenError::SegmentMissing { .. }
        | OpenError::SegmentLength { .. }
        | OpenError::Misnamed { .. }
        | OpenError::Checkpoint { .. } => true,
        // A mapped page that the disk cannot read is told as a bad address.
        OpenError::Io { source, .. } => {
            let errno = source.raw_os_error().map(Errno::from_raw_os_error);
            matches!(errno, Some(Errno::IO | Errno::FAULT))
        }
        _ => false,
    }
}

fn tell_progress(progress: &StartProgress) -> impl FnMut(Progress) {
    let mut told = Instant::now();
    move |Progress { done_bytes, total_bytes }| {
        progress.enter(StartStep::Looking { done_bytes, total_bytes });
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            tracing::info!(done_bytes, total_bytes, "looking at the log");
        }
    }
}

/// The state of the newest snapshot that belongs to this log, and of everything from there to the first damage.
fn read(mut opened: ReadOnlyLog, snapshots: &Snapshots) -> Result<ReadOnly, StartError> {
    let uncertain = |error: std::io::Error| StartError::NothingCertain(error.to_string());
    let mut loaded = snapshots.newest_of(&opened.reader).map_err(uncertain)?;
    let mut lost = None;
    if loaded.is_none() && opened.reader.start().0 > 0 {
        loaded = snapshots.newest_with_gaps_of(&opened.reader).map_err(uncertain)?;
        lost = loaded.as_ref().map(|loaded| lost_parts(snapshots, loaded));
    }
    let (mut state, snapshot) = match loaded {
        Some(Loaded { checkpoint, state }) => (state, checkpoint.end.0),
        None => (State::default(), 0),
    };
    // Whole entries that do not follow one another: those on one side are of another history. What chains to the snapshot
    // without any damage between is of this one.
    let below = || opened.verification.damage.iter().filter(|range| range.from.0 < snapshot);
    let doubtful_to = below().any(is_break).then(|| below().map(|range| range.to).max()).flatten();
    if let Some(doubtful_to) = doubtful_to {
        opened.distrust_before(doubtful_to);
    }
    let ReadOnlyLog { reader, verification: found } = opened;
    // The entry that the snapshot ends with is whole, so no damage reaches across its end.
    let damaged = found.damage.iter().map(|range| range.from.0).filter(|from| *from >= snapshot).min();
    // Without what was remembered of messages a resend behind the snapshot would be taken for another message.
    let forgetful = lost.as_ref().is_some_and(|lost| lost.gaps.sent > 0);
    let limit = if forgetful { snapshot } else { damaged.unwrap_or(found.end.0) };
    let mut entries = reader.entries_from(LogPosition(snapshot));
    while let Some(Ok(entry)) = entries.next()
        && entry.position.0 < limit
    {
        replay(&mut state, &entry).map_err(|error| StartError::NothingCertain(error.to_string()))?;
    }
    let served_to = entries.position().0.min(limit);
    if state.cluster().init.is_none() {
        let why = "the beginning of the log is lost, and no snapshot belongs to it".to_owned();
        return Err(StartError::NothingCertain(why));
    }
    let log = DamagedLog { found, served_to, doubtful_to: doubtful_to.map_or(0, |position| position.0), lost };
    Ok(ReadOnly { state, snapshot, reader, log })
}

/// What a state lacks that was read without some of its parts.
fn lost_parts(snapshots: &Snapshots, loaded: &Loaded) -> LostParts {
    let parts = loaded.state.parts();
    let lost: Vec<u64> = snapshots.lost_parts(loaded).into_iter().collect();
    let (first, last) = (lost.first().copied().unwrap_or(0), lost.last().copied().unwrap_or(0));
    let before = parts.into_iter().rfind(|part| *part < first).unwrap_or(0);
    let files = lost.iter().map(|part| snapshots.part_file(*part)).collect();
    LostParts { files, stretch: before..last, gaps: loaded.state.gaps() }
}

/// Whether whole entries meet there that do not follow one another.
pub fn is_break(range: &DamagedRange) -> bool {
    range.from == range.to
}
