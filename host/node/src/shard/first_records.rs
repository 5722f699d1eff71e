//! What every log begins with, and what a node writes when it goes on.

use std::io;

use vouch_broker::record::{ClusterInit, Leapt, NodeStarted};
use vouch_commitlog::{Entry, EntryHeader, EntryKind};
use vouch_storage::{FEATURE_LEVEL, Opened, OpenedLog, StartError, VERSION, replay};

use super::Inbox;
use crate::clock::Clock;

/// Writes what every log begins with, and that this node goes on from here; durable before anything is served. The index of
/// the log's last entry. Nothing is written to a log that is only read.
pub(crate) fn write(opened: &mut Opened, inbox: &Inbox, clock: &Clock) -> Result<u64, StartError> {
    let Opened { folders, state, segment_size, log, .. } = opened;
    let OpenedLog::Whole { appender, recovery } = log else { return Ok(0) };
    let last_index = recovery.last_index;
    let mut records = Vec::new();
    if state.cluster().init.is_none() {
        let init = ClusterInit {
            cluster_id: folders.cluster_id()?,
            segment_size: *segment_size,
            handle_key: rand::random(),
            feature_level: FEATURE_LEVEL,
            written_by: VERSION.to_owned(),
        };
        init.encode(&mut records);
    }
    NodeStarted { version: VERSION.to_owned() }.encode(&mut records);
    if let Some(from) = clock.leapt_from() {
        Leapt { from, doubted: true }.encode(&mut records);
    }
    let now = clock.now();
    let header = EntryHeader { term: 1, index: last_index + 1, leader_time_ms: now.0, kind: EntryKind::Records };
    let appended = appender.append(header, &[&records])?;
    inbox.wait_durable(appended.end.0).map_err(|reason| {
        StartError::Thread(io::Error::other(format!("the first records did not become durable: {reason}")))
    })?;
    let entry = Entry {
        position: appended.position,
        payload_position: appended.payload_position,
        end: appended.end,
        term: 1,
        index: last_index + 1,
        leader_time_ms: now.0,
        kind: EntryKind::Records,
        payload: records.into(),
    };
    replay(state, &entry).expect("records that were encoded just now can be read");
    folders.begun()?;
    Ok(last_index + 1)
}
