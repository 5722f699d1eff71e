//! What a replica decides: events in, commands out. No thread, no file, no clock: whoever runs a [`Core`] says what time it
//! is, carries out its commands in their order, and tells it what came of them. So a seed repeats a run.
//!
//! # To ensure correctness
//!
//! - The state changes in [`applying`] alone, by entries that are committed, in the order of the log.
//! - An entry goes to the log when the one before it is there, or was refused. What is written and not yet durable waits in
//!   `written`, in the order of the log.
//! - What was leased is handed out behind the entry with its lease, and not at all if the log refused that.
//! - After `closed` nothing goes to the log, but the mark that covers a log which is itself well.

mod answers;
mod applying;
mod behind;
mod body;
mod command;
mod deciding;
mod ends;
mod entry_role;
mod event;
mod following;
mod leading;
mod levels;
mod marks;
mod members;
#[cfg(any(test, feature = "testing"))]
mod mistaken;
mod naming;
mod news;
mod proposals;
#[cfg(test)]
mod tests;
mod timekeeping;
mod turns;
mod unreadable;
mod upkeep;
mod written;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use vouch_broker::record::FEATURE_LEVEL;
use vouch_broker::state::Effect;
use vouch_broker::{Millis, NothingStored, State};
use vouch_commitlog::{EntryKind, LogPosition};
use vouch_consensus::Replica;
use vouch_leader::{Leader, Outside, Turn};

use crate::leadership::Lead;
use crate::reply::Reply;
use behind::Behind;
use written::WrittenEntry;

pub use answers::short_of;
pub use body::LeaderEntry;
pub use command::Command;
pub use entry_role::role_of;

pub use event::{
    Claim, ClockSays, Condition, EntryToAppend, Event, GroupStanding, HeldLog, LeaderLook, LogStanding, Look, Moment,
    Proposal, Request, ShownLook, Standing,
};
use marks::NextMark;
use naming::Naming;
use news::News;
use unreadable::CannotSend;

/// Between two looks at leases that living consumers hold, and at filters that nobody has.
const SECOND: Duration = Duration::from_secs(1);

/// Who hears what became of a proposal.
pub enum Hearer {
    /// Nobody: the broker's own.
    Nobody,
    /// A caller.
    Caller(Reply),
    /// Whoever waits for the start.
    Start,
}

/// What is to be written, in this order.
enum ToWrite {
    Records(Vec<Proposal>),
    /// A change of the members, alone in its entry.
    Members(Proposal),
    /// Before anything that has a later time: a leap to this one.
    Leap(Proposal, Millis),
    Mark,
    /// All that stands before it was written or refused: hand out what it leased.
    HandOut,
}

/// How a core begins.
pub struct CoreBeginning {
    /// What is applied.
    pub state: State,
    /// Everything before this position is.
    pub applied: LogPosition,
    /// How the log stands.
    pub log: LogStanding,
    /// The entries behind that, of which it is not known whether they are committed.
    pub tail: Vec<vouch_commitlog::Entry>,
    /// Bytes of it that sends leave to others when it cannot grow.
    pub reserve: u64,
    /// What somebody set.
    pub settings: CoreSettings,
    /// Its part in its group; `None`: its log is only read.
    pub replica: Option<Replica<LeaderEntry>>,
    /// Why nothing may be written, if so: then it is as good as a leader that writes nothing.
    pub closed: Option<NothingStored>,
}

/// Settings of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreSettings {
    /// Bytes of the log: a member that lives and lacks no more than these gets them from a leader, however slow it is. 1 GiB.
    pub catch_up: u64,
    /// The newest feature level that is understood: that of this version.
    pub feature_level: u32,
}

impl Default for CoreSettings {
    fn default() -> Self {
        Self { catch_up: 1 << 30, feature_level: FEATURE_LEVEL }
    }
}

/// One replica of a shard.
pub struct Core {
    state: State,
    /// What it keeps while it leads.
    leader: Option<Leader>,
    /// Its part in its group; `None`: it writes nothing.
    replica: Option<Replica<LeaderEntry>>,
    /// What it says when it first leads.
    start: Option<Lead>,
    /// What was asked before the first entry of the term that it leads is applied, and when: it waits for that.
    early: Vec<(Instant, Request)>,
    /// Names of entries are kept, since other members may need them.
    keeps_names: bool,
    /// Somebody waits for the start.
    awaits_begun: bool,
    log: LogStanding,
    reserve: u64,
    behind: Behind,
    /// The newest that is understood.
    feature_level: u32,
    /// Why nothing is written: the log failed, or is only read.
    closed: Option<NothingStored>,
    /// Everything before this log position is applied.
    applied: LogPosition,
    /// Time of the last entry: no later one has an earlier time.
    latest: Millis,
    /// Time of the last entry that is applied. The state knows only of entries that hold records.
    applied_time: Millis,
    now: Moment,
    /// Proposals for the next entry.
    batch: Vec<Proposal>,
    to_write: VecDeque<ToWrite>,
    /// An entry is with the log, and what became of it is not known.
    at_the_log: bool,
    written: VecDeque<WrittenEntry>,
    /// Where others decide, too, what was leased is handed out when the entry with this index is committed.
    handing_out: VecDeque<u64>,
    /// When it last began to lead.
    leads_from: Option<Instant>,
    /// When the next tick of its group's time is due; `None` before the first, and for one that is alone.
    next_tick: Option<Instant>,
    effects: Vec<Effect>,
    commands: VecDeque<Command>,
    marks: NextMark,
    naming: Naming,
    /// When it was last looked what the clock decided.
    kept_time_at: Millis,
    /// When the next look at what is done once a second is due.
    next_second: Instant,
    /// Entries that cannot be read, to be sent.
    cannot_send: CannotSend,
    /// Parts with damage that is to be mended, and when that was said.
    damaged_told: Option<(Instant, Vec<u64>)>,
    news: News,
    /// It ends: what comes is refused.
    stopping: bool,
}

