//! Keys go from node to node over connections on which both show their certificates (ruling 24), and over no others.
//!
//! # To ensure correctness
//! - A majority has a key before anything is sealed with it.
//! - Which key seals is said by a change of the key, and by nobody else: keys that come otherwise go behind a node's own.
//! - A key is forgotten where no secret needs it and nothing is on its way that is sealed with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{RwLock, RwLockReadGuard, watch};
use vouch_broker::{NotDone, NothingStored, Refusal};
use vouch_cluster::NodeId;
use vouch_secrets::{KeyChangeRefused, KeyFileFault, SecretKeyFile, SecretKeyId, SecretKeys};
use vouch_shard::WhoBelongs;

use super::keys::NodeKeys;
use super::sealed::{KeysOnTheWay, KeysTaken};
use crate::forwarding::{ForwardedAsk, Leaders, answer_of};
use crate::stopping::Stopping;

/// How long another node has to take or give keys: it reads and writes one small file.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks whether the key file can be read still.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Before a key that nobody had is looked for again.
const AGAIN: Duration = Duration::from_secs(5);

/// What nodes do with each other's keys.
pub(crate) struct KeyExchange {
    pub(crate) keys: Arc<NodeKeys>,
    pub(crate) leaders: Arc<Leaders>,
    pub(crate) belongs: watch::Receiver<WhoBelongs>,
    /// The keys that the state's secrets are sealed with.
    pub(crate) named: watch::Receiver<BTreeSet<[u8; 8]>>,
    /// Whether nodes show each other certificates; `None`: this one has no others.
    pub(crate) secured: Option<bool>,
    /// Which nodes have a key, as far as they told this one.
    pub(crate) had: Mutex<BTreeMap<SecretKeyId, BTreeSet<NodeId>>>,
    /// Held to read from when a key is chosen until it is known what became of what it sealed; to write while keys are forgotten.
    pub(crate) sealing: RwLock<()>,
    /// Keys with which something was sealed of which it is not known whether it is stored, and how often.
    pub(crate) unsure: Mutex<BTreeMap<[u8; 8], usize>>,
    /// Nobody gave this node a key that it needs.
    pub(crate) lacks: AtomicBool,
    /// The key file is of no use to the next start.
    pub(crate) at_fault: AtomicBool,
    /// Other nodes that said this of themselves.
    pub(crate) lacking_there: Mutex<BTreeSet<NodeId>>,
}

/// Something sealed, on its way into the log. Where this is dropped without a word, as with a caller who is gone, nobody knows what
/// came of it, and the key stays until the node starts again.
pub(super) struct SealedOnTheWay<'a> {
    exchange: &'a KeyExchange,
    key: [u8; 8],
}

impl SealedOnTheWay<'_> {
    /// It is stored, and the state names its key; or it is certain that it never will be.
    pub(super) fn decided(self) {
        let mut unsure = self.exchange.unsure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = unsure.get_mut(&self.key) {
            *left -= 1;
            if *left == 0 {
                unsure.remove(&self.key);
            }
        }
    }
}

/// What came of giving keys to the other nodes.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Nodes that have not got them.
    pub(super) without: Vec<NodeId>,
    /// Why, of one of them.
    pub(super) why: Option<String>,
    /// Nodes that have others besides.
    pub(super) with_others: Vec<NodeId>,
}

impl KeyExchange {
    /// Of this node, when it begins.
    pub(crate) fn new(
        keys: Arc<NodeKeys>,
        leaders: Arc<Leaders>,
        belongs: watch::Receiver<WhoBelongs>,
        named: watch::Receiver<BTreeSet<[u8; 8]>>,
        secured: Option<bool>,
    ) -> Self {
        Self {
            keys,
            leaders,
            belongs,
            named,
            secured,
            had: Mutex::default(),
            sealing: RwLock::default(),
            unsure: Mutex::default(),
            lacks: AtomicBool::new(false),
            at_fault: AtomicBool::new(false),
            lacking_there: Mutex::default(),
        }
    }

    /// Nodes that have joined and stay, without this one.
    fn others(&self) -> BTreeSet<NodeId> {
        let belongs = self.belongs.borrow();
        let stay = belongs.nodes.nodes.iter().filter(|(_, node)| node.invitation.is_none() && !node.is_leaving);
        stay.map(|(id, _)| *id).filter(|id| *id != self.leaders.me()).collect()
    }

    /// Whether keys can be given to other nodes, or have to be: a node alone has nobody to give them to.
    fn may_spread(&self) -> bool {
        self.secured == Some(true)
    }

    /// Whether there are others that get none from here: their operator copies the file.
    pub(super) fn is_for_the_operator(&self) -> bool {
        !self.may_spread() && !self.others().is_empty()
    }

    /// Whether this node lacks a key that it would need to lead well.
    pub(crate) fn lacks(&self) -> bool {
        self.lacks.load(Ordering::Relaxed)
    }

