//! Choosing what to hand out. Pure: reads the state, and remembers in [`Reservations`] what records on their way to the
//! log will change, so that nothing is handed out twice meanwhile.

use std::collections::HashMap;

use crate::record::{Lease, LeasedAgain, LeasedRange, Record};
use crate::state::{IndexEntry, Progress, Topic};
use crate::{GroupId, Millis, State, TagFilter, TopicId};

/// Most messages in one batch (protocol paper §7.1).
pub const BATCH_MAX: usize = 32;
/// Places looked at in one call. Bounds the time that one receive with a rarely matching filter can take; the next
/// call goes on where this one stopped.
const SCAN_MAX: usize = 4096;

/// What a consumer asks for.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The group's life.
    pub group: GroupId,
    /// The topic's life.
    pub topic: TopicId,
    /// The consumer's filter.
    pub filter: &'a TagFilter,
    /// Filters of the group's other live members on this topic (ruling 12).
    pub others: &'a [TagFilter],
    /// Messages wanted; at most [`BATCH_MAX`] are given.
    pub max: usize,
    /// The log's time.
    pub now: Millis,
    /// Generation for the leases of this batch: higher than any before.
    pub generation: u64,
    /// When the leases end.
    pub deadline: Millis,
    /// The consumer whose life keeps the leases alive.
    pub renewed_for: Option<&'a str>,
}

/// One message to hand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    /// The queue.
    pub queue: u32,
    /// Its offset.
    pub offset: u64,
    /// Which delivery this is, from 1.
    pub attempt: u32,
    /// Log position of the record that holds the body.
    pub position: u64,
}

/// What to do for one receive.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Picks {
    /// Messages for the consumer, in delivery order.
    pub messages: Vec<Picked>,
    /// The record that leases them; `None` if nothing changes.
    pub lease: Option<Lease>,
    /// Messages that were delivered often enough (protocol paper §5.3): queue, offset, generation of the last lease.
    pub exhausted: Vec<(u32, u64, u64)>,
    /// The scan stopped at its bound before it found enough: ask again.
    pub more: bool,
}

#[derive(Debug, Default)]
struct Reserved {
    /// Per queue: first offset that no record on its way decides.
    next: HashMap<u32, u64>,
    /// Places that a record on its way changes, with the number of such records.
    places: HashMap<Place, u32>,
    /// Queue with which the next scan of fresh messages begins.
    turn: u32,
}

/// What proposed records will change once they are applied. Belongs to the leader and starts empty.
///
/// # To ensure correctness
///
/// Every proposed record goes through [`Reservations::hold`] before anything else is picked, and through
/// [`Reservations::release`] when it is applied.
#[derive(Debug, Default)]
pub struct Reservations(HashMap<(GroupId, TopicId), Reserved>);

/// A queue and an offset in it.
type Place = (u32, u64);

/// The group, topic and places that a record changes.
fn places(record: &Record) -> Option<(GroupId, TopicId, Vec<Place>)> {
    Some(match record {
        Record::Lease(lease) => {
            (lease.group, lease.topic, lease.again.iter().map(|again| (again.queue, again.offset)).collect())
        }
        Record::Renew(renew) => {
            (renew.group, renew.topic, renew.leases.iter().map(|(queue, offset, _)| (*queue, *offset)).collect())
        }
        Record::Ack(ack) => (ack.group, ack.topic, vec![(ack.queue, ack.offset)]),
        Record::ChangeInvisible(change) => (change.group, change.topic, vec![(change.queue, change.offset)]),
        Record::DeadLetter(letter) => (letter.group, letter.topic, vec![(letter.queue, letter.offset)]),
        _ => return None,
    })
}

impl Reservations {
    /// Notes what a record on its way will change.
    pub fn hold(&mut self, record: &Record) {
        let Some((group, topic, places)) = places(record) else { return };
        let reserved = self.0.entry((group, topic)).or_default();
        for place in places {
            *reserved.places.entry(place).or_default() += 1;
        }
        if let Record::Lease(lease) = record {
            for range in &lease.fresh {
                reserved.next.insert(range.queue, range.to);
            }
        }
    }

    /// Forgets what a record changed: it is applied, and the state says it now.
    pub fn release(&mut self, record: &Record) {
        let Some((group, topic, places)) = places(record) else { return };
        let Some(reserved) = self.0.get_mut(&(group, topic)) else { return };
        for place in places {
            if let Some(count) = reserved.places.get_mut(&place) {
                *count -= 1;
                if *count == 0 {
                    reserved.places.remove(&place);
                }
            }
        }
    }
}

