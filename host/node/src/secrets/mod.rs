//! Secrets of bindings: set, listed, removed, sealed anew with another key (ruling 24).
//!
//! A value is sealed by the node that takes it, and goes on as it is in the log. [`here`] opens what bindings name; [`keys`] is the
//! key file, [`exchange`] how keys come to the other nodes.

mod exchange;
mod here;
mod keys;
mod opened;
mod sealed;

use std::collections::BTreeSet;
use std::sync::Arc;

use vouch_broker::record::{SecretDeleted, SecretPut};
use vouch_broker::state::{SecretEntry, check_secret_name};
use vouch_broker::{NotDone, Refusal, State};
use vouch_cluster::NodeId;
use vouch_secrets::{KeyFileFault, SealedFor, SealedValue, SecretKeyFile, SecretKeyId, SecretKeys, SecretValue};
use vouch_shard::Shard;

use crate::forwarding::{ForwardedAsk, Leaders, answer_of};
use crate::writable::Writable;
use crate::written::written;
use crate::{Expect, Written};
pub(crate) use exchange::{KeyExchange, keep_keys};
pub(crate) use here::SealedSecretsHere;
use here::sealed_value;
pub(crate) use keys::NodeKeys;
use keys::refused;
pub(crate) use opened::OpenedSecrets;
pub(crate) use sealed::{KeysOnTheWay, SealedSecret};

/// Looks over all secrets while they are sealed anew: some are set by others meanwhile, with whichever key.
const ROTATION_LOOKS: usize = 5;

/// The secrets of the cluster.
pub struct Secrets {
    pub(crate) shard: Arc<Shard>,
    pub(crate) leaders: Arc<Leaders>,
    pub(crate) here: Arc<SealedSecretsHere>,
    pub(crate) exchange: Arc<KeyExchange>,
    pub(crate) writable: Writable,
}

/// A secret, as it may be shown: never its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretView {
    /// Its name.
    pub name: String,
    /// Log position of the record that set it, or sealed it anew.
    pub revision: u64,
    /// The key that opens it, in sixteen digits.
    pub key: String,
    /// Whether this node has that key.
    pub opens_here: bool,
    /// Bindings that name it.
    pub bindings: Vec<String>,
}

/// What came of a change of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRotation {
    /// The key that seals from now on.
    pub key: String,
    /// Secrets that were sealed with it.
    pub resealed: usize,
    /// Keys of before that are kept, for backups.
    pub kept: Vec<String>,
    /// Keys that were forgotten.
    pub forgotten: usize,
    /// Nodes that have not got the key yet.
    pub without: Vec<NodeId>,
}

impl Secrets {
    /// Sets a secret. Resolves when that is durable, and done here. With it comes what the operator has to do.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for a name that is none, [`Refusal::Conflict`] where the key file cannot be used, what `expect` does not
    /// find; [`NothingStored`](vouch_broker::NothingStored) where too few nodes have the key.
    pub async fn set(&self, name: &str, value: SecretValue, expect: Expect) -> Result<(Written, Vec<String>), NotDone> {
        self.writable.check()?;
        check_secret_name(name)?;
        let keys = self.sealing_keys().await?;
        let bound = SealedFor::new_value(self.here.cluster_id, name);
        let put = put_of(&bound, keys.seal(&bound, &value), expect.revision());
        drop(value);
        let done = self.put(put).await?;
        let warning = self.exchange.is_for_the_operator().then(|| {
            format!(
                "nodes show each other no certificates and give each other no keys: copy the key file of node {} (secrets.key in its \
                 data folder, or secret_key_file) to all others; until then bindings that name this secret get no answer where \
                 another node leads",
                self.leaders.me()
            )
        });
        Ok((done, warning.into_iter().collect()))
    }

    /// Writes a secret that is sealed, by whoever leads, and waits until it is here.
    async fn put(&self, put: SecretPut) -> Result<Written, NotDone> {
        let sealed = SealedSecret::of(put);
        let here = || self.put_here(&sealed);
        let ask = || ForwardedAsk::SetSecret(std::borrow::Cow::Borrowed(&sealed));
        let done = self.leaders.done(here, ask, |answer| answer_of!(answer, SecretSet)).await?;
        self.leaders.applied_here(&self.shard, vouch_commitlog::LogPosition(done.revision + 1)).await;
        Ok(done)
    }

    /// The same, on the node that leads.
    pub(crate) async fn put_here(&self, sealed: &SealedSecret) -> Result<Written, NotDone> {
        let put = sealed.clone().into_record();
        written(&self.shard, |out| put.encode(out)).await
    }

    /// Removes a secret.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; a conflict where a binding names it, which is named.
    pub async fn delete(&self, name: &str) -> Result<(), NotDone> {
        self.writable.check()?;
        let record = SecretDeleted { name: name.to_owned() };
        self.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }

    /// Secrets in the order of their names, after a name; at most `limit`.
    pub async fn list(&self, after: Option<String>, limit: usize) -> Result<Vec<SecretView>, NotDone> {
        let list = move |state: &State| {
            let secrets = state.secrets().iter();
            let secrets = secrets.filter(|(name, _)| after.as_deref().is_none_or(|after| *name > after));
            secrets.take(limit).map(|(name, secret)| view(state, name, secret)).collect::<Vec<_>>()
        };
        let found = self.shard.read(list).await?;
        Ok(found.into_iter().map(|(key, view)| self.with_key(key, view)).collect())
    }

    /// A secret; `None` if there is none by that name.
    pub async fn secret(&self, name: &str) -> Result<Option<SecretView>, NotDone> {
        let name = name.to_owned();
        let find = move |state: &State| state.secrets().get(&name).map(|secret| view(state, &name, secret));
        Ok(self.shard.read(find).await?.map(|(key, view)| self.with_key(key, view)))
    }

