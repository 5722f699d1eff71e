//! What delivery promises, said in the plainest way: a list of messages and what became of each.

use std::collections::BTreeMap;

use crate::record::{Again, DeadLetterSized, Lease, Record};
use crate::state::Progress;
use crate::{Generation, Millis, QueueOffset, TagHash};

pub(super) type Place = (u32, QueueOffset);

/// How a message ended for the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Acked,
    Skipped,
    Dead,
}

/// What became of a message that the group has seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    /// Deliveries before the last one that count.
    before: u32,
    /// The last delivery counts.
    counts: bool,
    generation: Generation,
    until: Millis,
    left: bool,
    pub(super) ended: Option<Ended>,
}

impl Fate {
    pub(super) fn attempts(&self) -> u32 {
        self.before + u32::from(self.counts)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Oracle {
    pub(super) tags: BTreeMap<Place, TagHash>,
    pub(super) ends: Vec<QueueOffset>,
    pub(super) cursors: Vec<QueueOffset>,
    pub(super) fates: BTreeMap<Place, Fate>,
}

impl Oracle {
    pub(super) fn new(queues: u32) -> Self {
        let zeros = vec![QueueOffset::FIRST; queues as usize];
        Self { tags: BTreeMap::new(), ends: zeros.clone(), cursors: zeros, fates: BTreeMap::new() }
    }

    /// Whether the message may be handed out now.
    pub(super) fn free(&self, place: Place, now: Millis) -> bool {
        match self.fates.get(&place) {
            None => place.1 < self.ends[place.0 as usize],
            Some(fate) => fate.ended.is_none() && fate.until <= now,
        }
    }

    /// Whether nothing is left to do.
    pub(super) fn finished(&self) -> bool {
        self.cursors == self.ends && self.fates.values().all(|fate| fate.ended.is_some())
    }

    /// Applies a record; says whether it is taken.
    pub(super) fn apply(&mut self, time: Millis, record: &Record) -> bool {
        match record {
            Record::Message(head) => {
                let end = &mut self.ends[head.queue as usize];
                self.tags.insert((head.queue, *end), head.tag);
                *end = end.next();
                true
            }
            Record::Lease(lease) => {
                self.lease(time, lease);
                true
            }
            Record::Ack(ack) => {
                let place = (ack.queue, ack.offset);
                let taken = self.holds(place, ack.generation, time);
                if taken == Some(true) {
                    self.end(place, Ended::Acked);
                }
                taken.is_some()
            }
            Record::ChangeInvisible(change) => {
                let place = (change.queue, change.offset);
                let taken = self.holds(place, change.generation, time) == Some(true);
                if let Some(fate) = self.fates.get_mut(&place).filter(|_| taken) {
                    (fate.generation, fate.until) = (change.new_generation, change.deadline);
                    fate.counts = !change.uncounted;
                }
                taken
            }
            Record::Renew(renew) => {
                for (queue, offset, generation) in &renew.leases {
                    if self.holds((*queue, *offset), *generation, time) == Some(true) {
                        let fate = self.fates.get_mut(&(*queue, *offset)).expect("it is held");
                        fate.until = fate.until.max(renew.deadline);
                    }
                }
                true
            }
            Record::DeadLetter(letter) | Record::DeadLetterSized(DeadLetterSized { letter, .. }) => {
                let place = (letter.queue, letter.offset);
                let Some(fate) = self.fates.get(&place) else { return false };
                if fate.ended.is_none() && fate.generation == letter.generation {
                    self.end(place, Ended::Dead);
                }
                true
            }
            // The leader decides by these; the log only remembers them.
            Record::FilterNoted(_) | Record::FiltersGone(_) => true,
            other => panic!("not in this model: {other:?}"),
        }
    }

    fn lease(&mut self, time: Millis, lease: &Lease) {
        for range in &lease.fresh {
            let cursor = self.cursors[range.queue as usize];
            if range.from > cursor {
                continue;
            }
            for offset in QueueOffset::each(cursor..range.to) {
                let place = (range.queue, offset);
                if range.leased.contains(&offset) {
                    self.hand_out(place, lease);
                } else if range.left.contains(&offset) {
                    self.fates.insert(place, Fate { left: true, ..Fate::default() });
                } else {
                    self.end(place, Ended::Skipped);
                }
            }
            self.cursors[range.queue as usize] = cursor.max(range.to);
        }
        for again in &lease.again {
            let place = (again.queue, again.offset);
            if !self.fates.contains_key(&place) || !self.free(place, time) {
                continue;
            }
            match again.becomes {
                Again::Leased => self.hand_out(place, lease),
                Again::Done => self.end(place, Ended::Skipped),
                Again::Left => {
                    let before = self.fates[&place].attempts();
                    self.fates.insert(place, Fate { before, left: true, ..Fate::default() });
                }
            }
        }
    }

    fn hand_out(&mut self, place: Place, lease: &Lease) {
        let before = self.fates.get(&place).map_or(0, Fate::attempts);
        let (generation, until) = (lease.generation, lease.deadline);
        self.fates.insert(place, Fate { before, counts: true, generation, until, left: false, ended: None });
    }

    fn end(&mut self, place: Place, ended: Ended) {
        let fate = self.fates.entry(place).or_default();
        assert_eq!(fate.ended, None, "{place:?} ended twice");
        fate.ended = Some(ended);
    }

    /// `Some(true)`: this generation holds the message. `Some(false)`: it is done.
    fn holds(&self, place: Place, generation: Generation, time: Millis) -> Option<bool> {
        let fate = self.fates.get(&place)?;
        if fate.ended.is_some() {
            return Some(false);
        }
        (!fate.left && fate.generation == generation && fate.until > time).then_some(true)
    }

    /// The broker's state says the same.
    pub(super) fn compare(&self, progress: &Progress) {
        for (queue, cursor) in (0u32..).zip(&self.cursors) {
            assert_eq!(progress.next(queue), *cursor, "cursor of queue {queue}");
        }
        let unfinished = self.fates.values().filter(|fate| fate.ended.is_none()).count();
        assert_eq!(progress.unfinished(), unfinished as u64);
        for ((queue, offset), fate) in &self.fates {
            let held = progress.exception(*queue, *offset);
            let says = held.map(|e| (e.attempts, e.generation, e.visible_at, e.left.is_some()));
            let expected = (fate.attempts(), fate.generation, fate.until, fate.left);
            assert_eq!(says, fate.ended.is_none().then_some(expected), "{queue}/{offset}");
        }
    }
}
