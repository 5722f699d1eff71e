//! Choosing what to hand out. Pure: reads the state, and remembers in [`Reservations`] what records on their way to the
//! log will change, so that nothing is handed out twice meanwhile.

mod noting;
mod reservations;
mod scan;
#[cfg(test)]
mod tests;

pub use noting::{Noting, filters, is_noted, noting};
pub use reservations::Reservations;
#[cfg(test)]
pub(crate) use reservations::subject;

use crate::record::Lease;
use crate::{Generation, GroupId, Millis, QueueOffset, RecordPosition, State, TagFilter, TopicId};
use scan::Scan;

/// Most messages in one batch (protocol paper §7.1).
pub const BATCH_MAX: usize = 32;

/// What a consumer asks for.
#[derive(Debug)]
pub struct Demand<'a> {
    /// The group's life.
    pub group: GroupId,
    /// The topic's life.
    pub topic: TopicId,
    /// The consumer's filter.
    pub filter: &'a TagFilter,
    /// Messages wanted; at most [`BATCH_MAX`] are given.
    pub max: usize,
    /// The log's time.
    pub now: Millis,
    /// Generation for the leases of this batch: higher than any before.
    pub generation: Generation,
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
    pub offset: QueueOffset,
    /// Which delivery this is, from 1.
    pub attempt: u32,
    /// Log position of the record that holds the body.
    pub position: RecordPosition,
}

/// What to do for one receive. All of it may be there without a message: a scan that found none still decides.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Picks {
    /// Messages for the consumer, in delivery order.
    pub messages: Vec<Picked>,
    /// The record that leases them; `None` if nothing changes.
    pub lease: Option<Lease>,
    /// Messages that were delivered often enough (protocol paper §5.3): queue, offset, generation for the
    /// [`crate::record::DeadLetterSized`] to propose.
    pub exhausted: Vec<(u32, QueueOffset, Generation)>,
    /// The scan stopped at its bound before it found enough, and got on: ask again.
    pub more: bool,
    /// Places and queues that were looked at: what it cost.
    pub looked_at: usize,
}

#[cfg(test)]
impl Picks {
    /// Whether nothing was found and nothing decided.
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.lease.is_none() && self.exhausted.is_empty() && !self.more
    }
}

/// Chooses messages for a consumer. The caller proposes what comes back and holds it in `reservations`.
///
/// # To ensure correctness
///
/// What no filter of the group matches is done. So the filter of every member that lives is noted first: those that
/// [`noting`] calls new are proposed, and held in `reservations`, before anything is picked (ruling 12).
///
/// Redeliveries come first, then what other members left (ruling 12), then messages that the group never saw, queue by
/// queue in turn; of these none while [`crate::state::UNFINISHED_MAX`] messages are not done.
pub fn pick(state: &State, reservations: &mut Reservations, wanted: &Demand<'_>) -> Picks {
    let Some(topic) = state.topics().get(wanted.topic) else { return Picks::default() };
    let Some(group) = state.groups().get(wanted.group) else { return Picks::default() };
    let Some(progress) = group.progress(wanted.topic) else { return Picks::default() };
    let reserved = reservations.of((wanted.group, wanted.topic));
    let on_their_way = std::mem::take(&mut reserved.filters);
    let scan = Scan::new(topic, progress, &on_their_way, wanted, group.config.max_attempts);
    let picks = scan.run(reserved);
    reserved.filters = on_their_way;
    picks
}
