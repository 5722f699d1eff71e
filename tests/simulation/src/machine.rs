//! A machine: a disk, and on it a node while that runs.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vouch_broker::{Millis, ShardId, State};
use vouch_cluster::{GroupMembers, NodeId};
use vouch_commitlog::simulated::{Image, PowerLoss, Rng, SimDisk, SimFault, Steps, open, open_note};
use vouch_commitlog::{Checkpoint, Durable, Entry, LogConfig, LogIdentity, LogPosition};
use vouch_leader::testing::Around;
use vouch_shard::core::{ClockSays, Core, CoreBeginning, Event, Moment, Request};
use vouch_shard::{Lead, Member, member};
use vouch_storage::{Committed, Known, LogName, ReplicaFile, replay};

use crate::beginning::BEGUN;
use crate::bugs::{Slip, slips};
use crate::ledger::Ledger;
use crate::network::Frame;
use crate::node::{News, Node, Outside, standing};
use crate::trace::Trace;

mod rot;

pub(crate) use rot::NoStart;

pub(crate) const CLUSTER: [u8; 16] = [1; 16];
const SEGMENT: u64 = 32 << 10;
const NAME: LogName = LogName { cluster_id: CLUSTER, shard: ShardId::FIRST };
/// When a run begins, by all clocks.
pub(crate) const BEGIN: u64 = 1_000_000_000;

pub(crate) fn log_config() -> LogConfig {
    LogConfig { segment_size: SEGMENT, zero_ahead: 8 << 10, syncs_in_flight: 2, ..LogConfig::new("log", CLUSTER, 0) }
}

pub(crate) fn identity() -> LogIdentity {
    LogIdentity { cluster_id: CLUSTER, shard: 0, segment_size: SEGMENT }
}

pub(crate) struct Machine {
    pub(crate) id: NodeId,
    pub(crate) disk: SimDisk,
    pub(crate) node: Option<Node>,
    /// How often a node began on it.
    pub(crate) lives: u64,
    /// Its disk was replaced: it is no member any more.
    pub(crate) wiped: bool,
    /// Its node belongs to the cluster no more.
    pub(crate) left: bool,
    /// Milliseconds that its clock is ahead; it may be set back.
    pub(crate) clock_ahead: i64,
    /// One step of a sync in so many turns; 0: the disk hangs.
    pub(crate) disk_pace: u64,
    /// From when and until when syncs run, and nobody hears of it.
    pub(crate) unheard: Range<u64>,
    /// Something on its disk turned. Whoever finds that closes, or does not start: then it is lost.
    pub(crate) rotten: bool,
    /// So it was with its note.
    note_turned: bool,
    ledger: Ledger,
    /// Its disk failed, or is to, since its node began.
    tampered: bool,
    /// The clock of a node goes on from the last time in its log.
    least_time: Millis,
    /// What a sync of an earlier life may still report.
    late_report: Option<LogPosition>,
    rng: Rng,
    began: Instant,
}

impl Machine {
    pub(crate) fn new(id: NodeId, image: Image, rng: Rng, began: Instant) -> Self {
        Self {
            id,
            disk: SimDisk::new(image),
            node: None,
            lives: 0,
            wiped: false,
            left: false,
            clock_ahead: 0,
            disk_pace: 1,
            unheard: 0..0,
            rotten: false,
            note_turned: false,
            ledger: Ledger::default(),
            tampered: false,
            least_time: Millis(0),
            late_report: None,
            rng,
            began,
        }
    }

    fn moment(&self, now: u64) -> Moment {
        let time = (BEGIN + now).saturating_add_signed(self.clock_ahead);
        Moment { time: Millis(time).max(self.least_time), at: self.began + Duration::from_millis(now) }
    }

