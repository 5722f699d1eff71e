//! The threads of a node, and what is said of its log before they begin.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use vouch_broker::{NotDone, NothingStored, State};
use vouch_commitlog::{Appender, Checkpoint, Entry, Housekeeping, LogIdentity, LogPosition, LogReader, Recovery};
use vouch_consensus::Replica;
use vouch_storage::{
    DamagedLog, Folders, Listeners, Lookups, ReplicaFile, ReplicaNote, Scrub, ScrubbedFiles, SnapshotBounds, Snapshots,
    Snapshotter, StartError, StartProgress,
};

use crate::NodeConfig;
use crate::peers::{Lacking, Speaking, WhoSpeaks};
use crate::served::Upkeep;
use crate::served_shard::SHARD;
use crate::sessions::Sessions;
use vouch_shard::{
    Begun, CoreSettings, Inbox, Lead, LeaderEntry, Member, NoPeers, Output, OutputLog, Peers, Request, Shard,
    ShardLinks, Signals,
};

/// Damaged places that a start tells one by one.
const TOLD_MAX: usize = 100;
/// Between two looks whether the start was given up.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A start that waits for others for longer says for what.
const TOLD_AFTER: Duration = Duration::from_secs(5);
/// What an operator hears who leaves the address out.
const NO_ADDRESS: &str = "this node is one of several and has no address for the others; name one with --peer-addr";

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
    /// Where it is asked whether the start was given up.
    pub(super) progress: &'a StartProgress,
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

/// Why a start did not come to its end.
pub(super) enum NoStart {
    Failed(StartError),
    /// This node is to take what it lacks from others, and to begin again then.
    Lacks(Lacking),
}

impl From<StartError> for NoStart {
    fn from(error: StartError) -> Self {
        Self::Failed(error)
    }
}

/// The shard runs, and has begun.
pub(super) struct BegunShard {
    pub(super) shard: Arc<Shard>,
    pub(super) speaking: Option<Arc<Speaking>>,
    pub(super) begun: Begun,
    pub(super) upkeep: Upkeep,
}

