//! What records on their way to the log will change.

use std::collections::{HashMap, VecDeque};

use crate::record::Record;
use crate::{GroupId, State, TopicId};

/// A queue and an offset in it.
pub(super) type Place = (u32, u64);

#[derive(Debug, Default)]
pub(super) struct Reserved {
    /// Per queue: ranges of fresh messages that records on their way decide, in the order of the log, each by its end
    /// and the generation of its lease. Each begins where the one before ends.
    ranges: HashMap<u32, VecDeque<(u64, u64)>>,
    /// Places that a record on its way changes, with the number of such records.
    places: HashMap<Place, u32>,
    /// Queue with which the next scan of fresh messages begins.
    pub(super) turn: u32,
}

impl Reserved {
    /// Whether a record on its way changes this place.
    pub(super) fn holds(&self, place: Place) -> bool {
        self.places.contains_key(&place)
    }

    /// First offset of a queue that neither the state nor a record on its way decides. Messages may expire meanwhile.
    pub(super) fn next(&self, queue: u32, applied: u64) -> u64 {
        self.ranges.get(&queue).and_then(|ranges| ranges.back()).map_or(applied, |(to, _)| applied.max(*to))
    }
}

/// What proposed records will change once they are applied. Belongs to the leader and starts empty.
///
/// # To ensure correctness
///
/// Every proposed record goes through [`Reservations::hold`] before anything else is picked, in the order of the log,
/// and then through exactly one of
///
/// - [`Reservations::release`] when it is applied, whatever came of it;
/// - [`Reservations::abandon`] when the log did not take it and never will.
#[derive(Debug, Default)]
pub struct Reservations(HashMap<(GroupId, TopicId), Reserved>);

/// The group and topic that a record is about; `None` for records that change no delivery.
fn subject(record: &Record) -> Option<(GroupId, TopicId)> {
    Some(match record {
        Record::Lease(lease) => (lease.group, lease.topic),
        Record::Renew(renew) => (renew.group, renew.topic),
        Record::Ack(ack) => (ack.group, ack.topic),
        Record::ChangeInvisible(change) => (change.group, change.topic),
        Record::DeadLetter(letter) => (letter.group, letter.topic),
        _ => return None,
    })
}

/// Calls `each` with every place below the cursor that a record changes.
fn each_place(record: &Record, mut each: impl FnMut(Place)) {
    match record {
        Record::Lease(lease) => lease.again.iter().for_each(|again| each((again.queue, again.offset))),
        Record::Renew(renew) => renew.leases.iter().for_each(|(queue, offset, _)| each((*queue, *offset))),
        Record::Ack(ack) => each((ack.queue, ack.offset)),
        Record::ChangeInvisible(change) => each((change.queue, change.offset)),
        Record::DeadLetter(letter) => each((letter.queue, letter.offset)),
        _ => {}
    }
}

impl Reservations {
    /// Notes what a record on its way will change.
    pub fn hold(&mut self, record: &Record) {
        let Some(subject) = subject(record) else { return };
        let reserved = self.of(subject);
        each_place(record, |place| *reserved.places.entry(place).or_default() += 1);
        if let Record::Lease(lease) = record {
            for range in &lease.fresh {
                reserved.ranges.entry(range.queue).or_default().push_back((range.to, lease.generation));
            }
        }
    }

    /// Forgets what a record changed: it is applied, and the state says it now.
    pub fn release(&mut self, record: &Record) {
        self.forget(record, |ranges, at| _ = ranges.drain(..=at));
    }

    /// Forgets what a record would have changed: it will never be applied, and its messages are handed out again.
    ///
    /// Leases of the same queue that were proposed after it take nothing when they are applied, since they would leave
    /// a gap: their messages come again too.
    pub fn abandon(&mut self, record: &Record) {
        self.forget(record, |ranges, at| ranges.truncate(at));
    }

    /// Forgets groups and topics that are gone. Call it after [`crate::state::Effect::Directory`].
    pub fn retain_living(&mut self, state: &State) {
        self.0.retain(|(group, topic), _| state.groups().get(*group).is_some() && state.topics().get(*topic).is_some());
    }

    pub(super) fn of(&mut self, subject: (GroupId, TopicId)) -> &mut Reserved {
        self.0.entry(subject).or_default()
    }

    fn forget(&mut self, record: &Record, ranges_at: impl Fn(&mut VecDeque<(u64, u64)>, usize)) {
        let Some(reserved) = subject(record).and_then(|subject| self.0.get_mut(&subject)) else { return };
        each_place(record, |place| {
            if let Some(count) = reserved.places.get_mut(&place) {
                *count -= 1;
                if *count == 0 {
                    reserved.places.remove(&place);
                }
            }
        });
        if let Record::Lease(lease) = record {
            for range in &lease.fresh {
                let Some(ranges) = reserved.ranges.get_mut(&range.queue) else { continue };
                if let Some(at) = ranges.iter().position(|(_, generation)| *generation == lease.generation) {
                    ranges_at(ranges, at);
                }
                if ranges.is_empty() {
                    reserved.ranges.remove(&range.queue);
                }
            }
        }
    }
}
