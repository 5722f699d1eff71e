//! Ends sessions whose time is over, and says whose leases are free.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::node::Inner;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks until the node stops; where thousands of sessions are over, on and on until none is left.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        let over = inner.shared.sessions.expire(Instant::now());
        if !over.dead.is_empty() {
            let dead = over.dead;
            // A shard that stops, or does not lead, gives nothing up.
            let _ = inner.shard.lead(move |_, leader| leader.died(dead)).await;
        }
        let pause = if over.more { Duration::ZERO } else { LOOK_EVERY };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = inner.stopping.cancelled() => return,
        }
    }
}
