//! Three and five members under loss, delay, repetition and power cuts.

use std::collections::{BTreeMap, VecDeque};

use super::bench::{Line, Member, Rng, Sent};
use crate::{GroupMembers, NodeId};

const SEEDS: u64 = 300;
const STEPS: u64 = 4_000;

struct Group {
    rng: Rng,
    members: GroupMembers,
    nodes: Vec<Member>,
    network: VecDeque<Sent>,
    /// What some member ever knew to be committed.
    committed: Vec<Line>,
    /// Who led each term.
    led: BTreeMap<u64, NodeId>,
    proposed: u64,
}

impl Group {
    fn new(size: u64, seed: u64) -> Self {
        let members = GroupMembers::voters((1..=size).map(NodeId));
        let mut rng = Rng(seed);
        let nodes = (1..=size).map(|node| Member::new(node, &members, Rng(rng.next()))).collect();
        let (network, committed, led) = (VecDeque::new(), Vec::new(), BTreeMap::new());
        Self { rng, members, nodes, network, committed, led, proposed: 0 }
    }

    fn step(&mut self, faults: bool) {
        let at = self.rng.below(self.nodes.len() as u64) as usize;
        let node = &mut self.nodes[at];
        if node.replica.is_none() {
            if self.rng.chance(20) {
                let rng = Rng(self.rng.next());
                node.start(&self.members, rng);
            }
            return;
        }
        match self.rng.below(12) {
            0 => {
                node.replica().tick();
                node.carry_out(&mut self.network);
            }
            1 if node.leads() => {
                self.proposed += 1;
                node.propose(self.proposed, &mut self.network);
            }
            2..=4 => {
                let unsynced = (node.log.len() - node.synced) as u64;
                let lines = node.synced + self.rng.below(unsynced + 1) as usize;
                node.sync(lines, &mut self.network);
            }
            5 if faults && self.rng.chance(60) => node.crash(&mut self.rng),
            _ => self.deliver(faults),
        }
        self.check(at);
    }

    /// Some message arrives: usually the oldest one.
    fn deliver(&mut self, faults: bool) {
        let len = self.network.len() as u64;
        if len == 0 {
            return;
        }
        let pick = if faults && self.rng.chance(4) { self.rng.below(len) as usize } else { 0 };
        let again = faults && self.rng.chance(10);
        let sent = if again { self.network.get(pick).cloned() } else { self.network.remove(pick) };
        let (message, lines) = sent.unwrap();
        let node = &mut self.nodes[message.to.0 as usize - 1];
        if node.replica.is_none() || faults && self.rng.chance(8) {
            return;
        }
        node.replica().message(&message, lines);
        node.carry_out(&mut self.network);
        self.check(message.to.0 as usize - 1);
    }

    fn check(&mut self, at: usize) {
        let node = &self.nodes[at];
        if node.leads() {
            let leader = *self.led.entry(node.vote.term).or_insert(node.node);
            assert_eq!(leader, node.node, "one leader a term");
        }
        for (known, line) in node.log.iter().take(node.commit as usize).enumerate() {
            match self.committed.get(known) {
                Some(there) => assert_eq!(there, line, "committed logs are prefixes of one another"),
                None => self.committed.push(*line),
            }
        }
    }

    /// Without faults from now on, all have one log, and it grows.
    fn heal(&mut self) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].replica.is_none() {
                let rng = Rng(self.rng.next());
                self.nodes[at].start(&self.members, rng);
            }
        }
        let before = self.committed.len();
        for _ in 0..40_000 {
            self.step(false);
            let shortest = self.nodes.iter().map(|node| node.commit).min().unwrap_or(0) as usize;
            if shortest > before + 5 {
                return;
            }
        }
        panic!("a healed group makes progress");
    }
}

fn run(size: u64, seed: u64) -> Vec<String> {
    let mut group = Group::new(size, seed);
    for _ in 0..STEPS {
        group.step(true);
    }
    group.heal();
    group.nodes.into_iter().flat_map(|node| node.trace).collect()
}

#[test]
fn what_is_committed_stays_and_a_healed_group_goes_on() {
    for seed in 0..SEEDS {
        for size in [3, 5] {
            run(size, seed);
        }
    }
}

#[test]
fn a_seed_repeats_a_run_to_the_bit() {
    for seed in [7, 8] {
        assert_eq!(run(3, seed), run(3, seed), "seed {seed}");
    }
}
