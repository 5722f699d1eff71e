//! A core on a log that is a list, at a time that a test sets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use vouch_broker::check::CheckOverrides;
use vouch_broker::record::{Ack, FEATURE_LEVEL, MessagePlace, encode_message};
use vouch_broker::state::{Applied, Outcome};
use vouch_broker::testing::message;
use vouch_broker::{
    Generation, GroupId, Millis, NewMessage, NotDone, NothingStored, QueueOffset, ResourceName, State, TagFilter,
    TopicId,
};
use vouch_commitlog::{AppendError, Appended, Checkpoint, EntryKind, LogPosition, Operation, PoisonReport, Shortage};
use vouch_consensus::{
    ClusterIncarnation, EntryId, GroupMembers, GroupMessage, GroupPace, NodeId, Replica, ReplicaBeginning, Said, Vote,
};
use vouch_leader::testing::{Around, ReceiveCaller};
use vouch_leader::{Leader, Poll};

use crate::core::{
    Claim, ClockSays, Command, Core, CoreBeginning, CoreSettings, EntryToAppend, Event, Hearer, LeaderEntry,
    LogStanding, Moment, Proposal, Request,
};
use crate::group::behind;
use crate::leadership::Lead;
use crate::reply::Reply;

/// When a run begins.
const BEGIN: Millis = Millis(1_000_000);
/// Bytes of an entry besides its payload.
const HEADER: u64 = 64;

/// What comes of a proposal.
pub(super) type Outcomes = oneshot::Receiver<Result<Vec<Outcome>, NotDone>>;

/// A log in memory. What is appended is durable when [`Bench::sync`] says so.
#[derive(Default)]
struct List {
    end: u64,
    durable: u64,
    /// Since when the last group is not covered by a mark, if it is not.
    covered: bool,
    /// Nothing was appended for some time.
    idle: bool,
    entries: Vec<(EntryKind, Millis)>,
    /// It has no space left for entries.
    full: bool,
    /// It finds no more than what is kept for ends.
    nearly_full: bool,
    failed: bool,
}

/// A core that leads, with what it wanted done so far, told in words.
pub(super) struct Bench {
    pub(super) core: Core,
    around: Around,
    log: List,
    began: Instant,
    passed: Duration,
    /// One line for each command.
    pub(super) trace: Vec<String>,
    /// Why it is closed, if it said so.
    pub(super) closed: Option<NothingStored>,
    /// The highest position that it called applied.
    pub(super) applied: u64,
    sent: Vec<GroupMessage>,
    /// No vote can be noted.
    pub(super) notes_fail: bool,
}

impl Bench {
    /// A core on a log that is only read.
    pub(super) fn read_only(why: NothingStored) -> Self {
        let mut bench = Self::before(Some(why.clone()));
        bench.closed = Some(why);
        bench
    }

    /// Node 1 of three, which follows nobody yet.
    pub(super) fn member() -> Self {
        let mut bench = Self::before(None);
        let members = GroupMembers::voters([1, 2, 3].map(NodeId));
        let replica = Replica::new(ReplicaBeginning {
            node: NodeId(1),
            members,
            vote: Vote::default(),
            applied: 0,
            commit: 0,
            before: EntryId::default(),
            before_end: 0,
            entries: VecDeque::new(),
            pace: GroupPace { election: 20, heartbeat: 4 },
            draw: Box::new(|_| 0),
        });
        bench.core.replica = Some(replica.unwrap());
        bench.may_lead();
        bench
    }

    /// Another member says this in a turn, with these entries.
    pub(super) fn say(&mut self, from: u64, term: u64, body: Said, entries: Vec<LeaderEntry>) {
        let message = GroupMessage { from: NodeId(from), to: NodeId(1), term, body };
        self.turn(vec![Request::Message(message, entries)]);
    }

    /// What it has sent since this was last asked.
    pub(super) fn take_sent(&mut self) -> Vec<GroupMessage> {
        std::mem::take(&mut self.sent)
    }

    /// The only member of a group, whose node has not said yet that it may lead.
    pub(super) fn before_a_start() -> Self {
        Self::before(None)
    }

    /// The last group of the log is not covered by a mark.
    pub(super) fn uncover(&mut self) {
        self.log.covered = false;
    }

    /// The node says that it may lead, and all is done that follows.
    pub(super) fn may_lead(&mut self) {
        self.may_lead_with(FEATURE_LEVEL);
    }

    /// The same, on a log that a version made which knew this feature level, and all of that is durable.
    pub(super) fn may_lead_knowing(&mut self, feature_level: u32) {
        self.may_lead_with(feature_level);
        self.sync();
        self.sync();
    }

