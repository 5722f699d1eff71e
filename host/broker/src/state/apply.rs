//! Applying records. Everything here is decided by the record, its position, its time and the state: no clock, no I/O.

use super::dedup::Stored;
use super::progress::{Exception, Progress};
use super::queue::IndexEntry;
use super::transactions::{Ended, LastAnswer, OpenTransaction};
use super::{State, Topic};
use crate::record::{
    Ack, ChangeInvisible, CheckAnswered, DeadLetter, End, GroupPut, Join, Lease, MessageHead, Park, Record, Renew,
    Resume, TopicDelete, TopicPut,
};
use crate::{GroupId, Millis, Refusal, StartPosition, TopicConfig, TopicId, TransactionOutcome, transaction_name};

/// Where and when a record lies in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordAt {
    /// Log position of the record's first byte.
    pub position: u64,
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
        offset: u64,
    },
    /// A half message is open; for a resend, the first one.
    Prepared {
        /// Position of the half's record.
        transaction: u64,
    },
    /// A transaction ended now, or had ended the same way before.
    Ended {
        /// The recorded outcome.
        outcome: TransactionOutcome,
        /// It had ended before.
        repeated: bool,
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
    /// Messages of this topic may be ready for some group.
    Available(TopicId),
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
    pub fn apply(&mut self, at: RecordAt, record: &Record, effects: &mut Vec<Effect>) -> Outcome {
        self.cluster.clock = self.cluster.clock.max(at.time);
        match record {
            Record::Message(head) => self.message(at, head, effects),
            Record::Half(head) => self.half(at, head, effects),
            Record::End(end) => self.end(at, end, effects),
            Record::CheckAnswered(answer) => self.check_answered(at, answer, effects),
            Record::Park(park) => self.park(park),
            Record::Resume(resume) => self.resume(at, resume, effects),
            Record::Lease(lease) => self.lease(at, lease, effects),
            Record::Renew(renew) => self.renew(at, renew, effects),
            Record::Ack(ack) => self.ack(at, ack),
            Record::ChangeInvisible(change) => self.change_invisible(at, change, effects),
            Record::DeadLetter(letter) => self.dead_letter(at, letter, effects),
            Record::Join(join) => self.join(join, effects),
            Record::ClusterInit(init) => {
                self.cluster.init = Some(init.clone());
                self.cluster.last_version.clone_from(&init.written_by);
                Ok(Applied::Done)
            }
            Record::NodeStarted(started) => {
                self.cluster.last_version.clone_from(&started.version);
                Ok(Applied::Done)
            }
            Record::TopicPut(put) => self.topic_put(at, put, effects),
            Record::TopicDelete(delete) => self.topic_delete(delete, effects),
            Record::GroupPut(put) => self.group_put(at, put, effects),
            Record::GroupDelete(delete) => {
                let id = self.groups.named(&delete.name)?.id;
                self.groups.delete(id);
                effects.push(Effect::Directory);
                Ok(Applied::Done)
            }
            other => self.plugin_record(at, other, effects),
        }
    }

    fn plugin_record(&mut self, at: RecordAt, record: &Record, effects: &mut Vec<Effect>) -> Outcome {
        let set = |created| Applied::Set { created, revision: at.position };
        let applied = match record {
            Record::PluginChunk(chunk) => {
                self.plugins.chunk(at.position, chunk);
                return Ok(Applied::Done);
            }
            Record::PluginPublish(publish) => set(self.plugins.publish(publish, at.time)?),
            Record::TagDelete(delete) => self.plugins.delete_tag(&delete.name, &delete.tag).map(|()| Applied::Done)?,
            Record::PluginDelete(delete) => self.plugins.delete(&delete.name).map(|()| Applied::Done)?,
            Record::BindingPut(put) => {
                let current = self.plugins.binding(&put.name).map_or(0, |binding| binding.revision);
                check_revision("binding", &put.name, current, put.expected_revision)?;
                set(self.plugins.bind(put, at.position)?)
            }
            Record::BindingDelete(delete) => self.plugins.unbind(&delete.name).map(|()| Applied::Done)?,
            other => unreachable!("every other kind is applied above: {other:?}"),
        };
        effects.push(Effect::Plugins);
        Ok(applied)
    }

    // Messages and transactions.

    fn message(&mut self, at: RecordAt, head: &MessageHead, effects: &mut Vec<Effect>) -> Outcome {
        let topic = self.topics.get_mut(head.topic)?;
        match self.dedup.first_copy(head, at.time) {
            Some(Stored::InQueue { queue, offset }) => return Ok(Applied::Stored { queue, offset }),
            Some(Stored::Half { transaction }) => return Ok(Applied::Prepared { transaction }),
            None => {}
        }
        let (queue, offset) = topic.append(head.queue, IndexEntry { position: at.position, tag: head.tag });
        self.dedup.remember(head, at.time, Stored::InQueue { queue, offset });
        effects.push(Effect::Available(head.topic));
        Ok(Applied::Stored { queue, offset })
    }

    fn half(&mut self, at: RecordAt, head: &MessageHead, effects: &mut Vec<Effect>) -> Outcome {
        let policy = &self.topics.get_mut(head.topic)?.config.transaction;
        match self.dedup.first_copy(head, at.time) {
            Some(Stored::Half { transaction }) => return Ok(Applied::Prepared { transaction }),
            Some(Stored::InQueue { queue, offset }) => return Ok(Applied::Stored { queue, offset }),
            None => {}
        }
        let next_due = if head.checks.max_checks(policy) == 0 {
            Millis::NEVER
        } else {
            at.time.plus_ms(head.checks.immunity_ms(policy))
        };
        let open = OpenTransaction {
            topic: head.topic,
            identity: head.identity,
            tag: head.tag,
            opened_at: at.time,
            overrides: head.checks,
            checks: 0,
            next_due,
            parked: None,
            last_answer: None,
        };
        self.transactions.open.put(at.position, open);
        self.dedup.remember(head, at.time, Stored::Half { transaction: at.position });
        effects.push(Effect::CheckDue(head.topic, next_due));
        Ok(Applied::Prepared { transaction: at.position })
    }

    fn end(&mut self, at: RecordAt, end: &End, effects: &mut Vec<Effect>) -> Outcome {
        let Some(open) = self.transactions.open.remove(end.transaction) else {
            return self.end_again(end);
        };
        if end.outcome == TransactionOutcome::Committed {
            let entry = IndexEntry { position: end.transaction, tag: open.tag };
            match self.topics.get_mut(open.topic) {
                Ok(topic) => {
                    topic.append(end.queue, entry);
                    effects.push(Effect::Available(open.topic));
                }
                // Deleting a topic takes its open transactions along, so this one cannot be open.
                Err(refusal) => return Err(refusal),
            }
        }
        let ended = Ended { outcome: end.outcome, at: at.time, topic: open.topic, record: at.position };
        self.transactions.outcomes.put(end.transaction, ended);
        Ok(Applied::Ended { outcome: end.outcome, repeated: false })
    }

    fn end_again(&self, end: &End) -> Outcome {
        let id = transaction_name(end.transaction);
        match self.transactions.outcomes.get(end.transaction) {
            Some(ended) if ended.outcome == end.outcome => {
                Ok(Applied::Ended { outcome: ended.outcome, repeated: true })
            }
            Some(ended) => Err(Refusal::OutcomeConflict { id, recorded: ended.outcome }),
            None => Err(Refusal::AlreadyEnded { id }),
        }
    }

    fn check_answered(&mut self, at: RecordAt, answer: &CheckAnswered, effects: &mut Vec<Effect>) -> Outcome {
        let Some(mut open) = self.transactions.open.get(answer.transaction).cloned() else {
            return Err(Refusal::AlreadyEnded { id: transaction_name(answer.transaction) });
        };
        if open.parked.is_some() || answer.check_number != open.checks + 1 {
            return Ok(Applied::Done);
        }
        let policy = &self.topics.get_mut(open.topic)?.config.transaction;
        open.checks += 1;
        open.last_answer =
            Some(Box::new(LastAnswer { by: answer.by.to_string(), reason: answer.reason.clone(), at: at.time }));
        let parked = open.checks >= open.overrides.max_checks(policy);
        if parked {
            open.parked = Some(format!("{} checks were answered \"unknown\"", open.checks).into());
            open.next_due = Millis::NEVER;
        } else {
            let step = answer.retry_after_ms.unwrap_or_else(|| open.overrides.step_ms(policy, open.checks));
            open.next_due = answer.asked_at.plus_ms(step);
            effects.push(Effect::CheckDue(open.topic, open.next_due));
        }
        self.transactions.open.put(answer.transaction, open);
        Ok(Applied::Counted { parked })
    }

    fn park(&mut self, park: &Park) -> Outcome {
        let Some(mut open) = self.transactions.open.get(park.transaction).cloned() else {
            return Err(Refusal::AlreadyEnded { id: transaction_name(park.transaction) });
        };
        if open.parked.is_none() {
            open.parked = Some(park.reason.as_str().into());
            open.next_due = Millis::NEVER;
            self.transactions.open.put(park.transaction, open);
        }
        Ok(Applied::Counted { parked: true })
    }

    fn resume(&mut self, at: RecordAt, resume: &Resume, effects: &mut Vec<Effect>) -> Outcome {
        let id = transaction_name(resume.transaction);
        let Some(mut open) = self.transactions.open.get(resume.transaction).cloned() else {
            return Err(match self.transactions.outcomes.get(resume.transaction) {
                Some(ended) => Refusal::OutcomeConflict { id, recorded: ended.outcome },
                None => Refusal::AlreadyEnded { id },
            });
        };
        if open.parked.take().is_none() {
            return Err(Refusal::Conflict(format!("transaction {id} is not parked; it is being checked already")));
        }
        open.checks = 0;
        open.next_due = at.time;
        effects.push(Effect::CheckDue(open.topic, at.time));
        self.transactions.open.put(resume.transaction, open);
        Ok(Applied::Done)
    }

    // Delivery.

    fn join(&mut self, join: &Join, effects: &mut Vec<Effect>) -> Outcome {
        let topic = self.topics.get_mut(join.topic)?;
        let ends: Vec<u64> = (0..topic.queue_count()).map(|queue| topic.end(queue)).collect();
        self.groups.join(join.group, join.topic, |config| match config.start {
            StartPosition::Beginning => Progress::starting_at(ends.iter().map(|_| 0)),
            StartPosition::End => Progress::starting_at(ends.iter().copied()),
        });
        effects.push(Effect::Joined);
        effects.push(Effect::Available(join.topic));
        Ok(Applied::Done)
    }

    fn lease(&mut self, at: RecordAt, lease: &Lease, effects: &mut Vec<Effect>) -> Outcome {
        let progress = self.groups.progress_mut(lease.group, lease.topic)?;
        let exception = Exception {
            attempts: 1,
            generation: lease.generation,
            visible_at: lease.deadline,
            leased_at: at.time,
            renewed_for: lease.renewed_for.as_deref().map(Into::into),
        };
        for range in &lease.fresh {
            progress.take_range(range, &exception);
        }
        for again in &lease.again {
            if again.delivered {
                progress.lease_again(again.queue, again.offset, &exception);
            } else {
                progress.remove(again.queue, again.offset);
            }
        }
        effects.push(Effect::VisibleAt(lease.group, lease.topic, lease.deadline));
        if lease.fresh.iter().any(|range| !range.left.is_empty()) {
            effects.push(Effect::Available(lease.topic));
        }
        Ok(Applied::Done)
    }

    fn renew(&mut self, at: RecordAt, renew: &Renew, effects: &mut Vec<Effect>) -> Outcome {
        let progress = self.groups.progress_mut(renew.group, renew.topic)?;
        for (queue, offset, generation) in &renew.leases {
            progress.renew(*queue, *offset, *generation, renew.deadline, at.time);
        }
        effects.push(Effect::VisibleAt(renew.group, renew.topic, renew.deadline));
        Ok(Applied::Done)
    }

    fn ack(&mut self, at: RecordAt, ack: &Ack) -> Outcome {
        let progress = self.groups.progress_mut(ack.group, ack.topic)?;
        if progress.lease(ack.queue, ack.offset, ack.generation, at.time)?.is_some() {
            progress.remove(ack.queue, ack.offset);
        }
        Ok(Applied::Done)
    }

    fn change_invisible(&mut self, at: RecordAt, change: &ChangeInvisible, effects: &mut Vec<Effect>) -> Outcome {
        let progress = self.groups.progress_mut(change.group, change.topic)?;
        if progress.lease(change.queue, change.offset, change.generation, at.time)?.is_none() {
            return Err(Refusal::InvalidHandle("the message was acknowledged"));
        }
        progress.change(change.queue, change.offset, change.new_generation, change.deadline, change.uncounted);
        effects.push(Effect::VisibleAt(change.group, change.topic, change.deadline));
        Ok(Applied::Done)
    }

    /// Moves a message to the dead letters. One that is done, or in other hands by now, is left alone without an
    /// error: clients repeat a refused forward for ever (protocol paper §4.9).
    fn dead_letter(&mut self, at: RecordAt, letter: &DeadLetter, effects: &mut Vec<Effect>) -> Outcome {
        let group = self.groups.get(letter.group).ok_or(Refusal::InvalidHandle("its group was deleted"))?;
        let target = group.config.dead_letter_topic(&group.name);
        let progress = self.groups.progress_mut(letter.group, letter.topic)?;
        if letter.offset >= progress.next(letter.queue) {
            return Err(Refusal::InvalidHandle("it names a message that was never delivered to this group"));
        }
        let current = progress.exception(letter.queue, letter.offset).map(|exception| exception.generation);
        if current != Some(letter.generation) {
            return Ok(Applied::Done);
        }
        let source = self.topics.get_mut(letter.topic)?;
        let Some(entry) = source.entry(letter.queue, letter.offset) else {
            return Err(Refusal::Internal(format!("queue {} has no offset {}", letter.queue, letter.offset)));
        };
        let id = match self.topics.named(&target) {
            Ok(topic) => topic.id,
            Err(_) => {
                let (id, _) = self.topics.put(&target, &TopicConfig::dead_letters(), at.position)?;
                effects.push(Effect::Directory);
                id
            }
        };
        self.topics.get_mut(id)?.append(0, entry);
        self.groups.progress_mut(letter.group, letter.topic)?.remove(letter.queue, letter.offset);
        effects.push(Effect::Available(id));
        Ok(Applied::Done)
    }

    // Topics and groups.

    fn topic_put(&mut self, at: RecordAt, put: &TopicPut, effects: &mut Vec<Effect>) -> Outcome {
        let current = self.topics.named(&put.name).map_or(0, |topic| topic.revision);
        check_revision("topic", &put.name, current, put.expected_revision)?;
        let (_, created) = self.topics.put(&put.name, &put.config, at.position)?;
        effects.push(Effect::Directory);
        Ok(Applied::Set { created, revision: at.position })
    }

    fn group_put(&mut self, at: RecordAt, put: &GroupPut, effects: &mut Vec<Effect>) -> Outcome {
        let current = self.groups.named(&put.name).map_or(0, |group| group.revision);
        check_revision("group", &put.name, current, put.expected_revision)?;
        let (_, created) = self.groups.put(&put.name, &put.config, at.position)?;
        effects.push(Effect::Directory);
        effects.push(Effect::Joined);
        Ok(Applied::Set { created, revision: at.position })
    }

    fn topic_delete(&mut self, delete: &TopicDelete, effects: &mut Vec<Effect>) -> Outcome {
        let topic = self.topics.named(&delete.name)?;
        let id = topic.id;
        if !delete.force {
            let open = self.transactions.open.in_topic(id);
            if open > 0 {
                return Err(Refusal::Conflict(format!(
                    "topic {} has {open} open transactions; end them first, or delete with force=true and lose them",
                    delete.name
                )));
            }
            let unconsumed = self.unconsumed(topic);
            if unconsumed > 0 {
                return Err(Refusal::Conflict(format!(
                    "topic {} has {unconsumed} messages that were not consumed; consume them first, or delete with \
                     force=true and lose them",
                    delete.name
                )));
            }
        }
        let open: Vec<u64> =
            self.transactions.open.iter(None).filter(|(_, open)| open.topic == id).map(|(id, _)| id).collect();
        for transaction in open {
            self.transactions.open.remove(transaction);
        }
        self.groups.forget_topic(id);
        self.topics.delete(id);
        effects.push(Effect::Directory);
        Ok(Applied::Done)
    }

    /// Messages of a topic that some group has not finished; all of them if no group ever joined it.
    fn unconsumed(&self, topic: &Topic) -> u64 {
        let left = |progress: &Progress| {
            let unseen: u64 = (0..topic.queue_count()).map(|q| topic.end(q).saturating_sub(progress.next(q))).sum();
            unseen + progress.unfinished()
        };
        self.groups.iter().filter_map(|group| group.progress(topic.id)).map(left).max().unwrap_or(topic.messages())
    }
}

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
