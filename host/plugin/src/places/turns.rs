//! Who gets the next place: pure, so that a test can play any order of events; time is handed in.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::member::Member;

/// The name of a binding: places are counted by it, so that one that is set again shares the count with what it was.
pub(crate) type Name = Arc<str>;

/// One who waits, by the order of coming.
pub(crate) type Ticket = u64;

/// The places of a node and those who want one.
///
/// Four rules share them out.
///
/// - A binding that has none running gets any place that is free; one that has some gets another only if places are left for
///   the others that have none, and one for a binding that may come, though never more than half of all are kept so.
/// - Bindings that hold places for long (see [`Member::is_slow`]) never hold all together: an eighth of the places, one at
///   least, is for the others; and half of that eighth, if that is one at least, is for those of them that cannot hold one for
///   long, since the services of all others may begin to hang at once. What the first rule keeps, these keep besides. A node of
///   one place keeps none.
/// - Who was never asked, and holds no place, gets one of half of that eighth, one at least, on a leash: for a time in which it
///   can show what it is. Otherwise one that is new beside others that hang could not. So does, where another place is left for
///   quick ones, who is done within two seconds.
/// - Of bindings that wait, the one goes first that will have held places for the least time with its next check in it. So one
///   with a thousand checks to make gets no more time than one with two, one whose checks hang waits behind one that answers,
///   and nobody waits for ever.
///
/// So however many bindings have a service that hangs, and however many checks they make at once, another gets its answers; and
/// a binding whose service works again gets turns, and is as good as the others after a few of them.
#[derive(Debug)]
pub(crate) struct Turns {
    places: usize,
    free: usize,
    /// Bindings that are there, or hold a place still.
    bindings: BTreeMap<Name, Member>,
    /// Bindings that wait, those that had a place last at the end, each with its tickets in the order of coming; never with
    /// none.
    waiting: VecDeque<(Name, VecDeque<Ticket>)>,
    next_ticket: Ticket,
    /// What the binding that was served last had before.
    least: Duration,
    /// How long the one that was taken last may be held, if not for as long as the binding says.
    leash: Option<Duration>,
}

/// Who holds how much at one moment.
struct Shares {
    now: Duration,
    /// Places that slow bindings hold.
    slow: usize,
    /// Places that bindings hold which are slow, or may become it.
    long: usize,
    /// Places that are held on a leash.
    leashed: usize,
    /// Places that are kept for bindings that have none running.
    kept: usize,
}

impl Turns {
    /// So many places, and nobody there yet.
    pub(crate) fn new(places: usize) -> Self {
        let (bindings, waiting, least) = (BTreeMap::new(), VecDeque::new(), Duration::ZERO);
        Self { places, free: places, bindings, waiting, next_ticket: 0, least, leash: None }
    }

    /// A binding is there from now on. `deadline`: how long one of its checks may take.
    pub(crate) fn join(&mut self, binding: &Name, deadline: Duration) {
        self.bindings.entry(Arc::clone(binding)).or_default().join(deadline);
    }

    /// A binding is there no longer; its places are its own until it gives them back.
    pub(crate) fn leave(&mut self, binding: &Name, deadline: Duration) {
        self.change(binding, |member| member.leave(deadline));
    }

    /// Changes a binding that is known, and forgets it when nothing refers to it any more.
    fn change(&mut self, binding: &Name, change: impl FnOnce(&mut Member)) {
        let Some(member) = self.bindings.get_mut(binding) else { return };
        change(member);
        if member.is_gone() {
            self.bindings.remove(binding);
        }
    }

    /// Takes a place now, if there is one for this binding.
    pub(crate) fn try_take(&mut self, binding: &Name, now: Duration) -> bool {
        let shares = self.shares(now);
        let may = self.may_take(&shares, binding);
        if may {
            self.take(&shares, binding);
        }
        may
    }