    fn with_key(&self, key: [u8; 8], view: SecretView) -> SecretView {
        SecretView { opens_here: self.here.keys.lacking(&[key].into()).is_empty(), ..view }
    }

    /// Whether this node lacks the key of a secret, and nobody gave it.
    pub fn lacks_keys(&self) -> bool {
        self.exchange.lacks()
    }

    /// Takes keys of another node, and gives it those that are here.
    pub(crate) async fn exchange_keys(
        &self,
        take: KeysOnTheWay,
        forget: Vec<[u8; 8]>,
    ) -> Result<KeysOnTheWay, NotDone> {
        self.exchange.answer(take, forget).await
    }

    /// The keys of this node, of which the first seals: a majority has them. Where no node has any, one is made.
    async fn sealing_keys(&self) -> Result<SecretKeys, NotDone> {
        let keys = match self.here.keys.change(SecretKeyFile::read).await {
            Err(KeyFileFault::Missing { .. }) => {
                self.exchange.fetch().await;
                self.here.keys.change(SecretKeyFile::read_or_make).await
            }
            found => found,
        };
        let keys = keys.map_err(|fault| refused(&fault))?;
        if !self.exchange.is_spread(&keys) {
            self.exchange.spread(&keys).await?;
        }
        Ok(keys)
    }

    /// Draws another key, gives it to the other nodes, and seals all secrets with it; nobody who uses them notices. One that was
    /// begun and not finished goes on with its key. `forget_old`: keys that seal nothing any more go from the files of all nodes;
    /// backups of before cannot be opened then.
    ///
    /// # Errors
    /// The key file cannot be used, a secret does not open, or too few nodes were reached: nothing is lost, and it may be asked for
    /// again.
    pub async fn rotate_key(&self, forget_old: bool) -> Result<KeyRotation, NotDone> {
        self.writable.check()?;
        if self.exchange.is_for_the_operator() {
            return Err(NotDone::Refused(Refusal::Conflict(
                "nodes show each other no certificates, so the new key could not be given to the others; start them with \
                 certificates (vouch cluster certificates) instead of --peer-insecure"
                    .to_owned(),
            )));
        }
        let before = self.sealing_keys().await?;
        let named = self.exchange.named.borrow().clone();
        let is_begun = !named.is_empty() && !named.contains(&before.sealing().0);
        let keys = if is_begun { before } else { self.next_keys().await? };
        let without = self.exchange.spread(&keys).await?;
        let resealed = self.reseal(&keys).await?;
        let old: Vec<_> = keys.ids().filter(|id| *id != keys.sealing()).map(|id| id.0).collect();
        let mut forgotten = 0;
        if forget_old {
            forgotten = self.exchange.forget(old.clone()).await?;
            let left = self.here.keys.known().unwrap_or(keys.clone());
            self.exchange.give(&left, old).await;
        }
        let left = self.here.keys.known().unwrap_or(keys);
        let kept = left.ids().skip(1).map(|id| id.to_string()).collect();
        Ok(KeyRotation { key: left.sealing().to_string(), resealed, kept, forgotten, without })
    }

    async fn next_keys(&self) -> Result<SecretKeys, NotDone> {
        self.here.keys.change(SecretKeyFile::rotate).await.map_err(|fault| refused(&fault))
    }

    /// Seals everything with the first of these keys. How many secrets that were.
    async fn reseal(&self, keys: &SecretKeys) -> Result<usize, NotDone> {
        let (sealing, mut resealed) = (keys.sealing().0, 0);
        for _ in 0..ROTATION_LOOKS {
            let others = move |state: &State| {
                let others = state.secrets().iter().filter(|(_, secret)| secret.key_id != sealing);
                others.map(|(name, secret)| (name.to_owned(), secret.clone())).collect::<Vec<_>>()
            };
            let others = self.shard.read(others).await?;
            if others.is_empty() {
                return Ok(resealed);
            }
            for (name, secret) in others {
                let bound = self.here.bound(&name, &secret);
                let sealed = keys
                    .reseal(&bound, &sealed_value(&secret))
                    .map_err(|why| NotDone::Refused(Refusal::Conflict(why.to_string())))?;
                let Some(sealed) = sealed else { continue };
                match self.put(put_of(&bound, sealed, Some(secret.revision))).await {
                    Ok(_) => resealed += 1,
                    // Another one was set meanwhile, or it is gone: the next look tells.
                    Err(NotDone::Refused(Refusal::PreconditionFailed(_) | Refusal::NotFound(_))) => {}
                    Err(why) => return Err(why),
                }
            }
        }
        Err(NotDone::Refused(Refusal::Conflict(
            "secrets are set anew faster than they can be sealed with the new key; do this again when that is over"
                .to_owned(),
        )))
    }
}

/// What goes into the log.
fn put_of(bound: &SealedFor<'_>, value: SealedValue, expected_revision: Option<u64>) -> SecretPut {
    let SealedValue { key, nonce, sealed } = value;
    let (name, value_id) = (bound.name.to_owned(), bound.value_id);
    SecretPut { name, value_id, key_id: key.0, nonce, sealed, expected_revision }
}

/// As it may be shown, with its key.
fn view(state: &State, name: &str, secret: &SecretEntry) -> ([u8; 8], SecretView) {
    let bindings: BTreeSet<_> = state.plugins().bindings_with_secret(name).map(|(name, _)| name.to_owned()).collect();
    let view = SecretView {
        name: name.to_owned(),
        revision: secret.revision,
        key: SecretKeyId(secret.key_id).to_string(),
        opens_here: false,
        bindings: bindings.into_iter().collect(),
    };
    (secret.key_id, view)
}

#[cfg(test)]
mod tests;
