//! Gathers what another node offers, beside the shard's own folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use vouch_commitlog::LogPosition;
use vouch_consensus::{ClusterIncarnation, NodeId};
use vouch_files::{create_dir_all, sync, write};

use super::PullError;
use super::error::failed;
use super::offer::{OfferedFile, OwnLog, PullOffer};
use super::own::own_log;
use super::staged::{StagedFile, length_of};
use super::take_place::{COMPLETE, gathered, take_place};
use crate::backup::{self, BackupProgress, ExpectedShard, check_shard};
use crate::config::StorageConfig;
use crate::error::StartError;
use crate::folder::{self, Folders};
use crate::layout::ShardFolder;
use crate::progress::{StartProgress, StartStep};
use crate::replica::{LogName, ReplicaFile, ReplicaNote};
use crate::space::Space;

/// A stretch of a file that is still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingFile {
    file: OfferedFile,
    /// The first byte that is missing.
    pub from: u64,
}

impl MissingFile {
    /// What to ask the other node for.
    pub fn source(&self) -> &str {
        &self.file.source
    }

    /// Where what counts of it ends.
    pub fn end(&self) -> u64 {
        self.file.data
    }
}

/// The folder of a member that pulls, held as long as this lives: no replica of it runs.
pub struct PullStage {
    here: ShardFolder,
    gathered: ShardFolder,
    name: LogName,
    segment_size: u64,
    note: ReplicaNote,
    own: OwnLog,
    /// Segments of its own that are not whole; `None`: none of them is believed.
    damaged: Option<BTreeSet<LogPosition>>,
    /// A file that is being written, and which.
    open: Option<(PathBuf, StagedFile)>,
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
        let segment_of = |position: &LogPosition| LogPosition(position.0 - position.0 % segment_size);
        let damaged = Some(damaged.iter().map(segment_of).collect());
        Ok(Self { gathered: gathered(&here), here, name, segment_size, note, own, damaged, open: None, folders })
    }

    /// Who pulls.
    pub fn node(&self) -> NodeId {
        self.note.node
    }

    /// Which start of its folder was the last one.
    pub fn incarnation(&self) -> u64 {
        self.note.incarnation
    }

    /// The life of the cluster that the folder belongs to.
    pub fn cluster_incarnation(&self) -> ClusterIncarnation {
        self.folders.incarnation()
    }

    /// Whose log it is.
    pub fn cluster_id(&self) -> [u8; 16] {
        self.name.cluster_id
    }

    /// Takes an offer: keeps what was gathered before and belongs to it, adds what this node has itself, and says what is missing, in
    /// the order in which it is to be asked for.
    ///
    /// # Errors
    /// It is not for this log, or ends too early.
    pub fn take(&mut self, offer: &PullOffer) -> Result<Vec<MissingFile>, PullError> {
        let id = backup::hexadecimal(&self.name.cluster_id);
        if offer.cluster_id != id || offer.segment_size != self.segment_size {
            return Err(PullError::Offer(format!("it is of the log of cluster {}", offer.cluster_id)));
        }
        offer.replaces(&mut self.own)?;
        self.open = None;
        for folder in [self.gathered.log(), self.gathered.snapshots()] {
            create_dir_all(&folder).map_err(failed("create", &folder))?;
        }
        remove_if_there(&self.gathered.path().join(COMPLETE))?;
        self.keep_what_belongs_to(offer)?;
        let mut missing = Vec::new();
        for file in &offer.files {
            self.add_own(file)?;
            let from = length_of(&self.place(file))?;
            if from < file.data || !self.place(file).exists() {
                missing.push(MissingFile { file: file.clone(), from });
            }
        }
        self.has_room_for(&missing)?;
        Ok(missing)
    }

    /// Whether segments of this node's own are still kept: after something was unsound none is.
    pub fn believes_itself(&self) -> bool {
        self.damaged.is_some()
    }

    /// Snapshots and parts lie on the disk twice.
    fn has_room_for(&self, missing: &[MissingFile]) -> Result<(), PullError> {
        let needed =
            missing.iter().map(|file| (file.end() - file.from) * if file.file.segment().is_none() { 2 } else { 1 });
        let (needed, folder): (u64, _) = (needed.sum(), self.gathered.path());
        let Space { used, total } = Space::of_folder(folder).map_err(failed("measure the disk of", folder))?;
        let free = total.saturating_sub(used);
        if needed <= free { Ok(()) } else { Err(PullError::NoRoom { needed, free }) }
    }

    /// Puts bytes behind what is there of a file.
    ///
    /// # Errors
    /// The system refuses.
    pub fn append(&mut self, missing: &MissingFile, bytes: &[u8]) -> Result<(), PullError> {
        let path = self.place(&missing.file);
        if self.open.as_ref().is_none_or(|(open, _)| *open != path) {
            self.open = Some((path.clone(), StagedFile::open(&path)?));
        }
        let (_, file) = self.open.as_mut().expect("it was opened just now");
        file.append(bytes)
    }

    /// All of the offer is there: reads it as a start would, and lets it take the place of what this node had.
    ///
    /// # Errors
    /// [`PullError::Unsound`]: all that was gathered is thrown away, and nothing of its own is believed any more. The node has what
    /// it had.
    pub fn finish(&mut self, offer: &PullOffer, progress: &StartProgress) -> Result<(), PullError> {
        self.open = None;
        for file in &offer.files {
            let path = self.place(file);
            let opened = fs::File::options().write(true).open(&path).map_err(failed("open", &path))?;
            opened.set_len(file.length).and_then(|()| opened.sync_all()).map_err(failed("write", &path))?;
        }
        let expected = ExpectedShard {
            cluster_id: self.name.cluster_id,
            segment_size: offer.segment_size,
            log_start: LogPosition(offer.log_start),
            log_end: LogPosition(offer.log_end),
            snapshot: offer.snapshot.map(LogPosition),
        };
        let mut checks = |BackupProgress { done_bytes, total_bytes, .. }: BackupProgress| {
            progress.enter(StartStep::Checking { done_bytes, total_bytes });
        };
        let checked = match check_shard(&self.gathered, &expected, &mut checks) {
            Ok(checked) => checked,
            Err(why) => {
                self.throw_away()?;
                return Err(PullError::Unsound(why.to_string()));
            }
        };
        if checked.last.index < offer.by.last_index {
            let why = format!("its last entry is {}, and not {}", checked.last.index, offer.by.last_index);
            self.throw_away()?;
            return Err(PullError::Unsound(why));
        }
        self.note = ReplicaFile::pulled(&self.gathered, self.name, &self.note, checked.last, expected.log_end)?;
        let complete = self.gathered.path().join(COMPLETE);
        write(&complete, &[]).map_err(failed("write", &complete))?;
        for folder in [self.gathered.log(), self.gathered.snapshots(), self.gathered.path().to_owned()] {
            sync(&folder).map_err(failed("sync", &folder))?;
        }
        take_place(&self.here)
    }

    /// Lets go of the folder.
    pub fn end(self) {
        drop(self.folders);
    }

    fn place(&self, file: &OfferedFile) -> PathBuf {
        self.gathered.path().join(&file.path)
    }

    /// Files of earlier offers go, but for segments that this one names, too: what is committed is the same wherever it comes from.
    /// Snapshots and parts of one node are not those of another, though they may have the same names.
    fn keep_what_belongs_to(&self, offer: &PullOffer) -> Result<(), PullError> {
        let snapshots = self.gathered.snapshots();
        for path in list(&snapshots)? {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        let log = self.gathered.log();
        for path in list(&log)? {
            let offered = offer.files.iter().find(|file| self.place(file) == path);
            if offered.is_none_or(|file| length_of(&path).is_ok_and(|length| length > file.data)) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Gives a segment of this node's own a second name in the gathered folder, if all of it was committed and nothing is known to be
    /// wrong with it.
    fn add_own(&self, file: &OfferedFile) -> Result<(), PullError> {
        let (Some(start), Some(damaged)) = (file.segment().filter(|_| file.is_full()), &self.damaged) else {
            return Ok(());
        };
        let (own, place) = (self.here.segment(start), self.place(file));
        let is_committed = start.plus(file.length) <= self.note.commit.position;
        if !is_committed || damaged.contains(&start) || length_of(&own)? != file.length {
            return Ok(());
        }
        remove_if_there(&place)?;
        fs::hard_link(&own, &place).map_err(failed("keep", &own))
    }

    fn throw_away(&mut self) -> Result<(), PullError> {
        self.damaged = None;
        let gathered = self.gathered.path();
        fs::remove_dir_all(gathered).map_err(failed("remove", gathered))
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, PullError> {
    let names = fs::read_dir(folder).map_err(failed("list", folder))?;
    names.map(|name| name.map(|name| name.path()).map_err(failed("list", folder))).collect()
}

fn remove_if_there(path: &Path) -> Result<(), PullError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}
