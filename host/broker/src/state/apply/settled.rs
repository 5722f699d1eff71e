//! Answers of components with what they staged: all of it, or nothing.

use super::{Applied, Apply, Effect, Outcome, RecordAt};
use crate::record::{DeadLetter, DeadLetterSized, KeptDeleted, MessageHead, Settled, SettledHead};
use crate::state::kept::KeptChange;
use crate::state::{IndexEntry, State};
use crate::{Generation, GroupId, QueueOffset, Refusal, TopicId};

/// Asks in this order, and changes nothing before all is answered (ruling 8): does the head change something, is the binding
/// the one that answered, is what it read still so, is there room, and a topic for each message.
impl Apply for Settled {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        #[cfg(any(test, feature = "testing"))]
        if let Some(outcome) = super::mistaken::settled(self, state, at, effects) {
            return outcome;
        }
        self.settle(state, at, effects)
    }
}

impl Settled {
    pub(super) fn settle(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        if !state.changes_something(&self.head, at) {
            effects.extend(state.freed_by(&self.head, at));
            return Ok(Applied::Late);
        }
        let Some(quota) = state.quota_of(self) else { return Ok(Applied::Late) };
        if let Some(kept) = &self.kept {
            if !state.kept.are_current(&kept.namespace, &kept.reads, at.time) {
                return Ok(Applied::Stale);
            }
            let change = KeptChange { namespace: &kept.namespace, quota, writes: &kept.writes };
            state.kept.check_room(&change, at.time)?;
        }
        let messages: Vec<_> = self.messages(at.position).collect();
        for (_, head) in &messages {
            state.check_target(head)?;
        }
        // Where this one is refused it has changed nothing, and then nothing refuses any more.
        let outcome = state.apply_head(&self.head, at, effects)?;
        if let Some(kept) = &self.kept {
            let change = KeptChange { namespace: &kept.namespace, quota, writes: &kept.writes };
            state.kept.write(&change, at.position.0, at.time);
        }
        for (position, head) in messages {
            let topic = state.topics.get_mut(head.topic)?;
            topic.received(head.record_len);
            topic.append(head.queue, IndexEntry { position, tag: head.tag });
            effects.push(Effect::Arrived(head.topic, head.tag));
        }
        Ok(outcome)
    }
}

impl Apply for KeptDeleted {
    fn apply(&self, state: &mut State, at: RecordAt, _: &mut Vec<Effect>) -> Outcome {
        state.kept.delete(&self.namespace, self.key.as_deref(), at.time)?;
        Ok(Applied::Done)
    }
}

/// The delivery that an answer is about.
#[derive(Clone, Copy)]
struct Delivered {
    group: GroupId,
    topic: TopicId,
    queue: u32,
    offset: QueueOffset,
    generation: Generation,
}

impl Delivered {
    fn of(head: &SettledHead) -> Option<Self> {
        Some(match head {
            SettledHead::Ack(ack) => {
                let crate::record::Ack { group, topic, queue, offset, generation } = *ack;
                Self { group, topic, queue, offset, generation }
            }
            SettledHead::DeadLetter(DeadLetterSized { letter, .. }) => {
                let DeadLetter { group, topic, queue, offset, generation, reason: _ } = letter;
                let (group, topic, queue) = (*group, *topic, *queue);
                Self { group, topic, queue, offset: *offset, generation: *generation }
            }
            SettledHead::End(_) | SettledHead::CheckAnswered(_) => return None,
        })
    }
}

impl State {
    /// Whether an answer changes something: a repeated end, a stale number of a check, and a lease that is over, that was
    /// given to another or whose message is done, change nothing.
    fn changes_something(&self, head: &SettledHead, at: RecordAt) -> bool {
        match head {
            SettledHead::End(end) => self.transactions.open.get(end.transaction).is_some(),
            SettledHead::CheckAnswered(answered) => self
                .transactions
                .open
                .get(answered.transaction)
                .is_some_and(|open| open.parked.is_none() && open.checks + 1 == answered.check_number),
            SettledHead::Ack(_) | SettledHead::DeadLetter(_) => Delivered::of(head).is_some_and(|delivered| {
                let Delivered { group, topic, queue, offset, generation } = delivered;
                let progress = self.groups.get(group).and_then(|group| group.progress(topic));
                let lease = progress.map(|progress| progress.lease(queue, offset, generation, at.time));
                matches!(lease, Some(Ok(Some(_)))) && self.topics.get(topic).is_some()
            }),
        }
    }

    /// A receive passes over a message while a record about it is on its way: if that changes nothing and the message is free,
    /// this says so.
    fn freed_by(&self, head: &SettledHead, at: RecordAt) -> Option<Effect> {
        let Delivered { group, topic, queue, offset, .. } = Delivered::of(head)?;
        let progress = self.groups.get(group)?.progress(topic)?;
        progress.is_free(queue, offset, at.time).then_some(Effect::AvailableTo(group, topic))
    }

    /// How much the binding may keep; `None` if it is not the one that answered any more.
    fn quota_of(&self, settled: &Settled) -> Option<u64> {
        let binding = self.plugins.binding(&settled.binding).filter(|binding| binding.created == settled.created)?;
        let quota = binding.keeps.as_ref().map_or(0, |keeps| keeps.quota);
        match &settled.kept {
            Some(kept) if !self.kept.is_of(&kept.namespace, &settled.binding) => None,
            _ => Some(quota),
        }
    }

    /// The topic of a message that is to become visible; it may have gone since the component named it.
    fn check_target(&self, head: &MessageHead) -> Result<(), Refusal> {
        if self.topics.get(head.topic).is_some() {
            return Ok(());
        }
        Err(Refusal::NotFound("a topic that the component publishes to was deleted; create it again".to_owned()))
    }

    fn apply_head(&mut self, head: &SettledHead, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        match head {
            SettledHead::End(end) => end.apply(self, at, effects),
            SettledHead::CheckAnswered(answered) => answered.apply(self, at, effects),
            SettledHead::Ack(ack) => ack.apply(self, at, effects),
            SettledHead::DeadLetter(letter) => letter.apply(self, at, effects),
        }
    }
}
