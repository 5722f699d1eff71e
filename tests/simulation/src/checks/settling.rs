//! What became of the answers of guests, by the records in the log alone: each that was to happen did, as a whole and once, and
//! of the others nothing is there (ruling 8).
//!
//! It keeps an account of its own of leases, transactions, the binding and what that keeps, and decides from this what each
//! record is to do. The state is held against that behind each of them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vouch_broker::record::{
    BindingDelete, BindingPut, KeptAccess, KeyExpiry, Record, Settled, SettledHead, decode_stored,
};
use vouch_broker::state::{Applied, KEPT_KEY_COST, Outcome, RecordAt};
use vouch_broker::{HalfPosition, Millis, QueueOffset, RecordPosition, Refusal, State};
use vouch_commitlog::LogReader;

use super::leases::Leases;
use super::{GotMessage, Wrong};
use crate::guests::{COUNTER, GROUP, IN, MOST_CHECKS, NAMESPACE, OF_CALL, OUT, SHARER, WITHDRAWN, number};

/// What guests and those beside them heard.
#[derive(Default)]
pub(crate) struct GuestsTold {
    /// Of answers with something staged, by their marks: whether it happened, where that is known.
    pub(crate) answered: Vec<(u64, bool)>,
    /// The messages that members of their group got.
    pub(crate) received: Vec<GotMessage>,
}

/// What a record with something staged is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Its head changes nothing, or its binding is gone.
    Late,
    /// What was read is another by now.
    Stale,
    /// There is no room, or no topic.
    Refused,
    /// All of it happens.
    Happens,
}

/// A value, as this account has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Value {
    value: Vec<u8>,
    version: u64,
    expires_at: Option<Millis>,
}

/// A transaction that is open.
#[derive(Clone, Copy, Default)]
struct Open {
    checks: u32,
    parked: bool,
}

/// What tells two calls apart that have one name here: a node's names say more, and its ends are proposed only while the ask is under
/// way. Checks are numbered anew where a transaction was resumed; an end says no number, so a late one counts though the check that it
/// is from was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Round {
    resumed: u32,
    ended: bool,
}

/// The account.
pub(super) struct Settling {
    leases: Leases,
    open: BTreeMap<HalfPosition, Open>,
    /// Position of the record that created the binding, and how much it may keep.
    binding: Option<(u64, u64)>,
    /// Another binding has the namespace, too.
    shared: bool,
    kept: BTreeMap<String, Value>,
    /// To each counter one was added so often since there was none.
    counted: BTreeMap<String, u64>,
    withdrawn: bool,
    /// What is to be in the queue that guests publish to, in its order; and of messages that came with a check, of
    /// which round that was.
    published: Vec<(RecordPosition, Round)>,
    resumed: BTreeMap<HalfPosition, u32>,
    /// Bodies of all messages that were staged, those of refused records, too.
    staged: BTreeMap<RecordPosition, (String, u64)>,
    /// Of each mark, whether what was staged happened.
    marks: BTreeMap<u64, bool>,
    /// Checks that were counted or ended something, and messages that were done, each with what was staged.
    decided: BTreeSet<String>,
    /// How many records there were of each fate.
    pub(super) fates: BTreeMap<Fate, u64>,
}

impl Default for Settling {
    fn default() -> Self {
        Self {
            leases: Leases::of(GROUP, IN),
            open: BTreeMap::new(),
            binding: None,
            shared: false,
            kept: BTreeMap::new(),
            counted: BTreeMap::new(),
            withdrawn: false,
            published: Vec::new(),
            resumed: BTreeMap::new(),
            staged: BTreeMap::new(),
            marks: BTreeMap::new(),
            decided: BTreeSet::new(),
            fates: BTreeMap::new(),
        }
    }
}

