//! What a component answered to a delivery, on its way into the log.

use std::time::{Duration, Instant};

use vouch_broker::record::{Ack, ChangeInvisible, DeadLetter, DeadLetterSized, SettledHead};
use vouch_broker::state::Applied;
use vouch_broker::{Generation, NotDone, Refusal};
use vouch_plugin::Staged;

use super::consumer::Consumer;
use super::leased::Leased;
use super::row::Place;
use crate::effects::{CallRuns, is_nothing};
use crate::metrics::DeliveryOutcome;

/// After an answer that found no room in the log.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeliveryRecorded {
    /// There is nothing more to do.
    Done,
    /// What the component had read is another by now, or will be: it is to be asked again.
    Stale,
}

impl Consumer {
    /// The message is done, and what was staged happens.
    pub(super) async fn acknowledge(&self, leased: &Leased, staged: Staged, runs: &mut CallRuns) -> DeliveryRecorded {
        let Place { group, topic, queue, offset } = leased.place;
        let head = SettledHead::Ack(Ack { group, topic, queue, offset, generation: leased.generation });
        self.record(leased, (head, DeliveryOutcome::Ack), staged, runs).await
    }

    /// The message is a dead letter, and what was staged happens.
    pub(super) async fn reject(
        &self,
        leased: &Leased,
        reason: String,
        staged: Staged,
        runs: &mut CallRuns,
    ) -> DeliveryRecorded {
        let head = SettledHead::DeadLetter(self.dead_letter(leased, reason));
        self.record(leased, (head, DeliveryOutcome::Reject), staged, runs).await
    }

    /// The record that makes a dead letter of a message. One that cannot be read counts as nothing for its topic.
    pub(super) fn dead_letter(&self, leased: &Leased, reason: String) -> DeadLetterSized {
        let Place { group, topic, queue, offset } = leased.place;
        let record_len = vouch_storage::record_len(&self.of.log, leased.position).unwrap_or(0);
        let letter = DeadLetter { group, topic, queue, offset, generation: leased.generation, reason };
        DeadLetterSized { letter, record_len }
    }

    /// Proposes an answer with what was staged, and counts what became of it: done, to be run again, or failed after all, since there
    /// was no room for what was staged.
    async fn record(
        &self,
        leased: &Leased,
        (head, outcome): (SettledHead, DeliveryOutcome),
        staged: Staged,
        runs: &mut CallRuns,
    ) -> DeliveryRecorded {
        let proposed = if is_nothing(&staged) {
            self.writing().wrote_nothing();
            self.propose_alone(&head).await
        } else {
            match self.of.effects.settled(&self.settler, head, staged).await {
                Ok(settled) => {
                    let proposed = self.of.effects.propose(&settled, runs).await;
                    // Where it may be in the log, or is: a run that was kept out proposed nothing.
                    let may_be_there = matches!(proposed, Ok(_) | Err(NotDone::Unknown(_)));
                    if may_be_there && runs.record_len() > 0 {
                        self.writing().wrote(Instant::now(), runs.record_len());
                    }
                    proposed
                }
                Err(why) => Err(why),
            }
        };
        match proposed {
            Ok(Applied::Stale) => return DeliveryRecorded::Stale,
            Ok(Applied::Late) | Err(NotDone::Refused(Refusal::InvalidHandle(_))) => {
                tracing::debug!("the answer came too late: the message was in other hands, or done");
                self.of.metrics.deliveries.count(&self.name, DeliveryOutcome::Late);
                // If its lease lives all the same, its binding is another one by now.
                self.give_back(leased, Duration::ZERO).await;
            }
            Ok(_) => {
                self.of.metrics.deliveries.count(&self.name, outcome);
                // That a message is refused says nothing of others that fail, but that the component works.
                if outcome == DeliveryOutcome::Ack || self.row().is_paused() {
                    self.succeeded().await;
                }
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
        DeliveryRecorded::Done
    }

    /// Proposes what nothing was staged with: as small a record as a client's.
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
        self.change(leased, after, true, self.new_generation()).await;
    }

    /// A generation that no lease had before.
    pub(super) fn new_generation(&self) -> Generation {
        self.of.clock.generation(self.of.clock.now())
    }

    /// The message is visible again after this time, and waits under this generation.
    pub(super) async fn change(&self, leased: &Leased, after: Duration, uncounted: bool, new_generation: Generation) {
        let Place { group, topic, queue, offset } = leased.place;
        let now = self.of.clock.now();
        let deadline = now.plus_ms(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        let generation = leased.generation;
        let change = ChangeInvisible { group, topic, queue, offset, generation, new_generation, deadline, uncounted };
        if let Err(why) = self.of.shard.propose_one(|out| change.encode(out)).await {
            tracing::debug!(binding = self.name, %why, "a lease was not changed; it runs out");
        }
    }
}
