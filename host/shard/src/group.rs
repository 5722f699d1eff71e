//! What a replica of a group begins with.

use std::collections::VecDeque;

use vouch_commitlog::{Checkpoint, LogPosition, LogReader, Recovery};
use vouch_consensus::{
    Broken, Descriptor, Draw, EntryId, GroupMembers, GroupPace, NodeId, Replica, ReplicaBeginning, Vote,
};
use vouch_storage::ReplicaNote;

use crate::core::{LeaderEntry, role_of};

/// How fast the time of a group passes, in ticks of 50 ms: a leader is missed after one to two seconds.
const PACE: GroupPace = GroupPace { election: 20, heartbeat: 4 };

/// The replica of a group of one, whose log is recovered and applied: nobody else decides, so all that is there is committed.
///
/// # Errors
/// What is given cannot be.
pub fn alone(recovery: &Recovery, note: &ReplicaNote) -> Result<Replica<LeaderEntry>, Broken> {
    let vote = Vote { term: note.term, given_to: note.vote };
    behind(note.node, EntryId { index: recovery.last_index, term: recovery.last_term }, recovery.end, vote)
}

/// What a member of a group begins with, whose folder is opened.
pub struct Member<'a> {
    /// Who it is.
    pub node: NodeId,
    /// Who belongs to the group, as of the last entry that is applied.
    pub members: GroupMembers,
    /// What it noted.
    pub note: &'a ReplicaNote,
    /// Its log, all of it durable.
    pub log: &'a LogReader,
    /// The last entry that the older of its snapshots covers: behind it the group's log begins, as this member knows it; `None`:
    /// at the beginning of the log, which is all there.
    pub before: Option<Checkpoint>,
    /// The last entry that is applied.
    pub applied: Checkpoint,
    /// Where its random numbers come from.
    pub draw: Draw,
}

/// The names of entries that lie one behind the other in a log.
pub struct LogNames {
    /// The entry before the first of them; of index and term 0 where the log is whole.
    pub(crate) before: EntryId,
    /// Where that ends.
    pub(crate) before_end: LogPosition,
    pub(crate) entries: VecDeque<Descriptor>,
}

impl LogNames {
    /// Reads the headers of all entries from behind `before`, or from the beginning of a log that is all there, up to where one
    /// ends at or behind `to`.
    ///
    /// # Errors
    /// A header cannot be read, or is not one that may lie there.
    pub fn read(log: &LogReader, before: Option<Checkpoint>, to: LogPosition) -> Result<Self, Broken> {
        let (first, before_end) = before.map_or((EntryId::default(), log.start()), |before| {
            (EntryId { index: before.index, term: before.term }, before.end)
        });
        let (mut entries, mut last, mut end) = (VecDeque::new(), first.index, before_end);
        let mut headers = log.headers_from(before_end);
        while end < to
            && let Some(header) = headers.next()
        {
            let header = header.map_err(|error| Broken(error.to_string()))?;
            // A mark by which an earlier release closed its log repeats the index before it: it belongs to the next entry.
            if header.index == last {
                continue;
            }
            if header.index != last + 1 {
                return Err(Broken(format!("entry {} follows entry {last} in the log", header.index)));
            }
            (last, end) = (header.index, header.end);
            entries.push_back(Descriptor { term: header.term, end: end.0, kind: role_of(header.kind) });
        }
        Ok(Self { before: first, before_end, entries })
    }
}

/// The replica of a member: of each entry of its log it learns the name and the end, and reads no more than headers.
///
/// # Errors
/// What is given cannot be; a header cannot be read.
pub fn member(begins: Member<'_>) -> Result<Replica<LeaderEntry>, Broken> {
    let Member { node, members, note, log, before, applied, draw } = begins;
    let LogNames { before: first, before_end, entries } = LogNames::read(log, before, LogPosition::BEYOND)?;
    Replica::new(ReplicaBeginning {
        node,
        members,
        vote: Vote { term: note.term, given_to: note.vote },
        applied: applied.index,
        commit: applied.index,
        before: first,
        before_end: before_end.0,
        entries,
        pace: PACE,
        draw,
    })
}

/// The replica of a group of this node alone, whose log ends with this entry.
pub(crate) fn behind(
    node: NodeId,
    last: EntryId,
    end: LogPosition,
    vote: Vote,
) -> Result<Replica<LeaderEntry>, Broken> {
    Replica::new(ReplicaBeginning {
        node,
        members: GroupMembers::voters([node]),
        vote,
        applied: last.index,
        commit: last.index,
        before: last,
        before_end: end.0,
        entries: VecDeque::new(),
        pace: PACE,
        // Nobody else asks for votes at the same time.
        draw: Box::new(|_| 0),
    })
}