impl Settling {
    /// A record, and what the state says to it. `bytes`: its frame.
    ///
    /// # Errors
    /// It is not what this account says.
    pub(super) fn applied(
        &mut self,
        at: RecordAt,
        (record, bytes): (&Record, &[u8]),
        outcome: &Outcome,
        state: &State,
    ) -> Result<(), Wrong> {
        match record {
            Record::Settled(settled) => self.settled(at, settled, bytes, outcome)?,
            Record::CheckAnswered(answered) => self.counts(answered.transaction, answered.check_number),
            Record::KeptDeleted(deleted) if outcome.is_ok() => {
                let all = deleted.key.is_none();
                self.kept.retain(|key, _| !all && Some(key) != deleted.key.as_ref());
                self.counted.retain(|key, _| !all && Some(key) != deleted.key.as_ref());
            }
            Record::BindingPut(put) if outcome.is_ok() && put.name == SHARER => self.shared = true,
            Record::BindingPut(BindingPut { keeps: Some(keeps), .. }) if outcome.is_ok() => {
                let created = self.binding.map_or(at.position.0, |(created, _)| created);
                self.binding = Some((created, keeps.quota));
            }
            Record::BindingDelete(BindingDelete { name }) if outcome.is_ok() => {
                if name == SHARER {
                    self.shared = false;
                } else {
                    self.binding = None;
                }
                // What is kept goes with the last of them.
                if !self.shared && self.binding.is_none() {
                    self.kept.clear();
                    self.counted.clear();
                }
            }
            Record::TopicDelete(_) if outcome.is_ok() => self.withdrawn = state.topics().get(WITHDRAWN).is_none(),
            Record::Half(_) if *outcome == Ok(Applied::Prepared { transaction: HalfPosition::of(at.position) }) => {
                self.open.insert(HalfPosition::of(at.position), Open::default());
            }
            Record::End(end) => _ = self.open.remove(&end.transaction),
            Record::Resume(resume) if outcome.is_ok() => {
                self.open.insert(resume.transaction, Open::default());
                *self.resumed.entry(resume.transaction).or_default() += 1;
            }
            _ => {}
        }
        if outcome.is_ok() && !matches!(record, Record::Settled(_)) {
            self.leases.applied(record, at.time, state)?;
        }
        self.is_what_the_state_says(at.time, state).map_err(|wrong| format!("{wrong}, behind {record:?} at {at:?}"))
    }

    fn counts(&mut self, transaction: HalfPosition, number: u32) {
        if let Some(open) = self.open.get_mut(&transaction)
            && !open.parked
            && open.checks + 1 == number
        {
            (open.checks, open.parked) = (number, number >= MOST_CHECKS);
        }
    }

    fn settled(&mut self, at: RecordAt, settled: &Settled, bytes: &[u8], outcome: &Outcome) -> Result<(), Wrong> {
        let fate = self.fate(settled, at.time);
        let was = match outcome {
            Ok(Applied::Late) => Fate::Late,
            Ok(Applied::Stale) => Fate::Stale,
            Err(Refusal::TooMany(_) | Refusal::NotFound(_)) => Fate::Refused,
            Err(other) => return Err(format!("an answer was refused: {other:?}, for {settled:?}")),
            Ok(_) => Fate::Happens,
        };
        if fate != was {
            return Err(format!("an answer at {at:?} is {fate:?}, and came to {outcome:?}: {settled:?}"));
        }
        *self.fates.entry(fate).or_default() += 1;
        let mut mark = settled.kept.as_ref().and_then(|kept| {
            let own = kept.writes.iter().find(|(key, _)| key.starts_with(OF_CALL));
            own.and_then(|(_, write)| write.value.as_deref()).map(number)
        });
        for (position, head) in settled.messages(at.position) {
            let from = (position.0 - at.position.0) as usize;
            let record = Bytes::copy_from_slice(&bytes[from..from + head.record_len as usize]);
            let (_, stored) = decode_stored(&record).map_err(|error| format!("a staged message: {error}"))?;
            let body = number(&stored.message.body);
            mark.get_or_insert(body);
            self.staged.insert(position, (stored.message.message_id, body));
            if fate == Fate::Happens && head.topic == OUT {
                self.published.push((position, self.round(&settled.head)));
            }
        }
        if let Some(mark) = mark
            && self.marks.insert(mark, fate == Fate::Happens).is_some()
        {
            return Err(format!("an answer is in the log twice: {settled:?}"));
        }
        if fate == Fate::Happens { self.happens(at, settled) } else { Ok(()) }
    }

    /// To which round of checks an answer belongs.
    fn round(&self, head: &SettledHead) -> Round {
        let (transaction, ended) = match head {
            SettledHead::End(end) => (end.transaction, true),
            SettledHead::CheckAnswered(answered) => (answered.transaction, false),
            SettledHead::Ack(_) | SettledHead::DeadLetter(_) => return Round::default(),
        };
        Round { resumed: self.resumed.get(&transaction).copied().unwrap_or(0), ended }
    }

