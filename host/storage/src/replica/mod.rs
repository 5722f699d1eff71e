//! The replica file: what is a replica's own, and in no entry of the log. `host/storage/docs/replica-file.md` describes its bytes.
//!
//! # To ensure correctness
//! - The term never sinks, a vote is never changed within its term, and the durable position goes back by a cut alone. Whoever
//!   asks for anything else has lost his way, and stops here rather than in another replica's log.
//! - Whatever is noted is durable when the call returns; before, nobody may be told of it.
//! - After an error nobody knows what the disk has. Every later call gives that error, and the replica must answer nobody any
//!   more: neither with a vote nor with what it stored.

mod note;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use vouch_commitlog::{Appender, LogPosition, NoteError, NoteFile, Recovery, Shortage};
use vouch_consensus::{EntryId, NodeId};

use crate::layout::{REPLICA, ShardFolder};
use note::Unread;
pub use note::{Committed, LogName, NotedCut, ReplicaNote};

/// Why a replica file cannot be gone by.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The system refuses, or a newer program wrote the file; the text says which.
    #[error(transparent)]
    File(NoteError),
    /// What was noted is lost.
    #[error(
        "{why}; nobody knows for whom this node voted. If it never was in a cluster of several nodes, move the file {} away and \
         start again: the log tells the rest. Otherwise let it join its cluster anew, as another node, with an empty folder",
        file.display()
    )]
    Lost {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Use the program that wrote it, or a later one.
    #[error(
        "{} has version {version}, which this version of Vouch cannot read; start the one that wrote it or a later one",
        file.display()
    )]
    Version {
        /// The file.
        file: PathBuf,
        /// What it says.
        version: u8,
    },
    /// Put back what belongs together.
    #[error(
        "{} belongs to the log of another cluster: files of two data folders were put together; put back what belongs here, or, \
         if this node never was in a cluster of several nodes, move that file away and start again",
        .0.display()
    )]
    Foreign(PathBuf),
}

impl From<NoteError> for ReplicaError {
    fn from(error: NoteError) -> Self {
        match error {
            NoteError::Damaged(ref file) => Self::Lost { file: file.clone(), why: error.to_string() },
            NoteError::Version { file, version } => Self::Version { file, version },
            error @ NoteError::Io { .. } => Self::File(error),
        }
    }
}

/// The replica file of a log that is written, and the right to change it.
pub struct ReplicaFile {
    file: NoteFile,
    log: LogName,
    note: ReplicaNote,
}

impl ReplicaFile {
    /// Begins an incarnation of the replica whose log was just recovered. `recovery` went by what [`Self::noted`] says: it
    /// refused a log that ends before what was durable, and went to the end with a cut that was under way.
    ///
    /// Where there is no file it is made: a folder without one is that of a node that was never in a cluster of several, and with which
    /// one began. A node with which a cluster begins *anew* notes who it is when the log says so ([`Self::begins_anew`]).
    ///
    /// # Errors
    /// [`ReplicaError`].
    ///
    /// # Panics
    /// If the log ends before the position that was durable.
    pub fn begin(file: NoteFile, log: LogName, recovery: &Recovery) -> Result<Self, ReplicaError> {
        let note = Self::noted(&file, log)?.unwrap_or_else(|| ReplicaNote::of_one(NodeId::FIRST));
        assert!(recovery.end >= note.durable, "the log ends at {}, before {}", recovery.end, note.durable);
        let mut next =
            ReplicaNote { incarnation: note.incarnation + 1, durable: recovery.end, cut: None, ..note.clone() };
        if !note.member {
            // Alone, what is durable is committed; and a release that knows no such file may have written the log meanwhile.
            next.commit = Committed { index: recovery.last_index, position: recovery.end };
            if recovery.last_term > note.term {
                (next.term, next.vote) = (recovery.last_term, None);
            }
        } else if recovery.last_term > note.term {
            // The term of an entry is noted before the entry is taken.
            let why = format!(
                "{} says that the term is {}, and the log holds entries of term {}: it is an older file",
                file.path().display(),
                note.term,
                recovery.last_term
            );
            return Err(ReplicaError::Lost { file: file.path(), why });
        }
        let mut replica = Self { file, log, note };
        let path = replica.file.path();
        replica.put(next).map_err(|source| NoteError::Io { action: "write", file: path, source })?;
        Ok(replica)
    }

