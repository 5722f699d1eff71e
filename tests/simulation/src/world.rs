//! The run: what happens when, all of it decided by a seed.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use vouch_broker::record::{GroupPut, Join, Record, TopicPut};
use vouch_broker::state::RecordAt;
use vouch_broker::testing::cluster_init;
use vouch_broker::{GroupConfig, Millis, RecordPosition, ResourceName, State, TopicConfig, TopicType};
use vouch_commitlog::simulated::{Image, LOSSES, Rng, SimDisk, Steps, open};
use vouch_commitlog::{EntryHeader, EntryKind};
use vouch_consensus::{GroupMembers, NodeId};
use vouch_shard::core::Request;

use crate::bugs::{self, Injected};
use crate::checks::{self, Committed};
use crate::clients::{Client, Names, Surroundings};
use crate::faults::{self, Faults, Mood, Stage};
use crate::machine::{BEGIN, Machine, log_config};
use crate::network::{Frame, Network, Weather};
use crate::trace::Trace;

/// After faults end, a group must have come to one log within this long.
const HEALED_WITHIN_MS: u64 = 60_000;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// Voters.
    pub nodes: u64,
    /// How long things go wrong, in milliseconds of virtual time.
    pub faults_ms: u64,
    /// Clients.
    pub clients: usize,
    /// What is done wrong, if anything is.
    pub bug: Option<Injected>,
}

/// What a run was.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Milliseconds of virtual time.
    pub virtual_ms: u64,
    /// Calls of clients that were answered.
    pub calls: u64,
    /// Of those, how many were done.
    pub done: u64,
    /// What went wrong on purpose.
    pub faults: Faults,
    /// Terms with a leader.
    pub terms: u64,
    /// Of all that happened: equal for equal runs.
    pub digest: u64,
}

/// What did not hold, and how it came to that.
#[derive(Debug)]
pub struct Failure {
    /// The run.
    pub plan: Plan,
    /// What is wrong.
    pub wrong: String,
    /// When it was found, in milliseconds of virtual time.
    pub virtual_ms: u64,
    /// The last lines of what happened.
    pub trace: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{:?}: {}", self.trace, self.plan, self.wrong)
    }
}

/// A disk with a log in which a cluster began, and the names of what is in it.
pub(crate) fn first_image() -> (Image, Names) {
    let disk = SimDisk::new(Image::new());
    let (mut appender, ..) = open(&disk, &log_config(), drop, &mut |_| Ok(())).unwrap();
    let (mut state, mut records, mut effects) = (State::default(), Vec::new(), Vec::new());
    let plain = ResourceName::plain;
    let mixed = TopicConfig { topic_type: TopicType::Mixed, queues: 2, ..TopicConfig::default() };
    let mut position = RecordPosition(appender.next_payload_position(0).0);
    let mut happen = |state: &mut State, record: Record| {
        let before = records.len();
        assert!(record.encode(&mut records));
        state.apply(RecordAt { position, time: Millis(BEGIN) }, &record, &mut effects).unwrap();
        position = position.plus((records.len() - before) as u64);
    };
    happen(&mut state, Record::ClusterInit(cluster_init()));
    happen(&mut state, Record::TopicPut(TopicPut { name: plain("t"), config: mixed, expected_revision: None }));
    let config = GroupConfig::default();
    happen(&mut state, Record::GroupPut(GroupPut { name: plain("g"), config, expected_revision: None }));
    let topic = state.topics().named(&plain("t")).unwrap().id;
    let group = state.groups().named(&plain("g")).unwrap().id;
    happen(&mut state, Record::Join(Join { group, topic }));
    let header = EntryHeader { term: 1, index: 1, leader_time_ms: BEGIN, kind: EntryKind::Records };
    appender.append(header, &[&records]).unwrap();
    Steps::new(2).settle(&appender);
    drop(appender);
    (disk.image(), Names { topic, group })
}

struct World {
    plan: Plan,
    rng: Rng,
    now: u64,
    began: Instant,
    members: GroupMembers,
    machines: Vec<Machine>,
    /// When a machine that is down starts again.
    starts_at: Vec<u64>,
    network: Network,
    clients: Vec<Client>,
    names: Names,
    ids: u64,
    history: Vec<checks::Event>,
    /// What was read of messages that were handed out, and where they lie.
    served: Vec<(RecordPosition, u64)>,
    committed: Committed,
    faults: Faults,
    trace: Trace,
    mood: Mood,
    next_fault: u64,
}

/// Runs it.
///
/// # Errors
/// [`Failure`] says what did not hold.
pub fn run(plan: Plan) -> Result<Report, Box<Failure>> {
    let mut world = World::new(plan);
    let lived = bugs::during(plan.bug, || catch_unwind(AssertUnwindSafe(|| world.live())));
    let lived = lived.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("a panic: {}", text.unwrap_or_default()))
    });
    match lived {
        Ok(()) => Ok(world.report()),
        Err(wrong) => Err(Box::new(Failure { plan, wrong, virtual_ms: world.now, trace: world.trace.told() })),
    }
}

