//! Consumers, a leader that answers before the log does, restarts and lost records in random order. Never two living
//! owners, nothing skipped that a member wants, what is acknowledged stays done, attempts are exact, dead letters move
//! once.

use proptest::prelude::*;

use super::leader::{LEASE_MS, Leader, MAX_ATTEMPTS};
use super::oracle::{Ended, Oracle, Place};
use crate::delivery::{BATCH_MAX, Picks};
use crate::record::{Ack, Again, ChangeInvisible, Lease, MessageHead, Record, Renew};
use crate::testing::head;
use crate::{Generation, QueueOffset, RecordPosition, TagFilter, TagHash};

const QUEUES: u32 = 2;

/// What a consumer holds: one delivery, by its handle.
#[derive(Clone, Copy, Debug)]
struct Held {
    place: Place,
    generation: Generation,
}

struct Model {
    leader: Leader,
    /// What the log says.
    oracle: Oracle,
    filters: [TagFilter; 3],
    /// The first member lives always.
    alive: [bool; 3],
    held: Vec<Held>,
    sent: u64,
}

impl Model {
    fn new() -> Self {
        let filters = [TagFilter::tags(["a"]), TagFilter::tags(["b"]), TagFilter::All];
        let (mut leader, oracle) = (Leader::new(QUEUES), Oracle::new(QUEUES));
        filters.iter().take(2).for_each(|filter| leader.note(filter));
        while leader.apply().is_some() {}
        Self { leader, oracle, filters, alive: [true, true, false], held: Vec::new(), sent: 0 }
    }

    fn step(&mut self, what: u8, a: u16, b: u16, losses: bool) {
        match what % 16 {
            0..=3 => self.send(a, b),
            4..=6 => drop(self.receive(usize::from(a) % 3, usize::from(b) % 6 + 1)),
            7 | 8 => self.ack(a),
            9 => self.change(a, b),
            10 => self.renew(a),
            11 => self.leader.now = self.leader.now.plus_ms([1, 1_000, LEASE_MS / 2, LEASE_MS][usize::from(a) % 4]),
            12 | 13 => (0..a % 8).for_each(|_| self.apply()),
            14 if losses && !self.leader.in_flight.is_empty() => {
                self.leader.lose(usize::from(a) % self.leader.in_flight.len());
            }
            14 => self.toggle(usize::from(a) % 2 + 1),
            _ => self.restart(a),
        }
    }

    fn send(&mut self, a: u16, b: u16) {
        self.sent += 1;
        let tag = TagHash::of([Some("a"), Some("b"), Some("a"), None][usize::from(a) % 4]);
        let head = head(self.leader.topic, u32::from(b) % QUEUES, &self.sent.to_string(), 0);
        self.leader.propose(Record::Message(MessageHead { tag, ..head }));
    }

    /// What the log will say when everything in flight is in it.
    fn future(&self) -> Oracle {
        let mut future = self.oracle.clone();
        for (time, record) in &self.leader.in_flight {
            future.apply(*time, record);
        }
        future
    }

    /// A member comes, or is gone for so long that its filter goes.
    fn toggle(&mut self, member: usize) {
        self.alive[member] ^= true;
        if !self.alive[member] {
            self.leader.let_go(&self.filters[member]);
        }
    }

    /// A member receives; what it gets is checked against the future. Returns how much it got.
    fn receive(&mut self, member: usize, max: usize) -> usize {
        self.alive[member] = true;
        let (future, now) = (self.future(), self.leader.now);
        (0..3).filter(|other| self.alive[*other]).for_each(|other| self.leader.note(&self.filters[other]));
        let filter = self.filters[member].clone();
        let picks = self.leader.pick(&filter, max);
        self.check_picks(&picks, &future, max);
        if let Some(lease) = &picks.lease {
            self.check_decisions(lease, &filter);
            self.leader.propose(Record::Lease(lease.clone()));
            let mut with = future;
            with.apply(now, &Record::Lease(lease.clone()));
            for picked in &picks.messages {
                let place = (picked.queue, picked.offset);
                assert!(!with.free(place, now), "{place:?} was handed out without a lease");
                self.held.push(Held { place, generation: lease.generation });
            }
        }
        for (queue, offset, generation) in &picks.exhausted {
            let fate = &self.oracle.fates[&(*queue, *offset)];
            assert_eq!((fate.attempts(), fate.ended), (MAX_ATTEMPTS, None));
            self.leader.dead_letter(*queue, *offset, *generation);
        }
        assert!(!picks.more, "no scan is that long");
        picks.messages.len()
    }

    /// Never two living owners, and attempts are exact.
    fn check_picks(&self, picks: &Picks, future: &Oracle, max: usize) {
        assert!(picks.messages.len() <= max.min(BATCH_MAX));
        let mut seen = std::collections::BTreeSet::new();
        for picked in &picks.messages {
            let place = (picked.queue, picked.offset);
            assert!(seen.insert(place), "{place:?} twice in one batch");
            assert!(future.free(place, self.leader.now), "{place:?} has an owner, or is done");
            let before = future.fates.get(&place).map_or(0, super::oracle::Fate::attempts);
            assert_eq!(picked.attempt, before + 1, "{place:?}");
            assert!(picked.attempt <= MAX_ATTEMPTS);
        }
    }

