//! Applying records. Everything here is decided by the record, its position, its time and the state: no clock, no I/O.

mod cluster;
mod delivery;
mod filters;
mod groups;
mod members;
mod message;
#[cfg(any(test, feature = "testing"))]
mod mistaken;
mod plugin;
mod retention;
mod secrets;
mod settled;
mod topics;
mod transaction;

use vouch_cluster::NodeId;

use super::State;
use crate::record::{Record, each_kind};
use crate::{
    GroupId, HalfPosition, Millis, QueueOffset, RecordPosition, Refusal, TagHash, TopicId, TransactionOutcome,
};

/// Where and when a record lies in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordAt {
    /// Log position of the record's first byte.
    pub position: RecordPosition,
    /// Leader time of its entry.
    pub time: Millis,
}

/// What a record did; the answer to whoever proposed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Nothing to tell.
    Done,
    /// A topic, group, tag, binding or secret was set.
    Set {
        /// It did not exist before.
        created: bool,
        /// Its revision now.
        revision: u64,
    },
    /// A message is in its queue; for a resend, the place of the first copy.
    Stored {
        /// The queue.
        queue: u32,
        /// Its offset there.
        offset: QueueOffset,
    },
    /// A half message is open; for a resend, the first one.
    Prepared {
        /// The transaction.
        transaction: HalfPosition,
    },
    /// A transaction ended now, or had ended the same way before.
    Ended {
        /// The recorded outcome.
        outcome: TransactionOutcome,
        /// It had ended before.
        repeated: bool,
    },
    /// Messages went past their retention.
    Expired {
        /// How many are gone.
        messages: u64,
        /// How many of them groups had not finished; one counts for each group.
        missed: u64,
    },
    /// Groups that nobody used went.
    Forgotten {
        /// How many.
        groups: u64,
    },
    /// A node was given an id.
    Invited {
        /// The id.
        node: NodeId,
    },
    /// A check was counted.
    Counted {
        /// And was the last one.
        parked: bool,
    },
    /// A component's answer came when there was nothing more to decide, or its binding is another one by now: it changed nothing.
    Late,
    /// What a component had read is another by now: its answer changed nothing, and it is to be asked again.
    Stale,
}

/// What the leader's volatile side must know about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Messages of this topic may be ready for any group.
    Available(TopicId),
    /// A message with this tag is in a queue of this topic.
    Arrived(TopicId, TagHash),
    /// Messages of this topic may be ready for this group.
    AvailableTo(GroupId, TopicId),
    /// A group's message becomes visible at this time.
    VisibleAt(GroupId, TopicId, Millis),
    /// A group joined a topic, or was created.
    Joined,
    /// Topics or groups changed.
    Directory,
    /// An open transaction of this topic is due for a check at this time.
    CheckDue(TopicId, Millis),
    /// Components or bindings changed.
    Plugins,
    /// Secrets changed.
    Secrets,
    /// Who belongs to the cluster changed.
    Members,
    /// Its nodes changed, or where they are; who votes did not.
    Nodes,
}

/// A record's answer, or why it changed nothing. Both are deterministic.
pub type Outcome = Result<Applied, Refusal>;

/// What a record of one kind changes. Every kind of [`each_kind`] has it: without, the crate does not build.
///
/// # To ensure correctness
/// Decided by nothing but the record, where it lies, and the state: all replicas, and every replay, decide the same. What
/// cannot be is refused, and then nothing is changed; it never panics over what a record says.
trait Apply {
    /// Changes the state, whose clock still shows the time of the record before.
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome;
}

/// Leads each kind to what it changes.
macro_rules! applied_by_kind {
    ([] $($(#[$doc:meta])* $kind:ident,)+) => {
        impl Apply for Record {
            fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
                match self {
                    Self::Message(head) => state.message(at, head, effects),
                    Self::Half(head) => state.half(at, head, effects),
                    $(Self::$kind(record) => <crate::record::$kind as Apply>::apply(record, state, at, effects),)+
                }
            }
        }
    };
}

each_kind!(applied_by_kind);

impl State {
    /// Applies the next record of the log.
    ///
    /// A refusal changes nothing but counters. Effects are for the leader; replay throws them away.
    ///
    /// # Panics
    /// If the record lies at or before one that was applied: applied twice, a message would be in its queue twice. No record
    /// can bring this about, whatever it says: where it lies comes from the log, and is counted in bytes.
    pub fn apply(&mut self, at: RecordAt, record: &Record, effects: &mut Vec<Effect>) -> Outcome {
        let last = self.last_applied.replace(at.position);
        assert!(last < Some(at.position), "the record at {} is applied after that at {last:?}", at.position);
        let outcome = Apply::apply(record, self, at, effects);
        self.cluster.clock = self.cluster.clock.max(at.time);
        outcome
    }
}

/// Whether what is to be changed is still what the caller read; 0 is what does not exist. Decided when the record is
/// applied, so of two that read the same one the first in the log wins.
fn check_revision(
    what: &str,
    name: &dyn std::fmt::Display,
    current: u64,
    expected: Option<u64>,
) -> Result<(), Refusal> {
    match expected {
        Some(expected) if expected != current => Err(Refusal::PreconditionFailed(format!(
            "{what} {name} was changed meanwhile; read it, then send its ETag in If-Match"
        ))),
        _ => Ok(()),
    }
}
