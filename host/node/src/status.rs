//! How a node is: whether it serves, how far it is, what it takes.

use std::path::PathBuf;
use std::sync::Arc;

use vouch_broker::{NotDone, NothingStored, State};
use vouch_commitlog::{DurationCounts, LogPosition, LogUsage, Recovery};
use vouch_storage::{DiskUse, LookupReport, Lookups, ScrubReport};

use crate::NodeHealth;
use crate::cluster::OwnLog;
use crate::metrics::{SeriesView, Views};
use crate::retention::RetentionReport;
use crate::served::ServedLog;
use crate::stopping::Stopping;
use crate::writable::Writable;
use vouch_leader::Leader;
use vouch_shard::clock::Clock;
use vouch_shard::{Shard, Signals, Standing};

/// How the node is. What is asked here changes nothing, and is answered as well where nothing can be written.
pub struct Status {
    pub(crate) shard: Arc<Shard>,
    /// Counts what only the executor sees.
    pub(crate) signals: Arc<Signals>,
    pub(crate) clock: Arc<Clock>,
    /// Why nothing is written, if so.
    pub(crate) writable: Writable,
    pub(crate) log: Arc<ServedLog>,
    /// Where the last backup is noted.
    pub(crate) data_dir: PathBuf,
    /// Bytes that may be proposed and not answered.
    pub(crate) bytes_in_flight_max: u64,
    pub(crate) scrub: Arc<ScrubReport>,
    pub(crate) lookups: Arc<Lookups>,
    pub(crate) retention: Arc<RetentionReport>,
    pub(crate) disk: Arc<DiskUse>,
    /// Makes what groups and topics have, at most once a second.
    pub(crate) views: Views,
    pub(crate) stopping: Arc<Stopping>,
}

impl Status {
    /// Whether it serves: [`NodeHealth::ReadOnly`] and [`NodeHealth::Poisoned`] say why nothing is written. Costs
    /// nothing.
    pub fn health(&self) -> NodeHealth {
        match self.writable.closed() {
            _ if self.stopping.is_cancelled() => NodeHealth::Stopping,
            None => NodeHealth::Ready,
            Some(NothingStored::ReadOnly(reason)) => NodeHealth::ReadOnly(reason.clone()),
            Some(NothingStored::Poisoned(reason)) => NodeHealth::Poisoned(reason.clone()),
            Some(other) => NodeHealth::Poisoned(other.to_string()),
        }
    }

    /// Whether anything can be written; every call that writes asks first. What a request names may lie behind the
    /// damage of a log that is only read: then nobody can say that it is not there.
    ///
    /// # Errors
    /// [`NothingStored::ReadOnly`] or [`NothingStored::Poisoned`].
    pub fn check_writable(&self) -> Result<(), NotDone> {
        self.writable.check()
    }

    /// Numbers for metrics and the cluster's status, of one moment.
    ///
    /// # Errors
    /// [`NothingStored::Stopping`].
    pub async fn numbers(&self) -> Result<Numbers, NotDone> {
        let Standing { appended, durable, applied, waiting_polls, .. } = self.shard.standing().await?;
        let look = move |state: &State, leader: &mut Leader| {
            let (resends, reused_ids) = state.resends();
            Numbers {
                appended,
                durable,
                applied,
                topics: state.topics().len(),
                groups: state.groups().len(),
                open_transactions: state.open_transactions().len(),
                parked_transactions: state.open_transactions().parked(),
                ended_transactions: state.outcomes().len(),
                asking: leader.schedule.asking(),
                waiting_polls,
                resends,
                reused_ids,
                doubted_ms: state.leaps().doubted_ms(),
            }
        };
        self.shard.show(look).await
    }

    /// How far its log is.
    ///
    /// # Errors
    /// [`NothingStored::Stopping`].
    pub async fn log(&self) -> Result<OwnLog, NotDone> {
        let Standing { appended, durable, applied, .. } = self.shard.standing().await?;
        Ok(OwnLog { appended, durable, applied })
    }

