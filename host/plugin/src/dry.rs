//! Dry calls: a component runs as it would, and nothing of what it does stays (ruling 34).
//!
//! Every database transaction is rolled back at its end, so that closing a fence answers what it would. Over HTTP only GET and HEAD
//! go out; anything else is answered 599 by the host. State is read; what is staged is dropped. What was asked for is noted, for
//! whoever tries a binding.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    error_text::{MAX_ERROR_TEXT, cut},
    outcome::{Answered, Verdict},
    quantity::ByteSize,
};

/// What a guest asked for is noted up to so many times.
const ASKED_MAX: usize = 64;
/// Bytes that are told of each.
const ASKED_BYTES: usize = 512;

/// What came of a dry call.
#[derive(Clone, Debug)]
pub struct Tried<V = Verdict> {
    /// What it would have said.
    pub checked: Answered<V>,
    /// What it asked for, in order: requests, what it wanted of databases, keys of its state, topics that it would publish to. No
    /// parameters, no values, and no secrets.
    pub asked: Vec<String>,
    /// What kept it from answering and will again: a statement that the database refuses, a message that its topic refuses, or what
    /// is not granted.
    pub wrong: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// Memory that it had at the end, of `limits.memory`.
    pub memory: ByteSize,
}

/// What is noted of a dry call while it runs. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct DryRun(Arc<Mutex<DryNotes>>);

#[derive(Default)]
struct DryNotes {
    asked: Vec<String>,
    wrong: Option<String>,
    memory: usize,
}

impl DryRun {
    fn notes(&self) -> MutexGuard<'_, DryNotes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest asked for something.
    pub(crate) fn asked(&self, what: impl fmt::Display) {
        let mut notes = self.notes();
        if notes.asked.len() < ASKED_MAX {
            let mut what = what.to_string();
            // More than is told: whoever hides secrets is to see them whole, or at this end.
            cut(&mut what, MAX_ERROR_TEXT);
            notes.asked.push(what);
        }
    }

    /// What was answered last by what it asked: why that refuses it, if it will again. A refusal that the guest went on after is
    /// what it knew how to deal with.
    pub(crate) fn answered(&self, refusal: Option<String>) {
        self.notes().wrong = refusal;
    }

    /// So much memory the guest had at the end.
    pub(crate) fn had(&self, memory: usize) {
        self.notes().memory = memory;
    }

    /// What was noted, without the binding's secrets.
    pub(crate) fn into_tried<V>(self, checked: Answered<V>, took: Duration, hide: impl Fn(&mut String)) -> Tried<V> {
        let mut notes = std::mem::take(&mut *self.notes());
        notes.asked.iter_mut().chain(&mut notes.wrong).for_each(hide);
        notes.asked.iter_mut().for_each(|asked| cut(asked, ASKED_BYTES));
        // A component that answers all the same knew what to make of it.
        let wrong = notes.wrong.filter(|_| matches!(checked, Answered::NoAnswer(_)));
        Tried { checked, asked: notes.asked, wrong, took, memory: ByteSize(notes.memory as u64) }
    }
}
