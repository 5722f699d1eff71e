//! The shard's executor thread: the only one that touches the state. It turns what waits into one log entry, and
//! durable entries into state, replies and deliveries. Batching is whatever arrived meanwhile; there are no timers.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use vouch_broker::delivery::Reservations;
use vouch_broker::record::{Frame, Record};
use vouch_broker::state::{Effect, Outcome, RecordAt};
use vouch_broker::{GroupId, Millis, NotDone, NothingStored, State, TopicId};
use vouch_commitlog::{AppendError, Appender, EntryKind, LogReader, Shortage};

use super::absences::Absences;
use super::answers::{answer_in_memory, refused, short_of, why_not_appended};
use super::inbox::{Claim, Command, Inbox, Proposal, Standing, Taken};
use super::leader::Leader;
use super::leadership::{Beginning, Lead, Leadership};
use super::marks::Marks;
use super::news::News;
use super::polls::{Batch, Poll, Polls};
use super::renewal::Orphans;
use super::{Output, Shared};

/// Payload of one log entry stays below this where it can: a bigger entry delays those behind it.
const ENTRY_TARGET: usize = 1 << 20;
/// Space of the log that sends leave to what ends transactions, acknowledges or makes room when the disk is full: some
/// hundred thousand such records. At most half of what is prepared ahead.
const RESERVE_BYTES: u64 = 32 << 20;
/// Between two looks at leases that living consumers hold, and at filters that nobody has.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// An entry that is written and not yet durable.
struct Written {
    end: u64,
    time: Millis,
    proposals: Vec<(u64, Proposal)>,
}

/// State and everything that the leader keeps beside it.
pub(crate) struct Executor {
    pub(super) state: State,
    pub(super) leader: Leader,
    pub(crate) shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    /// `None`: the log is only read, and `closed` says so.
    pub(super) appender: Option<Appender>,
    /// `None` where there is no appender.
    pub(super) reader: Option<LogReader>,
    /// `None`: it does not lead, and writes nothing.
    pub(super) leadership: Option<Leadership>,
    /// What its start proposed, until that is durable and applied.
    pub(super) beginning: Option<Beginning>,
    /// Space of the log that sends leave to others when it cannot grow.
    reserve: u64,
    pub(super) reservations: Reservations,
    pub(super) polls: Polls,
    /// Receives whose group came into being or joined its topic, or did not: they look again.
    pub(super) joined: Vec<(Poll, Option<NotDone>)>,
    /// Proposals for the next entry.
    batch: Vec<Proposal>,
    /// Batches to hand out once their leases are written.
    pub(super) deliveries: Vec<(Poll, Batch)>,
    /// Leases that the log refused, by generation: their batches are not handed out.
    unleased: Vec<(u64, NotDone)>,
    /// Of whom the log refused something, or who found nothing while it refused: nothing else would wake them.
    pub(super) unserved: BTreeSet<(TopicId, GroupId)>,
    written: VecDeque<Written>,
    /// Work for receives in this turn (see [`super::receiving::TURN_WORK`]).
    pub(super) work: usize,
    pub(super) absences: Absences,
    /// It did not take the last entry: what was decided in it is decided again, and not at once.
    pub(super) log_refuses: bool,
    effects: Vec<Effect>,
    /// Why nothing is written: the log failed, or is only read.
    pub(super) closed: Option<NothingStored>,
    /// What is appended and durable of a log that is only read.
    fixed: (u64, u64),
    /// Everything before this log position is applied.
    applied: u64,
    /// Time of the last entry: no later one has an earlier time.
    pub(super) latest: Millis,
    /// When it was last looked what the clock decided.
    pub(super) kept_time_at: Millis,
    next_renewal: Instant,
    pub(super) marks: Marks,
    /// More sessions are over than one turn ends.
    pub(super) sessions_left: bool,
    /// Consumers that died with leases that are not given up yet.
    pub(super) orphans: Orphans,
    /// Parts with damage that is to be mended, and when that was said.
    pub(super) damaged_told: Option<(Instant, Vec<u64>)>,
    pub(super) news: News,
}

