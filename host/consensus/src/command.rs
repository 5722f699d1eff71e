//! What a replica wants done. Commands are carried out one after the other, in the order in which they came, each before the
//! replica is told anything else.

use crate::broken::Broken;
use crate::vote::Vote;
use crate::{EntryId, EntryRole, GroupMessage};

/// What an entry holds while it is on its way from a leader.
pub trait EndsAt {
    /// Position of the log behind the entry, which is the same on all replicas.
    fn end(&self) -> u64;
}

/// An entry of a leader, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received<B> {
    /// Its name.
    pub id: EntryId,
    /// What it is to the group.
    pub kind: EntryRole,
    /// What came with it.
    pub body: B,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<B> {
    /// Make term and vote durable, before any message that stands behind this is sent: whoever forgets a vote may give it twice,
    /// and two lead in one term (RF-2). If that fails, the replica must not be told anything more.
    SaveVote(Vote),
    /// Cut off what is in the log behind this index: a leader of a later term has other entries there. Nothing of it is committed.
    Cut {
        /// The last index that stays.
        behind: u64,
    },
    /// Append this entry of a leader. The log's end is where it begins.
    Append(Received<B>),
    /// Append an entry with this name and no records, and say where it ends ([`crate::Replica::appended`]): with it a leader
    /// begins its term (RF-8).
    Begin(EntryId),
    /// Send this. What it says of this replica's own log is durable, and so is the term that it names.
    Send(GroupMessage),
    /// Everything up to this index is committed, and durable here: it may be applied, and stays for ever.
    Commit {
        /// The last index that is.
        to: u64,
    },
    /// This replica lacks entries that its leader cannot send any more: those up to this one. What it has is as true as ever, and it
    /// gets no further before its log is replaced by one that holds them. Comes again for as long as that is so.
    FallBehind {
        /// The last entry that is not to be had from the leader's log.
        covered: EntryId,
    },
    /// The algorithm failed: nothing may be sent, voted or acknowledged any more.
    Break(Broken),
}
