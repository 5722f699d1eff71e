//! What is past its retention, and what is carried on.

use super::{Applied, Effect, Outcome, RecordAt};
use crate::record::{Carried, Expire, Kept, Queued, Seen};
use crate::state::State;
use crate::{HalfPosition, Refusal};

impl State {
    /// Lets queues begin later, as far as nobody has a right to what lies before (ruling 13). Who misses something gets
    /// it on record.
    pub(super) fn expire(&mut self, at: RecordAt, expire: &Expire, effects: &mut Vec<Effect>) -> Outcome {
        let topic = self.topics.get_mut(expire.topic)?;
        let mut starts = expire.starts.clone();
        starts.retain(|(queue, _)| *queue < topic.queue_count());
        for (queue, start) in &mut starts {
            *start = (*start).min(topic.end(*queue));
        }
        let starts = self.allowed(expire.topic, starts, at.time);
        let messages = self
            .topics
            .get(expire.topic)
            .map_or(0, |topic| starts.iter().map(|(queue, start)| start.since(topic.start(*queue))).sum());
        self.topics.get_mut(expire.topic)?.drop_below(&starts);
        let missed = self.groups.skip(expire.topic, &starts, at.time);
        // A group that had too much unfinished may go on.
        effects.push(Effect::Available(expire.topic));
        Ok(Applied::Expired { messages, missed })
    }

    /// That groups live, as of the time in the log: what is forgotten for want of use is decided by this and by no
    /// clock.
    pub(super) fn seen(&mut self, at: RecordAt, seen: &Seen) -> Outcome {
        seen.groups.iter().for_each(|group| self.groups.see(*group, at.time));
        Ok(Applied::Done)
    }

    /// What ended meanwhile, or was deleted, needs no other place.
    pub(super) fn carried(&mut self, at: RecordAt, carried: &Carried) -> Outcome {
        let kept =
            carried.kept().map_err(|why| Refusal::Internal(format!("a carried record cannot be read: {why}")))?;
        match kept {
            Kept::Message(Queued { topic, queue, offset }) => {
                if let Ok(topic) = self.topics.get_mut(topic) {
                    topic.carry(queue, offset, at.position);
                }
            }
            Kept::Half => self.transactions.carry(HalfPosition::of(carried.from), at.position),
            Kept::Chunk(digest, offset) => self.plugins.carry(&digest, offset, carried.from, at.position),
        }
        Ok(Applied::Done)
    }
}
