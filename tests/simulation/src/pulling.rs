//! Machines that take what they lack from others' disks: who reaches whom, how long it takes, and where they die.

use vouch_cluster::NodeId;
use vouch_commitlog::Checkpoint;
use vouch_commitlog::simulated::LOSSES;

use crate::machine::{Lack, Machine, Pull, Pulled};
use crate::world::World;

/// What became of pulls in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulls {
    /// Those that ended well, of all kinds, and with a start behind it.
    pub done: u64,
    /// Those of nodes that joined, whose log's beginning was gone everywhere.
    pub joins: u64,
    /// Those of nodes whose log was damaged.
    pub repairs: u64,
    /// What was begun to be taken, and was not taken to its end from that node at that time.
    pub cut_short: u64,
    /// Machines that died while what they had gathered took its place.
    pub deaths: u64,
}

impl Pulls {
    /// Adds those of another run.
    pub fn add(&mut self, other: Self) {
        let Self { done, joins, repairs, cut_short, deaths } = other;
        self.done += done;
        self.joins += joins;
        self.repairs += repairs;
        self.cut_short += cut_short;
        self.deaths += deaths;
    }
}

impl World {
    /// Each machine that pulls takes a step, if it is time.
    ///
    /// # Errors
    /// What it takes in place of its log must not be.
    pub(crate) fn pulls_act(&mut self) -> Result<(), String> {
        for at in 0..self.machines.len() {
            let now = self.now;
            if let Some(pull) = self.machines[at].pull.take_if(|pull| pull.next_at <= now) {
                self.pulls_on(at, pull)?;
            }
        }
        Ok(())
    }

    /// A machine is away for so long that others may let go of what it lacks, if no other one is.
    pub(crate) fn goes_away(&mut self) {
        let (now, one_is) = (self.now, self.starts_at.iter().any(|starts| *starts > self.now + 1_000));
        let at = self.rng.below(self.machines.len() as u64) as usize;
        if one_is || !self.machines[at].runs() {
            return;
        }
        if self.rng.chance(2) {
            self.machines[at].kill();
        } else {
            self.machines[at].power_cut(LOSSES[self.rng.below(LOSSES.len() as u64) as usize], &mut self.rng);
        }
        self.starts_at[at] = now + 2_000 + self.rng.below(6_000);
        self.faults.count("away for long");
        self.trace.line(format!("{} is away until {}", self.machines[at].id, self.starts_at[at]));
    }

    fn pulls_on(&mut self, at: usize, mut pull: Pull) -> Result<(), String> {
        let (me, now) = (self.machines[at].id, self.now);
        let pace = self.machines[at].disk_pace;
        let pulled = if !pull.waits() && (pace == 0 || !self.rng.chance(pace)) {
            // Its disk hangs, or is slow.
            Pulled::GoesOn
        } else if pull.rests() {
            let others = self.others_than(me);
            pull.asks(&others, now);
            Pulled::GoesOn
        } else {
            let from = pull.source();
            let is_cut = |pair: &(NodeId, NodeId)| self.network.cut_off.contains(pair);
            let is_reached = !is_cut(&(me, from)) && !is_cut(&(from, me));
            let source = self.machines.get_mut(from.0 as usize - 1);
            let source = source.filter(|source| is_reached && source.life().is_some());
            pull.step(me, source, now, &mut self.trace)
        };
        // The other one looks what it has as soon as it is asked, and hears its own core at once.
        let delay = if pull.waits() { 10 } else { self.network.weather.delay_ms.max(1) };
        pull.next_at = now + 1 + self.rng.below(2 * delay);
        match pulled {
            Pulled::GoesOn => {}
            Pulled::CutShort => {
                self.pulls.cut_short += 1;
                pull.next_at = now + 20 + self.rng.below(300);
            }
            Pulled::Removed => {
                self.trace.line(format!("{me} hears that it was removed"));
                self.machines[at].left = true;
                return Ok(());
            }
            Pulled::All => return self.pulled(at, pull),
        }
        if pull.rests() {
            pull.next_at = pull.next_at.max(now + 10 + self.rng.below(200));
        }
        self.machines[at].pull = Some(pull);
        Ok(())
    }

    /// Nodes whose addresses a node knows, as far as they ever came.
    fn others_than(&self, me: NodeId) -> Vec<NodeId> {
        let there = |machine: &&Machine| machine.id != me && !machine.wiped && !machine.left;
        self.machines.iter().filter(there).map(|machine| machine.id).collect()
    }

    fn pulled(&mut self, at: usize, mut pull: Pull) -> Result<(), String> {
        let me = self.machines[at].id;
        let (had, has) = pull.ledgers();
        // What it takes is committed, and nothing that it had for good and that is committed is missing.
        if let Some(foreign) = has.entries().iter().find(|entry| !self.committed.has(entry)) {
            return Err(format!("node {me} takes entry {foreign}, which was never committed"));
        }
        let last = has.entries().last().map_or(0, |last| last.index);
        let missing = |entry: &&Checkpoint| entry.index > last && self.committed.has(entry);
        if let Some(lost) = had.durable_entries().find(missing) {
            return Err(format!(
                "I1: node {me} takes a log that ends with entry {last}, and had {lost}, which is committed"
            ));
        }
        let dies = self.now < self.plan.faults_ms && self.rng.chance(3);
        let death = dies.then(|| (!self.rng.chance(3)).then(|| LOSSES[self.rng.below(LOSSES.len() as u64) as usize]));
        self.trace.line(format!("{me} has what it lacked, up to {last}; death: {death:?}"));
        if dies {
            self.pulls.deaths += 1;
        } else {
            self.pulls.count(pull.lack);
        }
        let Self { machines, rng, starts_at, now, trace, .. } = self;
        machines[at].pulled(pull, death, rng);
        if dies {
            starts_at[at] = 0;
            return Ok(());
        }
        machines[at].start(*now, trace)
    }
}

impl Pulls {
    fn count(&mut self, lack: Lack) {
        self.done += 1;
        match lack {
            Lack::Behind => {}
            Lack::Joins => self.joins += 1,
            Lack::Damaged => self.repairs += 1,
        }
    }
}
