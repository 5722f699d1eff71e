//! Deliveries that fail: another one follows, or the message is a dead letter, or it was not the message's fault (ruling 9).

use std::time::Duration;

use vouch_broker::record::{ChangeInvisible, GiveBack};

use super::deliver::Leased;
use super::receive::Consumer;
use super::row::{Blame, Failed, Place};
use crate::metrics::DeliveryOutcome;

/// A last attempt of which nobody knows yet whose fault it was is tried again after this time.
const TRY_LAST_AGAIN: Duration = Duration::from_secs(5);
/// What a component asks for instead of the group's back-off is clamped to this.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);
/// While a binding pauses, what failed makes way for others, one of which may succeed.
const MAKE_WAY: Duration = Duration::from_secs(60);

impl Consumer {
    /// A delivery failed. `asked`: its component said so, and when to try again if not as the group's settings say.
    pub(super) async fn failed(&self, leased: &Leased, why: String, asked: Option<Option<Duration>>) {
        self.of.standings.failed(&self.name, &why);
        let blame = self.row().blame(leased.place);
        tracing::debug!(binding = self.name, attempt = leased.attempt, ?blame, why, "a delivery failed");
        match blame {
            Blame::Message if leased.is_last() => return self.dead_letter_of(leased, why).await,
            Blame::Message | Blame::Nobody if !leased.is_last() => {
                let after = asked.flatten().unwrap_or_else(|| back_off(leased)).min(RETRY_AFTER_MAX);
                self.fails(leased, after, true, &why).await;
            }
            Blame::Message | Blame::Nobody => self.fails(leased, TRY_LAST_AGAIN, false, &why).await,
            Blame::Binding => self.fails(leased, MAKE_WAY, false, &why).await,
        }
    }

    /// The message waits for its next delivery.
    async fn fails(&self, leased: &Leased, after: Duration, counted: bool, why: &str) {
        let generation = self.change(leased, after, !counted).await;
        let (pauses, given_back) = {
            let mut row = self.row();
            let pauses = row.failed(leased.place, generation, counted);
            (pauses, if row.is_paused() { row.take_counted() } else { Vec::new() })
        };
        if pauses {
            self.of.standings.pauses(&self.name, self.of.clock.now());
        }
        self.say_paused(pauses, why);
        if !given_back.is_empty() {
            self.count_no_more(given_back).await;
        }
    }

    /// Said when it begins to pause, and once a minute while it does: one probe a minute, by then.
    fn say_paused(&self, begins: bool, why: &str) {
        if begins {
            tracing::warn!(
                binding = self.name,
                why,
                "the binding pauses: delivery after delivery failed; one is tried after 1, 2, 4 … 60 s, nothing counts, and it goes \
                 on by itself"
            );
        } else if self.row().next_probe() >= Some(MAKE_WAY) {
            tracing::warn!(binding = self.name, why, "the binding still pauses");
        }
    }

    /// What counted in a row that was not the messages' fault counts no more.
    async fn count_no_more(&self, given_back: Vec<(Place, Failed)>) {
        let mut records = Vec::new();
        for (Place { group, topic, queue, offset }, Failed { generation, counted, .. }) in given_back {
            GiveBack { group, topic, queue, offset, generation, attempts: counted }.encode(&mut records);
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

    async fn dead_letter_of(&self, leased: &Leased, why: String) {
        let letter = self.dead_letter(leased, why);
        match self.of.shard.propose_one(|out| letter.encode(out)).await {
            Ok(_) => self.of.metrics.deliveries.count(&self.name, DeliveryOutcome::DeadLetter),
            Err(error) => {
                tracing::warn!(binding = self.name, %error, "a message did not become a dead letter; its lease runs out")
            }
        }
        let mut row = self.row();
        row.failed(leased.place, leased.generation, false);
        row.forget(leased.place);
    }
}

/// How long the group lets a message wait after this attempt.
fn back_off(leased: &Leased) -> Duration {
    let steps = &leased.group.backoff;
    let step = usize::try_from(leased.attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    steps.get(step.min(steps.len().saturating_sub(1))).copied().unwrap_or_default()
}
