//! Why there is no backup, or none that can be restored.

use std::io;
use std::path::{Path, PathBuf};

use vouch_commitlog::OpenError;

use crate::replica::ReplicaError;

/// Written last: a folder without it is no backup.
pub(super) const MANIFEST_FILE: &str = "backup.json";

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
    /// Start the node, and take the backup then.
    #[error(
        "the node of {} was recovered and has not started since, so its log does not say yet that its cluster begins anew; start it first \
         (vouch serve --data-dir {}), and take the backup then",
        .0.display(),
        .0.display()
    )]
    NotBegun(PathBuf),
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
    /// What the replica noted of itself does not say how far the log was durable.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The log cannot be looked at.
    #[error(transparent)]
    Log(#[from] OpenError),
}

/// For `map_err`: what was tried with which file. The action is a verb that follows *cannot*.
pub(crate) fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> BackupError + 'a {
    move |source| BackupError::Io { action, path: path.to_owned(), source }
}

/// A file of a backup, or the folder, is not as it must be.
pub(super) fn damaged(path: &Path, why: impl ToString) -> BackupError {
    BackupError::Damaged { path: path.to_owned(), why: why.to_string() }
}
