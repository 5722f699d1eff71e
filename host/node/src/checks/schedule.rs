//! Which open transactions to ask about now. Belongs to the leader, lives on the executor thread, does no I/O.
//!
//! The state's index says when a check is due. This adds what only the leader knows: asks that are under way, asks that
//! got no answer and their back-off, and topics that nobody can be asked about. A pass costs what is due: a cursor per
//! topic marks how far the index was taken.

use std::collections::{BTreeSet, HashMap, HashSet};

use vouch_broker::{Millis, ResourceName, State, TopicId};

/// Asks under way at once, in all.
const ASKS_MAX: usize = 1024;
/// Asks under way at once for one topic (TX-H11).
const ASKS_PER_TOPIC_MAX: usize = 128;
/// First pause after an ask without an answer; doubles up to the topic's interval (ruling 3).
const NO_ANSWER_FIRST_MS: u64 = 1000;

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Checker {
    /// The component of this binding.
    Component {
        /// Name of the binding.
        binding: String,
    },
    /// A live producer of the topic.
    Producer,
}

/// One ask to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) transaction: u64,
    pub(crate) topic: ResourceName,
    pub(crate) checker: Checker,
    pub(crate) number: u32,
    pub(crate) checks_left: u32,
    pub(crate) opened_at: Millis,
    pub(crate) asked_at: Millis,
    /// The pause after this ask.
    pub(crate) step_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Ask {
    topic: TopicId,
    asked_at: Millis,
}

/// Asks about one transaction that got no answer.
#[derive(Clone, Debug)]
pub(crate) struct NoAnswers {
    /// In a row.
    pub(crate) count: u32,
    pub(crate) first_at: Millis,
    pub(crate) last_at: Millis,
    pub(crate) next_at: Millis,
    /// Who was asked last.
    pub(crate) by: String,
    /// What went wrong.
    pub(crate) text: String,
}

/// The leader's side of checking.
#[derive(Default)]
pub(crate) struct Schedule {
    cursors: HashMap<TopicId, (Millis, u64)>,
    asking: HashMap<u64, Ask>,
    per_topic: HashMap<TopicId, usize>,
    no_answers: HashMap<u64, NoAnswers>,
    retries: HashMap<TopicId, BTreeSet<(Millis, u64)>>,
    without_checker: HashSet<TopicId>,
}

impl Schedule {
    /// A transaction of this topic is due at a time that may lie before what was taken already.
    pub(crate) fn due_changed(&mut self, topic: TopicId, at: Millis) {
        let before = (Millis(at.0.saturating_sub(1)), u64::MAX);
        if let Some(cursor) = self.cursors.get_mut(&topic) {
            *cursor = (*cursor).min(before);
        }
    }

    /// Takes the asks that are due, and says when to look again if nothing changes.
    pub(crate) fn take(
        &mut self,
        state: &State,
        now: Millis,
        mut checker_of: impl FnMut(&ResourceName) -> Option<Checker>,
    ) -> (Vec<Due>, Option<Millis>) {
        let mut due = Vec::new();
        let mut next = None;
        let topics: Vec<TopicId> = state.open_transactions().topics_to_check().collect();
        self.forget_other_topics(&topics);
        for id in topics {
            let Some(topic) = state.topics().get(id) else { continue };
            let first = self.first_due(state, id);
            if first.is_none_or(|at| at > now) {
                next = earlier(next, first);
                continue;
            }
            let Some(checker) = checker_of(&topic.name) else {
                // Due, and nobody to ask: attempts do not move. A new producer or binding wakes the runner.
                self.without_checker.insert(id);
                continue;
            };
            self.without_checker.remove(&id);
            while due.len() + self.asking.len() <= ASKS_MAX
                && self.per_topic.get(&id).copied().unwrap_or(0) < ASKS_PER_TOPIC_MAX
            {
                let Some(transaction) = self.pop(state, id, now) else { break };
                if let Some(ask) = self.ask(state, transaction, &topic.name, &checker, now) {
                    due.push(ask);
                }
            }
            // Full: the end of an ask wakes the runner. Otherwise the next one that is not due yet decides.
            next = earlier(next, self.first_due(state, id).filter(|at| *at > now));
        }
        (due, next)
    }

    fn forget_other_topics(&mut self, topics: &[TopicId]) {
        if self.cursors.len() > topics.len() || self.without_checker.len() > topics.len() {
            let known: HashSet<_> = topics.iter().copied().collect();
            self.cursors.retain(|topic, _| known.contains(topic));
            self.without_checker.retain(|topic| known.contains(topic));
            self.retries.retain(|topic, retries| known.contains(topic) && !retries.is_empty());
        }
    }

    fn first_due(&self, state: &State, topic: TopicId) -> Option<Millis> {
        let fresh = state.open_transactions().due(topic, self.cursors.get(&topic).copied()).next().map(|(at, _)| at);
        let retry = self.retries.get(&topic).and_then(BTreeSet::first).map(|(at, _)| *at);
        earlier(fresh, retry)
    }

