//! Who gets the next place: pure, so that a test can play any order of events.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// The name of a binding: places are counted by it, so that one that is set again shares the count with what it was.
pub(crate) type Name = Arc<str>;

/// One who waits, by the order of coming.
pub(crate) type Ticket = u64;

/// The places of a node and those who want one.
///
/// Two rules share them out. A binding that has none running gets any place that is free; one that has some gets another only
/// if places are left for the others that have none, and one for a binding that may come, though never more than half of all
/// are kept so. However long the checks of some bindings take, and however many they ask at once, another gets its answers. And
/// bindings that wait take turns: one with a thousand checks to make gets no more places than one with two.
#[derive(Debug)]
pub(crate) struct Turns {
    places: usize,
    free: usize,
    /// Bindings that are there, or hold a place still.
    bindings: BTreeMap<Name, Member>,
    /// Bindings in the order of their turns, each with those who wait in the order of coming; never with none.
    waiting: VecDeque<(Name, VecDeque<Ticket>)>,
    next_ticket: Ticket,
}

#[derive(Debug, Default)]
struct Member {
    /// How often it is there: a binding that is set again is there twice for a while.
    joined: usize,
    /// Places that it holds.
    running: usize,
}

impl Turns {
    pub(crate) fn new(places: usize) -> Self {
        Self { places, free: places, bindings: BTreeMap::new(), waiting: VecDeque::new(), next_ticket: 0 }
    }

    /// A binding is there from now on.
    pub(crate) fn join(&mut self, binding: &Name) {
        self.bindings.entry(Arc::clone(binding)).or_default().joined += 1;
    }

    /// A binding is there no longer; its places are its own until it gives them back.
    pub(crate) fn leave(&mut self, binding: &Name) {
        self.change(binding, |member| member.joined -= 1);
    }

    fn change(&mut self, binding: &Name, change: impl FnOnce(&mut Member)) {
        let Some(member) = self.bindings.get_mut(binding) else { return };
        change(member);
        if member.joined == 0 && member.running == 0 {
            self.bindings.remove(binding);
        }
    }