    fn may_lead_with(&mut self, feature_level: u32) {
        let (cluster_id, segment_size, handle_key) = ([1; 16], 1 << 20, [2; 32]);
        self.core.begin_turn(self.now(), standing(&self.log));
        self.tell(Event::MayLead(Lead {
            cluster_id,
            segment_size,
            handle_key,
            feature_level,
            leapt_from: None,
            incarnation: ClusterIncarnation::FIRST,
        }));
        self.carry_out();
    }

    /// A core that leads and whose start is durable.
    pub(super) fn new() -> Self {
        let mut bench = Self::before(None);
        bench.may_lead();
        // The first entry of its term, and then what it says first.
        bench.sync();
        bench.sync();
        bench
    }

    fn before(closed: Option<NothingStored>) -> Self {
        let began = Instant::now();
        let list = List { covered: true, ..List::default() };
        let replica = closed
            .is_none()
            .then(|| behind(NodeId::FIRST, EntryId::default(), LogPosition(0), Vote::default()).unwrap());
        let (state, applied, log, reserve) = (State::default(), LogPosition(0), standing(&list), 1000);
        let beginning = CoreBeginning {
            state,
            applied,
            log,
            tail: Vec::new(),
            reserve,
            settings: CoreSettings::default(),
            replica,
            closed,
        };
        let now = Moment { time: BEGIN, at: began };
        Self {
            core: Core::new(beginning, now),
            around: Around::default(),
            log: list,
            began,
            passed: Duration::ZERO,
            trace: Vec::new(),
            closed: None,
            applied: 0,
            sent: Vec::new(),
            notes_fail: false,
        }
    }

    pub(super) fn now(&self) -> Moment {
        Moment { time: BEGIN.plus_ms(self.passed.as_millis() as u64), at: self.began + self.passed }
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.passed += Duration::from_millis(ms);
        self.turn(Vec::new());
    }

    fn tell(&mut self, event: Event) {
        self.core.step(event, &self.around);
    }

    /// One turn in which these requests are heard.
    pub(super) fn turn(&mut self, requests: Vec<Request>) {
        self.core.begin_turn(self.now(), standing(&self.log));
        for request in requests {
            self.tell(Event::Request(request));
        }
        let clock = self.core.second_is_over().then(ClockSays::default);
        self.tell(Event::TurnEnds(clock));
        self.carry_out();
    }

    /// These requests are heard in a turn that goes on.
    pub(super) fn hear(&mut self, requests: Vec<Request>) {
        for request in requests {
            self.tell(Event::Request(request));
        }
        self.carry_out();
    }

    /// A turn in which the clock says this, whether a second is over or not.
    pub(super) fn turn_with(&mut self, clock: ClockSays) {
        self.core.begin_turn(self.now(), standing(&self.log));
        self.tell(Event::TurnEnds(Some(clock)));
        self.carry_out();
    }

    /// The log has been idle for long enough to need a mark.
    pub(super) fn idle(&mut self) {
        self.log.idle = true;
        self.turn(Vec::new());
        self.log.idle = false;
    }

    /// The same in a turn in which the clock says this.
    pub(super) fn idle_with(&mut self, clock: ClockSays) {
        self.log.idle = true;
        self.turn_with(clock);
        self.log.idle = false;
    }

    /// All that was written is durable, and the log is about to close.
    pub(super) fn cover_end(&mut self) {
        self.core.begin_turn(self.now(), standing(&self.log));
        self.tell(Event::CoverEnd);
        self.carry_out();
    }

    /// Kinds and times of the entries, in their order.
    pub(super) fn entries(&self) -> Vec<(EntryKind, Millis)> {
        self.log.entries.clone()
    }

    /// All that is appended becomes durable.
    pub(super) fn sync(&mut self) {
        if self.log.failed {
            return;
        }
        self.log.durable = self.log.end;
        self.core.begin_turn(self.now(), standing(&self.log));
        self.tell(Event::Durable(LogPosition(self.log.durable)));
        self.carry_out();
        self.turn(Vec::new());
    }

    /// All that is appended is durable and applied, and of what that brings nothing is carried out yet.
    pub(super) fn durable_untold(&mut self) {
        self.log.durable = self.log.end;
        self.core.begin_turn(self.now(), standing(&self.log));
        self.tell(Event::Durable(LogPosition(self.log.durable)));
        self.tell(Event::TurnEnds(None));
    }

    /// What is left to be done is.
    pub(super) fn go_on(&mut self) {
        self.carry_out();
    }

