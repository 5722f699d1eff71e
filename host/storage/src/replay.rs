//! Applying what is in the log already.

use vouch_broker::record::{DecodeError, Frame, Record, names_snapshot};
use vouch_broker::state::RecordAt;
use vouch_broker::{Millis, RecordPosition, State};
use vouch_commitlog::Entry;

use crate::error::StartError;
use crate::position::record_position;

/// A record of the log that cannot be applied: the node must not guess what it meant.
#[derive(Debug, thiserror::Error)]
#[error("the record at position {position}, written by Vouch {version}, cannot be read: {why}")]
pub struct UnreadableRecord {
    position: RecordPosition,
    version: String,
    why: DecodeError,
}

/// Applies the records of an entry that is in the log already, and says whether its end is a position that the log names: there
/// a part ends, and a snapshot is made.
///
/// # Errors
/// A record of it cannot be read.
pub fn replay(state: &mut State, entry: &Entry) -> Result<bool, UnreadableRecord> {
    let time = Millis(entry.leader_time_ms);
    let mut effects = Vec::new();
    let mut named = false;
    let mut records: &[u8] = &entry.payload;
    let mut position = record_position(entry.payload_position);
    while !records.is_empty() {
        let unreadable =
            |state: &State, why| UnreadableRecord { position, version: state.cluster().last_version.clone(), why };
        let (frame, rest) = Frame::split(records).map_err(|why| unreadable(state, why))?;
        let record = Record::decode(&frame).map_err(|why| unreadable(state, why))?;
        // What was refused then is refused now; its caller was told then.
        let _ = state.apply(RecordAt { position, time }, &record, &mut effects);
        effects.clear();
        named |= names_snapshot(frame.kind());
        position = position.plus(frame.record_len().into());
        records = rest;
    }
    Ok(named)
}

/// Whether somebody who knows this feature level understands everything that the log means.
pub(crate) fn check_feature_level(state: &State, knows: u32) -> Result<(), StartError> {
    match state.cluster().level() {
        Some(found) if found > knows => {
            let version = state.cluster().last_version.clone();
            Err(StartError::FeatureLevel { found, knows, version })
        }
        _ => Ok(()),
    }
}
