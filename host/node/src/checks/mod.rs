//! Asking about open transactions: the runner takes what is due from the schedule, asks the bound component or a live
//! producer, and proposes what they say. Only the log decides (rulings 1–7).

mod answers;
mod ask;
mod batches;
mod binding;
mod call_name;
mod comparing;
mod outages;
mod producers;
mod readiness;
mod span;
mod unanswered;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tracing::Instrument;
use vouch_broker::{Millis, NotDone};

pub(crate) use comparing::run as run_comparisons;
pub(crate) use outages::Outages;
use vouch_leader::checks::{Ask, Checker, Due};

use crate::components::BoundComponents;
use crate::effects::Effects;
use crate::metrics::Metrics;
use crate::routes::Routes;
use crate::sessions::Sessions;
use crate::stopping::Stopping;
use crate::transactions::{EndSample, Ends, Halves};
use vouch_shard::Shard;
use vouch_shard::clock::Clock;

/// The runner looks again after this long even if nothing seems due: a safety net, not a rhythm.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(30);
/// And never more often than this.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(5);
/// A connection to a database that no check used for so long is closed.
const IDLE_CONNECTIONS_FOR: Duration = Duration::from_secs(300);
/// One that does not lead asks nobody, and looks whether it does by now.
const LOOK_WHETHER_IT_LEADS_EVERY: Duration = Duration::from_secs(1);

/// What asking takes.
pub(crate) struct Asker {
    pub(crate) shard: Arc<Shard>,
    pub(crate) clock: Arc<Clock>,
    /// Producers that live, and their streams.
    pub(crate) sessions: Arc<Sessions>,
    /// Components that are bound.
    pub(crate) bound: Arc<BoundComponents>,
    /// What is asked about.
    pub(crate) halves: Arc<Halves>,
    /// What is answered.
    pub(crate) ends: Arc<Ends>,
    /// Some of those that producers end.
    pub(crate) sample: Arc<EndSample>,
    /// Which queue a committed half goes to.
    pub(crate) routes: Arc<Routes>,
    pub(crate) metrics: Arc<Metrics>,
    /// What components stage.
    pub(crate) effects: Arc<Effects>,
    /// What was said about checks without an answer.
    pub(crate) outages: Arc<Outages>,
    /// A check may be due earlier than was known, or a binding changed.
    pub(crate) changed: Arc<Notify>,
    /// Asks under way end with the node.
    pub(crate) stopping: Arc<Stopping>,
}

/// Asks until the node stops.
pub(crate) async fn run(asker: Arc<Asker>) {
    let (readiness, mut looked) = (readiness::Readiness::default(), Instant::now());
    loop {
        let taken = take_due(&asker).await;
        if taken.is_err() && asker.stopping.is_cancelled() {
            return;
        }
        let leads = taken.is_ok();
        if !leads {
            readiness.keep(&asker).await;
            asker.bound.rest();
        } else if looked.elapsed() >= LOOK_AT_LEAST_EVERY {
            looked = Instant::now();
            asker.bound.close_idle_connections(IDLE_CONNECTIONS_FOR);
        }
        let (due, next) = taken.unwrap_or_default();
        for due in due {
            let span = span::of(&due);
            tokio::spawn(ask::ask(asker.clone(), due).instrument(span));
        }
        let now = asker.clock.now();
        let idle = if leads { LOOK_AT_LEAST_EVERY } else { LOOK_WHETHER_IT_LEADS_EVERY };
        let pause = next.map_or(idle, |at| Duration::from_millis(at.ms_since(now)));
        tokio::select! {
            () = tokio::time::sleep(pause.clamp(LOOK_AT_MOST_EVERY, LOOK_AT_LEAST_EVERY)) => {}
            () = asker.changed.notified() => {}
            () = asker.sessions.producers_changed() => {}
            () = asker.stopping.cancelled() => return,
        }
    }
}

/// Resolves when an ask is over.
async fn ended(ask: &Ask) {
    let (tell, told) = oneshot::channel::<()>();
    ask.at_end(move || drop(tell));
    // Nothing is ever sent: that whoever would send is gone is the word.
    let _ = told.await;
}

/// Takes what is due from the schedule, and says when to look again if nothing changes. Whom to ask is decided here:
/// the binding as it is now goes along.
async fn take_due(asker: &Asker) -> Result<(Vec<Due>, Option<Millis>), NotDone> {
    let (clock, sessions) = (asker.clock.clone(), asker.sessions.clone());
    asker
        .shard
        .lead(move |state, leader| {
            let now = clock.now();
            leader.schedule.take(state, now, |topic| match state.plugins().binding_of_topic(topic) {
                // It waits until an operator lets it go on.
                Some((_, entry)) if entry.paused => None,
                Some((binding, entry)) => {
                    Some(Checker::Component { binding: binding.to_owned(), entry: Arc::new(entry.clone()) })
                }
                None if sessions.has_producer(topic, "") => Some(Checker::Producer),
                None => None,
            })
        })
        .await
}
