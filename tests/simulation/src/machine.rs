//! A machine: a disk, and on it a node while that runs. It carries out what the core wants as the shard's thread does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vouch_broker::{Millis, ShardId, State};
use vouch_commitlog::simulated::{Image, Rng, SimDisk, Steps, open, open_note};
use vouch_commitlog::{
    Appender, Checkpoint, Durable, Entry, EntrySpan, LogConfig, LogIdentity, LogPosition, LogReader,
};
use vouch_consensus::{GroupMembers, NodeId};
use vouch_leader::testing::Around;
use vouch_shard::core::{
    ClockSays, Command, Core, CoreBeginning, Event, Hearer, LeaderEntry, LogStanding, Moment, Request,
};
use vouch_shard::{Lead, Member, member};
use vouch_storage::{Committed, Known, LogName, NotedCut, ReplicaFile, replay};

use crate::network::Frame;
use crate::trace::Trace;

pub(crate) const CLUSTER: [u8; 16] = [1; 16];
const SEGMENT: u64 = 32 << 10;
const NAME: LogName = LogName { cluster_id: CLUSTER, shard: ShardId::FIRST };
/// When a run begins, by all clocks.
pub(crate) const BEGIN: u64 = 1_000_000_000;

pub(crate) fn log_config() -> LogConfig {
    LogConfig { segment_size: SEGMENT, zero_ahead: 8 << 10, syncs_in_flight: 2, ..LogConfig::new("log", CLUSTER, 0) }
}

fn identity() -> LogIdentity {
    LogIdentity { cluster_id: CLUSTER, shard: 0, segment_size: SEGMENT }
}

#[derive(Default)]
struct News {
    durable: Option<LogPosition>,
    failed: Option<String>,
}

/// A node that runs.
pub(crate) struct Node {
    id: NodeId,
    pub(crate) core: Core,
    appender: Appender,
    reader: LogReader,
    steps: Steps,
    file: ReplicaFile,
    around: Around,
    news: Arc<Mutex<News>>,
    base: Checkpoint,
    /// The log's time that it follows.
    clock_floor: u64,
    commit: Committed,
    noted_at: u64,
    pub(crate) incarnation: u64,
    /// The highest incarnation of others that it heard of.
    heard: BTreeMap<NodeId, u64>,
    /// Why it takes nothing any more.
    pub(crate) failed: Option<String>,
    /// When it has something to do by the clock.
    pub(crate) wake: u64,
    /// What was committed since this was last asked.
    pub(crate) newly: Vec<(u64, u64, u32)>,
}

pub(crate) struct Machine {
    pub(crate) id: NodeId,
    pub(crate) disk: SimDisk,
    pub(crate) node: Option<Node>,
    /// Milliseconds that its clock is ahead; it may be set back.
    pub(crate) clock_ahead: i64,
    /// One step of a sync in so many turns; 0: the disk hangs.
    pub(crate) disk_pace: u64,
    rng: Rng,
    began: Instant,
}

/// What a machine sends, and what else came of a turn.
pub(crate) struct Outside<'a> {
    pub(crate) sent: &'a mut Vec<Frame>,
    pub(crate) trace: &'a mut Trace,
}

impl Machine {
    pub(crate) fn new(id: NodeId, image: Image, rng: Rng, began: Instant) -> Self {
        Self { id, disk: SimDisk::new(image), node: None, clock_ahead: 0, disk_pace: 1, rng, began }
    }

    fn moment(&self, now: u64) -> Moment {
        let time = (BEGIN + now).saturating_add_signed(self.clock_ahead);
        Moment { time: Millis(time), at: self.began + Duration::from_millis(now) }
    }

