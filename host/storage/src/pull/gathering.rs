//! What is gathered from another node's offer, and what of a node's own stays: decided here, whatever disk it lies on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use vouch_commitlog::{LogPosition, NoteFile};
use vouch_consensus::EntryId;

use super::PullError;
use super::offer::{OfferedFile, PullOffer, StoppedLog};
use super::take_place::{PlaceDisk, take_place};
use crate::backup::{self, ExpectedShard};
use crate::progress::StartProgress;
use crate::replica::{LogName, ReplicaFile, ReplicaNote};

/// So often a segment that is not whole is thrown away by itself: if it comes no better, one beside it may be what is wrong.
const THROWN_BY_ITSELF: u32 = 2;

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

/// The disk of a node that pulls: what its shard has, and what is gathered beside that. Files are called as in [`OfferedFile::path`].
///
/// # To ensure correctness
/// What [`Self::settle`] and [`Self::complete`] did is durable when they return.
pub trait PullDisk: PlaceDisk {
    /// There is a place to gather files in, and nothing says that all of them are there.
    ///
    /// # Errors
    /// The system refuses, as for all that follows.
    fn prepare(&mut self) -> Result<(), PullError>;

    /// What lies there.
    ///
    /// # Errors
    /// See above.
    fn gathered(&self) -> Result<Vec<PathBuf>, PullError>;

    /// Bytes of a gathered file; `None` where it is missing.
    ///
    /// # Errors
    /// See above.
    fn length(&self, path: &Path) -> Result<Option<u64>, PullError>;

    /// Takes a gathered file away.
    ///
    /// # Errors
    /// See above.
    fn remove(&mut self, path: &Path) -> Result<(), PullError>;

    /// Bytes of a file of the node's own; 0 where it is missing.
    ///
    /// # Errors
    /// See above.
    fn own_length(&self, path: &Path) -> Result<u64, PullError>;

    /// Lets a file of the node's own be a gathered one, too, in place of what was gathered of it.
    ///
    /// # Errors
    /// See above.
    fn keep_own(&mut self, path: &Path) -> Result<(), PullError>;

    /// Whether so many bytes more have room.
    ///
    /// # Errors
    /// [`PullError::NoRoom`], or see above.
    fn has_room_for(&self, bytes: u64) -> Result<(), PullError>;

    /// Puts bytes behind what is there of a gathered file.
    ///
    /// # Errors
    /// See above.
    fn append(&mut self, path: &Path, bytes: &[u8]) -> Result<(), PullError>;

    /// A gathered file is as long as it must be, and durable.
    ///
    /// # Errors
    /// See above.
    fn settle(&mut self, path: &Path, length: u64) -> Result<(), PullError>;

    /// Reads all that was gathered as a start would. Gives the last entry.
    ///
    /// # Errors
    /// Why a start would not go on with it.
    fn check(&mut self, expected: &ExpectedShard, progress: &StartProgress) -> Result<EntryId, String>;

    /// Where those segments begin, of what was gathered, that are not whole: asked where a start would not go on. Nothing where that
    /// cannot be told.
    fn broken_segments(&mut self, expected: &ExpectedShard) -> Vec<LogPosition>;

    /// The file beside what was gathered in which a replica keeps its note.
    ///
    /// # Errors
    /// See above.
    fn note(&mut self) -> Result<NoteFile, PullError>;

    /// Says that all is there, once the names of all files are durable, too.
    ///
    /// # Errors
    /// See above.
    fn complete(&mut self) -> Result<(), PullError>;

    /// Takes away all that was gathered.
    ///
    /// # Errors
    /// See above.
    fn throw_away(&mut self) -> Result<(), PullError>;
}

/// A member that gathers what it lacks, while no replica of it runs.
pub struct Gathering<D> {
    pub(super) disk: D,
    pub(super) name: LogName,
    segment_size: u64,
    pub(super) note: ReplicaNote,
    own: StoppedLog,
    /// Segments of its own that are not whole; `None`: none of them is believed.
    damaged: Option<BTreeSet<LogPosition>>,
    /// Segments of its own that are among those which were gathered last.
    kept: BTreeSet<LogPosition>,
    /// Segments that were thrown away by themselves, and how often.
    thrown: BTreeMap<LogPosition, u32>,
    /// What was unsound last came from another node.
    blames_other: bool,
}

impl<D: PullDisk> Gathering<D> {
    /// `note`: what its replica noted, which goes along. `damaged`: positions of its log that cannot be read.
    pub fn new(
        disk: D,
        (name, segment_size): (LogName, u64),
        note: ReplicaNote,
        own: StoppedLog,
        damaged: &[LogPosition],
    ) -> Self {
        let segment_of = |position: &LogPosition| LogPosition(position.0 - position.0 % segment_size);
        let damaged = Some(damaged.iter().map(segment_of).collect());
        let (kept, thrown, blames_other) = (BTreeSet::new(), BTreeMap::new(), false);
        Self { disk, name, segment_size, note, own, damaged, kept, thrown, blames_other }
    }

    /// The latest term that the node's replica noted.
    pub fn term(&self) -> u64 {
        self.note.term
    }

