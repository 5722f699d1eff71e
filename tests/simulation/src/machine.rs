//! A machine: a disk, and on it a node while that runs.

use std::ops::Range;
use std::time::{Duration, Instant};

use vouch_broker::{Millis, ShardId};
use vouch_cluster::NodeId;
use vouch_commitlog::simulated::{Image, PowerLoss, Rng, SimDisk, SimFault, Steps};
use vouch_commitlog::{LogConfig, LogIdentity, LogPosition};
use vouch_shard::core::{ClockSays, Event, Moment, Request};
use vouch_storage::LogName;

use crate::bugs::{Slip, slips};
use crate::ledger::Ledger;
use crate::network::Frame;
use crate::node::{Node, Outside};
use crate::trace::Trace;

mod begin;
mod offer;
mod pull;
mod rot;
mod shelves;
mod snapshots;

pub(crate) use offer::ASKS_WITHIN;
use pull::Beside;
pub(crate) use pull::{Lack, Pull, Pulled};
pub(crate) use rot::NoStart;
pub(crate) use snapshots::Snapshots;

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
    /// Those of its state, where any are taken.
    pub(crate) snapshots: Option<Snapshots>,
    /// What it keeps in bytes for those who are behind; who lacks more takes that from a disk. `None`: nobody does.
    pub(crate) catch_up: Option<u64>,
    /// It takes from others what it lacks.
    pub(crate) pull: Option<Pull>,
    /// What it gathered, beside what it has.
    beside: Beside,
    /// What its node is to hear of them.
    asks: Vec<Request>,
    /// How often it began from one.
    pub(crate) began_from_one: u64,
    /// Files that became segments again.
    pub(crate) recycled: u64,
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
            snapshots: None,
            catch_up: None,
            pull: None,
            beside: Beside::default(),
            asks: Vec::new(),
            began_from_one: 0,
            recycled: 0,
            tampered: false,
            least_time: Millis(0),
            late_report: None,
            rng,
            began,
        }
    }

    pub(crate) fn moment(&self, now: u64) -> Moment {
        let time = (BEGIN + now).saturating_add_signed(self.clock_ahead);
        Moment { time: Millis(time).max(self.least_time), at: self.began + Duration::from_millis(now) }
    }

    /// Whether a process runs on it, be it one that only pulls.
    pub(crate) fn runs(&self) -> bool {
        self.node.is_some() || self.pull.is_some()
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
        self.asks.clear();
    }

    /// The process is killed: what was written can be read by the next one.
    pub(crate) fn kill(&mut self) {
        self.kill_at(self.disk.events());
    }

    fn kill_at(&mut self, events: usize) {
        if self.pull.is_some() {
            return self.pull_ends(None, &mut Rng::new(0));
        }
        self.ends(true);
        self.disk = self.disk.fork(events);
    }

    /// The power goes.
    pub(crate) fn power_cut(&mut self, loss: PowerLoss, rng: &mut Rng) {
        self.power_cut_at(self.disk.events(), loss, rng);
    }

    fn power_cut_at(&mut self, events: usize, loss: PowerLoss, rng: &mut Rng) {
        if self.pull.is_some() {
            return self.pull_ends(Some(loss), rng);
        }
        let image = self.disk.after_power_cut(events, loss, rng);
        self.ends(false);
        self.disk = SimDisk::new(image);
    }

    /// It gets a new disk, with no more on it than all began with.
    pub(crate) fn wipe(&mut self, image: Image) {
        self.ends(false);
        self.snapshots.iter_mut().for_each(Snapshots::lost);
        (self.pull, self.beside) = (None, Beside::default());
        let comes_back = slips(Slip::WipedNodeVotes) || slips(Slip::WipedNodePulls);
        let image = if slips(Slip::WipedNodePulls) { Image::new() } else { image };
        (self.disk, self.ledger, self.wiped) = (SimDisk::new(image), Ledger::default(), !comes_back);
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
        let (rotten, events) = (self.rotten, self.disk.events());
        let Self { node, ledger, disk, asks, .. } = self;
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
        for request in requests.into_iter().chain(asks.drain(..)) {
            node.tell(Event::Request(request), outside);
        }
        let clock = node.core.second_is_over().then(ClockSays::default);
        node.tell(Event::TurnEnds(clock), outside);
        node.keep_note(now, outside);
        node.learn_names(now, outside);
        node.read_something(self.rng.below(12), outside);
        let patience = node.core.patience(moment);
        node.wake = now + (patience.as_millis() as u64).clamp(1, 50);
        self.recycled += self.disk.recycled_since(events);
        self.die_if_it_is_time(trace);
        self.stop_if_behind(now, trace);
    }

    /// A node that hears that it lacks what its leader does not keep ends, and takes that from a disk.
    fn stop_if_behind(&mut self, now: u64, trace: &mut Trace) {
        if self.node.as_ref().is_some_and(|node| node.fell_behind && node.failed.is_none()) {
            self.kill();
            if let Err(why) = self.begins_to_pull(&[], now, trace) {
                trace.wrong(format!("node {} cannot take what it lacks: {why}", self.id));
            }
        }
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

    /// What the disk does meanwhile. Whether the power went.
    pub(crate) fn work_of_the_disk(&mut self, now: u64, trace: &mut Trace) -> bool {
        let Some(node) = &mut self.node else { return false };
        if self.disk_pace > 0 && self.rng.chance(self.disk_pace) {
            let slots = node.steps.slots() as u64;
            let sync = if self.unheard.contains(&now) { Steps::sync_unheard } else { Steps::sync };
            sync(&mut node.steps, &node.appender, self.rng.below(slots) as usize);
            sync(&mut node.steps, &node.appender, self.rng.below(slots) as usize);
            if self.rng.chance(8) {
                let events = self.disk.events();
                Steps::fill(&node.appender);
                let recycled = self.disk.recycled_since(events);
                self.recycled += recycled;
                return recycled > 0 && self.power_goes_since(events, trace);
            }
        }
        false
    }

    pub(crate) fn has_news(&self) -> bool {
        self.node.as_ref().is_some_and(|node| {
            let news = node.news.lock().unwrap();
            news.durable.is_some() || news.failed.is_some() || !node.in_hands.is_empty()
        })
    }
}