impl World {
    fn new(plan: Plan) -> Self {
        let mut rng = Rng::new(plan.seed);
        let (image, names) = first_image();
        let began = Instant::now();
        let ids = || (1..=plan.nodes).map(NodeId);
        let machines: Vec<_> = ids().map(|id| Machine::new(id, image.clone(), Rng::new(rng.next()), began)).collect();
        let clients = (0..plan.clients).map(|number| Client::new(number, NodeId(1 + rng.below(plan.nodes))));
        let clients = clients.collect();
        let mood = Mood::drawn(&mut rng);
        let weather = Weather { delay_ms: 3, ..Weather::default() };
        Self {
            plan,
            rng,
            now: 0,
            began,
            members: GroupMembers::voters(ids()),
            starts_at: vec![0; machines.len()],
            machines,
            network: Network::in_weather(weather),
            clients,
            names,
            ids: 0,
            history: Vec::new(),
            served: Vec::new(),
            committed: Committed::default(),
            faults: Faults::default(),
            trace: Trace::default(),
            mood,
            next_fault: 1_500,
        }
    }

    fn live(&mut self) -> Result<(), String> {
        while self.now < self.plan.faults_ms {
            if self.now >= self.next_fault {
                let Self { machines, network, rng, faults, trace, mood, now, .. } = &mut *self;
                let quiet = faults::strike(mood, Stage { machines, network, rng, faults, trace, now: *now });
                self.next_fault = self.now + 20 + self.rng.below(600) + quiet;
            }
            self.meet();
            self.revive()?;
            self.pass_a_millisecond()?;
        }
        faults::heal(&mut self.machines, &mut self.network, &self.members, self.now, &mut self.trace)?;
        self.clients.iter_mut().for_each(|client| client.stops = true);
        let until = self.now + HEALED_WITHIN_MS;
        while self.now < until {
            self.revive()?;
            self.pass_a_millisecond()?;
            if self.now.is_multiple_of(100) && self.has_come_to_rest() {
                self.check_the_end()?;
                return self.start_anew();
            }
        }
        Err("a healed group does not come to rest".to_owned())
    }

    /// Two that lead meet, often as soon as there are two, and so does one who led alone: what one of them has just written is cut
    /// off.
    fn meet(&mut self) {
        let leads = |machine: &&Machine| machine.node.as_ref().is_some_and(|node| node.core.leads_in().is_some());
        let alone = self.network.alone;
        let leaders = self.machines.iter().filter(leads).filter(|machine| Some(machine.id) != alone).count();
        if leaders + usize::from(alone.is_some()) > 1 && self.rng.chance(100) {
            self.network.heal();
            self.trace.line("two leaders meet".to_owned());
        }
    }

    /// Machines that are down, or whose node takes nothing any more, start again some time later.
    ///
    /// # Errors
    /// One does not: whatever happened to a disk, its log can be gone on with.
    fn revive(&mut self) -> Result<(), String> {
        for (machine, starts_at) in self.machines.iter_mut().zip(&mut self.starts_at) {
            if machine.node.as_ref().is_some_and(|node| node.failed.is_some()) {
                machine.kill();
            }
            if machine.node.is_some() || machine.wiped {
                continue;
            }
            if self.now == 0 || *starts_at > 0 && *starts_at <= self.now {
                self.trace.line(format!("{} starts", machine.id));
                *starts_at = 0;
                machine.start(self.now, &self.members, &mut self.trace)?;
            } else if *starts_at == 0 {
                *starts_at = self.now + 1 + {
                    let long = self.rng.chance(4);
                    self.rng.below(if long { 4_000 } else { 300 })
                };
            }
        }
        Ok(())
    }

    fn pass_a_millisecond(&mut self) -> Result<(), String> {
        self.now += 1;
        self.trace.now = self.now;
        let count = self.machines.len();
        let (mut frames, mut requests): (Vec<Vec<Frame>>, Vec<Vec<Request>>) =
            ((0..count).map(|_| Vec::new()).collect(), (0..count).map(|_| Vec::new()).collect());
        while let Some(frame) = self.network.arrives(self.now) {
            frames[frame.message.to.0 as usize - 1].push(frame);
        }
        self.clients_act(&mut requests);
        for (at, (frames, requests)) in frames.into_iter().zip(requests).enumerate() {
            self.turn(at, frames, requests)?;
        }
        self.trace.holds()
    }

    fn clients_act(&mut self, requests: &mut [Vec<Request>]) {
        let Self { now, began, names, machines, .. } = self;
        let lives: Vec<_> = machines.iter().map(Machine::life).collect();
        let around = Surroundings { now: *now, began: *began, names: *names, lives: &lives };
        for client in &mut self.clients {
            let Self { ids, rng, history, trace, .. } = self;
            let asked = client.act(&around, ids, rng, history, trace);
            if let Some((node, request)) = asked {
                requests[node.0 as usize - 1].push(request);
            }
        }
    }

