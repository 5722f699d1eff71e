//! Which open transactions to ask about now. Belongs to the leader, does no I/O.
//!
//! The state's index says when a check is due. This adds what only the leader knows: asks that are under way, asks that
//! are to be repeated at a time of their own, and topics that nobody can be asked about. A pass costs what is due: a
//! cursor per topic marks how far the index was taken.
//!
//! Topics share the room for asks: one whose asks all hang takes no more than its part of it, and a topic that has none
//! under way always gets one.
//!
//! # To ensure correctness
//!
//! A transaction is in one phase at a time: not tracked (the index alone says when it is due), asked about, or to be asked
//! about again. Counts and orders are indexes over these phases and change only in `put` and `remove`. What the index
//! lists before a topic's cursor is tracked; so whoever stops tracking an open transaction moves the cursor back.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use vouch_broker::record::{Record, SettledHead};
use vouch_broker::state::{BindingEntry, OpenTransaction};
use vouch_broker::{HalfPosition, Millis, ResourceName, State, TopicId, TransactionId};

use super::errors::{AskError, AskErrors};
use super::under_way::Ask;

/// Asks under way at once, in all; beyond it each topic may have its share of it.
const ASKS_MAX: usize = 1024;
/// Asks under way at once for one topic (TX-H11).
const ASKS_PER_TOPIC_MAX: usize = 128;
/// First pause after an ask without an answer; doubles up to the topic's interval (ruling 3).
const NO_ANSWER_FIRST_MS: u64 = 1000;

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checker {
    /// The component of this binding.
    Component {
        /// Name of the binding.
        binding: String,
        /// The binding as it was when the ask fell due.
        entry: Arc<BindingEntry>,
    },
    /// A live producer of the topic.
    Producer,
}

/// One ask to make.
#[derive(Clone, Debug)]
pub struct Due {
    /// About this transaction.
    pub transaction: HalfPosition,
    /// What it is called outside.
    pub id: TransactionId,
    /// Of this topic.
    pub topic: ResourceName,
    /// Who is asked.
    pub checker: Checker,
    /// Which check this is, from 1.
    pub number: u32,
    /// How many more there may be.
    pub checks_left: u32,
    /// When the answer before was recorded, or an operator let the asking begin again: with the number it names the check, however often
    /// it is asked. Numbers begin anew.
    pub after: Millis,
    /// When the half was stored.
    pub opened_at: Millis,
    /// When this ask was made.
    pub asked_at: Millis,
    /// The pause after this ask, in milliseconds.
    pub step_ms: u64,
    /// What the schedule shares with the one who asks.
    pub ask: Arc<Ask>,
}

/// Asks about one transaction that got no answer.
#[derive(Clone, Debug)]
pub struct NoAnswers {
    /// In a row.
    pub count: u32,
    /// When the last one was.
    pub last_at: Millis,
    /// When it is asked again.
    pub next_at: Millis,
    /// If in the last of them the component itself failed.
    failing: Option<Failing>,
}

/// A component that fails on one transaction, time after time (ruling 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Log position of the record that set its binding: set anew, it begins again.
    pub binding_revision: u64,
    /// In a row.
    pub failures: u32,
    /// When the first of them was.
    pub since: Millis,
}

pub(super) enum Phase {
    /// This one is being asked.
    Asking { ask: Arc<Ask>, asked_at: Millis, checker: Checker },
    /// To be asked about again at this time, whatever the index says.
    Again(Millis),
}

/// A transaction that was asked about and whose answer is not in the log.
pub(super) struct Tracked {
    pub(super) topic: TopicId,
    /// Number of the ask that is under way, or that comes again.
    number: u32,
    pub(super) phase: Phase,
    no_answers: Option<NoAnswers>,
}

#[derive(Default)]
struct TopicPart {
    /// How far the index was taken.
    cursor: Option<(Millis, HalfPosition)>,
    /// Transactions in the phase [`Phase::Again`], by time.
    again: BTreeSet<(Millis, HalfPosition)>,
    /// Transactions in the phase [`Phase::Asking`].
    asks: usize,
    /// Something was due and nobody could be asked.
    without_checker: bool,
}

/// What comes first in a topic, of what is not being asked about.
enum First {
    /// This transaction, which has been due since then.
    Due(Millis, HalfPosition),
    /// Nothing is due before this time; nothing ever is if there is none.
    Later(Option<Millis>),
}

