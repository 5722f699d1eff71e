//! Keys go from node to node over connections on which both show their certificates (ruling 24), and over no others.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use vouch_broker::{NotDone, NothingStored, Refusal};
use vouch_cluster::NodeId;
use vouch_secrets::{KeyChangeRefused, KeyFileFault, SecretKeyFile, SecretKeyId, SecretKeys};
use vouch_shard::WhoBelongs;

use super::keys::{NodeKeys, refused};
use super::sealed::KeysOnTheWay;
use crate::forwarding::{ForwardedAsk, Leaders, answer_of};
use crate::stopping::Stopping;

/// How long another node has to take or give keys: it reads and writes one small file.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
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
    /// Keys that a majority has.
    pub(crate) spread: Mutex<BTreeSet<SecretKeyId>>,
    /// Nobody gave this node a key that it needs.
    pub(crate) lacks: AtomicBool,
    /// Other nodes that said this of themselves.
    pub(crate) lacking_there: Mutex<BTreeSet<NodeId>>,
}

impl KeyExchange {
    /// Nodes that have joined, without this one.
    fn others(&self) -> BTreeSet<NodeId> {
        let belongs = self.belongs.borrow();
        let joined = belongs.nodes.nodes.iter().filter(|(_, node)| node.invitation.is_none());
        joined.map(|(id, _)| *id).filter(|id| *id != self.leaders.me()).collect()
    }

    /// Whether keys can be given to other nodes, or have to be: a node alone has nobody to give them to.
    pub(super) fn may_spread(&self) -> bool {
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

    /// Gets from each other node the keys that it has.
    pub(super) async fn fetch(&self) {
        if !self.may_spread() {
            return;
        }
        for node in self.others() {
            let got = match self.ask(node, KeysOnTheWay::default(), Vec::new()).await {
                Ok(got) if got.0.is_empty() => continue,
                Ok(got) => got,
                Err(why) => {
                    tracing::debug!(%node, %why, "a node gives no keys");
                    continue;
                }
            };
            if let Err(why) = self.take(&got).await {
                tracing::warn!(%node, %why, "the keys of another node are not taken over");
            }
        }
    }

    /// Sees to it that a majority of those who vote has these keys, before anything is sealed with the first of them: a secret
    /// whose only key is on one disk is lost with that. Returns the nodes that have not got them.
    ///
    /// # Errors
    /// [`NothingStored::TooMany`]: too few were reached.
    pub(super) async fn spread(&self, keys: &SecretKeys) -> Result<Vec<NodeId>, NotDone> {
        let without = self.give(keys, Vec::new()).await;
        let voters = self.belongs.borrow().members.voters.clone();
        let lacking: Vec<_> = without.iter().filter(|node| voters.contains(node)).map(ToString::to_string).collect();
        if self.may_spread() && (voters.len() - lacking.len()) * 2 <= voters.len() {
            return Err(NothingStored::TooMany(format!(
                "nodes {} could not be given the key that seals, and with it this secret could be lost with one disk; nothing was \
                 stored. See `vouch cluster status`, and try again when most nodes are reached",
                lacking.join(", ")
            ))
            .into());
        }
        self.spread.lock().unwrap_or_else(PoisonError::into_inner).insert(keys.sealing());
        Ok(without)
    }

    /// Whether the key that seals was given to the others since this node began.
    pub(super) fn is_spread(&self, keys: &SecretKeys) -> bool {
        self.spread.lock().unwrap_or_else(PoisonError::into_inner).contains(&keys.sealing())
    }

    /// Gives all other nodes these keys, and lets them forget others. Returns those that did not.
    pub(super) async fn give(&self, keys: &SecretKeys, forget: Vec<[u8; 8]>) -> Vec<NodeId> {
        let others = self.others();
        if !self.may_spread() {
            return others.into_iter().collect();
        }
        let text = Bytes::copy_from_slice(&keys.to_file());
        let mut without = Vec::new();
        for node in others {
            if let Err(why) = self.ask(node, KeysOnTheWay(text.clone()), forget.clone()).await {
                tracing::warn!(%node, %why, "a node has not taken the keys of secrets; it gets them when it is reached");
                without.push(node);
            }
        }
        without
    }

    async fn ask(&self, node: NodeId, take: KeysOnTheWay, forget: Vec<[u8; 8]>) -> Result<KeysOnTheWay, NotDone> {
        let ask = ForwardedAsk::SecretKeys { take, forget };
        self.leaders.ask_node(node, ask, ANSWERED_WITHIN, |answer| answer_of!(answer, SecretKeys)).await
    }

    async fn take(&self, keys: &KeysOnTheWay) -> Result<SecretKeys, NotDone> {
        let keys = SecretKeys::of_file(&keys.0).map_err(|why| Refusal::Invalid(format!("no keys came: {why}")))?;
        self.keys.change(move |file| file.add(&keys)).await.map_err(|fault| refused(&fault))
    }

    /// Takes the keys of another node, forgets those of which it says so and that no secret needs, and gives what is there then.
    ///
    /// # Errors
    /// That node showed no certificate; the file cannot be changed.
    pub(super) async fn answer(&self, take: KeysOnTheWay, forget: Vec<[u8; 8]>) -> Result<KeysOnTheWay, NotDone> {
        if !self.may_spread() {
            return Err(NotDone::Refused(Refusal::Conflict(
                "nodes that show each other no certificates (--peer-insecure) give each other no keys".to_owned(),
            )));
        }
        if !take.0.is_empty() {
            self.take(&take).await?;
        }
        self.forget(forget).await?;
        match self.keys.change(SecretKeyFile::read).await {
            Ok(keys) => Ok(KeysOnTheWay(Bytes::copy_from_slice(&keys.to_file()))),
            Err(KeyFileFault::Missing { .. }) => Ok(KeysOnTheWay::default()),
            Err(fault) => Err(refused(&fault)),
        }
    }

    /// Forgets keys that no secret is sealed with. Returns how many were there.
    ///
    /// # Errors
    /// The file cannot be changed.
    pub(super) async fn forget(&self, ids: Vec<[u8; 8]>) -> Result<usize, NotDone> {
        let mut forgotten = 0;
        for id in ids {
            if self.named.borrow().contains(&id) {
                continue;
            }
            match self.keys.change(move |file| file.forget(SecretKeyId(id))).await {
                Ok(_) => forgotten += 1,
                // It went before, or seals again, or there is no file.
                Err(
                    KeyFileFault::Refused(KeyChangeRefused::Unknown(_) | KeyChangeRefused::Seals(_))
                    | KeyFileFault::Missing { .. },
                ) => {}
                Err(fault) => return Err(refused(&fault)),
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
            () = tokio::time::sleep(AGAIN), if !lacking.is_empty() => {}
            () = stopping.cancelled() => return,
        }
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