    /// The entry that ends at this position, and that this node lacks, cannot be read.
    pub(super) fn cannot_send(&mut self, node: u64, end: LogPosition) {
        self.core.begin_turn(self.now(), standing(&self.log));
        self.tell(Event::CannotSend(NodeId(node), end, "no sound entry".to_owned()));
        self.carry_out();
    }

    /// The log fails, with all in it that is not durable.
    pub(super) fn fail(&mut self) {
        self.log.failed = true;
        self.core.begin_turn(self.now(), standing(&self.log));
        self.tell(Event::Failed("the disk is gone".to_owned()));
        self.carry_out();
    }

    /// The log cannot grow, and takes entries into what it has.
    pub(super) fn nearly_fill(&mut self) {
        self.log.nearly_full = true;
    }

    pub(super) fn fill(&mut self, full: bool) {
        self.log.full = full;
    }

    fn carry_out(&mut self) {
        while let Some(command) = self.core.next_command() {
            self.trace.push(told(&command));
            match command {
                Command::SaveVote(_) if self.notes_fail => self.tell(Event::Failed("no vote can be noted".to_owned())),
                Command::Append(entry) => {
                    let appended = self.append(&entry);
                    self.core.log_stands(standing(&self.log));
                    self.tell(Event::Appended(entry, appended));
                }
                Command::Answer { told: Hearer::Caller(reply), answer, .. } => reply.send(answer),
                Command::AnswerReceive(waiter, answer) => {
                    if let Err(batch) = waiter.answer(answer) {
                        self.tell(Event::NotTaken(batch));
                    }
                }
                Command::Applied(to) => {
                    assert!(to.position.0 <= self.log.durable, "what is not durable is not applied");
                    self.applied = to.position.0;
                }
                Command::Send(message, _) => self.sent.push(message),
                Command::AppendSpan(span) => self.log.end = span.end().0,
                Command::Cut { span, .. } => self.log.end = span.map_or(0, |(_, to)| to.0),
                Command::Done(tell) => tell(),
                Command::Close(why) => self.closed = Some(why),
                _ => {}
            }
        }
    }

    fn append(&mut self, entry: &EntryToAppend) -> Result<Appended, AppendError> {
        assert!(self.closed.is_none(), "nothing is appended to a log that is closed");
        if self.log.failed {
            let cause = Arc::new(std::io::Error::other("the disk is gone"));
            let report = PoisonReport { file: "segment".into(), offset: 0, operation: Operation::Sync, cause };
            return Err(AppendError::Poisoned(report));
        }
        if self.log.full {
            return Err(AppendError::Short { shortage: Shortage::Space, file: "segment".into() });
        }
        let position = LogPosition(self.log.end);
        let payload_position = LogPosition(self.log.end + HEADER);
        let len: usize = entry.proposals.iter().map(|proposal| proposal.records.len()).sum();
        self.log.end = payload_position.0 + (len as u64).next_multiple_of(8);
        self.log.covered = entry.header.kind == EntryKind::Mark;
        self.log.entries.push((entry.header.kind, Millis(entry.header.leader_time_ms)));
        let end = LogPosition(self.log.end);
        Ok(Appended { position, payload_position, end, checkpoint: checkpoint(entry, position, end) })
    }

    // What callers do.

    /// Proposes records; they are on their way when the next turn ends.
    pub(super) fn propose(encode: impl FnOnce(&mut Vec<u8>)) -> (Request, Outcomes) {
        let mut records = Vec::new();
        encode(&mut records);
        let (reply, outcomes) = Reply::new();
        (Request::Propose(Proposal { records, told: Hearer::Caller(reply), cost: 1, claim: Claim::Reserve }), outcomes)
    }

