//! What members of a group say to each other.

use crate::NodeId;

/// Names an entry of some leader's log: no two entries have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Counted from 1, without a gap.
    pub index: u64,
    /// Term of the leader that made it; 0 only for what lies before the first entry.
    pub term: u64,
}

/// What an entry is to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryRole {
    /// Records, a mark, or nothing: the group does not look inside.
    Ordinary,
    /// A change of the members, alone in its entry.
    Members,
}

/// What one member says to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMessage {
    /// Who says it.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// The term in which it was said; 0 where the kind of message has none.
    pub term: u64,
    /// What is said.
    pub body: Said,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A leader gives the entries behind one that the follower should have.
    Append(Append),
    /// The follower has the entries, durably; or refuses.
    Appended(AppendAnswer),
    /// A candidate asks for a vote.
    AskVote {
        /// It only asks whether it would get one: nobody's term changes.
        pre: bool,
        /// The last entry of its log.
        last: EntryId,
        /// The last entry that it knows to be committed.
        commit: EntryId,
        /// The leader told it to ask, so nobody waits for that leader any longer.
        transfer: bool,
    },
    /// The answer to that.
    Vote {
        /// To a question that only asked.
        pre: bool,
        /// It is given.
        granted: bool,
        /// Last entry that he who answers knows to be committed; of index 0 where it is not said.
        commit: EntryId,
    },
    /// A leader lives.
    Heartbeat {
        /// Everything up to this index is committed, and the follower is known to have it.
        commit: u64,
    },
    /// A follower lives.
    HeartbeatAnswer {
        /// Everything up to this index is committed, as it knows.
        commit: u64,
    },
    /// A leader asks a follower to take over now.
    TakeOver,
    /// A leader does not keep the names of entries any more that the follower needs: it is to take them from a disk.
    Behind {
        /// The last entry that is not kept. It is committed.
        covered: EntryId,
    },
}

/// Entries of a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The entry before the first of these.
    pub previous: EntryId,
    /// Everything up to this index is committed.
    pub commit: u64,
    /// The entries, in order; what they hold travels beside.
    pub entries: Vec<(EntryId, EntryRole)>,
}

/// What became of entries at a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendAnswer {
    /// Last index that it has of them and knows to be durable; where it refuses, the index before what it was sent.
    pub index: u64,
    /// Everything up to this index is committed, as it knows.
    pub commit: u64,
    /// Why not, if so.
    pub rejected: Option<Rejected>,
}

/// A follower has not what the entries stand behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The last entry of its own that may be the leader's, too.
    pub hint: EntryId,
}
