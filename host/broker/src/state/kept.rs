//! What bindings keep: values under keys, in namespaces that bindings name, bounded, some of them for a time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::snapshot::{SectionSource, Snapshot, Unreadable};
use crate::record::codec::{DecodeError, Reader, Writer};
use crate::record::{KeepGrant, KeyExpiry, KeyWrite};
use crate::{Millis, Refusal};

/// Longest key in bytes.
pub const KEPT_KEY_MAX: usize = 512;
/// Longest value in bytes.
pub const KEPT_VALUE_MAX: usize = 64 * 1024;
/// Most bytes in all namespaces together: they are in memory, and each snapshot writes all of them.
pub const KEPT_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// What a key counts for beside its bytes and those of its value: about what it takes of memory.
pub const KEPT_KEY_COST: u64 = 128;
/// Expired keys that go with one record, the earliest of all namespaces; the others go with the next ones. So many are looked at,
/// too, where there is no room: what expired counts no more.
const EXPIRED_AT_ONCE: usize = 1024;

/// What is kept under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptValue {
    /// The value.
    pub value: Vec<u8>,
    /// Log position of the record that wrote it.
    pub version: u64,
    /// From then on it is not there any more.
    pub expires_at: Option<Millis>,
}

impl KeptValue {
    fn has_expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// One namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    keys: BTreeMap<String, KeptValue>,
    /// What all keys count for.
    bytes: u64,
    /// Bindings that have it, or had it at a time since they were created. It goes with the last of them.
    bindings: BTreeSet<String>,
}

impl Namespace {
    /// What is there under a key at this time.
    pub fn get(&self, key: &str, now: Millis) -> Option<&KeptValue> {
        self.keys.get(key).filter(|kept| !kept.has_expired(now))
    }

    /// Keys that are there at this time, from here on, in order.
    pub fn keys_from<'a>(
        &'a self,
        from: Bound<&str>,
        now: Millis,
    ) -> impl Iterator<Item = (&'a str, &'a KeptValue)> + use<'a> {
        let range = self.keys.range::<str, _>((from, Bound::Unbounded));
        range.filter(move |(_, kept)| !kept.has_expired(now)).map(|(key, kept)| (key.as_str(), kept))
    }

    /// What all keys count for: their bytes, those of their values, and [`KEPT_KEY_COST`] each. Those that expired count until
    /// the next records take them away.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many keys there are, expired ones included that are still to be taken away.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// By how much these writes change what all keys count for.
    fn growth(&self, writes: &BTreeMap<String, KeyWrite>) -> i64 {
        let change = |(key, write): (&String, &KeyWrite)| {
            let before = self.keys.get(key).map_or(0, |kept| cost(key, &kept.value));
            let after = write.value.as_ref().map_or(0, |value| cost(key, value));
            i64::try_from(after).unwrap_or(i64::MAX).saturating_sub_unsigned(before)
        };
        writes.iter().map(change).fold(0, i64::saturating_add)
    }

    fn remove(&mut self, key: &str) -> Option<KeptValue> {
        let kept = self.keys.remove(key)?;
        self.bytes -= cost(key, &kept.value);
        Some(kept)
    }

    fn put(&mut self, key: &str, kept: KeptValue) -> Option<KeptValue> {
        let before = self.remove(key);
        self.bytes += cost(key, &kept.value);
        self.keys.insert(key.to_owned(), kept);
        before
    }
}

/// When a key that is written now expires.
fn end_of(expires: KeyExpiry, now: Millis) -> Option<Millis> {
    match expires {
        KeyExpiry::Never => None,
        KeyExpiry::AfterMs(ms) => Some(now.plus_ms(ms.into())),
        KeyExpiry::At(at) => Some(at),
    }
}

/// What a key counts for.
fn cost(key: &str, value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64 + KEPT_KEY_COST
}

/// Everything that bindings keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    namespaces: BTreeMap<String, Namespace>,
    /// Keys that expire, by when: of all namespaces, so that those that nobody writes to any more leave no rubbish.
    expiring: BTreeSet<(Millis, String, String)>,
    /// What all of them count for.
    bytes: u64,
}

/// What a binding may do in its namespace, and what it wants to.
pub(super) struct KeptChange<'a> {
    pub(super) namespace: &'a str,
    pub(super) quota: u64,
    pub(super) writes: &'a BTreeMap<String, KeyWrite>,
}

impl Namespaces {
    /// The namespace with this name.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// All namespaces in the order of their names.
    pub fn namespaces(&self) -> impl Iterator<Item = (&str, &Namespace)> {
        self.namespaces.iter().map(|(name, namespace)| (name.as_str(), namespace))
    }

