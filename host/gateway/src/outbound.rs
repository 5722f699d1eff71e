//! Bounds what waits to be written: the bytes of answers that are made and not yet taken by their clients, on each connection
//! and on all together, and how long a client may take over them.
//!
//! Two kinds of answers are bounded in two ways. Streamed ones ask for room before their next part is made, and wait
//! for it. Short ones are made at once, since they answer what was done already; where too many lie about, the
//! connection is closed that leaves most.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use vouch_node::machine;

/// Bytes that one permit stands for.
const UNIT: usize = 1024;
/// What waits to be written must be taken in this time, and in more the larger it is ...
pub(crate) const TAKE_GRACE: Duration = Duration::from_secs(30);
/// ... at this rate at least, in bytes a second.
pub(crate) const TAKE_RATE_MIN: u64 = 64 << 10;
/// Bytes of short answers (to everything but ReceiveMessage and Telemetry) that one connection may leave lying. They wait
/// for nobody; a client with more does not read, and its connection is closed.
pub(crate) const ANSWERS_MAX_BYTES: usize = 8 << 20;
/// Bytes of short answers that all connections may leave lying. Where an answer goes beyond, the connection that leaves most
/// lying is closed.
pub(crate) const ALL_ANSWERS_MAX_BYTES: usize = 128 << 20;
/// While more than half of a bound is taken, clients have to be so many times as fast.
pub(crate) const SHORTAGE_HURRY: u32 = 6;

/// All that waits to be written on one port.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// What is left, in units.
    permits: Arc<Semaphore>,
    /// All there is, in bytes.
    max: usize,
    /// What one connection has of it, in bytes.
    connection_max: usize,
    /// What is left to the clients of each address that has connections.
    by_address: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
    /// Bytes of short answers.
    answers: AtomicUsize,
    /// The number that was given out last.
    last: AtomicU64,
    /// What was handed to the transport and is not let go of, by number, so the oldest first.
    waiting: Mutex<BTreeMap<u64, Waiting>>,
}

/// Bytes that a connection has not taken yet.
#[derive(Debug)]
struct Waiting {
    /// When it was handed over.
    since: Instant,
    /// How much it is.
    bytes: usize,
    /// Who is to take it.
    connection: Arc<ConnectionOutbound>,
}

impl Outbound {
    /// `max` bytes at once, `connection_max` of them on one connection.
    pub(crate) fn new(max: usize, connection_max: usize) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(max / UNIT));
        let (answers, last) = (AtomicUsize::new(0), AtomicU64::new(0));
        let by_address = Mutex::default();
        Arc::new(Self { permits, max, connection_max, by_address, answers, last, waiting: Mutex::default() })
    }

    /// The share of one more connection.
    pub(crate) fn connection(self: &Arc<Self>) -> Arc<ConnectionOutbound> {
        self.share(None)
    }

    /// The share of one more connection from this address, whose clients (of IPv6: those of one /64) have half of all together:
    /// whoever reads nothing leaves the rest to others.
    pub(crate) fn connection_from(self: &Arc<Self>, address: IpAddr) -> Arc<ConnectionOutbound> {
        let address = machine(address);
        let mut by_address = self.by_address();
        let known = by_address.get(&address).and_then(Weak::upgrade);
        let permits = known.unwrap_or_else(|| Arc::new(Semaphore::new(self.max / UNIT / 2)));
        by_address.insert(address, Arc::downgrade(&permits));
        drop(by_address);
        self.share(Some((address, permits)))
    }

    /// A connection with its share, and perhaps that of its address.
    fn share(self: &Arc<Self>, address: Option<(IpAddr, Arc<Semaphore>)>) -> Arc<ConnectionOutbound> {
        let permits = Arc::new(Semaphore::new(self.connection_max / UNIT));
        let (answers, close) = (AtomicUsize::new(0), Arc::default());
        Arc::new(ConnectionOutbound { node: self.clone(), permits, address, answers, close })
    }

    /// Held for a look-up at a time.
    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, Weak<Semaphore>>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held for a look-up at a time, and for a walk once a second.
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the connections to close whose clients take too long. To be called about once a second.
    pub(crate) fn sweep(&self, now: Instant) {
        let short = self.permits.available_permits() < self.max / UNIT / 2
            || self.answers.load(Ordering::Relaxed) > ALL_ANSWERS_MAX_BYTES / 2;
        for waiting in self.waiting().values() {
            let within = TAKE_GRACE + Duration::from_millis(waiting.bytes as u64 * 1000 / TAKE_RATE_MIN);
            let within = if short { within / SHORTAGE_HURRY } else { within };
            if now.saturating_duration_since(waiting.since) >= within {
                waiting.connection.close.notify_one();
            }
        }
    }

    /// Closes the connection that leaves most short answers lying: others must not pay for it.
    fn close_greediest(&self) {
        let lying = |waiting: &&Waiting| waiting.connection.answers.load(Ordering::Relaxed);
        if let Some(most) = self.waiting().values().max_by_key(lying) {
            most.connection.close.notify_one();
        }
    }

    /// Bytes that are made, or being made, and not taken yet.
    pub(crate) fn bytes(&self) -> u64 {
        let room = (self.max / UNIT - self.permits.available_permits()) * UNIT;
        (room + self.answers.load(Ordering::Relaxed)) as u64
    }

    /// Room for `bytes` of an answer that is not made yet, if there is some now.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<OutboundRoom> {
        let permits = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        let node = self.permits.clone().try_acquire_many_owned(permits).ok()?;
        Some(OutboundRoom { _connection: None, _address: None, node })
    }
}

