//! What goes wrong, and how often.

use std::collections::BTreeMap;

use vouch_commitlog::simulated::{LOSSES, Rng, SimFault};
use vouch_consensus::{GroupMembers, NodeId};

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

/// Lets something go wrong, in a group of which more than half may be down at times.
pub(crate) fn strike(
    machines: &mut [Machine],
    network: &mut Network,
    rng: &mut Rng,
    faults: &mut Faults,
    trace: &mut Trace,
) {
    let at = rng.below(machines.len() as u64) as usize;
    for machine in machines.iter() {
        trace.line(machine.stands());
    }
    let machine = &mut machines[at];
    let id = machine.id;
    let runs = machine.node.is_some();
    let kind = match rng.below(14) {
        0 | 1 if runs => {
            machine.kill();
            "kill"
        }
        2 | 3 if runs => {
            let loss = LOSSES[rng.below(LOSSES.len() as u64) as usize];
            let image = machine.disk.after_power_cut(machine.disk.events(), loss, rng);
            machine.power_cut(image);
            "power cut"
        }
        4 if rng.chance(3) => {
            for machine in machines.iter_mut().filter(|machine| machine.node.is_some()) {
                let loss = LOSSES[rng.below(LOSSES.len() as u64) as usize];
                let image = machine.disk.after_power_cut(machine.disk.events(), loss, rng);
                machine.power_cut(image);
            }
            "power cut of all"
        }
        5 => {
            machine.disk_pace = [0, 40, 200][rng.below(3) as usize];
            if machine.disk_pace == 0 { "hung disk" } else { "slow disk" }
        }
        6 => {
            machine.disk_pace = 1;
            machine.disk.clear_faults();
            "disk well again"
        }
        7 if runs => {
            machine.disk.inject(SimFault::Sync);
            "failed sync"
        }
        8 if runs && rng.chance(2) => {
            machine.disk.inject(SimFault::NoSpace);
            "full disk"
        }
        9 => {
            cut_off(machines, network, rng);
            "partition"
        }
        10 => {
            network.cut_off.clear();
            "partition healed"
        }
        11 => {
            let machine = &mut machines[at];
            machine.clock_ahead += rng.below(20_000) as i64 - 10_000;
            "clock step"
        }
        _ => {
            let weather = &mut network.weather;
            *weather = Weather {
                lose: [0, 0, 30, 5][rng.below(4) as usize],
                repeat: [0, 20][rng.below(2) as usize],
                overtake: [0, 0, 10][rng.below(3) as usize],
                delay_ms: [1, 5, 30, 300][rng.below(4) as usize],
            };
            "weather"
        }
    };
    faults.count(kind);
    trace.line(format!("fault at {id}: {kind}"));
}

fn cut_off(machines: &[Machine], network: &mut Network, rng: &mut Rng) {
    let ids: Vec<NodeId> = machines.iter().map(|machine| machine.id).collect();
    network.cut_off.clear();
    let alone = ids[rng.below(ids.len() as u64) as usize];
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
        if machine.node.is_none() {
            machine.start(now, members).map_err(|why| format!("node {} does not start: {why}", machine.id))?;
        }
    }
    Ok(())
}
