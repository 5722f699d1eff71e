//! What may leave the log, and what the log must keep: questions that a node asks of the state.

use std::ops::Range;
use std::time::Duration;

use super::State;
use crate::record::{Expire, Queued};
use crate::{HalfPosition, Millis, QueueOffset, RecordPosition, TopicId, Unconsumed};

/// About how many topics, and groups for each of them with something to let go, one call of [`State::expirations`] looks
/// at, and for how many topics it finds something at most: bounded, since the shard does nothing else meanwhile.
const LOOKS_AT_ONCE: usize = 16_384;
const EXPIRE_AT_ONCE: usize = 8;

/// Entries of queues that one call of [`State::messages_in`] looks at, and how many of them a queue counts for, empty or
/// not: some hundred microseconds.
const ENTRIES_AT_ONCE: usize = 1 << 16;
pub(super) const QUEUE_COST: usize = 16;

/// A message's place: topic, queue, offset.
pub type QueuePlace = (TopicId, u32, QueueOffset);

/// A record that can be carried to another place of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// Where it lies now.
    pub position: RecordPosition,
    /// The transaction, for the half of an open one.
    pub transaction: Option<HalfPosition>,
    /// Its place, for a message of a queue.
    pub queued: Option<Queued>,
}

impl State {
    /// Records that let topics go on without what is past their retention, and the topic after which to ask again.
    pub fn expirations(&self, now: Millis, after: Option<TopicId>) -> (Vec<Expire>, Option<TopicId>) {
        let mut found = Vec::new();
        let (mut last, mut looked_at) = (None, 0);
        for topic in self.topics.after(after) {
            if looked_at >= LOOKS_AT_ONCE || found.len() == EXPIRE_AT_ONCE {
                return (found, last);
            }
            (last, looked_at) = (Some(topic.id), looked_at + 1);
            let expired = topic.expired(self.at(now));
            if !expired.is_empty() {
                // Each may hold it.
                looked_at += self.groups.count();
                let starts = self.allowed(topic.id, expired, now);
                found.extend((!starts.is_empty()).then_some(Expire { topic: topic.id, starts }));
            }
        }
        (found, None)
    }

    /// Those of the wanted starts that move a queue, as far as its topic's settings let them.
    pub(super) fn allowed(
        &self,
        topic: TopicId,
        mut starts: Vec<(u32, QueueOffset)>,
        now: Millis,
    ) -> Vec<(u32, QueueOffset)> {
        let Some(topic) = self.topics.get(topic) else { return Vec::new() };
        if topic.config.unconsumed == Unconsumed::Keep {
            self.groups.without_pinned(topic.id, &mut starts, self.at(now));
        }
        starts.retain(|(queue, start)| *start > topic.start(*queue));
        starts
    }

    /// Where the lowest record lies that this state refers to; [`RecordPosition::BEYOND`] if there is none. Looks at every queue, and at every
    /// entry that is in no part: not for a thread that must answer quickly.
    pub fn needed_from(&self) -> RecordPosition {
        let queues = self.topics.iter().filter_map(|topic| topic.lowest_position()).min();
        let half =
            self.transactions.halves_in(RecordPosition::START..RecordPosition::BEYOND).map(|(_, place)| place).next();
        let halves = half.into_iter().chain(self.transactions.lowest_carried());
        let all = halves.chain(self.chunks().map(|body| body.position)).chain(queues);
        all.min().unwrap_or(RecordPosition::BEYOND)
    }

    /// Halves of open transactions and pieces of components in a stretch of the log, at most `max` of them.
    pub fn bodies_in(&self, stretch: Range<RecordPosition>, max: usize) -> Vec<Body> {
        let halves = self.transactions.halves_in(stretch.clone());
        let halves =
            halves.map(|(transaction, position)| Body { position, transaction: Some(transaction), queued: None });
        halves.chain(self.chunks().filter(|body| stretch.contains(&body.position))).take(max).collect()
    }

    /// Messages of queues in a stretch of the log, and where to go on: a step looks at a bounded number of entries.
    pub fn messages_in(
        &self,
        stretch: &Range<RecordPosition>,
        from: Option<QueuePlace>,
    ) -> (Vec<Body>, Option<QueuePlace>) {
        self.some_messages_in(stretch, from, ENTRIES_AT_ONCE)
    }

    /// The same with room for so many entries, which must be more than [`QUEUE_COST`].
    pub(super) fn some_messages_in(
        &self,
        stretch: &Range<RecordPosition>,
        from: Option<QueuePlace>,
        mut room: usize,
    ) -> (Vec<Body>, Option<QueuePlace>) {
        let mut found = Vec::new();
        let first = from.map(|(topic, _, _)| topic);
        let topics = first.and_then(|topic| self.topics.get(topic)).into_iter().chain(self.topics.after(first));
        for topic in topics {
            let (first_queue, first_offset) = from
                .filter(|(id, _, _)| *id == topic.id)
                .map_or((0, QueueOffset::FIRST), |(_, queue, offset)| (queue, offset));
            for queue in first_queue..topic.queue_count() {
                let offset = if queue == first_queue { first_offset } else { QueueOffset::FIRST };
                // A queue costs something, empty or not.
                if room < QUEUE_COST {
                    return (found, Some((topic.id, queue, offset)));
                }
                room -= QUEUE_COST;
                let (offsets, next) = topic.offsets_in(queue, stretch, offset, &mut room);
                found.extend(offsets.into_iter().map(|(offset, position)| {
                    let queued = Some(Queued { topic: topic.id, queue, offset });
                    Body { position, transaction: None, queued }
                }));
                if let Some(next) = next {
                    return (found, Some((topic.id, queue, next)));
                }
            }
        }
        (found, None)
    }

    /// Pieces of components.
    fn chunks(&self) -> impl Iterator<Item = Body> {
        let chunks = self.plugins.artifacts().flat_map(|(_, artifact)| &artifact.chunks);
        chunks.map(|(position, _)| Body { position: *position, transaction: None, queued: None })
    }

    /// The shortest retention of a topic with messages that are in no part, and that expire only when they are in one.
    pub fn shortest_retention_unsealed(&self) -> Option<Duration> {
        self.topics.unsealed_topics().filter_map(|topic| topic.config.retention).min()
    }

    /// Where the half of an open transaction lies; `None` if it is not open.
    pub fn place_of_half(&self, transaction: HalfPosition) -> Option<RecordPosition> {
        self.transactions.open.get(transaction).map(|_| self.transactions.place_of(transaction))
    }
}