    /// Lets records happen, and says what came of the first.
    pub(super) fn happen(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<Applied, NotDone> {
        let (request, mut outcomes) = Self::propose(encode);
        self.turn(vec![request]);
        self.sync();
        let outcomes = outcomes.try_recv().expect("it is durable and answered")?;
        Ok(outcomes.into_iter().next().expect("one record")?)
    }

    pub(super) fn send(topic: TopicId, message: &NewMessage, now: Millis, claim: Claim) -> (Request, Outcomes) {
        let mut records = Vec::new();
        let place = MessagePlace { topic, queue: 0, stored_at: now };
        encode_message(&mut records, place, "producer", message, CheckOverrides::default());
        let (reply, outcomes) = Reply::new();
        (Request::Propose(Proposal { records, told: Hearer::Caller(reply), cost: 1, claim }), outcomes)
    }

    pub(super) fn plain(id: u64) -> NewMessage {
        message(&format!("m{id}"))
    }

    /// A receive of so many messages that waits for so long; its leases last as long.
    pub(super) fn receive(&self, max: usize, wait_ms: u64, invisible_ms: u64) -> (Request, ReceiveCaller) {
        let (waiter, caller) = ReceiveCaller::new();
        let poll = Poll {
            topic: ResourceName::plain("t"),
            group: ResourceName::plain("g"),
            client_id: "consumer".to_owned(),
            machine: None,
            filter: TagFilter::All,
            max,
            invisible_ms,
            auto_renew: false,
            until: self.now().at + Duration::from_millis(wait_ms),
            waiter,
        };
        (Request::Receive(poll), caller)
    }

    pub(super) fn ack(&mut self, topic: TopicId, group: GroupId, offset: QueueOffset, generation: Generation) -> bool {
        let ack = Ack { group, topic, queue: 0, offset, generation };
        self.happen(|out| _ = ack.encode(out)).is_ok()
    }

    /// What the leader says, or does.
    pub(super) fn lead<T: Send + 'static>(
        &mut self,
        look: impl FnOnce(&State, &mut Leader) -> T + Send + 'static,
    ) -> T {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let look = move |found: Result<(&State, &mut Leader), NothingStored>| {
            let (state, leader) = found.unwrap();
            tell.send(look(state, leader)).unwrap();
        };
        self.turn(vec![Request::Lead(Box::new(look))]);
        told.recv().unwrap()
    }

    /// Another replica leads from now on, with the same log: nothing of the old leader is left.
    pub(super) fn another_leader(&mut self) {
        assert!(self.core.written.is_empty() && self.core.batch.is_empty(), "a new leader has applied what there is");
        let stopping = || Err(NothingStored::Stopping.into());
        if let Some(leader) = &mut self.core.leader {
            leader.answer_all(stopping);
        }
        self.core.take_wants();
        self.core.leader = Some(Leader::of(&self.core.state));
        self.carry_out();
    }
}

fn checkpoint(entry: &EntryToAppend, position: LogPosition, end: LogPosition) -> Checkpoint {
    Checkpoint { position, end, term: entry.header.term, index: entry.header.index, checksum: 0 }
}

fn standing(log: &List) -> LogStanding {
    LogStanding {
        start: LogPosition::START,
        appended: LogPosition(log.end),
        durable: LogPosition(log.durable),
        covered: log.covered,
        mark_due_in: (log.idle && !log.covered).then_some(Duration::ZERO),
        short: (log.full || log.nearly_full).then_some((Shortage::Space, 0)),
        failed: log.failed,
    }
}

/// A command in words that say all that others can see of it.
fn told(command: &Command) -> String {
    match command {
        Command::SaveVote(vote) => format!("save {vote:?}"),
        Command::JoinGroup(node) => format!("join the group as {node}"),
        Command::Append(entry) => {
            let records: Vec<&[u8]> = entry.proposals.iter().map(|proposal| proposal.records.as_slice()).collect();
            format!("append {:?} {records:?}", entry.header)
        }
        Command::Answer { cost, answer, .. } => format!("answer {cost} {answer:?}"),
        Command::AnswerReceive(_, answer) => format!("answer a receive {answer:?}"),
        Command::Applied(to) => format!("applied {to:?}"),
        Command::Cut { last, .. } => format!("cut behind {last:?}"),
        Command::AppendSpan(span) => format!("append entry {} of term {}", span.index(), span.term()),
        Command::Send(message, _) => format!("send {message:?}"),
        Command::SnapshotNamed(position, told) => format!("snapshot at {position} {told:?}"),
        Command::ClosedByDamage(parts) => format!("closed by damage {parts:?}"),
        Command::FellBehind => "fell behind".to_owned(),
        Command::DirectoryChanged => "directory changed".to_owned(),
        Command::MembersChanged => "members changed".to_owned(),
        Command::SecretsChanged => "secrets changed".to_owned(),
        Command::ChecksChanged => "checks changed".to_owned(),
        Command::BindingsChanged => "bindings changed".to_owned(),
        Command::FollowClock(time) => format!("follow {time:?}"),
        Command::Close(why) => format!("close {why}"),
        Command::DropLog => "drop the log".to_owned(),
        Command::RefusedInMemory(messages) => format!("refused in memory {messages}"),
        Command::MendParts(parts) => format!("mend {parts:?}"),
        Command::TellBegun(begun) => format!("begun {begun:?}"),
        Command::Done(_) => "done".to_owned(),
    }
}