    /// The disk.
    pub fn disk(&mut self) -> &mut D {
        &mut self.disk
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
        offer.by.replaces(&mut self.own)?;
        if offer.is_word() {
            return Err(PullError::Offer("it gives no files, since its own are damaged".to_owned()));
        }
        self.disk.prepare()?;
        self.keep_what_belongs_to(offer)?;
        self.kept.clear();
        let mut missing = Vec::new();
        for file in &offer.files {
            self.add_own(file)?;
            let there = self.disk.length(Path::new(&file.path))?;
            let from = there.unwrap_or(0);
            if from < file.data || there.is_none() {
                missing.push(MissingFile { file: file.clone(), from });
            }
        }
        // Snapshots and parts lie on the disk twice.
        let needed = |file: &MissingFile| (file.end() - file.from) * if file.file.segment().is_none() { 2 } else { 1 };
        self.disk.has_room_for(missing.iter().map(needed).sum())?;
        Ok(missing)
    }

    /// Whether what was unsound last came from another node: of this node's own files those are not used any more that were not whole.
    pub fn blames_other(&self) -> bool {
        self.blames_other
    }

    /// Puts bytes behind what is there of a file.
    ///
    /// # Errors
    /// The system refuses.
    pub fn append(&mut self, missing: &MissingFile, bytes: &[u8]) -> Result<(), PullError> {
        self.disk.append(Path::new(&missing.file.path), bytes)
    }

    /// All of the offer is there: reads it as a start would, and lets it take the place of what this node had.
    ///
    /// # Errors
    /// [`PullError::Unsound`]: segments that are not whole are thrown away, and come again, best from another node; where nobody can
    /// tell which these are, all that was gathered is, and nothing of this node's own is believed any more. It has what it had.
    pub fn finish(&mut self, offer: &PullOffer, progress: &StartProgress) -> Result<(), PullError> {
        for file in &offer.files {
            self.settle(file)?;
        }
        let expected = ExpectedShard {
            cluster_id: self.name.cluster_id,
            segment_size: offer.segment_size,
            log_start: LogPosition(offer.log_start),
            log_end: LogPosition(offer.log_end),
            snapshot: offer.snapshot.map(LogPosition),
        };
        let last = match self.disk.check(&expected, progress) {
            Ok(last) => last,
            Err(why) => return self.is_broken(why, offer, &expected),
        };
        if last.index < offer.by.last_index {
            return self.is_unsound(format!("its last entry is {}, and not {}", last.index, offer.by.last_index));
        }
        let note = ReplicaFile::pulled(self.disk.note()?, self.name, &self.note, last, expected.log_end)?;
        self.disk.complete()?;
        // Until then what it noted says which segments of its own were committed.
        self.note = note;
        take_place(&mut self.disk).map_err(|(step, error)| self.disk.failed(step, error))
    }

    /// What the system could not write it may hold to be written the next time it is asked: so the file comes again.
    fn settle(&mut self, file: &OfferedFile) -> Result<(), PullError> {
        let path = Path::new(&file.path);
        let Err(why) = self.disk.settle(path, file.length) else { return Ok(()) };
        self.disk.remove(path)?;
        Err(why)
    }

    /// Throws away what is not whole of it. What is, stays: of two others each may have lost something else.
    fn is_broken(&mut self, why: String, offer: &PullOffer, expected: &ExpectedShard) -> Result<(), PullError> {
        let broken: BTreeSet<LogPosition> = self.disk.broken_segments(expected).into_iter().collect();
        let offered = |start: &LogPosition| offer.files.iter().find(|file| file.segment() == Some(*start));
        let files: Option<Vec<&OfferedFile>> = broken.iter().map(offered).collect();
        let is_again = |start: &LogPosition| self.thrown.get(start).is_some_and(|times| *times >= THROWN_BY_ITSELF);
        let Some(files) = files.filter(|files| !files.is_empty() && !broken.iter().any(is_again)) else {
            return self.is_unsound(why);
        };
        self.blames_other = !broken.is_subset(&self.kept);
        for file in files {
            self.disk.remove(Path::new(&file.path))?;
        }
        for start in broken {
            *self.thrown.entry(start).or_default() += 1;
            self.damaged.iter_mut().for_each(|damaged| _ = damaged.insert(start));
        }
        Err(PullError::Unsound(why))
    }

    fn is_unsound(&mut self, why: String) -> Result<(), PullError> {
        self.blames_other = self.damaged.is_none();
        self.damaged = None;
        self.thrown.clear();
        self.disk.throw_away()?;
        Err(PullError::Unsound(why))
    }

    /// Files of earlier offers go, but for segments that this one names, too: what is committed is the same wherever it comes from.
    /// Snapshots and parts of one node are not those of another, though they may have the same names.
    fn keep_what_belongs_to(&mut self, offer: &PullOffer) -> Result<(), PullError> {
        for path in self.disk.gathered()? {
            let offered = offer.files.iter().find(|file| Path::new(&file.path) == path && file.segment().is_some());
            let length = self.disk.length(&path)?.unwrap_or(0);
            if offered.is_none_or(|file| length > file.data) {
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Lets a segment of this node's own be one of those that are gathered, if all of it was committed and nothing is known to be
    /// wrong with it.
    fn add_own(&mut self, file: &OfferedFile) -> Result<(), PullError> {
        let (Some(start), Some(damaged)) = (file.segment().filter(|_| file.is_full()), &self.damaged) else {
            return Ok(());
        };
        let path = Path::new(&file.path);
        let is_committed = start.plus(file.length) <= self.note.commit.position;
        if !is_committed || damaged.contains(&start) || self.disk.own_length(path)? != file.length {
            return Ok(());
        }
        self.kept.insert(start);
        self.disk.keep_own(path)
    }
}
