//! Places for HTTP connections: who gets one, who makes way, and what is kept for probes.
//!
//! Whether a connection brings a probe is known only when its request's head is read. So every newcomer is let in as long
//! as anybody can make way for it: a connection that waits for a request, be it idle or half said, holds nothing that its
//! peer could not ask for again. Where all places are taken by requests under way, a newcomer is let in to bring a probe
//! and nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Connections kept for probes, besides all others.
pub const PROBE_CONNECTIONS: usize = 32;
/// A connection for probes is closed after this time, answered or not.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that waited this long for its next request makes way when all places are taken.
pub const IDLE_MIN: Duration = Duration::from_secs(1);
/// Connections that were told to close and have not done so yet. With so many, newcomers wait until they are gone.
const LEAVING_MAX: usize = 32;

/// What a newcomer gets.
#[derive(Debug)]
pub(super) enum PlaceTaken {
    /// A place.
    Place(ConnectionPlace),
    /// One soon: others are about to leave. See [`Places::freed`].
    Later,
    /// None: all places are those of requests under way.
    Full,
}

/// What a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionKind {
    /// All requests.
    Any,
    /// One probe.
    Probe,
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// No whole head of a request was read since then.
    Waiting(Instant),
    /// So many requests; of those before the last one only bytes are left to be written.
    Answering(u32),
    /// It makes way.
    Leaving,
}

/// A connection that has a place.
#[derive(Debug)]
struct Open {
    kind: ConnectionKind,
    doing: Doing,
    close: Arc<Notify>,
}

/// All places of the port.
#[derive(Debug)]
pub(crate) struct Places {
    /// For all requests.
    most: usize,
    /// The number that was given out last, and all that have a place.
    open: Mutex<(u64, HashMap<u64, Open>)>,
    /// Somebody left.
    freed: Notify,
}

impl Places {
    /// `most` for all requests, and those of probes.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default(), freed: Notify::new() })
    }

    /// Held for a look at all places, of which there are a thousand at most.
    fn open(&self) -> MutexGuard<'_, (u64, HashMap<u64, Open>)> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a newcomer, if need be of one that waits. `scarce`: there are no descriptors, let it bring a probe.
    ///
    /// A newcomer never takes the place of a request under way.
    pub(super) fn take(self: &Arc<Self>, now: Instant, scarce: bool) -> PlaceTaken {
        let mut open = self.open();
        let (last, all) = &mut *open;
        let may_leave = all.values().filter(|one| one.doing == Doing::Leaving).count() < LEAVING_MAX;
        let idle = |since: Instant| now.saturating_duration_since(since) >= IDLE_MIN;
        let any = staying(all, ConnectionKind::Any) < self.most || (may_leave && evict(all, ConnectionKind::Any, idle));
        let kind = if any && !scarce { ConnectionKind::Any } else { ConnectionKind::Probe };
        let full = kind == ConnectionKind::Probe && staying(all, kind) >= PROBE_CONNECTIONS;
        if full && !may_leave {
            return PlaceTaken::Later;
        }
        if full && !evict(all, kind, |_| true) {
            return PlaceTaken::Full;
        }
        *last += 1;
        let close = Arc::new(Notify::new());
        all.insert(*last, Open { kind, doing: Doing::Waiting(now), close: close.clone() });
        PlaceTaken::Place(ConnectionPlace { places: self.clone(), id: *last, kind, close })
    }

    /// Resolves when a place became free since this was awaited last.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Closes the connection that has waited longest for a request, whichever that is.
    pub(super) fn make_room(&self) {
        let all = &mut self.open().1;
        if !evict(all, ConnectionKind::Probe, |_| true) {
            evict(all, ConnectionKind::Any, |_| true);
        }
    }
}

/// How many of a kind there are that do not leave.
fn staying(all: &HashMap<u64, Open>, kind: ConnectionKind) -> usize {
    all.values().filter(|one| one.kind == kind && one.doing != Doing::Leaving).count()
}

/// Lets the one leave that has waited longest, if it waits since a time that is `long_ago`.
fn evict(all: &mut HashMap<u64, Open>, kind: ConnectionKind, long_ago: impl FnOnce(Instant) -> bool) -> bool {
    let waits = |(id, one): (&u64, &Open)| match one.doing {
        Doing::Waiting(since) if one.kind == kind => Some((since, *id)),
        _ => None,
    };
    let Some((since, id)) = all.iter().filter_map(waits).min() else { return false };
    if !long_ago(since) {
        return false;
    }
    if let Some(one) = all.get_mut(&id) {
        one.doing = Doing::Leaving;
        one.close.notify_one();
    }
    true
}

