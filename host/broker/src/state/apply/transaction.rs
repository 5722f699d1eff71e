//! Transactions: asked about, parked, and ended.

use super::{Applied, Apply, Effect, Outcome, RecordAt};
use crate::record::{CheckAnswered, ComponentFailed, End, Park, Resume};
use crate::state::{Ended, Failure, IndexEntry, LastAnswer, Parked, State};
use crate::{HalfPosition, Millis, Refusal, TopicId, TransactionOutcome};

/// The first end in the log decides, whoever it comes from; any other is answered by [`State::end_again`]. The
/// message of a commit gets its offset here, in the order of the ends, and lies in the log where its half lies.
impl Apply for End {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let Some(open) = state.transactions.open.get(self.transaction) else {
            return state.end_again(at, self);
        };
        let (id, tag, checks) = (open.topic, open.tag, open.checks);
        // Deleting a topic takes its open transactions along, so the topic is there.
        let topic = state.topics.get_mut(id)?;
        let position = state.transactions.remove(self.transaction);
        if self.outcome == TransactionOutcome::Committed {
            topic.append(self.queue, IndexEntry { position, tag });
            effects.push(Effect::Arrived(id, tag));
        }
        let ended = Ended { outcome: self.outcome, at: at.time, topic: id, record: at.position, checks };
        state.transactions.outcomes.put(self.transaction, ended, &state.leaps);
        Ok(Applied::Ended { outcome: self.outcome, repeated: false })
    }
}

/// Counts an *unknown*. It names the number of the check that it answers, so a repeat, or an answer that comes
/// after another one, counts nothing. When the last one that is allowed comes the transaction is parked, and never
/// ended: that is for somebody to decide.
impl Apply for CheckAnswered {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let Some(mut open) = state.transactions.open.get(self.transaction).cloned() else {
            return Err(state.already_ended(self.transaction));
        };
        if open.parked.is_some() || self.check_number != open.checks + 1 {
            return Ok(Applied::Done);
        }
        let policy = &state.topics.get_mut(open.topic)?.config.transaction;
        open.checks += 1;
        open.last_answer =
            Some(Box::new(LastAnswer { by: self.by.to_string(), reason: self.reason.clone(), at: at.time }));
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
            let step = self.retry_after_ms.unwrap_or_else(|| open.overrides.step_ms(policy, open.checks));
            open.next_due = self.asked_at.plus_ms(step);
            effects.push(Effect::CheckDue(open.topic, open.next_due));
        }
        state.transactions.open.put(self.transaction, open);
        Ok(Applied::Counted { parked })
    }
}

/// Ends the asking and not the transaction. A repeat keeps the first reason.
impl Apply for Park {
    fn apply(&self, state: &mut State, _: RecordAt, _: &mut Vec<Effect>) -> Outcome {
        let Some(mut open) = state.transactions.open.get(self.transaction).cloned() else {
            return Err(state.already_ended(self.transaction));
        };
        if open.parked.is_none() {
            open.parked = Some(Box::new(Parked { reason: self.reason.as_str().into(), until_bound: false }));
            open.next_due = Millis::NEVER;
            state.transactions.open.put(self.transaction, open);
        }
        Ok(Applied::Counted { parked: true })
    }
}

/// Parks what a component fails on again and again, until it is bound anew. The record names the check and the
/// binding that it is about, and changes nothing where either has moved on.
impl Apply for ComponentFailed {
    fn apply(&self, state: &mut State, at: RecordAt, _: &mut Vec<Effect>) -> Outcome {
        let Some(mut open) = state.transactions.open.get(self.transaction).cloned() else {
            return Err(state.already_ended(self.transaction));
        };
        let topic = &state.topics.get_mut(open.topic)?.name;
        let binding = state.plugins.binding_of_topic(topic).map(|(_, binding)| binding.revision);
        if open.parked.is_some() || self.check_number != open.checks + 1 || binding != Some(self.binding_revision) {
            // Answered, parked or bound anew while this was on its way.
            return Ok(Applied::Counted { parked: false });
        }
        let reason = format!("its component failed on it {} times in a row, and answers about others", self.failures);
        open.parked = Some(Box::new(Parked { reason: reason.into(), until_bound: true }));
        open.next_due = Millis::NEVER;
        open.failure = Some(Box::new(Failure {
            by: self.by.to_string(),
            failures: self.failures,
            error: self.error.clone(),
            trace: self.trace.clone(),
            at: at.time,
        }));
        state.transactions.open.put(self.transaction, open);
        Ok(Applied::Counted { parked: true })
    }
}

/// Asks again from the first check on. What was parked and ended meanwhile is told with its outcome: whoever
/// resumes meant to see to its end.
impl Apply for Resume {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let id = state.transaction_name(self.transaction);
        let Some(mut open) = state.transactions.open.get(self.transaction).cloned() else {
            return Err(match state.transactions.outcomes.remembered(self.transaction, state.at(at.time)) {
                Some(ended) => Refusal::OutcomeConflict { id, recorded: ended.outcome },
                None => Refusal::AlreadyEnded { id },
            });
        };
        let topic = state.topics.get_mut(open.topic)?;
        if open.overrides.max_checks(&topic.config.transaction) == 0 {
            return Err(Refusal::Conflict(format!(
                "transaction {id} is never checked (max_checks is 0); commit it or roll it back"
            )));
        }
        if open.parked.take().is_none() {
            return Err(Refusal::Conflict(format!("transaction {id} is not parked; it is being checked already")));
        }
        open.checks = 0;
        open.last_answer = Some(Box::new(LastAnswer::resumed(&self.by, &self.reason, at.time)));
        open.next_due = at.time;
        effects.push(Effect::CheckDue(open.topic, at.time));
        state.transactions.open.put(self.transaction, open);
        Ok(Applied::Done)
    }
}

impl State {
    /// What a transaction is called in what is said to people.
    fn transaction_name(&self, transaction: HalfPosition) -> String {
        self.incarnations.transaction_id(transaction).to_string()
    }

    fn already_ended(&self, transaction: HalfPosition) -> Refusal {
        Refusal::AlreadyEnded { id: self.transaction_name(transaction) }
    }

    /// The answer to an end of what is not open: the same outcome is a repeat and succeeds, the other one is a
    /// conflict, and of what nobody remembers only that is said. Nothing is changed.
    fn end_again(&self, at: RecordAt, end: &End) -> Outcome {
        let id = self.transaction_name(end.transaction);
        match self.transactions.outcomes.remembered(end.transaction, self.at(at.time)) {
            Some(ended) if ended.outcome == end.outcome => {
                Ok(Applied::Ended { outcome: ended.outcome, repeated: true })
            }
            Some(ended) => Err(Refusal::OutcomeConflict { id, recorded: ended.outcome }),
            None => Err(Refusal::AlreadyEnded { id }),
        }
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
}
