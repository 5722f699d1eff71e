//! Backups of a data folder: taken while a node serves, checked, and put back.
//!
//! A backup is a state that the node was in: the log up to a position that was durable, the newest snapshot, the
//! identity and the components. It needs neither a lock nor the node, because nothing below a durable position ever
//! changes; what a running node tidies away meanwhile is noticed, and the copy begins again.
//! `host/docs/backup.md` describes the files.

mod check;
mod compare;
mod components;
mod copy;
mod decided;
mod error;
mod filling;
mod folder;
mod manifest;
mod note;
mod plan;
mod planned;
mod progress;
mod restore;
mod take;

use std::path::Path;
use vouch_commitlog::LogPosition;

use vouch_broker::ShardId;

use crate::layout::ShardFolder;

pub use check::{ExpectedShard, check_backup, check_log};
pub(crate) use check::{check_shard, damage_in};
pub(crate) use copy::{Extent, hexadecimal};
pub use error::BackupError;
pub(crate) use error::failed;
use error::{MANIFEST_FILE, damaged};
pub use note::read as last_backup_ms;
pub(crate) use plan::{BackupTrouble, Plan, extent_of_segment, identity, plan};
pub(crate) use planned::{FileKind, Planned};
pub use progress::{BackupProgress, BackupStep, OnProgress};
pub use restore::{Restored, restore};
pub use take::backup;

/// The shard that a backup holds.
pub(crate) const SHARD: ShardId = ShardId::FIRST;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Cluster, in hexadecimal digits: what is restored is another life of it.
    pub cluster_id: String,
    /// When it was taken, milliseconds since 1970.
    pub made_at_ms: u64,
    /// Version of the program that took it.
    pub vouch: String,
    /// First position of the log in it.
    pub log_start: LogPosition,
    /// Everything that is in it lies before this position.
    pub log_end: LogPosition,
    /// Position that the snapshot in it covers; `None` if the log tells everything.
    pub snapshot: Option<LogPosition>,
    /// Leader time of the newest record in it, milliseconds since 1970.
    pub newest_record_ms: u64,
    /// Whether a node ran on the folder when it was taken. Then it ends where the log says that it was durable, which
    /// is up to 100 ms behind; otherwise it holds everything that a start would have found, as far as no other node decides
    /// that.
    pub node_was_running: bool,
    /// Whether it is of one of several nodes: then it ends with what that knew to be committed, and is a beginning of the cluster's
    /// log.
    pub of_several: bool,
    /// Files, the manifest not among them.
    pub files: usize,
    /// Bytes in these files that are not holes at their ends.
    pub bytes: u64,
}

/// Where the shard's files are, in a data folder or in a backup.
fn shard_of(folder: &Path) -> ShardFolder {
    ShardFolder::of(folder, SHARD)
}