    /// A node told whether it lacks some; one that is gone lacks none.
    pub(crate) fn told(&self, node: NodeId, lacks: bool) {
        let mut there = self.lacking_there.lock().unwrap_or_else(PoisonError::into_inner);
        match lacks {
            true => there.insert(node),
            false => there.remove(&node),
        };
    }

    /// Whether a node told that it lacks keys.
    pub(crate) fn lack_there(&self, node: NodeId) -> bool {
        self.lacking_there.lock().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }

    /// Nothing is forgotten here while somebody has this.
    pub(super) async fn seals(&self) -> RwLockReadGuard<'_, ()> {
        self.sealing.read().await
    }

    /// Something that this key sealed is about to be stored: until it is known what came of that, the key is not forgotten here.
    pub(super) fn goes_out(&self, key: [u8; 8]) -> SealedOnTheWay<'_> {
        *self.unsure.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
        SealedOnTheWay { exchange: self, key }
    }

    /// Gets the keys that the others have and this node lacks.
    pub(super) async fn fetch(&self) {
        if !self.may_spread() {
            return;
        }
        for node in self.others() {
            match self.ask(node, KeysTaken::default()).await {
                Ok(got) if got.0.is_empty() => {}
                Ok(got) => {
                    if let Err(why) = self.take(&got, false).await {
                        tracing::debug!(%node, %why, "the keys of another node are not taken over");
                    }
                }
                Err(why) => tracing::debug!(%node, %why, "a node gives no keys"),
            }
        }
    }

    /// Sees to it that a majority of those who vote has the first of these keys, before anything is sealed with it: a secret
    /// whose only key is on one disk is lost with that. Whoever has it already is not asked. `leads`: it is to seal there, too.
    ///
    /// # Errors
    /// [`NothingStored::TooMany`]: too few were reached.
    pub(super) async fn spread(&self, keys: &SecretKeys, leads: bool) -> Result<Given, NotDone> {
        if !leads && self.is_spread(keys) {
            return Ok(Given::default());
        }
        let given = self.give(keys, leads, false).await;
        if self.may_spread() && !self.is_spread(keys) {
            let without = given.without.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let why = given.why.map(|why| format!(" ({why})")).unwrap_or_default();
            return Err(NothingStored::Short(format!(
                "nodes {without} could not be given the key that seals{why}, and without them this secret could be lost with one disk; \
                 nothing was stored. Try again when most nodes take it"
            ))
            .into());
        }
        Ok(given)
    }

    /// Whether those who vote now can lose a minority of their disks, and the key that seals stays.
    fn is_spread(&self, keys: &SecretKeys) -> bool {
        let had = self.had.lock().unwrap_or_else(PoisonError::into_inner);
        let mut nodes = had.get(&keys.sealing()).cloned().unwrap_or_default();
        nodes.insert(self.leaders.me());
        self.belongs.borrow().members.decide(&nodes)
    }

    /// Gives all other nodes these keys. `leads`: the first is to seal there, too. `only`: they forget all others that nobody needs.
    pub(super) async fn give(&self, keys: &SecretKeys, leads: bool, only: bool) -> Given {
        let mut given = Given::default();
        let others = self.others();
        if !self.may_spread() {
            return Given { without: others.into_iter().collect(), ..given };
        }
        let take = KeysOnTheWay(Bytes::copy_from_slice(&keys.to_file()));
        for node in others {
            let taken = KeysTaken { take: take.clone(), leads, only };
            let there = self.ask(node, taken).await.and_then(|there| {
                SecretKeys::of_file(&there.0).map_err(|why| NotDone::Unknown(format!("it answers with no keys: {why}")))
            });
            match there {
                Ok(there) => {
                    self.had
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .entry(keys.sealing())
                        .or_default()
                        .insert(node);
                    if there.ids().any(|id| !keys.has(id)) {
                        given.with_others.push(node);
                    }
                }
                Err(why) => {
                    tracing::warn!(%node, %why, "a node has not taken the keys of secrets; it gets them when it is reached");
                    given.why.get_or_insert_with(|| format!("node {node}: {why}"));
                    given.without.push(node);
                }
            }
        }
        given
    }

    async fn ask(&self, node: NodeId, taken: KeysTaken) -> Result<KeysOnTheWay, NotDone> {
        let ask = ForwardedAsk::SecretKeys(taken);
        self.leaders.ask_node(node, ask, ANSWERED_WITHIN, |answer| answer_of!(answer, SecretKeys)).await
    }

    /// Takes over keys of another node: behind its own, unless they are to seal.
    async fn take(&self, keys: &KeysOnTheWay, leads: bool) -> Result<SecretKeys, NotDone> {
        let keys = SecretKeys::of_file(&keys.0).map_err(|why| Refusal::Invalid(format!("no keys came: {why}")))?;
        let taken = self.keys.change(move |file| if leads { file.add(&keys) } else { file.append(&keys) });
        taken.await.map_err(|fault| self.keys.refused(&fault))
    }

    /// Takes the keys of another node, forgets others that nobody needs if it says so, and gives what is there then.
    ///
    /// # Errors
    /// That node showed no certificate, or is none of the cluster's as far as this one has applied; the file cannot be changed.
    pub(super) async fn answer(&self, from: NodeId, taken: KeysTaken) -> Result<KeysOnTheWay, NotDone> {
        let conflict = |why: String| Err(NotDone::Refused(Refusal::Conflict(why)));
        if !self.may_spread() {
            return conflict(
                "nodes that show each other no certificates (--peer-insecure) give each other no keys".to_owned(),
            );
        }
        if !self.others().contains(&from) {
            return conflict(format!(
                "node {from} does not belong to the cluster, as far as node {} knows",
                self.leaders.me()
            ));
        }
        let KeysTaken { take, leads, only } = taken;
        if !take.0.is_empty() {
            self.take(&take, leads).await?;
            if only {
                self.keep_only(&SecretKeys::of_file(&take.0).map_err(|why| Refusal::Invalid(why.to_string()))?).await?;
            }
        }
        match self.keys.change(SecretKeyFile::read).await {
            Ok(keys) => Ok(KeysOnTheWay(Bytes::copy_from_slice(&keys.to_file()))),
            Err(KeyFileFault::Missing { .. }) => Ok(KeysOnTheWay::default()),
            Err(fault) => Err(self.keys.refused(&fault)),
        }
    }

    /// Forgets all keys but these, those that secrets are sealed with, and those with which something may be on its way. Returns how
    /// many went.
    ///
    /// # Errors
    /// The file cannot be changed.
    pub(super) async fn keep_only(&self, keys: &SecretKeys) -> Result<usize, NotDone> {
        let Ok(_nobody_seals) = self.sealing.try_write() else { return Ok(0) };
        let here = match self.keys.change(SecretKeyFile::read).await {
            Err(KeyFileFault::Missing { .. }) => return Ok(0),
            here => here.map_err(|fault| self.keys.refused(&fault))?,
        };
        let named = self.named.borrow().clone();
        let unsure = self.unsure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let unneeded = here.ids().filter(|id| !keys.has(*id) && !named.contains(&id.0) && !unsure.contains_key(&id.0));
        let mut forgotten = 0;
        for id in unneeded {
            match self.keys.forget(id).await {
                Ok(_) => forgotten += 1,
                // It went before, or seals.
                Err(KeyFileFault::Refused(KeyChangeRefused::Unknown(_) | KeyChangeRefused::Seals(_))) => {}
                Err(fault) => return Err(self.keys.refused(&fault)),
            }
        }
        Ok(forgotten)
    }
}