/// The leader's side of checking.
pub struct Schedule {
    pub(super) tracked: HashMap<HalfPosition, Tracked>,
    topics: HashMap<TopicId, TopicPart>,
    /// Transactions in the phase [`Phase::Asking`], of all topics.
    pub(super) asks: BTreeSet<HalfPosition>,
    asks_max: usize,
    asks_per_topic_max: usize,
    /// Topics with asks under way, or with something due when the last pass looked.
    busy_topics: usize,
    errors: AskErrors,
    /// The topic that the next pass begins with, so that all have their turn when there is no room for all.
    turn: TopicId,
}

impl Default for Schedule {
    fn default() -> Self {
        Self::with_room(ASKS_MAX, ASKS_PER_TOPIC_MAX)
    }
}

impl Schedule {
    fn with_room(asks_max: usize, asks_per_topic_max: usize) -> Self {
        let (tracked, topics) = (HashMap::new(), HashMap::new());
        let errors = AskErrors::default();
        let asks = BTreeSet::new();
        Self { tracked, topics, asks, asks_max, asks_per_topic_max, busy_topics: 0, errors, turn: TopicId(0) }
    }

    /// Puts a transaction into a phase, out of whatever phase it is in.
    fn put(&mut self, transaction: HalfPosition, tracked: Tracked) {
        self.remove(transaction);
        let topic = self.topics.entry(tracked.topic).or_default();
        match &tracked.phase {
            Phase::Asking { .. } => {
                topic.asks += 1;
                self.asks.insert(transaction);
            }
            Phase::Again(at) => {
                topic.again.insert((*at, transaction));
            }
        }
        self.tracked.insert(transaction, tracked);
    }

    /// Stops tracking a transaction. An ask about it that is under way is over.
    pub(super) fn remove(&mut self, transaction: HalfPosition) -> Option<Tracked> {
        let tracked = self.tracked.remove(&transaction)?;
        let topic = self.topics.entry(tracked.topic).or_default();
        match &tracked.phase {
            Phase::Asking { ask, .. } => {
                topic.asks -= 1;
                self.asks.remove(&transaction);
                ask.end();
            }
            Phase::Again(at) => {
                topic.again.remove(&(*at, transaction));
            }
        }
        Some(tracked)
    }

    /// A transaction of this topic is due at a time that may lie before what was taken already.
    pub fn due_changed(&mut self, topic: TopicId, at: Millis) {
        let before = at.0.checked_sub(1).map(|ms| (Millis(ms), HalfPosition(u64::MAX)));
        if let Some(part) = self.topics.get_mut(&topic) {
            part.cursor = part.cursor.min(before);
        }
    }

    /// Takes the asks that are due, and says when to look again if nothing changes.
    pub fn take(
        &mut self,
        state: &State,
        now: Millis,
        mut checker_of: impl FnMut(&ResourceName) -> Option<Checker>,
    ) -> (Vec<Due>, Option<Millis>) {
        let mut due = Vec::new();
        let mut next = None;
        let mut with_work = Vec::new();
        self.busy_topics = 0;
        for id in self.topics_in_turn(state) {
            let first = self.first(state, id, now);
            let is_due = matches!(first, First::Due(..));
            self.busy_topics += usize::from(is_due || self.topics.get(&id).is_some_and(|part| part.asks > 0));
            match first {
                First::Due(..) => with_work.push(id),
                First::Later(at) => next = earlier(next, at),
            }
        }
        let mut turn_given = false;
        for id in with_work {
            let Some(topic) = state.topics().get(id) else { continue };
            let checker = checker_of(&topic.name);
            self.topics.entry(id).or_default().without_checker = checker.is_none();
            // Due, and nobody to ask: attempts do not move. A new producer or binding wakes the runner.
            let Some(checker) = checker else { continue };
            due.extend(self.take_from(state, id, &topic.name, &checker, now));
            match self.first(state, id, now) {
                // The end of an ask wakes the runner, and this topic goes first.
                First::Due(..) if self.asks.len() >= self.asks_max && !turn_given => {
                    (self.turn, turn_given) = (id, true)
                }
                First::Due(..) => {}
                First::Later(at) => next = earlier(next, at),
            }
        }
        (due, next)
    }

