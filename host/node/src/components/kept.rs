//! What bindings keep, for operators to look at.

use std::ops::Bound;

use vouch_broker::record::KeptDeleted;
use vouch_broker::{Millis, NotDone, Refusal, State};

use super::Components;

/// What a binding keeps under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptView {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// Log position of the record that wrote it.
    pub version: u64,
    /// From then on it is not there any more.
    pub expires_at: Option<Millis>,
}

/// Some of what a binding keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPage {
    /// The namespace that the binding has now.
    pub namespace: String,
    /// Keys, in order.
    pub keys: Vec<KeptView>,
    /// What all keys of the namespace count for, in bytes, and how many may be kept.
    pub bytes: u64,
    /// See there.
    pub quota: u64,
}

impl Components {
    /// What a binding keeps: keys that begin so, after this one, at most `limit`.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] for no such binding, or one that keeps nothing.
    pub async fn kept(
        &self,
        binding: &str,
        (prefix, after): (String, Option<String>),
        limit: usize,
    ) -> Result<KeptPage, NotDone> {
        let (binding, now) = (binding.to_owned(), self.clock.now());
        let look = move |state: &State| {
            let (namespace, quota) = namespace_of(state, &binding)?;
            let kept = state.kept().namespace(&namespace);
            let bytes = kept.map_or(0, |kept| kept.bytes());
            let behind = after.as_deref().filter(|after| *after >= prefix.as_str());
            let from = behind.map_or(Bound::Included(prefix.as_str()), Bound::Excluded);
            let keys = kept.into_iter().flat_map(|kept| kept.keys_from(from, now));
            let keys = keys.take_while(|(key, _)| key.starts_with(&prefix));
            let view = |(key, kept): (&str, &vouch_broker::state::KeptValue)| KeptView {
                key: key.to_owned(),
                value: kept.value.clone(),
                version: kept.version,
                expires_at: kept.expires_at,
            };
            Ok::<_, Refusal>(KeptPage { keys: keys.take(limit).map(view).collect(), namespace, bytes, quota })
        };
        Ok(self.shard.read(look).await??)
    }

    /// What a binding keeps under a key; `None` if there is nothing.
    ///
    /// # Errors
    /// As [`Self::kept`].
    pub async fn kept_under(&self, binding: &str, key: &str) -> Result<Option<KeptView>, NotDone> {
        let (binding, key, now) = (binding.to_owned(), key.to_owned(), self.clock.now());
        let look = move |state: &State| {
            let (namespace, _) = namespace_of(state, &binding)?;
            let kept = state.kept().namespace(&namespace).and_then(|namespace| namespace.get(&key, now));
            Ok::<_, Refusal>(kept.map(|kept| KeptView {
                value: kept.value.clone(),
                version: kept.version,
                expires_at: kept.expires_at,
                key,
            }))
        };
        Ok(self.shard.read(look).await??)
    }

    /// Deletes what a binding keeps: one key, or all of its namespace.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub async fn delete_kept(&self, binding: &str, key: Option<String>) -> Result<(), NotDone> {
        self.writable.check()?;
        let name = binding.to_owned();
        let (namespace, _) = self.shard.read(move |state| namespace_of(state, &name)).await??;
        let record = KeptDeleted { namespace, key };
        self.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }
}

/// The namespace that a binding has now, and how much may be kept there.
fn namespace_of(state: &State, binding: &str) -> Result<(String, u64), Refusal> {
    let entry = state.plugins().binding(binding);
    let entry = entry.ok_or_else(|| Refusal::NotFound(format!("there is no binding {binding}")))?;
    let keeps = entry.keeps.as_ref();
    let keeps =
        keeps.ok_or_else(|| Refusal::NotFound(format!("binding {binding} keeps nothing: its grants have no state")))?;
    Ok((keeps.namespace.clone(), keeps.quota))
}