    /// Starts the node with what is on the disk.
    ///
    /// # Errors
    /// Why it does not start.
    pub(crate) fn start(&mut self, now: u64, members: &GroupMembers) -> Result<(), String> {
        let file = open_note(&self.disk, "replica").map_err(|error| error.to_string())?;
        let note = ReplicaFile::noted(&file, NAME).map_err(|error| error.to_string())?;
        let mut config = log_config();
        Known::of_note(note.as_ref()).tell(&mut config);
        let known = note.as_ref().map_or(1, |note| note.commit.index.max(1));
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
        let (mut appender, reader, recovery) = opened.map_err(|error| error.to_string())?;
        let mut file = ReplicaFile::begin(file, NAME, &recovery).map_err(|error| error.to_string())?;
        if !file.note().member {
            file.is_member(self.id).map_err(|error| error.to_string())?;
        }
        file.end_with_an_entry(&mut appender, &recovery).map_err(|error| error.to_string())?;
        let base = reader.checkpoint_at(base.ok_or("the log is empty")?).map_err(|error| error.to_string())?;
        let mut draws = Rng::new(self.rng.next());
        let replica = member(Member {
            node: self.id,
            members: members.clone(),
            note: file.note(),
            log: &reader,
            before: None,
            applied: base,
            draw: Box::new(move |below| draws.below(below)),
        });
        let replica = Some(replica.map_err(|broken| broken.to_string())?);
        let incarnation = file.note().incarnation;
        let (log, applied_to) = (standing(&appender), applied.position);
        let beginning =
            CoreBeginning { state, applied: applied_to, log, tail, reserve: 1 << 10, replica, closed: None };
        let core = Core::new(beginning, self.moment(now));
        let around = Around::default();
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
            clock_floor: 0,
            commit: applied,
            noted_at: now,
            incarnation,
            heard: BTreeMap::new(),
            failed: None,
            wake: now,
            newly: Vec::new(),
        };
        let (cluster_id, segment_size, handle_key) = (CLUSTER, SEGMENT, [2; 32]);
        node.core.step(Event::MayLead(Lead { cluster_id, segment_size, handle_key, leapt_from: None }), &node.around);
        self.node = Some(node);
        Ok(())
    }

    /// The process is killed: what was written can be read by the next one.
    pub(crate) fn kill(&mut self) {
        self.node = None;
        self.disk = self.disk.fork(self.disk.events());
    }

    /// The power goes.
    pub(crate) fn power_cut(&mut self, image: Image) {
        self.node = None;
        self.disk = SimDisk::new(image);
    }

    /// One turn of its node, if it runs.
    pub(crate) fn turn(&mut self, now: u64, requests: Vec<Request>, frames: Vec<Frame>, outside: &mut Outside<'_>) {
        let mut moment = self.moment(now);
        let Some(node) = &mut self.node else { return };
        moment.time = moment.time.max(Millis(node.clock_floor));
        let generation = node.around.generation.get().max(moment.time.0 << 20);
        node.around.generation.set(generation);
        node.begin(moment);
        let News { durable, failed } = std::mem::take(&mut *node.news.lock().unwrap());
        if let Some(to) = durable {
            // A report of before a cut speaks of bytes that are gone; the log itself knows.
            node.tell(Event::Durable(to.min(node.appender.durable())), outside);
        }
        if let Some(why) = failed {
            node.tell(Event::Failed(why), outside);
        }
        for frame in frames {
            node.hear(frame, outside);
        }
        for request in requests {
            node.tell(Event::Request(request), outside);
        }
        let clock = node.core.second_is_over().then(ClockSays::default);
        node.tell(Event::TurnEnds(clock), outside);
        node.keep_note(now, outside);
        let patience = node.core.patience(moment);
        node.wake = now + (patience.as_millis() as u64).clamp(1, 50);
    }

    /// What the disk does meanwhile.
    pub(crate) fn work_of_the_disk(&mut self) {
        let Some(node) = &mut self.node else { return };
        if self.disk_pace > 0 && self.rng.chance(self.disk_pace) {
            let slots = node.steps.slots() as u64;
            node.steps.sync(&node.appender, self.rng.below(slots) as usize);
            node.steps.sync(&node.appender, self.rng.below(slots) as usize);
            if self.rng.chance(8) {
                Steps::fill(&node.appender);
            }
        }
    }

    /// How far its log is, for the trace.
    pub(crate) fn stands(&self) -> String {
        let Some(node) = &self.node else { return format!("{} is down", self.id) };
        let log = standing(&node.appender);
        format!("{}: appended {} durable {} committed {:?}", self.id, log.appended, log.durable, node.commit)
    }

    pub(crate) fn has_news(&self) -> bool {
        self.node.as_ref().is_some_and(|node| {
            let news = node.news.lock().unwrap();
            news.durable.is_some() || news.failed.is_some()
        })
    }
}

fn standing(appender: &Appender) -> LogStanding {
    LogStanding {
        appended: appender.appended(),
        durable: appender.durable(),
        covered: appender.is_covered(),
        mark_due_in: None,
        short: appender.short_of_space().and_then(|left| Some((appender.shortage()?, left))),
        failed: appender.poisoned().is_some(),
    }
}

impl Node {
    fn begin(&mut self, moment: Moment) {
        self.core.begin_turn(moment, standing(&self.appender));
    }

    fn tell(&mut self, event: Event, outside: &mut Outside<'_>) {
        self.core.step(event, &self.around);
        self.carry_out(outside);
    }

