//! Backups of a data folder: taken while a node serves, checked, and put back.
//!
//! A backup is a state that the node was in: the log up to a position that was durable, the newest snapshot, the
//! identity and the components. It needs neither a lock nor the node, because nothing below a durable position ever
//! changes; what a running node tidies away meanwhile is noticed, and the copy begins again.
//! `host/docs/backup.md` describes the files.

mod check;
mod copy;
mod folder;
mod manifest;
mod note;
mod plan;
mod restore;
mod take;

use std::io;
use std::path::{Path, PathBuf};

use vouch_broker::ShardId;
use vouch_commitlog::OpenError;

use crate::layout::ShardFolder;

pub use check::check_backup;
pub use note::read as last_backup_ms;
pub use restore::restore;
pub use take::backup;

/// The shard that a backup holds.
const SHARD: ShardId = ShardId::FIRST;
/// Written last: a folder without it is no backup.
const MANIFEST_FILE: &str = "backup.json";

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Cluster, in hexadecimal digits: what is restored has this identity, too.
    pub cluster_id: String,
    /// When it was taken, milliseconds since 1970.
    pub made_at_ms: u64,
    /// Version of the program that took it.
    pub vouch: String,
    /// First position of the log in it.
    pub log_start: u64,
    /// Everything that is in it lies before this position.
    pub log_end: u64,
    /// Position that the snapshot in it covers; `None` if the log tells everything.
    pub snapshot: Option<u64>,
    /// Leader time of the newest record in it, milliseconds since 1970.
    pub newest_record_ms: u64,
    /// Whether a node ran on the folder when it was taken. Then it ends where the log says that it was durable, which
    /// is up to 100 ms behind; otherwise it holds everything that a start would have found.
    pub node_was_running: bool,
    /// Files, the manifest not among them.
    pub files: usize,
    /// Bytes in these files that are not holes at their ends.
    pub bytes: u64,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupStep {
    /// Files are copied or compared with their digests.
    Files,
    /// Every entry of the log is verified.
    Log,
}

/// How far a step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupProgress {
    /// The step.
    pub step: BackupStep,
    /// Bytes behind it.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Called while something takes long.
pub type OnProgress<'a> = &'a mut dyn FnMut(BackupProgress);

/// Why there is no backup, or none that can be restored. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Name the folder of a node.
    #[error("{} is not the data folder of a Vouch node: {why}; name the folder with --data-dir", path.display())]
    NotANode {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// Choose another folder, or look at what is in this one.
    #[error("{} is not empty: it holds {found}; choose a folder that is empty or does not exist", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// Something in it.
        found: String,
    },
    /// Choose a folder elsewhere, best on another disk.
    #[error("{} lies inside the data folder and would be lost with it; choose a folder elsewhere", .0.display())]
    InsideDataFolder(PathBuf),
    /// The log cannot be copied as it is: a restored node would refuse it.
    #[error("the log of this node is damaged, and so would be a backup of it: {0}; `vouch log verify` tells all of it")]
    SourceDamaged(String),
    /// Try again in a moment.
    #[error(
        "nothing in the log is known to be durable yet; a running node notes that 100 ms after its last write: try again"
    )]
    NothingDurable,
    /// Try again when the node removes less.
    #[error("{attempts} times the node removed what was being copied, at last because {why}; try again")]
    KeptChanging {
        /// How often it was tried.
        attempts: u32,
        /// What happened the last time.
        why: String,
    },
    /// It is another folder, or a backup that was cut short.
    #[error("{} is no backup: it holds no {MANIFEST_FILE}, which is written last; use a backup that was finished", .0.display())]
    NoBackup(PathBuf),
    /// Use the program that made it, or a later one.
    #[error(
        "the backup has format version {found} (made by Vouch {vouch}), which this version cannot read; use the one that made it or a later one"
    )]
    Version {
        /// Version of the format.
        found: u64,
        /// Who wrote it.
        vouch: String,
    },
    /// Use another backup.
    #[error("the backup is damaged: {}: {why}; nothing was restored from it: use another one", path.display())]
    Damaged {
        /// The file, or the folder.
        path: PathBuf,
        /// What does not hold.
        why: String,
    },
    /// The operating system refuses; the text says what.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log cannot be looked at.
    #[error(transparent)]
    Log(#[from] OpenError),
}

/// Where the shard's files are, in a data folder or in a backup.
fn shard_of(folder: &Path) -> ShardFolder {
    ShardFolder::of(folder, SHARD)
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> BackupError + 'a {
    move |source| BackupError::Io { action, path: path.to_owned(), source }
}

fn damaged(path: &Path, why: impl ToString) -> BackupError {
    BackupError::Damaged { path: path.to_owned(), why: why.to_string() }
}
