//! What is past its retention, and what is carried on.

use super::{Applied, Apply, Effect, Outcome, RecordAt};
use crate::record::{Carried, Expire, Kept, Queued, Seen};
use crate::state::State;
use crate::{HalfPosition, Refusal};

/// Lets queues begin later, as far as nobody has a right to what lies before (ruling 13). Who misses something gets
/// it on record.
impl Apply for Expire {
    fn apply(&self, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Outcome {
        let topic = state.topics.get_mut(self.topic)?;
        let mut starts = self.starts.clone();
        starts.retain(|(queue, _)| *queue < topic.queue_count());
        for (queue, start) in &mut starts {
            *start = (*start).min(topic.end(*queue));
        }
        let starts = state.allowed(self.topic, starts, at.time);
        let messages = state
            .topics
            .get(self.topic)
            .map_or(0, |topic| starts.iter().map(|(queue, start)| start.since(topic.start(*queue))).sum());
        state.topics.get_mut(self.topic)?.drop_below(&starts);
        let missed = state.groups.skip(self.topic, &starts, at.time);
        // A group that had too much unfinished may go on.
        effects.push(Effect::Available(self.topic));
        Ok(Applied::Expired { messages, missed })
    }
}

/// That groups live, as of the time in the log: what is forgotten for want of use is decided by this and by no
/// clock.
impl Apply for Seen {
    fn apply(&self, state: &mut State, at: RecordAt, _: &mut Vec<Effect>) -> Outcome {
        self.groups.iter().for_each(|group| state.groups.see(*group, at.time));
        Ok(Applied::Done)
    }
}

/// What ended meanwhile, or was deleted, needs no other place.
impl Apply for Carried {
    fn apply(&self, state: &mut State, at: RecordAt, _: &mut Vec<Effect>) -> Outcome {
        let kept = self.kept().map_err(|why| Refusal::Internal(format!("a carried record cannot be read: {why}")))?;
        match kept {
            Kept::Message(Queued { topic, queue, offset }) => {
                if let Ok(topic) = state.topics.get_mut(topic) {
                    topic.carry(queue, offset, at.position);
                }
            }
            Kept::Half => state.transactions.carry(HalfPosition::of(self.from), at.position),
            Kept::Chunk(digest, offset) => state.plugins.carry(&digest, offset, self.from, at.position),
        }
        Ok(Applied::Done)
    }
}