    /// Starts the node with what is on the disk.
    ///
    /// # Errors
    /// Why it does not start.
    pub(super) fn begin(&mut self, now: u64) -> Result<(), NoStart> {
        let text = |error: &dyn std::fmt::Display| NoStart::Refused(error.to_string());
        let file = open_note(&self.disk, "replica").map_err(|error| text(&error))?;
        let note = ReplicaFile::noted(&file, NAME).map_err(|error| text(&error))?;
        let mut config = log_config();
        Known::of_note(note.as_ref()).tell(&mut config);
        let known = note.as_ref().map_or(BEGUN, |note| note.commit.index.max(BEGUN));
        let (mut state, mut tail) = (State::default(), Vec::new());
        let news = Arc::<Mutex<News>>::default();
        let reports = news.clone();
        let on_durable = move |report: Durable| {
            let mut news = reports.lock().unwrap();
            match report {
                Durable::Up { to } => news.durable = Some(to),
                Durable::Poisoned(report) => news.failed = Some(report.to_string()),
            }
        };
        let (mut base, mut applied) = (None, Committed::default());
        let opened = open(&self.disk, &config, on_durable, &mut |entry: Entry| {
            if entry.index <= known {
                replay(&mut state, &entry)?;
                applied = Committed { index: entry.index, position: entry.end };
                base = Some(entry.position);
            } else {
                tail.push(entry);
            }
            Ok(())
        });
        let (mut appender, reader, recovery) = opened.map_err(|error| text(&error))?;
        let mut file = ReplicaFile::begin(file, NAME, &recovery).map_err(|error| text(&error))?;
        if !file.note().member {
            file.is_member(self.id).map_err(|error| text(&error))?;
            // A log that was opened as that of a node alone settles what is durable: one of several must be opened anew.
            drop((file, appender, reader));
            return self.begin(now);
        }
        file.end_with_an_entry(&mut appender, &recovery).map_err(|error| text(&error))?;
        let found =
            reader.headers_from(reader.start()).map(|entry| entry.and_then(|at| reader.checkpoint_at(at.position)));
        let told = note.ok_or_else(|| text(&"the note of a member is gone"))?;
        let found = found.collect::<Result<_, _>>().map_err(|error| text(&error))?;
        self.ledger.found(found, &told).map_err(NoStart::Wrong)?;
        self.ledger.noted(file.note());
        self.least_time = Millis(recovery.last_leader_time_ms);
        let base = base.map_or(Ok(Checkpoint::BEFORE_ALL), |base| reader.checkpoint_at(base));
        let base = base.map_err(|error| text(&error))?;
        let mut draws = Rng::new(self.rng.next());
        let replica = member(Member {
            node: self.id,
            members: if slips(Slip::MembersOfTheBeginning) {
                GroupMembers::voters((1..=3).map(NodeId))
            } else {
                state.members().clone()
            },
            note: file.note(),
            log: &reader,
            before: None,
            applied: base,
            draw: Box::new(move |below| draws.below(below)),
        });
        let replica = Some(replica.map_err(|broken| text(&broken))?);
        let incarnation = file.note().incarnation;
        // An empty log begins behind the head of its first segment.
        let commit = if applied.index == 0 { file.note().commit } else { applied };
        let (log, applied_to) = (standing(&appender, None), applied.position);
        let beginning =
            CoreBeginning { state, applied: applied_to, log, tail, reserve: 1 << 10, replica, closed: None };
        let core = Core::new(beginning, self.moment(now));
        let around = Around::default();
        // Generations of different lives differ, as those of clocks do.
        around.generation.set((BEGIN + now) << 20 | self.id.0 << 16);
        let mut node = Node {
            id: self.id,
            core,
            appender,
            reader,
            steps: Steps::new(config.syncs_in_flight),
            file,
            around,
            news,
            base,
            commit,
            noted_at: now,
            appended_at: now,
            now,
            incarnation,
            heard: BTreeMap::new(),
            greets: Vec::new(),
            waits_for_syncs: self.rng.chance(2),
            is_sound: true,
            dies: None,
            died: None,
            held: VecDeque::new(),
            in_hands: Vec::new(),
            cut_to: None,
            deaf_until: 0,
            failed: None,
            wake: now,
            newly: Vec::new(),
            served: Vec::new(),
        };
        let (cluster_id, segment_size, handle_key) = (CLUSTER, SEGMENT, [2; 32]);
        node.core.step(Event::MayLead(Lead { cluster_id, segment_size, handle_key, leapt_from: None }), &node.around);
        self.node = Some(node);
        self.lives += 1;
        Ok(())
    }

    /// Which life of its node answers now, if one does.
    pub(crate) fn life(&self) -> Option<u64> {
        self.node.as_ref().filter(|node| node.failed.is_none()).map(|_| self.lives)
    }

    /// Its node is gone.
    fn ends(&mut self, killed: bool) {
        let Some(node) = self.node.take() else { return };
        self.ledger.ends(node.appender.durable(), killed);
        self.late_report = Some(node.appender.appended());
        self.tampered = false;
    }

    /// The process is killed: what was written can be read by the next one.
    pub(crate) fn kill(&mut self) {
        self.kill_at(self.disk.events());
    }

    fn kill_at(&mut self, events: usize) {
        self.ends(true);
        self.disk = self.disk.fork(events);
    }

    /// The power goes.
    pub(crate) fn power_cut(&mut self, loss: PowerLoss, rng: &mut Rng) {
        self.power_cut_at(self.disk.events(), loss, rng);
    }

    fn power_cut_at(&mut self, events: usize, loss: PowerLoss, rng: &mut Rng) {
        let image = self.disk.after_power_cut(events, loss, rng);
        self.ends(false);
        self.disk = SimDisk::new(image);
    }