    /// Ruling 12: handed out to who wants it, left where a filter of the group matches it, done only if none does.
    fn check_decisions(&self, lease: &Lease, filter: &TagFilter) {
        let check = |place: Place, becomes: Again| {
            let tag = self.oracle.tags[&place];
            let expected = if filter.matches(tag) {
                Again::Leased
            } else if self.leader.wants(tag) {
                Again::Left
            } else {
                Again::Done
            };
            assert_eq!(becomes, expected, "{place:?}");
        };
        for range in &lease.fresh {
            for offset in QueueOffset::each(range.from..range.to) {
                let becomes = match (range.leased.contains(&offset), range.left.contains(&offset)) {
                    (true, false) => Again::Leased,
                    (false, true) => Again::Left,
                    (false, false) => Again::Done,
                    (true, true) => panic!("offset {offset} is leased and left"),
                };
                check((range.queue, offset), becomes);
            }
        }
        for again in &lease.again {
            check((again.queue, again.offset), again.becomes);
        }
    }

    fn some_held(&self, a: u16) -> Option<Held> {
        (!self.held.is_empty()).then(|| self.held[usize::from(a) % self.held.len()])
    }

    fn ack(&mut self, a: u16) {
        let Some(Held { place: (queue, offset), generation }) = self.some_held(a) else { return };
        let (group, topic) = (self.leader.group, self.leader.topic);
        self.leader.propose(Record::Ack(Ack { group, topic, queue, offset, generation }));
    }

    fn change(&mut self, a: u16, b: u16) {
        let Some(Held { place: (queue, offset), generation }) = self.some_held(a) else { return };
        let (group, topic, new_generation) = (self.leader.group, self.leader.topic, self.leader.next_generation());
        let deadline = self.leader.now.plus_ms([0, 1_000, 2 * LEASE_MS][usize::from(b) % 3]);
        let uncounted = b & 64 == 0;
        self.leader.propose(Record::ChangeInvisible(ChangeInvisible {
            group,
            topic,
            queue,
            offset,
            generation,
            new_generation,
            deadline,
            uncounted,
        }));
        self.held.push(Held { place: (queue, offset), generation: new_generation });
    }

    fn renew(&mut self, a: u16) {
        let Some(Held { place: (queue, offset), generation }) = self.some_held(a) else { return };
        let (group, topic, deadline) = (self.leader.group, self.leader.topic, self.leader.now.plus_ms(LEASE_MS));
        self.leader.propose(Record::Renew(Renew { group, topic, deadline, leases: vec![(queue, offset, generation)] }));
    }

    fn apply(&mut self) {
        let Some((time, record, outcome)) = self.leader.apply() else { return };
        assert_eq!(outcome.is_ok(), self.oracle.apply(time, &record), "{record:?} gave {outcome:?}");
        self.compare();
    }

    fn compare(&self) {
        self.oracle.compare(self.leader.log.progress(self.leader.group, self.leader.topic));
    }

    /// The node goes down: a part of what was in flight is in the log, the rest never was.
    fn restart(&mut self, a: u16) {
        let kept = usize::from(a) % (self.leader.in_flight.len() + 1);
        (0..kept).for_each(|_| self.apply());
        self.leader.restart();
        self.compare();
    }

    /// Members receive and acknowledge until nothing is left: nothing may stay behind.
    fn drain(&mut self) {
        self.alive = [true, true, false];
        self.leader.let_go(&self.filters[2]);
        for _ in 0..100 {
            while !self.leader.in_flight.is_empty() {
                self.apply();
            }
            if self.oracle.finished() {
                return;
            }
            self.leader.now = self.leader.now.plus_ms(2 * LEASE_MS);
            for member in [0, 1, 0, 1] {
                while self.receive(member, BATCH_MAX) > 0 {}
                while !self.leader.in_flight.is_empty() {
                    self.apply();
                }
            }
            let fresh: Vec<Held> = std::mem::take(&mut self.held);
            for held in fresh {
                self.held = vec![held];
                self.ack(0);
            }
            self.held.clear();
        }
        panic!("something is never delivered: {:?}", self.oracle);
    }

    /// What came of each message in the end.
    fn audit(&self) {
        let ended = |wanted| self.oracle.fates.values().filter(|fate| fate.ended == Some(wanted)).count() as u64;
        for (place, fate) in &self.oracle.fates {
            let for_the_first = self.filters[0].matches(self.oracle.tags[place]);
            assert!(!for_the_first || fate.ended != Some(Ended::Skipped), "{place:?} was skipped, its member alive");
        }
        let total: u64 = self.oracle.ends.iter().map(|end| end.0).sum();
        assert_eq!(ended(Ended::Acked) + ended(Ended::Dead) + ended(Ended::Skipped), total);
        let dead = self.leader.log.state.topics().named(&crate::ResourceName::plain("%DLQ%g")).ok();
        assert_eq!(dead.map_or(0, |topic| topic.messages()), ended(Ended::Dead));
        let positions = |topic: &crate::state::Topic| {
            let all = QueueOffset::each(QueueOffset::FIRST..topic.end(0))
                .map(|offset| topic.entry(0, offset).unwrap().position);
            all.collect::<std::collections::BTreeSet<RecordPosition>>().len() as u64
        };
        assert_eq!(dead.map_or(0, positions), ended(Ended::Dead), "a dead letter moved twice");
    }
}

fn steps() -> impl Strategy<Value = Vec<(u8, u16, u16)>> {
    proptest::collection::vec(any::<(u8, u16, u16)>(), 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn deliveries_keep_their_promises_over_restarts(steps in steps()) {
        let mut model = Model::new();
        for (what, a, b) in steps {
            model.step(what, a, b, false);
        }
        model.drain();
        model.audit();
    }

    #[test]
    fn deliveries_keep_their_promises_when_the_log_refuses_records(steps in steps()) {
        let mut model = Model::new();
        for (what, a, b) in steps {
            model.step(what, a, b, true);
        }
        model.drain();
        model.audit();
    }
}
