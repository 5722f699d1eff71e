//! What is left of a cluster whose majority is lost, in the folder of one of its nodes: looked at, and begun anew (ruling 31).

use std::path::{Path, PathBuf};

use vouch_broker::record::FEATURE_LEVEL;
use vouch_broker::{ShardId, State};
use vouch_commitlog::{CommitLog, Entry, LogPosition};
use vouch_consensus::{ClusterIncarnation, NodeId};

use crate::config::StorageConfig;
use crate::error::{StartError, failed};
use crate::folder::{self, FolderIdentity, Folders, IDENTITY_FILE, NewLife};
use crate::known::Known;
use crate::progress::StartProgress;
use crate::replay::{check_feature_level, replay};
use crate::replica::{LogName, ReplicaFile};
use crate::snapshots::{LoadedState, Snapshots};
use crate::undecided::UndecidedTail;

/// Why a cluster does not begin anew from a folder. Nothing is changed.
#[derive(Debug, thiserror::Error)]
pub enum RemainsError {
    /// Name the folder of a node.
    #[error("{} is not the data folder of a Vouch node: it holds no {IDENTITY_FILE}; name the folder with --data-dir", .0.display())]
    NotANode(PathBuf),
    /// Start it.
    #[error(
        "node {node} is the only one of its cluster that votes: nothing of the cluster is missing, and it goes on when it is started \
         (vouch serve --data-dir {})",
        data_dir.display()
    )]
    Complete {
        /// The folder.
        data_dir: PathBuf,
        /// Whose it is.
        node: NodeId,
    },
    /// Take the folder of another node.
    #[error("the folder {} holds nothing of its cluster yet; use that of another node, or restore a backup", .0.display())]
    Empty(PathBuf),
    /// Take the folder of another node, or a backup.
    #[error(
        "the log in {} is damaged: {why}; use the folder of another node, or restore a backup (vouch log verify tells all of it)",
        data_dir.display()
    )]
    Damaged {
        /// The folder.
        data_dir: PathBuf,
        /// The first damage.
        why: String,
    },
    /// What a start would say: a node runs on the folder, for one.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// What is left of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRemains {
    /// The cluster, in hexadecimal digits.
    pub cluster_id: String,
    /// Whose folder it is.
    pub node: NodeId,
    /// Who else belonged to the cluster, as of the end of the log.
    pub others: Vec<NodeId>,
    /// The last term that the node knew.
    pub term: u64,
    /// Everything in the log before this position was known here to be committed.
    pub committed_to: LogPosition,
    /// Where the log ends.
    pub log_end: LogPosition,
    /// Entries between the two: each may have been acknowledged, or not.
    pub undecided: u64,
    /// Leader time of the newest record, milliseconds since 1970.
    pub newest_record_ms: u64,
    /// The node that goes on with it.
    pub new_node: NodeId,
    /// The life of the cluster that begins with that.
    pub incarnation: ClusterIncarnation,
}

/// What is left of a cluster, and the folder, held as long as this lives.
pub struct HeldRemains {
    /// What is there, and what would become of it.
    pub found: ClusterRemains,
    identity: FolderIdentity,
    data_dir: PathBuf,
    /// Last: nobody starts the folder before all of it is done.
    _folders: Folders,
}

impl HeldRemains {
    /// Takes the folder of a node that does not run, and looks at what is there: it is read as a start would read it.
    ///
    /// # Errors
    /// See [`RemainsError`].
    pub fn look(data_dir: &Path) -> Result<Self, RemainsError> {
        let Some(identity) = FolderIdentity::read(&data_dir.join(IDENTITY_FILE))? else {
            return Err(RemainsError::NotANode(data_dir.to_owned()));
        };
        let config = StorageConfig::of_folder(data_dir);
        let folders = folder::open(&config, &StartProgress::default())?;
        let found = look(&config, &identity)?;
        Ok(Self { found, identity, data_dir: data_dir.to_owned(), _folders: folders })
    }

    /// Makes the folder that of the new node, with which the cluster begins anew: by one step, which is on the disk when this
    /// returns. Its next start says so in the log.
    ///
    /// # Errors
    /// What the system says: the folder is as it was, or that of the new node.
    pub fn begin_anew(self) -> Result<ClusterRemains, RemainsError> {
        let Self { found, identity, data_dir, _folders } = self;
        let life = NewLife { incarnation: found.incarnation, node: found.new_node };
        identity.begin_anew(&data_dir, life).map_err(failed("write", &data_dir.join(IDENTITY_FILE)))?;
        Ok(found)
    }
}