    /// What it is to do, in the order in which that is asked.
    fn fate(&self, settled: &Settled, now: Millis) -> Fate {
        let lives = |(group, topic), queue, offset, generation| {
            (group, topic) == (GROUP, IN) && self.leases.lives(queue, offset, generation, now)
        };
        let changes = match &settled.head {
            SettledHead::End(end) => self.open.contains_key(&end.transaction),
            SettledHead::CheckAnswered(answered) => self
                .open
                .get(&answered.transaction)
                .is_some_and(|open| !open.parked && open.checks + 1 == answered.check_number),
            SettledHead::Ack(ack) => lives((ack.group, ack.topic), ack.queue, ack.offset, ack.generation),
            SettledHead::DeadLetter(sized) => {
                let letter = &sized.letter;
                lives((letter.group, letter.topic), letter.queue, letter.offset, letter.generation)
            }
        };
        let Some((_, quota)) = self.binding.filter(|(created, _)| changes && *created == settled.created) else {
            return Fate::Late;
        };
        if let Some(kept) = &settled.kept {
            let version = |key| self.value(key, now).map_or(0, |value| value.version);
            if kept.reads.iter().any(|(key, read)| version(key) != *read) {
                return Fate::Stale;
            }
            if !self.has_room(kept, quota, now) {
                return Fate::Refused;
            }
        }
        let to = |topic| settled.messages(RecordPosition::START).any(|(_, head)| head.topic == topic);
        if self.withdrawn && to(WITHDRAWN) { Fate::Refused } else { Fate::Happens }
    }

    fn value(&self, key: &str, now: Millis) -> Option<&Value> {
        self.kept.get(key).filter(|value| value.expires_at.is_none_or(|at| at > now))
    }

    /// Whether what is there then is no more than the binding may have, or than it was.
    fn has_room(&self, kept: &KeptAccess, quota: u64, now: Millis) -> bool {
        let stays = |key: &str| !kept.writes.contains_key(key);
        let live = self.kept.keys().filter_map(|key| Some((key, self.value(key, now)?)));
        let stay: u64 = live.filter(|(key, _)| stays(key)).map(|(key, value)| cost(key, &value.value)).sum();
        let written: u64 = kept.writes.iter().filter_map(|(key, write)| Some(cost(key, write.value.as_ref()?))).sum();
        // What is replaced counts whether it has expired or not, as long as it is there.
        let replaced = self.kept.iter().filter(|(key, _)| !stays(key));
        let replaced: u64 = replaced.map(|(key, value)| cost(key, &value.value)).sum();
        written <= replaced || stay + written <= quota
    }

    fn happens(&mut self, at: RecordAt, settled: &Settled) -> Result<(), Wrong> {
        let decided = match &settled.head {
            SettledHead::End(end) => {
                self.open.remove(&end.transaction);
                format!("the end of {:?}", end.transaction)
            }
            SettledHead::CheckAnswered(answered) => {
                self.counts(answered.transaction, answered.check_number);
                // One that was resumed is asked anew from the first check on.
                format!("check {} of {:?} at {:?}", answered.check_number, answered.transaction, answered.asked_at)
            }
            SettledHead::Ack(ack) => {
                self.leases.done(ack.queue, ack.offset, ack.generation);
                format!("message {:?} of queue {}", ack.offset, ack.queue)
            }
            SettledHead::DeadLetter(sized) => {
                let letter = &sized.letter;
                self.leases.done(letter.queue, letter.offset, letter.generation);
                format!("message {:?} of queue {}", letter.offset, letter.queue)
            }
        };
        if !self.decided.insert(decided.clone()) {
            return Err(format!("{decided} was decided twice, with effects: {settled:?}"));
        }
        if settled.kept.is_some() {
            self.kept.retain(|_, value| value.expires_at.is_none_or(|until| until > at.time));
        }
        for (key, write) in settled.kept.iter().flat_map(|kept| &kept.writes) {
            let expires_at = match write.expires {
                KeyExpiry::Never => None,
                KeyExpiry::AfterMs(ms) => Some(at.time.plus_ms(ms.into())),
                KeyExpiry::At(until) => Some(until),
            };
            match &write.value {
                Some(value) => {
                    let value = Value { value: value.clone(), version: at.position.0, expires_at };
                    self.kept.insert(key.clone(), value);
                }
                None => _ = self.kept.remove(key),
            }
            if key.starts_with(COUNTER) {
                *self.counted.entry(key.clone()).or_default() += 1;
            }
        }
        Ok(())
    }

