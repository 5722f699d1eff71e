//! What a shard says to whoever watches: the executor imports nobody, others look here.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, watch};
use vouch_broker::state::Incarnations;
use vouch_broker::{HalfPosition, NothingStored, RecordPosition, Refusal, State, TransactionId};
use vouch_cluster::{ClusterIncarnation, ClusterNodes, GroupMembers, NodeId};
use vouch_commitlog::LogPosition;
use vouch_storage::Requests;

use crate::clock::Clock;

/// Who belongs to a cluster, as of what is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhoBelongs {
    /// Who votes, and who gets the log.
    pub members: GroupMembers,
    /// All nodes, and where they are.
    pub nodes: ClusterNodes,
    /// The feature level of the log; 1 before it says so.
    pub feature_level: u32,
    /// The lives of the cluster: what transactions are called outside goes by them.
    pub incarnations: Incarnations,
}

/// What a replica met, while it served, that it cannot read any more. Others have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetDamage {
    /// Log positions of both ends of entries that were to be sent to another member.
    pub entries: BTreeSet<LogPosition>,
    /// Parts of the index of which no copy is whole.
    pub parts: BTreeSet<u64>,
    /// For one of them this replica writes nothing any more, and knows of nobody who leads.
    pub is_closed: bool,
}

/// What a shard shows of itself. All of it may be read at any time, by anybody.
pub struct Signals {
    /// The log's time.
    pub clock: Arc<Clock>,
    /// How far the state is that a snapshot would hold.
    pub snapshots: Arc<Requests>,
    /// A check may be due earlier than was known, or a binding changed.
    pub checks_changed: Arc<Notify>,
    /// A binding changed, or a secret that one may name.
    pub bindings_changed: Arc<Notify>,
    /// Counts how often topics or groups changed: what is remembered of them from before is void.
    directory: AtomicU64,
    belongs: watch::Sender<WhoBelongs>,
    leader: watch::Sender<Option<NodeId>>,
    behind: watch::Sender<bool>,
    met_damage: watch::Sender<MetDamage>,
    secret_keys: watch::Sender<BTreeSet<[u8; 8]>>,
    refused_in_memory: AtomicU64,
    scans: AtomicU64,
    closed: OnceLock<NothingStored>,
}

impl Signals {
    /// Nothing happened yet.
    pub fn new(clock: Clock, snapshots: Arc<Requests>) -> Self {
        Self {
            clock: Arc::new(clock),
            snapshots,
            checks_changed: Arc::default(),
            bindings_changed: Arc::default(),
            directory: AtomicU64::new(0),
            belongs: watch::Sender::default(),
            leader: watch::Sender::default(),
            behind: watch::Sender::default(),
            met_damage: watch::Sender::default(),
            secret_keys: watch::Sender::default(),
            refused_in_memory: AtomicU64::new(0),
            scans: AtomicU64::new(0),
            closed: OnceLock::new(),
        }
    }

    /// Why the log takes no writes, if so: [`NothingStored::Poisoned`] or [`NothingStored::ReadOnly`].
    pub fn closed(&self) -> Option<&NothingStored> {
        self.closed.get()
    }

    /// Which of the directories there is: another number than before means that topics or groups changed. Who changed them
    /// hears of it after this did.
    pub fn directory(&self) -> u64 {
        self.directory.load(Ordering::Acquire)
    }

    /// Who belongs to the cluster, now and whenever that changes.
    pub fn belongs(&self) -> watch::Receiver<WhoBelongs> {
        self.belongs.subscribe()
    }

    /// Who leads, as this replica knows, now and whenever that changes. A replica that only reads its log says that it does itself.
    pub fn leader(&self) -> watch::Receiver<Option<NodeId>> {
        self.leader.subscribe()
    }

    /// Whether this replica lacks what its leader does not keep any more: it gets no further, and is to take that from the disk of
    /// another node, for which it is stopped.
    pub fn behind(&self) -> watch::Receiver<bool> {
        self.behind.subscribe()
    }

    /// What this replica met that it cannot read any more, now and whenever it meets more.
    pub fn met_damage(&self) -> watch::Receiver<MetDamage> {
        self.met_damage.subscribe()
    }

    /// The keys that secrets are sealed with, by their ids, now and whenever these change.
    pub fn secret_keys(&self) -> watch::Receiver<BTreeSet<[u8; 8]>> {
        self.secret_keys.subscribe()
    }

    /// Messages that were acknowledged in memory and then not stored: their topic was deleted meanwhile, for one.
    pub fn refused_in_memory(&self) -> u64 {
        self.refused_in_memory.load(Ordering::Relaxed)
    }

    /// Looks for messages that receives made.
    pub fn scans(&self) -> u64 {
        self.scans.load(Ordering::Relaxed)
    }

    /// What a transaction of the shard is called outside.
    pub fn transaction_id(&self, half: HalfPosition) -> TransactionId {
        self.belongs.borrow().incarnations.transaction_id(half)
    }

    /// The half message that an id names here.
    ///
    /// # Errors
    /// [`Refusal::UnknownTransaction`] of one that another life of the cluster gave, or another shard.
    pub fn half_of(&self, id: TransactionId) -> Result<HalfPosition, Refusal> {
        self.belongs.borrow().incarnations.half_of(id)
    }

    /// The life of the cluster in which a record was written there.
    pub fn incarnation_at(&self, position: RecordPosition) -> ClusterIncarnation {
        self.belongs.borrow().incarnations.at(position)
    }

    pub(crate) fn close(&self, why: NothingStored) {
        // The first reason stays.
        let _ = self.closed.set(why);
    }

    pub(crate) fn directory_changed(&self) {
        self.directory.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn belong(&self, state: &State) {
        let (members, nodes) = (state.members().clone(), state.nodes().clone());
        let incarnations = state.incarnations().clone();
        let feature_level = state.cluster().level().unwrap_or(1);
        self.belongs.send_replace(WhoBelongs { members, nodes, feature_level, incarnations });
    }

    pub(crate) fn secrets_are(&self, state: &State) {
        let keys: BTreeSet<_> = state.secrets().iter().map(|(_, secret)| secret.key_id).collect();
        self.secret_keys.send_if_modified(|known| std::mem::replace(known, keys.clone()) != keys);
    }

    pub(crate) fn fell_behind(&self) {
        self.behind.send_replace(true);
    }

    pub(crate) fn cannot_read(&self, place: Range<LogPosition>) {
        // What goes in front of an entry may lie in the segment before.
        let ends = [place.start, LogPosition(place.end.0.saturating_sub(1))];
        self.met_damage.send_if_modified(|met| ends.into_iter().filter(|at| met.entries.insert(*at)).count() > 0);
    }

    pub(crate) fn closed_by_damage(&self, parts: Vec<u64>) {
        self.met_damage.send_modify(|met| {
            met.parts.extend(parts);
            met.is_closed = true;
        });
    }

    pub(crate) fn leads(&self, leader: Option<NodeId>) {
        self.leader.send_if_modified(|known| std::mem::replace(known, leader) != leader);
    }

    pub(crate) fn count_refused_in_memory(&self, messages: u64) {
        self.refused_in_memory.fetch_add(messages, Ordering::Relaxed);
    }

    pub(crate) fn count_scans(&self, scans: u64) {
        if scans > 0 {
            self.scans.fetch_add(scans, Ordering::Relaxed);
        }
    }
}
