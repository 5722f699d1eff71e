//! What only the replica that leads keeps: receives that wait, what is on its way to the log, whom to ask about
//! transactions, and whose leases to extend.
//!
//! Pure: no thread, no file, and no clock but the one that a [`Turn`] hands in. Whoever runs a [`Leader`] tells it what
//! came and what was applied, and takes from it what it wants: records to propose, and answers to receives.
//!
//! # To ensure correctness
//!
//! Nothing that was promised depends on a `Leader`. What was acknowledged, leased, counted or decided is in the log, and
//! hence in the [`State`]; what is here is only whom it is on its way to. So one is made when a replica begins to lead, from
//! nothing but the state that it finds, and dropped when that ends: callers hear that nobody knows, and ask again.

mod absences;
pub mod checks;
mod outcomes;
mod poll;
mod polls;
mod receiving;
mod renewal;
mod series;
mod serving;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod turn;
mod upkeep;

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use vouch_broker::delivery::Reservations;
use vouch_broker::{Generation, GroupId, Millis, NotDone, State, TopicId};

use absences::Absences;
use checks::{Rebinding, Schedule};
use polls::Polls;
use renewal::Orphans;

pub use outcomes::Changed;
pub use poll::{Batch, Poll, ReceiveAnswer, Waiter};
pub use renewal::RENEWED_LEASE_MS;
pub use series::{OTHER, SERIES_MAX, Series};
pub use turn::{Dead, FilterOf, Members, Outside, Turn};
pub use upkeep::SHORTLY_MS;

/// Messages that went to the dead letters of each group.
pub type DeadLetters = Series<GroupId, u64>;

/// What the leader of a shard knows beside the state.
pub struct Leader {
    /// Which open transactions to ask about, and what came of it.
    pub schedule: Schedule,
    /// Messages that became dead letters, by group, since it leads.
    pub dead_letters: DeadLetters,
    /// The log's time when it began: what was leased before, another leader leased.
    pub began_at: Millis,
    /// What records on their way to the log will change.
    reservations: Reservations,
    /// Bindings that records on their way set or delete.
    rebinding: Rebinding,
    polls: Polls,
    /// Receives whose group came into being or joined its topic, or did not: they look again.
    joined: Vec<(Poll, Option<NotDone>)>,
    /// Batches whose leases are proposed.
    deliveries: Vec<(Poll, Batch)>,
    /// Batches to hand out once their leases are written, by what goes to the log together.
    sealed: VecDeque<Vec<(Poll, Batch)>>,
    /// Leases that the log refused, by generation: their batches are not handed out.
    unleased: Vec<(Generation, NotDone)>,
    /// Of whom the log refused something, or who found nothing while it refused: nothing else would wake them.
    unserved: BTreeSet<(TopicId, GroupId)>,
    /// Work for receives in this turn (see [`receiving::TURN_WORK`]).
    work: usize,
    /// It did not take the last entry: what was decided in it is decided again, and not at once.
    log_refuses: bool,
    absences: Absences,
    /// Consumers that died with leases that are not given up yet.
    orphans: Orphans,
    /// Some died since it was last looked.
    some_died: bool,
    /// Looks for messages since they were last counted.
    scans: u64,
    wants: Wants,
}

/// What a leader wants done, in this order within each kind.
#[derive(Default)]
pub struct Wants {
    /// Records to propose, framed; each stands for itself. They are held in the reservations already: one that is not
    /// proposed must come back by [`Leader::unproposed`].
    pub records: Vec<Vec<u8>>,
    /// Answers to receives. Messages among them are leased in the log.
    pub answers: Vec<(Box<dyn Waiter>, ReceiveAnswer)>,
}

impl Leader {
    /// A leader of a replica that has applied all that was in the log when its term began.
    ///
    /// All that it needs of the state it looks up there when it needs it: which checks are due, which leases end when.
    pub fn of(state: &State) -> Self {
        Self {
            schedule: Schedule::default(),
            dead_letters: DeadLetters::default(),
            began_at: state.cluster().clock,
            reservations: Reservations::default(),
            rebinding: Rebinding::default(),
            polls: Polls::default(),
            joined: Vec::new(),
            deliveries: Vec::new(),
            sealed: VecDeque::new(),
            unleased: Vec::new(),
            unserved: BTreeSet::new(),
            work: 0,
            log_refuses: false,
            absences: Absences::default(),
            orphans: Orphans::default(),
            some_died: false,
            scans: 0,
            wants: Wants::default(),
        }
    }

    /// What it wants done since this was last asked.
    pub fn take_wants(&mut self) -> Wants {
        std::mem::take(&mut self.wants)
    }

    /// Looks for messages that receives made since this was last asked.
    pub fn take_scans(&mut self) -> u64 {
        std::mem::take(&mut self.scans)
    }

    /// Receives that wait.
    pub fn waiting(&self) -> usize {
        self.polls.len()
    }

    /// Whether a binding, as the record at this position set it, decides what is proposed now: it is still the same, and
    /// nothing that changes it goes to the log before.
    pub fn is_bound(&self, state: &State, name: &str, revision: u64) -> bool {
        self.rebinding.stays(state, name, revision)
    }

    /// Whether there is work for receives that does not wait for anything.
    pub fn has_work(&self) -> bool {
        self.polls.any_ready()
    }

    /// When to look at it again if nothing happens; `None`: at no time of its own.
    pub fn next_look(&self, time: Millis, at: Instant) -> Option<Instant> {
        let wake = self.polls.next_wake().map(|wake| at + Duration::from_millis(wake.ms_since(time)));
        [self.polls.first_timeout(), wake].into_iter().flatten().min()
    }

    /// Answers everybody who waits: nothing will come any more. `answer` makes what each hears. Whom messages are leased to
    /// already hears with [`Self::hand_out`] what became of that.
    pub fn answer_all(&mut self, answer: impl Fn() -> ReceiveAnswer) {
        let joined = std::mem::take(&mut self.joined).into_iter().map(|(poll, _)| poll);
        let waiting = self.polls.drain();
        for poll in waiting.into_iter().chain(joined) {
            self.wants.answers.push((poll.waiter, answer()));
        }
    }

    /// Proposes a record of the broker's own.
    fn propose(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> usize) {
        let mut records = Vec::new();
        encode(&mut records);
        self.proposed(&records);
        self.wants.records.push(records);
    }

    fn answer(&mut self, poll: Poll, answer: ReceiveAnswer) {
        self.wants.answers.push((poll.waiter, answer));
    }
}