    /// Takes a place now, if there is one for this binding.
    pub(crate) fn try_take(&mut self, binding: &Name) -> bool {
        let may = self.may_take(binding);
        if may {
            self.take(binding);
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

    /// Gives a place back.
    pub(crate) fn give_back(&mut self, binding: &Name) {
        self.change(binding, |member| member.running -= 1);
        self.free += 1;
    }

    /// Hands a place to the next whose turn it is. To be called until nobody gets one, after a place came free and after
    /// somebody got in line.
    pub(crate) fn next(&mut self) -> Option<Ticket> {
        let index = self.waiting.iter().position(|(name, _)| self.may_take(name))?;
        let (name, mut line) = self.waiting.remove(index)?;
        let ticket = line.pop_front()?;
        self.take(&name);
        if !line.is_empty() {
            self.waiting.push_back((name, line));
        }
        Some(ticket)
    }

    /// Places that are held.
    pub(crate) fn held(&self) -> usize {
        self.places - self.free
    }

    fn running(&self, binding: &Name) -> usize {
        self.bindings.get(binding).map_or(0, |member| member.running)
    }

    fn may_take(&self, binding: &Name) -> bool {
        let kept = if self.running(binding) == 0 { 0 } else { self.kept() };
        self.free > kept
    }

    /// Places that are kept for bindings that have none running.
    fn kept(&self) -> usize {
        let idle = self.bindings.values().filter(|member| member.running == 0).count();
        (idle + 1).min(self.places / 2).max(1)
    }

    fn take(&mut self, binding: &Name) {
        self.free -= 1;
        self.bindings.entry(Arc::clone(binding)).or_default().running += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Arc::from(text)
    }

    /// Gets in line so many times, and hands out what is free.
    fn want(turns: &mut Turns, binding: &str, times: usize) -> Vec<Ticket> {
        let tickets = (0..times).map(|_| turns.wait(&name(binding))).collect();
        while turns.next().is_some() {}
        tickets
    }

    fn held(turns: &Turns, binding: &str) -> usize {
        turns.running(&name(binding))
    }

    #[test]
    fn places_are_left_for_bindings_that_have_none_running() {
        // How many places, how many other bindings there are, and how many places one that asks for all of them gets.
        for (places, others, gets) in
            [(32, 0, 31), (32, 1, 30), (32, 4, 27), (32, 15, 16), (32, 100, 16), (2, 0, 1), (1, 3, 1)]
        {
            let mut turns = Turns::new(places);
            (0..others).for_each(|n| turns.join(&name(&n.to_string())));
            want(&mut turns, "hung", 300);
            assert_eq!(held(&turns, "hung"), gets, "{places} {others}");
            assert!(!turns.try_take(&name("hung")));
            for n in 0..places - gets {
                assert!(turns.try_take(&name(&n.to_string())), "{places} {others}: {n}");
            }
            assert_eq!(turns.free, 0);
            assert!(!turns.try_take(&name("another")), "there are no more than there are");
        }
    }

    #[test]
    fn many_bindings_that_hang_leave_a_place_for_one_that_comes() {
        let mut turns = Turns::new(32);
        for hung in ["a", "b", "c", "d"] {
            turns.join(&name(hung));
        }
        for hung in ["a", "b", "c", "d"] {
            want(&mut turns, hung, 300);
        }
        assert!(turns.try_take(&name("new")), "{turns:?}");
        turns.give_back(&name("new"));
        assert_eq!(turns.next(), None, "kept for the next");
        assert!(turns.try_take(&name("another")));
    }

    #[test]
    fn a_binding_that_is_gone_keeps_no_place() {
        let mut turns = Turns::new(32);
        for _ in 0..2 {
            turns.join(&name("idle"));
        }
        want(&mut turns, "busy", 300);
        assert_eq!(held(&turns, "busy"), 30);
        turns.leave(&name("idle"));
        assert_eq!(turns.next(), None, "it is there once more");
        turns.leave(&name("idle"));
        assert!(turns.next().is_some());
        assert_eq!((held(&turns, "busy"), turns.next()), (31, None));
    }

    #[test]
    fn a_node_of_one_place_serves_every_binding() {
        let mut turns = Turns::new(1);
        assert!(turns.try_take(&name("a")));
        want(&mut turns, "a", 2);
        let b = want(&mut turns, "b", 1);
        turns.give_back(&name("a"));
        let first = turns.next().unwrap();
        assert_ne!(first, b[0], "it came later");
        turns.give_back(&name("a"));
        assert_eq!(turns.next(), Some(b[0]), "in turns: `a` had the place before");
    }

    #[test]
    fn bindings_that_wait_take_turns_however_many_checks_they_have() {
        let mut turns = Turns::new(3);
        want(&mut turns, "hog", 2);
        let hog = want(&mut turns, "hog", 1000);
        let small = want(&mut turns, "small", 2);
        assert_eq!(held(&turns, "small"), 1, "the place that was left");
        let mut order = Vec::new();
        for binding in ["hog", "hog", "small"] {
            turns.give_back(&name(binding));
            order.extend(std::iter::from_fn(|| turns.next()));
        }
        assert!(order.contains(&hog[0]) && order.contains(&small[1]), "{order:?}");
    }

    #[test]
    fn of_two_bindings_for_the_last_place_each_gets_it_in_turn() {
        let mut turns = Turns::new(2);
        want(&mut turns, "hung", 10);
        let (a, b) = (want(&mut turns, "a", 3), want(&mut turns, "b", 3));
        assert_eq!((held(&turns, "a"), held(&turns, "b")), (1, 0));
        let mut given = vec![a[0]];
        // `a` was in line before `b` came, so it has one turn before.
        for binding in ["a", "a", "b", "a", "b"] {
            turns.give_back(&name(binding));
            given.extend(std::iter::from_fn(|| turns.next()));
        }
        assert_eq!(given, [a[0], a[1], b[0], a[2], b[1], b[2]]);
    }

    #[test]
    fn who_gives_up_is_never_called_and_leaves_nothing_behind() {
        let mut turns = Turns::new(1);
        assert!(turns.try_take(&name("a")));
        let b = want(&mut turns, "b", 2);
        assert!(turns.give_up(&name("b"), b[0]));
        assert!(!turns.give_up(&name("b"), b[0]), "once only");
        turns.give_back(&name("a"));
        assert_eq!(turns.next(), Some(b[1]));
        assert!(!turns.give_up(&name("b"), b[1]), "it has its place");
        turns.give_back(&name("b"));
        assert!(turns.waiting.is_empty() && turns.bindings.is_empty());
        assert_eq!((turns.free, turns.held()), (1, 0));
    }

    /// Plays random events and looks at what must hold after each.
    #[test]
    fn places_are_neither_lost_nor_made_and_nobody_waits_beside_a_place_that_is_his() {
        let names: Vec<Name> = (0..5).map(|n| name(&n.to_string())).collect();
        for seed in 0..200_u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut draw = |most: usize| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) as usize % most
            };
            let places = 1 + draw(6);
            let mut turns = Turns::new(places);
            let mut waiting: BTreeMap<Ticket, Name> = BTreeMap::new();
            let mut holding: Vec<Name> = Vec::new();
            for step in 0..300 {
                let binding = names[draw(names.len())].clone();
                match draw(4) {
                    0 => drop(waiting.insert(turns.wait(&binding), binding)),
                    1 => holding.extend(turns.try_take(&binding).then_some(binding)),
                    2 if !holding.is_empty() => turns.give_back(&holding.swap_remove(draw(holding.len()))),
                    _ if !waiting.is_empty() => {
                        let ticket = *waiting.keys().nth(draw(waiting.len())).unwrap();
                        let binding = waiting.remove(&ticket).unwrap();
                        assert!(turns.give_up(&binding, ticket), "seed {seed} step {step}");
                    }
                    _ => {}
                }
                while let Some(ticket) = turns.next() {
                    holding.push(waiting.remove(&ticket).expect("only who waits is called"));
                }
                assert_eq!(turns.free + holding.len(), places, "seed {seed} step {step}");
                assert_eq!(turns.held(), holding.len(), "seed {seed} step {step}");
                let kept_waiting = waiting.values().any(|binding| turns.may_take(binding));
                assert!(!kept_waiting, "seed {seed} step {step}: somebody waits beside a place that is his");
            }
        }
    }
}
