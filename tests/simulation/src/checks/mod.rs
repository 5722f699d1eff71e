//! What must hold, by the names of the semantics (chapter 13).
//!
//! While a run goes on: one leader a term; committed logs are prefixes of one another (I7); what is committed is durable on a
//! majority of disks (I1); nothing is handed out that is not committed (I3); each call is answered by a node that lives (I10); no
//! message says of a replica what its disk may forget; each start finds what was durable and nothing that was cut off; no node
//! closes, or does not start, though its disk did not fail; bytes that were handed out do not change.
//!
//! At its end, when all is healed: one log, byte for byte, and one state, which is what the log says (I7); what was reported of each
//! call is true (I1, I2, I10); a transaction ended once, and everybody heard the same (I4); queues were leased in order (I5) and
//! have no gaps (I6); no message had two living leases; nothing acknowledged came back (I8); the register's history is
//! linearizable.

mod content;
mod leases;
mod settling;

use std::collections::BTreeMap;

use bytes::Bytes;
use vouch_broker::state::Applied;
use vouch_broker::{HalfPosition, QueueOffset, RecordPosition, State, TransactionOutcome};
use vouch_commitlog::{Checkpoint, Entry, LogPosition, LogReader};

use content::Content;
pub(crate) use content::digest;
pub use settling::Fate;
pub(crate) use settling::{GuestsTold, published_is_read};

pub use crate::clients::{Call, Event, GotMessage, Heard};

/// What is wrong, in a sentence.
pub type Wrong = String;

/// The committed log, as any replica has told of it so far.
#[derive(Default)]
pub struct Committed {
    entries: BTreeMap<u64, Checkpoint>,
    /// What they say, kept when the first replica tells of them: it may leave every log.
    contents: BTreeMap<u64, Entry>,
    leaders: BTreeMap<u64, u64>,
}

impl Committed {
    /// This entry was committed before a run began.
    pub fn begins_with(&mut self, name: Checkpoint, entry: Entry) {
        self.entries.insert(name.index, name);
        self.learn(entry);
    }

    /// A replica says that this entry is committed; whether it is the first to say so.
    ///
    /// # Errors
    /// Another one was.
    pub fn entry(&mut self, node: u64, entry: Checkpoint) -> Result<bool, Wrong> {
        let Checkpoint { index, term, .. } = entry;
        let first = !self.entries.contains_key(&index);
        let known = *self.entries.entry(index).or_insert(entry);
        if known == entry {
            Ok(first)
        } else {
            Err(format!(
                "I7: node {node} has entry {index} of term {term}, and one of term {} was committed there",
                known.term
            ))
        }
    }

    /// Whether this entry is committed, by what anybody said so far.
    pub fn has(&self, entry: &Checkpoint) -> bool {
        self.entries.get(&entry.index) == Some(entry)
    }

    /// A replica leads.
    ///
    /// # Errors
    /// Another one did in that term.
    pub fn leads(&mut self, node: u64, term: u64) -> Result<(), Wrong> {
        let leader = *self.leaders.entry(term).or_insert(node);
        if leader == node { Ok(()) } else { Err(format!("nodes {leader} and {node} lead in term {term}")) }
    }

    /// Index and term of the last entry of which anybody said that it is committed.
    pub fn last(&self) -> (u64, u64) {
        self.entries.last_key_value().map_or((0, 0), |(index, entry)| (*index, entry.term))
    }

    /// Whether what an entry says is known.
    pub fn knows(&self, index: u64) -> bool {
        self.contents.contains_key(&index)
    }

    /// What an entry says that is committed. It is copied: who holds bytes of a log keeps their segment.
    pub fn learn(&mut self, entry: Entry) {
        let payload = Bytes::copy_from_slice(&entry.payload);
        self.contents.insert(entry.index, Entry { payload, ..entry });
    }

