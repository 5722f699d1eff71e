//! What a turn is made of: requests, what is due by the clock, and when the next one must begin.

use std::time::{Duration, Instant};

use vouch_broker::{NotDone, NothingStored};
use vouch_leader::{Leader, Outside, Poll};

use super::{ClockSays, Command, Core, Event, Moment, Request, SECOND, Standing};

/// The shortest sleep: a due time of zero still lets others be heard first.
const PATIENCE_MIN: Duration = Duration::from_micros(100);

impl Core {
    pub(super) fn request(&mut self, request: Request, outside: &dyn Outside) {
        match request {
            Request::Propose(_)
            | Request::ProposeIf(..)
            | Request::Receive(_)
            | Request::Lead(_)
            | Request::HandOver(..)
                if self.term_begins() =>
            {
                self.early.push((self.now.at, request))
            }
            Request::Propose(proposal) | Request::ProposeIf(_, proposal) if self.stopping => {
                self.answer(proposal.told, proposal.cost, Err(NothingStored::Stopping.into()));
            }
            Request::Propose(proposal) => self.propose(proposal),
            Request::ProposeIf(condition, proposal) => match &self.leader {
                Some(leader) if !condition(&self.state, leader) => {
                    self.answer(proposal.told, proposal.cost, Ok(Vec::new()));
                }
                _ => self.propose(proposal),
            },
            Request::Receive(poll) => self.receive(poll, outside),
            Request::Gone(number, unheard) => {
                self.lead_on(outside, |leader, turn| {
                    leader.gone(number);
                    unheard.iter().for_each(|batch| leader.not_taken(turn, batch));
                });
            }
            // Dropping one tells its caller.
            Request::Read(_)
            | Request::Show(_)
            | Request::Lead(_)
            | Request::Standing(_)
            | Request::Group(_)
            | Request::KeepNames(_)
                if self.stopping => {}
            Request::Adopt(..) | Request::ReadFrom(..) if self.stopping => {}
            Request::Message(message, bodies) => self.message(&message, bodies, outside),
            Request::Read(look) => look(&self.state),
            Request::Show(look) => match &mut self.leader {
                Some(leader) => look(&self.state, leader),
                None => look(&self.state, &mut Leader::of(&self.state)),
            },
            Request::Lead(look) => match &mut self.leader {
                Some(leader) => look(Ok((&self.state, leader))),
                None => look(Err(self.not_leading())),
            },
            Request::Standing(tell) => tell(self.standing()),
            Request::KeepNames(tell) => self.keep_names(tell),
            Request::LearnNames(names, done) => self.learn_names(names, done),
            Request::Group(tell) => _ = self.group_standing().map(tell),
            Request::HandOver(to, reply) => self.hand_over(to, reply, outside),
            Request::Covered(index) => self.forget_names(index),
            Request::IndexBefore(position, tell) => {
                tell(self.replica.as_ref().and_then(|replica| replica.index_before(position.0)));
            }
            Request::Hold(held) => self.behind.hold(held, self.now.at),
            Request::NameSnapshot => self.should_name(),
            Request::Sealed(sealed) => self.sealed(sealed),
            Request::Differs(what) => self.differs(&what),
            Request::Adopt(part, copies) => self.adopt(part, copies),
            Request::ReadFrom(part, copies) => self.read_from(part, copies),
            // While it stops, too: not even the mark of the end is written then.
            Request::Fence(why, done) => {
                self.fence(why);
                self.commands.push_back(Command::Done(done));
            }
            Request::Stop => self.stop(),
        }
    }

    /// It was elected, and has not applied yet what was in the log before.
    fn term_begins(&self) -> bool {
        self.closed.is_none() && !self.stopping && self.leader.is_none() && self.slot().is_some()
    }

    fn receive(&mut self, poll: Poll, outside: &dyn Outside) {
        let why = self.closed.clone();
        let why = why.or_else(|| self.stopping.then_some(NothingStored::Stopping));
        let why = why.or_else(|| self.leader.is_none().then(|| self.not_leading()));
        match why {
            Some(why) => self.commands.push_back(Command::AnswerReceive(poll.waiter, Err(NotDone::from(why)))),
            None => _ = self.lead_on(outside, |leader, turn| leader.receive(turn, poll)),
        }
    }

    /// Whether what is done once a second is due, for which the clock must be asked.
    pub fn second_is_over(&self) -> bool {
        self.now.at >= self.next_second
    }

    /// Everybody was heard: serves whoever waits, does what is due, and lets all that was decided be written.
    pub(super) fn end_turn(&mut self, clock: Option<ClockSays>, outside: &dyn Outside) {
        let Moment { at, .. } = self.now;
        self.pass_time(outside);
        self.lead_on(outside, |leader, turn| {
            leader.serve_ready(turn);
            leader.tick(turn);
        });
        if let Some(clock) = clock {
            self.next_second = at + SECOND;
            self.each_second(clock, outside);
        }
        let needed = self.writes() && self.log.mark_due_in == Some(Duration::ZERO);
        self.marks.propose_when_idle(needed, at);
        self.stop_at_lost_parts();
        self.go_on_with_members(outside);
        self.write_batch();
    }

    fn each_second(&mut self, clock: ClockSays, outside: &dyn Outside) {
        self.news.end_second(self.now.at);
        self.keep_time(clock);
        self.lead_on(outside, Leader::look_again);
        if self.closed.is_none() {
            self.lead_on(outside, Leader::each_second);
            self.tell_damaged_parts();
            self.name_if_due();
        }
    }

    /// Whether it writes its log.
    pub(super) fn writes(&self) -> bool {
        #[cfg(any(test, feature = "testing"))]
        if self.closed.is_none() && self.slot_of_a_follower().is_some() {
            return true;
        }
        self.closed.is_none() && self.leader.is_some() && self.slot().is_some()
    }

    /// How long there is nothing to do by the clock, seen from this moment.
    pub fn patience(&self, now: Moment) -> Duration {
        if self.leader.as_ref().is_some_and(Leader::has_work) {
            return Duration::ZERO;
        }
        let until = |at: Instant| at.saturating_duration_since(now.at);
        let look = self.leader.as_ref().and_then(|leader| leader.next_look(now.time, now.at)).map(until);
        let mark = self.log.mark_due_in.filter(|_| self.writes()).map(|due_in| self.marks.due_in(due_in, now.at));
        let tick = self.next_tick(now.at).map(until);
        let soonest = [look, mark, tick].into_iter().flatten().fold(until(self.next_second), Duration::min);
        soonest.max(PATIENCE_MIN)
    }

    /// Looks for messages since this was last asked.
    pub fn take_scans(&mut self) -> u64 {
        self.leader.as_mut().map_or(0, Leader::take_scans)
    }

    pub(super) fn standing(&self) -> Standing {
        Standing {
            appended: self.log.appended,
            durable: self.log.durable,
            applied: self.applied,
            shortage: self.shortage(),
            reserve: self.reserve,
            waiting_polls: self.leader.as_ref().map_or(0, Leader::waiting),
        }
    }

    /// A request, as an event.
    pub fn heard(&mut self, request: Request, outside: &dyn Outside) {
        self.step(Event::Request(request), outside);
    }
}
