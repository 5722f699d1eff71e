//! Who had which message, by the leases in the log alone and the times of their leaders.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use vouch_broker::record::{Again, DeadLetterSized, Lease, Record};
use vouch_broker::{Generation, GroupId, Millis, QueueOffset, State, TopicId};

use super::{GotMessage, Wrong};

type Place = (u32, QueueOffset);

/// The leases of one group on one topic.
pub(super) struct Leases {
    of: (GroupId, TopicId),
    /// The first offset of each queue that was never looked at.
    next: BTreeMap<u32, QueueOffset>,
    /// Where each queue begins.
    starts: BTreeMap<u32, QueueOffset>,
    /// Who has each message, and until when; none if it is done.
    held: BTreeMap<Place, Option<(Generation, Millis)>>,
    /// How often each message was handed out, but for what was given back.
    attempts: BTreeMap<Place, u32>,
    /// Which delivery each lease is.
    took_effect: BTreeMap<(Place, Generation), u32>,
}

impl Leases {
    /// None of this group on this topic yet.
    pub(super) fn of(group: GroupId, topic: TopicId) -> Self {
        let (next, starts, held) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { of: (group, topic), next, starts, held, attempts: BTreeMap::new(), took_effect: BTreeMap::new() }
    }

    /// Whether a lease of this generation lives.
    pub(super) fn lives(&self, queue: u32, offset: QueueOffset, generation: Generation, now: Millis) -> bool {
        let held = self.held.get(&(queue, offset)).copied().flatten();
        held.is_some_and(|(is, until)| is == generation && until > now)
    }

    /// Whether nobody has to do with the message any more.
    pub(super) fn is_done(&self, queue: u32, offset: QueueOffset) -> bool {
        self.held.get(&(queue, offset)) == Some(&None)
    }

    /// Whoever had it by this lease is done with it.
    pub(super) fn done(&mut self, queue: u32, offset: QueueOffset, generation: Generation) {
        let held = self.held.get_mut(&(queue, offset));
        if let Some(held) = held.filter(|held| held.is_some_and(|(is, _)| is == generation)) {
            *held = None;
        }
    }

    /// Which delivery of its message this is, if its lease took effect.
    pub(super) fn attempt(&self, got: &GotMessage) -> Option<u32> {
        self.took_effect.get(&((got.queue, got.offset), got.generation)).copied()
    }

    fn takes_effect(&mut self, place: Place, generation: Generation) {
        let attempts = self.attempts.entry(place).or_default();
        *attempts += 1;
        self.took_effect.insert((place, generation), *attempts);
    }

    /// A record that was not refused.
    ///
    /// # Errors
    /// I5: messages were first leased in another order than that of their queue.
    pub(super) fn applied(&mut self, record: &Record, time: Millis, state: &State) -> Result<(), Wrong> {
        match record {
            Record::Lease(lease) if (lease.group, lease.topic) == self.of => self.leased(lease, time)?,
            Record::Expire(expire) if expire.topic == self.of.1 => {
                let topic = state.topics().get(expire.topic);
                let starts = expire.starts.iter().map(|(queue, _)| *queue);
                topic
                    .into_iter()
                    .for_each(|topic| starts.clone().for_each(|queue| self.begins(queue, topic.start(queue))));
            }
            Record::Ack(ack) if (ack.group, ack.topic) == self.of => self.done(ack.queue, ack.offset, ack.generation),
            Record::DeadLetter(letter) | Record::DeadLetterSized(DeadLetterSized { letter, .. })
                if (letter.group, letter.topic) == self.of =>
            {
                self.done(letter.queue, letter.offset, letter.generation);
            }
            Record::GiveBack(back) if (back.group, back.topic) == self.of => {
                let place = (back.queue, back.offset);
                if self.held.get(&place).is_some_and(Option::is_some) {
                    let attempts = self.attempts.entry(place).or_default();
                    *attempts = attempts.saturating_sub(back.attempts);
                }
            }
            // What a node hands out to somebody who no longer waits is given back, due at once.
            Record::ChangeInvisible(change) if (change.group, change.topic) == self.of => {
                let held = self.held.entry((change.queue, change.offset)).or_default();
                if held.is_some_and(|(generation, _)| generation == change.generation) {
                    *held = Some((change.new_generation, change.deadline));
                    let attempts = self.attempts.entry((change.queue, change.offset)).or_default();
                    *attempts = attempts.saturating_sub(change.uncounted.into());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What lies before this offset of a queue was let go: nobody has it, or gets it.
    fn begins(&mut self, queue: u32, start: QueueOffset) {
        let next = self.next.entry(queue).or_insert(QueueOffset(0));
        *next = start.max(*next);
        self.starts.insert(queue, start);
        self.held.range_mut((queue, QueueOffset(0))..(queue, start)).for_each(|(_, held)| *held = None);
    }

    fn leased(&mut self, lease: &Lease, time: Millis) -> Result<(), Wrong> {
        let until = Some((lease.generation, lease.deadline));
        for range in &lease.fresh {
            let next = self.next.entry(range.queue).or_insert(QueueOffset(0));
            let start = self.starts.get(&range.queue).copied().unwrap_or(QueueOffset(0));
            // Some of it, or all, may have been let go while the lease was on its way: it is handed out all the same, this once.
            for offset in range.leased.iter().filter(|offset| **offset < start) {
                let place = (range.queue, *offset);
                if let Entry::Vacant(attempts) = self.attempts.entry(place) {
                    attempts.insert(1);
                    self.took_effect.insert((place, lease.generation), 1);
                }
            }
            if range.to <= start.min(*next) {
                continue;
            }
            if range.from.max(start) != *next {
                return Err(format!(
                    "I5: queue {} goes on at {next:?}, and is leased from {:?}",
                    range.queue, range.from
                ));
            }
            *next = range.to;
            for offset in range.leased.iter().filter(|offset| **offset >= start) {
                self.held.insert((range.queue, *offset), until);
                self.takes_effect((range.queue, *offset), lease.generation);
            }
        }
        for again in lease.again.iter().filter(|again| again.becomes == Again::Leased) {
            let place = (again.queue, again.offset);
            if self.starts.get(&again.queue).is_some_and(|start| again.offset < *start) {
                self.takes_effect(place, lease.generation);
            } else if let Some(Some((_, deadline))) = self.held.get(&place)
                && *deadline <= time
            {
                self.held.insert(place, until);
                self.takes_effect(place, lease.generation);
            }
        }
        Ok(())
    }
}
