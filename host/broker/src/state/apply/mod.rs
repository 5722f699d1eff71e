//! Applying records. Everything here is decided by the record, its position, its time and the state: no clock, no I/O.

mod administration;
mod delivery;
mod retention;
mod transaction;

use super::{Leap, State};
use crate::record::{ClusterInit, Leapt, Record};
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
    /// A topic, group, tag or binding was set.
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
    /// A check was counted.
    Counted {
        /// And was the last one.
        parked: bool,
    },
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
}

/// A record's answer, or why it changed nothing. Both are deterministic.
pub type Outcome = Result<Applied, Refusal>;

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
        let before = self.cluster.clock;
        self.cluster.clock = before.max(at.time);
        match record {
            Record::Message(head) => self.message(at, head, effects),
            Record::Half(head) => self.half(at, head, effects),
            Record::End(end) => self.end(at, end, effects),
            Record::CheckAnswered(answer) => self.check_answered(at, answer, effects),
            Record::Park(park) => self.park(park),
            Record::Resume(resume) => self.resume(at, resume, effects),
            Record::ComponentFailed(failed) => self.component_failed(at, failed),
            Record::Lease(lease) => self.lease(at, lease, effects),
            Record::Renew(renew) => self.renew(at, renew, effects),
            Record::Ack(ack) => self.ack(at, ack, effects),
            Record::ChangeInvisible(change) => self.change_invisible(at, change, effects),
            Record::DeadLetter(letter) => self.dead_letter(at, letter, 0, effects),
            Record::DeadLetterSized(sized) => self.dead_letter(at, &sized.letter, sized.record_len, effects),
            Record::Join(join) => self.join(at, join, effects),
            Record::FilterNoted(noted) => self.filter_noted(at, noted),
            Record::FiltersGone(gone) => self.filters_gone(gone, effects),
            Record::Expire(expire) => self.expire(at, expire, effects),
            Record::Seen(seen) => self.seen(at, seen),
            Record::Carried(carried) => self.carried(at, carried),
            Record::ClusterInit(init) => self.cluster_init(init),
            Record::NodeStarted(started) => {
                // While no node ran nobody could be seen: it is not held against a group (ruling 13).
                self.groups.forgive(at.time.ms_since(before), at.time);
                self.cluster.last_version.clone_from(&started.version);
                Ok(Applied::Done)
            }
            Record::Leapt(leapt) => self.leapt(at, leapt),
            Record::LeapsBelieved(believed) => {
                self.leaps.believe(believed.to);
                Ok(Applied::Done)
            }
            Record::TopicPut(put) => self.topic_put(at, put, effects),
            Record::TopicDelete(delete) => self.topic_delete(&delete.name, delete.force, effects),
            Record::TopicForced(forced) => self.topic_delete(&forced.name, true, effects),
            Record::GroupPut(put) => self.group_put(at, put, effects),
            Record::GroupDelete(delete) => self.group_delete(delete, effects),
            Record::GroupMade(made) => self.group_made(at, made, effects),
            Record::GroupsUnused(unused) => self.groups_unused(at, unused, effects),
            other => self.plugin_record(at, other, effects),
        }
    }

    /// Happens once: another identity or key would make every handle and every follower of this log wrong.
    fn cluster_init(&mut self, init: &ClusterInit) -> Outcome {
        if self.cluster.init.is_some() {
            return Err(Refusal::Conflict("the cluster has its identity already; it is made once".to_owned()));
        }
        self.cluster.init = Some(init.clone());
        self.cluster.last_version.clone_from(&init.written_by);
        Ok(Applied::Done)
    }

    /// Time that nobody lived through: not held against a group either (ruling 13).
    fn leapt(&mut self, at: RecordAt, leapt: &Leapt) -> Outcome {
        let Leapt { from, doubted } = *leapt;
        self.leaps.add(Leap { from, to: at.time, doubted, stamped: !doubted });
        if !doubted {
            self.groups.forgive(at.time.ms_since(from), at.time);
        }
        Ok(Applied::Done)
    }
}
