//! What the core of a shard is told.

use std::ops::Range;
use std::time::{Duration, Instant};

use vouch_broker::record::SealedAt;
use vouch_broker::state::Copies;
use vouch_broker::{Millis, NothingStored, State};
use vouch_cluster::{GroupMembers, NodeId};
use vouch_commitlog::{AppendError, Appended, EntryHeader, LogPosition, Shortage};
use vouch_consensus::{FollowerProgress, GroupMessage, Role, Said};
use vouch_leader::{Batch, Leader, Poll};
use vouch_storage::OfferedBy;

use super::Hearer;
use super::LeaderEntry;
use crate::clock::Ahead;
use crate::group::LogNames;
use crate::leadership::Lead;
use crate::reply::Reply;

/// One moment, by both clocks of a node. All that is decided in one turn of a shard is decided at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the log's time.
    pub time: Millis,
    /// By the monotonic clock of the machine.
    pub at: Instant,
}

/// What a proposal may have of the log's space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Only what is left besides the reserve.
    Room,
    /// The same, and its caller hears of it when it is written, before it is durable (ruling 16).
    RoomInMemory,
    /// The reserve too: what ends something, or makes room.
    Reserve,
}

/// Records that happen together, and who wants to know.
pub struct Proposal {
    /// Framed records, one after the other.
    pub records: Vec<u8>,
    /// Who hears what became of them: one outcome a record.
    pub told: Hearer,
    /// Counted in bytes in flight.
    pub cost: u64,
    /// What it may have of the log's space.
    pub claim: Claim,
}

/// A look at the state.
pub type Look = Box<dyn FnOnce(&State) + Send>;
/// The same with what the leader keeps: nothing, where the replica does not lead.
pub type ShownLook = Box<dyn FnOnce(&State, &mut Leader) + Send>;
/// A look at the state and at what the leader keeps, or why there is none.
pub type LeaderLook = Box<dyn FnOnce(Result<(&State, &mut Leader), NothingStored>) + Send>;

/// Whether something is still to happen, by the state and by what its leader keeps.
///
/// What is applied later was proposed behind it. So a condition that reckons with what is on its way, as
/// [`Leader::is_bound`] does, holds when the record is applied, too; one that looks at the state alone may not.
pub type Condition = Box<dyn FnOnce(&State, &Leader) -> bool + Send>;

/// What somebody asks of a shard.
pub enum Request {
    /// Let these records happen.
    Propose(Proposal),
    /// The same if this holds when it is their turn: all that was proposed before is applied, or on its way and known to the
    /// leader. Where it does not hold nothing is written, and there are no outcomes.
    ProposeIf(Condition, Proposal),
    /// Hand out messages, now or when some come.
    Receive(Poll),
    /// Hear what another member of the group says, with what came with its entries, one each.
    Message(GroupMessage, Vec<LeaderEntry>),
    /// Who waited to receive under this number went away, with these messages or none.
    Gone(u64, Option<Batch>),
    /// Look at the state.
    Read(Look),
    /// Show the state and what the leader keeps: nothing, where this replica does not lead.
    Show(ShownLook),
    /// Look at the state and at what the leader keeps, or hear why there is none.
    Lead(LeaderLook),
    /// Say how the shard stands.
    Standing(Box<dyn FnOnce(Standing) + Send>),
    /// The older of two snapshots covers everything up to this index: names of what lies before it are needed no more.
    Covered(u64),
    /// Keep the log for another node, which takes a stretch from this one's disk, and the rest from its leader.
    Hold(HeldLog),
    /// Say which entry ends at this position of the log or before it; nothing where that is not known.
    IndexBefore(LogPosition, Box<dyn FnOnce(Option<u64>) + Send>),
    /// Forget no names of entries from now on, as long as others may need them; say where those begin that are known.
    KeepNames(Box<dyn FnOnce(LogPosition) + Send>),
    /// Know these, too, which end where those begin that are known.
    LearnNames(LogNames, Box<dyn FnOnce() + Send>),
    /// Say how the group stands, as this replica knows.
    Group(Box<dyn FnOnce(GroupStanding) + Send>),
    /// Hand leadership over to this member, as soon as that has all of the log; or say why not.
    HandOver(NodeId, Reply),
    /// Let the log name a position: a snapshot is due.
    NameSnapshot,
    /// Know what this replica had at these positions that the log names, ascending.
    Sealed(Vec<SealedAt>),
    /// Take part in nothing more: this replica had something else than a majority of the voters, as is said.
    Differs(String),
    /// Read from this part what the state holds so far in memory.
    Adopt(u64, Copies),
    /// Read from copies of a part that were mended.
    ReadFrom(u64, Copies),
    /// Write nothing any more, for this reason; then say so.
    Fence(String, Box<dyn FnOnce() + Send>),
    /// Answer receives, write what is proposed, end.
    Stop,
}

impl Request {
    /// A member on which no replica runs was in this term: then this one is, too, and who led in an earlier one leads no more. That
    /// member may have acknowledged something to a leader of its term, so it takes the word of none of an earlier one for how far its own
    /// log went; and since it says nothing to the others itself, such a leader would lead on for ever.
    pub fn was_in(term: u64, member: NodeId, own: NodeId) -> Self {
        let body = Said::HeartbeatAnswer { commit: 0 };
        Self::Message(GroupMessage { from: member, to: own, term, body }, Vec::new())
    }
}

