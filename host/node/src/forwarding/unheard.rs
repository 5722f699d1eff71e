//! A receive that another node serves, and what becomes of messages that are lost on the way here.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle as Runtime;
use vouch_broker::{Generation, NotDone, ResourceName};

use super::call::{ForwardedAnswer, ForwardedAsk};
use super::give_back::give_back_lost;
use super::leaders::Leaders;
use crate::sessions::Sessions;
use crate::{Delivery, ReceiveRequest};
use vouch_shard::Shard;

/// How long whoever leads is told, if it does not hear.
const TOLD_FOR: Duration = Duration::from_secs(60);
/// Before it is told again.
const AGAIN: Duration = Duration::from_millis(500);
/// What came here is remembered for so long.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// The most batches that are remembered.
const KEPT_MAX: usize = 200_000;

/// What a receive got never arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LostReceive {
    /// Names the receive at who served it.
    pub(super) ticket: u64,
    pub(super) client_id: String,
    pub(super) group: ResourceName,
    pub(super) topic: ResourceName,
    /// Of what that client did get of late.
    pub(super) got: Vec<Generation>,
    /// How long ago it was asked.
    pub(super) asked_ms_ago: u64,
}

/// Batches that came here from other nodes of late, for consumers whose leases the broker extends.
#[derive(Default)]
pub(super) struct CameHere(Mutex<VecDeque<(Instant, Arc<str>, Generation)>>);

impl CameHere {
    fn put(&self, client_id: &str, deliveries: &[Delivery], at: Instant) {
        let Some(first) = deliveries.first() else { return };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.len() >= KEPT_MAX
            || kept.front().is_some_and(|(came, ..)| at.saturating_duration_since(*came) > KEPT_FOR)
        {
            kept.pop_front();
        }
        kept.push_back((at, client_id.into(), first.handle.generation));
    }

    pub(super) fn all(&self) -> Vec<Generation> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(|(_, _, generation)| *generation).collect()
    }

    fn of(&self, client_id: &str) -> Vec<Generation> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().filter(|(_, client, _)| **client == *client_id).map(|(_, _, generation)| *generation).collect()
    }
}

/// A receive whose answer is awaited. Dropped before that is heard, whatever it got is given back.
pub(crate) struct UnheardReceive<'a> {
    leaders: &'a Arc<Leaders>,
    shard: &'a Arc<Shard>,
    sessions: &'a Arc<Sessions>,
    request: &'a ReceiveRequest,
    ticket: u64,
    began: Instant,
    /// Another node was asked, and what came of that is not known.
    is_there: AtomicBool,
}

impl<'a> UnheardReceive<'a> {
    pub(crate) fn begin(
        leaders: &'a Arc<Leaders>,
        (shard, sessions): (&'a Arc<Shard>, &'a Arc<Sessions>),
        request: &'a ReceiveRequest,
    ) -> Self {
        let is_there = AtomicBool::new(false);
        Self { leaders, shard, sessions, request, ticket: rand::random(), began: Instant::now(), is_there }
    }

    /// How long the consumer still waits.
    pub(crate) fn wait_left(&self) -> Duration {
        self.request.wait.saturating_sub(self.began.elapsed())
    }

    /// Another node is about to be asked. Its number there.
    pub(crate) fn goes_there(&self) -> u64 {
        self.is_there.store(true, Ordering::Relaxed);
        self.ticket
    }

    /// What became of it.
    pub(crate) fn ended(self, received: &Result<Vec<Delivery>, NotDone>) {
        if matches!(received, Err(NotDone::Unknown(_))) {
            return;
        }
        // Also what this node leased itself: another one may lead next.
        if let (Ok(deliveries), true) = (received, self.leaders.has_others() && self.request.auto_renew) {
            self.leaders.came_here.put(&self.request.client_id, deliveries, Instant::now());
        }
        self.is_there.store(false, Ordering::Relaxed);
    }
}

impl Drop for UnheardReceive<'_> {
    fn drop(&mut self) {
        let Ok(runtime) = Runtime::try_current() else { return };
        if !self.is_there.load(Ordering::Relaxed) {
            return;
        }
        let (leaders, shard, sessions) = (self.leaders.clone(), self.shard.clone(), self.sessions.clone());
        let (began, ticket) = (self.began, self.ticket);
        let ReceiveRequest { client_id, group, topic, .. } = self.request.clone();
        runtime.spawn(async move {
            let lost = || LostReceive {
                ticket,
                client_id: client_id.clone(),
                group: group.clone(),
                topic: topic.clone(),
                got: leaders.came_here.of(&client_id),
                asked_ms_ago: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            };
            let told_until = Instant::now() + TOLD_FOR;
            while Instant::now() < told_until {
                let here = || give_back_lost(&shard, &sessions, lost());
                let ask = || ForwardedAsk::GiveBack(lost());
                let take = |answer| matches!(answer, ForwardedAnswer::Done).then_some(());
                match leaders.done(here, ask, take).await {
                    Ok(()) => return,
                    Err(why) => tracing::debug!(%why, "what a receive got is not given back yet"),
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
}
