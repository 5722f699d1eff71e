//! What must hold, by the names of the semantics (chapter 13).
//!
//! While a run goes on, after each turn: one leader a term; committed logs are prefixes of one another (I7). At its end, when all
//! is healed: one log, byte for byte, and one state (I7); no acknowledged message is missing (I1), none that was certainly not
//! stored is there (I2), none is there twice; a transaction ended once, and everybody heard the same (I4); what was reported is
//! true (I10); the register's history is linearizable; nothing acknowledged came back (I8).

use std::collections::{BTreeMap, BTreeSet};

use vouch_broker::record::{Frame, Identity, Record};
use vouch_broker::state::Applied;
use vouch_broker::{HalfPosition, QueueOffset, TransactionOutcome};
use vouch_commitlog::LogReader;

pub use crate::clients::{Call, Event, Heard};

/// What is wrong, in a sentence.
pub type Wrong = String;

/// The committed log, as any replica has told of it so far.
#[derive(Default)]
pub struct Committed {
    entries: BTreeMap<u64, (u64, u32)>,
    leaders: BTreeMap<u64, u64>,
}

impl Committed {
    /// A replica says that this entry is committed.
    ///
    /// # Errors
    /// Another one was.
    pub fn entry(&mut self, node: u64, index: u64, term: u64, checksum: u32) -> Result<(), Wrong> {
        let known = *self.entries.entry(index).or_insert((term, checksum));
        if known == (term, checksum) {
            Ok(())
        } else {
            Err(format!(
                "I7: node {node} has entry {index} of term {term}, and one of term {} was committed there",
                known.0
            ))
        }
    }

    /// A replica leads.
    ///
    /// # Errors
    /// Another one did in that term.
    pub fn leads(&mut self, node: u64, term: u64) -> Result<(), Wrong> {
        let leader = *self.leaders.entry(term).or_insert(node);
        if leader == node { Ok(()) } else { Err(format!("nodes {leader} and {node} lead in term {term}")) }
    }

    /// How many terms had a leader.
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }
}

/// What the log holds in the end.
#[derive(Default)]
struct Content {
    /// How often each message id is there, halves included.
    messages: BTreeMap<u64, u64>,
}

fn content(log: &LogReader) -> Result<Content, Wrong> {
    let mut content = Content::default();
    for entry in log.entries_from(log.start()) {
        let entry = entry.map_err(|error| format!("the committed log cannot be read: {error}"))?;
        let mut records: &[u8] = &entry.payload;
        while !records.is_empty() {
            let (frame, rest) = Frame::split(records).map_err(|error| error.to_string())?;
            if let Record::Message(head) | Record::Half(head) =
                Record::decode(&frame).map_err(|error| error.to_string())?
            {
                *content.messages.entry(head.identity.0).or_default() += 1;
            }
            records = rest;
        }
    }
    Ok(content)
}

/// Checks the history of a run against the log that all have in the end.
///
/// # Errors
/// The first thing that does not hold.
pub fn history(events: &[Event], log: &LogReader) -> Result<(), Wrong> {
    let content = content(log)?;
    messages(events, &content)?;
    transactions(events)?;
    register(events)?;
    deliveries(events)
}

/// I1, I2, I10: of each message id, what its sender heard is true.
fn messages(events: &[Event], content: &Content) -> Result<(), Wrong> {
    let mut heard: BTreeMap<u64, Vec<&Heard>> = BTreeMap::new();
    for event in events {
        if let Call::Send(id) | Call::Half(id) = event.call {
            heard.entry(id).or_default().push(&event.heard);
        }
    }
    for (id, heard) in heard {
        let identity = Identity::of("producer", &format!("m{id}"));
        let there = content.messages.get(&identity.0).copied().unwrap_or(0);
        let done: BTreeSet<String> = heard
            .iter()
            .filter_map(|heard| if let Heard::Done(applied) = heard { Some(format!("{applied:?}")) } else { None })
            .collect();
        if !done.is_empty() && there == 0 {
            let calls: Vec<_> =
                events.iter().filter(|event| event.call == Call::Send(id) || event.call == Call::Half(id)).collect();
            return Err(format!("I1: message m{id} was acknowledged and is not in the log: {calls:?}"));
        }
        if done.len() > 1 {
            return Err(format!("I10: message m{id} was acknowledged as {done:?}, which is more than one"));
        }
        if heard.iter().all(|heard| matches!(heard, Heard::NothingStored)) && there > 0 {
            return Err(format!("I2: of message m{id} nothing was stored, they said, and it is in the log"));
        }
    }
    Ok(())
}

/// I4: everybody hears the same of a transaction.
fn transactions(events: &[Event]) -> Result<(), Wrong> {
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
        for (queue, offset, _) in messages {
            if acked.get(&(*queue, *offset)).is_some_and(|at| *at < event.asked) {
                return Err(format!(
                    "I8: message {offset:?} of queue {queue} was acknowledged and came again: {event:?}"
                ));
            }
        }
    }
    Ok(())
}
