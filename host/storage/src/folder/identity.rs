//! `identity.json`: whose log lies in a data folder.
//!
//! # To ensure correctness
//! A folder that has the file has had a log, from which something may have been acknowledged: without one it is never
//! begun anew. So a first start writes `identity.part`, makes the log, and gives the file its name when the first records
//! are durable, before anything is served. Where it was interrupted the next one goes on with the same identity, whatever
//! lies in the log by then: no entry of a log is ever removed for it. Only where it cannot go on so, since the setting of the
//! segment size is another one by now, and there is no entry in the log, the log and the identity are made anew.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vouch_broker::State;
use vouch_consensus::{ClusterIncarnation, NodeId};
use vouch_files::{appear_durably, create, sync};

use super::holdings::Holdings;
use super::unwritten;
use crate::config::StorageConfig;
use crate::error::{StartError, failed};

/// The identity of a data folder.
pub(crate) const IDENTITY_FILE: &str = "identity.json";
/// The identity of a folder whose first start has not ended.
pub(super) const UNFINISHED_FILE: &str = "identity.part";

/// What must be known before the log can be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FolderIdentity {
    pub(crate) cluster_id: String,
    pub(crate) segment_size: u64,
    /// The node of a cluster that there was that it is made for; `None`: it began one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<u64>,
    /// The life of the cluster that the folder belongs to; 0: its first.
    #[serde(default, skip_serializing_if = "is_default")]
    cluster_incarnation: u32,
    /// That life begins with this node: where the log does not say so yet, the next start writes it.
    #[serde(default, skip_serializing_if = "is_default")]
    begins_incarnation: bool,
}

/// A life of the cluster that begins with a folder's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewLife {
    pub(crate) incarnation: ClusterIncarnation,
    pub(crate) node: NodeId,
}

impl NewLife {
    /// One that no other is like, with the first id that was not given in this state.
    pub(crate) fn after(state: &State) -> Self {
        let incarnation = ClusterIncarnation(rand::random_range(1..=u32::MAX));
        Self { incarnation, node: NodeId(state.nodes().last.0 + 1) }
    }
}

