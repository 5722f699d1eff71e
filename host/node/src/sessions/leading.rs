//! What a leader knows of the sessions of other nodes, and what it does as long as it does not know all.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use vouch_broker::Generation;
use vouch_cluster::NodeId;

use super::Sessions;
use super::changes::ChangedSessions;

/// Nodes that did not tell of their sessions by then have none that matter: their clients have gone elsewhere.
const TOLD_WITHIN: Duration = Duration::from_secs(150);

/// One leadership of this node.
#[derive(Debug)]
pub(super) struct Leadership {
    /// Tells this one from others: whoever told another one tells all once more.
    life: u64,
    since: Instant,
    others: BTreeSet<NodeId>,
    /// Those that told all of theirs.
    told: BTreeSet<NodeId>,
    /// Leases that came to their consumers, by what nodes told.
    came: HashSet<Generation>,
    /// Leases whose messages may be lost with a node.
    doubted: HashSet<Generation>,
}

impl Leadership {
    /// Whether sessions are missing that may be there.
    pub(super) fn awaits_others(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < TOLD_WITHIN && !self.others.is_subset(&self.told)
    }
}

impl Sessions {
    /// This node leads from now on, and these others will tell of their sessions.
    pub(crate) fn begin_leading(&self, life: u64, others: BTreeSet<NodeId>, now: Instant) {
        let (told, mut table) = (BTreeSet::new(), self.table());
        // Who leads tells nobody.
        table.changes = ChangedSessions::default();
        table.leadership =
            Some(Leadership { life, since: now, others, told, came: HashSet::new(), doubted: HashSet::new() });
    }

    /// This node does not lead any more: what others told of streams is void.
    pub(crate) fn end_leading(&self, now: Instant) {
        let nodes = {
            let mut table = self.table();
            table.leadership = None;
            table.there.nodes()
        };
        nodes.into_iter().for_each(|node| self.lost(node, now));
    }

    /// Since when this node leads, if it does.
    pub(crate) fn leads_since(&self) -> Option<Instant> {
        self.table().leadership.as_ref().map(|leadership| leadership.since)
    }

    /// A node tells which batches came to its consumers of late; of these it was given others, which it does not know.
    pub(crate) fn came(&self, came: Vec<Generation>, given: Vec<Generation>) {
        if let Some(leadership) = &mut self.table().leadership {
            leadership.came.extend(came);
            let Leadership { came, doubted, .. } = leadership;
            doubted.extend(given.into_iter().filter(|generation| !came.contains(generation)));
        }
    }

    /// Whether messages of this lease may never have come to their consumer.
    pub(super) fn are_doubted(&self, generation: Generation, before: bool) -> bool {
        self.table().leadership.as_ref().is_some_and(|leadership| {
            leadership.doubted.contains(&generation) || before && !leadership.came.contains(&generation)
        })
    }

    /// The leadership of this node, if it leads.
    pub(crate) fn leadership(&self) -> Option<u64> {
        self.table().leadership.as_ref().map(|leadership| leadership.life)
    }

    /// Whether a node has told all of its sessions in this leadership, and was reached since.
    pub(crate) fn knows_all_of(&self, node: NodeId) -> bool {
        self.table().leadership.as_ref().is_some_and(|leadership| leadership.told.contains(&node))
    }

    /// A node has told all of its sessions, or is not reached any more.
    pub(crate) fn set_known(&self, node: NodeId, all: bool) {
        if let Some(leadership) = &mut self.table().leadership {
            match all {
                true => leadership.told.insert(node),
                false => leadership.told.remove(&node),
            };
        }
    }
}
