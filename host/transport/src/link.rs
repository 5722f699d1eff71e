//! Links: connections that are made again whenever they end.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::connection::Connection;
use crate::counters::LaneCounters;
use crate::dial::Dialer;
use crate::identity::{Lane, PeerIdentity};

/// How a link stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// There is no connection.
    Down {
        /// Why the last one ended or was not made, for the operator.
        why: String,
    },
    /// There is a connection to this life of the peer.
    Up(PeerIdentity),
}

impl LinkState {
    /// Whether there is a connection.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up(_))
    }
}

/// What is done with the connections of a link.
pub(crate) trait Carry: Send + Sync + 'static {
    /// What is queued for one connection. Dropping it drops that.
    type Queue: Send;

    /// From here on things are queued for the next connection.
    fn open(self: &Arc<Self>) -> Self::Queue;

    /// Uses a connection until it ends, and says why it did. It may be dropped at any point.
    fn carry(queue: Self::Queue, connection: Connection) -> impl Future<Output = String> + Send;
}

/// What the users of a link share. The link ends with the last of them.
#[derive(Debug)]
pub(crate) struct LinkHandle<T> {
    /// Where things wait for the connection there is.
    pub(crate) outbox: Arc<T>,
    /// How the link stands.
    pub(crate) state: watch::Receiver<LinkState>,
    _end: DropGuard,
}

/// A link that is to be kept.
pub(crate) struct Link<T> {
    pub(crate) dialer: Arc<Dialer>,
    /// The node that is dialed.
    pub(crate) node: u64,
    pub(crate) lane: Lane,
    pub(crate) outbox: Arc<T>,
    /// Where it is, as that changes.
    pub(crate) addresses: watch::Receiver<Option<String>>,
    pub(crate) counters: Arc<LaneCounters>,
}

impl<T: Carry> Link<T> {
    /// Keeps the link on a task of the runtime that this is called on.
    pub(crate) fn start(self, end: CancellationToken) -> LinkHandle<T> {
        let why = "it was not dialed yet".to_owned();
        let (told, state) = watch::channel(LinkState::Down { why });
        let outbox = self.outbox.clone();
        let ends = end.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = ends.cancelled() => {}
                () = self.keep(&told) => {}
            }
            told.send_replace(LinkState::Down { why: "this node stops".to_owned() });
        });
        LinkHandle { outbox, state, _end: end.drop_guard() }
    }

    /// Dials, uses the connection, pauses, and again, as long as anybody can say where the node is.
    async fn keep(mut self, told: &watch::Sender<LinkState>) {
        let mut backoff = Backoff::new(self.dialer.timing.backoff_min, self.dialer.timing.backoff_max);
        loop {
            let address = self.addresses.borrow_and_update().clone();
            let Some(address) = address else {
                told.send_replace(LinkState::Down { why: format!("no address of node {} is known", self.node) });
                backoff.reset();
                if self.addresses.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let began = Instant::now();
            let mut addresses = self.addresses.clone();
            let ended = tokio::select! {
                biased;
                changed = addresses.changed() => changed.map_or(None, |()| Some("its address changed".to_owned())),
                why = self.once(&address, told) => Some(why),
            };
            let Some(why) = ended else { return };
            if self.counters.fail(&why) {
                tracing::warn!(node = self.node, lane = %self.lane, why, "a connection to a peer ended");
            }
            told.send_replace(LinkState::Down { why });
            if began.elapsed() > self.dialer.timing.backoff_max {
                backoff.reset();
            }
            // A changed address is dialed at once; a second change during that is seen by the next round.
            tokio::select! {
                biased;
                changed = self.addresses.changed() => match changed {
                    Ok(()) => backoff.reset(),
                    Err(_) => return,
                },
                () = tokio::time::sleep(backoff.next()) => {}
            }
        }
    }

    /// One connection from its first byte to its last, or why there was none.
    async fn once(&self, address: &str, told: &watch::Sender<LinkState>) -> String {
        let connection = match self.dialer.dial(self.node, self.lane, address, &self.counters).await {
            Ok(connection) => connection,
            Err(why) => return why,
        };
        let _open = self.counters.open();
        let peer = connection.peer;
        let queue = self.outbox.open();
        tracing::info!(node = peer.node, lane = %self.lane, incarnation = peer.incarnation, "connected to a peer");
        told.send_replace(LinkState::Up(peer));
        T::carry(queue, connection).await
    }
}

/// Pauses that grow, with jitter: peers that lost each other at once do not come back at once.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    fn next(&mut self) -> Duration {
        let pause = self.next.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        self.next = (self.next * 2).min(self.max);
        pause
    }
}

/// The links of one kind that somebody uses, one for each key: a second one to the same end would take the connection of the
/// first away.
#[derive(Debug)]
pub(crate) struct Links<K, T>(Mutex<HashMap<K, Weak<LinkHandle<T>>>>);

impl<K, T> Default for Links<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, T> Links<K, T> {
    /// The link of this key, which is made if nobody uses one.
    pub(crate) fn get(&self, key: K, make: impl FnOnce() -> LinkHandle<T>) -> Arc<LinkHandle<T>> {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(&key).and_then(Weak::upgrade) {
            return link;
        }
        links.retain(|_, link| link.strong_count() > 0);
        let made = Arc::new(make());
        links.insert(key, Arc::downgrade(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_are_never_the_same_for_all() {
        let (min, max) = (Duration::from_millis(50), Duration::from_secs(1));
        let mut backoff = Backoff::new(min, max);
        for expected in [50, 100, 200, 400, 800, 1000, 1000] {
            let pause = backoff.next().as_millis();
            assert!((expected / 2..=expected).contains(&pause), "{pause} of {expected}");
        }
        backoff.reset();
        assert!(backoff.next() <= min);
        let drawn: std::collections::BTreeSet<Duration> = (0..50)
            .map(|_| {
                backoff.reset();
                backoff.next()
            })
            .collect();
        assert!(drawn.len() > 10);
    }
}
