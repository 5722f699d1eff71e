//! Messages, and halves whose transaction they open.

use super::{Applied, Effect, Outcome, RecordAt};
use crate::record::MessageHead;
use crate::state::dedup::FirstCopy;
use crate::state::{IndexEntry, Now, OpenTransaction, State};
use crate::{HalfPosition, Millis};

impl State {
    /// A resend is answered with the place of the first copy, as long as that is remembered. It is looked for before
    /// anything is changed: the offset of a message is given out once.
    pub(super) fn message(&mut self, at: RecordAt, head: &MessageHead, effects: &mut Vec<Effect>) -> Outcome {
        let now = Now::new(at.time, &self.leaps);
        let topic = self.topics.get_mut(head.topic)?;
        if let Some(FirstCopy::InQueue { queue, offset }) = self.dedup.first_copy(head, false, now) {
            return Ok(Applied::Stored { queue, offset });
        }
        topic.received(head.record_len);
        let (queue, offset) = topic.append(head.queue, IndexEntry { position: at.position, tag: head.tag });
        self.dedup.remember(head, at.time, FirstCopy::InQueue { queue, offset }, &self.leaps);
        effects.push(Effect::Arrived(head.topic, head.tag));
        Ok(Applied::Stored { queue, offset })
    }

    /// The position of the record is the id of the transaction, which nobody has to give out: it is there once in the
    /// log. A resend is answered with the first one, even if that has ended meanwhile: its end says the rest.
    pub(super) fn half(&mut self, at: RecordAt, head: &MessageHead, effects: &mut Vec<Effect>) -> Outcome {
        let now = Now::new(at.time, &self.leaps);
        let topic = self.topics.get_mut(head.topic)?;
        if let Some(FirstCopy::Half { transaction }) = self.dedup.first_copy(head, true, now) {
            return Ok(Applied::Prepared { transaction });
        }
        topic.received(head.record_len);
        let policy = &topic.config.transaction;
        let next_due = if head.checks.max_checks(policy) == 0 {
            Millis::NEVER
        } else {
            let due = at.time.plus_ms(head.checks.immunity_ms(policy));
            effects.push(Effect::CheckDue(head.topic, due));
            due
        };
        let open = OpenTransaction {
            topic: head.topic,
            identity: head.identity,
            tag: head.tag,
            opened_at: at.time,
            overrides: head.checks,
            checks: 0,
            next_due,
            parked: None,
            last_answer: None,
            failure: None,
        };
        let transaction = HalfPosition::of(at.position);
        self.transactions.open.put(transaction, open);
        self.dedup.remember(head, at.time, FirstCopy::Half { transaction }, &self.leaps);
        Ok(Applied::Prepared { transaction })
    }
}
