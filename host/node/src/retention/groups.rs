//! Groups that live and receive nothing, and groups that nobody uses.

use std::sync::atomic::Ordering;

use vouch_broker::record::{GroupsUnused, Seen};
use vouch_broker::state::Applied;
use vouch_broker::{GroupId, Millis, NotDone, State};

use super::Keeper;
use crate::sessions::Sessions;
use vouch_shard::clock::Clock;

/// A living group is noted in the log once in this time, if nothing else shows that it lives.
const SEEN_EVERY_MS: u64 = 24 * 60 * 60 * 1000;
/// One that goes by itself is noted more often, and goes so much later than it could: the log may not know better when its
/// last session ended.
const UNUSED_SEEN_EVERY_MS: u64 = 60 * 60 * 1000;
/// Groups looked at in one step.
const GROUPS_AT_ONCE: usize = 4096;

impl Keeper {
    /// Groups that live and receive nothing keep their right to what they have not consumed (ruling 13); those that nobody
    /// uses go.
    pub(super) async fn look_at_groups(&mut self) -> Result<(), NotDone> {
        let after = self.after_group;
        let (clock, sessions) = (self.of.clock.clone(), self.of.sessions.clone());
        let look = move |state: &State| GroupsLook::new(state, (&clock, &sessions), after);
        let GroupsLook { living, unused, next } = self.of.shard.read(look).await?;
        self.after_group = next;
        if !living.is_empty() {
            let seen = Seen { groups: living };
            self.of.shard.propose_one(|out| seen.encode(out)).await?;
        }
        if !unused.is_empty() {
            let unused = GroupsUnused { groups: unused };
            let applied = self.of.shard.propose_one(|out| unused.encode(out)).await?;
            if let Applied::Forgotten { groups } = applied
                && groups > 0
            {
                self.of.report.groups.fetch_add(groups, Ordering::Relaxed);
                tracing::info!(groups, "groups that receives made and that never acknowledged a message are gone");
            }
        }
        Ok(())
    }
}

/// What a look at some groups finds, each in ascending order.
struct GroupsLook {
    /// Groups with a member whose session lives, which the log has not shown lately.
    living: Vec<GroupId>,
    /// Groups that nobody uses any more.
    unused: Vec<GroupId>,
    /// Where to go on.
    next: Option<GroupId>,
}

impl GroupsLook {
    /// Looks at some groups, beginning after one.
    fn new(state: &State, (clock, sessions): (&Clock, &Sessions), after: Option<GroupId>) -> Self {
        let now = clock.now();
        let mut look = Self { living: Vec::new(), unused: Vec::new(), next: None };
        let mut last = None;
        for (looked_at, group) in state.groups().after(after).enumerate() {
            if looked_at == GROUPS_AT_ONCE {
                look.next = last;
                break;
            }
            last = Some(group.id);
            let every = if group.is_unused() { UNUSED_SEEN_EVERY_MS } else { SEEN_EVERY_MS };
            if now.ms_since(group.seen) < every {
                continue;
            }
            let bound = || state.plugins().binding_of_group(&group.name.to_string()).is_some();
            if sessions.has_member(&group.name) || bound() {
                look.living.push(group.id);
            } else if group.is_forgotten(state.at(Millis(now.0.saturating_sub(UNUSED_SEEN_EVERY_MS)))) {
                look.unused.push(group.id);
            }
        }
        look
    }
}