/// What waits to be written on one connection.
#[derive(Debug)]
pub(crate) struct ConnectionOutbound {
    node: Arc<Outbound>,
    permits: Arc<Semaphore>,
    /// Where it comes from, and what is left to all from there.
    address: Option<(IpAddr, Arc<Semaphore>)>,
    /// Bytes of short answers.
    answers: AtomicUsize,
    close: Arc<Notify>,
}

impl Drop for ConnectionOutbound {
    fn drop(&mut self) {
        if let Some((address, permits)) = self.address.take() {
            let mut by_address = self.node.by_address();
            // Nobody else comes from there.
            if Arc::strong_count(&permits) == 1 {
                by_address.remove(&address);
            }
        }
    }
}

impl ConnectionOutbound {
    /// Resolves when the client takes too long.
    pub(crate) async fn stalls(&self) {
        self.close.notified().await;
    }

    /// Bytes on their way. They count, and their time runs, until the transport has let go of them.
    pub(crate) fn hold(self: &Arc<Self>, bytes: Bytes, room: Option<OutboundRoom>) -> Bytes {
        Bytes::from_owner(HeldBytes::new(self, bytes, room))
    }

    /// The bytes of a short answer on their way.
    pub(crate) fn hold_short(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        let short = bytes.len();
        if short < UNIT {
            // Fewer than the transport itself keeps of a call.
            return bytes;
        }
        let lying = self.answers.fetch_add(short, Ordering::Relaxed) + short;
        let all_lying = self.node.answers.fetch_add(short, Ordering::Relaxed) + short;
        let mut held = HeldBytes::new(self, bytes, None);
        held.short = short;
        if lying > ANSWERS_MAX_BYTES {
            self.close.notify_one();
        } else if all_lying > ALL_ANSWERS_MAX_BYTES {
            self.node.close_greediest();
        }
        Bytes::from_owner(held)
    }
}

/// Bytes on their way: counted until the transport drops them.
#[derive(Debug)]
struct HeldBytes {
    bytes: Bytes,
    id: u64,
    connection: Arc<ConnectionOutbound>,
    /// Bytes of a short answer.
    short: usize,
    _room: Option<OutboundRoom>,
}

impl HeldBytes {
    /// Counts them from now on.
    fn new(connection: &Arc<ConnectionOutbound>, bytes: Bytes, room: Option<OutboundRoom>) -> Self {
        let id = connection.node.last.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting { since: Instant::now(), bytes: bytes.len(), connection: connection.clone() };
        connection.node.waiting().insert(id, waiting);
        Self { bytes, id, connection: connection.clone(), short: 0, _room: room }
    }
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.connection.node.waiting().remove(&self.id);
        self.connection.answers.fetch_sub(self.short, Ordering::Relaxed);
        self.connection.node.answers.fetch_sub(self.short, Ordering::Relaxed);
    }
}

/// Room for bytes that wait to be written.
#[derive(Debug)]
pub(crate) struct OutboundRoom {
    /// Of what one connection may have.
    _connection: Option<OwnedSemaphorePermit>,
    /// Of what all connections from one address may have.
    _address: Option<OwnedSemaphorePermit>,
    /// Of what all of them may have.
    node: OwnedSemaphorePermit,
}

