//! Ends sessions whose time is over, and says whose leases are free.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vouch_shard::Shard;

use super::Sessions;
use crate::stopping::Stopping;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What ends sessions.
pub(crate) struct Expiry {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) shard: Arc<Shard>,
    pub(crate) stopping: Arc<Stopping>,
}

/// Looks until the node stops; where thousands of sessions are over, on and on until none is left.
pub(crate) async fn run(expiry: Expiry) {
    loop {
        let over = expiry.sessions.expire(Instant::now());
        if !over.dead.is_empty() {
            // A shard that stops gives nothing up.
            let _ = expiry.shard.lead(move |_, leader| leader.died(over.dead)).await;
        }
        let pause = if over.more { Duration::ZERO } else { LOOK_EVERY };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = expiry.stopping.cancelled() => return,
        }
    }
}