    /// What all of them count for, at most [`KEPT_BYTES_MAX`].
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a binding has this namespace, or had it since it was created.
    pub(super) fn is_of(&self, namespace: &str, binding: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(|namespace| namespace.bindings.contains(binding))
    }

    /// Whether every key has the version that was read: 0 for one that is not there at this time.
    pub(super) fn are_current(&self, namespace: &str, reads: &BTreeMap<String, u64>, now: Millis) -> bool {
        let namespace = self.namespaces.get(namespace);
        let current = |key: &str| Some(namespace?.get(key, now)?.version);
        reads.iter().all(|(key, version)| current(key).unwrap_or(0) == *version)
    }

    /// Whether there is room for what is to be written.
    pub(super) fn check_room(&self, change: &KeptChange<'_>, now: Millis) -> Result<(), Refusal> {
        let KeptChange { namespace: name, quota, writes } = change;
        if let Some(write) = writes.iter().find(|(key, write)| !fits(key, write)) {
            return Err(Refusal::Invalid(format!(
                "key {:?} or its value is too long, or the key is empty: a key has 1 to {KEPT_KEY_MAX} bytes, a value at \
                 most {KEPT_VALUE_MAX}",
                write.0
            )));
        }
        let empty = Namespace::default();
        let namespace = self.namespaces.get(*name).unwrap_or(&empty);
        let growth = namespace.growth(writes);
        if growth <= 0 {
            // Who takes away is never refused, however much there is.
            return Ok(());
        }
        let after = namespace.bytes.saturating_add_signed(growth);
        let (of_this, of_all) = if after > *quota || self.bytes.saturating_add_signed(growth) > KEPT_BYTES_MAX {
            self.expired_bytes(change, now)
        } else {
            (0, 0)
        };
        if after.saturating_sub(of_this) > *quota {
            return Err(Refusal::TooMany(format!(
                "namespace {name} would have {after} bytes, and the binding may keep {quota} there: remove keys, or raise \
                 limits.state"
            )));
        }
        if self.bytes.saturating_add_signed(growth).saturating_sub(of_all) > KEPT_BYTES_MAX {
            return Err(Refusal::TooMany(format!(
                "all namespaces together would have more than {KEPT_BYTES_MAX} bytes: remove keys, or bindings"
            )));
        }
        Ok(())
    }

    /// Writes what there is room for.
    pub(super) fn write(&mut self, change: &KeptChange<'_>, version: u64, now: Millis) {
        self.expire(now);
        for (key, write) in change.writes {
            match &write.value {
                Some(value) => {
                    let kept = KeptValue { value: value.clone(), version, expires_at: end_of(write.expires, now) };
                    self.put(change.namespace, key, kept);
                }
                None => self.remove(change.namespace, key),
            }
        }
    }

    fn put(&mut self, name: &str, key: &str, kept: KeptValue) {
        let expires_at = kept.expires_at;
        let mut before = None;
        self.change(name, |namespace| before = namespace.put(key, kept));
        self.expires_no_more(name, key, before);
        if let Some(at) = expires_at {
            self.expiring.insert((at, name.to_owned(), key.to_owned()));
        }
    }

    fn remove(&mut self, name: &str, key: &str) {
        let mut removed = None;
        self.change(name, |namespace| removed = namespace.remove(key));
        self.expires_no_more(name, key, removed);
    }

    /// A value is not there any more.
    fn expires_no_more(&mut self, name: &str, key: &str, gone: Option<KeptValue>) {
        if let Some(at) = gone.and_then(|gone| gone.expires_at) {
            self.expiring.remove(&(at, name.to_owned(), key.to_owned()));
        }
    }

    /// Takes some of what expired away, the earliest first.
    fn expire(&mut self, now: Millis) {
        for _ in 0..EXPIRED_AT_ONCE {
            let Some((_, name, key)) = self.expiring.first().filter(|(at, ..)| *at <= now).cloned() else { return };
            self.remove(&name, &key);
        }
    }

    /// What expired keys count for beside those that are written: those of a namespace, and all; as many as the next record takes
    /// away.
    fn expired_bytes(&self, change: &KeptChange<'_>, now: Millis) -> (u64, u64) {
        let expired = self.expiring.iter().take_while(|(at, ..)| *at <= now).take(EXPIRED_AT_ONCE);
        expired.fold((0, 0), |(of_this, of_all), (_, name, key)| {
            let kept = self.namespaces.get(name).and_then(|namespace| namespace.keys.get(key));
            let of_this_one = name == change.namespace;
            // What is written anew is reckoned with already.
            let kept = kept.filter(|_| !(of_this_one && change.writes.contains_key(key)));
            let bytes = kept.map_or(0, |kept| cost(key, &kept.value));
            (of_this + if of_this_one { bytes } else { 0 }, of_all + bytes)
        })
    }