    /// What groups and topics have: at most a second old, and made in pieces that hold nobody up. Nothing where another node
    /// leads: that one tells it.
    ///
    /// # Errors
    /// [`NothingStored::Stopping`].
    pub async fn series(&self) -> Result<Arc<SeriesView>, NotDone> {
        match self.views.get().await {
            Err(NotDone::NothingStored(NothingStored::Stopping)) if !self.stopping.is_cancelled() => Ok(Arc::default()),
            made => made,
        }
    }

    /// How long the syncs of the log took; nothing on a log that is only read.
    pub fn syncs(&self) -> DurationCounts {
        match &*self.log {
            ServedLog::Kept(upkeep) => upkeep.housekeeping.syncs(),
            ServedLog::Damaged(_) => DurationCounts::default(),
        }
    }

    /// When the data folder was backed up last, milliseconds since 1970. Reads a file.
    pub fn backed_up_at_ms(&self) -> Option<u64> {
        vouch_storage::last_backup_ms(&self.data_dir)
    }

    /// Messages that were acknowledged in memory (ack level `memory`) and then not stored.
    pub fn refused_in_memory(&self) -> u64 {
        self.signals.refused_in_memory()
    }

    /// Looks for messages that receives made: when they came, and when something came that they may want.
    pub fn receive_scans(&self) -> u64 {
        self.signals.scans()
    }

    /// What the scrubber found since the node started.
    pub fn scrub(&self) -> &ScrubReport {
        &self.scrub
    }

    /// Why the last snapshot that was due was not made; `None` where it was. It is tried again.
    pub fn snapshot_trouble(&self) -> Option<String> {
        self.signals.snapshots.trouble()
    }

    /// What retention did since the node started.
    pub fn retention(&self) -> &RetentionReport {
        &self.retention
    }

    /// How full the disk is, as it was measured a second ago at most.
    pub fn disk(&self) -> &DiskUse {
        &self.disk
    }

    /// What the log occupies, in bytes.
    pub fn log_usage(&self) -> LogUsage {
        self.log.usage()
    }

    /// How the index stands by which messages are found.
    pub fn lookup(&self) -> &LookupReport {
        self.lookups.report()
    }

    /// What recovery found when the node started; `None` on a damaged log, which is not recovered.
    pub fn recovery(&self) -> Option<&Recovery> {
        match &*self.log {
            ServedLog::Kept(upkeep) => Some(&upkeep.recovery),
            ServedLog::Damaged(_) => None,
        }
    }

    /// The log's time, milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.clock.now().0
    }

    /// By how many milliseconds the log's time is ahead of the wall clock; below zero where the wall clock is ahead.
    pub fn clock_ahead_ms(&self) -> i64 {
        self.clock.ahead_ms()
    }

    /// Bytes that may be proposed and not answered.
    pub fn bytes_in_flight_max(&self) -> u64 {
        self.bytes_in_flight_max
    }

    /// Bytes that are proposed and not answered.
    pub fn bytes_in_flight(&self) -> u64 {
        self.shard.in_flight()
    }
}

impl Numbers {
    /// How far the log is.
    pub fn log(&self) -> OwnLog {
        let Self { appended, durable, applied, .. } = *self;
        OwnLog { appended, durable, applied }
    }
}

/// Numbers of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Log position after the last entry.
    pub appended: LogPosition,
    /// Everything before this log position is durable.
    pub durable: LogPosition,
    /// Everything before this log position is applied.
    pub applied: LogPosition,
    /// Topics.
    pub topics: usize,
    /// Groups.
    pub groups: usize,
    /// Open transactions, parked ones included.
    pub open_transactions: usize,
    /// Parked transactions.
    pub parked_transactions: usize,
    /// Ended transactions whose outcome is remembered.
    pub ended_transactions: usize,
    /// Asks under way.
    pub asking: usize,
    /// Receives that wait.
    pub waiting_polls: usize,
    /// Resends that were recognised and stored once.
    pub resends: u64,
    /// Message ids that were used again for other content.
    pub reused_ids: u64,
    /// Time of the log, in ms, that makes nothing older while nobody knows whether it passed.
    pub doubted_ms: u64,
}
