//! Whether the group can do without a member for a while, as whoever leads knows.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use vouch_cluster::NodeId;
use vouch_consensus::Role;
use vouch_shard::GroupStanding;

/// A member that was let go is missed, or there again, by then.
const MISSED_WITHIN: Duration = Duration::from_secs(30);
/// A member that lacks no more entries than these keeps up.
const NEARLY: u64 = 64;

/// Whom this node let go last, while it led.
#[derive(Default)]
pub(super) struct Spared(Mutex<Option<(NodeId, Instant)>>);

impl Spared {
    /// Lets a member stop serving for a while, to come back whole.
    ///
    /// # Errors
    /// Why not: it is asked again later.
    pub(super) fn let_go(&self, standing: &GroupStanding, node: NodeId, now: Instant) -> Result<(), String> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((other, at)) = *last
            && other != node
            && now.saturating_duration_since(at) < MISSED_WITHIN
        {
            return Err(format!("node {other} was let go a moment ago"));
        }
        decides_without(standing, node)?;
        *last = Some((node, now));
        Ok(())
    }
}

/// Whether what is written now would be decided without this node.
///
/// # Errors
/// Why not.
pub(crate) fn decides_without(standing: &GroupStanding, node: NodeId) -> Result<(), String> {
    let Role::Leads { since } = standing.role else { return Err("another node leads".to_owned()) };
    if standing.committed < since.index {
        return Err("it has only just begun to lead".to_owned());
    }
    let least = standing.committed.saturating_sub(NEARLY).max(since.index);
    let others = standing.followers.iter().filter(|other| other.is_heard && other.durable >= least);
    let there: BTreeSet<NodeId> =
        others.map(|other| other.node).chain([standing.node]).filter(|other| *other != node).collect();
    if standing.members.decide(&there) {
        return Ok(());
    }
    Err(format!("without node {node} too few of those who vote are there and keep up"))
}

#[cfg(test)]
mod tests {
    use vouch_cluster::GroupMembers;
    use vouch_consensus::{EntryId, FollowerProgress};

    use super::*;

    /// Node 1 leads three, and what each of the others has.
    fn group(followers: &[(u64, bool, u64)]) -> GroupStanding {
        let progress = |&(node, is_heard, durable): &(u64, bool, u64)| FollowerProgress {
            node: NodeId(node),
            durable,
            durable_to: None,
            is_heard,
        };
        GroupStanding {
            node: NodeId(1),
            role: Role::Leads { since: EntryId { term: 3, index: 100 } },
            term: 3,
            members: GroupMembers::voters([1, 2, 3].map(NodeId)),
            names_from: 0,
            awaits_others: false,
            needed_from: None,
            last: 1000,
            committed: 1000,
            committed_to: None,
            followers: followers.iter().map(progress).collect(),
        }
    }

    #[test]
    fn a_member_goes_only_where_a_majority_of_the_others_is_there_and_keeps_up() {
        let goes = |followers: &[(u64, bool, u64)], node| decides_without(&group(followers), NodeId(node)).is_ok();
        assert!(goes(&[(2, true, 1000), (3, true, 990)], 2) && goes(&[(2, true, 1000), (3, true, 990)], 3));
        assert!(goes(&[(2, true, 1000), (3, true, 1000)], 1), "the one that leads, too: it hands over");
        assert!(!goes(&[(2, true, 1000), (3, false, 1000)], 2), "the other is closed, or gone: it answers nothing");
        assert!(!goes(&[(2, true, 1000), (3, true, 500)], 2), "it is far behind");
        assert!(goes(&[(2, true, 1000), (3, true, 1000), (4, true, 3)], 4), "one that does not vote");
        let follows = GroupStanding { role: Role::Follows { leader: Some(NodeId(2)) }, ..group(&[(2, true, 1000)]) };
        assert!(decides_without(&follows, NodeId(3)).is_err());
        let begins = GroupStanding { committed: 99, ..group(&[(2, true, 1000), (3, true, 1000)]) };
        assert!(decides_without(&begins, NodeId(3)).is_err());
    }

    #[test]
    fn two_do_not_go_at_once() {
        let (spared, now) = (Spared::default(), Instant::now());
        let all = group(&[(2, true, 1000), (3, true, 1000)]);
        assert_eq!(spared.let_go(&all, NodeId(2), now), Ok(()));
        assert!(spared.let_go(&all, NodeId(3), now + Duration::from_secs(1)).unwrap_err().contains("node 2"));
        assert_eq!(spared.let_go(&all, NodeId(2), now + Duration::from_secs(2)), Ok(()), "its answer was lost");
        assert_eq!(spared.let_go(&all, NodeId(3), now + MISSED_WITHIN + Duration::from_secs(3)), Ok(()));
    }
}
