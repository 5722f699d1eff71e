//! Why a node does not start.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vouch_broker::NotDone;
use vouch_commitlog::{LogPosition, OpenError};

use crate::replica::ReplicaError;
use crate::version::VERSION;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Stop the other process, or use another folder.
    #[error("the data folder {} is in use by {holder}; stop it, or choose another folder with --data-dir", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who holds it, as far as that is known.
        holder: String,
    },
    /// Let the tool end, then start again.
    #[error("the data folder {} was held by {holder} for {} s; let that end, then start again", path.display(), waited.as_secs())]
    ToolHolds {
        /// The folder.
        path: PathBuf,
        /// Who holds it, as far as that is known.
        holder: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Choose another folder: what is in this one is somebody's.
    #[error(
        "{} holds {found} and no node of Vouch; choose a folder that is empty or does not exist (only lost+found and hidden \
         files may be there)",
        path.display()
    )]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// Something in it.
        found: String,
    },
    /// Restore it into a folder of its own: a node would change it.
    #[error(
        "{folder} is a backup, or one that was cut short, and a node would change it; put it back with: vouch restore \
         {folder} --data-dir DIR",
        folder = .0.display()
    )]
    IsBackup(PathBuf),
    /// Remove what is left, and restore again.
    #[error("a restore is under way here or was cut short: {} is left of it; remove that and restore again", .0.display())]
    UnfinishedRestore(PathBuf),
    /// Begin anew with an empty folder and a new token.
    #[error(
        "the node whose folder {} is was removed from its cluster, and does not start again; to be one of it again, begin with \
         an empty folder and a new token (`vouch cluster add`). What was acknowledged is on the other nodes",
        .0.display()
    )]
    Removed(PathBuf),
    /// Let another node take its place; keep the folder until that votes.
    #[error(
        "the node whose folder {} is knew something else than a majority of its cluster's voters, as the file `differs` there says, and does \
         not start again: let a new node take its place (`vouch cluster replace`, at another node), which begins with a folder of its own, \
         and keep this one until the new node votes: what its log holds may be needed until then",
        .0.display()
    )]
    Differs(PathBuf),
    /// Make a copy of its own: two nodes would write into one file.
    #[error(
        "{} has another name as well (a hard link): it lies in the log of another folder, too, and a node would change it \
         there; make a copy of its own, with: vouch backup, or cp -a without -l, and remove the other name",
        .0.display()
    )]
    SharedSegment(PathBuf),
    /// Mount the volume that is missing, or restore a backup.
    #[error(
        "{} {found}, but identity.json says that there was a log: if it lies on a volume of its own, mount that; otherwise \
         restore the folder from a backup. To begin anew without what was stored, choose a folder other than {}",
        missing.display(),
        data_dir.display()
    )]
    LogMissing {
        /// The data folder.
        data_dir: PathBuf,
        /// The folder that is not as it was.
        missing: PathBuf,
        /// What is wrong with it.
        found: &'static str,
    },
    /// The system refuses; the text says what.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The identity of the folder cannot be read.
    #[error("{} cannot be read: {why}; restore it from a backup, or move the folder away to begin anew", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The setting differs from what the log was made with.
    #[error(
        "the log in this folder has segments of {made_with} bytes, the setting says {setting}; leave the setting out"
    )]
    SegmentSize {
        /// In the folder.
        made_with: u64,
        /// In the configuration.
        setting: u64,
    },
    /// Join with another folder, or leave the token out.
    #[error(
        "the folder {} belongs to another cluster than the one that the token is of; a node joins a cluster with a folder that is \
         empty or does not exist",
        .0.display()
    )]
    OfAnotherCluster(PathBuf),
    /// The same.
    #[error(
        "the folder {} is that of node {node} already, and the token is for node {token}; leave out the token and --join to \
         start that node, or choose a folder that is empty",
        path.display()
    )]
    OfAnotherNode {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        node: u64,
        /// Whom the token is for.
        token: u64,
    },
    /// Put back what belongs together.
    #[error(
        "the log in {} belongs to another life of its cluster than identity.json: files of two data folders were put together; put back \
         what belongs together, or restore a backup into another folder",
        .0.display()
    )]
    OfAnotherLife(PathBuf),
    /// Put the file back, or let the node join anew.
    #[error(
        "{} does not say what this node noted as a member of its cluster, which has or had others: without that it could vote twice, \
         or go on alone. Put the file back as it was; or remove the node (`vouch cluster remove`), and let one with an empty folder \
         join in its place. A folder that was restored from a backup of a cluster's node cannot start in this version",
        .0.display()
    )]
    MemberWithoutNote(PathBuf),
    /// The setting leaves no room for a log.
    #[error(
        "disk_limit is {limit} bytes, which segments of {segment_size} bytes would fill at once; set at least {least}, or \
         begin a new folder with a smaller segment_size"
    )]
    DiskLimit {
        /// The setting.
        limit: u64,
        /// What it must be at least.
        least: u64,
        /// Bytes in a segment of this log.
        segment_size: u64,
    },
    /// What the replica noted of itself cannot be gone by.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The log does not open.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// Restore a backup, or start with [`crate::OnDamage::ReadOnly`] to read what is whole.
    #[error(
        "{0}; `vouch log verify` tells all of it, and `vouch serve --on-damage read-only` serves what is whole until it \
         is restored"
    )]
    Damaged(OpenError),
    /// Restore a backup: what is whole of the log does not say what happened.
    #[error("the log is damaged, and nothing of it can be served: {0}; restore the folder from a backup")]
    NothingCertain(String),
    /// The log is of a newer version.
    #[error(
        "the log needs feature level {found} (written by Vouch {version}); this is Vouch {VERSION} with level {knows}: start a newer version"
    )]
    FeatureLevel {
        /// Needed.
        found: u32,
        /// The newest that this node knows.
        knows: u32,
        /// Who wrote it.
        version: String,
    },
    /// Restore a backup, or start with [`crate::OnDamage::ReadOnly`] to read what is whole: what lies in the log alone does
    /// not say what happened before it.
    #[error(
        "the log begins at position {start}, its older segments are gone, and no snapshot in {} can be read (see the warnings \
         above); if that lies on a volume of its own, mount it; `vouch log verify` tells which files are damaged, and `vouch \
         serve --on-damage read-only` serves what is whole until the folder is restored from a backup",
        snapshots.display()
    )]
    NoSnapshot {
        /// First position of the log.
        start: LogPosition,
        /// Folder of the snapshots.
        snapshots: PathBuf,
    },
    /// What a start proposes first was not stored.
    #[error("the log cannot be written: {}", why(.0))]
    FirstRecords(NotDone),
    /// What was recovered is no beginning for a replica.
    #[error("the log cannot be led: {0}")]
    Group(String),
    /// The components' folder or engine does not start.
    #[error("plugins cannot run: {0}")]
    Plugins(String),
    /// Correct the setting that it names: the others of the cluster cannot be spoken with.
    #[error("the other nodes of a cluster cannot be reached: {0}")]
    Peers(String),
    /// Do what the cluster says; a new token needs an empty folder.
    #[error("the cluster does not let this node in: {0}")]
    JoinRefused(String),
    /// Start it with the token that it began with, or begin anew with an empty folder and a new one: the folder, and the node's id.
    #[error(
        "the folder {0} is that of node {1} and has nothing of its cluster's log: it was not let in yet, or was wiped; start it with --join \
         and the token file that it began with, and where that is refused, begin anew with an empty folder and a new token (`vouch cluster \
         add`, or `vouch cluster replace` where node {1} voted)"
    )]
    NotLetIn(PathBuf, u64),
    /// A thread does not start.
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
    /// Whoever wanted the node said that it is not wanted any more ([`StartProgress::give_up`]).
    #[error("the start was given up before the log was recovered")]
    GivenUp,
}

/// For `map_err`: what was tried with which file. The action is a verb that follows *cannot*.
pub(crate) fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StartError + 'a {
    move |source| StartError::Io { action, path: path.to_owned(), source }
}

/// Without advice for those who send.
fn why(not_done: &NotDone) -> String {
    match not_done {
        NotDone::Unknown(why) => why.clone(),
        other => other.to_string(),
    }
}
