//! How a binding gets its messages: as a member of its groups that the node itself is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as TurnOf, Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use vouch_broker::delivery::BATCH_MAX;
use vouch_broker::record::Seen;
use vouch_broker::state::BindingEntry;
use vouch_broker::{GroupConfig, GroupId, NotDone, State};
use vouch_leader::{Batch, Poll};

use super::deliver::Leased;
use super::rate::Rate;
use super::row::{Place, Row};
use super::{Consumers, Subscription, subscriptions};
use crate::components::Answerer;
use crate::effects::{Settler, client_id_of};

/// How long one receive waits for messages.
const WAIT: Duration = Duration::from_secs(20);
/// And one that probes a binding that pauses: other topics may have what this one has not.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// A lease is so much longer than the deadline of a call, so that no call outlives its lease.
pub(super) const LEASE_BEYOND_DEADLINE: Duration = Duration::from_secs(30);
/// After a receive that failed, or a component that cannot be asked, it is tried again: after 1, 2, 4 … up to this.
const TRY_AGAIN_MAX: Duration = Duration::from_secs(30);

/// One binding that consumes, as it was set by one record.
pub(super) struct Consumer {
    pub(super) of: Arc<Consumers>,
    pub(super) name: String,
    pub(super) entry: Arc<BindingEntry>,
    pub(super) settler: Settler,
    row: Mutex<Row>,
    rate: Mutex<Rate>,
    /// A delivery succeeded: it pauses no more.
    goes_on: Notify,
    /// While it pauses, one receive at a time probes.
    probing: TurnOf<()>,
    /// It receives no more.
    ends: watch::Sender<bool>,
}

impl Consumer {
    pub(super) fn new(of: Arc<Consumers>, name: &str, entry: Arc<BindingEntry>) -> Self {
        let settler = Settler::of(name, &entry);
        let (ends, row, rate) = (watch::Sender::new(false), Mutex::default(), Mutex::new(Rate::new(None)));
        let (goes_on, probing) = (Notify::new(), TurnOf::new(()));
        Self { of, name: name.to_owned(), entry, settler, row, rate, goes_on, probing, ends }
    }

    pub(super) fn row(&self) -> MutexGuard<'_, Row> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives no more; what it has goes on to its end.
    pub(super) fn receive_no_more(&self) {
        self.ends.send_replace(true);
    }

    /// A delivery succeeded; said where it ends a pause. What failed in that is due now.
    pub(super) async fn succeeded(&self) {
        let waits = self.row().succeeded();
        self.of.standings.succeeded(&self.name);
        self.goes_on.notify_waiters();
        if let Some(waits) = waits {
            tracing::info!(binding = self.name, "deliveries succeed again: the binding goes on");
            self.wake(waits).await;
        }
    }

    /// The component, ready to be asked: as often as it takes, until it receives no more.
    async fn answerer(&self) -> Option<Answerer> {
        let mut pause = Duration::from_secs(1);
        loop {
            match self.of.bound.answerer(&self.name, &self.entry).await {
                Ok(answerer) => return Some(answerer),
                Err(why) => {
                    self.of.standings.failed(&self.name, &why.to_string());
                    tracing::warn!(binding = self.name, %why, "the binding cannot be asked, and receives nothing; tried again");
                }
            }
            if !self.rests(pause).await {
                return None;
            }
            pause = (pause * 2).min(TRY_AGAIN_MAX);
        }
    }

