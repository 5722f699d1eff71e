//! From a path to a folder that a node may write to: what is in it, who else uses it, what is made.

use std::fs;
use std::path::{Path, PathBuf};

use vouch_consensus::{ClusterIncarnation, NodeId};
use vouch_files::{create_dir_all, sync_with_those_above};

use super::identity::FolderIdentity;
use super::lock::{FolderLock, in_use};
use super::possible;
use super::private::tighten;
use super::refusals::{refuse_others, refuse_shared_segments};
use crate::config::StorageConfig;
use crate::error::{StartError, failed};
use crate::progress::StartProgress;
use crate::pull;
use crate::replica::{LogName, ReplicaFile};

/// A data folder that is held as long as this lives.
pub struct Folders {
    lock: FolderLock,
    identity: FolderIdentity,
    /// This is its first start, which [`Self::begun`] ends.
    first: bool,
    data_dir: PathBuf,
}

/// Looks at a data folder, takes it, and makes what is missing in it. Nothing is made or changed before it is certain that
/// it is a node's, or may become one.
pub(crate) fn open(config: &StorageConfig, progress: &StartProgress) -> Result<Folders, StartError> {
    let dir = &config.data_dir;
    refuse_others(dir)?;
    make(dir)?;
    let mut lock = FolderLock::exclusive(dir, progress)?;
    // A restore may have ended just before.
    refuse_others(dir)?;
    tighten(dir);
    pull::finish(&config.folder())?;
    let (identity, first) = FolderIdentity::of_folder(config)?;
    config.check_disk_limit(identity.segment_size)?;
    let shard = config.folder();
    let log = shard.log();
    for folder in [&log, &shard.snapshots()] {
        create_dir_all(folder).map_err(failed("create", folder))?;
    }
    if first {
        // The names of these folders must be as durable as what is acknowledged in them.
        sync_with_those_above(shard.path()).map_err(failed("sync", shard.path()))?;
    } else {
        lock.hold_identity()?;
    }
    lock.hold_log(&log)?;
    refuse_shared_segments(&log)?;
    Ok(Folders { lock, identity, first, data_dir: dir.clone() })
}

/// Refuses what [`open`] would refuse of a data folder, and changes nothing. Who is at work in it is not asked: that ends.
pub(crate) fn look(config: &StorageConfig) -> Result<(), StartError> {
    let dir = &config.data_dir;
    refuse_others(dir)?;
    possible::look(dir)?;
    if pull::is_between(&config.folder()) {
        return Ok(());
    }
    let segment_size = match FolderIdentity::look(config) {
        Ok(Some((identity, _))) => {
            ReplicaFile::look(&config.folder(), LogName { cluster_id: identity.cluster_id()?, shard: config.shard })?;
            identity.segment_size
        }
        Ok(None) => config.new_segment_size(),
        Err(error @ StartError::SegmentSize { .. }) => return Err(error),
        // A restore or a first start may be under way, and a start would wait for it or name it.
        Err(_) if in_use(dir).is_some() => return Ok(()),
        Err(error) => return Err(error),
    };
    config.check_disk_limit(segment_size)?;
    let log = config.folder().log();
    // What a pull left has some of its segments under two names, until the next start tidies it.
    if log.is_dir() && !pull::is_under_way(&config.folder()) { refuse_shared_segments(&log) } else { Ok(()) }
}

impl Folders {
    /// Whose log lies in it.
    pub(crate) fn identity(&self) -> &FolderIdentity {
        &self.identity
    }

    /// The cluster that the folder's log belongs to.
    ///
    /// # Errors
    /// `identity.json` names none.
    pub fn cluster_id(&self) -> Result<[u8; 16], StartError> {
        self.identity.cluster_id()
    }

    /// Id of the node whose folder it is.
    pub fn node(&self) -> NodeId {
        self.identity.node.map_or(NodeId::FIRST, NodeId)
    }

    /// The life of the cluster that the folder belongs to.
    pub fn incarnation(&self) -> ClusterIncarnation {
        self.identity.incarnation()
    }

    /// Looks whether all that is held still lies where it lay.
    ///
    /// # Errors
    /// It does not, and another node may be at work by now: nothing may be written any more. The text says what happened,
    /// and what to do.
    pub fn look(&mut self) -> Result<(), String> {
        self.lock.look()
    }

    /// The log's first records are durable: from now on the folder has had a log. Nothing is done where it had one before.
    ///
    /// # Errors
    /// That cannot be noted in it.
    pub fn begun(&mut self) -> Result<(), StartError> {
        if std::mem::take(&mut self.first) {
            FolderIdentity::keep(&self.data_dir)?;
            self.lock.hold_identity()?;
        }
        Ok(())
    }
}

/// Makes the folder; those above it are others' business.
fn make(dir: &Path) -> Result<(), StartError> {
    if let Some(above) = dir.parent() {
        fs::create_dir_all(above).map_err(failed("create", above))?;
    }
    create_dir_all(dir).map_err(failed("create", dir))
}
