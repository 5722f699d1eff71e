//! A shard's thread: takes what happened, lets the core decide, and carries out what that wants, in its order. Batching is
//! whatever arrived meanwhile; there are no timers.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use vouch_broker::{Generation, Millis, NotDone, NothingStored, RecordPosition, State};
use vouch_commitlog::{LogPosition, LogReader, ReadError};
use vouch_consensus::GroupMessage;
use vouch_leader::{Members, Outside};

use crate::core::{ClockSays, Command, Core, CoreBeginning, Event, Hearer, Moment, Request};
use crate::inbox::{Inbox, InboxContents};
use crate::leadership::{Begun, Lead};
use crate::links::ShardLinks;
use crate::log::{Log, Output, ShardBeginning};
use crate::peers::Peers;
use crate::signals::Signals;

/// Hears how the log goes on in this life of the node.
pub type OnBegun = SyncSender<Result<Begun, NotDone>>;

/// What the leader may ask.
struct Surroundings {
    signals: Arc<Signals>,
    members: Arc<dyn Members>,
    reader: Option<LogReader>,
}

impl Outside for Surroundings {
    fn members(&self) -> &dyn Members {
        self.members.as_ref()
    }

    fn new_generation(&self, time: Millis) -> Generation {
        self.signals.clock.generation(time)
    }

    fn record_len(&self, position: RecordPosition) -> u32 {
        // Its length is the first thing that a record says.
        self.reader.as_ref().and_then(|log| vouch_storage::record_len(log, position).ok()).unwrap_or(0)
    }
}

/// The thread's own: a core, and what it is told and wants done with.
pub(crate) struct Executor {
    core: Core,
    log: Log,
    inbox: Arc<Inbox>,
    signals: Arc<Signals>,
    outside: Surroundings,
    peers: Arc<dyn Peers>,
    /// Whoever waits for the start.
    on_begun: Option<OnBegun>,
}

impl Executor {
    pub(crate) fn new(state: State, output: Output, links: ShardLinks) -> std::io::Result<Self> {
        let ShardLinks { inbox, signals, members, peers } = links;
        let ShardBeginning { log, applied, tail, reserve, settings, replica, closed } = Log::of(output, &inbox)?;
        signals.belong(&state);
        signals.secrets_are(&state);
        if let Some(why) = &closed {
            signals.close(why.clone());
        }
        let outside = Surroundings { signals: signals.clone(), members, reader: log.reader().cloned() };
        let now = Moment { time: signals.clock.now(), at: Instant::now() };
        let beginning = CoreBeginning { state, applied, log: log.standing(), tail, reserve, settings, replica, closed };
        Ok(Self { core: Core::new(beginning, now), log, inbox, signals, outside, peers, on_begun: None })
    }

    /// Runs until it is stopped; then the log is closed and everything proposed is answered. `lead`: from now on.
    pub(crate) fn run(mut self, lead: Option<(Lead, OnBegun)>) {
        self.inbox.serve_here();
        if let Some((lead, on_begun)) = lead {
            self.lead(lead, on_begun);
        }
        let mut spare = Vec::new();
        let mut stopping = false;
        while !stopping {
            let patience = self.core.patience(self.moment());
            let InboxContents { mut requests, durable, poisoned } = self.inbox.take(Some(patience), spare);
            self.begin_turn();
            self.tell_log(durable, poisoned);
            for request in requests.drain(..) {
                // Receives are answered with what this turn still brings them.
                if matches!(request, Request::Stop) {
                    stopping = true;
                } else {
                    let from_the_group = matches!(request, Request::Message(..));
                    self.tell(Event::Request(request));
                    if from_the_group {
                        // What it decided is done before it hears more.
                        self.carry_out();
                        self.signals.leads(self.core.leader());
                    }
                }
            }
            let clock = self.core.second_is_over().then(|| self.ask_clock());
            self.tell(Event::TurnEnds(clock));
            self.carry_out();
            self.signals.leads(self.core.leader());
            self.signals.count_scans(self.core.take_scans());
            spare = requests;
        }
        self.stop();
    }

    pub(crate) fn lead(&mut self, lead: Lead, on_begun: OnBegun) {
        self.on_begun = Some(on_begun);
        self.begin_turn();
        self.tell(Event::MayLead(lead));
        self.carry_out();
        self.signals.leads(self.core.leader());
    }

    fn moment(&self) -> Moment {
        Moment { time: self.signals.clock.now(), at: Instant::now() }
    }

    fn begin_turn(&mut self) {
        self.core.begin_turn(self.moment(), self.log.standing());
    }

    fn ask_clock(&self) -> ClockSays {
        ClockSays { leap: self.signals.clock.due(), agreed: self.signals.clock.agreed() }
    }

    fn tell(&mut self, event: Event) {
        self.core.step(event, &self.outside);
    }

