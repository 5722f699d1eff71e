//! Messages, and transactions from their half to their end.

use super::{Applied, Effect, Outcome, RecordAt};
use crate::record::{CheckAnswered, ComponentFailed, End, MessageHead, Park, Resume};
use crate::state::dedup::Stored;
use crate::state::{Ended, Failure, IndexEntry, LastAnswer, Now, OpenTransaction, Parked, State};
use crate::{HalfPosition, Millis, Refusal, TopicId, TransactionOutcome, transaction_name};

impl State {
    /// A resend is answered with the place of the first copy, as long as that is remembered. It is looked for before
    /// anything is changed: the offset of a message is given out once.
    pub(super) fn message(&mut self, at: RecordAt, head: &MessageHead, effects: &mut Vec<Effect>) -> Outcome {
        let now = Now::new(at.time, &self.leaps);
        let topic = self.topics.get_mut(head.topic)?;
        if let Some(Stored::InQueue { queue, offset }) = self.dedup.first_copy(head, false, now) {
            return Ok(Applied::Stored { queue, offset });
        }
        topic.received(head.record_len);
        let (queue, offset) = topic.append(head.queue, IndexEntry { position: at.position, tag: head.tag });
        self.dedup.remember(head, at.time, Stored::InQueue { queue, offset }, &self.leaps);
        effects.push(Effect::Arrived(head.topic, head.tag));
        Ok(Applied::Stored { queue, offset })
    }

    /// The position of the record is the id of the transaction, which nobody has to give out: it is there once in the
    /// log. A resend is answered with the first one, even if that has ended meanwhile: its end says the rest.
    pub(super) fn half(&mut self, at: RecordAt, head: &MessageHead, effects: &mut Vec<Effect>) -> Outcome {
        let now = Now::new(at.time, &self.leaps);
        let topic = self.topics.get_mut(head.topic)?;
        if let Some(Stored::Half { transaction }) = self.dedup.first_copy(head, true, now) {
            return Ok(Applied::Prepared { transaction });
        }
        topic.received(head.record_len);
        let policy = &topic.config.transaction;
        let next_due = if head.checks.max_checks(policy) == 0 {
            Millis::NEVER
        } else {
            let due = at.time.plus_ms(head.checks.immunity_ms(policy));
            effects.push(Effect::CheckDue(head.topic, due));
            due
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
            failure: None,
        };
        let transaction = HalfPosition::of(at.position);
        self.transactions.open.put(transaction, open);
        self.dedup.remember(head, at.time, Stored::Half { transaction }, &self.leaps);
        Ok(Applied::Prepared { transaction })
    }

    /// The first end in the log decides, whoever it comes from; any other is answered by [`Self::end_again`]. The
    /// message of a commit gets its offset here, in the order of the ends, and lies in the log where its half lies.
    pub(super) fn end(&mut self, at: RecordAt, end: &End, effects: &mut Vec<Effect>) -> Outcome {
        let Some(open) = self.transactions.open.get(end.transaction) else {
            return self.end_again(at, end);
        };
        let (id, tag, checks) = (open.topic, open.tag, open.checks);
        // Deleting a topic takes its open transactions along, so the topic is there.
        let topic = self.topics.get_mut(id)?;
        let position = self.transactions.remove(end.transaction);
        if end.outcome == TransactionOutcome::Committed {
            topic.append(end.queue, IndexEntry { position, tag });
            effects.push(Effect::Arrived(id, tag));
        }
        let ended = Ended { outcome: end.outcome, at: at.time, topic: id, record: at.position, checks };
        self.transactions.outcomes.put(end.transaction, ended, &self.leaps);
        Ok(Applied::Ended { outcome: end.outcome, repeated: false })
    }

    /// The answer to an end of what is not open: the same outcome is a repeat and succeeds, the other one is a
    /// conflict, and of what nobody remembers only that is said. Nothing is changed.
    fn end_again(&self, at: RecordAt, end: &End) -> Outcome {
        let id = transaction_name(end.transaction);
        match self.transactions.outcomes.remembered(end.transaction, self.at(at.time)) {
            Some(ended) if ended.outcome == end.outcome => {
                Ok(Applied::Ended { outcome: ended.outcome, repeated: true })
            }
            Some(ended) => Err(Refusal::OutcomeConflict { id, recorded: ended.outcome }),
            None => Err(Refusal::AlreadyEnded { id }),
        }
    }

    /// Counts an *unknown*. It names the number of the check that it answers, so a repeat, or an answer that comes
    /// after another one, counts nothing. When the last one that is allowed comes the transaction is parked, and never
    /// ended: that is for somebody to decide.
    pub(super) fn check_answered(
        &mut self,
        at: RecordAt,
        answer: &CheckAnswered,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
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
        let max = open.overrides.max_checks(policy);
        // Checks that were switched off while this answer was on its way (max 0) park nothing.
        let parked = max != 0 && open.checks >= max;
        if parked {
            let reason = format!("{} checks were answered \"unknown\"", open.checks).into();
            open.parked = Some(Box::new(Parked { reason, until_bound: false }));
        }
        if parked || max == 0 {
            open.next_due = Millis::NEVER;
        } else {
            let step = answer.retry_after_ms.unwrap_or_else(|| open.overrides.step_ms(policy, open.checks));
            open.next_due = answer.asked_at.plus_ms(step);
            effects.push(Effect::CheckDue(open.topic, open.next_due));
        }
        self.transactions.open.put(answer.transaction, open);
        Ok(Applied::Counted { parked })
    }

