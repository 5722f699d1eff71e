//! Settings of a node.

use std::path::PathBuf;
use std::time::Duration;

use vouch_broker::record::FEATURE_LEVEL;
use vouch_commitlog::{DEFAULT_SYNCS_IN_FLIGHT, DEFAULT_ZERO_AHEAD};
use vouch_plugin::{CompilerProgram, DEFAULT_GUEST_THREADS, DEFAULT_NODE_CONCURRENCY};
use vouch_secrets::KEY_FILE;
use vouch_storage::{OnDamage, StorageConfig, VERSION};

use crate::peers::{JoinSettings, Lacking, NodeVersion, PeerSettings};
use crate::served_shard::SHARD;

/// Settings of a node; every one is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Folder that holds everything; made if it does not exist, locked while the node runs.
    pub data_dir: PathBuf,
    /// Bytes in a segment of the log; fixed when the log is made. See `vouch-commitlog` for the bounds. `None`: as the log
    /// was made with, [`crate::DEFAULT_SEGMENT_SIZE`] for a new one.
    pub segment_size: Option<u64>,
    /// Bytes of the log kept zero-filled ahead of the writer.
    pub zero_ahead: u64,
    /// Overlapping syncs of the log.
    pub syncs_in_flight: usize,
    /// Bytes of log after which the next snapshot of the state is made; a start reads at most about so much.
    pub snapshot_every: u64,
    /// Bytes a second of the sealed log that are read again and compared with their checksums; 0 for none.
    pub scrub_rate: u64,
    /// How often the node looks for messages that are past their retention, and releases what nobody needs.
    pub retention_every: Duration,
    /// From how full a disk on, in percent, sends are refused, so that ends, acks and administration still find room.
    pub disk_high_water: u8,
    /// Bytes that the log may take of the disk; sends are refused from [`NodeConfig::disk_high_water`] percent of them on,
    /// too. `None`: the whole disk.
    pub disk_limit: Option<u64>,
    /// What a start does with a damaged log.
    pub on_damage: OnDamage,
    /// A new folder becomes that of this node of a cluster that there is. `None`: it begins a cluster of its own.
    pub joins: Option<JoinSettings>,
    /// How it speaks with other nodes. `None`: it has none.
    pub peers: Option<PeerSettings>,
    /// Another node that is there and lacks no more bytes of the log than these gets them from the one that leads, however slow it
    /// is. One that lacks more, and has to, takes a snapshot from its disk.
    pub catch_up_log: u64,
    /// Before it starts the node takes from others what it lacks. `None`: what its folder holds is tried first.
    pub lacking: Option<Lacking>,
    /// Bytes proposed and not answered, beyond which requests are refused (ruling 21).
    pub bytes_in_flight: u64,
    /// A send to a topic that does not exist creates it, with type `normal`.
    pub auto_create_topics: bool,
    /// Threads that run guest code.
    pub plugin_threads: usize,
    /// Calls of guest code at once, on the whole node.
    pub plugin_concurrency: usize,
    /// Where components are compiled. Whoever serves others wants a process of its own for it.
    pub plugin_compiler: CompilerProgram,
    /// SQLite files that bindings grant lie below one of these.
    pub sqlite_dirs: Vec<PathBuf>,
    /// A PEM file with certificates of authorities that components' databases and services may have theirs from, besides the public
    /// ones.
    pub plugin_ca: Option<PathBuf>,
    /// The newest feature level that this node knows: [`vouch_broker::record::FEATURE_LEVEL`], or less in a test, as if it were of a
    /// version before.
    pub feature_level: u32,
    /// File with the keys of secrets. `None`: [`vouch_secrets::KEY_FILE`] in the data folder.
    pub secret_key_file: Option<PathBuf>,
}

impl NodeConfig {
    /// Where the keys of secrets are.
    pub(crate) fn secret_keys(&self) -> PathBuf {
        self.secret_key_file.clone().unwrap_or_else(|| self.data_dir.join(KEY_FILE))
    }

    /// What the node is to the others.
    pub(crate) fn program(&self) -> NodeVersion {
        NodeVersion { version: VERSION.to_owned(), feature_level: self.feature_level }
    }

    /// What of it is for the shard's files.
    pub(crate) fn storage(&self) -> StorageConfig {
        StorageConfig {
            data_dir: self.data_dir.clone(),
            shard: SHARD,
            segment_size: self.segment_size,
            zero_ahead: self.zero_ahead,
            syncs_in_flight: self.syncs_in_flight,
            disk_high_water: self.disk_high_water,
            disk_limit: self.disk_limit,
            on_damage: self.on_damage,
            joins: self.joins.as_ref().map(|joins| joins.token.joined()),
            feature_level: self.feature_level,
        }
    }

    /// Default settings for a folder.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            segment_size: None,
            zero_ahead: DEFAULT_ZERO_AHEAD,
            syncs_in_flight: DEFAULT_SYNCS_IN_FLIGHT,
            snapshot_every: 256 << 20,
            scrub_rate: 8 << 20,
            retention_every: Duration::from_secs(10),
            disk_high_water: 90,
            disk_limit: None,
            on_damage: OnDamage::default(),
            joins: None,
            peers: None,
            catch_up_log: 1 << 30,
            lacking: None,
            bytes_in_flight: 256 << 20,
            auto_create_topics: false,
            plugin_threads: DEFAULT_GUEST_THREADS,
            plugin_concurrency: DEFAULT_NODE_CONCURRENCY,
            plugin_compiler: CompilerProgram::InProcess,
            sqlite_dirs: Vec::new(),
            plugin_ca: None,
            feature_level: FEATURE_LEVEL,
            secret_key_file: None,
        }
    }
}
