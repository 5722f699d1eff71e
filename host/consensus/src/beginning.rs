//! What a replica begins with.

use std::collections::VecDeque;

use crate::{Descriptor, Draw, EntryId, GroupMembers, NodeId, Vote};

/// How fast time passes, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPace {
    /// A follower that heard nothing of its leader for this long, and up to twice as long, asks for votes; a leader that heard
    /// nothing of a majority for this long leads no more.
    pub election: usize,
    /// A leader says that it lives at least this often.
    pub heartbeat: usize,
}

/// How a replica begins.
pub struct ReplicaBeginning {
    /// Who it is.
    pub node: NodeId,
    /// Who belongs to the group, as of the last entry that is applied.
    pub members: GroupMembers,
    /// What it promised.
    pub vote: Vote,
    /// Everything up to this index is applied, hence committed.
    pub applied: u64,
    /// Everything up to this index is known to be committed; the applied one at least.
    pub commit: u64,
    /// The entry before the first that is given here; of index and term 0 where the log is whole.
    pub before: EntryId,
    /// Position of the log behind that.
    pub before_end: u64,
    /// The entries of the log behind it, all of them durable.
    pub entries: VecDeque<Descriptor>,
    /// How fast its time passes.
    pub pace: GroupPace,
    /// Where its random numbers come from.
    pub draw: Draw,
}
