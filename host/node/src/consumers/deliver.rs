//! One delivery, from the lease to the record of what was answered.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::Instrument;
use vouch_broker::record::before_carried;
use vouch_broker::{NotDone, StoredMessage};
use vouch_plugin::{Admission, Consumed, ConsumerDelivery, ConsumerVerdict, NoAnswer, Staged};

use super::answer::DeliveryRecorded;
use super::consumer::Consumer;
use super::leased::{LEASE_BEYOND_DEADLINE, Leased};
use super::span::{self, record_message};
use crate::components::Answerer;
use crate::effects::CallRuns;
use crate::metrics::DeliveryOutcome;
use crate::{delivery_key, stored};

/// A call begins only while its lease lasts so much longer than its deadline: what it answers is still to be recorded.
const TO_RECORD: Duration = Duration::from_secs(5);

/// A message as it is delivered.
#[derive(Clone)]
struct Read {
    message: StoredMessage,
    key: String,
}

/// A delivery under way, until it is dropped.
struct InFlight<'a>(&'a Consumer);

impl<'a> InFlight<'a> {
    fn begin(of: &'a Consumer) -> Self {
        of.of.standings.begins(&of.name);
        of.under_way.fetch_add(1, Ordering::Relaxed);
        Self(of)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.of.standings.is_over(&self.0.name);
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Consumer {
    /// Delivers one message, and records what comes of it: an acknowledgement, another delivery, a dead letter. What is logged
    /// meanwhile says which delivery it was, on the component's threads, too.
    pub(super) async fn deliver(&self, leased: Leased) {
        let _in_flight = InFlight::begin(self);
        let span = span::of(&self.name, &self.entry, &leased);
        self.deliver_one(&leased).instrument(span).await;
    }

    /// The calls of one delivery: one, unless what it had read is another when it answers.
    async fn deliver_one(&self, leased: &Leased) {
        let read = match self.read(leased) {
            Ok(read) => read,
            Err(why) => return self.failed(leased, why.to_string(), None).await,
        };
        record_message(&read.message);
        let mut runs = CallRuns::default();
        loop {
            let Ok(answerer) = self.of.bound.answerer(&self.name, &self.entry).await else {
                return self.give_back(leased, Duration::from_secs(1)).await;
            };
            let Some(admission) = self.admitted(&answerer, leased, &mut runs).await else {
                // The host did not run it, in time for its lease: nothing speaks against the message.
                tracing::debug!("there was no place to run in time; the message is given back, uncounted");
                self.of.metrics.deliveries.count(&self.name, DeliveryOutcome::NotRun);
                return self.give_back(leased, Duration::ZERO).await;
            };
            let answer = self.consume(&answerer, admission, leased, read.clone()).await;
            let recorded = self.answered(leased, answer, answerer.binding.limits().deadline, &mut runs).await;
            if recorded == DeliveryRecorded::Done {
                return;
            }
            tracing::debug!("what the component had read is another by now; it is run once more");
            self.of.metrics.deliveries.count(&self.name, DeliveryOutcome::Stale);
        }
    }

    /// Reads the message, verified, and makes its key of where it lay at first.
    fn read(&self, leased: &Leased) -> Result<Read, NotDone> {
        let record = stored::record(&self.of.log, leased.position)?;
        let unreadable = |why: vouch_broker::record::DecodeError| NotDone::internal(why.to_string());
        let first = before_carried(&record).map_err(unreadable)?.map_or(leased.position, |(from, _)| from);
        let (_, message) = stored::message(&self.of.log, leased.position)?;
        let incarnation = self.of.shard.signals().incarnation_at(first);
        let key = delivery_key(self.of.effects.cluster_id, incarnation, leased.place.group, first);
        Ok(Read { message, key })
    }

    /// A place to run, and the turn of this run; `None` if they did not come in time for this lease.
    async fn admitted(&self, answerer: &Answerer, leased: &Leased, runs: &mut CallRuns) -> Option<Admission> {
        let left = Duration::from_millis(leased.deadline.ms_since(self.of.clock.now()));
        let wait = left.checked_sub(answerer.binding.limits().deadline + TO_RECORD)?.min(LEASE_BEYOND_DEADLINE);
        let admitted = async {
            // First the place, then its keys: whoever has some has a place, and lets go of them soon.
            let admission = answerer.binding.admit().await;
            self.of.effects.enter(&self.settler, runs).await;
            admission
        };
        tokio::time::timeout(wait, admitted).await.ok()
    }

    /// Calls the component in the place that it got.
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

    /// Records what it answered, or lets another delivery follow.
    async fn answered(
        &self,
        leased: &Leased,
        (consumed, staged): (Consumed, Staged),
        deadline: Duration,
        runs: &mut CallRuns,
    ) -> DeliveryRecorded {
        if let Consumed::Answer(verdict) = &consumed {
            tracing::debug!(verdict = name_of(verdict), "a component answered");
        }
        match consumed {
            Consumed::Answer(ConsumerVerdict::Ack) => self.acknowledge(leased, staged, runs).await,
            Consumed::Answer(ConsumerVerdict::Reject(reason)) => self.reject(leased, reason, staged, runs).await,
            Consumed::Answer(ConsumerVerdict::Retry { reason, retry_after }) => {
                self.of.metrics.deliveries.count(&self.name, DeliveryOutcome::Retry);
                self.failed(leased, reason, Some(retry_after)).await;
                DeliveryRecorded::Done
            }
            // Nobody is blamed for a place that he had for less than his time, or had not, or for a fault of the host.
            Consumed::NoAnswer(why) if is_of_the_host(&why, deadline) => {
                tracing::debug!(%why, "the host did not let the component answer; the message is given back, uncounted");
                self.of.standings.failed(&self.name, &why.to_string());
                self.of.metrics.deliveries.count(&self.name, DeliveryOutcome::NotRun);
                self.give_back(leased, Duration::ZERO).await;
                DeliveryRecorded::Done
            }
            Consumed::NoAnswer(why) => {
                self.of.metrics.deliveries.count(&self.name, DeliveryOutcome::Failed);
                self.failed(leased, why.to_string(), None).await;
                DeliveryRecorded::Done
            }
        }
    }
}

/// An answer by the name that the contract gives it.
fn name_of(verdict: &ConsumerVerdict) -> &'static str {
    match verdict {
        ConsumerVerdict::Ack => "ack",
        ConsumerVerdict::Reject(_) => "reject",
        ConsumerVerdict::Retry { .. } => "retry",
    }
}

/// Whether a call gave no answer since the host did not let it run, or not for as long as its binding says.
fn is_of_the_host(why: &NoAnswer, deadline: Duration) -> bool {
    match why {
        NoAnswer::NoCapacity { .. } | NoAnswer::Host(_) => true,
        NoAnswer::Deadline { deadline: had } | NoAnswer::TimeUsedUp { deadline: had } => *had < deadline,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_blamed_for_its_own_time_and_for_none_that_the_host_took() {
        let all = Duration::from_secs(10);
        for had in [all, all + Duration::from_millis(1)] {
            assert!(!is_of_the_host(&NoAnswer::Deadline { deadline: had }, all), "{had:?}");
            assert!(!is_of_the_host(&NoAnswer::TimeUsedUp { deadline: had }, all), "{had:?}");
        }
        let less = all - Duration::from_millis(1);
        assert!(is_of_the_host(&NoAnswer::Deadline { deadline: less }, all));
        assert!(is_of_the_host(&NoAnswer::TimeUsedUp { deadline: less }, all));
        assert!(is_of_the_host(&NoAnswer::NoCapacity { running: 8, scope: "the node" }, all));
        assert!(is_of_the_host(&NoAnswer::Host("the disk is full".to_owned()), all));
        assert!(!is_of_the_host(&NoAnswer::GuestError("away".to_owned()), all));
        assert!(!is_of_the_host(&NoAnswer::Trap { why: "a panic".to_owned(), trace: String::new() }, all));
    }
}
