//! The places of the node: at most so many checks run at once, and no binding takes them all.

mod member;
mod turns;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

pub(crate) use turns::Name;
use turns::{Ticket, Turns};

/// All places of a node, and the line before them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NodePlaces(Arc<Mutex<Line>>);

/// Who has a place, and who waits for one. All of it is behind one lock, which is never held over anything that takes
/// time.
struct Line {
    turns: Turns,
    /// How those in line are called; each is told when it got its place, and on what leash.
    calls: HashMap<Ticket, oneshot::Sender<(Duration, Option<Duration>)>>,
    /// The moment that all times are counted from.
    began: Instant,
}

/// One place; free again when dropped.
pub(crate) struct NodePlace {
    places: NodePlaces,
    binding: Name,
    since: Duration,
    /// It must be given back after this time, if not only when the check is done.
    leash: Option<Duration>,
}

/// A binding that is there, until it is dropped: places are kept for it while it has none.
pub(crate) struct Membership {
    places: NodePlaces,
    binding: Name,
    deadline: Duration,
}

/// One who waits. Dropped before it was called, it leaves the line; dropped with a place, it gives that back.
struct Waiting {
    places: NodePlaces,
    binding: Name,
    ticket: Ticket,
    called: oneshot::Receiver<(Duration, Option<Duration>)>,
    has_left: bool,
}

impl NodePlaces {
    /// So many places, all of them free.
    pub(crate) fn new(places: usize) -> Self {
        let line = Line { turns: Turns::new(places), calls: HashMap::new(), began: Instant::now() };
        Self(Arc::new(Mutex::new(line)))
    }

    /// A panic elsewhere leaves the line whole: whoever holds a place gives it back when he is dropped.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A binding comes, whose checks may take so long.
    pub(crate) fn join(&self, binding: &Name, deadline: Duration) -> Membership {
        self.line().turns.join(binding, deadline);
        Membership { places: self.clone(), binding: Arc::clone(binding), deadline }
    }

    /// Takes a place now, if there is one for this binding.
    pub(crate) fn try_take(&self, binding: &Name) -> Option<NodePlace> {
        let mut line = self.line();
        let now = line.now();
        line.turns.try_take(binding, now).then(|| self.place(binding, now, line.turns.leash()))
    }

    /// Waits for a place. May be dropped at any time.
    pub(crate) async fn take(&self, binding: &Name) -> NodePlace {
        let mut waiting = self.get_in_line(binding);
        let (since, leash) = (&mut waiting.called).await.expect("who is in line is called, or has left it");
        waiting.has_left = true;
        self.place(binding, since, leash)
    }

    /// What gives the place back, whatever becomes of the check.
    fn place(&self, binding: &Name, since: Duration, leash: Option<Duration>) -> NodePlace {
        NodePlace { places: self.clone(), binding: Arc::clone(binding), since, leash }
    }

    /// Gets in line, and calls whoever's turn it is: that may be the one who has just come.
    fn get_in_line(&self, binding: &Name) -> Waiting {
        let (call, called) = oneshot::channel();
        let mut line = self.line();
        let ticket = line.turns.wait(binding);
        line.calls.insert(ticket, call);
        line.call_next();
        Waiting { places: self.clone(), binding: Arc::clone(binding), ticket, called, has_left: false }
    }

    /// Places that are held.
    pub(crate) fn held(&self) -> usize {
        self.line().turns.held()
    }
}

impl NodePlace {
    /// How long a check may take in this place, of which the binding says that it may take so long.
    pub(crate) fn within(&self, deadline: Duration) -> Duration {
        self.leash.map_or(deadline, |leash| leash.min(deadline))
    }
}

impl Line {
    /// Time since the first place, by a clock that never goes back.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Hands out places until nobody may take another one. To be called after each change that could let somebody in.
    fn call_next(&mut self) {
        let now = self.now();
        while let Some(ticket) = self.turns.next(now) {
            if let Some(call) = self.calls.remove(&ticket) {
                // One that is dropped just now gives its place back itself.
                let _ = call.send((now, self.turns.leash()));
            }
        }
    }

    /// A place is free again, and who waits may have it.
    fn give_back(&mut self, binding: &Name, since: Duration) {
        let now = self.now();
        self.turns.give_back(binding, since, now);
        self.call_next();
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut line = self.places.line();
        line.turns.leave(&self.binding, self.deadline);
        line.call_next();
    }
}

impl Drop for NodePlace {
    fn drop(&mut self) {
        self.places.line().give_back(&self.binding, self.since);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.has_left {
            return;
        }
        let mut line = self.places.line();
        if line.turns.give_up(&self.binding, self.ticket) {
            line.calls.remove(&self.ticket);
            line.call_next();
        } else if let Ok((since, _)) = self.called.try_recv() {
            line.give_back(&self.binding, since);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn who_waits_gets_the_place_that_comes_free() {
        let (places, a, b) = (NodePlaces::new(1), Name::from("a"), Name::from("b"));
        let held = places.try_take(&a).unwrap();
        let mut waiting = pin!(places.take(&b));
        assert!(poll(waiting.as_mut()).is_pending());
        drop(held);
        let Poll::Ready(held) = poll(waiting) else { panic!("a place is free") };
        assert_eq!(places.held(), 1);
        drop(held);
        assert_eq!(places.held(), 0);
    }

    #[test]
    fn a_place_is_not_lost_with_who_is_dropped_before_or_after_the_call() {
        let (places, a, b) = (NodePlaces::new(1), Name::from("a"), Name::from("b"));
        for is_called in [false, true] {
            let mut held = places.try_take(&a);
            {
                let mut waiting = pin!(places.take(&b));
                assert!(poll(waiting.as_mut()).is_pending());
                if is_called {
                    held = None;
                    assert_eq!(places.held(), 1, "called, and not looked at yet");
                }
            }
            drop(held);
            assert_eq!(places.held(), 0, "is_called: {is_called}");
            assert!(places.line().calls.is_empty());
        }
    }
}