    /// A log as it is in the end, whose beginning may be gone: it has what was committed, up to there.
    ///
    /// # Errors
    /// It has something else.
    pub fn is_log(&mut self, node: u64, log: &LogReader, end: LogPosition) -> Result<(), Wrong> {
        let unread = |error: &dyn std::fmt::Display| format!("the log of a healed group: {error}");
        let mut latest = None;
        for header in log.headers_from(log.start()) {
            let header = header.map_err(|error| unread(&error))?;
            if header.end > end {
                break;
            }
            let known = self.entries.get(&header.index);
            let is_known =
                known.is_some_and(|known| (known.position, known.checksum) == (header.position, header.checksum));
            if !is_known || latest.is_some_and(|latest: u64| latest + 1 != header.index) {
                return Err(format!(
                    "I7: in the end node {node} has another log than was committed, from entry {} on",
                    header.index
                ));
            }
            latest = Some(header.index);
            if !self.knows(header.index) {
                self.learn(log.entry_at(header.position).map_err(|error| unread(&error))?);
            }
        }
        let last = self.last().0;
        if latest == Some(last) {
            Ok(())
        } else {
            Err(format!("I7: in the end node {node} has {latest:?} of {last} entries"))
        }
    }

    /// What was committed, in its order.
    ///
    /// # Errors
    /// Nobody knows what an entry says.
    fn contents(&self) -> Result<impl Iterator<Item = &Entry>, Wrong> {
        match self.entries.keys().find(|index| !self.knows(**index)) {
            Some(lost) => Err(format!("I1: entry {lost} was committed, and nobody has it")),
            None => Ok(self.contents.values()),
        }
    }

    /// How many terms had a leader.
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }
}

/// Checks the history of a run, and what messages were read as when they were handed out, against what was committed. Gives the state
/// that this says, and how many answers of guests came to what.
///
/// # Errors
/// The first thing that does not hold.
pub(crate) fn history(
    events: &[Event],
    served: &[(RecordPosition, u64)],
    committed: &Committed,
    guests: Option<&GuestsTold>,
) -> Result<(State, BTreeMap<Fate, u64>), Wrong> {
    let content = Content::of(committed.contents()?, guests.is_some())?;
    if let Some((position, _)) = served.iter().find(|(position, digest)| !content.is_at(*position, *digest)) {
        return Err(format!("a message was read at {position} that is not what lies there"));
    }
    honesty(events, &content)?;
    messages(events, &content)?;
    transactions(events, &content)?;
    register(events)?;
    deliveries(events)?;
    leases(events, &content)?;
    if let (Some(settling), Some(told)) = (&content.settling, guests) {
        settling.is_over(told, &content.state)?;
    }
    Ok((content.state, content.settling.map(|settling| settling.fates).unwrap_or_default()))
}

/// I1, I2, I10: what was heard of each call is true. What is done is in the log, once for each time that it was said to be; and of
/// what was certainly not stored nothing is there.
fn honesty(events: &[Event], content: &Content) -> Result<(), Wrong> {
    #[derive(Default)]
    struct Told {
        done: u64,
        perhaps: u64,
    }
    let mut told: BTreeMap<String, Told> = BTreeMap::new();
    for event in events {
        let Some(key) = content::key(event) else { continue };
        let told = told.entry(key).or_default();
        match event.heard {
            Heard::Done(_) => told.done += 1,
            Heard::NothingStored => {}
            _ => told.perhaps += 1,
        }
    }
    for (key, Told { done, perhaps }) in told {
        let there = content.times(&key);
        if there < done {
            return Err(format!("I1: {key} was done {done} times, it was said, and is in the log {there} times"));
        }
        if there > done + perhaps {
            return Err(format!(
                "I2: {key} is in the log {there} times, was done {done} times and perhaps {perhaps} times; otherwise nothing \
                 was stored, it was said"
            ));
        }
    }
    Ok(())
}

/// I10: everybody who sent a message, or sent it again, hears of the same place, and there it lies.
fn messages(events: &[Event], content: &Content) -> Result<(), Wrong> {
    let mut places: BTreeMap<u64, &Applied> = BTreeMap::new();
    for event in events {
        if let (Call::Send(id) | Call::Half(id), Heard::Done(applied)) = (&event.call, &event.heard) {
            let first = places.entry(*id).or_insert(applied);
            if *first != applied {
                return Err(format!("I10: message m{id} was acknowledged as {first:?} and as {applied:?}"));
            }
            let lies_there = match applied {
                Applied::Stored { queue, offset } => content.place(event) == Some((*queue, *offset)),
                Applied::Prepared { transaction } => content.opens(event, *transaction),
                _ => false,
            };
            if !lies_there {
                return Err(format!("I10: message m{id} was acknowledged as {applied:?}, and does not lie there"));
            }
        }
    }
    Ok(())
}

