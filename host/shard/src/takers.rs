//! Which other node takes the log from this one's disk.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use vouch_cluster::NodeId;
use vouch_commitlog::LogPosition;

/// Who takes what at the moment.
struct Taker {
    node: NodeId,
    log: Range<LogPosition>,
    until: Instant,
}

/// Who takes what a node offers: one at a time. As long as there is one, others are told to ask again: each reads as much as the
/// node's disk gives beside what it has to do.
pub struct Takers {
    taker: Mutex<Option<Taker>>,
    asks_within: Duration,
}

impl Takers {
    /// One that takes something asks for the next stretch within this time.
    pub fn new(asks_within: Duration) -> Self {
        Self { taker: Mutex::default(), asks_within }
    }

    /// Whether the node may take something now, since no other one does.
    ///
    /// # Errors
    /// Which other one does.
    pub fn may_begin(&self, node: NodeId, now: Instant) -> Result<(), NodeId> {
        match &*self.taker.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(taker) if taker.node != node && now < taker.until => Err(taker.node),
            _ => Ok(()),
        }
    }

    /// From now on the node takes this stretch of the log, with what else belongs to it.
    pub fn begin(&self, node: NodeId, log: Range<LogPosition>, now: Instant) {
        let taker = Taker { node, log, until: now + self.asks_within };
        *self.taker.lock().unwrap_or_else(PoisonError::into_inner) = Some(taker);
    }

    /// The node asks for more: what it takes of the log, which is kept so much longer. Nothing where it has no offer any more.
    pub fn goes_on(&self, node: NodeId, now: Instant) -> Option<Range<LogPosition>> {
        let mut taker = self.taker.lock().unwrap_or_else(PoisonError::into_inner);
        let taker = taker.as_mut().filter(|taker| taker.node == node && now < taker.until)?;
        taker.until = now + self.asks_within;
        Some(taker.log.clone())
    }

    /// The node has all, or goes without: from where on it needs the log, if it has all.
    pub fn end(&self, node: NodeId) -> Option<LogPosition> {
        let mut taker = self.taker.lock().unwrap_or_else(PoisonError::into_inner);
        taker.take_if(|taker| taker.node == node).map(|taker| taker.log.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_takes_at_a_time_until_it_has_all_or_asks_for_nothing_more() {
        let within = Duration::from_secs(120);
        let (takers, now) = (Takers::new(within), Instant::now());
        let log = || LogPosition(1)..LogPosition(9);
        assert_eq!((takers.may_begin(NodeId(2), now), takers.goes_on(NodeId(2), now)), (Ok(()), None));
        takers.begin(NodeId(2), log(), now);
        assert_eq!(takers.may_begin(NodeId(2), now), Ok(()), "it may begin anew");
        assert_eq!(takers.may_begin(NodeId(3), now), Err(NodeId(2)));
        let later = now + within / 2;
        assert_eq!((takers.goes_on(NodeId(3), later), takers.goes_on(NodeId(2), later)), (None, Some(log())));
        assert_eq!(takers.may_begin(NodeId(3), now + within), Err(NodeId(2)), "it asked meanwhile");
        let silent = later + within;
        assert_eq!((takers.may_begin(NodeId(3), silent), takers.goes_on(NodeId(2), silent)), (Ok(()), None));
        assert_eq!((takers.end(NodeId(3)), takers.end(NodeId(2))), (None, Some(LogPosition(9))));
        assert_eq!(takers.may_begin(NodeId(3), now), Ok(()));
    }
}
