//! Open transactions, found by time; outcomes of ended ones, remembered for a while.

mod stored;

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use super::leaps::{Leaps, Now};
use super::part::Of;
use super::recent::{EntryBytes, Happened, Recent};
use super::snapshot::{SectionSource, Snapshot, Unreadable};
use crate::check::CheckOverrides;
use crate::record::Identity;
use crate::record::codec::{DecodeError, Reader, Writer};
use crate::{HalfPosition, Millis, RecordPosition, TagHash, TopicId, TransactionOutcome};

/// How long the outcome of an ended transaction is remembered (ruling 6).
pub const OUTCOME_MEMORY_MS: u64 = 24 * 60 * 60 * 1000;
/// How many outcomes are remembered at most (ruling 6).
pub const OUTCOMES_MAX: usize = 10_000_000;

/// What was last said about an open transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastAnswer {
    /// Who, as people read it.
    pub by: String,
    /// The reason that came with *unknown*, or with an operator's *resume*.
    pub reason: String,
    /// When it was recorded.
    pub at: Millis,
}

impl LastAnswer {
    /// Before the name of who resumed a parked one.
    const OPERATOR: &'static str = "operator ";

    /// An operator let the asking begin again: that is what was last said about it then.
    pub(super) fn resumed(by: &str, reason: &str, at: Millis) -> Self {
        Self { by: format!("{}{by}", Self::OPERATOR), reason: reason.to_owned(), at }
    }
}

/// Why an open transaction is not asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// As people read it.
    pub reason: Box<str>,
    /// Its component failed on it: the asking goes on by itself when the binding is set anew (ruling 4). `false`: an
    /// operator resumes it.
    pub until_bound: bool,
}

/// How the component of an open transaction failed on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed, as people read it.
    pub by: String,
    /// How often in a row.
    pub failures: u32,
    /// What went wrong the last time.
    pub error: String,
    /// Where in the component, innermost first; empty where that is not known.
    pub trace: String,
    /// When it was recorded.
    pub at: Millis,
}

/// A half message whose outcome is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Topic of the half.
    pub topic: TopicId,
    /// Producer and message id.
    pub identity: Identity,
    /// The half's tag, for the index entry of a commit.
    pub tag: TagHash,
    /// When the half was stored.
    pub opened_at: Millis,
    /// What the producer asked of checks.
    pub overrides: CheckOverrides,
    /// Answered checks that count.
    pub checks: u32,
    /// When the next check is due; never for a parked one, or where checks are off.
    pub next_due: Millis,
    /// Why the asking stopped, if it did.
    pub parked: Option<Box<Parked>>,
    /// What was last said about it.
    pub last_answer: Option<Box<LastAnswer>>,
    /// How its component failed on it when that parked it the last time; kept after it is resumed.
    pub failure: Option<Box<Failure>>,
}

impl OpenTransaction {
    /// Whether what was last said about it is an operator's *resume*, and no answer *unknown*: each of those counts.
    pub fn is_resumed(&self) -> bool {
        self.checks == 0 && self.last_answer.as_ref().is_some_and(|said| said.by.starts_with(LastAnswer::OPERATOR))
    }