/// I4: everybody hears the same of a transaction, and its message is in a queue if that is how it ended.
fn transactions(events: &[Event], content: &Content) -> Result<(), Wrong> {
    let mut outcomes: BTreeMap<HalfPosition, (TransactionOutcome, &Event)> = BTreeMap::new();
    for event in events {
        let Call::End(transaction, _) = event.call else { continue };
        let outcome = match &event.heard {
            Heard::Done(Applied::Ended { outcome, .. }) | Heard::Refused(Some(outcome)) => *outcome,
            _ => continue,
        };
        let (known, first) = outcomes.entry(transaction).or_insert((outcome, event));
        if *known != outcome {
            return Err(format!("I4: transaction {transaction:?} ended as both: {first:?} and {event:?}"));
        }
    }
    let differs = |(transaction, (outcome, _)): &(&HalfPosition, &(TransactionOutcome, &Event))| {
        content.is_delivered(**transaction) != (*outcome == TransactionOutcome::Committed)
    };
    if let Some((transaction, (outcome, _))) = outcomes.iter().find(differs) {
        return Err(format!("I4: transaction {transaction:?} ended as {outcome:?}, and the queues say otherwise"));
    }
    Ok(())
}

/// The register is a compare-and-set one whose revisions grow: its history is linearizable if the order of the revisions is one
/// that real time allows, and each put replaced the revision that it expected, or one that nobody knows of.
fn register(events: &[Event]) -> Result<(), Wrong> {
    let mut puts: BTreeMap<u64, &Event> = BTreeMap::new();
    for event in events {
        if let (Call::Put(_), Heard::Done(Applied::Set { revision, .. })) = (&event.call, &event.heard)
            && let Some(other) = puts.insert(*revision, event)
        {
            return Err(format!("register: revision {revision} was given twice: {other:?} and {event:?}"));
        }
    }
    let mut latest_asked = 0;
    for (revision, event) in &puts {
        if event.heard_at < latest_asked {
            return Err(format!(
                "register: revision {revision} was answered before one below it was asked for: {event:?}"
            ));
        }
        latest_asked = latest_asked.max(event.asked);
        if let Call::Put(Some(expected)) = event.call
            && puts.range(expected + 1..*revision).next().is_some()
        {
            return Err(format!("register: revision {revision} replaced another one than {expected}"));
        }
    }
    Ok(())
}

/// I8: what was acknowledged before a receive was asked for is not among what it gets.
fn deliveries(events: &[Event]) -> Result<(), Wrong> {
    let mut acked: BTreeMap<(u32, QueueOffset), u64> = BTreeMap::new();
    for event in events {
        if let (Call::Ack(queue, offset, _), Heard::Done(_)) = (&event.call, &event.heard) {
            let at = acked.entry((*queue, *offset)).or_insert(event.heard_at);
            *at = event.heard_at.min(*at);
        }
    }
    for event in events {
        let Heard::Messages(messages) = &event.heard else { continue };
        for GotMessage { queue, offset, .. } in messages {
            if acked.get(&(*queue, *offset)).is_some_and(|at| *at < event.asked) {
                return Err(format!(
                    "I8: message {offset:?} of queue {queue} was acknowledged and came again: {event:?}"
                ));
            }
        }
    }
    Ok(())
}

/// No message was handed out but by a lease that took effect, and so never to two whose leases live; and each said which delivery it
/// is.
fn leases(events: &[Event], content: &Content) -> Result<(), Wrong> {
    for event in events {
        let Heard::Messages(messages) = &event.heard else { continue };
        for got in messages {
            match content.leases.attempt(got) {
                Some(attempt) if attempt == got.attempt => {}
                Some(attempt) => {
                    return Err(format!("delivery {attempt} of a message was said to be another: {got:?}"));
                }
                None => {
                    return Err(format!(
                        "a message was handed out that was leased to another, or not at all: {got:?} of {event:?}"
                    ));
                }
            }
        }
    }
    Ok(())
}
