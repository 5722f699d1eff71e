//! Settings of what lies on the disk.

use std::path::PathBuf;

use vouch_broker::ShardId;
pub use vouch_commitlog::DEFAULT_SEGMENT_SIZE;
use vouch_commitlog::{LogConfig, OpenError};
use vouch_consensus::{ClusterIncarnation, NodeId};

use crate::error::StartError;
use crate::layout::ShardFolder;

/// What a start does with a log that is damaged inside, where nothing may be cut (ruling 17).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// It refuses, and says what is damaged.
    #[default]
    Refuse,
    /// The node reads what is whole and chains to its state, and refuses every write. A log that is not damaged is served as ever.
    ReadOnly,
}

/// What a cluster gave a node that joins it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedCluster {
    /// Which cluster.
    pub cluster_id: [u8; 16],
    /// What the node is called in it, for ever (ruling 31).
    pub node: NodeId,
    /// Bytes in a segment of the cluster's log.
    pub segment_size: u64,
    /// The life of the cluster that it joins.
    pub incarnation: ClusterIncarnation,
}

/// Settings of a shard on disk; every one is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageConfig {
    /// Folder that holds everything; made if it does not exist, locked while it is open.
    pub data_dir: PathBuf,
    /// The shard.
    pub shard: ShardId,
    /// Bytes in a segment of the log; fixed when the log is made. See `vouch-commitlog` for the bounds. `None`: as the log
    /// was made with, [`DEFAULT_SEGMENT_SIZE`] for a new one.
    pub segment_size: Option<u64>,
    /// Bytes of the log kept zero-filled ahead of the writer.
    pub zero_ahead: u64,
    /// Overlapping syncs of the log.
    pub syncs_in_flight: usize,
    /// From how full a disk on, in percent, sends are refused.
    pub disk_high_water: u8,
    /// Bytes that the log may take of the disk. `None`: the whole disk.
    pub disk_limit: Option<u64>,
    /// What opening a damaged log does.
    pub on_damage: OnDamage,
    /// A new folder becomes that of this node. `None`: it begins a cluster of its own.
    pub joins: Option<JoinedCluster>,
    /// The newest feature level that is read: [`vouch_broker::record::FEATURE_LEVEL`], or less in a test, of a version before.
    pub feature_level: u32,
}

impl StorageConfig {
    /// Where the shard lies.
    pub fn folder(&self) -> ShardFolder {
        ShardFolder::of(&self.data_dir, self.shard)
    }

    /// Bytes in a segment of a log that is made anew.
    pub(crate) fn new_segment_size(&self) -> u64 {
        let joined = self.joins.as_ref().map(|joins| joins.segment_size);
        joined.or(self.segment_size).unwrap_or(DEFAULT_SEGMENT_SIZE)
    }

    /// Whether a log can have these settings.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        if let (Some(joins), Some(setting)) = (&self.joins, self.segment_size)
            && joins.segment_size != setting
        {
            return Err(StartError::SegmentSize { made_with: joins.segment_size, setting });
        }
        self.log(self.new_segment_size()).validate().map_err(OpenError::from)?;
        Ok(())
    }

    /// What the settings say of the log; whose it is and where comes with the folder.
    pub(crate) fn log(&self, segment_size: u64) -> LogConfig {
        let Self { zero_ahead, syncs_in_flight, .. } = *self;
        LogConfig { segment_size, zero_ahead, syncs_in_flight, ..LogConfig::new("", [0; 16], self.shard.0) }
    }

    /// Less than some segments would always be full: they count as whole, and one is prepared ahead.
    pub(crate) fn check_disk_limit(&self, segment_size: u64) -> Result<(), StartError> {
        const SEGMENTS: u64 = 4;
        let least = SEGMENTS * segment_size * 100 / u64::from(self.disk_high_water.max(1));
        match self.disk_limit {
            Some(limit) if limit < least => Err(StartError::DiskLimit { limit, least, segment_size }),
            _ => Ok(()),
        }
    }
}
