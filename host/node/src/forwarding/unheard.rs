//! A receive that another node serves, and what becomes of messages that are lost on the way here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle as Runtime;
use vouch_broker::{Generation, NotDone};

use super::call::{ForwardedAnswer, ForwardedAsk};
use super::give_back::give_back_lost;
use super::leaders::Leaders;
use super::lost::LostReceive;
use crate::sessions::Sessions;
use crate::{Delivery, ReceiveRequest};
use vouch_shard::Shard;
use vouch_shard::clock::Clock;

/// How long whoever leads is told, if it does not hear.
const TOLD_FOR: Duration = Duration::from_secs(60);
/// What came here within this time is told along: all of it is told every five seconds.
const CAME_LATELY: Duration = Duration::from_secs(10);
/// Batches that are told along at most.
const CAME_MAX: usize = 100_000;
/// Before it is told again.
const AGAIN: Duration = Duration::from_millis(500);
/// A receive whose answer is awaited. Dropped before that is heard, whatever it got is given back.
pub(crate) struct UnheardReceive<'a> {
    leaders: &'a Arc<Leaders>,
    shard: &'a Arc<Shard>,
    sessions: &'a Arc<Sessions>,
    clock: &'a Arc<Clock>,
    request: &'a ReceiveRequest,
    ticket: u64,
    began: Instant,
    /// Another node was asked, and what came of that is not known.
    is_there: AtomicBool,
}

impl<'a> UnheardReceive<'a> {
    pub(crate) fn begin(
        leaders: &'a Arc<Leaders>,
        (shard, sessions, clock): (&'a Arc<Shard>, &'a Arc<Sessions>, &'a Arc<Clock>),
        request: &'a ReceiveRequest,
    ) -> Self {
        let is_there = AtomicBool::new(false);
        Self { leaders, shard, sessions, clock, request, ticket: rand::random(), began: Instant::now(), is_there }
    }

    /// How long the consumer still waits.
    pub(crate) fn wait_left(&self) -> Duration {
        self.request.wait.saturating_sub(self.began.elapsed())
    }

    /// It is served here now: no other node has anything of it that is not known.
    pub(crate) fn stays_here(&self) {
        self.is_there.store(false, Ordering::Relaxed);
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
            self.leaders.came_here.put(deliveries, Instant::now());
        }
        self.is_there.store(false, Ordering::Relaxed);
    }
}

/// What came here, so lately that no leader need have heard of it: the newest first, as much as a call may hold.
fn came_lately(leaders: &Leaders) -> Vec<Generation> {
    let mut came = leaders.came_here(Instant::now().checked_sub(CAME_LATELY));
    came.truncate(CAME_MAX);
    came
}

impl Drop for UnheardReceive<'_> {
    fn drop(&mut self) {
        let Ok(runtime) = Runtime::try_current() else { return };
        if !self.is_there.load(Ordering::Relaxed) {
            return;
        }
        let (leaders, shard, sessions) = (self.leaders.clone(), self.shard.clone(), self.sessions.clone());
        let clock = self.clock.clone();
        let (began, ticket) = (self.began, self.ticket);
        let ReceiveRequest { client_id, group, topic, .. } = self.request.clone();
        runtime.spawn(async move {
            let lost = || LostReceive {
                ticket,
                client_id: client_id.clone(),
                group: group.clone(),
                topic: topic.clone(),
                asked_ms_ago: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                came: came_lately(&leaders),
            };
            let told_until = Instant::now() + TOLD_FOR;
            while Instant::now() < told_until {
                let here = || give_back_lost(&shard, &sessions, &clock, lost());
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
