//! The run: what happens when, all of it decided by a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use vouch_broker::RecordPosition;
use vouch_cluster::{GroupMembers, NodeId, next_change};
use vouch_commitlog::Checkpoint;
use vouch_commitlog::simulated::{Image, LOSSES, Rng};
use vouch_shard::core::Request;

use crate::beginning::{first_entries, first_image};
use crate::bugs;
use crate::checks::{self, Committed, Fate};
use crate::clients::{Client, Names, Surroundings};
use crate::faults::{self, Faults, Mood, Stage};

use crate::guests::{GuestView, Guests};
use crate::machine::{Machine, Snapshots};
use crate::network::{Frame, Network, Weather};
use crate::node::Node;
use crate::operator::{Hurt, Newcomer, Operator};
use crate::plan::{Failure, Plan, Report};
use crate::pulling::Pulls;
use crate::retention::Retention;
use crate::trace::Trace;

/// After faults end, a group must have come to one log within this long.
const HEALED_WITHIN_MS: u64 = 60_000;
/// Makes of a seed another one, by which it is drawn what leaves the logs.
const RELEASES: u64 = 0x7265_6c65_6173_6573;
/// The same for what guests do.
const GUESTS: u64 = 0x6775_6573_7473;
/// The same for what is taken from others' disks.
const PULLS: u64 = 0x0070_756c_6c73;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    began: Instant,
    /// Who changes the members, if they change.
    operator: Option<Operator>,
    /// Who lets messages go, if anything leaves the logs.
    retention: Option<Retention>,
    /// Who is asked about messages and transactions, if anybody is.
    guests: Option<Guests>,
    /// What came of their answers.
    answers: BTreeMap<Fate, u64>,
    pub(crate) machines: Vec<Machine>,
    /// When a machine that is down starts again.
    pub(crate) starts_at: Vec<u64>,
    pub(crate) network: Network,
    clients: Vec<Client>,
    names: Names,
    ids: u64,
    history: Vec<checks::Event>,
    /// What was read of messages that were handed out, and where they lie.
    served: Vec<(RecordPosition, u64)>,
    pub(crate) committed: Committed,
    pub(crate) faults: Faults,
    pub(crate) pulls: Pulls,
    pub(crate) trace: Trace,
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
        // By numbers of its own: runs in which nothing is released are what they would be if there were no releases.
        let mut releases = Rng::new(plan.seed ^ RELEASES);
        let released = plan.pulls || !plan.changes && !plan.guests && releases.chance(2);
        let retention = released.then(|| Retention::new(Rng::new(releases.next())));
        let (image, names) = first_image(plan.nodes, retention.is_some(), plan.guests);
        let began = Instant::now();
        let ids = || (1..=plan.nodes).map(NodeId);
        let mut machines: Vec<_> =
            ids().map(|id| Machine::new(id, image.clone(), Rng::new(rng.next()), began)).collect();
        let clients = (0..plan.clients).map(|number| Client::new(number, NodeId(1 + rng.below(plan.nodes))));
        let mut clients: Vec<_> = clients.collect();
        clients.iter_mut().for_each(|client| client.leaves_some = plan.guests);
        let mut of_guests = Rng::new(plan.seed ^ GUESTS);
        let guests = plan.guests.then(|| Guests::new(Rng::new(of_guests.next())));
        // What is kept is in snapshots, too.
        let snapshots = retention.is_some() || plan.guests && !plan.changes && of_guests.chance(2);
        let mood = Mood::drawn(&mut rng);
        for machine in machines.iter_mut().filter(|_| snapshots) {
            machine.snapshots = Some(Snapshots::new(Rng::new(releases.next()), plan.names));
        }
        let catch_up = plan.pulls.then(|| 8 << Rng::new(plan.seed ^ PULLS).below(4) << 10);
        machines.iter_mut().for_each(|machine| machine.catch_up = catch_up);
        let mut committed = Committed::default();
        for (name, entry) in first_entries(&image) {
            committed.begins_with(name, entry);
        }
        let weather = Weather { delay_ms: 3, ..Weather::default() };
        Self {
            plan,
            rng,
            now: 0,
            began,
            retention,
            guests,
            answers: BTreeMap::new(),
            operator: plan.changes.then(|| Operator::new(NodeId::FIRST, plan.replaces)),
            starts_at: vec![0; machines.len()],
            machines,
            network: Network::in_weather(weather),
            clients,
            names,
            ids: 0,
            history: Vec::new(),
            served: Vec::new(),
            committed,
            faults: Faults::default(),
            pulls: Pulls::default(),
            trace: Trace::default(),
            mood,
            next_fault: 1_500,
        }
    }

    fn live(&mut self) -> Result<(), String> {
        while self.now < self.plan.faults_ms {
            if self.now >= self.next_fault {
                let members: Vec<_> = self.members().all().into_iter().collect();
                let stay = self.operator.as_ref().is_some_and(|operator| operator.lets_stay(&members));
                let Self { machines, network, rng, faults, trace, mood, now, plan, .. } = &mut *self;
                let quiet = faults::strike(
                    mood,
                    Stage {
                        machines,
                        network,
                        rng,
                        faults,
                        trace,
                        now: *now,
                        fixed: !plan.changes,
                        replaced: plan.pulls && stay,
                        guests: plan.guests,
                    },
                );
                if self.plan.pulls && self.rng.chance(12) {
                    self.goes_away();
                }
                self.next_fault = self.now + 20 + self.rng.below(600) + quiet;
            }
            self.meet();
            self.revive()?;
            self.pass_a_millisecond()?;
        }
        faults::heal(&mut self.machines, &mut self.network, self.now, &mut self.trace)?;
        self.clients.iter_mut().for_each(|client| client.stops = true);
        self.operator.iter_mut().for_each(|operator| operator.stops = true);
        self.retention.iter_mut().for_each(|retention| retention.stops = true);
        self.guests.iter_mut().for_each(|guests| guests.stops = true);
        let until = self.now + HEALED_WITHIN_MS;
        while self.now < until {
            self.revive()?;
            self.pass_a_millisecond()?;
            if self.now.is_multiple_of(100) && self.has_come_to_rest() {
                self.check_the_end()?;
                return self.start_anew();
            }
        }
        Err(format!("a healed group does not come to rest: {}", self.how_it_stands()))
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
            if machine.runs() || machine.wiped || machine.left {
                continue;
            }
            if self.now == 0 || *starts_at > 0 && *starts_at <= self.now {
                self.trace.line(format!("{} starts", machine.id));
                *starts_at = 0;
                machine.start(self.now, &mut self.trace)?;
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
            // Its machine may not be there yet.
            let to = frames.get_mut(frame.message.to.0 as usize - 1);
            to.into_iter().for_each(|frames| frames.push(frame.clone()));
        }
        self.clients_act(&mut requests);
        self.operator_acts(&mut requests);
        self.retention_acts(&mut requests);
        self.guests_act(&mut requests);
        for (at, (frames, requests)) in frames.into_iter().zip(requests).enumerate() {
            self.turn(at, frames, requests)?;
        }
        self.pulls_act()?;
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
        if machine.work_of_the_disk(self.now, &mut self.trace) {
            self.faults.count("power cut while a segment is made");
        }
        let Some(node) = &machine.node else { return Ok(()) };
        let before = node.core.state().members().clone();
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
        let (greets, incarnation) = (std::mem::take(&mut node.greets), node.incarnation);
        let newly = std::mem::take(&mut node.newly);
        for entry in newly {
            let Checkpoint { index, term, checksum, position, .. } = entry;
            self.trace.line(format!("{id} commits {index} of term {term}"));
            if self.committed.entry(id.0, entry)? {
                self.must_be_durable(&before, index, checksum)?;
            }
            let machine = &self.machines[at];
            // What a header says of its entry's checksum is not covered by its own.
            let is_it = |node: &&Node| node.reader().checkpoint_at(position).ok() == Some(entry);
            let node = machine.node.as_ref().filter(|_| !self.committed.knows(index)).filter(is_it);
            let read = node.and_then(|node| node.reader().entry_at(position).ok());
            read.into_iter().for_each(|entry| self.committed.learn(entry));
        }
        let all_have = if self.plan.pulls { u64::MAX } else { self.all_have() };
        if self.machines[at].keep_snapshots(all_have, &mut self.trace) {
            self.faults.count("power cut while segments are released");
        }
        self.greet(id, incarnation, &greets);
        Ok(())
    }

    /// What every machine has as committed, and has noted, that may come back.
    fn all_have(&self) -> u64 {
        let stays = |machine: &&Machine| !machine.wiped && !machine.left;
        self.machines.iter().filter(stays).map(Machine::noted_commit).min().unwrap_or(0)
    }

    /// Somebody looks after what leaves the log.
    fn retention_acts(&mut self, requests: &mut [Vec<Request>]) {
        let Self { retention: Some(retention), machines, ids, history, names, now, .. } = self else { return };
        let leads = |machine: &&Machine| machine.node.as_ref().is_some_and(|node| node.core.leads_in().is_some());
        if let Some(node) = machines.iter().find(leads).and_then(|machine| machine.node.as_ref()) {
            let applied = vouch_storage::record_position(node.commit().position);
            let asked = retention.act(*now, (node.core.state(), applied), *names, ids, history);
            requests[node.id.0 as usize - 1].extend(asked);
        }
    }

    /// Guests hear and ask on each node that runs.
    fn guests_act(&mut self, requests: &mut [Vec<Request>]) {
        let Self { guests: Some(guests), machines, trace, now, began, .. } = self else { return };
        for (machine, requests) in machines.iter().zip(requests) {
            match view(machine, *now, *began) {
                Some(view) => requests.extend(guests.act(machine.id, &view, trace)),
                None => guests.are_gone(machine.id),
            }
        }
    }

    /// By whom the guests are looked at: those that lead.
    fn views(&self) -> impl Iterator<Item = GuestView<'_>> {
        let views = self.machines.iter().filter_map(|machine| view(machine, self.now, self.began));
        views.filter(|view| view.leads.is_some())
    }

    /// All that guests are asked about has come to its end.
    fn guests_are_idle(&self) -> bool {
        let Some(guests) = &self.guests else { return true };
        self.views().all(|view| guests.is_idle(&view))
    }

    /// Connections begin with a word about who is there: whoever sent to an earlier life of a node learns of the one that runs.
    fn greet(&mut self, id: NodeId, incarnation: u64, whom: &[NodeId]) {
        for other in whom.iter().filter(|other| !self.network.cut_off.contains(&(id, **other))) {
            if let Some(node) = &mut self.machines[other.0 as usize - 1].node {
                let known = node.heard.entry(id).or_default();
                *known = incarnation.max(*known);
            }
        }
    }

    /// An entry is committed: whatever happens now to all that is not durable, those who decide have it. They are the members of
    /// before the turn in which that was heard of, or those that came of it.
    fn must_be_durable(&self, before: &GroupMembers, index: u64, checksum: u32) -> Result<(), String> {
        let has = |machine: &&Machine| machine.wiped || machine.has_durably(index, checksum);
        let have: BTreeSet<_> = self.machines.iter().filter(has).map(|machine| machine.id).collect();
        let now = self.machines.iter().filter_map(|machine| Some(machine.node.as_ref()?.core.state().members()));
        if before.decide(&have) || now.max_by_key(|members| members.decide(&have)).is_some_and(|m| m.decide(&have)) {
            return Ok(());
        }
        Err(format!("I1: entry {index} is committed, and durable on {} of {} disks", have.len(), self.machines.len()))
    }

    /// The members, as the machine knows that has applied most.
    fn members(&self) -> GroupMembers {
        let nodes = self.machines.iter().filter_map(|machine| machine.node.as_ref());
        let latest = nodes.max_by_key(|node| node.commit().index);
        latest.map_or_else(GroupMembers::default, |node| node.core.state().members().clone())
    }

    /// Who changes the members hears and asks. Machines of nodes that came start, those of nodes that left are gone.
    fn operator_acts(&mut self, requests: &mut [Vec<Request>]) {
        if self.operator.is_none() {
            return;
        }
        let nodes = self.machines.iter().filter_map(|machine| machine.node.as_ref());
        let Some(latest) = nodes.max_by_key(|node| node.commit().index) else { return };
        let (members, known) = (latest.core.state().members().all(), latest.core.state().nodes().clone());
        for machine in self.machines.iter_mut().filter(|machine| known.is_gone(machine.id) && !machine.left) {
            // Some hear that they are gone, and some never do.
            if !members.contains(&machine.id) && self.rng.chance(500) {
                self.trace.line(format!("{} left", machine.id));
                machine.kill();
                machine.left = true;
            }
        }
        let Self { operator, rng, trace, now, plan, machines, .. } = self;
        let Some(operator) = operator else { return };
        let there: Vec<_> = members.into_iter().collect();
        let with = |is: fn(&&Machine) -> bool| machines.iter().filter(is).map(|machine| machine.id).collect();
        let hurt = Hurt { lost: with(|machine| machine.wiped), damaged: with(|machine| machine.rotten) };
        let (asked, newcomer) = operator.act((*now, plan.nodes as usize), (&there, &hurt), rng, trace);
        if let Some((node, request)) = asked
            && let Some(requests) = requests.get_mut(node.0 as usize - 1)
        {
            requests.push(request);
        }
        if let Some(Newcomer(id)) = newcomer {
            if known.nodes.get(&id).is_some_and(|node| node.replaces.is_some()) {
                self.faults.count("a node comes for another");
            }
            self.comes(id);
        }
    }

    /// The machine of a node that joined, with an empty disk. Those of ids that nobody came for never start.
    fn comes(&mut self, id: NodeId) {
        while self.machines.len() < id.0 as usize {
            let next = NodeId(self.machines.len() as u64 + 1);
            let mut machine = Machine::new(next, Image::new(), Rng::new(self.rng.next()), self.began);
            machine.left = next != id;
            if let Some(first) = self.machines.first().filter(|first| first.catch_up.is_some()) {
                machine.catch_up = first.catch_up;
                machine.snapshots = Some(Snapshots::new(Rng::new(self.rng.next()), self.plan.names));
            }
            self.machines.push(machine);
            self.starts_at.push(self.now + 1 + self.rng.below(500));
        }
        self.faults.count("a node comes");
    }

    /// All clients are answered, and all members have one log.
    fn has_come_to_rest(&self) -> bool {
        let all = self.members();
        let members = || self.machines.iter().filter(|machine| !machine.wiped && all.all().contains(&machine.id));
        let commits: Vec<_> = members().filter_map(|machine| Some(machine.node.as_ref()?.commit().index)).collect();
        // When something of its leader's term is committed, so is all that ever was.
        let (last, term) = self.committed.last();
        let leads = |machine: &Machine| machine.node.as_ref().is_some_and(|node| node.core.leads_in() == Some(term));
        let one_log = commits.len() == members().count() && commits.iter().all(|commit| *commit == last);
        let nodes = self.machines.iter().filter_map(|machine| machine.node.as_ref());
        let steady = nodes.max_by_key(|node| node.commit().index).is_some_and(|node| {
            let state = node.core.state();
            next_change(state.members(), state.nodes(), &all.all()).is_none()
        });
        let is_lost = |machine: &&Machine| machine.wiped && all.all().contains(&machine.id);
        let steady = steady && (self.operator.is_none() || !self.machines.iter().any(|machine| is_lost(&machine)));
        let idle = self.clients.iter().all(Client::is_idle) && self.operator.iter().all(Operator::is_idle);
        one_log && steady && idle && self.guests_are_idle() && members().any(leads)
    }

    /// In a sentence, for whoever looks why it does not come to rest.
    fn how_it_stands(&self) -> String {
        let nodes = self.machines.iter().filter_map(|machine| machine.node.as_ref());
        let told = nodes.map(|node| {
            let stands = node.core.group_standing().map_or(String::new(), |group| {
                format!(
                    "{:?} in term {} with {} entries, others {:?}",
                    group.role, group.term, group.last, group.followers
                )
            });
            format!("node {} has {}: {stands}, {:?}", node.id, node.commit().index, node.failed)
        });
        let idle = self.clients.iter().filter(|client| !client.is_idle()).count();
        let guests = self.guests.iter().zip(self.views()).map(|(guests, view)| guests.how_it_stands(&view));
        let told: Vec<_> = told.chain(guests).collect();
        format!("{:?}; {}; {idle} clients wait", self.members(), told.join(", "))
    }

    fn check_the_end(&mut self) -> Result<(), String> {
        // Of a disk on which something turned not all can be read: what its node has in memory is as good as that of others.
        let members = &self.members().all();
        let of = |rotten: bool| {
            let is_one = move |machine: &&Machine| machine.rotten == rotten && members.contains(&machine.id);
            self.machines.iter().filter(is_one)
        };
        let nodes: Vec<_> = of(false).filter_map(|machine| machine.node.as_ref()).collect();
        let sound = nodes.len();
        let nodes: Vec<_> = nodes.into_iter().chain(of(true).filter_map(|machine| machine.node.as_ref())).collect();
        let end = nodes[0].commit().position;
        for node in &nodes[..sound] {
            self.committed.is_log(node.id.0, node.reader(), end)?;
            if self.guests.is_some() {
                checks::published_is_read(node.core.state(), node.reader())?;
            }
        }
        let position = nodes[0].core.state().last_applied().unwrap_or(RecordPosition(0));
        let state = nodes[0].core.state().snapshot(position);
        for node in &nodes[1..] {
            if node.core.state().snapshot(position) != state {
                return Err(format!("I7: in the end node {} has another state than node {}", node.id, nodes[0].id));
            }
        }
        let told = self.guests.as_ref().map(|guests| &guests.told);
        let (replayed, answers) = checks::history(&self.history, &self.served, &self.committed, told)?;
        if replayed.snapshot(position) != state {
            return Err("I7: the state is not what the log says".to_owned());
        }
        self.answers = answers;
        Ok(())
    }

    /// Each disk is good for another start, or says why not.
    fn start_anew(&mut self) -> Result<(), String> {
        for machine in self.machines.iter_mut().filter(|machine| machine.node.is_some() && !machine.left) {
            if self.rng.chance(2) {
                machine.kill();
            } else {
                machine.power_cut(LOSSES[self.rng.below(LOSSES.len() as u64) as usize], &mut self.rng);
            }
            machine.start(self.now, &mut self.trace)?;
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
            recycled: self.machines.iter().map(|machine| machine.recycled).sum(),
            compared: self.trace.compared,
            from_snapshots: self.machines.iter().map(|machine| machine.began_from_one).sum(),
            pulls: self.pulls,
            answers: self.answers.clone(),
            digest: self.trace.digest(),
        }
    }
}

/// What guests find on a machine; nothing where no node answers.
fn view(machine: &Machine, now: u64, began: Instant) -> Option<GuestView<'_>> {
    let (life, node) = (machine.life()?, machine.node.as_ref()?);
    let (state, around, leads) = (node.core.state(), &node.around, node.core.leads_in());
    Some(GuestView { now, began, time: machine.moment(now).time, life, leads, state, around })
}
