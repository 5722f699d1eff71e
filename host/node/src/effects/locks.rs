//! Who changes which keys of what bindings keep: many side by side, and whoever was stale too often alone with its own (ruling 8).
//!
//! Calls run beside each other without asking: the log decides whose record was stale. One that was so too often *holds* the keys that it
//! touched, and until it lets go nobody else's record writes to them; calls with other keys do not notice.
//!
//! # To ensure correctness
//!
//! - Whoever waits holds nothing. A call waits for all of its keys at once, before it runs, in the order in which calls asked; what it turns
//!   out to write besides it gets when it records, at once or not at all. So no two wait for each other.
//! - Who waits is not overtaken: nobody gets a key that stands against a claim which came earlier.
//! - A claim for a record lasts until the record is applied: who holds the key next reads what it wrote.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// What somebody who has a key does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyUse {
    /// Its record writes it, beside others: the log decides between them.
    Changes,
    /// It runs alone and reads it: nobody writes it.
    Keeps,
    /// It runs alone and writes it: nobody else has it.
    Owns,
}

/// What somebody wants to have of a namespace.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyClaim {
    /// These keys.
    Keys(BTreeMap<String, KeyUse>),
    /// All of them, those that are not there yet included.
    All,
}

/// How many have one key.
#[derive(Clone, Copy, Default)]
struct KeyUses {
    changes: usize,
    keeps: usize,
    owns: usize,
}

impl KeyUses {
    /// How many have it for this.
    fn of(&mut self, of: KeyUse) -> &mut usize {
        match of {
            KeyUse::Changes => &mut self.changes,
            KeyUse::Keeps => &mut self.keeps,
            KeyUse::Owns => &mut self.owns,
        }
    }

    /// Whether one of them stands against somebody who wants it for this.
    fn stand_against(self, of: KeyUse) -> bool {
        let Self { changes, keeps, owns } = self;
        match of {
            KeyUse::Changes => keeps + owns > 0,
            KeyUse::Keeps => changes + owns > 0,
            KeyUse::Owns => changes + keeps + owns > 0,
        }
    }

    /// Whether nobody has it.
    fn is_nobodys(self) -> bool {
        let Self { changes, keeps, owns } = self;
        changes + keeps + owns == 0
    }
}

/// Some claims, added up.
#[derive(Default)]
struct ClaimSum {
    /// How many there are.
    claims: usize,
    /// How many of them want everything.
    all: usize,
    /// What the others want.
    keys: HashMap<String, KeyUses>,
}

impl ClaimSum {
    /// Whether one of them stands against this one.
    fn stands_against(&self, claim: &KeyClaim) -> bool {
        match claim {
            KeyClaim::All => self.claims > 0,
            KeyClaim::Keys(keys) => {
                let taken =
                    |(key, of): (&String, &KeyUse)| self.keys.get(key).is_some_and(|uses| uses.stand_against(*of));
                self.all > 0 || keys.iter().any(taken)
            }
        }
    }

    fn add(&mut self, claim: &KeyClaim) {
        self.claims += 1;
        match claim {
            KeyClaim::All => self.all += 1,
            KeyClaim::Keys(keys) => {
                keys.iter().for_each(|(key, of)| *self.keys.entry(key.clone()).or_default().of(*of) += 1);
            }
        }
    }

    /// One that was added is over.
    fn remove(&mut self, claim: &KeyClaim) {
        self.claims -= 1;
        match claim {
            KeyClaim::All => self.all -= 1,
            KeyClaim::Keys(keys) => {
                for (key, of) in keys {
                    let Some(uses) = self.keys.get_mut(key) else { continue };
                    *uses.of(*of) -= 1;
                    if uses.is_nobodys() {
                        self.keys.remove(key);
                    }
                }
            }
        }
    }
}

/// Somebody who waits.
struct WaitingClaim {
    number: u64,
    claim: Arc<KeyClaim>,
    granted: oneshot::Sender<()>,
}

/// What is had and wanted of one namespace.
#[derive(Default)]
struct NamespaceClaims {
    held: ClaimSum,
    /// What those want who wait.
    line: ClaimSum,
    /// Those, in the order of their coming.
    waiting: VecDeque<WaitingClaim>,
}

impl NamespaceClaims {
    /// Whether nothing stands against this claim, not even one that waits.
    fn is_free(&self, claim: &KeyClaim) -> bool {
        !self.held.stands_against(claim) && !self.line.stands_against(claim)
    }