    fn take_from(
        &mut self,
        state: &State,
        id: TopicId,
        name: &ResourceName,
        checker: &Checker,
        now: Millis,
    ) -> Vec<Due> {
        let mut due = Vec::new();
        while self.has_room(id)
            && let First::Due(at, transaction) = self.first(state, id, now)
        {
            if !self.tracked.contains_key(&transaction) {
                self.topics.entry(id).or_default().cursor = Some((at, transaction));
            }
            due.extend(self.ask(state, transaction, name, checker, now));
        }
        due
    }

    /// Whether a topic may have one more ask under way. Where all places are taken, perhaps by asks that hang, it may have
    /// its share all the same; a share is never less than one.
    fn has_room(&self, topic: TopicId) -> bool {
        let in_topic = self.topics.get(&topic).map_or(0, |part| part.asks);
        let share = (self.asks_max / self.busy_topics.max(1)).max(1);
        in_topic < self.asks_per_topic_max && (self.asks.len() < self.asks_max || in_topic < share)
    }

    fn topics_in_turn(&mut self, state: &State) -> Vec<TopicId> {
        let mut topics: Vec<TopicId> = state.open_transactions().topics_to_check().collect();
        topics.sort_unstable();
        let tracked = &mut self.tracked;
        self.topics.retain(|id, part| {
            let known = part.asks > 0 || topics.binary_search(id).is_ok();
            if !known {
                // Nothing in it is ever due, so nothing is asked again.
                part.again.iter().for_each(|(_, transaction)| drop(tracked.remove(transaction)));
            }
            known
        });
        let first = topics.partition_point(|id| *id < self.turn);
        topics.rotate_left(first);
        topics
    }

    /// The transaction that is due first, of those that are not being asked about, and when that is. One that has to
    /// wait for its repetition is due then and not when the index says. Here and nowhere else is decided what is due.
    fn first(&mut self, state: &State, topic: TopicId, now: Millis) -> First {
        let part = self.topics.entry(topic).or_default();
        let mut fresh = None;
        for (at, transaction) in state.open_transactions().due(topic, part.cursor) {
            if !self.tracked.contains_key(&transaction) {
                fresh = Some((at, transaction));
                break;
            }
            if at <= now {
                part.cursor = Some((at, transaction));
            }
        }
        // The one that waits longest goes first: those that get no answer again and again do not keep others waiting.
        match earlier(fresh, part.again.first().copied()) {
            Some((at, transaction)) if at <= now => First::Due(at, transaction),
            later => First::Later(later.map(|(at, _)| at)),
        }
    }

    fn ask(
        &mut self,
        state: &State,
        transaction: HalfPosition,
        topic: &ResourceName,
        checker: &Checker,
        now: Millis,
    ) -> Option<Due> {
        let before = self.remove(transaction);
        let open = state.open_transactions().get(transaction)?;
        if open.next_due > now {
            // Its checks were switched off while it waited to be asked about again: the index knows.
            self.due_changed(open.topic, open.next_due);
            return None;
        }
        let policy = &state.topics().get(open.topic)?.config.transaction;
        let number = open.checks + 1;
        let ask = Arc::<Ask>::default();
        let phase = Phase::Asking { ask: ask.clone(), asked_at: now, checker: checker.clone() };
        let no_answers = before.and_then(|before| before.no_answers);
        self.put(transaction, Tracked { topic: open.topic, number, phase, no_answers });
        Some(Due {
            transaction,
            id: state.incarnations().transaction_id(transaction),
            topic: topic.clone(),
            checker: checker.clone(),
            number,
            checks_left: open.overrides.max_checks(policy).saturating_sub(number),
            after: open.last_answer.as_ref().map_or(Millis(0), |answer| answer.at),
            opened_at: open.opened_at,
            asked_at: now,
            step_ms: open.overrides.step_ms(policy, number),
            ask,
        })
    }

    /// The ask about a transaction that is under way: itself, its number and when it was made.
    pub fn under_way(&self, transaction: HalfPosition) -> Option<(&Ask, u32, Millis)> {
        let tracked = self.tracked.get(&transaction)?;
        match &tracked.phase {
            Phase::Asking { ask, asked_at, .. } => Some((ask, tracked.number, *asked_at)),
            Phase::Again(_) => None,
        }
    }

    /// Whether this ask is under way.
    pub fn is_under_way(&self, due: &Due) -> bool {
        self.under_way(due.transaction).is_some_and(|(ask, ..)| std::ptr::eq(ask, due.ask.as_ref()))
    }