/// Earlier releases know neither of these members, and refuse a folder with them.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl FolderIdentity {
    /// The identity of a folder, and whether its first start has yet to end ([`Self::keep`]).
    ///
    /// # Errors
    /// The folder has held a log that is not there, or holds one and does not say whose; or the setting of the segment
    /// size differs.
    pub(super) fn of_folder(config: &StorageConfig) -> Result<(Self, bool), StartError> {
        match Self::look(config)? {
            Some(found) => Ok(found),
            None => {
                let shard = config.folder();
                unwritten::remove_replica(&shard)?;
                if Holdings::of_folder(&shard)?.segments {
                    unwritten::remove(&shard)?;
                }
                Ok((Self::make(config, &config.data_dir.join(UNFINISHED_FILE))?, true))
            }
        }
    }

    /// The same where nothing may be made: nothing if a start would make a new one.
    ///
    /// # Errors
    /// As [`Self::of_folder`].
    pub(crate) fn look(config: &StorageConfig) -> Result<Option<(Self, bool)>, StartError> {
        let data_dir = &config.data_dir;
        let (path, unfinished) = (data_dir.join(IDENTITY_FILE), data_dir.join(UNFINISHED_FILE));
        let holdings = Holdings::of_folder(&config.folder())?;
        let unknown = |why: &str| StartError::Identity { path: path.clone(), why: why.to_owned() };
        let begun = match Self::read(&path)? {
            Some(identity) if holdings.segments => return Ok(Some((identity.agreeing_with(config)?, false))),
            Some(_) => return Err(log_is_missing(config)),
            // What lies there before the log does is of no use to anybody, and may be torn.
            None if !holdings.segments && !holdings.others => return Ok(None),
            None => Self::read(&unfinished),
        };
        // A smaller segment may be what helps where the disk was too full for the first entry.
        let anew = || Ok::<_, StartError>(!holdings.others && unwritten::is_unwritten(&config.folder())?);
        match begun {
            Ok(Some(identity)) if holdings.segments => match identity.agreeing_with(config) {
                Err(StartError::SegmentSize { .. }) if anew()? => Ok(None),
                agreeing => Ok(Some((agreeing?, true))),
            },
            Ok(Some(_)) => Err(unknown("it is missing, and so is the log, and the folder holds snapshots of one")),
            Ok(None) => Err(unknown("it is missing, and the folder holds a log")),
            Err(StartError::Identity { .. }) if holdings.segments && anew()? => Ok(None),
            Err(_) => Err(unknown("it is missing, identity.part cannot be read, and the folder holds a log")),
        }
    }

    /// The same, unless the setting says another segment size: segments of two sizes make no log. A folder that belongs to a
    /// cluster joins no other, and that of a node becomes no other's.
    fn agreeing_with(self, config: &StorageConfig) -> Result<Self, StartError> {
        if let Some(joins) = &config.joins
            && (self.cluster_id()?, self.incarnation()) != (joins.cluster_id, joins.incarnation)
        {
            return Err(StartError::OfAnotherCluster(config.data_dir.clone()));
        }
        if let Some(joins) = &config.joins
            && self.node != Some(joins.node.0)
        {
            let (path, node) = (config.data_dir.clone(), self.node.unwrap_or(NodeId::FIRST.0));
            return Err(StartError::OfAnotherNode { path, node, token: joins.node.0 });
        }
        match config.segment_size {
            Some(setting) if setting != self.segment_size => {
                Err(StartError::SegmentSize { made_with: self.segment_size, setting })
            }
            _ => Ok(self),
        }
    }

    /// What a file says; `None` if there is no such file.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, StartError> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice::<Self>(&bytes)
                .map(Some)
                .map_err(|error| StartError::Identity { path: path.to_owned(), why: error.to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", path)(error)),
        }
    }

    /// A new one, on the disk before the log is.
    fn make(config: &StorageConfig, unfinished: &Path) -> Result<Self, StartError> {
        let joined = config.joins.as_ref().map(|joins| u128::from_be_bytes(joins.cluster_id));
        let cluster_id = joined.unwrap_or_else(rand::random);
        let identity = Self {
            cluster_id: format!("{cluster_id:032x}"),
            segment_size: config.new_segment_size(),
            node: config.joins.as_ref().map(|joins| joins.node.0),
            cluster_incarnation: config.joins.as_ref().map_or(0, |joins| joins.incarnation.0),
            begins_incarnation: false,
        };
        let write = || -> io::Result<()> {
            let mut file: File = create(unfinished)?;
            file.write_all(&serde_json::to_vec_pretty(&identity)?)?;
            file.sync_all()?;
            sync(&config.data_dir)
        };
        write().map_err(failed("write", unfinished))?;
        Ok(identity)
    }

    /// The life of the cluster that the folder belongs to.
    pub(crate) fn incarnation(&self) -> ClusterIncarnation {
        ClusterIncarnation(self.cluster_incarnation)
    }

    /// The life that begins with the node of this folder, whether the log says so already or not.
    pub(crate) fn begins(&self) -> Option<NewLife> {
        let node = self.node.filter(|_| self.begins_incarnation)?;
        Some(NewLife { incarnation: self.incarnation(), node: NodeId(node) })
    }

    /// Makes the folder that of another node, with which another life of its cluster begins: by one step, and when this returns for
    /// good. Whoever starts it from then on starts that node, which says so in its log first.
    ///
    /// # Errors
    /// What the system says: the folder is as it was, or that of the new node.
    pub(crate) fn begin_anew(self, data_dir: &Path, life: NewLife) -> io::Result<()> {
        let NewLife { incarnation, node } = life;
        let cluster_incarnation = incarnation.0;
        let anew = Self { node: Some(node.0), cluster_incarnation, begins_incarnation: true, ..self };
        let unfinished = data_dir.join(format!("{IDENTITY_FILE}.new"));
        appear_durably(&data_dir.join(IDENTITY_FILE), &unfinished, |file| {
            file.write_all(&serde_json::to_vec_pretty(&anew)?)
        })
    }

    /// Gives the file its name: from now on the folder has had a log. Its first records are durable.
    pub(super) fn keep(data_dir: &Path) -> Result<(), StartError> {
        let path = data_dir.join(IDENTITY_FILE);
        let kept = fs::rename(data_dir.join(UNFINISHED_FILE), &path).and_then(|()| sync(data_dir));
        kept.map_err(failed("write", &path))
    }

    /// The number that each segment of the log names, too.
    ///
    /// # Errors
    /// The file does not say a number: somebody wrote it by hand.
    pub(crate) fn cluster_id(&self) -> Result<[u8; 16], StartError> {
        u128::from_str_radix(&self.cluster_id, 16).map(u128::to_be_bytes).map_err(|error| StartError::Identity {
            path: PathBuf::from(IDENTITY_FILE),
            why: format!("cluster_id is not a number: {error}"),
        })
    }
}

/// The folder was a node's, and its log is gone: a volume that is not mounted looks like this.
fn log_is_missing(config: &StorageConfig) -> StartError {
    let data_dir = &config.data_dir;
    // What lies above it may be what is not mounted.
    let mut missing = config.folder().log();
    let mut found = "holds no segment of a log";
    while !missing.is_dir() && missing != *data_dir {
        found = "is missing";
        match missing.parent() {
            Some(above) if !above.is_dir() => missing = above.to_owned(),
            _ => break,
        }
    }
    StartError::LogMissing { data_dir: data_dir.to_owned(), missing, found }
}