/// The place of one connection; free again when it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPlace {
    places: Arc<Places>,
    id: u64,
    pub(super) kind: ConnectionKind,
    close: Arc<Notify>,
}

impl ConnectionPlace {
    /// Resolves when this connection has to make way.
    pub(super) async fn makes_way(&self) {
        self.close.notified().await;
    }

    /// The head of a request was read: it is answered unless the connection makes way already.
    pub(super) fn answer(self: &Arc<Self>) -> Option<Answering> {
        let mut open = self.places.open();
        let one = open.1.get_mut(&self.id)?;
        one.doing = match one.doing {
            Doing::Waiting(_) => Doing::Answering(1),
            Doing::Answering(count) => Doing::Answering(count + 1),
            Doing::Leaving => return None,
        };
        Some(Answering(self.clone()))
    }

    /// A request is answered: it waits for the next one, unless there are others.
    fn answered(&self) {
        if let Some(one) = self.places.open().1.get_mut(&self.id)
            && let Doing::Answering(count) = one.doing
        {
            one.doing = if count > 1 { Doing::Answering(count - 1) } else { Doing::Waiting(Instant::now()) };
        }
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.places.open().1.remove(&self.id);
        self.places.freed.notify_one();
    }
}

/// A request under way: until this is dropped its connection does not make way.
#[derive(Debug)]
pub(super) struct Answering(Arc<ConnectionPlace>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answered();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Arc<Places>, now: Instant) -> Option<ConnectionPlace> {
        match places.take(now, false) {
            PlaceTaken::Place(place) => Some(place),
            PlaceTaken::Later | PlaceTaken::Full => None,
        }
    }

    fn closes(place: &ConnectionPlace) -> bool {
        matches!(place.places.open().1[&place.id].doing, Doing::Leaving)
    }

    #[test]
    fn the_place_of_the_longest_wait_goes_to_a_newcomer_and_a_request_under_way_keeps_its_own() {
        let (places, start) = (Places::new(3), Instant::now());
        let after = |halves| start + halves * IDLE_MIN / 2;
        let taken: Vec<_> = (0..3).map(|n| Arc::new(take(&places, after(n)).unwrap())).collect();
        let busy = taken[0].answer().unwrap();
        let fourth = take(&places, after(3)).unwrap();
        assert_eq!(taken.iter().map(|place| closes(place)).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(fourth.kind, ConnectionKind::Any);
        assert!(taken[1].answer().is_none(), "what makes way is not answered any more");
        // Nobody else has waited long: the next one may bring a probe.
        assert_eq!(take(&places, after(3)).unwrap().kind, ConnectionKind::Probe);
        assert!(!closes(&taken[2]) && !closes(&fourth));
        drop(busy);
        assert!(taken[0].answer().is_some());
    }

    #[test]
    fn probes_are_let_in_while_all_others_are_under_way() {
        let (places, now) = (Places::new(2), Instant::now());
        let taken: Vec<_> = (0..2).map(|_| Arc::new(take(&places, now).unwrap())).collect();
        let busy: Vec<_> = taken.iter().map(|place| place.answer().unwrap()).collect();
        let probes: Vec<_> = (0..PROBE_CONNECTIONS).map(|_| Arc::new(take(&places, now).unwrap())).collect();
        assert!(probes.iter().all(|place| place.kind == ConnectionKind::Probe && !closes(place)));
        let one_more = Arc::new(take(&places, now).unwrap());
        assert_eq!((one_more.kind, probes.iter().filter(|place| closes(place)).count()), (ConnectionKind::Probe, 1));
        let answered = probes.iter().chain([&one_more]).filter_map(|place| place.answer());
        let _answered: Vec<_> = answered.collect();
        assert!(matches!(places.take(now, false), PlaceTaken::Full), "all are probes under way");
        drop(busy);
        drop(taken);
        assert_eq!(take(&places, now).unwrap().kind, ConnectionKind::Any);
        assert!(matches!(places.take(now, true), PlaceTaken::Full), "without descriptors only a probe is let in");
    }

    #[test]
    fn a_flood_of_newcomers_waits_until_those_that_make_way_are_gone() {
        let (places, now) = (Places::new(0), Instant::now());
        let let_in: Vec<_> = (0..1000).map_while(|_| take(&places, now)).collect();
        assert_eq!(let_in.len(), PROBE_CONNECTIONS + LEAVING_MAX);
        assert!(matches!(places.take(now, false), PlaceTaken::Later));
        drop(let_in);
        assert!(take(&places, now).is_some());
    }
}