    /// A record was applied. If it says something new about a transaction, an ask under way about it is over, and the
    /// index says when the next one is due. Returns whether that changed anything here.
    pub fn applied(&mut self, record: &Record, state: &State) -> bool {
        match record {
            Record::End(end) => self.settled(end.transaction, state),
            Record::CheckAnswered(answer) => self.settled(answer.transaction, state),
            Record::Settled(settled) => match &settled.head {
                SettledHead::End(end) => self.settled(end.transaction, state),
                SettledHead::CheckAnswered(answer) => self.settled(answer.transaction, state),
                SettledHead::Ack(_) | SettledHead::DeadLetter(_) => false,
            },
            Record::Park(park) => self.settled(park.transaction, state),
            Record::ComponentFailed(failed) => self.settled(failed.transaction, state),
            Record::BindingPut(_)
            | Record::BindingDelete(_)
            | Record::BindingPaused(_)
            | Record::TopicDelete(_)
            | Record::TopicForced(_) => self.end_superseded(state),
            _ => false,
        }
    }

    fn settled(&mut self, transaction: HalfPosition, state: &State) -> bool {
        let Some(tracked) = self.tracked.get(&transaction) else { return false };
        let open = state.open_transactions().get(transaction);
        // A late answer to an earlier ask changes nothing, and the ask that is under way goes on.
        let unchanged = |open: &OpenTransaction| open.parked.is_none() && open.checks < tracked.number;
        if open.is_some_and(unchanged) {
            return false;
        }
        let topic = tracked.topic;
        self.remove(transaction);
        if let Some(open) = open {
            self.due_changed(topic, open.next_due);
        }
        true
    }

    /// This ask is over without anybody's fault: ask again at `at`.
    pub fn ask_again(&mut self, due: &Due, at: Millis) {
        if !self.is_under_way(due) {
            return;
        }
        if let Some(mut tracked) = self.remove(due.transaction) {
            if let Some(no_answers) = &mut tracked.no_answers {
                no_answers.next_at = at;
            }
            self.put(due.transaction, Tracked { phase: Phase::Again(at), ..tracked });
        }
    }

    /// This ask got no answer: back off (ruling 3), however often that happens: an outage may last (ruling 4).
    /// `failed_binding`: the component itself failed, of the binding that was set by the record at this position. Returns
    /// how often in a row it did, if it did.
    pub fn no_answer(&mut self, due: &Due, error: AskError, failed_binding: Option<u64>) -> Option<Failing> {
        if !self.is_under_way(due) {
            return None;
        }
        let tracked = self.remove(due.transaction)?;
        let now = error.at;
        let before = tracked.no_answers.as_ref();
        let count = before.map_or(0, |before| before.count).saturating_add(1);
        let pause = NO_ANSWER_FIRST_MS.saturating_mul(1 << (count - 1).min(30)).min(due.step_ms.max(1));
        let next_at = now.plus_ms(pause);
        let row = before.and_then(|before| before.failing);
        let failing = failed_binding.map(|binding_revision| {
            let begun = Failing { binding_revision, failures: 0, since: now };
            let row = row.filter(|row| row.binding_revision == binding_revision).unwrap_or(begun);
            Failing { failures: row.failures.saturating_add(1), ..row }
        });
        let no_answers = Some(NoAnswers { count, last_at: now, next_at, failing });
        self.put(due.transaction, Tracked { phase: Phase::Again(next_at), no_answers, ..tracked });
        self.errors.note(due.transaction, error);
        failing
    }

    /// An ask about a transaction got no answer, and another one is asked instead.
    pub fn note_error(&mut self, transaction: HalfPosition, error: AskError) {
        self.errors.note(transaction, error);
    }

    /// Asks about a transaction that got no answer, if the last one did.
    pub fn no_answers(&self, transaction: HalfPosition) -> Option<&NoAnswers> {
        self.tracked.get(&transaction)?.no_answers.as_ref()
    }

    /// The last error of asks about a transaction, answered, parked or ended since or not.
    pub fn last_error(&self, transaction: HalfPosition) -> Option<&AskError> {
        self.errors.of(transaction)
    }

    /// Whether a topic has due transactions and nobody to ask.
    pub fn is_without_checker(&self, topic: TopicId) -> bool {
        self.topics.get(&topic).is_some_and(|part| part.without_checker)
    }

    /// Asks under way.
    pub fn asking(&self) -> usize {
        self.asks.len()
    }
}

fn earlier<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    [a, b].into_iter().flatten().min()
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
