//! What may leave the log, and what the log must keep: questions that a node asks of the state.

use std::ops::Range;
use std::time::Duration;

use super::State;
use crate::record::{Expire, Queued};
use crate::{Millis, TopicId, Unconsumed};

/// Topics that one call of [`State::expirations`] looks at, and the most of them that it finds something for: the shard
/// does nothing else meanwhile.
const TOPICS_AT_ONCE: usize = 4096;
const EXPIRE_AT_ONCE: usize = 8;

/// Entries of queues that one call of [`State::messages_in`] looks at, about.
const ENTRIES_AT_ONCE: usize = 1 << 18;

/// A record that can be carried to another place of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// Where it lies now.
    pub position: u64,
    /// The transaction, for the half of an open one.
    pub transaction: Option<u64>,
    /// Its place, for a message of a queue.
    pub queued: Option<Queued>,
}

impl State {
    /// Records that let topics go on without what is past their retention, and the topic after which to ask again.
    pub fn expirations(&self, now: Millis, after: Option<TopicId>) -> (Vec<Expire>, Option<TopicId>) {
        let mut found = Vec::new();
        let mut last = None;
        for (looked_at, topic) in self.topics.after(after).enumerate() {
            if looked_at == TOPICS_AT_ONCE || found.len() == EXPIRE_AT_ONCE {
                return (found, last);
            }
            last = Some(topic.id);
            let expired = topic.expired(now);
            if !expired.is_empty() {
                let starts = self.allowed(topic.id, expired, now);
                found.extend((!starts.is_empty()).then_some(Expire { topic: topic.id, starts }));
            }
        }
        (found, None)
    }

    /// Those of the wanted starts that move a queue, as far as its topic's settings let them.
    pub(super) fn allowed(&self, topic: TopicId, mut starts: Vec<(u32, u64)>, now: Millis) -> Vec<(u32, u64)> {
        let Some(topic) = self.topics.get(topic) else { return Vec::new() };
        if topic.config.unconsumed == Unconsumed::Keep {
            self.groups.without_pinned(topic.id, &mut starts, now);
        }
        starts.retain(|(queue, start)| *start > topic.start(*queue));
        starts
    }

    /// The lowest log position that this state refers to; `u64::MAX` if there is none. Looks at every queue, and at every
    /// entry that is in no part: not for a thread that must answer quickly.
    pub fn needed_from(&self) -> u64 {
        let queues = self.topics.iter().filter_map(|topic| topic.lowest_position()).min();
        let half = self.transactions.halves_in(0..u64::MAX).map(|(_, place)| place).next();
        let halves = half.into_iter().chain(self.transactions.lowest_carried());
        let all = halves.chain(self.chunks().map(|body| body.position)).chain(queues);
        all.min().unwrap_or(u64::MAX)
    }

    /// Halves of open transactions and pieces of components in a stretch of the log, at most `max` of them.
    pub fn bodies_in(&self, stretch: Range<u64>, max: usize) -> Vec<Body> {
        let halves = self.transactions.halves_in(stretch.clone());
        let halves =
            halves.map(|(transaction, position)| Body { position, transaction: Some(transaction), queued: None });
        halves.chain(self.chunks().filter(|body| stretch.contains(&body.position))).take(max).collect()
    }

    /// Messages of queues in a stretch of the log, and the queue after which to ask again. A step looks at whole queues,
    /// and at no further one when it has seen enough entries.
    pub fn messages_in(
        &self,
        stretch: &Range<u64>,
        after: Option<(TopicId, u32)>,
    ) -> (Vec<Body>, Option<(TopicId, u32)>) {
        let (mut found, mut looked_at, mut last) = (Vec::new(), 0, after);
        let first = after.map(|(topic, _)| topic);
        let topics = first.and_then(|topic| self.topics.get(topic)).into_iter().chain(self.topics.after(first));
        for topic in topics {
            let from = after.filter(|(id, _)| *id == topic.id).map_or(0, |(_, queue)| queue + 1);
            for queue in from..topic.queue_count() {
                if looked_at >= ENTRIES_AT_ONCE {
                    return (found, last);
                }
                // A queue costs something, empty or not.
                looked_at += 16;
                let offsets = topic.offsets_in(queue, stretch, &mut looked_at);
                found.extend(offsets.into_iter().map(|(offset, position)| {
                    let queued = Some(Queued { topic: topic.id, queue, offset });
                    Body { position, transaction: None, queued }
                }));
                last = Some((topic.id, queue));
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
    pub fn place_of_half(&self, transaction: u64) -> Option<u64> {
        self.transactions.open.get(transaction).map(|_| self.transactions.place_of(transaction))
    }
}
