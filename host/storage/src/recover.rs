//! From the newest snapshot that fits and the log behind it to a state, and a log that goes on.

use std::path::Path;

use vouch_broker::State;
use vouch_commitlog::{
    Appender, Checkpoint, CommitLog, Durable, Entry, LogConfig, LogPosition, LogReader, OpenError, Recovery,
    segments_span,
};

use crate::error::{StartError, failed};
use crate::progress::{StartProgress, StartStep};
use crate::replay::replay;
use crate::snapshots::{LoadedState, Snapshots};
use crate::undecided::UndecidedTail;

/// A log that goes on, with the state that it makes. While this lives, nobody else may have the folder.
pub(crate) struct RecoveredShard {
    pub(crate) state: State,
    pub(crate) snapshot: LogPosition,
    /// The last entry that is in the state; `None`: none is.
    pub(crate) base: Option<Checkpoint>,
    /// The entries behind that: it is not known whether they are committed.
    pub(crate) tail: Vec<Entry>,
    pub(crate) appender: Appender,
    pub(crate) reader: LogReader,
    pub(crate) recovery: Recovery,
}

/// Reads the newest snapshot that fits the log, and the log from there.
///
/// `committed`: only entries up to this index are applied, those that a snapshot covers, and those that must be committed for what
/// follows them ([`UndecidedTail`]).
///
/// An older snapshot and more of the log give the same state, so one that does not fit is passed over and nothing is
/// lost by it but time. Whether the log itself is whole is for [`CommitLog::open`] to say; an error of it ends the
/// attempt.
///
/// # Errors
/// [`StartError::NoSnapshot`] where the log does not begin at 0 and no snapshot can be read; [`StartError::GivenUp`];
/// what the log says.
pub(crate) fn recover(
    snapshots: &Snapshots,
    snapshot_dir: &Path,
    mut log: LogConfig,
    committed: u64,
    on_durable: &(impl Fn(Durable) + Clone + Send + Sync + 'static),
    progress: &StartProgress,
) -> Result<RecoveredShard, StartError> {
    let mut below = LogPosition::BEYOND;
    loop {
        progress.enter(StartStep::ReadingSnapshot);
        let loaded = snapshots.newest_below(below).map_err(failed("read", snapshot_dir))?;
        let (mut state, checkpoint) = match loaded {
            Some(LoadedState { checkpoint, state }) => (state, Some(checkpoint)),
            None => (State::default(), None),
        };
        log.checkpoint = checkpoint;
        let on_durable = Box::new(on_durable.clone());
        // That it cannot be listed is told by the log itself.
        let span = segments_span(&log.directory).unwrap_or_default();
        let from = checkpoint.map_or(span.start, |checkpoint| checkpoint.end);
        progress.replays(span.end.saturating_since(from));
        let (mut tail, mut last) = (UndecidedTail::default(), checkpoint.map(|checkpoint| checkpoint.position));
        let opened = CommitLog::open(log.clone(), on_durable, &mut |entry| -> Result<(), Interrupted> {
            progress.go_on()?;
            progress.replayed(entry.end.saturating_since(from));
            let decided = if entry.index > committed { tail.take(entry) } else { vec![entry] };
            for entry in decided {
                last = Some(entry.position);
                replay(&mut state, &entry)?;
            }
            Ok(())
        });
        match (opened, checkpoint) {
            (Err(OpenError::Entry { .. }), _) if progress.go_on().is_err() => return Err(StartError::GivenUp),
            (Ok((_, reader, _)), None) if reader.start() > LogPosition::START => {
                return Err(StartError::NoSnapshot { start: reader.start(), snapshots: snapshot_dir.to_owned() });
            }
            (Ok((appender, reader, recovery)), _) => {
                let snapshot = checkpoint.map_or(LogPosition::START, |checkpoint| checkpoint.end);
                let base = last.map(|last| reader.checkpoint_at(last)).transpose();
                let base = base.map_err(|error| StartError::Group(error.to_string()))?;
                let tail = tail.into_entries();
                return Ok(RecoveredShard { state, snapshot, base, tail, appender, reader, recovery });
            }
            (Err(error @ OpenError::Checkpoint { .. }), Some(checkpoint)) => {
                tracing::warn!(%error, "the newest snapshot does not fit the log; trying an older one, or the whole log");
                below = checkpoint.end;
            }
            (Err(error), _) => return Err(error.into()),
        }
    }
}

/// Why an entry is not replayed.
type Interrupted = Box<dyn std::error::Error + Send + Sync>;