    /// Whether the asking goes on when a binding for the topic is set.
    fn waits_for_binding(&self) -> bool {
        self.parked.as_ref().is_some_and(|parked| parked.until_bound)
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Committed or rolled back.
    pub outcome: TransactionOutcome,
    /// When.
    pub at: Millis,
    /// Topic of the half.
    pub topic: TopicId,
    /// Log position of the record that ended it: who and why are there.
    pub record: RecordPosition,
    /// Answered checks that counted.
    pub checks: u32,
}

/// The table of open transactions. Behind a trait because it grows with use (architecture §6).
///
/// # To ensure correctness
///
/// `due` lists exactly the transactions of a topic whose `next_due` is not [`Millis::NEVER`], in the order of that time:
/// a check pass costs what is due, whatever else is open (TX-H4), and a topic that nobody can be asked about costs
/// nothing. `waiting_for_binding` lists exactly those that are parked until a binding is set.
pub trait OpenTransactions: Send {
    /// The open transaction of this half.
    fn get(&self, transaction: HalfPosition) -> Option<&OpenTransaction>;
    /// Adds or replaces one.
    fn put(&mut self, transaction: HalfPosition, open: OpenTransaction);
    /// Takes one out.
    fn remove(&mut self, transaction: HalfPosition) -> Option<OpenTransaction>;
    /// Transactions of a topic by the time of their next check, from `after` (exclusive) on.
    fn due(
        &self,
        topic: TopicId,
        after: Option<(Millis, HalfPosition)>,
    ) -> Box<dyn Iterator<Item = (Millis, HalfPosition)> + '_>;
    /// Topics with a transaction that is to be checked at some time.
    fn topics_to_check(&self) -> Box<dyn Iterator<Item = TopicId> + '_>;
    /// Open ones in the order in which they were opened, from `after` (exclusive) on.
    fn iter(&self, after: Option<HalfPosition>) -> Box<dyn Iterator<Item = (HalfPosition, &OpenTransaction)> + '_>;
    /// How many are open, parked ones included.
    fn len(&self) -> usize;
    /// Whether none is open.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// How many of them are parked.
    fn parked(&self) -> usize;
    /// How many are open in this topic, parked ones included.
    fn in_topic(&self, topic: TopicId) -> usize;
    /// How many of them are parked.
    fn parked_in_topic(&self, topic: TopicId) -> usize;
    /// Those that are parked until a binding for their topic is set, by topic and transaction.
    fn waiting_for_binding(&self) -> Box<dyn Iterator<Item = (TopicId, HalfPosition)> + '_>;
}

/// Slots that are kept when no transaction is open; the room of a burst above them is given back.
const KEPT_SLOTS: usize = 1 << 16;

/// Keeps open transactions in memory: about 150 bytes each.
#[derive(Debug, Default)]
pub struct MemoryTransactions {
    /// Transactions and empty places between them. Kept apart from the order, whose tree leaves half of its room empty.
    slots: Vec<Option<OpenTransaction>>,
    empty: Vec<u32>,
    /// The slot of each transaction, in the order in which they were opened.
    open: BTreeMap<HalfPosition, u32>,
    due: BTreeMap<TopicId, BTreeSet<(Millis, HalfPosition)>>,
    parked: usize,
    waiting_for_binding: BTreeSet<(TopicId, HalfPosition)>,
    by_topic: HashMap<TopicId, Counts>,
}

/// How many transactions a topic has.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Parked ones included.
    open: usize,
    parked: usize,
}

impl MemoryTransactions {
    fn count(&mut self, open: &OpenTransaction) {
        let parked = usize::from(open.parked.is_some());
        let counts = self.by_topic.entry(open.topic).or_default();
        counts.open += 1;
        counts.parked += parked;
        self.parked += parked;
    }

    /// The table of these, which ascend. Trees are built from what is in order, not entry by entry.
    fn restore(all: Vec<(HalfPosition, OpenTransaction)>) -> Result<Self, DecodeError> {
        if let Some(pair) = all.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return Err(DecodeError::Value { field: "transaction", value: pair[1].0.0 });
        }
        let mut table =
            Self { open: all.iter().zip(0..).map(|((id, _), slot)| (*id, slot)).collect(), ..Self::default() };
        let mut due: BTreeMap<TopicId, Vec<(Millis, HalfPosition)>> = BTreeMap::new();
        for (id, open) in &all {
            if open.next_due != Millis::NEVER {
                due.entry(open.topic).or_default().push((open.next_due, *id));
            }
            if open.waits_for_binding() {
                table.waiting_for_binding.insert((open.topic, *id));
            }
            table.count(open);
        }
        table.due = due.into_iter().map(|(topic, due)| (topic, due.into_iter().collect())).collect();
        table.slots = all.into_iter().map(|(_, open)| Some(open)).collect();
        Ok(table)
    }
}

impl OpenTransactions for MemoryTransactions {
    fn get(&self, transaction: HalfPosition) -> Option<&OpenTransaction> {
        self.slots[*self.open.get(&transaction)? as usize].as_ref()
    }