    /// Waits so long; `false` if it receives no more.
    async fn rests(&self, pause: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(pause) => !*self.ends.borrow(),
            () = self.ended() => false,
        }
    }

    /// Resolves when it receives no more.
    async fn ended(&self) {
        // The sender lives in `self`.
        let _ = self.ends.subscribe().wait_for(|ends| *ends).await;
    }

    /// Receives and delivers until it is ended, and what it has is answered.
    pub(super) async fn run(self: Arc<Self>) {
        let Some(answerer) = self.answerer().await else { return };
        *self.rate.lock().unwrap_or_else(PoisonError::into_inner) = Rate::new(answerer.binding.limits().rate);
        let all = match subscriptions(&self.entry) {
            Ok(all) => all,
            Err(why) => {
                tracing::error!(binding = self.name, %why, "the binding receives nothing");
                return;
            }
        };
        // One for each delivery that may be under way.
        let credits = Arc::new(Semaphore::new(answerer.binding.limits().concurrency));
        let mut receiving = JoinSet::new();
        for subscription in all {
            receiving.spawn(self.clone().receive(Arc::new(subscription), credits.clone()));
        }
        while receiving.join_next().await.is_some() {}
    }

    /// Receives for one subscription.
    async fn receive(self: Arc<Self>, subscription: Arc<Subscription>, credits: Arc<Semaphore>) {
        let mut deliveries = JoinSet::new();
        let mut pause = Duration::from_secs(1);
        loop {
            while deliveries.try_join_next().is_some() {}
            let received = if self.row().is_paused() {
                self.probe(&subscription, &credits).await
            } else {
                self.receive_some(&subscription, &credits, &mut deliveries).await
            };
            match received {
                Ok(true) => pause = Duration::from_secs(1),
                Ok(false) => break,
                Err(why) => {
                    self.of.standings.failed(&self.name, &why.to_string());
                    tracing::debug!(binding = self.name, topic = %subscription.topic, %why, "nothing is received");
                    if !self.rests(pause).await {
                        break;
                    }
                    pause = (pause * 2).min(TRY_AGAIN_MAX);
                }
            }
        }
        while deliveries.join_next().await.is_some() {}
    }

    /// One receive, and the begin of what it brought; `false` if it receives no more.
    async fn receive_some(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        credits: &Arc<Semaphore>,
        deliveries: &mut JoinSet<()>,
    ) -> Result<bool, NotDone> {
        // Only while there is room are messages leased: nobody else could have them meanwhile.
        let Some(first) = self.credit(credits).await else { return Ok(false) };
        let more = if self.has_rate() { 0 } else { credits.available_permits() };
        drop(first);
        let Some(batch) = self.leased(subscription, more + 1, WAIT).await? else { return Ok(!*self.ends.borrow()) };
        for leased in batch {
            let Some(credit) = self.credit(credits).await else {
                self.give_back(&leased, Duration::ZERO).await;
                continue;
            };
            let wait = self.rate.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
            if !wait.is_zero() && !self.rests(wait).await {
                self.give_back(&leased, Duration::ZERO).await;
                continue;
            }
            let consumer = self.clone();
            deliveries.spawn(async move {
                consumer.deliver(leased).await;
                drop(credit);
            });
        }
        Ok(true)
    }

    /// Whether deliveries have a rate: then messages are leased one by one.
    fn has_rate(&self) -> bool {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).is_limited()
    }

    /// Room for one more delivery; `None` if it receives no more.
    async fn credit(&self, credits: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            () = self.ended() => None,
            credit = credits.clone().acquire_owned() => credit.ok(),
        }
    }

    /// While it pauses: one message, when the time of a probe has come and it is this one's turn.
    async fn probe(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        credits: &Arc<Semaphore>,
    ) -> Result<bool, NotDone> {
        let turn = tokio::select! {
            biased;
            () = self.ended() => return Ok(false),
            () = self.goes_on.notified() => return Ok(true),
            turn = self.probing.lock() => turn,
        };
        let Some(pause) = self.row().next_probe() else { return Ok(true) };
        if !self.rests(pause).await {
            return Ok(false);
        }
        let Some(credit) = self.credit(credits).await else { return Ok(false) };
        for leased in self.leased(subscription, 1, PROBE_WAIT).await?.unwrap_or_default() {
            self.deliver(leased).await;
        }
        drop((credit, turn));
        Ok(true)
    }

    /// Leases messages, at most so many; `None` if there were none in time.
    async fn leased(
        &self,
        subscription: &Arc<Subscription>,
        most: usize,
        wait: Duration,
    ) -> Result<Option<Vec<Leased>>, NotDone> {
        let Some(answerer) = self.answerer().await else { return Ok(None) };
        let lease = answerer.binding.limits().deadline + LEASE_BEYOND_DEADLINE;
        let poll = |waiter| Poll {
            topic: subscription.topic.clone(),
            group: subscription.group.clone(),
            client_id: client_id_of(&self.name),
            machine: None,
            filter: subscription.filter.clone(),
            max: most.clamp(1, BATCH_MAX),
            invisible_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
            // No session has this id, so nobody extends them; whoever leads next knows them by it.
            auto_renew: true,
            until: Instant::now() + wait,
            waiter,
        };
        let held = tokio::select! {
            () = self.ended() => return Ok(None),
            held = self.of.shard.receive(poll) => held?,
        };
        let Some(held) = held else { return Ok(None) };
        let batch = held.batch();
        let leased = self.leased_of(batch, subscription).await?;
        if leased.iter().any(|leased| leased.attempt > 1) {
            // Whoever dies of one of these has it counted: its lease is durable before it is tried again.
            let seen = Seen { groups: vec![batch.group] };
            self.of.shard.propose_one(|out| seen.encode(out)).await?;
        }
        held.is_handed_out();
        Ok(Some(leased))
    }

    async fn leased_of(&self, batch: &Batch, subscription: &Arc<Subscription>) -> Result<Vec<Leased>, NotDone> {
        let config = Arc::new(self.group_config(batch.group).await?);
        let each = batch.messages.iter().map(|picked| Leased {
            place: Place { group: batch.group, topic: batch.topic, queue: picked.queue, offset: picked.offset },
            generation: batch.generation,
            deadline: batch.deadline,
            attempt: picked.attempt,
            position: picked.position,
            subscription: subscription.clone(),
            group: config.clone(),
        });
        Ok(each.collect())
    }

    async fn group_config(&self, group: GroupId) -> Result<GroupConfig, NotDone> {
        let look = move |state: &State| state.groups().get(group).map(|group| group.config.clone());
        Ok(self.of.shard.read(look).await?.unwrap_or_default())
    }
}
