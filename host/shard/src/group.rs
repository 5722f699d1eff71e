//! What a replica of a group begins with.

use std::collections::VecDeque;

use vouch_commitlog::{LogPosition, Recovery};
use vouch_consensus::{Beginning, Broken, EntryId, Members, NodeId, Pace, Replica, Vote};
use vouch_storage::ReplicaNote;

use crate::core::Body;

/// How fast the time of a group passes.
const PACE: Pace = Pace { election: 10, heartbeat: 2 };

/// The replica of a group of one, whose log is recovered and applied: nobody else decides, so all that is there is committed.
///
/// # Errors
/// What is given cannot be.
pub fn alone(recovery: &Recovery, note: &ReplicaNote) -> Result<Replica<Body>, Broken> {
    let vote = Vote { term: note.term, given_to: note.vote };
    behind(EntryId { index: recovery.last_index, term: recovery.last_term }, recovery.end, vote)
}

/// The replica of a group of one whose log ends with this entry.
pub(crate) fn behind(last: EntryId, end: LogPosition, vote: Vote) -> Result<Replica<Body>, Broken> {
    let node = NodeId::FIRST;
    Replica::new(Beginning {
        node,
        members: Members::voters([node]),
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