    fn put(&mut self, transaction: HalfPosition, open: OpenTransaction) {
        self.remove(transaction);
        if open.next_due != Millis::NEVER {
            self.due.entry(open.topic).or_default().insert((open.next_due, transaction));
        }
        if open.waits_for_binding() {
            self.waiting_for_binding.insert((open.topic, transaction));
        }
        self.count(&open);
        let slot = self.empty.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("memory ends before four billion open transactions")
        });
        // Another one in it would be lost: neither committed nor rolled back, and never asked about. Which slots are empty is
        // known here alone, and no record or snapshot says it.
        let before = self.slots[slot as usize].replace(open);
        assert!(before.is_none(), "the slot {slot} of transaction {transaction} holds another one");
        self.open.insert(transaction, slot);
    }

    fn remove(&mut self, transaction: HalfPosition) -> Option<OpenTransaction> {
        let slot = self.open.remove(&transaction)?;
        let taken = self.slots[slot as usize].take();
        assert!(taken.is_some(), "the slot {slot} of transaction {transaction} is empty");
        let open = taken?;
        self.empty.push(slot);
        if self.open.is_empty() && self.slots.len() > KEPT_SLOTS {
            (self.slots, self.empty) = (Vec::new(), Vec::new());
        }
        if let Some(due) = self.due.get_mut(&open.topic) {
            due.remove(&(open.next_due, transaction));
            if due.is_empty() {
                self.due.remove(&open.topic);
            }
        }
        self.parked -= usize::from(open.parked.is_some());
        if open.waits_for_binding() {
            self.waiting_for_binding.remove(&(open.topic, transaction));
        }
        if let Some(counts) = self.by_topic.get_mut(&open.topic) {
            counts.open -= 1;
            counts.parked -= usize::from(open.parked.is_some());
            if counts.open == 0 {
                self.by_topic.remove(&open.topic);
            }
        }
        Some(open)
    }

    fn due(
        &self,
        topic: TopicId,
        after: Option<(Millis, HalfPosition)>,
    ) -> Box<dyn Iterator<Item = (Millis, HalfPosition)> + '_> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = after.map_or(Unbounded, Excluded);
        Box::new(self.due.get(&topic).into_iter().flat_map(move |due| due.range((start, Unbounded)).copied()))
    }

    fn topics_to_check(&self) -> Box<dyn Iterator<Item = TopicId> + '_> {
        Box::new(self.due.keys().copied())
    }

    fn iter(&self, after: Option<HalfPosition>) -> Box<dyn Iterator<Item = (HalfPosition, &OpenTransaction)> + '_> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = after.map_or(Unbounded, Excluded);
        Box::new(self.open.range((start, Unbounded)).filter_map(|(id, slot)| {
            let open = self.slots[*slot as usize].as_ref()?;
            Some((*id, open))
        }))
    }

    fn len(&self) -> usize {
        self.open.len()
    }

    fn parked(&self) -> usize {
        self.parked
    }

    fn in_topic(&self, topic: TopicId) -> usize {
        self.by_topic.get(&topic).map_or(0, |counts| counts.open)
    }

    fn parked_in_topic(&self, topic: TopicId) -> usize {
        self.by_topic.get(&topic).map_or(0, |counts| counts.parked)
    }

    fn waiting_for_binding(&self) -> Box<dyn Iterator<Item = (TopicId, HalfPosition)> + '_> {
        Box::new(self.waiting_for_binding.iter().copied())
    }
}

/// Outcomes of ended transactions, for repeats and conflicts (ruling 6). Only the table of open ones makes finals, so
/// forgetting is safe.
#[derive(Debug)]
pub struct Outcomes(Recent<Ended>);

impl Default for Outcomes {
    fn default() -> Self {
        Self(Recent::new(OUTCOMES_MAX, OUTCOME_MEMORY_MS))
    }
}

impl Happened for Ended {
    const OF: Of = Of::Outcomes;

    fn at(&self) -> Millis {
        self.at
    }

    fn to_bytes(self, transaction: u64) -> EntryBytes {
        let mut bytes = [0; _];
        bytes[..8].copy_from_slice(&transaction.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.at.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.record.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.topic.0.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.checks.to_le_bytes());
        bytes[32..].copy_from_slice(&u64::from(self.outcome as u8).to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &EntryBytes) -> Result<(u64, Self), DecodeError> {
        let mut r = Reader(bytes);
        let (transaction, at) = (r.u64("transaction")?, Millis(r.u64("ended at")?));
        let record = RecordPosition(r.u64("end record")?);
        let (topic, checks) = (TopicId(r.u32("topic")?), r.u32("checks")?);
        Ok((transaction, Ended { outcome: outcome(r.u64("outcome")?)?, at, topic, record, checks }))
    }
}

fn outcome(value: u64) -> Result<TransactionOutcome, DecodeError> {
    let outcome = u8::try_from(value).ok().and_then(TransactionOutcome::from_number);
    outcome.ok_or(DecodeError::Value { field: "outcome", value })
}

/// An entry of the table, whose keys are numbers.
fn named((transaction, ended): (u64, &Ended)) -> (HalfPosition, &Ended) {
    (HalfPosition(transaction), ended)
}

impl Outcomes {
    /// How a transaction ended, if that was not dropped yet.
    pub fn get(&self, transaction: HalfPosition) -> Option<&Ended> {
        self.0.latest(transaction.0)
    }