impl OutboundRoom {
    /// Keeps the room for `bytes`, and gives back what is beyond.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        for permit in [Some(&mut self.node), self._address.as_mut(), self._connection.as_mut()].into_iter().flatten() {
            let beyond = permit.num_permits().saturating_sub(bytes.div_ceil(UNIT));
            drop(permit.split(beyond));
        }
    }
}

/// A request for room that waits for its turn.
type Asking = Pin<Box<dyn Future<Output = Option<OutboundRoom>> + Send + Sync>>;

/// Asks for room, in turn with others.
#[derive(Default)]
pub(crate) struct RoomAsked(Option<Asking>);

impl RoomAsked {
    /// Room for `bytes` on this connection and on all together. None only if the bound is smaller than that.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        of: &Arc<ConnectionOutbound>,
        bytes: usize,
    ) -> Poll<Option<OutboundRoom>> {
        if self.0.is_none() {
            let permits = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
            let (connection, node) = (of.permits.clone(), of.node.permits.clone());
            let address = of.address.as_ref().map(|(_, permits)| permits.clone());
            if let Ok(connection) = connection.clone().try_acquire_many_owned(permits)
                && let Ok(address) = address.clone().map(|address| address.try_acquire_many_owned(permits)).transpose()
                && let Ok(node) = node.clone().try_acquire_many_owned(permits)
            {
                return Poll::Ready(Some(OutboundRoom { _connection: Some(connection), _address: address, node }));
            }
            self.0 = Some(Box::pin(async move {
                let connection = connection.acquire_many_owned(permits).await.ok()?;
                let address = match address {
                    Some(address) => Some(address.acquire_many_owned(permits).await.ok()?),
                    None => None,
                };
                let node = node.acquire_many_owned(permits).await.ok()?;
                Some(OutboundRoom { _connection: Some(connection), _address: address, node })
            }));
        }
        let room = match &mut self.0 {
            Some(asking) => ready!(asking.as_mut().poll(cx)),
            None => None,
        };
        self.0 = None;
        Poll::Ready(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(asked: &mut RoomAsked, of: &Arc<ConnectionOutbound>, bytes: usize) -> Option<OutboundRoom> {
        match asked.poll(&mut Context::from_waker(std::task::Waker::noop()), of, bytes) {
            Poll::Ready(room) => Some(room.unwrap()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn bytes_count_until_the_transport_lets_go_of_them_on_their_connection_and_on_all() {
        let outbound = Outbound::new(8 * UNIT, 5 * UNIT);
        let (a, b) = (outbound.connection(), outbound.connection());
        let mut asked: [RoomAsked; 3] = Default::default();
        let mut first = ask(&mut asked[0], &a, 4 * UNIT).unwrap();
        assert!(ask(&mut asked[0], &a, 2 * UNIT).is_none(), "this connection has its share");
        let second = ask(&mut asked[1], &b, 4 * UNIT).unwrap();
        assert!(ask(&mut asked[2], &b, UNIT).is_none(), "and all together have theirs");
        asked[2] = RoomAsked::default();
        first.shrink(UNIT + 1);
        assert!(ask(&mut asked[0], &a, 2 * UNIT).is_some());
        let held = a.hold(Bytes::from_static(b"bytes"), Some(first));
        drop(second);
        assert!(ask(&mut asked[2], &b, UNIT).is_some());
        assert_eq!((outbound.permits.available_permits(), outbound.waiting().len()), (6, 1));
        drop(held.slice(1..));
        assert_eq!(outbound.waiting().len(), 1);
        drop(held);
        assert_eq!((outbound.permits.available_permits(), outbound.waiting().len()), (8, 0));
        assert!(outbound.try_reserve(8 * UNIT).is_some() && outbound.try_reserve(8 * UNIT + 1).is_none());
    }

    #[test]
    fn clients_of_one_address_have_half_of_the_room_on_however_many_connections() {
        let outbound = Outbound::new(8 * UNIT, 3 * UNIT);
        let address = |text: &str| text.parse().unwrap();
        let greedy: Vec<_> =
            ["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.1"].map(|from| outbound.connection_from(address(from))).into();
        let other = outbound.connection_from(address("10.0.0.2"));
        let mut asked: [RoomAsked; 4] = Default::default();
        let mut held: Vec<_> = (0..2).map(|n| ask(&mut asked[n], &greedy[n], 2 * UNIT).unwrap()).collect();
        assert!(ask(&mut asked[2], &greedy[2], UNIT).is_none(), "from there comes half already");
        held.push(ask(&mut asked[3], &other, 3 * UNIT).unwrap());
        drop(held.remove(0));
        assert!(ask(&mut asked[2], &greedy[2], UNIT).is_some());
        drop((held, asked, greedy, other));
        assert_eq!((outbound.bytes(), outbound.by_address().len()), (0, 0));
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_told_to_go_and_sooner_in_a_shortage() {
        let outbound = Outbound::new(8 * UNIT, 8 * UNIT);
        let connection = outbound.connection();
        let is_told = async || tokio::time::timeout(Duration::from_millis(50), connection.stalls()).await.is_ok();
        let _held = connection.hold(Bytes::from_static(b"x"), None);
        let now = Instant::now();
        outbound.sweep(now + TAKE_GRACE - Duration::from_secs(1));
        assert!(!is_told().await);
        outbound.sweep(now + TAKE_GRACE + Duration::from_secs(1));
        assert!(is_told().await);
        outbound.sweep(now + TAKE_GRACE / 2);
        assert!(!is_told().await);
        let _short = outbound.try_reserve(5 * UNIT);
        outbound.sweep(now + TAKE_GRACE / 2);
        assert!(is_told().await);
    }

    #[tokio::test]
    async fn a_client_that_leaves_more_short_answers_lying_than_it_may_is_told_to_go() {
        let outbound = Outbound::new(UNIT, UNIT);
        let connection = outbound.connection();
        let is_told = async || tokio::time::timeout(Duration::from_millis(50), connection.stalls()).await.is_ok();
        let half = || connection.hold_short(vec![0; ANSWERS_MAX_BYTES / 2].into());
        let (first, second) = (half(), half());
        assert!(!is_told().await);
        drop(first);
        let third = half();
        assert!(!is_told().await);
        let _one_more = connection.hold_short(vec![0; UNIT].into());
        assert!(is_told().await);
        drop((second, third));
        assert_eq!(connection.answers.load(Ordering::Relaxed), UNIT);
    }

    #[test]
    fn short_answers_that_lie_are_bounded_on_all_connections_together_and_hurry_them_from_half_of_it_on() {
        const FULL: usize = ALL_ANSWERS_MAX_BYTES / ANSWERS_MAX_BYTES;
        let outbound = Outbound::new(UNIT, UNIT);
        let is_told = |connection: &Arc<ConnectionOutbound>| {
            let told = std::pin::pin!(connection.stalls()).poll(&mut Context::from_waker(std::task::Waker::noop()));
            told.is_ready()
        };
        let connections: Vec<_> = (0..=FULL).map(|_| outbound.connection()).collect();
        let lie = |n: usize, bytes: usize| connections[n].hold_short(vec![0; bytes].into());
        let mut lying: Vec<_> = (0..FULL / 2).map(|n| lie(n, ANSWERS_MAX_BYTES)).collect();
        let soon = Instant::now() + TAKE_GRACE * 2 / SHORTAGE_HURRY;
        let slow = Duration::from_millis(ANSWERS_MAX_BYTES as u64 * 1000 / TAKE_RATE_MIN) / SHORTAGE_HURRY;
        outbound.sweep(soon + slow);
        assert!(!is_told(&connections[0]), "half of the bound is no shortage");
        lying.push(lie(FULL / 2, ANSWERS_MAX_BYTES));
        outbound.sweep(soon + slow);
        assert!(is_told(&connections[0]));
        lying.extend((FULL / 2 + 1..FULL).map(|n| lie(n, ANSWERS_MAX_BYTES)));
        assert_eq!(outbound.bytes(), ALL_ANSWERS_MAX_BYTES as u64);
        assert!(!is_told(&connections[FULL - 1]) && !is_told(&connections[FULL]));
        // What the sweeps told them is heard.
        connections.iter().filter(|connection| is_told(connection)).count();
        lying.push(lie(FULL, UNIT));
        assert!(!is_told(&connections[FULL]), "the one with the answer that goes beyond has the least");
        let told = connections.iter().filter(|connection| is_told(connection)).count();
        assert_eq!(told, 1, "one of those that leave most lying");
        drop(lying);
        assert_eq!(outbound.bytes(), 0);
        let _again = lie(0, UNIT);
        assert!(!is_told(&connections[0]));
    }
}