impl Executor {
    pub(crate) fn new(state: State, output: Output, inbox: Arc<Inbox>, shared: Arc<Shared>) -> Self {
        let (log, reserve, closed, (appended, durable, applied)) = match output {
            Output::Log { appender, reader, prepared } => {
                // What was recovered is durable and applied before the executor begins.
                let end = appender.appended().0;
                (Some((appender, reader)), RESERVE_BYTES.min(prepared / 2), None, (end, end, end))
            }
            Output::Refused { why, positions } => {
                shared.close(why.clone());
                (None, 0, Some(why), positions)
            }
        };
        let (latest, kept_time_at) = (state.cluster().clock, shared.clock.now());
        let (appender, reader) = log.unzip();
        Self {
            state,
            leader: Leader::default(),
            shared,
            inbox,
            appender,
            reader,
            leadership: None,
            beginning: None,
            reserve,
            reservations: Reservations::default(),
            polls: Polls::default(),
            joined: Vec::new(),
            batch: Vec::new(),
            deliveries: Vec::new(),
            unleased: Vec::new(),
            unserved: BTreeSet::new(),
            written: VecDeque::new(),
            work: 0,
            absences: Absences::default(),
            log_refuses: false,
            effects: Vec::new(),
            closed,
            fixed: (appended, durable),
            applied,
            latest,
            kept_time_at,
            next_renewal: Instant::now() + RENEW_EVERY,
            marks: Marks::default(),
            sessions_left: false,
            orphans: Orphans::default(),
            damaged_told: None,
            news: News::default(),
        }
    }

    /// Runs until it is stopped; then the log is closed and everything proposed is answered. `lead`: from now on.
    pub(crate) fn run(mut self, lead: Option<Lead>) {
        self.inbox.serve_here();
        if let Some(lead) = lead {
            self.lead(lead);
        }
        let mut spare = Vec::new();
        let mut stopping = false;
        loop {
            let Taken { mut commands, durable, poisoned } = self.inbox.take(self.patience(), spare);
            self.work = 0;
            if let Some(to) = durable {
                self.apply_up_to(to);
            }
            if let Some(reason) = poisoned {
                self.poison(reason);
            }
            for command in commands.drain(..) {
                stopping |= self.execute(command);
            }
            self.serve_ready();
            self.tick();
            self.stop_at_lost_parts();
            self.write_batch();
            self.tell_begun();
            spare = commands;
            if stopping {
                return self.stop();
            }
        }
    }

