//! How a binding gets its messages: as a member of its groups that the node itself is.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use vouch_broker::delivery::BATCH_MAX;
use vouch_broker::record::Seen;
use vouch_broker::{GroupConfig, GroupId, NotDone, State};
use vouch_leader::{Batch, Poll};

use super::consumer::Consumer;
use super::leased::{LEASE_BEYOND_DEADLINE, Leased};
use super::rate::Rate;
use super::row::Place;
use super::writing::Writing;
use super::{Subscription, subscriptions};
use crate::components::Answerer;
use crate::effects::client_id_of;

/// How long a receive waits that probes a binding that pauses: other topics may have what this one has not.
const PROBE_WAIT: Duration = Duration::from_millis(200);
/// Between two lines of the node's log that say that a binding pauses.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// What is under way may put less into the log than was thought, or more: so often it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A binding that was set anew, paused or deleted hears of it within this time.
const HEARS_WITHIN: Duration = Duration::from_millis(10);
/// After a receive that failed, or a component that cannot be asked, it is tried again: after 1, 2, 4 … up to this.
const TRY_AGAIN_MAX: Duration = Duration::from_secs(30);

impl Consumer {
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
        // Whoever is set in its place begins without a pause.
        let waits = self.row().take_waiting();
        if !waits.is_empty() {
            self.wake(waits).await;
        }
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

    /// One receive, and the begin of what it brought; `false` if it receives no more. Only what there is room for is leased:
    /// nobody else could have it meanwhile, and its lease would run out in a line of the node's own.
    async fn receive_some(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        credits: &Arc<Semaphore>,
        deliveries: &mut JoinSet<()>,
    ) -> Result<bool, NotDone> {
        let Some(first) = self.credit(credits).await else { return Ok(false) };
        if !self.may_write().await || !self.has_turn().await {
            return Ok(false);
        }
        // Both may have taken long.
        if self.row().is_paused() {
            self.rate().give_back();
            return Ok(true);
        }
        let mut mine = vec![first];
        if !self.has_rate() {
            let most = self.writing().at_once(Instant::now(), self.under_way(), BATCH_MAX);
            mine.extend(std::iter::from_fn(|| credits.clone().try_acquire_owned().ok()).take(most - 1));
        }
        let mut leased = self.leased(subscription, mine.len(), Duration::ZERO).await;
        if matches!(leased, Ok(None)) {
            // Nothing is there: others have the rest of the room while this one waits.
            mine.truncate(1);
            leased = self.leased(subscription, 1, self.wait).await;
        }
        let leased = match leased {
            Ok(Some(leased)) => leased,
            Ok(None) | Err(_) => {
                self.rate().give_back();
                return leased.map(|_| !*self.ends.borrow());
            }
        };
        for (leased, credit) in leased.into_iter().zip(mine) {
            let consumer = self.clone();
            deliveries.spawn(async move {
                consumer.deliver(leased).await;
                drop(credit);
            });
        }
        Ok(true)
    }

    /// Waits for its turn, where deliveries have a rate; `false` if it receives no more.
    async fn has_turn(&self) -> bool {
        let wait = self.rate().take(Instant::now());
        wait.is_zero() || self.rests(wait).await
    }

    /// Waits until its answers may put more into the log; `false` if it receives no more.
    async fn may_write(&self) -> bool {
        loop {
            let wait = self.writing().wait(Instant::now(), self.under_way());
            // While it pauses it probes, and a probe needs the room that this one has.
            if wait.is_zero() || self.row().is_paused() {
                return true;
            }
            self.say_that_it_waits();
            if !self.rests(wait.min(LOOK_AGAIN)).await {
                return false;
            }
        }
    }

