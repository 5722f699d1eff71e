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
    /// The members change.
    changes: bool,
    changed: u64,
}

impl Group {
    /// Of so many nodes, all of them voters, or the first alone and its members change.
    fn new(size: u64, changes: bool, seed: u64) -> Self {
        let members = GroupMembers::voters((1..=if changes { 1 } else { size }).map(NodeId));
        let mut rng = Rng(seed);
        let nodes = (1..=size).map(|node| Member::new(node, &members, Rng(rng.next()))).collect();
        let (network, committed, led) = (VecDeque::new(), Vec::new(), BTreeMap::new());
        Self { rng, members, changes, nodes, network, committed, led, proposed: 0, changed: 0 }
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
            1 if self.changes && node.leads() && self.rng.chance(4) => self.change_members(at, faults),
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

    /// A leader goes on with a change of the members, or begins one; in a group that heals it begins none.
    fn change_members(&mut self, at: usize, begins: bool) {
        let node = &mut self.nodes[at];
        let sets = if node.members.is_joint() {
            if !node.members.voters.contains(&node.node) {
                let to = *node.members.voters.first().unwrap();
                node.replica().hand_over(to);
                return node.carry_out(&mut self.network);
            }
            (0, 0)
        } else if begins {
            let bits = |rng: &mut Rng| (rng.next() & 0b11_1110) as u8;
            let voters = bits(&mut self.rng) | 1 << node.node.0;
            (voters, bits(&mut self.rng) & !voters)
        } else {
            return;
        };
        self.changed += u64::from(node.propose_members(sets, &mut self.network));
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
            let latest = self.nodes.iter().max_by_key(|node| node.commit).map(|node| node.members.clone()).unwrap();
            let members = self.nodes.iter().filter(|node| latest.all().contains(&node.node));
            let shortest = members.map(|node| node.commit).min().unwrap_or(0) as usize;
            if shortest > before + 5 && !latest.is_joint() {
                return;
            }
        }
        panic!("a healed group makes progress");
    }
}

fn run(size: u64, changes: bool, seed: u64) -> (Vec<String>, u64) {
    let mut group = Group::new(size, changes, seed);
    for _ in 0..STEPS {
        group.step(true);
    }
    group.heal();
    (group.nodes.into_iter().flat_map(|node| node.trace).collect(), group.changed)
}

#[test]
fn what_is_committed_stays_and_a_healed_group_goes_on() {
    for seed in 0..SEEDS {
        for size in [3, 5] {
            run(size, false, seed);
        }
    }
}

#[test]
fn members_come_and_go_while_one_leads_a_term_and_what_is_committed_stays() {
    let changed: u64 = (0..SEEDS).map(|seed| run(5, true, seed).1).sum();
    assert!(changed > 5 * SEEDS, "{changed} changes");
}

#[test]
fn a_seed_repeats_a_run_to_the_bit() {
    for seed in [7, 8] {
        assert_eq!(run(3, false, seed), run(3, false, seed), "seed {seed}");
        assert_eq!(run(5, true, seed), run(5, true, seed), "seed {seed}");
    }
}
