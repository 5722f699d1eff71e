//! What is certain of a damaged log: a state, and how far it reaches.

use vouch_broker::State;
use vouch_commitlog::{LogPosition, LogReader, ReadOnlyLog};

use super::{DamagedLog, LostParts, is_break};
use crate::error::StartError;
use crate::replay::replay;
use crate::snapshots::{LoadedState, Snapshots};

/// A damaged log, with the state that is certain.
pub(crate) struct ReadOnly {
    pub(crate) state: State,
    /// Position that the snapshot covers from which the state was read; the start of the log without one.
    pub(crate) snapshot: LogPosition,
    pub(crate) reader: LogReader,
    pub(crate) log: DamagedLog,
}

/// The state of the newest snapshot that belongs to this log, and of everything from there to the first damage.
pub(super) fn read(mut opened: ReadOnlyLog, snapshots: &Snapshots) -> Result<ReadOnly, StartError> {
    let uncertain = |error: std::io::Error| StartError::NothingCertain(error.to_string());
    let mut loaded = snapshots.newest_of(&opened.reader).map_err(uncertain)?;
    let mut lost = None;
    if loaded.is_none() && opened.reader.start() > LogPosition::START {
        loaded = snapshots.newest_with_gaps_of(&opened.reader).map_err(uncertain)?;
        lost = loaded.as_ref().map(|loaded| lost_parts(snapshots, loaded));
    }
    let (mut state, snapshot) = match loaded {
        Some(LoadedState { checkpoint, state }) => (state, checkpoint.end),
        None => (State::default(), LogPosition::START),
    };
    // Whole entries that do not follow one another: those on one side are of another history. What chains to the snapshot
    // without any damage between is of this one.
    let below = || opened.verification.damage.iter().filter(|range| range.from < snapshot);
    let doubtful_to = below().any(is_break).then(|| below().map(|range| range.to).max()).flatten();
    if let Some(doubtful_to) = doubtful_to {
        opened.distrust_before(doubtful_to);
    }
    let ReadOnlyLog { reader, verification: found } = opened;
    // The entry that the snapshot ends with is whole, so no damage reaches across its end.
    let damaged = found.damage.iter().map(|range| range.from).filter(|from| *from >= snapshot).min();
    // Without what was remembered of messages a resend behind the snapshot would be taken for another message.
    let forgetful = lost.as_ref().is_some_and(|lost| lost.gaps.sent > 0);
    let limit = if forgetful { snapshot } else { damaged.unwrap_or(found.end) };
    let mut entries = reader.entries_from(snapshot);
    while let Some(Ok(entry)) = entries.next()
        && entry.position < limit
    {
        replay(&mut state, &entry).map_err(|error| StartError::NothingCertain(error.to_string()))?;
    }
    let served_to = entries.position().min(limit);
    if state.cluster().init.is_none() {
        let why = "the beginning of the log is lost, and no snapshot belongs to it".to_owned();
        return Err(StartError::NothingCertain(why));
    }
    let log = DamagedLog { found, served_to, doubtful_to: doubtful_to.unwrap_or(LogPosition::START), lost };
    Ok(ReadOnly { state, snapshot, reader, log })
}

/// What a state lacks that was read without some of its parts.
fn lost_parts(snapshots: &Snapshots, loaded: &LoadedState) -> LostParts {
    let parts = loaded.state.parts();
    let lost: Vec<u64> = snapshots.lost_parts(loaded).into_iter().collect();
    let (first, last) = (lost.first().copied().unwrap_or(0), lost.last().copied().unwrap_or(0));
    let before = parts.into_iter().rfind(|part| *part < first).unwrap_or(0);
    let files = lost.iter().map(|part| snapshots.part_file(*part)).collect();
    LostParts { files, stretch: LogPosition(before)..LogPosition(last), gaps: loaded.state.gaps() }
}
