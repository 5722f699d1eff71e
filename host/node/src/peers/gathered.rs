//! What a pull gathered that was cut short, until it is known whether it is needed.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use vouch_consensus::Role;
use vouch_shard::GroupStanding;
use vouch_storage::{ShardFolder, discard_gathered};

/// A node that lacks something hears that from whoever leads within a second or two.
const LACKS_NOTHING_AFTER: Duration = Duration::from_secs(60);

/// Looks whether what was gathered may go.
pub(super) struct Gathered {
    /// `None`: it went.
    shard: Option<ShardFolder>,
    behind: watch::Receiver<bool>,
    /// Since when one leads whom this node hears.
    led_since: Option<Instant>,
}

impl Gathered {
    /// In this shard's folder, of a node that says here whether it lacks something.
    pub(super) fn beside(shard: ShardFolder, behind: watch::Receiver<bool>) -> Self {
        Self { shard: Some(shard), behind, led_since: None }
    }

    /// Removes it, once somebody leads for a while and did not say that this node lacks anything. A node that is about to take what it
    /// lacks needs it: what it has of segments does not come again.
    pub(super) async fn look(&mut self, standing: &GroupStanding) {
        let is_led = match standing.role {
            Role::Leads { .. } => true,
            Role::Follows { leader } => leader.is_some(),
        };
        if self.shard.is_none() || !self.is_over(is_led, Instant::now()) {
            return;
        }
        if let Some(shard) = self.shard.take() {
            // That it cannot be removed is told there.
            let _ = spawn_blocking(move || discard_gathered(&shard)).await;
        }
    }

    fn is_over(&mut self, is_led: bool, now: Instant) -> bool {
        self.led_since = is_led.then(|| self.led_since.unwrap_or(now));
        let lacks_nothing = !*self.behind.borrow();
        lacks_nothing && self.led_since.is_some_and(|since| now.duration_since(since) >= LACKS_NOTHING_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vouch_broker::ShardId;

    use super::*;

    #[test]
    fn what_was_gathered_goes_when_somebody_led_for_a_while_and_missed_nothing_here() {
        let (says, behind) = watch::channel(false);
        let mut gathered = Gathered::beside(ShardFolder::of(Path::new(""), ShardId::FIRST), behind);
        let (now, while_) = (Instant::now(), LACKS_NOTHING_AFTER);
        assert!(!gathered.is_over(true, now));
        assert!(!gathered.is_over(false, now + while_), "nobody leads");
        assert!(!gathered.is_over(true, now + while_) && gathered.is_over(true, now + while_ * 2));
        says.send_replace(true);
        assert!(!gathered.is_over(true, now + while_ * 3), "it lacks something");
    }
}
