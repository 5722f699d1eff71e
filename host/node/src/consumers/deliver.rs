//! One delivery, from the lease to the record of what was answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vouch_broker::record::before_carried;
use vouch_broker::{Generation, GroupConfig, Millis, NotDone, RecordPosition, StoredMessage};
use vouch_plugin::{Admission, Consumed, ConsumerDelivery, ConsumerVerdict, NoAnswer, Staged};

use super::Subscription;
use super::answer::Recorded;
use super::receive::{Consumer, LEASE_BEYOND_DEADLINE};
use super::row::Place;
use crate::components::Answerer;
use crate::metrics::DeliveryOutcome;
use crate::{delivery_key, stored};

/// What was read is another by then so often, side by side with others, before the call runs alone.
const SIDE_BY_SIDE: u32 = 3;
/// A call begins only while its lease lasts so much longer than its deadline: what it answers is still to be recorded.
const TO_RECORD: Duration = Duration::from_secs(5);

/// A message that is leased to a binding.
pub(super) struct Leased {
    pub(super) place: Place,
    pub(super) generation: Generation,
    /// When the lease ends.
    pub(super) deadline: Millis,
    pub(super) attempt: u32,
    pub(super) position: RecordPosition,
    pub(super) subscription: Arc<Subscription>,
    pub(super) group: Arc<GroupConfig>,
}

impl Leased {
    /// Whether another delivery may follow this one.
    pub(super) fn is_last(&self) -> bool {
        self.attempt >= self.group.max_attempts
    }
}

/// A message as it is delivered.
#[derive(Clone)]
struct Read {
    message: StoredMessage,
    key: String,
}

impl Consumer {
    /// Delivers one message, and records what comes of it: an acknowledgement, another delivery, a dead letter.
    pub(super) async fn deliver(&self, leased: Leased) {
        self.of.standings.begins(&self.name);
        self.deliver_one(&leased).await;
        self.of.standings.is_over(&self.name);
    }

    async fn deliver_one(&self, leased: &Leased) {
        let read = match self.read(leased) {
            Ok(read) => read,
            Err(why) => return self.failed(leased, why.to_string(), None).await,
        };
        for run in 0.. {
            let Ok(answerer) = self.of.bound.answerer(&self.name, &self.entry).await else {
                return self.give_back(leased, Duration::from_secs(1)).await;
            };
            let Some((admission, keeps_out)) = self.admitted(&answerer, leased, run >= SIDE_BY_SIDE).await else {
                // The host did not run it, in time for its lease: nothing speaks against the message.
                self.of.metrics.deliveries.count(&self.name, DeliveryOutcome::NotRun);
                return self.give_back(leased, Duration::ZERO).await;
            };
            let (consumed, staged) = self.consume(&answerer, admission, leased, read.clone()).await;
            let recorded = self.answered(leased, consumed, staged).await;
            drop(keeps_out);
            if recorded == Recorded::Done {
                return;
            }
            self.of.metrics.deliveries.count(&self.name, DeliveryOutcome::Stale);
        }
    }

    fn read(&self, leased: &Leased) -> Result<Read, NotDone> {
        let record = stored::record(&self.of.log, leased.position)?;
        let unreadable = |why: vouch_broker::record::DecodeError| NotDone::internal(why.to_string());
        let first = before_carried(&record).map_err(unreadable)?.map_or(leased.position, |(from, _)| from);
        let (_, message) = stored::message(&self.of.log, leased.position)?;
        let key = delivery_key(self.of.effects.cluster_id, leased.place.group, first);
        Ok(Read { message, key })
    }

    /// A place to run, and its part of what the binding keeps; `None` if there was none in time for this lease.
    async fn admitted(
        &self,
        answerer: &Answerer,
        leased: &Leased,
        alone: bool,
    ) -> Option<(Admission, crate::effects::KeepsOut)> {
        let left = Duration::from_millis(leased.deadline.ms_since(self.of.clock.now()));
        let wait = left.checked_sub(answerer.binding.limits().deadline + TO_RECORD)?.min(LEASE_BEYOND_DEADLINE);
        let admitted = async {
            // First its part, then the place: who waits for the others holds no place that they need.
            let keeps_out = self.of.effects.enter(&self.settler, alone).await;
            (answerer.binding.admit().await, keeps_out)
        };
        tokio::time::timeout(wait, admitted).await.ok()
    }

    async fn consume(
        &self,
        answerer: &Answerer,
        admission: Admission,
        leased: &Leased,
        Read { message, key }: Read,
    ) -> (Consumed, Staged) {
        let reach = self.of.effects.reach(&self.settler, &key);
        let (asking, subscription) = (answerer.clone(), leased.subscription.clone());
        let (attempt, attempts_left) = (leased.attempt, leased.group.max_attempts.saturating_sub(leased.attempt));
        let delivered_at_ms = self.of.clock.now().0;
        let began = Instant::now();
        let prepare = move || ConsumerDelivery {
            message: asking.message(&key, &subscription.topic, &message),
            delivery_key: key,
            group: subscription.group.to_string(),
            delivered_at_ms,
            attempt,
            attempts_left,
        };
        let answer = admission.consume_prepared(prepare, Some(reach)).await;
        self.of.metrics.delivery_calls.observe(began.elapsed());
        answer
    }

    async fn answered(&self, leased: &Leased, consumed: Consumed, staged: Staged) -> Recorded {
        match consumed {
            Consumed::Answer(ConsumerVerdict::Ack) => self.acknowledge(leased, staged).await,
            Consumed::Answer(ConsumerVerdict::Reject(reason)) => self.reject(leased, reason, staged).await,
            Consumed::Answer(ConsumerVerdict::Retry { reason, retry_after }) => {
                self.of.metrics.deliveries.count(&self.name, DeliveryOutcome::Retry);
                self.failed(leased, reason, Some(retry_after)).await;
                Recorded::Done
            }
            Consumed::NoAnswer(NoAnswer::NoCapacity { .. }) => {
                self.of.metrics.deliveries.count(&self.name, DeliveryOutcome::NotRun);
                self.give_back(leased, Duration::ZERO).await;
                Recorded::Done
            }
            Consumed::NoAnswer(why) => {
                self.of.metrics.deliveries.count(&self.name, DeliveryOutcome::Failed);
                self.failed(leased, why.to_string(), None).await;
                Recorded::Done
            }
        }
    }
}
