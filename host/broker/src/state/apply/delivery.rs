//! What a group received, and what became of it.

use super::{Applied, Apply, Effect, Outcome, RecordAt};
use crate::record::{Ack, Again, ChangeInvisible, DeadLetter, DeadLetterSized, GiveBack, Lease, Renew};
use crate::state::{Exception, State};
use crate::{Refusal, TopicConfig};

/// Ranges of queues or offsets that the topic does not have are ignored: the cursor stays within the queue (I6). So
/// are redeliveries of a message whose lease lives: it never has two owners, whatever the leader did. Nor is anything
/// skipped that a filter of the group matches (ruling 12).
impl Apply for Lease {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let progress = state.groups.progress_mut(self.group, self.topic)?;
        let topic = state.topics.get_mut(self.topic)?;
        let tag = |queue, offset| topic.entry(queue, offset).map(|entry| entry.tag);
        let exception = Exception {
            attempts: 1,
            suspended: false,
            generation: self.generation,
            visible_at: self.deadline,
            left: None,
            leased_at: at.time,
            renewed_for: self.renewed_for.as_deref().map(Into::into),
        };
        let (mut freed, mut left) = (false, false);
        for range in self.fresh.iter().filter(|range| range.to <= topic.end(range.queue)) {
            left |= progress.take_range(range, &exception, |offset| tag(range.queue, offset));
        }
        for again in &self.again {
            let (queue, offset) = (again.queue, again.offset);
            if !progress.is_free(queue, offset, at.time) {
                continue;
            }
            let tag = tag(queue, offset);
            let wanted = tag.is_some_and(|tag| progress.filters().matches(tag));
            match again.becomes {
                Again::Leased => progress.lease_again(queue, offset, &exception),
                Again::Done if !wanted => freed |= progress.remove(queue, offset),
                Again::Left | Again::Done => {
                    progress.leave(queue, offset, tag.unwrap_or_default());
                    left = true;
                }
            }
        }
        state.groups.see(self.group, at.time);
        effects.push(Effect::VisibleAt(self.group, self.topic, self.deadline));
        if left || freed {
            effects.push(Effect::AvailableTo(self.group, self.topic));
        }
        Ok(Applied::Done)
    }
}

// A receive passes over a message while a record about it is on its way. If that record then changes nothing and
// the message is free, `Available` says so: nothing else would.

/// Moves the deadlines of leases that still live and are of the generation that is named; the rest of the list is
/// passed over. One that is over by now is free, and whoever waits for it is told.
impl Apply for Renew {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let progress = state.groups.progress_mut(self.group, self.topic)?;
        let mut over = false;
        for (queue, offset, generation) in &self.leases {
            progress.renew(*queue, *offset, *generation, self.deadline, at.time);
            over |= progress.is_free(*queue, *offset, at.time);
        }
        state.groups.see(self.group, at.time);
        effects.push(Effect::VisibleAt(self.group, self.topic, self.deadline));
        if over {
            effects.push(Effect::AvailableTo(self.group, self.topic));
        }
        Ok(Applied::Done)
    }
}

/// Done means done: a repeat finds nothing to do and is answered like the first. One with the handle of an earlier
/// lease is refused, since the message is in other hands by now.
impl Apply for Ack {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let progress = state.groups.progress_mut(self.group, self.topic)?;
        let (queue, offset) = (self.queue, self.offset);
        let available = Effect::AvailableTo(self.group, self.topic);
        let held = match progress.lease(queue, offset, self.generation, at.time) {
            Ok(lease) => lease.is_some(),
            Err(refusal) => {
                effects.extend(progress.is_free(queue, offset, at.time).then_some(available));
                return Err(refusal);
            }
        };
        if held {
            effects.extend(progress.remove(queue, offset).then_some(available));
            state.groups.note_used(self.group);
        }
        Ok(Applied::Done)
    }
}

/// Gives the lease another end and another generation. So a repeat with the old handle is refused, and only the new
/// handle can acknowledge: of two answers on their way one counts.
impl Apply for ChangeInvisible {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let progress = state.groups.progress_mut(self.group, self.topic)?;
        match progress.lease(self.queue, self.offset, self.generation, at.time) {
            Ok(Some(_)) => {}
            Ok(None) => return Err(Refusal::InvalidHandle("the message was acknowledged")),
            Err(refusal) => {
                let free = progress.is_free(self.queue, self.offset, at.time);
                effects.extend(free.then_some(Effect::AvailableTo(self.group, self.topic)));
                return Err(refusal);
            }
        }
        progress.change(self.queue, self.offset, self.new_generation, self.deadline, self.uncounted);
        effects.push(Effect::VisibleAt(self.group, self.topic, self.deadline));
        Ok(Applied::Done)
    }
}

/// Says so if the message is free: a receive may have passed over it while this was on its way.
impl Apply for GiveBack {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let progress = state.groups.progress_mut(self.group, self.topic)?;
        progress.give_back(self.queue, self.offset, self.attempts);
        let free = progress.is_free(self.queue, self.offset, at.time);
        effects.extend(free.then_some(Effect::AvailableTo(self.group, self.topic)));
        Ok(Applied::Done)
    }
}

impl Apply for DeadLetter {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        state.dead_letter(at, self, 0, effects)
    }
}

impl Apply for DeadLetterSized {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        state.dead_letter(at, &self.letter, self.record_len, effects)
    }
}

impl State {
    /// Moves a message to the dead letters. One that is done, or in other hands by now, is left alone without an
    /// error: clients repeat a refused forward for ever (protocol paper §4.9).
    ///
    /// A group that consumes its own dead letters finds them at the end of the same topic again: endless, but nothing
    /// is lost.
    fn dead_letter(
        &mut self,
        at: RecordAt,
        letter: &DeadLetter,
        record_len: u32,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
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
        let Some(entry) = source.entry_or_unknown(letter.queue, letter.offset) else {
            return Err(Refusal::Internal(format!("queue {} has no offset {}", letter.queue, letter.offset)));
        };
        let id = match self.topics.named(&target) {
            Ok(topic) => topic.id,
            Err(_) => {
                let (id, _) = self.topics.put(&target, &TopicConfig::dead_letters(), at.position.0)?;
                effects.push(Effect::Directory);
                id
            }
        };
        let topic = self.topics.get_mut(id)?;
        topic.append(0, entry);
        topic.received(record_len);
        if self.groups.progress_mut(letter.group, letter.topic)?.remove(letter.queue, letter.offset) {
            effects.push(Effect::AvailableTo(letter.group, letter.topic));
        }
        self.groups.note_used(letter.group);
        effects.push(Effect::Arrived(id, entry.tag));
        Ok(Applied::Done)
    }
}