impl Begin<'_> {
    /// Starts the shard, speaks with the others of its group, and starts what looks after its log when that has begun.
    pub(super) fn writing(
        mut self,
        log: RecoveredLog,
        snapshots: Snapshots,
        lookups: &Lookups,
    ) -> Result<BegunShard, NoStart> {
        let RecoveredLog { appender, recovery, file, base, tail, before } = log;
        let speaking = self.speaking(file.note())?;
        // A log that holds anything got it from the cluster: this node was let in before.
        let has_nothing = recovery.last_index == 0 && base.is_none();
        let joins = self.config.joins.as_ref().filter(|_| has_nothing);
        if file.note().member && has_nothing && joins.is_none() {
            return Err(StartError::NotLetIn(self.config.data_dir.clone(), file.note().node.0).into());
        }
        let replica = self.replica(&recovery, file.note(), before, base)?;
        let housekeeping = appender.housekeeping();
        let state = std::mem::take(&mut self.state);
        let adopted = state.parts().last().copied().unwrap_or(0);
        let prepared = self.config.zero_ahead.min(self.segment_size);
        let reader = self.reader.clone();
        let feature_level = self.config.feature_level;
        let log = OutputLog {
            appender,
            reader,
            prepared,
            replica,
            file: *file,
            base,
            tail,
            settings: CoreSettings { catch_up: self.config.catch_up_log, feature_level },
        };
        let output = Output::Log(Box::new(log));
        let (on_begun, begun) = sync_channel(1);
        let cluster_id = self.folders.cluster_id()?;
        let (handle_key, leapt_from) = (rand::random(), self.signals.clock.leapt_from());
        let (segment_size, incarnation) = (self.segment_size, self.folders.incarnation());
        let lead = Lead { cluster_id, segment_size, handle_key, feature_level, leapt_from, incarnation };
        let lead = Some((lead, on_begun));
        let peers: Arc<dyn Peers> = match &speaking {
            Some(speaking) => speaking.nodes.clone(),
            None => Arc::new(NoPeers),
        };
        let links = ShardLinks {
            inbox: self.inbox.clone(),
            signals: self.signals.clone(),
            members: self.sessions.clone(),
            peers,
        };
        let shard = Arc::new(Shard::start(state, output, lead, links).map_err(StartError::Thread)?);
        let begins = || {
            if let Some(speaking) = &speaking {
                if joins.is_some() {
                    speaking.waits_to_be_let_in();
                }
                speaking.begin(&shard, self.reader)?;
                if self.config.joins.is_some() && joins.is_none() {
                    tracing::info!(
                        "this folder is that of a member already: join and token_file are not used, and may be left out"
                    );
                }
                joins.map_or(Ok(()), |joins| speaking.join(joins, self.progress))?;
            }
            let begun = self.wait_for(&begun, speaking.as_deref())?;
            let upkeep = self.look_after(housekeeping, snapshots, adopted, recovery, lookups)?;
            Ok((begun, upkeep))
        };
        let begins: Result<_, NoStart> = begins();
        match begins {
            Ok((begun, upkeep)) => Ok(BegunShard { shard, speaking, begun, upkeep }),
            Err(error) => {
                speaking.iter().for_each(Speaking::stop_at_once);
                shard.stop();
                Err(error)
            }
        }
    }

    fn speaking(&self, note: &ReplicaNote) -> Result<Option<Arc<Speaking>>, StartError> {
        let Some(settings) = &self.config.peers else {
            let needs_others = note.member && !self.state.members().is_only(note.node);
            return if needs_others { Err(StartError::Peers(NO_ADDRESS.to_owned())) } else { Ok(None) };
        };
        let cluster_id = self.folders.cluster_id()?;
        let log = LogIdentity { cluster_id, shard: SHARD.0, segment_size: self.segment_size };
        let data_dir = self.config.data_dir.clone();
        let (node, incarnation) = (note.node, note.incarnation);
        let cluster_incarnation = self.folders.incarnation();
        let program = self.config.program();
        let who = WhoSpeaks { node, cluster_incarnation, incarnation, data_dir, log, program };
        Ok(Some(Arc::new(Speaking::new(settings, &who, &self.inbox, self.signals)?)))
    }

    fn replica(
        &self,
        recovery: &Recovery,
        note: &ReplicaNote,
        before: Option<Checkpoint>,
        base: Option<Checkpoint>,
    ) -> Result<Replica<LeaderEntry>, StartError> {
        let replica = if note.member {
            vouch_shard::member(Member {
                node: note.node,
                members: self.state.members().clone(),
                note,
                log: self.reader,
                before,
                applied: base.unwrap_or(Checkpoint::BEFORE_ALL),
                draw: Box::new(|below| rand::random_range(0..below)),
            })
        } else {
            vouch_shard::alone(recovery, note)
        };
        replica.map_err(|broken| StartError::Group(broken.to_string()))
    }

    /// Waits until the shard has begun: one that joins has when a leader sent it the beginning of the log, unless it is removed first.
    fn wait_for(
        &self,
        begun: &Receiver<Result<Begun, NotDone>>,
        speaking: Option<&Speaking>,
    ) -> Result<Begun, NoStart> {
        let (since, mut told) = (Instant::now(), false);
        let behind = self.signals.behind();
        let begun = loop {
            match begun.recv_timeout(LOOK_EVERY) {
                Ok(begun) => break begun,
                Err(RecvTimeoutError::Timeout) => {
                    self.progress.go_on()?;
                    if speaking.is_some_and(|speaking| speaking.removal.was_heard()) {
                        return Err(StartError::Removed(self.config.data_dir.clone()).into());
                    }
                    if let Some(speaking) = speaking.filter(|_| *behind.borrow()) {
                        return Err(NoStart::Lacks(speaking.lacking()));
                    }
                    if !told && since.elapsed() > TOLD_AFTER {
                        told = true;
                        tracing::warn!(
                            "waiting for the node that leads, which sends this one the beginning of the log: see with `vouch cluster \
                             status` at another node whether one leads, knows this node, and reaches it; one that was never let in \
                             is started with --join and --token-file"
                        );
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    break Err(self.signals.closed().cloned().unwrap_or(NothingStored::Stopping).into());
                }
            }
        };
        Ok(begun.map_err(StartError::FirstRecords)?)
    }

    /// Starts what looks after the log.
    fn look_after(
        &mut self,
        housekeeping: Housekeeping,
        snapshots: Snapshots,
        adopted: u64,
        recovery: Recovery,
        lookups: &Lookups,
    ) -> Result<Upkeep, StartError> {
        self.folders.begun()?;
        if self.config.peers.is_none() {
            // Who has others waits until it is known that they keep what it lacks.
            vouch_storage::discard_gathered(&self.config.storage().folder());
        }
        let snapshots = Arc::new(snapshots);
        let place = self.config.storage().folder().scrub();
        let requests = self.signals.snapshots.clone();
        let files = ScrubbedFiles { snapshots: snapshots.clone(), requests: requests.clone() };
        let scrub = Scrub::start(housekeeping.clone(), files, self.config.scrub_rate, place);
        let scrub = scrub.map_err(StartError::Thread)?;
        let [adopting, mending, covering, sealing, naming] = std::array::from_fn(|_| self.inbox.clone());
        let listeners = Listeners {
            adopt: Box::new(move |position, part| adopting.push(Request::Adopt(position, part))),
            mended: Box::new(move |part, copies| mending.push(Request::ReadFrom(part, copies))),
            sealed: Box::new(lookups.announcer()),
            kept: Box::new(move |SnapshotBounds { older, .. }| {
                older.into_iter().for_each(|older| covering.push(Request::Covered(older.last_index)));
            }),
            at_names: Box::new(move |sealed| sealing.push(Request::Sealed(sealed))),
            due: Box::new(move || naming.push(Request::NameSnapshot)),
        };
        let (reader, every) = (self.reader.clone(), self.config.snapshot_every);
        let snapshotter = Snapshotter::start(snapshots, requests, reader, every, adopted, listeners)
            .inspect_err(|_| scrub.stop())
            .map_err(StartError::Thread)?;
        Ok(Upkeep { housekeeping, snapshotter, scrub, recovery })
    }
}
