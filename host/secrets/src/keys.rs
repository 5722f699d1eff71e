//! The keys of a node: the first one seals, all of them open.

use std::fmt;
use std::sync::Arc;

use crate::key::{SecretKey, SecretKeyId};
use crate::sealing::{self, SealedFor, SealedValue, Unopened};
use crate::value::SecretValue;

/// Most keys of a node. A key goes when nothing is sealed with it any more, so a few are enough.
pub const SECRET_KEYS_MAX: usize = 16;

/// Keys, at least one. A copy shares them.
#[derive(Clone)]
pub struct SecretKeys {
    keys: Vec<Arc<SecretKey>>,
}

/// Why keys stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyChangeRefused {
    /// Forget keys with which nothing is sealed any more.
    #[error(
        "there are {SECRET_KEYS_MAX} keys already: copy the key file for the backups of before, and let `vouch secret rotate-key \
         --forget-old` remove those that no secret needs"
    )]
    TooMany,
    /// The key is not there; it may be gone already.
    #[error("there is no key {0}")]
    Unknown(SecretKeyId),
    /// Add a new first key, and seal all secrets with it, before.
    #[error("key {0} is the one that seals: add a new one first, and seal all secrets with it")]
    Seals(SecretKeyId),
}

/// The ids alone.
impl fmt::Debug for SecretKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.keys).finish()
    }
}

/// The same keys in the same order: a key and its id say the same.
impl PartialEq for SecretKeys {
    fn eq(&self, other: &Self) -> bool {
        self.ids().eq(other.ids())
    }
}

impl Eq for SecretKeys {}

impl SecretKeys {
    /// One new key.
    pub fn draw() -> Self {
        Self { keys: vec![Arc::new(SecretKey::draw())] }
    }

    /// These keys, unless there are none, too many, or one twice.
    pub(crate) fn of(keys: Vec<SecretKey>) -> Option<Self> {
        let keys: Vec<Arc<SecretKey>> = keys.into_iter().map(Arc::new).collect();
        let is_new = |at: usize| keys[..at].iter().all(|before| before.id() != keys[at].id());
        let fit = (1..=SECRET_KEYS_MAX).contains(&keys.len()) && (0..keys.len()).all(is_new);
        fit.then_some(Self { keys })
    }

    /// The keys in their order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &SecretKey> {
        self.keys.iter().map(Arc::as_ref)
    }

    /// Names all keys, the one that seals first.
    pub fn ids(&self) -> impl Iterator<Item = SecretKeyId> {
        self.keys().map(SecretKey::id)
    }

    /// Names the key that seals.
    pub fn sealing(&self) -> SecretKeyId {
        self.first().id()
    }

    fn first(&self) -> &SecretKey {
        self.keys.first().expect("there is at least one key")
    }

    /// Whether what is sealed with this key opens.
    pub fn has(&self, key: SecretKeyId) -> bool {
        self.ids().any(|id| id == key)
    }

    /// Seals a value with the first key.
    pub fn seal(&self, bound: &SealedFor<'_>, value: &SecretValue) -> SealedValue {
        sealing::seal(self.first(), rand::random(), bound, value)
    }

    /// Opens a value that was sealed with any of the keys.
    ///
    /// # Errors
    /// See [`Unopened`].
    pub fn open(&self, bound: &SealedFor<'_>, sealed: &SealedValue) -> Result<SecretValue, Unopened> {
        let key = self.keys().find(|key| key.id() == sealed.key);
        let key = key.ok_or_else(|| Unopened::KeyUnknown { name: bound.name.to_owned(), key: sealed.key })?;
        sealing::open(key, bound, sealed)
    }

    /// The same value sealed with the first key, for the same cluster, name and value; `None` where it is so already. Whoever
    /// changes keys does this with every secret, and forgets the old key then.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn reseal(&self, bound: &SealedFor<'_>, sealed: &SealedValue) -> Result<Option<SealedValue>, Unopened> {
        if sealed.key == self.sealing() {
            return Ok(None);
        }
        Ok(Some(self.seal(bound, &self.open(bound, sealed)?)))
    }

    /// These, and in front of them a new one, which seals from now on.
    ///
    /// # Errors
    /// [`KeyChangeRefused::TooMany`].
    pub fn with_new_first(&self) -> Result<Self, KeyChangeRefused> {
        Self::draw().and(self)
    }

    /// These, and behind them those of the others that are not among them. A node that gets the keys of its cluster keeps its
    /// own, with which it may have sealed something.
    ///
    /// # Errors
    /// [`KeyChangeRefused::TooMany`].
    pub fn and(&self, others: &Self) -> Result<Self, KeyChangeRefused> {
        let more = others.keys.iter().filter(|key| !self.has(key.id()));
        let keys: Vec<Arc<SecretKey>> = self.keys.iter().chain(more).cloned().collect();
        if keys.len() > SECRET_KEYS_MAX { Err(KeyChangeRefused::TooMany) } else { Ok(Self { keys }) }
    }

    /// The same keys, of which this one seals.
    ///
    /// # Errors
    /// [`KeyChangeRefused::Unknown`].
    pub fn led_by(&self, key: SecretKeyId) -> Result<Self, KeyChangeRefused> {
        let first = self.keys.iter().position(|other| other.id() == key).ok_or(KeyChangeRefused::Unknown(key))?;
        let mut keys = self.keys.clone();
        keys[..=first].rotate_right(1);
        Ok(Self { keys })
    }

    /// All but one of these. What is sealed with that one is lost then: in the log, and in snapshots and backups as well.
    ///
    /// # Errors
    /// It is not there, or the one that seals.
    pub fn without(&self, key: SecretKeyId) -> Result<Self, KeyChangeRefused> {
        if !self.has(key) {
            return Err(KeyChangeRefused::Unknown(key));
        }
        if key == self.sealing() {
            return Err(KeyChangeRefused::Seals(key));
        }
        Ok(Self { keys: self.keys.iter().filter(|other| other.id() != key).cloned().collect() })
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