fn look(config: &StorageConfig, identity: &FolderIdentity) -> Result<ClusterRemains, RemainsError> {
    let data_dir = config.data_dir.clone();
    let mut log = config.log(identity.segment_size);
    (log.directory, log.cluster_id) = (config.folder().log(), identity.cluster_id()?);
    let name = LogName { cluster_id: log.cluster_id, shard: config.shard };
    let snapshots = Snapshots::of_folder(config.folder().snapshots());
    let known = Known::of_shard(&config.folder(), name, &snapshots)?;
    let note = ReplicaFile::look(&config.folder(), name).map_err(StartError::from)?;
    known.tell(&mut log);
    let mut below = LogPosition::BEYOND;
    let (mut state, checkpoint, opened) = loop {
        let newest = snapshots.newest_below(below).map_err(failed("read", &config.folder().snapshots()))?;
        let (state, checkpoint) = match newest {
            Some(LoadedState { checkpoint, state }) => (state, Some(checkpoint)),
            None => (State::default(), None),
        };
        log.checkpoint = checkpoint;
        let from = checkpoint.map_or(LogPosition::START, |checkpoint| checkpoint.position);
        let opened = CommitLog::open_read_only(&log, from, &mut |_| ()).map_err(StartError::from)?;
        match checkpoint {
            // One of another history, as a start passes it over.
            Some(known) if opened.reader.checkpoint_at(known.position).ok() != Some(known) => below = known.end,
            _ => break (state, checkpoint, opened),
        }
    };
    let damaged = |why: String| RemainsError::Damaged { data_dir: data_dir.clone(), why };
    if let Some(first) = opened.verification.damage.first() {
        return Err(damaged(first.to_string()));
    }
    if checkpoint.is_none() && opened.verification.start > LogPosition::START {
        let snapshots = config.folder().snapshots();
        return Err(StartError::NoSnapshot { start: opened.verification.start, snapshots }.into());
    }
    // What a cut takes that is under way was never committed, and a start goes on with it.
    let end = known.copied_to(false).min(opened.verification.end);
    let (mut tail, mut term) = (UndecidedTail::default(), note.as_ref().map_or(0, |note| note.term));
    let mut committed_to = known.stays().min(end);
    let apply = |state: &mut State, entry: &Entry| replay(state, entry).map_err(|why| damaged(why.to_string()));
    for entry in opened.reader.entries_from(checkpoint.map_or(opened.verification.start, |checkpoint| checkpoint.end)) {
        let entry = entry.map_err(|why| damaged(why.to_string()))?;
        if entry.end > end {
            break;
        }
        term = term.max(entry.term);
        let decided = if entry.index > known.committed { tail.take(entry) } else { vec![entry] };
        for entry in decided {
            committed_to = committed_to.max(entry.end);
            apply(&mut state, &entry)?;
        }
    }
    let decided = state.members().clone();
    let undecided = tail.into_entries();
    undecided.iter().try_for_each(|entry| apply(&mut state, entry).map(drop))?;
    if state.cluster().init.is_none() {
        return Err(RemainsError::Empty(data_dir));
    }
    check_feature_level(&state, config.feature_level)?;
    let node = note.map_or_else(|| identity.node.map_or(NodeId::FIRST, NodeId), |note| note.node);
    if decided.is_only(node) && state.members().is_only(node) {
        return Err(RemainsError::Complete { data_dir, node });
    }
    let NewLife { incarnation, node: new_node } = NewLife::after(&state);
    Ok(ClusterRemains {
        cluster_id: identity.cluster_id.clone(),
        node,
        others: state.members().all().into_iter().filter(|other| *other != node).collect(),
        term,
        committed_to,
        log_end: end,
        undecided: undecided.len() as u64,
        newest_record_ms: state.cluster().clock.0,
        new_node,
        incarnation,
    })
}

impl StorageConfig {
    /// What a tool that holds the folder of a node has to say of it: everything as it is.
    fn of_folder(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            shard: ShardId::FIRST,
            segment_size: None,
            zero_ahead: vouch_commitlog::DEFAULT_ZERO_AHEAD,
            syncs_in_flight: vouch_commitlog::DEFAULT_SYNCS_IN_FLIGHT,
            disk_high_water: 100,
            disk_limit: None,
            on_damage: crate::config::OnDamage::Refuse,
            joins: None,
            feature_level: FEATURE_LEVEL,
        }
    }
}
