//! Gathers what another node offers, beside the shard's own folder.

use vouch_commitlog::LogPosition;
use vouch_consensus::{ClusterIncarnation, NodeId};

use super::PullError;
use super::folder_disk::FolderDisk;
use super::gathering::{Gathering, MissingFile};
use super::offer::PullOffer;
use super::own::own_log;
use crate::config::StorageConfig;
use crate::error::StartError;
use crate::folder::{self, Folders};
use crate::progress::StartProgress;
use crate::replica::{LogName, ReplicaFile};

/// The folder of a member that pulls, held as long as this lives: no replica of it runs.
pub struct PullStage {
    gathering: Gathering<FolderDisk>,
    folders: Folders,
}

impl PullStage {
    /// Takes the folder of a node that is one of several. `damaged`: positions of its log that cannot be read.
    ///
    /// # Errors
    /// It is not the folder of such a node, or somebody else holds it: see [`crate::open`].
    pub fn of_folder(
        config: &StorageConfig,
        damaged: &[LogPosition],
        progress: &StartProgress,
    ) -> Result<Self, StartError> {
        let folders = folder::open(config, progress)?;
        let identity = folders.identity();
        let (here, segment_size) = (config.folder(), identity.segment_size);
        let name = LogName { cluster_id: identity.cluster_id()?, shard: config.shard };
        let note = ReplicaFile::look(&here, name)?.filter(|note| note.member);
        let note = note.ok_or_else(|| StartError::MemberWithoutNote(here.replica()))?;
        let own = own_log(config, (name, segment_size), &note, progress)?;
        let gathering = Gathering::new(FolderDisk::of(here), (name, segment_size), note, own, damaged);
        Ok(Self { gathering, folders })
    }

    /// Who pulls.
    pub fn node(&self) -> NodeId {
        self.gathering.note.node
    }

    /// The latest term that its replica noted.
    pub fn term(&self) -> u64 {
        self.gathering.term()
    }

    /// Which start of its folder was the last one.
    pub fn incarnation(&self) -> u64 {
        self.gathering.note.incarnation
    }

    /// The life of the cluster that the folder belongs to.
    pub fn cluster_incarnation(&self) -> ClusterIncarnation {
        self.folders.incarnation()
    }

    /// Whose log it is.
    pub fn cluster_id(&self) -> [u8; 16] {
        self.gathering.name.cluster_id
    }

    /// See [`Gathering::take`].
    ///
    /// # Errors
    /// See there.
    pub fn take(&mut self, offer: &PullOffer) -> Result<Vec<MissingFile>, PullError> {
        self.gathering.take(offer)
    }

    /// See [`Gathering::blames_other`].
    pub fn blames_other(&self) -> bool {
        self.gathering.blames_other()
    }

    /// See [`Gathering::append`].
    ///
    /// # Errors
    /// See there.
    pub fn append(&mut self, missing: &MissingFile, bytes: &[u8]) -> Result<(), PullError> {
        self.gathering.append(missing, bytes)
    }

    /// See [`Gathering::finish`].
    ///
    /// # Errors
    /// See there.
    pub fn finish(&mut self, offer: &PullOffer, progress: &StartProgress) -> Result<(), PullError> {
        self.gathering.finish(offer, progress)
    }

    /// Lets go of the folder.
    pub fn end(self) {
        drop(self.folders);
    }
}
