//! A running node, as the edges see it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use vouch_broker::{NotDone, NothingStored, ShardId};
use vouch_commitlog::{DurationCounts, LogReader, Recovery};
use vouch_storage::{DiskUse, Folders, LookupReport, Lookups, ScrubReport};

use crate::damage::LogDamage;
use crate::messages::Messages;
use crate::metrics::{Metrics, SeriesView, Views};
use crate::plugins::PluginHost;
use crate::retention::RetentionReport;
use crate::routes::Routes;
use crate::search::Search;
use crate::served::ServedLog;
use crate::sessions::Sessions;
use crate::settings::Settings;
use crate::shard::{Shard, Shared};
use crate::shortages::Shortages;
use crate::stopping::Stopping;
use crate::transactions::{Ends, Halves, Transactions};
use crate::writable::Writable;
use crate::{Health, NodeConfig};

/// A running node. Clones are the same node.
#[derive(Clone)]
pub struct Node {
    /// Sends, receives and acknowledges.
    pub messages: Arc<Messages>,
    /// Ends transactions, and shows them.
    pub transactions: Arc<Transactions>,
    /// Topics, groups and their settings.
    pub settings: Arc<Settings>,
    /// Plugins, their components, and bindings.
    pub components: Components,
    /// Finds messages.
    pub search: Arc<Search>,
    /// What of the log is damaged.
    pub damage: Arc<LogDamage>,
    /// How the node is.
    pub status: Status,
    /// What was counted since the node started.
    pub metrics: Arc<Metrics>,
    /// Who is connected.
    pub sessions: Arc<Sessions>,
    /// Whose node it is.
    pub identity: Identity,
    pub(crate) inner: Arc<Inner>,
}

/// Plugins with their components, and bindings.
#[derive(Clone)]
pub struct Components(pub(crate) Arc<Inner>);

/// How the node is.
#[derive(Clone)]
pub struct Status(pub(crate) Arc<Inner>);

/// Whose node it is; made with the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// Key of the check value in receipt handles.
    pub handle_key: [u8; 32],
    /// The shard that this node serves.
    pub shard: ShardId,
}

pub(crate) struct Inner {
    pub(crate) shard: Arc<Shard>,
    pub(crate) log: Arc<ServedLog>,
    pub(crate) scrub: Arc<ScrubReport>,
    pub(crate) lookups: Arc<Lookups>,
    pub(crate) retention: Arc<RetentionReport>,
    pub(crate) disk: Arc<DiskUse>,
    pub(crate) shortages: Arc<Shortages>,
    pub(crate) writable: Writable,
    pub(crate) segment_size: u64,
    pub(crate) shared: Arc<Shared>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) halves: Arc<Halves>,
    pub(crate) ends: Arc<Ends>,
    pub(crate) reader: LogReader,
    pub(crate) plugins: PluginHost,
    pub(crate) stopping: Arc<Stopping>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) views: Views,
    pub(crate) config: NodeConfig,
    /// The folder's, until the node is stopped: tasks that end later find the log closed.
    pub(crate) folders: Arc<Mutex<Option<Folders>>>,
}

impl Status {
    /// Whether it serves.
    pub fn health(&self) -> Health {
        match self.0.shared.closed() {
            _ if self.0.stopping.is_cancelled() => Health::Stopping,
            None => Health::Ready,
            Some(NothingStored::ReadOnly(reason)) => Health::ReadOnly(reason.clone()),
            Some(NothingStored::Poisoned(reason)) => Health::Poisoned(reason.clone()),
            Some(other) => Health::Poisoned(other.to_string()),
        }
    }

    /// Whether anything can be written; every call that writes asks first. What a request names may lie behind the damage
    /// of a log that is only read: then nobody can say that it is not there.
    ///
    /// # Errors
    /// [`NothingStored::ReadOnly`] or [`NothingStored::Poisoned`].
    pub fn check_writable(&self) -> Result<(), NotDone> {
        self.0.writable.check()
    }

    /// What groups and topics have: at most a second old, and made in pieces that hold nobody up.
    ///
    /// # Errors
    /// [`NothingStored::Stopping`].
    pub async fn series(&self) -> Result<Arc<SeriesView>, NotDone> {
        self.0.views.get(&self.0).await
    }

    /// How long the syncs of the log took; nothing on a log that is only read.
    pub fn syncs(&self) -> DurationCounts {
        match &*self.0.log {
            ServedLog::Kept(upkeep) => upkeep.housekeeping.syncs(),
            ServedLog::Damaged(_) => DurationCounts::default(),
        }
    }

    /// When the data folder was backed up last, milliseconds since 1970. Reads a file.
    pub fn backed_up_at_ms(&self) -> Option<u64> {
        vouch_storage::last_backup_ms(&self.0.config.data_dir)
    }

    /// Messages that were acknowledged in memory (ack level `memory`) and then not stored.
    pub fn refused_in_memory(&self) -> u64 {
        self.0.shared.refused_in_memory()
    }

    /// Looks for messages that receives made: when they came, and when something came that they may want.
    pub fn receive_scans(&self) -> u64 {
        self.0.shared.scans()
    }

    /// What the scrubber found since the node started.
    pub fn scrub(&self) -> &ScrubReport {
        &self.0.scrub
    }

    /// What retention did since the node started.
    pub fn retention(&self) -> &RetentionReport {
        &self.0.retention
    }

    /// How full the disk is.
    pub fn disk(&self) -> &DiskUse {
        &self.0.disk
    }

    /// What the log occupies.
    pub fn log_usage(&self) -> vouch_commitlog::Usage {
        self.0.log.usage()
    }

    /// How the index stands by which messages are found.
    pub fn lookup(&self) -> &LookupReport {
        self.0.lookups.report()
    }

    /// What recovery found when the node started; `None` on a damaged log, which is not recovered.
    pub fn recovery(&self) -> Option<&Recovery> {
        match &*self.0.log {
            ServedLog::Kept(upkeep) => Some(&upkeep.recovery),
            ServedLog::Damaged(_) => None,
        }
    }

    /// The log's time, milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.0.shared.clock.now().0
    }

    /// By how many milliseconds the log's time is ahead of the wall clock; below zero where the wall clock is ahead.
    pub fn clock_ahead_ms(&self) -> i64 {
        self.0.shared.clock.ahead_ms()
    }

    /// Bytes that may be proposed and not answered.
    pub fn bytes_in_flight_max(&self) -> u64 {
        self.0.config.bytes_in_flight
    }

    /// Bytes that are proposed and not answered.
    pub fn bytes_in_flight(&self) -> u64 {
        self.0.shard.in_flight()
    }
}
