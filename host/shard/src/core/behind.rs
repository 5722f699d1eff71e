//! Members that are behind: what is kept for those that live, and what becomes of one that lacks more.
//!
//! # To ensure correctness
//!
//! - What this decides is how long bytes and names are kept that snapshots cover. A member for which they were not kept takes a
//!   snapshot from another node's disk: nothing is lost by it but time.
//! - A replica that was told that it is behind decides nothing anew: it goes on with what it hears until it is stopped.

use std::collections::BTreeMap;
use std::time::Instant;

use vouch_commitlog::LogPosition;
use vouch_consensus::{EntryId, FollowerProgress, NodeId, Replica};

use super::{Command, Core, HeldLog, LeaderEntry};

/// What a replica keeps of those who are behind.
pub(super) struct Behind {
    /// A member that lives and lacks no more bytes than these gets them from its leader.
    within: u64,
    /// What other nodes take, or took and have yet to start with: one takes at a time, and those before it may not be heard of yet.
    held: BTreeMap<NodeId, HeldLog>,
    /// That this replica is itself too far behind was told.
    is_told: bool,
}

impl Behind {
    pub(super) fn within(bytes: u64) -> Self {
        Self { within: bytes, held: BTreeMap::new(), is_told: false }
    }

    /// Keeps the log for another node. The latest word for each counts.
    pub(super) fn hold(&mut self, held: HeldLog, now: Instant) {
        self.held.retain(|_, other| now < other.until);
        self.held.insert(held.by, held);
    }

    /// What is held, but for nodes that live and have their stretch: these are like all others.
    fn held(&self, now: Instant, replica: &Replica<LeaderEntry>) -> Vec<&HeldLog> {
        let followers = replica.followers();
        let has = |held: &HeldLog, other: &FollowerProgress| {
            other.node == held.by && other.is_heard && other.durable_to.is_some_and(|to| to >= held.taken.end.0)
        };
        let counts = |held: &&HeldLog| now < held.until && !followers.iter().any(|other| has(held, other));
        self.held.values().filter(counts).collect()
    }
}

impl Core {
    /// This replica lacks what its leader does not keep any more.
    pub(super) fn fall_behind(&mut self, covered: EntryId) {
        if !std::mem::replace(&mut self.behind.is_told, true) {
            let (index, last) = (covered.index, self.replica.as_ref().map(Replica::last));
            tracing::warn!(
                last,
                covered = index,
                "this node is further behind than the log goes back at the node that leads; it takes a snapshot from there"
            );
            self.commands.push_back(Command::FellBehind);
        }
    }

    /// Forgets the names of entries that a snapshot covers. The last of these is still known: the log may be cut off right behind it.
    /// A leader forgets none that a node needs which is to come, or that another member has yet to get, as long as that is there.
    pub(super) fn forget_names(&mut self, covered: u64) {
        let (awaits_some, awaits_others) = (self.awaits_others(), self.awaits_all() || self.awaits_word());
        // What is still in the log can be named again, and is not told to be gone.
        let within = if self.log.start == LogPosition::START { u64::MAX } else { self.behind.within };
        let (now, behind) = (self.now.at, &self.behind);
        let Some(replica) = self.replica.as_mut().filter(|_| !awaits_others) else { return };
        // Whoever is to come is sent what is written from now on, wherever he gets the rest.
        self.keeps_names &= awaits_some || !replica.is_alone();
        let held: Vec<u64> =
            behind.held(now, replica).into_iter().filter_map(|held| replica.index_before(held.taken.end.0)).collect();
        let needed = slowest(replica, within).into_iter().chain(held).min().unwrap_or(u64::MAX);
        replica.forget(covered.saturating_sub(1).min(needed));
    }

    /// From where on the log is needed by others than this replica, as far as it knows.
    pub(super) fn needed_by_others(&self) -> Option<LogPosition> {
        let replica = self.replica.as_ref()?;
        if self.awaits_all() || self.awaits_word() {
            return Some(LogPosition::START);
        }
        let held = self.behind.held(self.now.at, replica).into_iter().map(|held| held.taken.start).min();
        if replica.is_alone() {
            return held;
        }
        // An entry whose name is known may be asked for whenever a member that was away is back, of whoever leads then.
        let named = LogPosition(replica.before_end());
        let of_slowest = |behind| replica.position_behind(behind).map(LogPosition);
        let slowest = slowest(replica, self.behind.within).and_then(of_slowest);
        [held, slowest].into_iter().flatten().chain([named]).min()
    }

    /// Whether a node is to come that gets the log from its beginning, which is still there.
    fn awaits_all(&self) -> bool {
        self.log.start == LogPosition::START && self.awaits_others()
    }
}

/// How far the last of the others is that are there and can be sent what they lack, if this one leads them. Whose log ends before
/// what is known by name, or lacks more than so many bytes, takes a snapshot instead.
fn slowest(replica: &Replica<LeaderEntry>, within: u64) -> Option<u64> {
    let end = replica.position_behind(replica.commit()).unwrap_or(0);
    let lacks = |other: &FollowerProgress| end.saturating_sub(other.durable_to.unwrap_or(0));
    let is_near =
        |other: &FollowerProgress| lacks(other) <= within && (within == u64::MAX || other.durable_to.is_some());
    let there = replica.followers().into_iter().filter(|other| other.is_heard && is_near(other));
    there.map(|other| other.durable).min()
}