    fn tell_log(&mut self, durable: Option<LogPosition>, poisoned: Option<String>) {
        if let Some(to) = durable {
            // A report of before a cut speaks of bytes that are gone; the log itself knows.
            let to = to.min(self.log.standing().durable);
            #[cfg(any(test, feature = "testing"))]
            crate::faults::is_durable(to);
            self.tell(Event::Durable(to));
            #[cfg(any(test, feature = "testing"))]
            crate::faults::is_applied(to);
        }
        if let Some(reason) = poisoned {
            self.tell(Event::Failed(reason));
        }
        // Who looks at the state, or changes something, in this turn finds what was told of it done.
        self.carry_out();
    }

    /// Does what the core wants, until it wants nothing more.
    fn carry_out(&mut self) {
        while let Some(command) = self.core.next_command() {
            match command {
                Command::SaveVote(vote) => self.must(|log| log.save_vote(vote)),
                Command::Cut { span, .. } => self.must(|log| log.cut(span)),
                Command::JoinGroup(node) => self.must(|log| log.join_group(node)),
                Command::AppendSpan(span) => self.must(|log| log.append_span(&span)),
                Command::Send(message, places) => self.send(message, &places),
                Command::Append(entry) => {
                    let appended = self.log.append(&entry);
                    self.core.log_stands(self.log.standing());
                    self.tell(Event::Appended(entry, appended));
                }
                Command::Answer { told, cost, answer } => {
                    self.inbox.release(cost);
                    if let Hearer::Caller(reply) = told {
                        reply.send(answer);
                    }
                }
                Command::AnswerReceive(waiter, answer) => {
                    if let Err(batch) = waiter.answer(answer) {
                        self.tell(Event::NotTaken(batch));
                    }
                }
                Command::Applied(commit) => {
                    self.log.committed(commit);
                    self.signals.snapshots.are_by_name(self.core.state().cluster().names_snapshots());
                    if self.signals.snapshots.applied(commit, !self.core.is_alone()) {
                        self.tell(Event::Request(Request::NameSnapshot));
                    }
                }
                Command::SnapshotNamed(position, told) => self.signals.snapshots.named(position, told),
                Command::ClosedByDamage(parts) => self.signals.closed_by_damage(parts),
                Command::FellBehind => self.signals.fell_behind(),
                Command::DirectoryChanged => self.signals.directory_changed(),
                Command::MembersChanged => self.signals.belong(self.core.state()),
                Command::SecretsChanged => self.signals.secrets_are(self.core.state()),
                Command::ChecksChanged => self.signals.checks_changed.notify_one(),
                Command::BindingsChanged => self.signals.bindings_changed.notify_one(),
                Command::FollowClock(time) => self.signals.clock.follow(time),
                Command::Close(why) => self.signals.close(why),
                Command::DropLog => self.log.let_go(),
                Command::RefusedInMemory(messages) => self.signals.count_refused_in_memory(messages),
                Command::MendParts(parts) => self.signals.snapshots.damaged(parts),
                Command::TellBegun(begun) => {
                    // Whoever gave the start up stops the shard.
                    let _ = self.on_begun.take().map(|on_begun| on_begun.send(begun));
                }
                Command::Done(tell) => tell(),
            }
        }
    }

    fn send(&mut self, message: GroupMessage, places: &[(LogPosition, LogPosition)]) {
        match self.log.spans(places) {
            Ok(spans) => self.peers.send(message, spans),
            // Retention was faster: the other member pulls a snapshot.
            Err((_, error @ ReadError::BeforeStart { .. })) => tracing::info!(%error, "entries are not sent any more"),
            // As long as this one leads, the other member gets them from nobody.
            Err(((from, to), error)) => {
                self.signals.cannot_read(from..to);
                self.tell(Event::CannotSend(message.to, to, error.to_string()));
            }
        }
    }

    /// Does something without which nothing more may be promised.
    fn must(&mut self, act: impl FnOnce(&mut Log) -> Result<(), String>) {
        let done = act(&mut self.log);
        self.core.log_stands(self.log.standing());
        if let Err(why) = done {
            self.tell(Event::Failed(why));
        }
    }

    // The end.

    pub(crate) fn stop(mut self) {
        self.tell(Event::Request(Request::Stop));
        self.carry_out();
        // What is written becomes durable and is answered before the log closes, and so does the mark that covers it.
        self.finish_written();
        self.begin_turn();
        self.tell(Event::CoverEnd);
        self.carry_out();
        self.finish_written();
        let InboxContents { requests, .. } = self.inbox.take(Some(Duration::ZERO), Vec::new());
        requests.into_iter().for_each(|request| self.tell(Event::Request(request)));
        self.carry_out();
        if let Err(error) = self.log.close() {
            tracing::error!(%error, "the commit log did not close cleanly; recovery will sort it out");
            self.signals.close(NothingStored::Poisoned(error.to_string()));
        }
    }

    /// Waits until all that is written is durable and applied; what comes meanwhile is refused.
    fn finish_written(&mut self) {
        while self.core.waits_for_the_log() {
            let InboxContents { requests, durable, poisoned } = self.inbox.take(None, Vec::new());
            self.begin_turn();
            self.tell_log(durable, poisoned);
            requests.into_iter().for_each(|request| self.tell(Event::Request(request)));
            self.carry_out();
        }
    }
}

#[cfg(test)]
#[path = "executor_tests.rs"]
mod tests;