    /// The same with the file in a shard's folder.
    pub(crate) fn of_shard(folder: &ShardFolder, log: LogName, recovery: &Recovery) -> Result<Self, ReplicaError> {
        Self::begin(NoteFile::open(folder.path(), REPLICA)?, log, recovery)
    }

    /// Notes, beside a log that takes the place of another one, what the replica of that had noted, which is the same
    /// replica. All of the new log is durable and committed up to `end`, where `last` ends.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub(crate) fn pulled(
        mut file: NoteFile,
        log: LogName,
        was: &ReplicaNote,
        last: EntryId,
        end: LogPosition,
    ) -> Result<ReplicaNote, ReplicaError> {
        let commit = Committed { index: last.index, position: end };
        let mut note = ReplicaNote { commit, durable: end, cut: None, ..was.clone() };
        if last.term > was.term {
            (note.term, note.vote) = (last.term, None);
        }
        let path = file.path();
        let written = file.write(&note.encode(log));
        written.map_err(|source| NoteError::Io { action: "write", file: path, source })?;
        Ok(note)
    }

    /// A mistake, for tests: what a replica noted of its log is forgotten, and what it noted of itself is not.
    ///
    /// # Errors
    /// [`ReplicaError`].
    #[cfg(any(test, feature = "testing"))]
    pub fn forgets_its_log(file: NoteFile, log: LogName, was: &ReplicaNote) -> Result<(), ReplicaError> {
        let nothing = EntryId { index: 0, term: 0 };
        Self::pulled(file, log, was, nothing, LogPosition(0)).map(drop)
    }

    /// What a file says of the replica of this log, before that is recovered; nothing where there is no file yet.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn noted(file: &NoteFile, log: LogName) -> Result<Option<ReplicaNote>, ReplicaError> {
        let decode = |bytes| ReplicaNote::decode(bytes, log).map_err(|why| unread(why, file.path()));
        file.note().map(decode).transpose()
    }

    /// The same of the file in a shard's folder, for whoever changes nothing; a node may be at work there.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn look(folder: &ShardFolder, log: LogName) -> Result<Option<ReplicaNote>, ReplicaError> {
        let decode = |bytes: Vec<u8>| ReplicaNote::decode(&bytes, log).map_err(|why| unread(why, folder.replica()));
        NoteFile::read(folder.path(), REPLICA)?.map(decode).transpose()
    }

    /// What is noted and durable.
    pub fn note(&self) -> &ReplicaNote {
        &self.note
    }

    /// The replica is in this term, and voted so in it. No answer that says so may go out before this returns.
    ///
    /// # Errors
    /// What the system said, now or earlier: see above.
    ///
    /// # Panics
    /// If the term is lower than the one that is noted, or the vote of the same term is another one or taken back.
    pub fn term_and_vote(&mut self, term: u64, vote: Option<NodeId>) -> io::Result<()> {
        let noted = &self.note;
        assert!(term >= noted.term, "term {} does not sink to {term}", noted.term);
        let stands = term > noted.term || noted.vote.is_none() || noted.vote == vote;
        assert!(stands, "the vote of term {term} was {:?}, and is not {vote:?}", noted.vote);
        self.put(ReplicaNote { term, vote, ..noted.clone() })
    }

    /// The log is durable here up to `durable`, and `commit` is known to be committed. Told at most every 100 ms, and on a stop:
    /// what is noted may be lower than what is true, and is never higher.
    ///
    /// # Errors
    /// What the system said, now or earlier: see above.
    ///
    /// # Panics
    /// If either goes back, or a cut is under way and the log is said to be durable behind it.
    pub fn durable(&mut self, durable: LogPosition, commit: Committed) -> io::Result<()> {
        let noted = &self.note;
        assert!(durable >= noted.durable, "what was durable up to {} is not only so up to {durable}", noted.durable);
        let goes_on = commit.index >= noted.commit.index && commit.position >= noted.commit.position;
        assert!(goes_on, "{:?} was committed, which is not taken back to {commit:?}", noted.commit);
        let cut = noted.cut.is_none_or(|cut| durable <= cut.to);
        assert!(cut, "nothing from {:?} on is durable as long as that is being cut", noted.cut);
        self.put(ReplicaNote { durable, commit, ..noted.clone() })
    }

    /// All from `cut.to` to `cut.end`, which is the end of the log, is about to be cut off. When this returns, an interrupted cut is
    /// gone on with by the next start, and nothing behind `cut.to` counts as durable.
    ///
    /// # Errors
    /// What the system said, now or earlier: see above. Nothing may be cut then.
    ///
    /// # Panics
    /// If what is committed would be cut, or a cut is under way.
    pub fn cut_begins(&mut self, cut: NotedCut) -> io::Result<()> {
        let noted = &self.note;
        assert!(noted.cut.is_none(), "{:?} is under way, and {cut:?} is another cut", noted.cut);
        assert!(noted.commit.position <= cut.to && cut.to <= cut.end, "{cut:?} with {:?} committed", noted.commit);
        self.put(ReplicaNote { durable: noted.durable.min(cut.to), cut: Some(cut), ..noted.clone() })
    }

    /// What was to be cut is gone, durably.
    ///
    /// # Errors
    /// What the system said, now or earlier: see above.
    pub fn cut_ended(&mut self) -> io::Result<()> {
        self.put(ReplicaNote { cut: None, ..self.note.clone() })
    }

    /// Cuts off what lies in the log behind its last entry: a filler whose entry a power cut took. It belongs to the index that
    /// comes next, and another leader may have no filler there.
    ///
    /// # Errors
    /// It cannot be noted or cut: the log must not be written.
    pub fn end_with_an_entry(&mut self, appender: &mut Appender, recovery: &Recovery) -> io::Result<()> {
        let Some(last) = recovery.checkpoint.filter(|last| last.end < recovery.end) else { return Ok(()) };
        self.cut_begins(NotedCut { to: last.end, end: recovery.end })?;
        appender.cut(&last).map_err(io::Error::other)?;
        self.cut_ended()
    }

    /// This replica is one of several from now on, as the node that its cluster calls so, and for ever: marks in entries speak of
    /// other disks. To be noted before it takes an entry from another node, or sends one.
    ///
    /// # Errors
    /// What the system said, now or earlier: see above.
    ///
    /// # Panics
    /// If it voted or was a member under another id: an id is used once.
    pub fn is_member(&mut self, node: NodeId) -> io::Result<()> {
        let noted = &self.note;
        let may_be = noted.node == node || !noted.member && noted.vote.is_none();
        assert!(may_be, "node {:?} does not become {node:?}", noted.node);
        self.put(ReplicaNote { node, member: true, ..noted.clone() })
    }

    /// The replica is that of a node from now on with which its cluster begins anew, alone: nobody hears the one that it was any more.
    /// Its log says so, in this term, and ends there, durably.
    ///
    /// # Errors
    /// What the system said, now or earlier: see above.
    ///
    /// # Panics
    /// If the term sinks, or the log ends before what was durable.
    pub(crate) fn begins_anew(&mut self, node: NodeId, term: u64, end: Committed) -> io::Result<()> {
        let noted = &self.note;
        assert!(term >= noted.term, "term {} does not sink to {term}", noted.term);
        assert!(end.position >= noted.durable, "{end:?} ends before what was durable, {}", noted.durable);
        let (commit, durable) = (end, end.position);
        self.put(ReplicaNote { node, term, vote: None, member: false, commit, durable, cut: None, ..noted.clone() })
    }

    fn put(&mut self, next: ReplicaNote) -> io::Result<()> {
        if next == self.note && self.file.is_there() {
            return self.file.check();
        }
        match self.file.write(&next.encode(self.log)) {
            // No disk has room for a first file. Who is alone promises nobody anything, so he goes on without it; marks in the log
            // tell how far that is durable, and whatever is noted next makes the file.
            Err(error) if self.file.note().is_none() && !next.member && Shortage::of(&error).is_some() => {
                tracing::warn!(%error, "the replica file cannot be made now; it is tried again with what is noted next");
            }
            written => written?,
        }
        self.note = next;
        Ok(())
    }
}

fn unread(why: Unread, file: PathBuf) -> ReplicaError {
    match why {
        Unread::Version(version) => ReplicaError::Version { file, version },
        Unread::Foreign => ReplicaError::Foreign(file),
        Unread::Damaged => {
            ReplicaError::Lost { why: format!("{} does not say what a replica notes", file.display()), file }
        }
    }
}