    /// Ends the asking and not the transaction. A repeat keeps the first reason.
    pub(super) fn park(&mut self, park: &Park) -> Outcome {
        let Some(mut open) = self.transactions.open.get(park.transaction).cloned() else {
            return Err(Refusal::AlreadyEnded { id: transaction_name(park.transaction) });
        };
        if open.parked.is_none() {
            open.parked = Some(Box::new(Parked { reason: park.reason.as_str().into(), until_bound: false }));
            open.next_due = Millis::NEVER;
            self.transactions.open.put(park.transaction, open);
        }
        Ok(Applied::Counted { parked: true })
    }

    /// Parks what a component fails on again and again, until it is bound anew. The record names the check and the
    /// binding that it is about, and changes nothing where either has moved on.
    pub(super) fn component_failed(&mut self, at: RecordAt, failed: &ComponentFailed) -> Outcome {
        let Some(mut open) = self.transactions.open.get(failed.transaction).cloned() else {
            return Err(Refusal::AlreadyEnded { id: transaction_name(failed.transaction) });
        };
        let topic = &self.topics.get_mut(open.topic)?.name;
        let binding = self.plugins.binding_of_topic(topic).map(|(_, binding)| binding.revision);
        if open.parked.is_some() || failed.check_number != open.checks + 1 || binding != Some(failed.binding_revision) {
            // Answered, parked or bound anew while this was on its way.
            return Ok(Applied::Counted { parked: false });
        }
        let reason = format!("its component failed on it {} times in a row, and answers about others", failed.failures);
        open.parked = Some(Box::new(Parked { reason: reason.into(), until_bound: true }));
        open.next_due = Millis::NEVER;
        open.failure = Some(Box::new(Failure {
            by: failed.by.to_string(),
            failures: failed.failures,
            error: failed.error.clone(),
            trace: failed.trace.clone(),
            at: at.time,
        }));
        self.transactions.open.put(failed.transaction, open);
        Ok(Applied::Counted { parked: true })
    }

    /// A binding was set anew or taken away: what was parked because its component failed is asked about again. What was
    /// counted stays counted.
    pub(super) fn resume_failed(&mut self, at: RecordAt, topics: &[String], effects: &mut Vec<Effect>) {
        let named = |id: &TopicId| {
            self.topics.get(*id).is_some_and(|topic| topics.iter().any(|bound| topic.name.is_written(bound)))
        };
        let waiting: Vec<HalfPosition> = self
            .transactions
            .open
            .waiting_for_binding()
            .filter(|(topic, _)| named(topic))
            .map(|(_, transaction)| transaction)
            .collect();
        for transaction in waiting {
            let Some(mut open) = self.transactions.open.get(transaction).cloned() else { continue };
            open.parked = None;
            let Ok(topic) = self.topics.get_mut(open.topic) else { continue };
            if open.overrides.max_checks(&topic.config.transaction) != 0 {
                open.next_due = at.time;
                effects.push(Effect::CheckDue(open.topic, at.time));
            }
            self.transactions.open.put(transaction, open);
        }
    }

    /// Asks again from the first check on. What was parked and ended meanwhile is told with its outcome: whoever
    /// resumes meant to see to its end.
    pub(super) fn resume(&mut self, at: RecordAt, resume: &Resume, effects: &mut Vec<Effect>) -> Outcome {
        let id = transaction_name(resume.transaction);
        let Some(mut open) = self.transactions.open.get(resume.transaction).cloned() else {
            return Err(match self.transactions.outcomes.remembered(resume.transaction, self.at(at.time)) {
                Some(ended) => Refusal::OutcomeConflict { id, recorded: ended.outcome },
                None => Refusal::AlreadyEnded { id },
            });
        };
        let topic = self.topics.get_mut(open.topic)?;
        if open.overrides.max_checks(&topic.config.transaction) == 0 {
            return Err(Refusal::Conflict(format!(
                "transaction {id} is never checked (max_checks is 0); commit it or roll it back"
            )));
        }
        if open.parked.take().is_none() {
            return Err(Refusal::Conflict(format!("transaction {id} is not parked; it is being checked already")));
        }
        open.checks = 0;
        open.last_answer = Some(Box::new(LastAnswer::resumed(&resume.by, &resume.reason, at.time)));
        open.next_due = at.time;
        effects.push(Effect::CheckDue(open.topic, at.time));
        self.transactions.open.put(resume.transaction, open);
        Ok(Applied::Done)
    }
}
