//! What a leader knows of the sessions of other nodes, and what it does as long as it does not know all.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use vouch_broker::Generation;
use vouch_cluster::NodeId;

use super::Sessions;
use super::changes::ChangedSessions;

/// Nodes that did not tell of their sessions by then have none that matter: their clients have gone elsewhere.
const TOLD_WITHIN: Duration = Duration::from_secs(150);

/// A lease lives no longer, however alive its consumer is.
const LEASE_LIVES_AT_MOST: Duration = Duration::from_secs(3 * 60 * 60);

/// One leadership of this node: what it learns of other nodes' sessions, from its first moment to its last. The next one begins with
/// nothing.
#[derive(Debug)]
pub(super) struct Leadership {
    /// Tells this one from others: whoever told another one tells all once more.
    life: u64,
    since: Instant,
    /// The other members, when it began.
    others: BTreeSet<NodeId>,
    /// Those that told all of theirs.
    told: BTreeSet<NodeId>,
    /// Leases that came to their consumers, by what nodes told in the first while: some are of before this leadership.
    came: HashSet<Generation>,
    /// Since when all of them remember what came, as far as they told; `None`: none did.
    remembered_since: Option<Instant>,
    /// Leases whose messages may be lost with a node, and since when.
    doubted: HashMap<Generation, Instant>,
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
        table.leadership = Some(Leadership {
            life,
            since: now,
            others,
            told,
            came: HashSet::new(),
            remembered_since: None,
            doubted: HashMap::new(),
        });
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

    /// A node tells which batches came to its consumers since it last told: they are doubted no more.
    pub(crate) fn came(&self, came: Vec<Generation>, now: Instant) {
        let mut table = self.table();
        let Some(leadership) = &mut table.leadership else { return };
        for generation in &came {
            leadership.doubted.remove(generation);
        }
        if now.saturating_duration_since(leadership.since) < TOLD_WITHIN {
            leadership.came.extend(came);
        }
    }

    /// A node, or this one, remembers what came to its consumers for this long, and knows nothing of before.
    pub(crate) fn remembers(&self, remembers: Duration, now: Instant) {
        if let Some(leadership) = &mut self.table().leadership {
            let since = now.checked_sub(remembers);
            leadership.remembered_since = leadership.remembered_since.max(since);
        }
    }

    /// A node is lost, or was begun anew: of what it was given lately nobody knows whether it came to a consumer, unless it tells from
    /// now on. That it told so before says nothing: it came to the node, and may have been lost with it on its last way.
    pub(crate) fn doubt(&self, given: Vec<Generation>, now: Instant) {
        let mut table = self.table();
        let Some(leadership) = &mut table.leadership else { return };
        let lives = |since: &Instant| now.saturating_duration_since(*since) < LEASE_LIVES_AT_MOST;
        leadership.doubted.retain(|_, since| lives(since));
        leadership.doubted.extend(given.into_iter().map(|given| (given, now)));
    }

    /// Whether messages of this lease may never have come to their consumer.
    pub(super) fn are_doubted(&self, generation: Generation, before: bool) -> bool {
        self.table().leadership.as_ref().is_some_and(|leadership| {
            leadership.doubted.contains_key(&generation) || before && !leadership.came.contains(&generation)
        })
    }

    /// All that came to consumers before this leadership, and for how long until now all nodes remember that: of what was leased
    /// earlier it is not known. `None` while nodes are missing that have not told.
    pub(crate) fn all_that_came(&self, now: Instant) -> Option<(HashSet<Generation>, Duration)> {
        let table = self.table();
        let leadership = table.leadership.as_ref().filter(|leadership| !leadership.awaits_others(now));
        // Those who never told may have lost some: then nobody knows all.
        let known = leadership.filter(|leadership| leadership.others.is_subset(&leadership.told))?;
        let remembered = match known.remembered_since {
            Some(since) => now.saturating_duration_since(since),
            None => Duration::MAX,
        };
        Some((known.came.clone(), remembered))
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
