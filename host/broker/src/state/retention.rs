//! What may leave the log, and what the log must keep: questions that a node asks of the state.

use std::ops::Range;

use super::State;
use crate::record::Expire;
use crate::{Millis, TopicId, Unconsumed};

/// Topics that one call of [`State::expirations`] looks at, and the most of them that it finds something for: the shard
/// does nothing else meanwhile.
const TOPICS_AT_ONCE: usize = 4096;
const EXPIRE_AT_ONCE: usize = 8;

/// The lowest log positions that a state refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Of messages in queues; the log before it is theirs to give up. `u64::MAX` if there are none.
    pub queues: u64,
    /// Of what can be carried on: halves of open transactions, pieces of components. `u64::MAX` if there are none.
    pub carriable: u64,
}

/// A record that can be carried to another place of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// What [`crate::record::Carried::from`] is to say.
    pub from: u64,
    /// Where it lies now.
    pub position: u64,
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

    /// The lowest log positions that this state refers to. Looks at every queue, and at every entry that is in no part:
    /// not for a thread that must answer quickly.
    pub fn needed(&self) -> Needed {
        let queues = self.topics.iter().filter_map(|topic| topic.lowest_position()).min();
        let half = self.transactions.halves_in(0..u64::MAX).map(|(_, place)| place).next();
        let halves = half.into_iter().chain(self.transactions.lowest_carried());
        let carriable = halves.chain(self.chunks().map(|body| body.position)).min();
        Needed { queues: queues.unwrap_or(u64::MAX), carriable: carriable.unwrap_or(u64::MAX) }
    }

    /// What can be carried out of a stretch of the log, at most `max` of it.
    pub fn to_carry(&self, places: Range<u64>, max: usize) -> Vec<Body> {
        let halves = self.transactions.halves_in(places.clone());
        let halves = halves.map(|(transaction, position)| Body { from: transaction, position });
        halves.chain(self.chunks().filter(|body| places.contains(&body.position))).take(max).collect()
    }

    /// Pieces of components.
    fn chunks(&self) -> impl Iterator<Item = Body> {
        let chunks = self.plugins.artifacts().flat_map(|(_, artifact)| &artifact.chunks);
        chunks.map(|(position, _)| Body { from: *position, position: *position })
    }

    /// Where the half of an open transaction lies; `None` if it is not open.
    pub fn place_of_half(&self, transaction: u64) -> Option<u64> {
        self.transactions.open.get(transaction).map(|_| self.transactions.place_of(transaction))
    }
}
