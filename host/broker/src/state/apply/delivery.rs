//! What a group received, and what became of it.

use super::{Applied, Effect, Outcome, RecordAt};
use crate::record::{Ack, Again, ChangeInvisible, DeadLetter, FilterNoted, FiltersGone, Join, Lease, Renew};
use crate::state::{Exception, Progress, State};
use crate::{Refusal, StartPosition, TopicConfig};

impl State {
    /// Where a group begins is decided once, at the position of this record: what is sent while it is on its way lies
    /// behind *the end*. A second one changes nothing of a group that has joined.
    pub(super) fn join(&mut self, at: RecordAt, join: &Join, effects: &mut Vec<Effect>) -> Outcome {
        let topic = &*self.topics.get_mut(join.topic)?;
        self.groups.join(join.group, join.topic, |config| {
            Progress::starting_at((0..topic.queue_count()).map(|queue| match config.start {
                StartPosition::Beginning => topic.start(queue),
                StartPosition::End => topic.end(queue),
            }))
        })?;
        self.groups.see(join.group, at.time);
        effects.push(Effect::Joined);
        effects.push(Effect::AvailableTo(join.group, join.topic));
        Ok(Applied::Done)
    }

    /// Before the first lease for the filter, in the order of the log: a lease skips nothing that a noted filter
    /// matches, and so needs to know it. A repeat changes nothing.
    pub(super) fn filter_noted(&mut self, at: RecordAt, noted: &FilterNoted) -> Outcome {
        self.groups.note_filter(noted.group, noted.topic, &noted.filter)?;
        self.groups.see(noted.group, at.time);
        Ok(Applied::Done)
    }

    /// What was left for these filters alone is done by the next receive of the group, which may then have fresh messages.
    pub(super) fn filters_gone(&mut self, gone: &FiltersGone, effects: &mut Vec<Effect>) -> Outcome {
        self.groups.drop_filters(gone.group, gone.topic, &gone.filters)?;
        effects.push(Effect::AvailableTo(gone.group, gone.topic));
        Ok(Applied::Done)
    }

    /// Ranges of queues or offsets that the topic does not have are ignored: the cursor stays within the queue (I6). So
    /// are redeliveries of a message whose lease lives: it never has two owners, whatever the leader did. Nor is anything
    /// skipped that a filter of the group matches (ruling 12).
    pub(super) fn lease(&mut self, at: RecordAt, lease: &Lease, effects: &mut Vec<Effect>) -> Outcome {
        let progress = self.groups.progress_mut(lease.group, lease.topic)?;
        let topic = self.topics.get_mut(lease.topic)?;
        let tag = |queue, offset| topic.entry(queue, offset).map(|entry| entry.tag);
        let exception = Exception {
            attempts: 1,
            suspended: false,
            generation: lease.generation,
            visible_at: lease.deadline,
            left: None,
            leased_at: at.time,
            renewed_for: lease.renewed_for.as_deref().map(Into::into),
        };
        let (mut freed, mut left) = (false, false);
        for range in lease.fresh.iter().filter(|range| range.to <= topic.end(range.queue)) {
            left |= progress.take_range(range, &exception, |offset| tag(range.queue, offset));
        }
        for again in &lease.again {
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
        self.groups.see(lease.group, at.time);
        effects.push(Effect::VisibleAt(lease.group, lease.topic, lease.deadline));
        if left || freed {
            effects.push(Effect::AvailableTo(lease.group, lease.topic));
        }
        Ok(Applied::Done)
    }

    // A receive passes over a message while a record about it is on its way. If that record then changes nothing and
    // the message is free, `Available` says so: nothing else would.

    /// Moves the deadlines of leases that still live and are of the generation that is named; the rest of the list is
    /// passed over. One that is over by now is free, and whoever waits for it is told.
    pub(super) fn renew(&mut self, at: RecordAt, renew: &Renew, effects: &mut Vec<Effect>) -> Outcome {
        let progress = self.groups.progress_mut(renew.group, renew.topic)?;
        let mut over = false;
        for (queue, offset, generation) in &renew.leases {
            progress.renew(*queue, *offset, *generation, renew.deadline, at.time);
            over |= progress.is_free(*queue, *offset, at.time);
        }
        self.groups.see(renew.group, at.time);
        effects.push(Effect::VisibleAt(renew.group, renew.topic, renew.deadline));
        if over {
            effects.push(Effect::AvailableTo(renew.group, renew.topic));
        }
        Ok(Applied::Done)
    }

    /// Done means done: a repeat finds nothing to do and is answered like the first. One with the handle of an earlier
    /// lease is refused, since the message is in other hands by now.
    pub(super) fn ack(&mut self, at: RecordAt, ack: &Ack, effects: &mut Vec<Effect>) -> Outcome {
        let progress = self.groups.progress_mut(ack.group, ack.topic)?;
        let (queue, offset) = (ack.queue, ack.offset);
        let available = Effect::AvailableTo(ack.group, ack.topic);
        let held = match progress.lease(queue, offset, ack.generation, at.time) {
            Ok(lease) => lease.is_some(),
            Err(refusal) => {
                effects.extend(progress.is_free(queue, offset, at.time).then_some(available));
                return Err(refusal);
            }
        };
        if held {
            effects.extend(progress.remove(queue, offset).then_some(available));
            self.groups.note_used(ack.group);
        }
        Ok(Applied::Done)
    }

    /// Gives the lease another end and another generation. So a repeat with the old handle is refused, and only the new
    /// handle can acknowledge: of two answers on their way one counts.
    pub(super) fn change_invisible(
        &mut self,
        at: RecordAt,
        change: &ChangeInvisible,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let progress = self.groups.progress_mut(change.group, change.topic)?;
        match progress.lease(change.queue, change.offset, change.generation, at.time) {
            Ok(Some(_)) => {}
            Ok(None) => return Err(Refusal::InvalidHandle("the message was acknowledged")),
            Err(refusal) => {
                let free = progress.is_free(change.queue, change.offset, at.time);
                effects.extend(free.then_some(Effect::AvailableTo(change.group, change.topic)));
                return Err(refusal);
            }
        }
        progress.change(change.queue, change.offset, change.new_generation, change.deadline, change.uncounted);
        effects.push(Effect::VisibleAt(change.group, change.topic, change.deadline));
        Ok(Applied::Done)
    }

    /// Moves a message to the dead letters. One that is done, or in other hands by now, is left alone without an
    /// error: clients repeat a refused forward for ever (protocol paper §4.9).
    ///
    /// A group that consumes its own dead letters finds them at the end of the same topic again: endless, but nothing
    /// is lost.
    pub(super) fn dead_letter(
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