    /// Gets in line.
    pub(crate) fn wait(&mut self, binding: &Name) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        match self.waiting.iter_mut().find(|(name, _)| name == binding) {
            Some((_, line)) => line.push_back(ticket),
            None => self.waiting.push_back((Arc::clone(binding), VecDeque::from([ticket]))),
        }
        ticket
    }

    /// Gets out of line. `false`: the ticket waits no longer.
    pub(crate) fn give_up(&mut self, binding: &Name, ticket: Ticket) -> bool {
        let Some(index) = self.waiting.iter().position(|(name, _)| name == binding) else { return false };
        let line = &mut self.waiting[index].1;
        let Some(at) = line.iter().position(|waiting| *waiting == ticket) else { return false };
        line.remove(at);
        if line.is_empty() {
            self.waiting.remove(index);
        }
        true
    }

    /// Gives a place back that was taken at `since`.
    pub(crate) fn give_back(&mut self, binding: &Name, since: Duration, now: Duration) {
        self.change(binding, |member| member.give_back(since, now));
        self.free += 1;
    }

    /// Hands a place to the next whose turn it is. To be called until nobody gets one, after a place came free and after
    /// somebody got in line. Who becomes slow may take fewer, and one that holds places may take another then: it hears of that
    /// when a place comes free, its own at the latest.
    pub(crate) fn next(&mut self, now: Duration) -> Option<Ticket> {
        if self.free == 0 {
            return None;
        }
        let shares = self.shares(now);
        let finish = |name: &Name| self.bindings.get(name).map_or(self.least, |member| member.finish(self.least, now));
        let may_take = self.waiting.iter().enumerate().filter(|(_, (name, _))| self.may_take(&shares, name));
        // The first of those with the same.
        let (index, _) = may_take.min_by_key(|(_, (name, _))| finish(name))?;
        let (name, mut line) = self.waiting.remove(index)?;
        let ticket = line.pop_front()?;
        self.take(&shares, &name);
        if !line.is_empty() {
            self.waiting.push_back((name, line));
        }
        Some(ticket)
    }

    /// Places that are held.
    pub(crate) fn held(&self) -> usize {
        self.places - self.free
    }

    /// Places that slow bindings never hold.
    fn for_quick(&self) -> usize {
        if self.places == 1 { 0 } else { (self.places / 8).max(1) }
    }

    /// Places of those that may be held on a leash.
    fn for_leashed(&self) -> usize {
        if self.places == 1 { 0 } else { (self.for_quick() / 2).max(1) }
    }

    /// How long the place that was taken just now may be held, if not for as long as the binding says.
    pub(crate) fn leash(&self) -> Option<Duration> {
        self.leash
    }

    /// Places that slow bindings may hold together.
    fn for_all(&self) -> usize {
        self.places - self.for_quick()
    }

    /// How the places are shared at this moment. It goes over all bindings, of which a node has hundreds at most, and
    /// is right for as long as nothing changes: a check becomes slow by time passing alone.
    fn shares(&self, now: Duration) -> Shares {
        let (mut idle, mut slow_idle, mut slow, mut long, mut leashed) = (0, 0, 0, 0, 0);
        for member in self.bindings.values() {
            let is_slow = member.is_slow(now);
            match member.running() {
                0 if is_slow => slow_idle += 1,
                0 => idle += 1,
                running => {
                    // What is on a leash is free again soon.
                    leashed += usize::from(member.is_leashed());
                    let running = running - usize::from(member.is_leashed());
                    slow += if is_slow { running } else { 0 };
                    long += if is_slow || member.may_hold_long() { running } else { 0 };
                }
            }
        }
        // Nothing is kept for those that could not take it.
        let wanted = idle + slow_idle.min(self.for_all().saturating_sub(slow));
        Shares { now, slow, long, leashed, kept: (wanted + 1).min(self.places / 2).max(1) }
    }

    /// Whether a binding may have a place now, for as long as it takes or on a leash. One that is there no longer may
    /// have what is free.
    fn may_take(&self, shares: &Shares, binding: &Name) -> bool {
        let Some(member) = self.bindings.get(binding) else { return self.free > 0 };
        self.may_keep(shares, member) || self.leash_of(shares, member).is_some()
    }

    /// The leash on which it may have a place, if so.
    fn leash_of(&self, shares: &Shares, member: &Member) -> Option<Duration> {
        // Where it is the only place for quick ones, they would wait for it again and again.
        let room = self.for_leashed() < self.for_quick();
        member.leash(room).filter(|_| self.free > 0 && shares.leashed < self.for_leashed())
    }

    /// Whether it may take a place for as long as it takes.
    fn may_keep(&self, shares: &Shares, member: &Member) -> bool {
        let kept = if member.running() == 0 { 0 } else { shares.kept };
        self.free > kept
            && if member.is_slow(shares.now) {
                shares.slow + kept < self.for_all()
            } else {
                !member.may_hold_long() || shares.long < self.places - self.for_quick() / 2
            }
    }

    /// Takes a place that [`Self::may_take`] allowed, with these shares. Nothing may have changed between.
    fn take(&mut self, shares: &Shares, binding: &Name) {
        let now = shares.now;
        self.leash = self
            .bindings
            .get(binding)
            .filter(|member| !self.may_keep(shares, member))
            .and_then(|member| self.leash_of(shares, member));
        self.free -= 1;
        let member = self.bindings.entry(Arc::clone(binding)).or_default();
        let start = member.start(self.least, now);
        member.take(self.least, now);
        if let Some(leash) = self.leash {
            member.tie(now, leash);
        }
        self.least = start;
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