/// A stretch of the log that another node takes from this one's disk.
#[derive(Clone, Debug)]
pub struct HeldLog {
    /// Which node.
    pub by: NodeId,
    /// What it takes: from its begin on the log is kept, and from its end on the names of entries, too.
    pub taken: Range<LogPosition>,
    /// Until when.
    pub until: Instant,
}

/// How a shard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Log position after the last entry.
    pub appended: LogPosition,
    /// Everything before this log position is durable.
    pub durable: LogPosition,
    /// Everything before this log position is applied.
    pub applied: LogPosition,
    /// Why the log cannot grow, if it has no more than what is kept for ends and acknowledgements.
    pub shortage: Option<Shortage>,
    /// Bytes of the log that sends leave to others when the disk is full.
    pub reserve: u64,
    /// Receives that wait.
    pub waiting_polls: usize,
}

/// How a group stands, as one of its replicas knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStanding {
    /// Who says so.
    pub node: NodeId,
    /// What that is to the group.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Since when it leads and knows all that was decided before; `None`: it does not.
    pub leads_from: Option<Instant>,
    /// Who belongs to the group, by what is applied.
    pub members: GroupMembers,
    /// It knows no names of entries up to this index, and can give them to nobody.
    pub names_from: u64,
    /// A node is to come that needs the log from its beginning.
    pub awaits_others: bool,
    /// From where on others need the log; `None`: nobody does, or another one leads and knows. Who is not there is not waited for.
    pub needed_from: Option<LogPosition>,
    /// Index of its last entry.
    pub last: u64,
    /// Up to which index it knows that entries are committed.
    pub committed: u64,
    /// Where that ends in its log; `None` if it has no name of that entry any more.
    pub committed_to: Option<LogPosition>,
    /// How far the others are, in the order of their ids; nothing where it does not lead.
    pub followers: Vec<FollowerProgress>,
}

impl GroupStanding {
    /// What this replica says of itself to another node that is to take its log up to the entry with this index. It leads only if it
    /// has applied an entry of its own term: then everybody's word of before has reached it.
    pub fn offers(&self, last_index: u64) -> OfferedBy {
        let leads = matches!(self.role, Role::Leads { since } if self.committed >= since.index);
        OfferedBy { term: self.term, leads, last_index, written_index: self.last }
    }

    /// Whether it must learn names that it does not know: it leads, and somebody lacks entries that are all in its log, which begins
    /// here. Of a log that begins later they take a snapshot from the disk.
    pub fn lacks_names(&self, log_start: LogPosition) -> bool {
        let is_behind = || self.followers.iter().any(|other| other.is_heard && other.durable < self.names_from);
        matches!(self.role, Role::Leads { .. })
            && self.names_from > 0
            && (self.awaits_others || log_start == LogPosition::START && is_behind())
    }
}

/// How the log stands, as its core must know before it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStanding {
    /// Where its first entry lies: what was before is released.
    pub start: LogPosition,
    /// Position after the last entry.
    pub appended: LogPosition,
    /// Everything before this position is durable.
    pub durable: LogPosition,
    /// The last group of entries is covered by a mark.
    pub covered: bool,
    /// How long until the log needs a mark if nothing is appended; `None` if it is covered.
    pub mark_due_in: Option<Duration>,
    /// Why the log cannot grow, and how many bytes it has left, if so.
    pub short: Option<(Shortage, u64)>,
    /// It takes no more entries after an error of its own.
    pub failed: bool,
}

/// An entry to append. It comes back with what became of it.
pub struct EntryToAppend {
    /// Term, index, time and kind.
    pub header: EntryHeader,
    /// With it a leader begins its term; it holds nothing.
    pub begins: bool,
    /// What it holds, in this order; nothing if it is a mark.
    pub proposals: Vec<Proposal>,
}

/// What the clock decided, of what must be in the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockSays {
    /// The wall clock was ahead for long enough: a leap is due.
    pub leap: Option<Ahead>,
    /// The wall clock held: leaps that were in doubt are believed.
    pub agreed: bool,
}

/// What happened.
pub enum Event {
    /// Somebody asks for something.
    Request(Request),
    /// This replica may lead from now on, and says this when it first does. The only member of a group does at once.
    MayLead(Lead),
    /// What was to be appended is, or is not.
    Appended(EntryToAppend, Result<Appended, AppendError>),
    /// Everything before this position is durable.
    Durable(LogPosition),
    /// The log failed, for this reason.
    Failed(String),
    /// This member lacks the entry that ends at this position, which cannot be read, for this reason: nothing was sent to it.
    CannotSend(NodeId, LogPosition, String),
    /// Who was to get these messages is gone.
    NotTaken(Batch),
    /// Everything that waited was told: a turn ends. With what the clock says, if [`super::Core::second_is_over`].
    TurnEnds(Option<ClockSays>),
    /// Everything that was written is durable and applied, and nothing more will be asked: the end of the log is to be covered.
    CoverEnd,
}