    fn hear(&mut self, frame: Frame, outside: &mut Outside<'_>) {
        let Frame { message, entries, from, to } = frame;
        let known = self.heard.entry(message.from).or_default();
        // From an earlier life of either end: nobody answers for it any more.
        if from < *known || to != 0 && to != self.incarnation {
            return;
        }
        *known = from;
        let decoded = entries.into_iter().map(|bytes| EntrySpan::decode(bytes, &identity()).map(LeaderEntry));
        let Ok(bodies) = decoded.collect::<Result<Vec<_>, _>>() else {
            return outside.trace.line(format!("{} drops a damaged frame", message.to));
        };
        self.tell(Event::Request(Request::Message(message, bodies)), outside);
    }

    fn carry_out(&mut self, outside: &mut Outside<'_>) {
        while let Some(command) = self.core.next_command() {
            match command {
                Command::SaveVote(vote) => {
                    outside.trace.line(format!("{} votes {vote:?}", self.id));
                    let saved = self.file.term_and_vote(vote.term, vote.given_to).map_err(|error| error.to_string());
                    self.must(saved);
                }
                Command::Cut { span, last } => {
                    outside.trace.line(format!("{} cuts behind {last:?}", self.id));
                    let cut = self.cut(span);
                    self.must(cut);
                }
                Command::AppendSpan(span) => {
                    let appended = self.appender.append_span(&span).map(drop).map_err(|error| error.to_string());
                    self.must(appended);
                }
                Command::Send(message, places) => {
                    let spans = places.iter().map(|(from, to)| self.reader.span(*from, *to).map(|span| span.encode()));
                    let Ok(entries) = spans.collect::<Result<Vec<Bytes>, _>>() else { continue };
                    let to = self.heard.get(&message.to).copied().unwrap_or(0);
                    outside.sent.push(Frame { message, entries, from: self.incarnation, to });
                }
                Command::Append(entry) => {
                    let parts: Vec<&[u8]> = entry.proposals.iter().map(|proposal| &proposal.records[..]).collect();
                    let appended = self.appender.append(entry.header, &parts);
                    self.core.log_stands(standing(&self.appender));
                    self.core.step(Event::Appended(entry, appended), &self.around);
                }
                Command::Answer { told: Hearer::Caller(reply), answer, .. } => reply.send(answer),
                Command::AnswerReceive(waiter, answer) => {
                    if let Err(batch) = waiter.answer(answer) {
                        self.core.step(Event::NotTaken(batch), &self.around);
                    }
                }
                Command::Applied(commit) => self.committed(commit),
                Command::Close(why) => {
                    outside.trace.line(format!("{} closes: {why}", self.id));
                    self.failed = Some(why.to_string());
                }
                Command::FollowClock(time) => self.clock_floor = self.clock_floor.max(time.0),
                Command::Done(tell) => tell(),
                _ => {}
            }
        }
    }

    fn must(&mut self, done: Result<(), String>) {
        self.core.log_stands(standing(&self.appender));
        if let Err(why) = done {
            self.core.step(Event::Failed(why), &self.around);
        }
    }

    fn cut(&mut self, span: Option<(LogPosition, LogPosition)>) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let last = match span {
            Some((from, to)) => self.reader.span(from, to).map_err(|error| text(&error))?.checkpoint(),
            None => self.base,
        };
        let cut = NotedCut { to: last.end, end: self.appender.appended() };
        self.file.cut_begins(cut).map_err(|error| text(&error))?;
        // Syncs that are under way end, and count for nothing that is cut off.
        self.steps.settle(&self.appender);
        self.appender.cut(&last).map_err(|error| text(&error))?;
        self.file.cut_ended().map_err(|error| text(&error))
    }

    fn committed(&mut self, commit: Committed) {
        let from = self.commit.position;
        self.appender.settle(commit.position);
        for header in self.reader.headers_from(from) {
            match header {
                Ok(header) if header.index <= commit.index => {
                    self.newly.push((header.index, header.term, header.checksum));
                }
                _ => break,
            }
        }
        self.commit = commit;
    }

    fn keep_note(&mut self, now: u64, outside: &mut Outside<'_>) {
        let durable = self.appender.durable();
        if self.failed.is_some() || now < self.noted_at + 100 {
            return;
        }
        self.noted_at = now;
        let noted = self.file.note();
        if durable > noted.durable || self.commit.index > noted.commit.index {
            let (durable, commit) = (durable.max(noted.durable), self.commit);
            if let Err(error) = self.file.durable(durable, commit) {
                self.tell(Event::Failed(error.to_string()), outside);
            }
        }
    }

    pub(crate) fn commit(&self) -> Committed {
        self.commit
    }

    pub(crate) fn reader(&self) -> &LogReader {
        &self.reader
    }
}