    /// How a transaction ended, if that is remembered at `now`: for [`OUTCOME_MEMORY_MS`], whether or not others ended
    /// meanwhile.
    pub fn remembered(&self, transaction: HalfPosition, now: Now<'_>) -> Option<&Ended> {
        self.0.get(transaction.0, now)
    }

    /// Ended ones, the oldest end first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (HalfPosition, &Ended)> {
        self.0.iter().map(named)
    }

    /// Ended ones after this one, the oldest end first; all of them without one, or if it is forgotten.
    pub fn iter_after(
        &self,
        transaction: Option<HalfPosition>,
    ) -> Box<dyn Iterator<Item = (HalfPosition, &Ended)> + '_> {
        match transaction {
            Some(transaction) => Box::new(self.0.iter_after(transaction.0).map(named)),
            None => Box::new(self.0.iter().map(named)),
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(super) fn put(&mut self, transaction: HalfPosition, ended: Ended, leaps: &Leaps) {
        self.0.put(transaction.0, ended, leaps);
    }

    /// The table of outcomes, from which parts are written.
    pub(super) fn table(&self) -> &Recent<Ended> {
        &self.0
    }

    /// The same, to note what of it lies in a part from now on.
    pub(super) fn table_mut(&mut self) -> &mut Recent<Ended> {
        &mut self.0
    }
}

/// Both tables as the state holds them.
pub(super) struct TransactionTables {
    pub(super) open: Box<dyn OpenTransactions>,
    pub(super) outcomes: Outcomes,
    /// Open ones whose half was carried to another place of the log, with that place.
    carried: BTreeMap<HalfPosition, RecordPosition>,
    /// The same by place.
    by_place: BTreeMap<RecordPosition, HalfPosition>,
}

impl Default for TransactionTables {
    fn default() -> Self {
        Self {
            open: Box::<MemoryTransactions>::default(),
            outcomes: Outcomes::default(),
            carried: BTreeMap::new(),
            by_place: BTreeMap::new(),
        }
    }
}

impl TransactionTables {
    /// Where the half of an open transaction lies.
    pub(super) fn place_of(&self, transaction: HalfPosition) -> RecordPosition {
        self.carried.get(&transaction).copied().unwrap_or(transaction.first_place())
    }

    /// The half of an open transaction lies there now.
    pub(super) fn carry(&mut self, transaction: HalfPosition, place: RecordPosition) {
        if self.open.get(transaction).is_some() {
            if let Some(before) = self.carried.insert(transaction, place) {
                self.by_place.remove(&before);
            }
            self.by_place.insert(place, transaction);
        }
    }

    /// Takes an open transaction out, and says where its half lies.
    ///
    /// # Panics
    /// If none is open under this name: a transaction ends once, and whoever ends it looked whether it is open. That a record
    /// names one that is not, or that ended, is refused before.
    pub(super) fn remove(&mut self, transaction: HalfPosition) -> RecordPosition {
        let ended = self.open.remove(transaction);
        assert!(ended.is_some(), "transaction {transaction} ends and is not open");
        match self.carried.remove(&transaction) {
            Some(place) => {
                self.by_place.remove(&place);
                place
            }
            None => transaction.first_place(),
        }
    }

    /// The lowest place to which one was carried.
    pub(super) fn lowest_carried(&self) -> Option<RecordPosition> {
        self.by_place.first_key_value().map(|(place, _)| *place)
    }

    /// Open transactions whose halves lie in this stretch of the log, with their places; those that were never carried
    /// first.
    pub(super) fn halves_in(
        &self,
        places: std::ops::Range<RecordPosition>,
    ) -> impl Iterator<Item = (HalfPosition, RecordPosition)> + '_ {
        let below = places.end;
        let first = self.open.iter(places.start.0.checked_sub(1).map(HalfPosition));
        let first = first.map(|(transaction, _)| (transaction, transaction.first_place()));
        let first = first.take_while(move |(_, place)| *place < below);
        let carried = self.by_place.range(places).map(|(place, transaction)| (*transaction, *place));
        first.filter(|(transaction, _)| !self.carried.contains_key(transaction)).chain(carried)
    }
}

#[cfg(test)]
mod tests;