    fn pop(&mut self, state: &State, topic: TopicId, now: Millis) -> Option<u64> {
        let retries = self.retries.entry(topic).or_default();
        if let Some((at, transaction)) = retries.first().copied().filter(|(at, _)| *at <= now) {
            retries.remove(&(at, transaction));
            return Some(transaction);
        }
        let cursor = self.cursors.get(&topic).copied();
        for (at, transaction) in state.open_transactions().due(topic, cursor).take_while(|(at, _)| *at <= now) {
            self.cursors.insert(topic, (at, transaction));
            // One that waits for its retry is in `retries`, whatever the index says.
            if !self.no_answers.contains_key(&transaction) && !self.asking.contains_key(&transaction) {
                return Some(transaction);
            }
        }
        None
    }

    fn ask(
        &mut self,
        state: &State,
        transaction: u64,
        topic: &ResourceName,
        checker: &Checker,
        now: Millis,
    ) -> Option<Due> {
        let Some(open) = state.open_transactions().get(transaction).filter(|open| open.parked.is_none()) else {
            self.no_answers.remove(&transaction);
            return None;
        };
        let policy = &state.topics().get(open.topic)?.config.transaction;
        let number = open.checks + 1;
        self.asking.insert(transaction, Ask { topic: open.topic, asked_at: now });
        *self.per_topic.entry(open.topic).or_default() += 1;
        Some(Due {
            transaction,
            topic: topic.clone(),
            checker: checker.clone(),
            number,
            checks_left: open.overrides.max_checks(policy).saturating_sub(number),
            opened_at: open.opened_at,
            asked_at: now,
            step_ms: open.overrides.step_ms(policy, number),
        })
    }

    /// When the ask that is under way about a transaction was made.
    pub(crate) fn asked_at(&self, transaction: u64) -> Option<Millis> {
        self.asking.get(&transaction).map(|ask| ask.asked_at)
    }

    /// The log says something new about a transaction: an ask under way about it is over. `next_due` is when the
    /// transaction is due again; the cursor may have passed it meanwhile. Returns whether an ask ended.
    pub(crate) fn settled(&mut self, transaction: u64, next_due: Option<Millis>) -> bool {
        self.no_answers.remove(&transaction);
        let Some(ask) = self.asking.remove(&transaction) else { return false };
        self.leave(&ask);
        if let Some(at) = next_due {
            self.due_changed(ask.topic, at);
        }
        true
    }

    /// The ask that was made at `asked_at` is over without anybody's fault: look at the transaction again at `at`.
    pub(crate) fn ask_again(&mut self, transaction: u64, asked_at: Millis, at: Millis) {
        if let Some(ask) = self.end_ask(transaction, asked_at) {
            self.no_answers.remove(&transaction);
            self.retries.entry(ask.topic).or_default().insert((at, transaction));
        }
    }

    /// An ask got no answer: back off (ruling 3). Returns how often that happened in a row, and since when.
    pub(crate) fn no_answer(&mut self, due: &Due, now: Millis, by: String, text: String) -> Option<(u32, Millis)> {
        let ask = self.end_ask(due.transaction, due.asked_at)?;
        let before = self.no_answers.remove(&due.transaction);
        let count = before.as_ref().map_or(0, |before| before.count) + 1;
        let pause = NO_ANSWER_FIRST_MS.saturating_mul(1 << (count - 1).min(30)).min(due.step_ms.max(1));
        let next_at = now.plus_ms(pause);
        let first_at = before.map_or(now, |before| before.first_at);
        let no_answers = NoAnswers { count, first_at, last_at: now, next_at, by, text };
        self.no_answers.insert(due.transaction, no_answers);
        self.retries.entry(ask.topic).or_default().insert((next_at, due.transaction));
        Some((count, first_at))
    }

    /// Ends the ask that was made at this time; a younger one about the same transaction goes on.
    fn end_ask(&mut self, transaction: u64, asked_at: Millis) -> Option<Ask> {
        let ask = *self.asking.get(&transaction).filter(|ask| ask.asked_at == asked_at)?;
        self.asking.remove(&transaction);
        self.leave(&ask);
        Some(ask)
    }

    fn leave(&mut self, ask: &Ask) {
        if let Some(count) = self.per_topic.get_mut(&ask.topic) {
            *count -= 1;
            if *count == 0 {
                self.per_topic.remove(&ask.topic);
            }
        }
    }

    /// Asks about a transaction that got no answer, if the last one did.
    pub(crate) fn no_answers(&self, transaction: u64) -> Option<&NoAnswers> {
        self.no_answers.get(&transaction)
    }

    /// Whether a topic has due transactions and nobody to ask.
    pub(crate) fn is_without_checker(&self, topic: TopicId) -> bool {
        self.without_checker.contains(&topic)
    }

    /// Asks under way.
    pub(crate) fn asking(&self) -> usize {
        self.asking.len()
    }
}

fn earlier(a: Option<Millis>, b: Option<Millis>) -> Option<Millis> {
    [a, b].into_iter().flatten().min()
}
