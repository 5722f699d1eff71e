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
pub(crate) use opened::OpenedSecrets;
pub(crate) use sealed::{KeysOnTheWay, KeysTaken, SealedSecret};

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
    /// Nodes that may still have keys of before, where these were to be forgotten.
    pub with_old: Vec<NodeId>,
}

impl Secrets {
    /// Sets a secret. Resolves when that is durable, and done here. With it comes what the operator has to know.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for a name that is none, [`Refusal::Conflict`] where the key file cannot be used, or is missing though there
    /// are secrets; what `expect` does not find; [`NothingStored`](vouch_broker::NothingStored) where too few nodes have the key.
    pub async fn set(&self, name: &str, value: SecretValue, expect: Expect) -> Result<(Written, Vec<String>), NotDone> {
        self.set_with(name, value, expect, false).await
    }

    /// The same where no node has the key file any more: another key is made, and what was sealed before opens no more.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub async fn set_with_new_key(
        &self,
        name: &str,
        value: SecretValue,
        expect: Expect,
    ) -> Result<(Written, Vec<String>), NotDone> {
        self.set_with(name, value, expect, true).await
    }

    async fn set_with(
        &self,
        name: &str,
        value: SecretValue,
        expect: Expect,
        new_key: bool,
    ) -> Result<(Written, Vec<String>), NotDone> {
        self.writable.check()?;
        check_secret_name(name)?;
        let mut warnings = Vec::new();
        if value.reveal_text().is_none()
            && let Some(secret) = self.secret(name).await?.filter(|secret| !secret.bindings.is_empty())
        {
            let bindings = secret.bindings.join(", ");
            warnings
                .push(format!("the value is no text (UTF-8), so bindings {bindings}, which name it, get no answer"));
        }
        let _forgets_nothing = self.exchange.seals().await;
        let keys = self.sealing_keys(new_key).await?;
        let bound = SealedFor::new_value(self.here.cluster_id, name);
        let put = put_of(&bound, keys.seal(&bound, &value), expect.revision());
        drop(value);
        let done = self.put(put).await?;
        if self.exchange.is_for_the_operator() {
            warnings.push(format!(
                "nodes show each other no certificates and give each other no keys: the key file of node {} (secrets.key in its \
                 data folder, or secret_key_file) has to be copied to each node that has none; until then bindings that name this \
                 secret get no answer where such a node leads",
                self.leaders.me()
            ));
        }
        Ok((done, warnings))
    }

    /// Writes a secret that is sealed, by whoever leads, and waits until it is here.
    async fn put(&self, put: SecretPut) -> Result<Written, NotDone> {
        let sealed = SealedSecret::of(put);
        let here = || self.put_here(&sealed);
        let ask = || ForwardedAsk::SetSecret(std::borrow::Cow::Borrowed(&sealed));
        let on_the_way = self.exchange.goes_out(sealed.key_id());
        let done = self.leaders.done(here, ask, |answer| answer_of!(answer, SecretSet)).await;
        if !matches!(done, Err(NotDone::Unknown(_))) {
            on_the_way.decided();
        }
        let done = done?;
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

    /// Whether it would lack keys after its next start: its key file cannot be read any more.
    pub fn key_file_is_at_fault(&self) -> bool {
        self.exchange.at_fault.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Takes keys of another node, and gives it those that are here.
    pub(crate) async fn exchange_keys(&self, from: NodeId, taken: KeysTaken) -> Result<KeysOnTheWay, NotDone> {
        self.exchange.answer(from, taken).await
    }

    /// The keys of this node, of which the first seals: secrets are sealed with it already, if there are any, and a majority has it.
    /// Where there are no secrets and no file, one is made; where there are secrets, only if a `new_key` is wanted.
    async fn sealing_keys(&self, new_key: bool) -> Result<SecretKeys, NotDone> {
        let named = self.exchange.named.borrow().clone();
        let mut read = self.here.keys.change(SecretKeyFile::read).await;
        if let (Err(KeyFileFault::Missing { .. }), Some(known)) = (&read, self.here.keys.known()) {
            // Somebody removed it while the node runs: what is known is the last copy, maybe.
            tracing::warn!("the key file is gone; it is written again from memory");
            read = self.here.keys.change(move |file| file.append(&known)).await;
        }
        if matches!(read, Err(KeyFileFault::Missing { .. })) || !self.here.keys.lacking(&named).is_empty() {
            self.exchange.fetch().await;
            read = self.here.keys.change(SecretKeyFile::read).await;
        }
        if let (Err(KeyFileFault::Missing { .. }), true) = (&read, named.is_empty() || new_key) {
            read = self.here.keys.change(SecretKeyFile::read_or_make).await;
        }
        let mut keys = read.map_err(|fault| self.missing_keys(&fault))?;
        // The file of a node that was away while the key was changed has the new one behind the old one.
        if !named.is_empty()
            && !named.contains(&keys.sealing().0)
            && let Some(key) = { keys.ids().find(|id| named.contains(&id.0)) }
        {
            keys = self
                .here
                .keys
                .change(move |file| file.prefer(key))
                .await
                .map_err(|fault| self.here.keys.refused(&fault))?;
        }
        self.exchange.spread(&keys, false).await?;
        Ok(keys)
    }

    /// Draws another key, gives it to the other nodes, and seals all secrets with it; nobody who uses them notices. One change that
    /// was cut short is gone on with: that some secrets are sealed with another key than the first tells. It goes on where its caller
    /// is gone. `forget_old`: keys that nothing is sealed with any more go from the files of all nodes that are reached; backups of
    /// before cannot be opened then.
    ///
    /// # Errors
    /// The key file cannot be used, a secret does not open, or too few nodes were reached: nothing is lost, and it may be asked for
    /// again.
    pub async fn rotate_key(self: &Arc<Self>, forget_old: bool) -> Result<KeyRotation, NotDone> {
        let this = self.clone();
        let changing = tokio::spawn(async move { this.change_key(forget_old).await });
        changing.await.unwrap_or_else(|ended| Err(NotDone::Unknown(format!("the change of the key ended: {ended}"))))
    }

    async fn change_key(&self, forget_old: bool) -> Result<KeyRotation, NotDone> {
        self.writable.check()?;
        if self.exchange.is_for_the_operator() {
            return Err(NotDone::Refused(Refusal::Conflict(
                "nodes show each other no certificates, so the new key could not be given to the others; start them with \
                 certificates (vouch cluster certificates) instead of --peer-insecure"
                    .to_owned(),
            )));
        }
        let mut keys = self.sealing_keys(false).await?;
        let named = self.exchange.named.borrow().clone();
        let is_cut_short = named.len() > 1 && named.contains(&keys.sealing().0);
        let mut forgotten = 0;
        if !is_cut_short {
            if forget_old {
                // Before another one is drawn: there may be no room for it.
                forgotten += self.exchange.keep_only(&first_of(&keys)).await?;
                keys = self.here.keys.known().unwrap_or(keys);
            }
            keys = keys.with_new_first().map_err(|why| NotDone::Refused(Refusal::Conflict(why.to_string())))?;
        }
        // Given before it is in the own file: where that fails, nothing is left here for the next try to count.
        let without = self.exchange.spread(&keys, true).await?.without;
        let written = keys.clone();
        keys = self
            .here
            .keys
            .change(move |file| file.add(&written))
            .await
            .map_err(|fault| self.here.keys.refused(&fault))?;
        let resealed = self.reseal(&keys).await?;
        let mut with_old = Vec::new();
        if forget_old {
            let first = first_of(&keys);
            forgotten += self.exchange.keep_only(&first).await?;
            let given = self.exchange.give(&first, true, true).await;
            with_old = given.with_others;
            with_old.extend(given.without);
        }
        let left = self.here.keys.known().unwrap_or(keys);
        let kept = left.ids().skip(1).map(|id| id.to_string()).collect();
        Ok(KeyRotation { key: left.sealing().to_string(), resealed, kept, forgotten, without, with_old })
    }

    /// Why there are no keys to seal with; that of a file that is missing says what else can be done.
    fn missing_keys(&self, fault: &KeyFileFault) -> NotDone {
        match fault {
            KeyFileFault::Missing { .. } => NotDone::Refused(Refusal::Conflict(format!(
                "there are secrets, and {fault}, this one with --new-key (`?new_key=true`) first"
            ))),
            fault => self.here.keys.refused(fault),
        }
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
                let _forgets_nothing = self.exchange.seals().await;
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
            "secrets are set anew faster than they can be sealed with the new key, or this node is far behind the one that leads; do \
             this again when that is over"
                .to_owned(),
        )))
    }
}

/// The key that seals, alone.
fn first_of(keys: &SecretKeys) -> SecretKeys {
    keys.ids().skip(1).fold(keys.clone(), |left, id| left.without(id).unwrap_or(left))
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