/// Gets keys that secrets are sealed with and that this node lacks, whenever there are such, until the node stops.
pub(crate) async fn keep_keys(exchange: Arc<KeyExchange>, stopping: Arc<Stopping>) {
    let mut named = exchange.named.clone();
    let mut told = BTreeSet::new();
    loop {
        look_after_file(&exchange).await;
        let ids = named.borrow_and_update().clone();
        let mut lacking = exchange.keys.lacking(&ids);
        if !lacking.is_empty() {
            // It may have been copied, or never been read yet.
            let read = exchange.keys.change(SecretKeyFile::read).await;
            lacking = exchange.keys.lacking(&ids);
            if !lacking.is_empty() {
                exchange.fetch().await;
                lacking = exchange.keys.lacking(&ids);
            }
            tell(&lacking, &mut told, read.err());
        }
        if lacking.is_empty() && !told.is_empty() {
            tracing::info!("this node has the keys of all secrets now");
            told.clear();
        }
        exchange.lacks.store(!lacking.is_empty(), Ordering::Relaxed);
        tokio::select! {
            changed = named.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(if lacking.is_empty() { LOOK_EVERY } else { AGAIN }) => {}
            () = stopping.cancelled() => return,
        }
    }
}

/// Says once, and in a metric, that the file has become of no use while its keys are in memory: the next start would not have them.
async fn look_after_file(exchange: &KeyExchange) {
    let fault = exchange.keys.fault().await;
    let was = exchange.at_fault.swap(fault.is_some(), Ordering::Relaxed);
    match fault {
        Some(why) if !was => {
            let why = exchange.keys.refused(&why);
            tracing::warn!(%why, "the key file cannot be read any more; secrets open with the keys in memory until this node stops");
        }
        None if was => tracing::info!("the key file can be read again"),
        _ => {}
    }
}

/// Says what is missing, once.
fn tell(lacking: &BTreeSet<[u8; 8]>, told: &mut BTreeSet<[u8; 8]>, fault: Option<KeyFileFault>) {
    if lacking.is_subset(told) {
        return;
    }
    told.extend(lacking);
    let keys = lacking.iter().map(|id| SecretKeyId(*id).to_string()).collect::<Vec<_>>().join(", ");
    let why = fault.map_or_else(
        || "the key file has others: copy secrets.key from a node that has them".to_owned(),
        |fault| fault.to_string(),
    );
    tracing::warn!(
        keys,
        why,
        "this node lacks keys of secrets: while it leads, bindings that name these secrets get no answer; all else works"
    );
}