    /// Lets those have what they wait for against whom nothing stands any more: nobody who has something, and nobody before them.
    fn grant(&mut self) {
        let mut before = ClaimSum::default();
        for waits in std::mem::take(&mut self.waiting) {
            if self.held.stands_against(&waits.claim) || before.stands_against(&waits.claim) {
                before.add(&waits.claim);
                self.waiting.push_back(waits);
            } else {
                self.held.add(&waits.claim);
                // Whoever is gone gives it back when what he waits with is dropped.
                let _ = waits.granted.send(());
            }
        }
        self.line = before;
    }

    /// One is over, whether it was held or waited.
    fn end(&mut self, number: u64, claim: &KeyClaim) {
        match self.waiting.iter().position(|waits| waits.number == number) {
            Some(at) => drop(self.waiting.remove(at)),
            None => self.held.remove(claim),
        }
        self.grant();
    }
}

/// The claims of all namespaces in which somebody has or wants something.
#[derive(Default)]
struct AllClaims {
    by_namespace: HashMap<String, NamespaceClaims>,
    /// Claims so far: each has a number.
    so_far: u64,
}

/// Who has which keys. There is one for a node.
#[derive(Default)]
pub(super) struct KeyLocks(Mutex<AllClaims>);

/// Keys that somebody has, or waits for, until this is dropped; of nobody by default.
#[derive(Default)]
pub(super) struct HeldKeys(Option<HeldClaim>);

/// Where they lie, and what they are.
struct HeldClaim {
    locks: Arc<KeyLocks>,
    namespace: String,
    number: u64,
    claim: Arc<KeyClaim>,
}

impl HeldKeys {
    /// Whether whoever has this may write a key as it is.
    pub(super) fn owns(&self, key: &str) -> bool {
        self.0.as_ref().is_some_and(|held| match &*held.claim {
            KeyClaim::All => true,
            KeyClaim::Keys(keys) => keys.get(key) == Some(&KeyUse::Owns),
        })
    }
}

impl Drop for HeldClaim {
    fn drop(&mut self) {
        let mut all = self.locks.all();
        if let Some(namespace) = all.by_namespace.get_mut(&self.namespace) {
            namespace.end(self.number, &self.claim);
            if namespace.held.claims == 0 && namespace.waiting.is_empty() {
                all.by_namespace.remove(&self.namespace);
            }
        }
    }
}

impl KeyLocks {
    fn all(&self) -> MutexGuard<'_, AllClaims> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing stands against this claim. Whoever waits is in the line until he has it, or waits no more.
    pub(super) async fn take(self: &Arc<Self>, namespace: &str, claim: KeyClaim) -> HeldKeys {
        let (held, granted) = self.line_up(namespace, claim);
        if let Some(granted) = granted {
            // The other end lies in the line for as long as this one waits.
            let _ = granted.await;
        }
        held
    }

    /// A place in the line, and what tells when it is its turn; nothing, where it is so at once.
    fn line_up(self: &Arc<Self>, namespace: &str, claim: KeyClaim) -> (HeldKeys, Option<oneshot::Receiver<()>>) {
        let claim = Arc::new(claim);
        let mut all = self.all();
        all.so_far += 1;
        let number = all.so_far;
        let of = all.by_namespace.entry(namespace.to_owned()).or_default();
        let granted = if of.is_free(&claim) {
            of.held.add(&claim);
            None
        } else {
            let (granted, told) = oneshot::channel();
            of.line.add(&claim);
            of.waiting.push_back(WaitingClaim { number, claim: claim.clone(), granted });
            Some(told)
        };
        drop(all);
        (self.held(namespace, number, claim), granted)
    }

    /// Lets somebody who has `beside` already write these keys as well; `None` if others stand against it.
    pub(super) fn try_to_change(
        self: &Arc<Self>,
        namespace: &str,
        keys: impl Iterator<Item = String>,
        beside: &HeldKeys,
    ) -> Option<HeldKeys> {
        let claim = Arc::new(KeyClaim::Keys(keys.map(|key| (key, KeyUse::Changes)).collect()));
        let mut all = self.all();
        all.so_far += 1;
        let number = all.so_far;
        let of = all.by_namespace.entry(namespace.to_owned()).or_default();
        // What he has himself stands not against it.
        let own = beside.0.as_ref().map(|held| &held.claim);
        own.inspect(|own| of.held.remove(own));
        let is_free = of.is_free(&claim);
        own.inspect(|own| of.held.add(own));
        if is_free {
            of.held.add(&claim);
        }
        drop(all);
        is_free.then(|| self.held(namespace, number, claim))
    }

    fn held(self: &Arc<Self>, namespace: &str, number: u64, claim: Arc<KeyClaim>) -> HeldKeys {
        HeldKeys(Some(HeldClaim { locks: self.clone(), namespace: namespace.to_owned(), number, claim }))
    }
}

#[cfg(test)]
#[path = "locks_tests.rs"]
mod tests;
