//! Deliveries that fail: another one follows, or the message is a dead letter, or it was not the message's fault (ruling 9).

use std::time::Duration;

use vouch_broker::record::{ChangeInvisible, GiveBack};

use super::consumer::Consumer;
use super::leased::Leased;
use super::row::{Blame, Failed, FailedDelivery, Place};
use crate::metrics::DeliveryOutcome;

/// A last attempt of which nobody knows yet whose fault it was is tried again after this time.
const TRY_LAST_AGAIN: Duration = Duration::from_secs(5);
/// What a component asks for instead of the group's back-off is clamped to this.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

impl Consumer {
    /// A delivery failed. `asked`: its component said so, and when to try again if not as the group's settings say.
    pub(super) async fn failed(&self, leased: &Leased, why: String, asked: Option<Option<Duration>>) {
        self.of.standings.failed(&self.name, &why);
        let generation = self.new_generation();
        let (failure, given_back, make_way) = {
            let mut row = self.row();
            let failure = row.failed(leased.place, generation, leased.is_last());
            let given_back = if row.is_paused() { row.take_counted() } else { Vec::new() };
            (failure, given_back, row.make_way())
        };
        let FailedDelivery { blame, counted, pauses } = failure;
        tracing::debug!(?blame, why, "a delivery failed");
        if pauses {
            self.of.standings.pauses(&self.name, self.of.clock.now());
            self.begin_to_pause();
        }
        self.say_paused(pauses, &why);
        match blame {
            Blame::Message if leased.is_last() => self.dead_letter_of(leased, why).await,
            Blame::Message | Blame::Nobody if counted => {
                let after = asked.flatten().unwrap_or_else(|| back_off(leased)).min(RETRY_AFTER_MAX);
                self.change(leased, after, false, generation).await;
            }
            Blame::Message | Blame::Nobody => self.change(leased, TRY_LAST_AGAIN, true, generation).await,
            Blame::Binding => self.change(leased, make_way, true, generation).await,
        }
        if !given_back.is_empty() {
            self.count_no_more(given_back).await;
        }
    }

    /// Said when it begins to pause, and once a minute while it does.
    fn say_paused(&self, begins: bool, why: &str) {
        if begins {
            tracing::warn!(
                binding = self.name,
                why,
                "the binding pauses: delivery after delivery failed; one is tried after 1, 2, 4 … 60 s, nothing counts, and it goes \
                 on by itself"
            );
        } else if self.may_say_that_it_pauses() {
            tracing::warn!(binding = self.name, why, "the binding still pauses");
        }
    }

    /// What counted in a row that was not the messages' fault counts no more.
    async fn count_no_more(&self, given_back: Vec<(Place, Failed)>) {
        let mut records = Vec::new();
        for (Place { group, topic, queue, offset }, Failed { counted, .. }) in given_back {
            GiveBack { group, topic, queue, offset, attempts: counted }.encode(&mut records);
        }
        if let Err(why) = self.of.shard.propose(records).await {
            tracing::warn!(binding = self.name, %why, "failed deliveries of an outage count after all");
        }
    }

    /// What waited for the end of an outage is visible now, under the attempts that it has.
    pub(super) async fn wake(&self, waits: Vec<(Place, Failed)>) {
        let now = self.of.clock.now();
        let mut records = Vec::new();
        for (Place { group, topic, queue, offset }, Failed { generation, last_counted, .. }) in waits {
            let (new_generation, deadline) = (self.of.clock.generation(now), now);
            // One that was suspended stays so: it would count again.
            let uncounted = !last_counted;
            ChangeInvisible { group, topic, queue, offset, generation, new_generation, deadline, uncounted }
                .encode(&mut records);
        }
        if let Err(why) = self.of.shard.propose(records).await {
            tracing::debug!(binding = self.name, %why, "what failed in an outage waits for its time");
        }
    }

    /// The last delivery failed, and it was the message's own fault.
    async fn dead_letter_of(&self, leased: &Leased, why: String) {
        let letter = self.dead_letter(leased, why);
        match self.of.shard.propose_one(|out| letter.encode(out)).await {
            Ok(_) => self.of.metrics.deliveries.count(&self.name, DeliveryOutcome::DeadLetter),
            Err(error) => {
                tracing::warn!(binding = self.name, %error, "a message did not become a dead letter; its lease runs out");
            }
        }
    }
}

/// How long the group lets a message wait after this attempt.
fn back_off(leased: &Leased) -> Duration {
    let steps = &leased.group.backoff;
    let step = usize::try_from(leased.attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    steps.get(step.min(steps.len().saturating_sub(1))).copied().unwrap_or_default()
}
