//! What a component answered to a delivery, on its way into the log.

use std::time::Duration;

use vouch_broker::record::{Ack, ChangeInvisible, DeadLetter, DeadLetterSized, SettledHead};
use vouch_broker::state::Applied;
use vouch_broker::{NotDone, Refusal};
use vouch_plugin::Staged;

use super::deliver::Leased;
use super::receive::Consumer;
use super::row::Place;
use crate::effects::is_nothing;
use crate::metrics::DeliveryOutcome;

/// After an answer that found no room in the log.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recorded {
    /// There is nothing more to do.
    Done,
    /// What the component had read is another by now: it is to be asked again.
    Stale,
}

impl Consumer {
    /// The message is done, and what was staged happens.
    pub(super) async fn acknowledge(&self, leased: &Leased, staged: Staged) -> Recorded {
        let Place { group, topic, queue, offset } = leased.place;
        let head = SettledHead::Ack(Ack { group, topic, queue, offset, generation: leased.generation });
        self.record(leased, head, staged, DeliveryOutcome::Ack).await
    }

    /// The message is a dead letter, and what was staged happens.
    pub(super) async fn reject(&self, leased: &Leased, reason: String, staged: Staged) -> Recorded {
        let head = SettledHead::DeadLetter(self.dead_letter(leased, reason));
        self.record(leased, head, staged, DeliveryOutcome::Reject).await
    }

    pub(super) fn dead_letter(&self, leased: &Leased, reason: String) -> DeadLetterSized {
        let Place { group, topic, queue, offset } = leased.place;
        let record_len = vouch_storage::record_len(&self.of.log, leased.position).unwrap_or(0);
        let letter = DeadLetter { group, topic, queue, offset, generation: leased.generation, reason };
        DeadLetterSized { letter, record_len }
    }

    async fn record(&self, leased: &Leased, head: SettledHead, staged: Staged, outcome: DeliveryOutcome) -> Recorded {
        let proposed = if is_nothing(&staged) {
            self.propose_alone(&head).await
        } else {
            match self.of.effects.settled(&self.settler, head, staged).await {
                // Unlike what only acknowledges, this grows the log: it can wait where there is no room.
                Ok(settled) => {
                    let mut records = Vec::new();
                    settled.encode(&mut records);
                    self.of.shard.propose_if_room(records).await.and_then(first)
                }
                Err(why) => Err(why),
            }
        };
        match proposed {
            Ok(Applied::Stale) => return Recorded::Stale,
            Ok(Applied::Late) | Err(NotDone::Refused(Refusal::InvalidHandle(_))) => {
                self.of.metrics.deliveries.count(&self.name, DeliveryOutcome::Late);
            }
            Ok(_) => {
                self.of.metrics.deliveries.count(&self.name, outcome);
                self.succeeded().await;
            }
            // There is no room for what it keeps, or no topic for what it publishes.
            Err(NotDone::Refused(refusal)) => {
                self.of.metrics.deliveries.count(&self.name, DeliveryOutcome::Failed);
                self.failed(leased, refusal.to_string(), None).await;
            }
            Err(NotDone::NothingStored(why)) => {
                self.of.metrics.deliveries.count(&self.name, DeliveryOutcome::NotRun);
                self.of.standings.failed(&self.name, &why.to_string());
                self.give_back(leased, NO_ROOM_PAUSE).await;
            }
            // It may be done. If it is not, its lease runs out.
            Err(NotDone::Unknown(why)) => {
                tracing::warn!(
                    binding = self.name,
                    why,
                    "nobody knows whether an answer is recorded; its lease runs out"
                );
            }
        }
        Recorded::Done
    }

    async fn propose_alone(&self, head: &SettledHead) -> Result<Applied, NotDone> {
        self.of
            .shard
            .propose_one(|out| match head {
                SettledHead::End(end) => end.encode(out),
                SettledHead::CheckAnswered(answered) => answered.encode(out),
                SettledHead::Ack(ack) => ack.encode(out),
                SettledHead::DeadLetter(letter) => letter.encode(out),
            })
            .await
    }

    /// The message is visible again after this time, and the delivery does not count: its component was not asked.
    pub(super) async fn give_back(&self, leased: &Leased, after: Duration) {
        self.change(leased, after, true).await;
    }

    /// The message is visible again after this time. Returns under which generation it waits.
    pub(super) async fn change(&self, leased: &Leased, after: Duration, uncounted: bool) -> vouch_broker::Generation {
        let Place { group, topic, queue, offset } = leased.place;
        let now = self.of.clock.now();
        let new_generation = self.of.clock.generation(now);
        let deadline = now.plus_ms(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        let generation = leased.generation;
        let change = ChangeInvisible { group, topic, queue, offset, generation, new_generation, deadline, uncounted };
        if let Err(why) = self.of.shard.propose_one(|out| change.encode(out)).await {
            tracing::debug!(binding = self.name, %why, "a lease was not changed; it runs out");
        }
        new_generation
    }
}

/// The only outcome of a proposal with one record.
fn first(outcomes: Vec<vouch_broker::state::Outcome>) -> Result<Applied, NotDone> {
    let first = outcomes.into_iter().next();
    Ok(first.ok_or_else(|| NotDone::Unknown("a proposal without records".to_owned()))??)
}
