//! The threads of a node, and what is said of its log before they begin.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use vouch_broker::{NothingStored, State};
use vouch_commitlog::{Appender, Checkpoint, Entry, LogPosition, LogReader, Recovery};
use vouch_storage::{
    DamagedLog, Folders, Listeners, Lookups, ReplicaFile, Scrub, ScrubbedFiles, SnapshotBounds, Snapshots, Snapshotter,
    StartError,
};

use crate::NodeConfig;
use crate::served::Upkeep;
use crate::sessions::Sessions;
use vouch_shard::{Begun, Inbox, Lead, Member, NoPeers, Output, OutputLog, Request, Shard, ShardLinks, Signals};

/// Damaged places that a start tells one by one.
const TOLD_MAX: usize = 100;

/// Says what is damaged, and that nothing is written.
pub(super) fn read_only(damaged: &DamagedLog) -> Output {
    let DamagedLog { found, served_to, lost, .. } = damaged;
    if let Some(lost) = lost {
        tracing::error!("{lost}");
    }
    for range in found.damage.iter().take(TOLD_MAX) {
        tracing::error!(%range, entries_lost = range.entries_lost(), "the log is damaged");
    }
    let (places, end) = (found.damage.len(), found.end);
    tracing::warn!(
        places,
        served_to = served_to.0,
        end = end.0,
        "serving read-only what is whole of a damaged log; nothing is written"
    );
    let what_to_do = "GET /v1/damage lists what is lost; restore the folder from a backup";
    let (appended, durable) = (found.end, found.durable.min(found.end));
    let why = NothingStored::ReadOnly(what_to_do.to_owned());
    Output::Refused { why, appended, durable, applied: *served_to }
}

/// Says what recovery found.
pub(super) fn tell_recovery(recovery: &Recovery, snapshot: LogPosition) {
    let (entries, end, clean) = (recovery.entries, recovery.end.0, recovery.clean);
    let took_ms = recovery.duration.as_millis() as u64;
    tracing::info!(entries, end, snapshot = snapshot.0, clean, took_ms, "recovered the log");
}

/// What the threads of a node begin with.
pub(super) struct Begin<'a> {
    pub(super) config: &'a NodeConfig,
    pub(super) segment_size: u64,
    pub(super) folders: &'a mut Folders,
    pub(super) state: State,
    pub(super) inbox: Arc<Inbox>,
    pub(super) reader: &'a LogReader,
    pub(super) signals: &'a Arc<Signals>,
    pub(super) sessions: &'a Arc<Sessions>,
}

/// The log that it writes, as it was found.
pub(super) struct RecoveredLog {
    pub(super) appender: Appender,
    pub(super) recovery: Recovery,
    pub(super) file: Box<ReplicaFile>,
    pub(super) base: Option<Checkpoint>,
    pub(super) tail: Vec<Entry>,
    pub(super) before: Option<Checkpoint>,
}

impl Begin<'_> {
    /// Starts the shard, and what looks after its log when its first records are durable.
    pub(super) fn writing(
        self,
        log: RecoveredLog,
        snapshots: Snapshots,
        lookups: &Lookups,
    ) -> Result<(Shard, Begun, Upkeep), StartError> {
        let Self { config, segment_size, folders, state, inbox, reader, signals, sessions } = self;
        let RecoveredLog { appender, recovery, file, base, tail, before } = log;
        let note = file.note();
        let replica = if note.member {
            vouch_shard::member(Member {
                node: note.node,
                members: state.members().clone(),
                note,
                log: reader,
                before,
                applied: base.unwrap_or(Checkpoint::BEFORE_ALL),
                draw: Box::new(|below| rand::random_range(0..below)),
            })
        } else {
            vouch_shard::alone(&recovery, note)
        };
        let replica = replica.map_err(|broken| StartError::Group(broken.to_string()))?;
        let housekeeping = appender.housekeeping();
        let adopted = state.parts().last().copied().unwrap_or(0);
        let prepared = config.zero_ahead.min(segment_size);
        let log = OutputLog { appender, reader: reader.clone(), prepared, replica, file: *file, base, tail };
        let output = Output::Log(Box::new(log));
        let (on_begun, begun) = sync_channel(1);
        let cluster_id = folders.cluster_id()?;
        let (handle_key, leapt_from) = (rand::random(), signals.clock.leapt_from());
        let lead = Lead { cluster_id, segment_size, handle_key, leapt_from };
        let lead = Some((lead, on_begun));
        let links = ShardLinks {
            inbox: inbox.clone(),
            signals: signals.clone(),
            members: sessions.clone(),
            peers: Arc::new(NoPeers),
        };
        let shard = Shard::start(state, output, lead, links);
        let shard = shard.map_err(StartError::Thread)?;
        let look_after = || {
            let ended = |_| Err(signals.closed().cloned().unwrap_or(NothingStored::Stopping).into());
            let begun = begun.recv().unwrap_or_else(ended).map_err(StartError::FirstRecords)?;
            folders.begun()?;
            let snapshots = Arc::new(snapshots);
            let place = config.storage().folder().scrub();
            let files = ScrubbedFiles { snapshots: snapshots.clone(), requests: signals.snapshots.clone() };
            let scrub = Scrub::start(housekeeping.clone(), files, config.scrub_rate, place);
            let scrub = scrub.map_err(StartError::Thread)?;
            let (mending, covering) = (inbox.clone(), inbox.clone());
            let listeners = Listeners {
                adopt: Box::new(move |position, part| inbox.push(Request::Adopt(position, part))),
                mended: Box::new(move |part, copies| mending.push(Request::ReadFrom(part, copies))),
                sealed: Box::new(lookups.announcer()),
                kept: Box::new(move |SnapshotBounds { older, .. }| {
                    older.into_iter().for_each(|older| covering.push(Request::Covered(older.last_index)));
                }),
            };
            let (requests, every) = (signals.snapshots.clone(), config.snapshot_every);
            let snapshotter = Snapshotter::start(snapshots, requests, reader.clone(), every, adopted, listeners)
                .inspect_err(|_| scrub.stop())
                .map_err(StartError::Thread)?;
            Ok((begun, Upkeep { housekeeping, snapshotter, scrub, recovery }))
        };
        match look_after() {
            Ok((begun, upkeep)) => Ok((shard, begun, upkeep)),
            Err(error) => {
                shard.stop();
                Err(error)
            }
        }
    }
}