/// Chooses messages for a consumer. The caller proposes what comes back and holds it in `reservations`.
///
/// Redeliveries come first, then messages that the group never saw, queue by queue in turn.
pub fn pick(state: &State, reservations: &mut Reservations, wanted: &Wanted<'_>) -> Picks {
    let Some(topic) = state.topics().get(wanted.topic) else { return Picks::default() };
    let Some(group) = state.groups().get(wanted.group) else { return Picks::default() };
    let Some(progress) = group.progress(wanted.topic) else { return Picks::default() };
    let reserved = reservations.0.entry((wanted.group, wanted.topic)).or_default();
    let mut scan = Scan {
        topic,
        progress,
        wanted,
        max: wanted.max.clamp(1, BATCH_MAX),
        looked_at: 0,
        picks: Picks::default(),
        again: Vec::new(),
        fresh: Vec::new(),
    };
    scan.redeliveries(reserved, group.config.max_attempts);
    scan.fresh_messages(reserved);
    scan.finish()
}

struct Scan<'a> {
    topic: &'a Topic,
    progress: &'a Progress,
    wanted: &'a Wanted<'a>,
    max: usize,
    looked_at: usize,
    picks: Picks,
    again: Vec<LeasedAgain>,
    fresh: Vec<LeasedRange>,
}

enum Match {
    Mine,
    Others,
    Nobodys,
}

impl Scan<'_> {
    fn full(&mut self) -> bool {
        if self.looked_at >= SCAN_MAX {
            self.picks.more = true;
        }
        self.picks.messages.len() >= self.max || self.picks.more
    }

    fn whose(&self, entry: &IndexEntry) -> Match {
        if self.wanted.filter.matches(entry.tag) {
            Match::Mine
        } else if self.wanted.others.iter().any(|filter| filter.matches(entry.tag)) {
            Match::Others
        } else {
            Match::Nobodys
        }
    }

    fn redeliveries(&mut self, reserved: &Reserved, max_attempts: u32) {
        for (visible_at, queue, offset) in self.progress.due() {
            if visible_at > self.wanted.now || self.full() {
                return;
            }
            self.looked_at += 1;
            if reserved.places.contains_key(&(queue, offset)) {
                continue;
            }
            let (Some(exception), Some(entry)) =
                (self.progress.exception(queue, offset), self.topic.entry(queue, offset))
            else {
                continue;
            };
            if exception.attempts >= max_attempts {
                self.picks.exhausted.push((queue, offset, exception.generation));
                continue;
            }
            match self.whose(&entry) {
                Match::Mine => {
                    let attempt = exception.attempts + 1;
                    self.picks.messages.push(Picked { queue, offset, attempt, position: entry.position });
                    self.again.push(LeasedAgain { queue, offset, delivered: true });
                }
                Match::Others => {}
                Match::Nobodys => self.again.push(LeasedAgain { queue, offset, delivered: false }),
            }
        }
    }

    fn fresh_messages(&mut self, reserved: &mut Reserved) {
        let queues = self.topic.queue_count();
        let first = reserved.turn;
        for step in 0..queues {
            if self.full() {
                break;
            }
            let queue = (first + step) % queues;
            let from = self.progress.next(queue).max(reserved.next.get(&queue).copied().unwrap_or(0));
            self.fresh_of_queue(queue, from);
            reserved.turn = (queue + 1) % queues;
        }
    }

    fn fresh_of_queue(&mut self, queue: u32, from: u64) {
        let mut range = LeasedRange { queue, from, to: from, leased: Vec::new(), left: Vec::new() };
        while !self.full() {
            let Some(entry) = self.topic.entry(queue, range.to) else { break };
            self.looked_at += 1;
            match self.whose(&entry) {
                Match::Mine => {
                    let offset = range.to;
                    self.picks.messages.push(Picked { queue, offset, attempt: 1, position: entry.position });
                    range.leased.push(offset);
                }
                Match::Others => range.left.push(range.to),
                Match::Nobodys => {}
            }
            range.to += 1;
        }
        if range.to > range.from {
            self.fresh.push(range);
        }
    }

    fn finish(mut self) -> Picks {
        if !self.fresh.is_empty() || !self.again.is_empty() {
            self.picks.lease = Some(Lease {
                group: self.wanted.group,
                topic: self.wanted.topic,
                generation: self.wanted.generation,
                deadline: self.wanted.deadline,
                renewed_for: self.wanted.renewed_for.map(str::to_owned),
                fresh: self.fresh,
                again: self.again,
            });
        }
        self.picks
    }
}