impl ToWrite {
    /// What is proposed by it.
    fn proposals(self) -> Vec<Proposal> {
        match self {
            Self::Records(proposals) => proposals,
            Self::Members(only) | Self::Leap(only, _) => vec![only],
            Self::Mark | Self::HandOut => Vec::new(),
        }
    }
}

impl Core {
    /// A replica that does not lead yet; one whose log is only read is looked at as if it led.
    pub fn new(beginning: CoreBeginning, now: Moment) -> Self {
        let CoreBeginning { state, applied, log, tail, reserve, settings, replica, closed } = beginning;
        let leader = closed.is_some().then(|| Leader::of(&state));
        Self {
            leader,
            replica,
            start: None,
            early: Vec::new(),
            keeps_names: false,
            awaits_begun: false,
            log,
            reserve,
            behind: Behind::within(settings.catch_up),
            feature_level: settings.feature_level,
            closed,
            applied,
            applied_time: state.cluster().clock,
            latest: tail.last().map_or(Millis(0), |last| Millis(last.leader_time_ms)).max(state.cluster().clock),
            state,
            now,
            batch: Vec::new(),
            to_write: VecDeque::new(),
            at_the_log: false,
            written: tail.into_iter().map(WrittenEntry::found).collect(),
            handing_out: VecDeque::new(),
            leads_from: None,
            next_tick: None,
            effects: Vec::new(),
            commands: VecDeque::new(),
            marks: NextMark::default(),
            naming: Naming::default(),
            kept_time_at: now.time,
            next_second: now.at + SECOND,
            cannot_send: CannotSend::default(),
            damaged_told: None,
            news: News::default(),
            stopping: false,
        }
    }

    /// A turn begins, at this moment, with the log standing so. All that is decided in it is decided then.
    pub fn begin_turn(&mut self, now: Moment, log: LogStanding) {
        self.now = now;
        self.log_stands(log);
        if let Some(leader) = &mut self.leader {
            leader.begin_turn();
        }
    }

    /// How the log stands after a command that changed that.
    pub fn log_stands(&mut self, log: LogStanding) {
        self.log = log;
        self.replica.iter_mut().for_each(|replica| replica.is_released(log.start > LogPosition::START));
    }

    /// Takes what happened.
    pub fn step(&mut self, event: Event, outside: &dyn Outside) {
        match event {
            Event::Request(request) => self.request(request, outside),
            Event::MayLead(lead) => self.may_lead(lead, outside),
            Event::Appended(entry, appended) => self.appended(entry, appended, outside),
            Event::Durable(to) => self.durable(to, outside),
            Event::Failed(why) => self.poison(why),
            Event::CannotSend(to, end, why) => self.cannot_send(to, end, &why, outside),
            Event::NotTaken(batch) => {
                self.lead_on(outside, |leader, turn| leader.not_taken(turn, &batch));
                self.write_batch();
            }
            Event::TurnEnds(clock) => self.end_turn(clock, outside),
            Event::CoverEnd => self.cover_end(),
        }
        self.write_next();
    }

    /// What is to be done next; `None` when all is done that the events so far ask for.
    pub fn next_command(&mut self) -> Option<Command> {
        while let Some(command) = self.commands.pop_front() {
            // A replica whose log failed takes part in nothing any more: it votes and acknowledges no more, and takes no entry:
            // one of a term that could not be noted, neither.
            let is_part = match &command {
                Command::Send(..) | Command::SaveVote(_) | Command::AppendSpan(_) | Command::Cut { .. } => true,
                Command::Append(entry) => entry.header.kind != EntryKind::Mark,
                _ => false,
            };
            if self.closed.is_none() || !is_part {
                return Some(command);
            }
            if let (Command::Append(entry), Some(why)) = (command, self.closed.clone()) {
                entry.proposals.into_iter().for_each(|proposal| self.unpropose(proposal, why.clone().into()));
                // What waits for the log behind it is refused as well.
                self.at_the_log = false;
                self.write_next();
            }
        }
        None
    }

    /// The state, to be looked at.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Lets the leader do something, if this leads, and takes over what it wants.
    fn lead_on<T>(&mut self, outside: &dyn Outside, act: impl FnOnce(&mut Leader, &Turn<'_>) -> T) -> Option<T> {
        let leader = self.leader.as_mut()?;
        let turn = Turn { state: &self.state, time: self.now.time, at: self.now.at, outside };
        let acted = act(leader, &turn);
        self.take_wants();
        Some(acted)
    }

    fn take_wants(&mut self) {
        let Some(leader) = &mut self.leader else { return };
        let wants = leader.take_wants();
        for (waiter, answer) in wants.answers {
            self.commands.push_back(Command::AnswerReceive(waiter, answer));
        }
        for records in wants.records {
            self.propose_held(Proposal { records, told: Hearer::Nobody, cost: 0, claim: Claim::Reserve });
        }
    }
}