    fn turn(&mut self, at: usize, frames: Vec<Frame>, requests: Vec<Request>) -> Result<(), String> {
        let machine = &mut self.machines[at];
        machine.work_of_the_disk(self.now);
        let Some(node) = &machine.node else { return Ok(()) };
        let due = node.wake <= self.now || machine.has_news();
        if !due && frames.is_empty() && requests.is_empty() {
            return Ok(());
        }
        let mut sent = Vec::new();
        machine.turn(self.now, requests, frames, &mut sent, &mut self.trace);
        let id = machine.id;
        for frame in sent {
            self.network.send(self.now, frame, &mut self.rng);
        }
        if let Some(changed) = machine.disk.changed_under_a_reader() {
            return Err(format!("bytes changed that node {id} had handed out for good: {changed}"));
        }
        let Some(node) = &mut machine.node else { return Ok(()) };
        if node.failed.is_none()
            && let Some(term) = node.core.leads_in()
        {
            self.committed.leads(id.0, term)?;
        }
        self.served.append(&mut node.served);
        for (index, term, checksum) in std::mem::take(&mut node.newly) {
            self.trace.line(format!("{id} commits {index} of term {term}"));
            if self.committed.entry(id.0, index, term, checksum)? {
                self.must_be_durable(index, checksum)?;
            }
        }
        Ok(())
    }

    /// An entry is committed: whatever happens now to all that is not durable, a majority has it.
    fn must_be_durable(&self, index: u64, checksum: u32) -> Result<(), String> {
        let have = self.machines.iter().filter(|machine| machine.wiped || machine.has_durably(index, checksum)).count();
        if have * 2 > self.machines.len() {
            return Ok(());
        }
        Err(format!("I1: entry {index} is committed, and durable on {have} of {} disks", self.machines.len()))
    }

    /// All clients are answered, and all machines have one log.
    fn has_come_to_rest(&self) -> bool {
        let members = || self.machines.iter().filter(|machine| !machine.wiped);
        let commits: Vec<_> = members().filter_map(|machine| Some(machine.node.as_ref()?.commit().index)).collect();
        // When something of its leader's term is committed, so is all that ever was.
        let (last, term) = self.committed.last();
        let leads = |machine: &Machine| machine.node.as_ref().is_some_and(|node| node.core.leads_in() == Some(term));
        let one_log = commits.len() == members().count() && commits.iter().all(|commit| *commit == last);
        one_log && self.clients.iter().all(Client::is_idle) && members().any(leads)
    }

    fn check_the_end(&mut self) -> Result<(), String> {
        // Of a disk on which something turned not all can be read: what its node has in memory is as good as that of others.
        let of = |rotten: bool| self.machines.iter().filter(move |machine| machine.rotten == rotten);
        let nodes: Vec<_> = of(false).filter_map(|machine| machine.node.as_ref()).collect();
        let sound = nodes.len();
        let nodes: Vec<_> = nodes.into_iter().chain(of(true).filter_map(|machine| machine.node.as_ref())).collect();
        let end = nodes[0].commit().position;
        let bytes = |at: usize| {
            let entries = nodes[at].reader().headers_from(nodes[at].reader().start());
            let entries = entries.take_while(|entry| entry.as_ref().is_ok_and(|entry| entry.end <= end));
            entries.map(|entry| entry.map(|entry| (entry.position, entry.checksum))).collect::<Result<Vec<_>, _>>()
        };
        let position = nodes[0].core.state().last_applied().unwrap_or(RecordPosition(0));
        let state = nodes[0].core.state().snapshot(position);
        for (at, node) in nodes.iter().enumerate().skip(1) {
            let logs = [0, if at < sound { at } else { 0 }]
                .map(|at| bytes(at).map_err(|error| format!("the log of a healed group: {error}")));
            let [first, other] = logs;
            if first? != other? {
                return Err(format!("I7: in the end node {} has another log than node {}", node.id, nodes[0].id));
            }
            if node.core.state().snapshot(position) != state {
                return Err(format!("I7: in the end node {} has another state than node {}", node.id, nodes[0].id));
            }
        }
        let replayed = checks::history(&self.history, &self.served, nodes[0].reader(), end)?;
        if replayed.snapshot(position) != state {
            return Err("I7: the state is not what the log says".to_owned());
        }
        Ok(())
    }

    /// Each disk is good for another start, or says why not.
    fn start_anew(&mut self) -> Result<(), String> {
        for machine in self.machines.iter_mut().filter(|machine| machine.node.is_some()) {
            if self.rng.chance(2) {
                machine.kill();
            } else {
                machine.power_cut(LOSSES[self.rng.below(LOSSES.len() as u64) as usize], &mut self.rng);
            }
            machine.start(self.now, &self.members, &mut self.trace)?;
        }
        self.trace.holds()
    }

    fn report(&self) -> Report {
        let done = |event: &&checks::Event| matches!(event.heard, checks::Heard::Done(_) | checks::Heard::Messages(_));
        Report {
            virtual_ms: self.now,
            calls: self.history.len() as u64,
            done: self.history.iter().filter(done).count() as u64,
            faults: self.faults.clone(),
            terms: self.committed.terms() as u64,
            digest: self.trace.digest(),
        }
    }
}
