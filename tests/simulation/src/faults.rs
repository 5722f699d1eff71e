//! What goes wrong, and how often.

use std::collections::{BTreeMap, BTreeSet};

use vouch_commitlog::simulated::{LOSSES, PowerLoss, Rng, SimFault};
use vouch_consensus::NodeId;

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
const KINDS: [Kind; 25] = [
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
    Kind::LeaderAlone,
    Kind::LeaderAlone,
    Kind::LeaderAlone,
    Kind::ClockStep,
    Kind::Weather,
    Kind::Weather,
    Kind::DiskWell,
    Kind::DisksUnheard,
    Kind::Wipe,
    Kind::Rot,
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
    LeaderAlone,
    DisksUnheard,
    ClockStep,
    Weather,
    Wipe,
    Rot,
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

/// Where things go wrong.
pub(crate) struct Stage<'a> {
    pub(crate) machines: &'a mut [Machine],
    pub(crate) network: &'a mut Network,
    pub(crate) rng: &'a mut Rng,
    pub(crate) faults: &'a mut Faults,
    pub(crate) trace: &'a mut Trace,
    pub(crate) now: u64,
    /// The members do not change.
    pub(crate) fixed: bool,
    /// Who loses its disk is replaced by another node, and nobody else is about to leave.
    pub(crate) replaced: bool,
    /// There are guests.
    pub(crate) guests: bool,
}

/// Lets something go wrong, in a group of which more than half may be down at times. Gives how long nothing else is to, so that
/// what takes time to go wrong has it.
pub(crate) fn strike(Mood(kinds): &Mood, mut stage: Stage<'_>) -> u64 {
    let leads = |machine: &Machine| machine.node.as_ref().is_some_and(|node| node.core.leads_in().is_some());
    // Most is lost at a leader.
    let leader = stage.machines.iter().position(leads);
    let at = leader.filter(|_| stage.rng.chance(3));
    let at = at.unwrap_or(stage.rng.below(stage.machines.len() as u64) as usize);
    let kind = kinds[stage.rng.below(kinds.len() as u64) as usize];
    let struck = match kind {
        Kind::LeaderAlone => leader.map(|leader| leader_alone(leader, &mut stage)),
        Kind::DisksUnheard => disks_unheard(leader.unwrap_or(at), &mut stage),
        Kind::Partition | Kind::PartitionHealed | Kind::Weather => {
            Some((strike_network(kind, at, stage.machines, stage.network, stage.rng), 0))
        }
        // Nothing is lost for good where disks come and go, and nobody takes the place of one that is lost.
        Kind::Wipe | Kind::Rot if stage.fixed || stage.replaced => {
            strike_for_good(kind, at, &mut stage).map(|told| (told, 0))
        }
        _ => strike_machine(kind, at, stage.machines, stage.rng).map(|told| (told, 0)),
    };
    let Some((told, quiet)) = struck else { return 0 };
    stage.faults.count(told);
    stage.trace.line(format!("fault at {}: {told}", stage.machines[at].id));
    quiet
}

fn any_loss(rng: &mut Rng) -> PowerLoss {
    LOSSES[rng.below(LOSSES.len() as u64) as usize]
}

/// What passes.
fn strike_machine(kind: Kind, at: usize, machines: &mut [Machine], rng: &mut Rng) -> Option<&'static str> {
    let machine = &mut machines[at];
    let id = machine.id;
    let runs = machine.runs();
    Some(match kind {
        Kind::Kill if runs => {
            machine.kill();
            "kill"
        }
        Kind::PowerCut if runs => {
            machine.power_cut(any_loss(rng), rng);
            "power cut"
        }
        Kind::PowerCutOfAll if rng.chance(2) => {
            for machine in machines.iter_mut().filter(|machine| machine.runs()) {
                machine.power_cut(any_loss(rng), rng);
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
        Kind::FailedSync if machine.node.is_some() => {
            machine.fails(SimFault::Sync);
            "failed sync"
        }
        Kind::FullDisk if machine.node.is_some() => {
            machine.fails(SimFault::NoSpace);
            "full disk"
        }
        Kind::ClockStep => {
            machine.clock_ahead += rng.below(20_000) as i64 - 10_000;
            "clock step"
        }
        _ => return None,
    })
}

fn strike_network(kind: Kind, at: usize, machines: &[Machine], network: &mut Network, rng: &mut Rng) -> &'static str {
    match kind {
        Kind::Partition => {
            let (hears, is_heard) = [(false, false), (true, false), (false, true)][rng.below(3) as usize];
            cut_off(at, hears, is_heard, machines, network);
            "partition"
        }
        Kind::PartitionHealed => {
            network.heal();
            "partition healed"
        }
        _ => {
            network.weather = Weather {
                lose: [0, 0, 30, 5][rng.below(4) as usize],
                repeat: [0, 20][rng.below(2) as usize],
                overtake: [0, 0, 10][rng.below(3) as usize],
                delay_ms: [1, 5, 30, 300][rng.below(4) as usize],
            };
            "weather"
        }
    }
}