    /// Deliveries that are under way.
    fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Said once a minute, while it is so.
    fn say_that_it_waits(&self) {
        let now = Instant::now();
        let mut said = self.said_it_waits.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| now.duration_since(said) >= SAY_EVERY) {
            *said = Some(now);
            tracing::warn!(
                binding = self.name,
                "what its answers put into the log comes to limits.effects_rate: the next deliveries wait; let it write less, or raise that \
                 (`vouch binding set … --effects-rate`)"
            );
        }
    }

    /// What its answers put into the log.
    pub(super) fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rate(&self) -> MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether deliveries have a rate: then messages are leased one by one.
    fn has_rate(&self) -> bool {
        self.rate().is_limited()
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
        // Listens first, and looks then: what goes on in between is not missed until the next probe.
        let goes_on = self.goes_on.notified();
        if !self.row().is_paused() {
            return Ok(true);
        }
        let wait = self.probe_at().saturating_duration_since(Instant::now());
        tokio::select! {
            () = goes_on => return Ok(true),
            rests = self.rests(wait) => if !rests { return Ok(false) },
        }
        let Some(credit) = self.credit(credits).await else { return Ok(false) };
        // Where this one has no message the next one is looked at, at once.
        let probed = self.leased(subscription, 1, PROBE_WAIT).await?.unwrap_or_default();
        for leased in probed {
            self.deliver(leased).await;
            let next = {
                let mut row = self.row();
                row.probed();
                row.next_probe()
            };
            if let Some(next) = next {
                *self.probe_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + next;
            }
        }
        drop((credit, turn));
        Ok(true)
    }

    /// When the next probe is due.
    fn probe_at(&self) -> Instant {
        *self.probe_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It pauses from now on: the first probe comes soon.
    pub(super) fn begin_to_pause(&self) {
        let now = Instant::now();
        *self.probe_at.lock().unwrap_or_else(PoisonError::into_inner) =
            now + self.row().next_probe().unwrap_or_default();
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Whether it is to be said again that it pauses: once a minute.
    pub(super) fn may_say_that_it_pauses(&self) -> bool {
        let (now, mut said) = (Instant::now(), self.said.lock().unwrap_or_else(PoisonError::into_inner));
        let say = self.row().is_paused() && now.saturating_duration_since(*said) >= SAY_EVERY;
        if say {
            *said = now;
        }
        say
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
        let Some(config) = self.group_config(batch.group).await? else {
            // It was paused, set anew or deleted while it waited, and hears of that in a moment: what it got is given back.
            let _ = self.rests(HEARS_WITHIN).await;
            return Ok(None);
        };
        let leased = leased_of(batch, subscription, Arc::new(config));
        if leased.iter().any(|leased| leased.attempt > 1) {
            // Whoever dies of one of these has it counted: its lease is durable before it is tried again.
            let seen = Seen { groups: vec![batch.group] };
            self.of.shard.propose_one(|out| seen.encode(out)).await?;
        }
        held.is_handed_out();
        Ok(Some(leased))
    }

    /// Settings of a group as they are now; those of a new one where it went meanwhile. `None`: the binding is not any more as this one
    /// was set, or pauses.
    async fn group_config(&self, group: GroupId) -> Result<Option<GroupConfig>, NotDone> {
        let (name, revision) = (self.name.clone(), self.entry.revision);
        let look = move |state: &State| {
            let entry = state.plugins().binding(&name);
            let receives = entry.is_some_and(|entry| entry.revision == revision && !entry.paused);
            receives.then(|| state.groups().get(group).map(|group| group.config.clone()).unwrap_or_default())
        };
        self.of.shard.read(look).await
    }
}

/// What was picked, each with what its delivery needs.
fn leased_of(batch: &Batch, subscription: &Arc<Subscription>, config: Arc<GroupConfig>) -> Vec<Leased> {
    let each = batch.messages.iter().map(|picked| Leased {
        place: Place { group: batch.group, topic: batch.topic, queue: picked.queue, offset: picked.offset },
        generation: batch.generation,
        deadline: batch.deadline,
        attempt: picked.attempt,
        position: picked.position,
        subscription: subscription.clone(),
        group: config.clone(),
    });
    each.collect()
}