    /// What is kept and published is what this account has, and each counter says how often something was added to it.
    fn is_what_the_state_says(&self, now: Millis, state: &State) -> Result<(), Wrong> {
        let published = state.topics().get(OUT).map_or(0, |topic| topic.end(0).0);
        if published != self.published.len() as u64 {
            return Err(format!("{published} messages are published, and {} were to be", self.published.len()));
        }
        let namespace = state.kept().namespace(NAMESPACE);
        let found = namespace.into_iter().flat_map(|kept| kept.keys_from(std::ops::Bound::Unbounded, now));
        let mut known = self.kept.keys().filter_map(|key| Some((key, self.value(key, now)?)));
        for (key, kept) in found {
            let value = Value { value: kept.value.clone(), version: kept.version, expires_at: kept.expires_at };
            if known.next() != Some((&key.to_owned(), &value)) {
                return Err(format!("{key} is kept as {value:?}, and was to be {:?}", self.value(key, now)));
            }
        }
        if let Some((key, value)) = known.next() {
            return Err(format!("{key} was to be kept as {value:?}"));
        }
        for (key, times) in &self.counted {
            let value = self.value(key, now).map_or(0, |value| number(&value.value));
            if value != *times {
                return Err(format!("{key} is {value}, and one was added to it {times} times"));
            }
        }
        Ok(())
    }

    /// In the end: what guests heard is true; all messages are done; what is found in the queue is what was published, each
    /// message under an id and a key of its own.
    ///
    /// # Errors
    /// It is not so.
    pub(super) fn is_over(&self, told: &GuestsTold, state: &State) -> Result<(), Wrong> {
        for (mark, happened) in &told.answered {
            if self.marks.get(mark).copied().unwrap_or(false) != *happened {
                return Err(format!("answer {mark:x} happened: {happened}, it was said, and that is not so"));
            }
        }
        for got in &told.received {
            if self.leases.attempt(got) != Some(got.attempt) {
                return Err(format!("a guest got a message that was not leased so: {got:?}"));
            }
        }
        let mut ids = BTreeSet::new();
        for (offset, (expected, round)) in (0..).zip(&self.published) {
            let entry = state.topics().get(OUT).and_then(|topic| topic.entry(0, QueueOffset(offset)));
            let Some((id, mark)) = entry.and_then(|entry| self.staged.get(&entry.position)) else {
                return Err(format!("a message is published at {offset} that nobody staged"));
            };
            if entry.is_none_or(|entry| entry.position != *expected) || self.marks.get(mark) != Some(&true) {
                return Err(format!("message {id} is found, and its record was refused"));
            }
            if !ids.insert((round, id)) {
                return Err(format!("two messages are published as {id}"));
            }
        }
        let topic = state.topics().get(IN);
        for (queue, end) in topic.into_iter().flat_map(|topic| (0..topic.config.queues).map(|q| (q, topic.end(q)))) {
            if let Some(left) = (0..end.0).find(|offset| !self.leases.is_done(queue, QueueOffset(*offset))) {
                return Err(format!("message {left} of queue {queue} was never done, and has no dead letter"));
            }
        }
        Ok(())
    }
}

/// Each message that guests published is read from a log where the queue says that it lies, like any other.
///
/// # Errors
/// One is not.
pub(crate) fn published_is_read(state: &State, log: &LogReader) -> Result<(), Wrong> {
    let Some(topic) = state.topics().get(OUT) else { return Ok(()) };
    for offset in QueueOffset::each(QueueOffset::FIRST..topic.end(0)) {
        let position = topic.entry(0, offset).map_or(RecordPosition(0), |entry| entry.position);
        match vouch_storage::message(log, position) {
            Ok((head, stored)) if head.topic == OUT && stored.message.keys == [stored.message.message_id.clone()] => {}
            read => return Err(format!("what is published at {offset:?} is read as {read:?}")),
        }
    }
    Ok(())
}

/// What a key counts for.
fn cost(key: &str, value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64 + KEPT_KEY_COST
}
