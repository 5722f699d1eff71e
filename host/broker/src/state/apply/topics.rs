//! Topics: made, changed, and gone with what is in them.

use super::{Applied, Apply, Effect, Outcome, RecordAt, check_revision};
use crate::record::{TopicDelete, TopicForced, TopicPut};
use crate::state::{Progress, State, Topic};
use crate::{HalfPosition, Millis, Refusal, ResourceName, TopicId};

/// A repeat of the same record is one more revision, unless it says which one it expects. Queues are only ever
/// added: an offset that was handed out keeps its meaning.
impl Apply for TopicPut {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let before = state.topics.named(&self.name).ok();
        check_revision("topic", &self.name, before.map_or(0, |topic| topic.revision), self.expected_revision)?;
        let checks = |max_checks| max_checks != 0;
        let checked = before.map(|topic| checks(topic.config.transaction.max_checks));
        let (id, created) = state.topics.put(&self.name, &self.config, at.position.0)?;
        if checked.is_some_and(|checked| checked != checks(self.config.transaction.max_checks)) {
            state.reschedule(at.time, id, effects);
        }
        effects.push(Effect::Directory);
        Ok(Applied::Set { created, revision: at.position.0 })
    }
}

impl Apply for TopicDelete {
    fn apply(&self, state: &mut State, _: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        state.delete_topic(&self.name, self.force, effects)
    }
}

impl Apply for TopicForced {
    fn apply(&self, state: &mut State, _: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        state.delete_topic(&self.name, true, effects)
    }
}

impl State {
    /// The checks of a topic were switched on or off: its open transactions follow, as later ones will.
    fn reschedule(&mut self, now: Millis, topic: TopicId, effects: &mut Vec<Effect>) {
        let Ok(policy) = self.topics.get_mut(topic).map(|topic| &topic.config.transaction) else { return };
        let open = &mut self.transactions.open;
        let asked: Vec<_> = open
            .iter(None)
            .filter(|(_, open)| open.topic == topic && open.parked.is_none())
            .map(|(transaction, open)| (transaction, open.clone()))
            .collect();
        for (transaction, mut changed) in asked {
            if changed.overrides.max_checks(policy) == 0 {
                changed.next_due = Millis::NEVER;
            } else if changed.next_due == Millis::NEVER {
                changed.next_due = changed.opened_at.plus_ms(changed.overrides.immunity_ms(policy)).max(now);
                effects.push(Effect::CheckDue(topic, changed.next_due));
            }
            open.put(transaction, changed);
        }
    }

    /// Whether anything would be lost is decided here and not by who proposed it: a message may have come between. What
    /// goes with the topic goes in this order: transactions that could no longer end, what groups know of it, the topic
    /// itself; its name stays for dead letters that came from it.
    fn delete_topic(&mut self, name: &ResourceName, force: bool, effects: &mut Vec<Effect>) -> Outcome {
        let topic = self.topics.named(name)?;
        let id = topic.id;
        if !force {
            let open = self.transactions.open.in_topic(id);
            if open > 0 {
                return Err(Refusal::Conflict(format!(
                    "topic {name} has {open} open transactions; end them first, or delete with force=true and lose them"
                )));
            }
            let unconsumed = self.unconsumed(topic);
            if unconsumed > 0 {
                return Err(Refusal::Conflict(format!(
                    "topic {name} has {unconsumed} messages that were not consumed; consume them first, or delete with \
                     force=true and lose them"
                )));
            }
        }
        if self.transactions.open.in_topic(id) > 0 {
            let all = self.transactions.open.iter(None);
            let lost: Vec<HalfPosition> =
                all.filter(|(_, open)| open.topic == id).map(|(transaction, _)| transaction).collect();
            for transaction in lost {
                self.transactions.remove(transaction);
            }
        }
        self.groups.forget_topic(id);
        self.topics.delete(id);
        effects.push(Effect::Directory);
        Ok(Applied::Done)
    }

    /// Messages of a topic that some group has not finished; all of them if no group ever joined it.
    fn unconsumed(&self, topic: &Topic) -> u64 {
        let left = |progress: &Progress| {
            let unseen: u64 = (0..topic.queue_count()).map(|q| topic.end(q).saturating_since(progress.next(q))).sum();
            unseen + progress.unfinished()
        };
        self.groups.iter().filter_map(|group| group.progress(topic.id)).map(left).max().unwrap_or(topic.messages_kept())
    }
}
