//! The replicated state and how records change it.

mod apply;
mod cluster;
mod dedup;
mod fault;
mod filters;
mod groups;
mod incarnations;
mod index_entry;
mod kept;
mod leaps;
mod marks;
mod members;
mod pages;
mod part;
mod part_check;
mod part_rebuild;
mod part_view;
mod plugins;
mod progress;
mod queue;
mod recent;
mod retention;
mod seal;
mod secrets;
mod snapshot;
#[cfg(test)]
mod tests;
mod topics;
mod transactions;

pub use apply::{Applied, Effect, Outcome, RecordAt};
pub use cluster::Cluster;
pub use dedup::{DEDUP_MAX, DEDUP_WINDOW_MS};
pub use fault::{Gaps, PartError, QueueGap, SnapshotError};
pub use filters::{FILTER_TAGS_MAX, FILTERS_MAX, Filters, GROUP_FILTER_TAGS_MAX, NoFilterRoom};
pub(crate) use groups::FilterTags;
pub use groups::{GAPS_MAX, GROUPS_MAX, Gap, Group, Groups, MADE_GROUPS_MAX, PIN_MS, UNUSED_GROUPS_MAX, UNUSED_MS};
pub use incarnations::{INCARNATIONS_MAX, Incarnations};
pub use index_entry::{EntryAt, IndexEntry};
pub use kept::{KEPT_BYTES_MAX, KEPT_KEY_COST, KEPT_KEY_MAX, KEPT_VALUE_MAX, KeptValue, Namespace, Namespaces};
pub use leaps::{LEAPS_MAX, Leap, Leaps, Now};
pub use part::Copies;
pub use part_check::{check_part, merge_part};
pub use part_rebuild::PartRebuild;
pub use part_view::{PartView, QueueEntries, QueueRow};
pub use plugins::{
    Artifact, BINDINGS_MAX, BindingEntry, ComponentDigest, PLUGINS_MAX, PluginEntry, Plugins, TAG_HISTORY_MAX,
    TAGS_MAX, Tag, UPLOADS_MAX, used_by_bindings,
};
pub use progress::{Exception, Progress, UNFINISHED_MAX};
pub use retention::{Body, QueuePlace};
pub use seal::SNAPSHOT_BYTES_SINCE;
pub use secrets::{
    SECRET_NAME_MAX, SECRET_SEAL_LEN, SECRET_VALUE_MAX, SECRETS_BYTES_MAX, SECRETS_MAX, SealedSecrets, SecretEntry,
    check_secret_name,
};
pub use topics::{RETIRED_MAX, TOPICS_MAX, Topic, Topics};
pub use transactions::{
    Ended, Failure, LastAnswer, MemoryTransactions, OUTCOME_MEMORY_MS, OUTCOMES_MAX, OpenTransaction, OpenTransactions,
    Outcomes, Parked,
};

use dedup::Dedup;
use members::ClusterMembers;
use pages::PartsHealth;
use snapshot::Named;
use transactions::TransactionTables;

use vouch_cluster::{ClusterNodes, GroupMembers};

use crate::{Handle, Millis, RecordPosition, Refusal};

/// Everything that the log says, in memory: a pure function of its records.
#[derive(Default)]
pub struct State {
    cluster: Cluster,
    incarnations: Incarnations,
    members: ClusterMembers,
    leaps: Leaps,
    topics: Topics,
    groups: Groups,
    transactions: TransactionTables,
    dedup: Dedup,
    plugins: Plugins,
    secrets: SealedSecrets,
    kept: Namespaces,
    /// Parts that queues read from or that hold what is remembered; may name some that nothing needs any more.
    named: Named,
    /// What was found damaged in them.
    health: PartsHealth,
    /// The last record that was applied since this state was made or read.
    last_applied: Option<RecordPosition>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl State {
    /// Identity of the cluster and the log's clock.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The lives of the cluster, of which it is in the last.
    pub fn incarnations(&self) -> &Incarnations {
        &self.incarnations
    }

    /// Who belongs to the cluster: its first node alone, until the log says otherwise.
    pub fn members(&self) -> &GroupMembers {
        &self.members.group
    }

    /// Its nodes, those included that are invited and have yet to come.
    pub fn nodes(&self) -> &ClusterNodes {
        &self.members.nodes
    }

    /// Where the log's time leapt.
    pub fn leaps(&self) -> &Leaps {
        &self.leaps
    }

    /// A moment of the log's time, for ages.
    pub fn at(&self, time: Millis) -> Now<'_> {
        Now::new(time, &self.leaps)
    }

    /// All topics.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// All groups.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Open transactions.
    pub fn open_transactions(&self) -> &dyn OpenTransactions {
        self.transactions.open.as_ref()
    }

    /// Outcomes of ended transactions.
    pub fn outcomes(&self) -> &Outcomes {
        &self.transactions.outcomes
    }

    /// Components and bindings.
    pub fn plugins(&self) -> &Plugins {
        &self.plugins
    }

    /// Secrets, sealed.
    pub fn secrets(&self) -> &SealedSecrets {
        &self.secrets
    }

    /// What bindings keep.
    pub fn kept(&self) -> &Namespaces {
        &self.kept
    }

    /// Where the last record lies that was applied since this state was made, or read from a snapshot. The next one lies behind
    /// it.
    pub fn last_applied(&self) -> Option<RecordPosition> {
        self.last_applied
    }

    /// Resends that were recognised, and ids that were used again for other content.
    pub fn resends(&self) -> (u64, u64) {
        (self.dedup.suppressed, self.dedup.reused_ids)
    }

    /// Whether a handle names a living lease at `now`; `Ok(false)` if its message is done.
    ///
    /// A lease whose record is still on its way is not seen yet. So this is no reason to refuse an ack that would come
    /// after it in the log: propose the ack, and let [`State::apply`] decide.
    pub fn check_handle(&self, handle: &Handle, now: Millis) -> Result<bool, Refusal> {
        let progress = self
            .groups
            .get(handle.group)
            .and_then(|group| group.progress(handle.topic))
            .ok_or(Refusal::InvalidHandle("its group or topic was deleted"))?;
        progress.lease(handle.queue, handle.offset, handle.generation, now).map(|lease| lease.is_some())
    }
}