    /// It gets a new disk, with no more on it than all began with.
    pub(crate) fn wipe(&mut self, image: Image) {
        self.ends(false);
        (self.disk, self.ledger, self.wiped) = (SimDisk::new(image), Ledger::default(), !slips(Slip::WipedNodeVotes));
    }

    /// Its disk fails, now or soon.
    pub(crate) fn fails(&mut self, fault: SimFault) {
        self.tampered = true;
        self.disk.inject(fault);
    }

    /// Whether the entry with this index lies on its disk for good, by what its log said.
    pub(crate) fn has_durably(&self, index: u64, checksum: u32) -> bool {
        let durable = self.node.as_ref().map_or(self.ledger.durable, |node| node.appender.durable());
        self.ledger.entry(index).is_some_and(|entry| entry.checksum == checksum && entry.end <= durable)
    }

    /// One turn of its node, if it runs.
    pub(crate) fn turn(
        &mut self,
        now: u64,
        requests: Vec<Request>,
        frames: Vec<Frame>,
        sent: &mut Vec<Frame>,
        trace: &mut Trace,
    ) {
        let (moment, when) = (self.moment(now), self.rng.below(4));
        let late_report = self.late_report.filter(|_| slips(Slip::SyncOfAnEarlierLife) && self.rng.chance(8));
        let rotten = self.rotten;
        let Self { node, ledger, disk, .. } = self;
        let Some(node) = node else { return };
        let outside = &mut Outside { sent, ledger, disk, rotten, trace };
        node.is_sound = !self.tampered && !rotten;
        let (durable, end) = (node.appender.durable(), node.appender.appended());
        if let Some(to) = node.cut_to.take_if(|to| *to < durable)
            && !rotten
            && !outside.disk.has_for_good(to.0..durable.0.min(end.0), SEGMENT)
        {
            outside.trace.wrong(format!("node {} cut at {to}, and says that it is durable up to {durable}", node.id));
        }
        if durable > end {
            outside.trace.wrong(format!("the log of node {} ends at {end}, and is durable up to {durable}", node.id));
        }
        node.begin(moment, now);
        let mut news = std::mem::take(&mut *node.news.lock().unwrap());
        news.durable = news.durable.or(late_report);
        if news.durable.is_some() || news.failed.is_some() {
            node.in_hands.push(news);
        }
        if self.rng.chance(100) {
            node.deaf_until = node.deaf_until.max(now + self.rng.below(400));
        }
        let when = if now < node.deaf_until { 3 } else { when };
        // What the log told may be looked at before or behind what others said, or in a later turn.
        if when == 0 {
            node.hear_the_log(outside);
        }
        for frame in frames {
            node.hear(frame, outside);
        }
        if when == 1 || when == 2 {
            node.hear_the_log(outside);
        }
        for request in requests {
            node.tell(Event::Request(request), outside);
        }
        let clock = node.core.second_is_over().then(ClockSays::default);
        node.tell(Event::TurnEnds(clock), outside);
        node.keep_note(now, outside);
        node.read_something(self.rng.below(12), outside);
        let patience = node.core.patience(moment);
        node.wake = now + (patience.as_millis() as u64).clamp(1, 50);
        self.die_if_it_is_time(trace);
    }

    fn die_if_it_is_time(&mut self, trace: &mut Trace) {
        let Some(node) = &self.node else { return };
        let (Some(events), Some(death)) = (node.died, node.dies) else { return };
        trace.line(format!("{} dies: {death:?}", self.id));
        let mut rng = self.rng.clone();
        match death.loss {
            Some(loss) => self.power_cut_at(events, loss, &mut rng),
            None => self.kill_at(events),
        }
        self.rng = rng;
    }

    /// What the disk does meanwhile.
    pub(crate) fn work_of_the_disk(&mut self, now: u64) {
        let Some(node) = &mut self.node else { return };
        if self.disk_pace > 0 && self.rng.chance(self.disk_pace) {
            let slots = node.steps.slots() as u64;
            let sync = if self.unheard.contains(&now) { Steps::sync_unheard } else { Steps::sync };
            sync(&mut node.steps, &node.appender, self.rng.below(slots) as usize);
            sync(&mut node.steps, &node.appender, self.rng.below(slots) as usize);
            if self.rng.chance(8) {
                Steps::fill(&node.appender);
            }
        }
    }

    pub(crate) fn has_news(&self) -> bool {
        self.node.as_ref().is_some_and(|node| {
            let news = node.news.lock().unwrap();
            news.durable.is_some() || news.failed.is_some() || !node.in_hands.is_empty()
        })
    }
}
