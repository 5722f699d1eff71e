//! Bindings that change while their answers are awaited.
//!
//! A binding is the same for as long as nobody deletes it or sets it anew: the position of the record that set it tells one
//! from the next under its name. What it says decides only while it is the same.

use std::collections::HashMap;

use vouch_broker::record::Record;
use vouch_broker::{HalfPosition, State};

use super::schedule::{Checker, Phase, Schedule};

/// Bindings that records on their way to the log set or delete, with the number of such records. What is proposed behind one
/// is applied behind it, and the state does not know of it yet.
#[derive(Debug, Default)]
pub(crate) struct Rebinding(HashMap<String, usize>);

/// The binding that a record sets or deletes.
fn changed(record: &Record) -> Option<&str> {
    match record {
        Record::BindingPut(put) => Some(&put.name),
        Record::BindingDelete(delete) => Some(&delete.name),
        _ => None,
    }
}

impl Rebinding {
    /// A record is on its way.
    pub(crate) fn hold(&mut self, record: &Record) {
        if let Some(name) = changed(record) {
            *self.0.entry(name.to_owned()).or_default() += 1;
        }
    }

    /// A record is applied, or will never be.
    pub(crate) fn release(&mut self, record: &Record) {
        let Some(name) = changed(record) else { return };
        if let Some(held) = self.0.get_mut(name) {
            *held -= 1;
            if *held == 0 {
                self.0.remove(name);
            }
        }
    }

    /// Whether this binding, as the record at this position set it, will still be the same when what is proposed now is
    /// applied. `false` where that is not sure.
    pub(crate) fn stays(&self, state: &State, name: &str, revision: u64) -> bool {
        !self.0.contains_key(name) && is_same(state, name, revision)
    }
}

fn is_same(state: &State, name: &str, revision: u64) -> bool {
    // One that pauses is asked nothing, and what it still says decides nothing: it is asked again when it goes on.
    state.plugins().binding(name).is_some_and(|binding| binding.revision == revision && !binding.paused)
}

impl Schedule {
    /// A binding or a topic changed: asks whose answer would decide nothing any more are over, and their transactions are
    /// due when the index says. Returns whether there were any.
    pub(super) fn end_superseded(&mut self, state: &State) -> bool {
        let stands = |transaction: &HalfPosition| {
            // It went with its topic.
            if state.open_transactions().get(*transaction).is_none() {
                return false;
            }
            match self.tracked.get(transaction).map(|tracked| &tracked.phase) {
                Some(Phase::Asking { checker: Checker::Component { binding, entry }, .. }) => {
                    is_same(state, binding, entry.revision)
                }
                _ => true,
            }
        };
        let over: Vec<HalfPosition> = self.asks.iter().copied().filter(|transaction| !stands(transaction)).collect();
        for transaction in &over {
            let Some(tracked) = self.remove(*transaction) else { continue };
            if let Some(open) = state.open_transactions().get(*transaction) {
                self.due_changed(tracked.topic, open.next_due);
            }
        }
        !over.is_empty()
    }
}

#[cfg(test)]
#[path = "rebinding_tests.rs"]
mod tests;