    /// Deletes a key, or all of them.
    pub(super) fn delete(&mut self, name: &str, key: Option<&str>, now: Millis) -> Result<(), Refusal> {
        let namespace = self.namespaces.get(name);
        let namespace = namespace.ok_or_else(|| Refusal::NotFound(format!("there is no namespace {name}")))?;
        if let Some(key) = key
            && namespace.get(key, now).is_none()
        {
            return Err(Refusal::NotFound(format!("namespace {name} has no key {key:?}")));
        }
        match key {
            Some(key) => self.remove(name, key),
            None => {
                self.change(name, |namespace| {
                    let bindings = std::mem::take(&mut namespace.bindings);
                    *namespace = Namespace { bindings, ..Namespace::default() };
                });
                self.expiring.retain(|(_, of, _)| of != name);
            }
        }
        Ok(())
    }

    /// Changes a namespace that is there, and counts anew what all of them have.
    fn change(&mut self, name: &str, change: impl FnOnce(&mut Namespace)) {
        if let Some(namespace) = self.namespaces.get_mut(name) {
            let before = namespace.bytes;
            change(namespace);
            self.bytes = self.bytes - before + namespace.bytes;
        }
    }

    /// A binding was set: its namespace is there from now on.
    pub(super) fn bound(&mut self, binding: &str, keeps: Option<&KeepGrant>) {
        if let Some(keeps) = keeps {
            let namespace = self.namespaces.entry(keeps.namespace.clone()).or_default();
            namespace.bindings.insert(binding.to_owned());
        }
    }

    /// A binding was deleted: namespaces that no other one had go with it.
    pub(super) fn unbound(&mut self, binding: &str) {
        self.namespaces.retain(|_, namespace| {
            let stays = !namespace.bindings.remove(binding) || !namespace.bindings.is_empty();
            self.bytes -= if stays { 0 } else { namespace.bytes };
            stays
        });
        self.expiring.retain(|(_, of, _)| self.namespaces.contains_key(of));
    }
}

/// Whether key and value are within their bounds.
fn fits(key: &str, write: &KeyWrite) -> bool {
    (1..=KEPT_KEY_MAX).contains(&key.len()) && write.value.as_ref().is_none_or(|value| value.len() <= KEPT_VALUE_MAX)
}

impl Snapshot for Namespaces {
    const SECTION: u16 = 11;
    // Of the first version of sections the checksum leaves out the head; this one is younger.
    const OLDEST: u8 = 2;
    const VERSION: u8 = 2;

    fn write(&self, w: &mut Writer<'_>, _: u8) {
        let Self { namespaces, expiring: _, bytes: _ } = self;
        w.varint(namespaces.len() as u64);
        for (name, Namespace { keys, bytes: _, bindings }) in namespaces {
            w.text(name);
            w.texts(bindings);
            w.varint(keys.len() as u64);
            for (key, KeptValue { value, version, expires_at }) in keys {
                w.text(key);
                w.bytes(value);
                w.u64(*version);
                w.option(*expires_at, |w, at| w.u64(at.0));
            }
        }
    }

    fn read(r: &mut Reader<'_>, _: &SectionSource<'_>) -> Result<Self, Unreadable> {
        let mut kept = Self::default();
        for number in 0..r.count("namespaces")? {
            let name = r.string("namespace")?;
            if kept.namespaces.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(DecodeError::Value { field: "namespace", value: number as u64 }.into());
            }
            let namespace = read_namespace(r)?;
            kept.bytes += namespace.bytes;
            let ends =
                namespace.keys.iter().filter_map(|(key, value)| Some((value.expires_at?, name.clone(), key.clone())));
            kept.expiring.extend(ends);
            kept.namespaces.insert(name, namespace);
        }
        Ok(kept)
    }
}

fn read_namespace(r: &mut Reader<'_>) -> Result<Namespace, DecodeError> {
    let mut namespace = Namespace { bindings: r.texts("bindings")?, ..Namespace::default() };
    for number in 0..r.count("keys")? {
        let key = r.string("key")?;
        if namespace.keys.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(DecodeError::Value { field: "key", value: number as u64 });
        }
        let value = r.bytes("value")?.to_vec();
        let (version, expires_at) = (r.u64("version")?, r.option("expires at", |r| r.u64("expires at").map(Millis))?);
        namespace.put(&key, KeptValue { value, version, expires_at });
    }
    Ok(namespace)
}
