//! What the core of a shard wants done. Commands are carried out one after the other, in the order in which they came.

use vouch_broker::record::SealedAt;
use vouch_broker::state::Outcome;
use vouch_broker::{Millis, NotDone, NothingStored};
use vouch_commitlog::{EntrySpan, LogPosition};
use vouch_consensus::{EntryId, GroupMessage, NodeId};
use vouch_leader::{ReceiveAnswer, Waiter};

use super::Hearer;
use super::event::EntryToAppend;
use crate::leadership::Begun;

/// What is to be done.
pub enum Command {
    /// Make term and vote durable. What stands behind it relies on that: if it fails, report that with
    /// [`super::Event::Failed`], and send nothing.
    SaveVote(vouch_consensus::Vote),
    /// Cut off what is in the log behind this entry: the leader of a later term has other entries there. Note it first; nothing of
    /// it is committed, and no sync that began before counts for what comes there.
    Cut {
        /// Name of the last entry that stays.
        last: EntryId,
        /// From where to where that lies, with what goes in front of it; `None`: nothing stays that is known by name, and the
        /// log ends where the first entry begins.
        span: Option<(LogPosition, LogPosition)>,
    },
    /// Append this entry of a leader, byte for byte. The log must end where it begins: if it does not, the log is another one,
    /// and nothing more may be done with it.
    AppendSpan(EntrySpan),
    /// Send this to another member, with these entries of the log: from where to where each lies, with what goes in front of it.
    /// All that it says of this replica is durable.
    Send(GroupMessage, Vec<(LogPosition, LogPosition)>),
    /// This replica is one of several from now on, under this id: note that, and let what is appended settle when it is committed and
    /// not when it is durable. Comes before the first entry by which others may decide, too; if it fails, report that with
    /// [`super::Event::Failed`].
    JoinGroup(NodeId),
    /// Append this entry at the log's end, and report it with [`super::Event::Appended`].
    ///
    /// At once, and before anything else is appended: there is one at a time, and the index in its header is that of the
    /// log's next entry.
    Append(EntryToAppend),
    /// Tell somebody what became of what he proposed, and give back what that held of the bytes in flight.
    ///
    /// Outcomes that say *done* come only for records that are committed and applied: a power cut loses none of them, and
    /// whoever reads after this sees them. With `Unknown` they may be in the log all the same. The one exception are outcomes
    /// of proposals that asked for it (ack level `memory`): these are written, and say no more than that.
    Answer {
        /// Whom to tell.
        told: Hearer,
        /// Bytes to give back.
        cost: u64,
        /// One outcome a record, or why there is none.
        answer: Result<Vec<Outcome>, NotDone>,
    },
    /// Answer a receive. If he who waits is gone, messages come back with [`super::Event::NotTaken`].
    ///
    /// Messages among it are leased: the lease is written in front of everything that may lease them again, so they are
    /// handed to nobody else, but it need not be durable; after a power cut they are delivered once more.
    AnswerReceive(Box<dyn Waiter>, ReceiveAnswer),
    /// Everything up to this entry is applied: its bytes stay for ever, and a snapshot may hold it.
    ///
    /// Only what is committed and durable here is applied, so no snapshot is ahead of its log.
    Applied(vouch_storage::Committed),
    /// The log names this position, where everybody makes a snapshot; everything before it is applied. With what the leader told of
    /// earlier ones: report with [`super::Request::Differs`] if something else was here.
    SnapshotNamed(LogPosition, Vec<SealedAt>),
    /// This replica lacks what its leader does not keep any more: it is to be stopped, and to take that from another node's disk. What
    /// it has is as true as ever.
    FellBehind,
    /// This replica goes on no more, since it cannot read what others have: these parts of the index, of which no copy is whole, or
    /// entries, if they are none. Comes before the [`Self::Close`] for it.
    ClosedByDamage(Vec<u64>),
    /// Topics or groups changed: forget what is remembered of them. Before whoever changed them hears of it, which stands
    /// behind this.
    DirectoryChanged,
    /// Who belongs to the cluster changed, or where its nodes are: as the state says it now.
    MembersChanged,
    /// Other keys open the secrets than before, as the state says it now.
    SecretsChanged,
    /// A check may be due earlier than was known, or a binding changed.
    ChecksChanged,
    /// A binding changed, or a secret that one may name.
    BindingsChanged,
    /// The log's time leapt to this: the record that says so is durable. Until now nobody was told a time beyond it.
    FollowClock(Millis),
    /// Nothing is written any more, for this reason; everybody may know. Before those who wait hear it.
    Close(NothingStored),
    /// Let go of the log without writing to it, not even what would close it well: it is somebody else's.
    DropLog,
    /// So many messages were acknowledged in memory and then not stored.
    RefusedInMemory(u64),
    /// Look for damage in these parts of the index, and mend it.
    MendParts(Vec<u64>),
    /// What the start proposed is durable and applied, or was refused.
    TellBegun(Result<Begun, NotDone>),
    /// Tell somebody that what he asked for is done. All that stands before this is.
    Done(Box<dyn FnOnce() + Send>),
}
