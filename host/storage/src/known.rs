//! What a folder knows of its log besides what lies in it: how far that was durable, and who else may say so (ruling 17).

use std::path::Path;

use vouch_broker::ShardId;
use vouch_commitlog::{LogConfig, LogFolder, LogIdentity, LogPosition, Settles, UnfinishedCut};

use crate::error::{StartError, failed};
use crate::folder::in_use;
use crate::layout::ShardFolder;
use crate::replica::{LogName, NotedCut, ReplicaFile, ReplicaNote};
use crate::snapshots::Snapshots;

/// What tells a torn tail from damage, as far as the log itself does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Everything before this position was durable: snapshots say so, or what the replica noted.
    pub durable: LogPosition,
    /// Marks in entries tell of this disk. They do not in the log of one of several replicas.
    pub marks_prove: bool,
    /// A cut that is under way.
    pub cut: Option<NotedCut>,
    /// Entries up to this index are committed; those behind it wait for what a leader says. Alone, all that is durable is.
    pub committed: u64,
    /// Nothing before this position is ever cut off. Everything that is durable, unless it is one of several replicas.
    kept: LogPosition,
}

impl Known {
    /// What the data folder of a log knows. Nothing is changed, and a node may be at work there: then a replica of several may be
    /// cutting off what it has noted as durable, and only what is committed counts.
    ///
    /// # Errors
    /// What snapshots or the replica file say cannot be read. Without it damage would pass for a torn tail.
    pub fn of_log(data_dir: &Path, log: LogIdentity) -> Result<Self, StartError> {
        let LogIdentity { cluster_id, shard, .. } = log;
        let log = LogName { cluster_id, shard: ShardId(shard) };
        let folder = ShardFolder::of(data_dir, log.shard);
        let known = Self::of_shard(&folder, log, &Snapshots::of_folder(folder.snapshots()))?;
        Ok(if in_use(data_dir).is_some() { known.while_it_is_written() } else { known })
    }

    /// The same of a shard's folder where nobody is at work but who asks.
    pub(crate) fn of_shard(folder: &ShardFolder, log: LogName, snapshots: &Snapshots) -> Result<Self, StartError> {
        let covered = snapshots.known_durable().map_err(failed("read", &folder.snapshots()))?;
        let note = ReplicaFile::look(folder, log)?;
        Ok(Self::of_note(note.as_ref()).and_durable(covered))
    }

    /// What a replica noted, if it noted anything yet.
    pub fn of_note(note: Option<&ReplicaNote>) -> Self {
        match note {
            None => Self {
                durable: LogPosition::START,
                marks_prove: true,
                cut: None,
                committed: u64::MAX,
                kept: LogPosition::BEYOND,
            },
            Some(note) => Self {
                durable: note.durable,
                marks_prove: !note.member,
                cut: note.cut,
                committed: if note.member { note.commit.index } else { u64::MAX },
                kept: if note.member { note.commit.position } else { LogPosition::BEYOND },
            },
        }
    }

    /// The same where a snapshot proves that everything before this position was durable, and committed.
    #[must_use]
    pub fn and_durable(self, covered: LogPosition) -> Self {
        Self { durable: self.durable.max(covered), kept: self.kept.max(covered), ..self }
    }

    /// The same where nobody else decides any more: all that is there stays.
    #[must_use]
    pub(crate) fn alone(self) -> Self {
        Self { committed: u64::MAX, kept: LogPosition::BEYOND, ..self }
    }

    /// Nothing before this position is ever cut off by what others decide.
    pub(crate) fn stays(&self) -> LogPosition {
        self.kept
    }

    /// The same for a look at a log to which somebody writes: less is certain to stay.
    pub fn while_it_is_written(self) -> Self {
        Self { durable: self.durable.min(self.kept), ..self }
    }

    /// Where a copy of the log has to end, if it would reach beyond: behind this position a node is cutting, or will when it starts.
    /// `others_decide`: what is not known to be committed may be cut off, too.
    pub fn copied_to(&self, others_decide: bool) -> LogPosition {
        let cut = self.cut.map_or(LogPosition::BEYOND, |cut| cut.to);
        if others_decide { cut.min(self.kept) } else { cut }
    }

    /// Lets the log be recovered, or read, by it.
    pub fn tell(&self, log: &mut LogConfig) {
        log.known_durable = self.durable;
        log.marks_prove = self.marks_prove;
        log.unfinished_cut = self.cut.map(|cut| UnfinishedCut { to: cut.to, end: cut.end });
        if self.kept != LogPosition::BEYOND {
            log.settles = Settles::ByCaller { from: self.kept };
        }
    }

    /// Lets a folder be looked at by it; [`Self::durable`] is told with each look.
    #[must_use]
    pub fn look_at(&self, log: LogFolder) -> LogFolder {
        log.marks_prove(self.marks_prove)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vouch_consensus::NodeId;

    use crate::replica::Committed;

    fn note(member: bool) -> ReplicaNote {
        ReplicaNote {
            node: NodeId(2),
            incarnation: 3,
            member,
            term: 4,
            vote: None,
            commit: Committed { index: 7, position: LogPosition(700) },
            durable: LogPosition(900),
            cut: None,
        }
    }

    #[test]
    fn marks_prove_nothing_for_one_of_several_and_all_for_a_node_that_was_always_alone() {
        for (note, marks_prove, durable) in
            [(None, true, 500), (Some(note(false)), true, 900), (Some(note(true)), false, 900)]
        {
            let known = Known::of_note(note.as_ref()).and_durable(LogPosition(500));
            assert_eq!((known.marks_prove, known.durable), (marks_prove, LogPosition(durable)), "{note:?}");
        }
        let covered = Known::of_note(Some(&note(true))).and_durable(LogPosition(1000));
        assert_eq!(covered.durable, LogPosition(1000), "the note may be older than a snapshot");
    }

    #[test]
    fn what_a_running_replica_of_several_may_cut_off_does_not_count() {
        let known = Known::of_note(Some(&note(true))).while_it_is_written();
        assert_eq!((known.durable, known.copied_to(true)), (LogPosition(700), LogPosition(700)));
        let covered = Known::of_note(Some(&note(true))).and_durable(LogPosition(800)).while_it_is_written();
        assert_eq!(covered.durable, LogPosition(800), "a snapshot covers what is committed");
        let alone = Known::of_note(Some(&note(false))).while_it_is_written();
        assert_eq!((alone.durable, alone.copied_to(true)), (LogPosition(900), LogPosition::BEYOND));
    }

    #[test]
    fn a_copy_ends_where_a_cut_that_is_under_way_will() {
        let cut = NotedCut { to: LogPosition(800), end: LogPosition(950) };
        let known = Known::of_note(Some(&ReplicaNote { cut: Some(cut), durable: cut.to, ..note(true) }));
        assert_eq!((known.copied_to(false), known.copied_to(true)), (LogPosition(800), LogPosition(700)));
        assert_eq!(Known::of_note(Some(&note(true))).copied_to(false), LogPosition::BEYOND);
    }
}