    /// How long there is nothing to do by the clock.
    fn patience(&self) -> Option<Duration> {
        if self.polls.any_ready() || self.sessions_left {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let until = |at: Instant| at.saturating_duration_since(now);
        let log_now = self.shared.clock.now();
        let wake = self.polls.next_wake().map(|at| Duration::from_millis(at.ms_since(log_now)));
        let mark = self.open_log().and_then(Appender::mark_due_in).map(|due_in| self.marks.due_in(due_in, now));
        [self.polls.first_timeout().map(until), wake, mark, Some(until(self.next_renewal))]
            .into_iter()
            .flatten()
            .min()
            // A due time of zero still lets the inbox be looked at first.
            .map(|patience| patience.max(Duration::from_micros(100)))
    }

    fn execute(&mut self, command: Command) -> bool {
        match command {
            Command::Propose(proposal) => self.propose(proposal),
            Command::Receive(poll) => self.receive(poll),
            Command::Read(look) => look(&self.state),
            Command::Lead(look) => look(&self.state, &mut self.leader),
            Command::Standing(reply) => drop(reply.send(self.standing())),
            Command::Adopt(part, copies) => self.adopt(part, copies),
            Command::ReadFrom(part, copies) => self.read_from(part, copies),
            Command::Fence(why, done) => {
                self.fence(why);
                let _ = done.send(());
            }
            Command::Stop => return true,
        }
        false
    }

    // Proposing.

    pub(super) fn propose(&mut self, proposal: Proposal) {
        if let Some(refusal) = self.closed.clone() {
            return self.answer(proposal.reply, proposal.cost, Err(refusal.into()));
        }
        if proposal.claim != Claim::Reserve
            && let Some(shortage) = self.shortage()
        {
            let refusal = short_of(
                shortage,
                format!(
                    "the log finds no {shortage} to grow, and what is left of it is for ends and acknowledgements; nothing was \
                     stored, {} and try again",
                    shortage.remedy()
                ),
            );
            return self.answer(proposal.reply, proposal.cost, Err(refusal.into()));
        }
        for record in proposal.delivery_records() {
            self.reservations.hold(&record);
        }
        self.batch.push(proposal);
    }

    /// Proposes a record of the broker's own.
    pub(crate) fn propose_own(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> usize) {
        let mut records = Vec::new();
        encode(&mut records);
        self.propose(Proposal { records, reply: None, cost: 0, claim: Claim::Reserve });
    }

    /// Writes what was proposed, then hands out what it leased.
    pub(super) fn write_batch(&mut self) {
        self.write_mark(!self.batch.is_empty());
        let mut batch = std::mem::take(&mut self.batch).into_iter().peekable();
        while batch.peek().is_some() {
            let mut len = 0;
            let mut proposals = Vec::new();
            while let Some(next) = batch.next_if(|next| len == 0 || len + next.records.len() <= ENTRY_TARGET) {
                len += next.records.len();
                proposals.push(next);
            }
            self.write_entry(EntryKind::Records, proposals, self.time());
        }
        let unleased = std::mem::take(&mut self.unleased);
        for (poll, batch) in std::mem::take(&mut self.deliveries) {
            let refused = unleased.iter().find(|(generation, _)| *generation == batch.generation);
            let answer = match (&self.closed, refused) {
                (Some(why), _) => Err(why.clone().into()),
                // Without its lease a batch would be handed to the next consumer as well.
                (None, Some((_, refusal))) => Err(refusal.clone()),
                (None, None) => Ok(Some(batch)),
            };
            if let Err(Ok(Some(batch))) = poll.reply.send(answer) {
                self.give_back(&batch);
            }
        }
    }

    /// Writes the mark that was proposed, unless records follow at once: these cover what came before as well.
    fn write_mark(&mut self, records_follow: bool) {
        if self.marks.take(records_follow) {
            self.write_entry(EntryKind::Mark, Vec::new(), self.time());
        }
    }

    /// Writes one entry; a mark has no proposals.
    pub(super) fn write_entry(&mut self, kind: EntryKind, proposals: Vec<Proposal>, time: Millis) {
        let parts: Vec<&[u8]> = proposals.iter().map(|proposal| proposal.records.as_slice()).collect();
        let log = self.appender.as_mut().zip(self.leadership.as_mut());
        let Some((appender, leadership)) = log.filter(|_| self.closed.is_none()) else {
            let why = self.closed.clone().unwrap_or(NothingStored::Stopping);
            return proposals.into_iter().for_each(|proposal| self.unpropose(proposal, why.clone().into()));
        };
        let appended = appender.append(leadership.header(kind, time), &parts);
        if kind == EntryKind::Records {
            self.log_refuses = appended.is_err();
        }
        match appended {
            Ok(appended) => {
                leadership.appended();
                if kind == EntryKind::Mark {
                    self.marks.written();
                }
                self.latest = time;
                let mut position = appended.payload_position.0;
                let mut placed = Vec::with_capacity(proposals.len());
                for mut proposal in proposals {
                    let len = proposal.records.len() as u64;
                    if proposal.claim == Claim::RoomInMemory {
                        // What it holds of the bytes in flight is given back when it is durable.
                        answer_in_memory(&mut proposal);
                    }
                    placed.push((position, proposal));
                    position += len;
                }
                self.written.push_back(Written { end: appended.end.0, time, proposals: placed });
            }
            Err(AppendError::Poisoned(report)) => {
                self.poison(report.to_string());
                for proposal in proposals {
                    // The write may have reached the disk in part; recovery decides.
                    let refusal = NotDone::Unknown(format!("the commit log failed: {report}"));
                    self.unpropose(proposal, refusal);
                }
            }
            Err(error) => {
                if kind == EntryKind::Mark {
                    self.marks.refused(&error);
                }
                for proposal in proposals {
                    self.unpropose(proposal, why_not_appended(&error));
                }
            }
        }
    }

    fn unpropose(&mut self, proposal: Proposal, refusal: NotDone) {
        for record in proposal.delivery_records() {
            self.reservations.abandon(&record);
            if let Record::Lease(lease) = &record {
                self.unleased.push((lease.generation, refusal.clone()));
                self.unserved.insert((lease.topic, lease.group));
            }
        }
        for poll in self.polls.joined(&proposal.records) {
            let _ = poll.reply.send(Err(refusal.clone()));
        }
        self.answer(proposal.reply, proposal.cost, Err(refusal));
    }

    fn answer(
        &self,
        reply: Option<oneshot::Sender<Result<Vec<Outcome>, NotDone>>>,
        cost: u64,
        answer: Result<Vec<Outcome>, NotDone>,
    ) {
        self.inbox.release(cost);
        if let Some(reply) = reply {
            // A caller that went away does not change what the log says.
            let _ = reply.send(answer);
        }
    }

    // Applying.

    fn apply_up_to(&mut self, durable: u64) {
        self.applied = self.applied.max(durable);
        let (mut replies, mut refused_in_memory) = (Vec::new(), 0);
        while let Some(entry) = self.written.pop_front_if(|entry| entry.end <= durable) {
            for (position, proposal) in entry.proposals {
                let outcomes = self.apply_proposal(position, entry.time, &proposal.records);
                if proposal.claim == Claim::RoomInMemory {
                    refused_in_memory += refused(&outcomes);
                }
                self.note_joined(&proposal.records, outcomes.as_deref().ok().and_then(<[Outcome]>::first));
                replies.push((proposal.reply, proposal.cost, outcomes));
            }
        }
        if refused_in_memory > 0 {
            // Those who sent them heard that they are accepted.
            tracing::warn!(refused_in_memory, "messages that were acknowledged in memory were not stored");
            self.shared.refused_in_memory.fetch_add(refused_in_memory, Ordering::Relaxed);
        }
        self.take_effects();
        self.receive_joined();
        for (reply, cost, outcomes) in replies {
            self.answer(reply, cost, outcomes);
        }
        self.shared.snapshots.applied(self.applied);
    }

    fn apply_proposal(&mut self, mut position: u64, time: Millis, mut records: &[u8]) -> Result<Vec<Outcome>, NotDone> {
        let mut outcomes = Vec::with_capacity(1);
        while !records.is_empty() {
            let defect = |why| NotDone::Unknown(format!("a record that this node wrote cannot be read: {why}"));
            let (frame, rest) = Frame::split(records).map_err(defect)?;
            let record = Record::decode(&frame).map_err(defect)?;
            let effects = self.effects.len();
            let outcome = self.state.apply(RecordAt { position, time }, &record, &mut self.effects);
            let had_effects = self.effects.len() > effects;
            self.news.tell(&self.state, &mut self.leader.dead_letters, &record, &outcome, had_effects);
            outcomes.push(outcome);
            self.reservations.release(&record);
            self.note_leap(&record, time);
            if self.leader.schedule.applied(&record, &self.state) {
                self.shared.checks_changed.notify_one();
            }
            position += u64::from(frame.record_len());
            records = rest;
        }
        Ok(outcomes)
    }

    fn take_effects(&mut self) {
        let (mut arrived, mut directory) = (Vec::new(), false);
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Available(topic) => self.polls.wake_all(topic),
                Effect::Arrived(topic, tag) => {
                    if self.polls.any_on(topic) {
                        arrived.push((topic, tag));
                    }
                }
                Effect::AvailableTo(group, topic) => self.wake_group(group, topic),
                Effect::VisibleAt(group, topic, at) => {
                    let name = self.state.groups().get(group).map(|group| &group.name);
                    if name.is_some_and(|name| self.polls.any_of(topic, name)) {
                        self.polls.wake_at(at, topic, group);
                    }
                }
                // Who waits for a join waits for its record.
                Effect::Joined => {}
                Effect::Directory => directory = true,
                Effect::CheckDue(topic, at) => {
                    self.leader.schedule.due_changed(topic, at);
                    self.shared.checks_changed.notify_one();
                }
                Effect::Plugins => self.shared.checks_changed.notify_one(),
            }
        }
        self.polls.wake_for(arrived);
        if directory {
            self.shared.directory.clear();
            self.reservations.retain_living(&self.state);
        }
    }

    pub(super) fn wake_group(&mut self, group: GroupId, topic: TopicId) {
        if self.polls.any_on(topic)
            && let Some(group) = self.state.groups().get(group)
        {
            self.polls.wake_group(topic, &group.name);
        }
    }

    // The clock.

    fn tick(&mut self) {
        let now = Instant::now();
        for poll in self.polls.timed_out(now) {
            let _ = poll.reply.send(Ok(None));
        }
        for (topic, group) in self.polls.awake(self.shared.clock.now()) {
            self.wake_group(group, topic);
        }
        self.serve_ready();
        let renew = now >= self.next_renewal;
        if renew || self.sessions_left {
            self.end_sessions(now);
        }
        if renew {
            self.next_renewal = now + RENEW_EVERY;
            self.news.end_second(now);
            self.keep_time();
            self.wake_unserved();
            if self.closed.is_none() {
                self.renew_leases(now);
                self.let_filters_go(now);
                self.tell_damaged_parts(now);
            }
        }
        let needed = self.open_log().is_some_and(Appender::mark_needed);
        self.marks.propose_when_idle(needed, now);
    }

    // Ends.

    /// The log takes no more writes: nothing that is not durable is ever acknowledged.
    pub(super) fn poison(&mut self, reason: String) {
        if self.closed.is_some() {
            return;
        }
        tracing::error!(reason, "the commit log is poisoned; restart the node to recover");
        self.shared.close(NothingStored::Poisoned(reason.clone()));
        self.closed = Some(NothingStored::Poisoned(reason.clone()));
        for entry in std::mem::take(&mut self.written) {
            for (_, proposal) in entry.proposals {
                let refusal = NotDone::Unknown(format!("the commit log failed: {reason}"));
                self.unpropose(proposal, refusal);
            }
        }
        for proposal in std::mem::take(&mut self.batch) {
            self.unpropose(proposal, NothingStored::Poisoned(reason.clone()).into());
        }
        for poll in self.polls.drain() {
            let _ = poll.reply.send(Err(NothingStored::Poisoned(reason.clone()).into()));
        }
    }

    /// The folder is not this node's any more: nothing is written there, not even what would close the log well.
    pub(super) fn fence(&mut self, reason: String) {
        self.fixed = self.positions();
        // Ends the log's threads without another sync.
        drop(self.appender.take());
        self.poison(reason);
    }

    pub(super) fn stop(mut self) {
        for poll in self.polls.drain() {
            let _ = poll.reply.send(Ok(None));
        }
        // What is written becomes durable and is answered before the log closes, and so does the mark that covers it.
        self.finish_written();
        let covered = self.open_log().is_none_or(Appender::is_covered);
        self.marks.propose_end(covered);
        self.write_mark(false);
        self.finish_written();
        self.cover_what_a_lost_part_closed();
        let Taken { commands, .. } = self.inbox.take(Some(Duration::ZERO), Vec::new());
        commands.into_iter().for_each(|command| self.refuse_command(command));
        if let Some(Err(error)) = self.appender.map(Appender::close) {
            tracing::error!(%error, "the commit log did not close cleanly; recovery will sort it out");
            self.shared.close(NothingStored::Poisoned(error.to_string()));
        }
    }

    /// Waits until all that is written is durable and applied; what comes meanwhile is refused.
    fn finish_written(&mut self) {
        while self.closed.is_none() && !self.written.is_empty() {
            let Taken { commands, durable, poisoned } = self.inbox.take(None, Vec::new());
            if let Some(to) = durable {
                self.apply_up_to(to);
            }
            if let Some(reason) = poisoned {
                self.poison(reason);
            }
            commands.into_iter().for_each(|command| self.refuse_command(command));
        }
    }

    fn refuse_command(&mut self, command: Command) {
        match command {
            Command::Propose(proposal) => {
                self.answer(proposal.reply, proposal.cost, Err(NotDone::NothingStored(NothingStored::Stopping)))
            }
            Command::Receive(poll) => drop(poll.reply.send(Err(NotDone::NothingStored(NothingStored::Stopping)))),
            // Not even the mark of the end is written then.
            Command::Fence(why, done) => {
                self.fence(why);
                let _ = done.send(());
            }
            // Dropping one tells its caller.
            Command::Read(_) | Command::Lead(_) | Command::Standing(_) => {}
            Command::Adopt(..) | Command::ReadFrom(..) | Command::Stop => {}
        }
    }

    pub(super) fn standing(&self) -> Standing {
        let (appended, durable) = self.positions();
        Standing {
            appended,
            durable,
            applied: self.applied,
            shortage: self.shortage(),
            reserve: self.reserve,
            waiting_polls: self.polls.len(),
        }
    }

    /// Positions up to which entries are appended, and durable.
    fn positions(&self) -> (u64, u64) {
        match &self.appender {
            Some(appender) => (appender.appended().0, appender.durable().0),
            None => self.fixed,
        }
    }

    /// The log, if this shard writes it.
    pub(super) fn open_log(&self) -> Option<&Appender> {
        self.appender.as_ref().filter(|_| self.closed.is_none() && self.leadership.is_some())
    }

    /// Why the log cannot grow, if it has no more than what is kept for ends and acknowledgements.
    fn shortage(&self) -> Option<Shortage> {
        let appender = self.appender.as_ref()?;
        let left = appender.short_of_space()?;
        // It may have passed between the two.
        if left < self.reserve { appender.shortage() } else { None }
    }
}
