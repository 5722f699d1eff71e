//! Asking about open transactions: the runner takes what is due from the schedule, asks the bound component or a live
//! producer, and proposes what they say. Only the log decides (rulings 1–7).

mod ask;
mod outages;
mod schedule;
mod under_way;

use std::sync::Arc;
use std::time::Duration;

use vouch_broker::{Millis, NotDone};

pub(crate) use outages::Outages;
use vouch_leader::checks::{Checker, Due};

use crate::node::Inner;

/// The runner looks again after this long even if nothing seems due: a safety net, not a rhythm.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(30);
/// And never more often than this.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(5);

/// Asks until the node stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        let Ok((due, next)) = take_due(&inner).await else { return };
        for due in due {
            tokio::spawn(ask::ask(inner.clone(), due));
        }
        let now = inner.shared.clock.now();
        let pause = next.map_or(LOOK_AT_LEAST_EVERY, |at| Duration::from_millis(at.ms_since(now)));
        tokio::select! {
            () = tokio::time::sleep(pause.clamp(LOOK_AT_MOST_EVERY, LOOK_AT_LEAST_EVERY)) => {}
            () = inner.shared.checks_changed.notified() => {}
            () = inner.shared.sessions.producers_changed() => {}
            () = inner.stopping.cancelled() => return,
        }
    }
}

async fn take_due(inner: &Arc<Inner>) -> Result<(Vec<Due>, Option<Millis>), NotDone> {
    let shared = inner.shared.clone();
    inner
        .shard
        .lead(move |state, leader| {
            let now = shared.clock.now();
            leader.schedule.take(state, now, |topic| match state.plugins().binding_of_topic(topic) {
                Some((binding, _)) => Some(Checker::Component { binding: binding.to_owned() }),
                None if shared.sessions.has_producer(topic, "") => Some(Checker::Producer),
                None => None,
            })
        })
        .await
}