/// What a disk loses for good. Fewer than half may lose something.
fn strike_for_good(kind: Kind, at: usize, stage: &mut Stage<'_>) -> Option<&'static str> {
    let Stage { machines, rng, guests, fixed, .. } = stage;
    let hurt = |machine: &&Machine| machine.wiped || machine.rotten;
    let voters = machines.len() as u64;
    let may_lose = if *fixed {
        machines[at].rotten || machines.iter().filter(hurt).count() < (machines.len() - 1) / 2
    } else {
        may_lose_a_member(at, machines)
    };
    let machine = &mut machines[at];
    if machine.node.is_none() || !may_lose {
        return None;
    }
    if kind == Kind::Rot {
        let told = machine.rots(rng)?;
        // What a start does not find soon may be written over.
        match rng.below(4) {
            0 => machine.kill(),
            1 => machine.power_cut(any_loss(rng), rng),
            _ => {}
        }
        return Some(told);
    }
    rng.chance(3).then(|| {
        let releases = machine.snapshots.is_some() && !*guests;
        machine.wipe(crate::beginning::first_image(voters, releases, *guests).0);
        "lost disk"
    })
}

/// Of each set of voters of which anybody knows one may lose something, where there are three or more and they are not just changing.
fn may_lose_a_member(at: usize, machines: &[Machine]) -> bool {
    let hurt: Vec<NodeId> = machines
        .iter()
        .enumerate()
        .filter(|(number, machine)| *number == at || machine.wiped || machine.rotten)
        .map(|(_, machine)| machine.id)
        .collect();
    let all = machines.iter().filter_map(|machine| machine.node.as_ref());
    let mut sets = all.map(|node| node.core.state().members()).filter(|members| !members.voters.is_empty());
    sets.all(|members| {
        let bears =
            |set: &BTreeSet<NodeId>| set.len() >= 3 && hurt.iter().filter(|node| set.contains(node)).count() <= 1;
        !members.is_joint() && bears(&members.voters)
    })
}

/// The leader hears nobody, and nobody hears it, until another one leads. What it writes meanwhile is cut off then. Its disk may do
/// its work and not tell; and its core may hear late what the log told.
fn leader_alone(leader: usize, stage: &mut Stage<'_>) -> (&'static str, u64) {
    let Stage { machines, network, rng, now, .. } = stage;
    cut_off(leader, false, false, machines, network);
    let machine = &mut machines[leader];
    let alone_ms = 1_000 + rng.below(2_500);
    let ends = *now + alone_ms;
    (network.heals_at, network.alone) = (Some(ends), Some(machine.id));
    let late = rng.below(4);
    if late > 0 {
        machine.unheard = *now + rng.below(1_500)..ends + rng.below(2_000);
    }
    if late & 2 == 2 {
        let node = machine.node.as_mut();
        node.into_iter().for_each(|node| node.deaf_until = ends + 2_000);
    }
    ("leader alone", if rng.chance(3) { 0 } else { alone_ms })
}

/// Disks of a majority do their work, and nobody hears of it: who leads commits nothing, and does not know why.
fn disks_unheard(leader: usize, stage: &mut Stage<'_>) -> Option<(&'static str, u64)> {
    let Stage { machines, rng, now, .. } = stage;
    if !rng.chance(3) {
        return None;
    }
    let ms = [1_000, 9_000][rng.below(2) as usize];
    let spared = rng.below(machines.len() as u64) as usize;
    for (_, machine) in machines.iter_mut().enumerate().filter(|(at, _)| *at != spared) {
        machine.unheard = *now..*now + ms;
    }
    if machines[leader].node.is_some() && !rng.chance(3) {
        machines[leader].kill();
    }
    Some(("disks unheard", if rng.chance(2) { ms } else { 0 }))
}

fn cut_off(at: usize, hears: bool, is_heard: bool, machines: &[Machine], network: &mut Network) {
    let ids: Vec<NodeId> = machines.iter().map(|machine| machine.id).collect();
    network.heal();
    let alone = ids[at];
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
pub(crate) fn heal(machines: &mut [Machine], network: &mut Network, now: u64, trace: &mut Trace) -> Result<(), String> {
    network.heal();
    network.weather = Weather { delay_ms: 2, ..Weather::default() };
    for machine in machines {
        machine.disk.clear_faults();
        (machine.disk_pace, machine.unheard) = (1, 0..0);
        machine.snapshots.iter_mut().for_each(|snapshots| snapshots.cuts = false);
        if machine.node.as_ref().is_some_and(|node| node.failed.is_some()) {
            machine.kill();
        }
        if let Some(node) = &mut machine.node {
            node.dies = None;
        } else if !machine.runs() && !machine.wiped && !machine.left {
            machine.start(now, trace)?;
        }
    }
    Ok(())
}
