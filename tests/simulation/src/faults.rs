//! What goes wrong, and how often.

use std::collections::BTreeMap;

use vouch_commitlog::simulated::{LOSSES, Rng, SimFault};
use vouch_consensus::{GroupMembers, NodeId};

use crate::death::Death;
use crate::machine::Machine;
use crate::network::{Network, Weather};
use crate::trace::Trace;

/// How often each kind of fault happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub BTreeMap<&'static str, u64>);

impl Faults {
    pub(crate) fn count(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    /// Of all kinds.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// Kinds of faults, as often as they are to happen.
const KINDS: [Kind; 20] = [
    Kind::Kill,
    Kind::PowerCut,
    Kind::PowerCut,
    Kind::PowerCutOfAll,
    Kind::Death,
    Kind::Death,
    Kind::Death,
    Kind::SlowDisk,
    Kind::DiskWell,
    Kind::FailedSync,
    Kind::FullDisk,
    Kind::Partition,
    Kind::Partition,
    Kind::PartitionHealed,
    Kind::PartitionHealed,
    Kind::ClockStep,
    Kind::Weather,
    Kind::Weather,
    Kind::DiskWell,
    Kind::Wipe,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    PowerCut,
    PowerCutOfAll,
    Death,
    SlowDisk,
    DiskWell,
    FailedSync,
    FullDisk,
    Partition,
    PartitionHealed,
    ClockStep,
    Weather,
    Wipe,
}

/// What goes wrong in one run: all kinds of faults, or a few of them, which meet each other more often then.
pub(crate) struct Mood(Vec<Kind>);

impl Mood {
    pub(crate) fn drawn(rng: &mut Rng) -> Self {
        let few = !rng.chance(3);
        let dropped: Vec<Kind> = KINDS.into_iter().filter(|_| few && rng.chance(3)).collect();
        let ends = |kind: &Kind| matches!(kind, Kind::DiskWell | Kind::PartitionHealed | Kind::Weather);
        Self(KINDS.into_iter().filter(|kind| ends(kind) || !dropped.contains(kind)).collect())
    }
}

/// Lets something go wrong, in a group of which more than half may be down at times.
pub(crate) fn strike(
    Mood(kinds): &Mood,
    machines: &mut [Machine],
    network: &mut Network,
    rng: &mut Rng,
    faults: &mut Faults,
    trace: &mut Trace,
) {
    let leads = |machine: &Machine| machine.node.as_ref().is_some_and(|node| node.core.leads_in().is_some());
    // Most is lost at a leader.
    let leader = machines.iter().position(leads).filter(|_| rng.chance(3));
    let at = leader.unwrap_or(rng.below(machines.len() as u64) as usize);
    // So many may lose all that they have.
    let may_lose = machines.iter().filter(|machine| machine.wiped).count() < (machines.len() - 1) / 2;
    let machine = &mut machines[at];
    let id = machine.id;
    let runs = machine.node.is_some();
    let loss = |rng: &mut Rng| LOSSES[rng.below(LOSSES.len() as u64) as usize];
    let told = match kinds[rng.below(kinds.len() as u64) as usize] {
        Kind::Kill if runs => {
            machine.kill();
            "kill"
        }
        Kind::PowerCut if runs => {
            machine.power_cut(loss(rng), rng);
            "power cut"
        }
        Kind::PowerCutOfAll if rng.chance(2) => {
            for machine in machines.iter_mut().filter(|machine| machine.node.is_some()) {
                machine.power_cut(loss(rng), rng);
            }
            "power cut of all"
        }
        Kind::Death if runs => {
            for node in machines.iter_mut().filter_map(|machine| machine.node.as_mut()) {
                if node.id == id || rng.chance(3) {
                    node.dies.get_or_insert(Death::drawn(rng));
                }
            }
            "death between commands"
        }
        Kind::SlowDisk => {
            machine.disk_pace = [0, 40, 200][rng.below(3) as usize];
            if machine.disk_pace == 0 { "hung disk" } else { "slow disk" }
        }
        Kind::DiskWell => {
            machine.disk_pace = 1;
            machine.disk.clear_faults();
            "disk well again"
        }
        Kind::FailedSync if runs => {
            machine.fails(SimFault::Sync);
            "failed sync"
        }
        Kind::FullDisk if runs => {
            machine.fails(SimFault::NoSpace);
            "full disk"
        }
        Kind::Wipe if runs && may_lose && rng.chance(3) => {
            machine.wipe(crate::world::first_image().0);
            "lost disk"
        }
        Kind::Partition => {
            cut_off(at, machines, network, rng);
            "partition"
        }
        Kind::PartitionHealed => {
            network.cut_off.clear();
            "partition healed"
        }
        Kind::ClockStep => {
            let machine = &mut machines[at];
            machine.clock_ahead += rng.below(20_000) as i64 - 10_000;
            "clock step"
        }
        Kind::Weather => {
            network.weather = Weather {
                lose: [0, 0, 30, 5][rng.below(4) as usize],
                repeat: [0, 20][rng.below(2) as usize],
                overtake: [0, 0, 10][rng.below(3) as usize],
                delay_ms: [1, 5, 30, 300][rng.below(4) as usize],
            };
            "weather"
        }
        _ => return,
    };
    faults.count(told);
    trace.line(format!("fault at {id}: {told}"));
}

fn cut_off(at: usize, machines: &[Machine], network: &mut Network, rng: &mut Rng) {
    let ids: Vec<NodeId> = machines.iter().map(|machine| machine.id).collect();
    network.cut_off.clear();
    let alone = ids[at];
    let (hears, is_heard) = [(false, false), (true, false), (false, true)][rng.below(3) as usize];
    for other in ids.into_iter().filter(|id| *id != alone) {
        if !hears {
            network.cut_off.push((other, alone));
        }
        if !is_heard {
            network.cut_off.push((alone, other));
        }
    }
}

/// Nothing goes wrong any more, and everybody starts.
pub(crate) fn heal(
    machines: &mut [Machine],
    network: &mut Network,
    members: &GroupMembers,
    now: u64,
) -> Result<(), String> {
    (network.cut_off, network.weather) = (Vec::new(), Weather { delay_ms: 2, ..Weather::default() });
    for machine in machines {
        machine.disk.clear_faults();
        machine.disk_pace = 1;
        if machine.node.as_ref().is_some_and(|node| node.failed.is_some()) {
            machine.kill();
        }
        if let Some(node) = &mut machine.node {
            node.dies = None;
        } else if !machine.wiped {
            machine.start(now, members).map_err(|why| format!("node {} does not start: {why}", machine.id))?;
        }
    }
    Ok(())
}
