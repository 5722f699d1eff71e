//! Whether the group can do without a member for a while, as whoever leads knows.
//!
//! # To ensure correctness
//! - Two do not go at once, whoever let the first one go: a leader does not know whom the one before it let go a moment ago, so it lets
//!   nobody go until such a one would be missed, or is there again.
//! - A leader that is to go itself lets those go first who ask: whoever leads next is none of them, so that leadership is not handed
//!   to and fro between nodes that are to go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vouch_cluster::NodeId;
use vouch_consensus::Role;
use vouch_shard::GroupStanding;

/// A member that was let go is missed, or there again, by then.
const MISSED_WITHIN: Duration = Duration::from_secs(30);
/// A member that is to go asks every second or so: whoever was not heard to ask for so long does not ask any more.
const ASKS_WITHIN: Duration = Duration::from_secs(5);
/// A member that lacks no more entries than these keeps up.
const NEARLY: u64 = 64;

/// Who goes, as far as this node heard and decided while it led.
#[derive(Default)]
pub(crate) struct Spared(Mutex<Going>);

#[derive(Default)]
struct Going {
    /// Whom this node let go last.
    last: Option<(NodeId, Instant)>,
    /// Who asked, and was not let go: when, the last time.
    asked: BTreeMap<NodeId, Instant>,
}

impl Spared {
    /// Lets a member stop serving for a while, to come back whole.
    ///
    /// # Errors
    /// Why not: it is asked again later.
    pub(super) fn let_go(&self, standing: &GroupStanding, node: NodeId, now: Instant) -> Result<(), String> {
        let mut going = self.going();
        going.asked.insert(node, now);
        going.may_go(standing, node, now)?;
        going.asked.remove(&node);
        going.last = Some((node, now));
        Ok(())
    }

    /// Whether this node, which leads and is to stop serving for a while itself, hands over now.
    ///
    /// # Errors
    /// Why not: it is asked again later.
    pub(crate) fn may_hand_over(&self, standing: &GroupStanding, now: Instant) -> Result<(), String> {
        decides_without(standing, standing.node)?;
        if !leads_for(ASKS_WITHIN, standing, now) {
            return Err("it has only just begun to lead, and may not have heard yet who else is to go".to_owned());
        }
        let mut going = self.going();
        // It may still be heard: nobody is to lead who goes the next moment.
        if let Some((other, at)) = going.last
            && now.saturating_duration_since(at) < MISSED_WITHIN
            && standing.followers.iter().any(|follower| follower.node == other && follower.is_heard)
        {
            return Err(format!("it leads, and node {other} was let go a moment ago"));
        }
        going.asked.retain(|_, at| now.saturating_duration_since(*at) < ASKS_WITHIN);
        match going.asked.keys().next() {
            Some(other) => Err(format!("it leads, and node {other} goes first, which is to go as well")),
            None => Ok(()),
        }
    }

    fn going(&self) -> MutexGuard<'_, Going> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Going {
    fn may_go(&self, standing: &GroupStanding, node: NodeId, now: Instant) -> Result<(), String> {
        if let Some((other, at)) = self.last
            && other != node
            && now.saturating_duration_since(at) < MISSED_WITHIN
        {
            return Err(format!("node {other} was let go a moment ago"));
        }
        decides_without(standing, node)?;
        if !leads_for(MISSED_WITHIN, standing, now) {
            return Err(format!(
                "the node that leads has done so for less than {} s, and the one before may have let another one go",
                MISSED_WITHIN.as_secs()
            ));
        }
        Ok(())
    }
}

/// Whether the node that says how the group stands has led for so long.
fn leads_for(time: Duration, standing: &GroupStanding, now: Instant) -> bool {
    standing.leads_from.is_some_and(|from| now.saturating_duration_since(from) >= time)
}

/// Whether what is written now would be decided without this node.
///
/// # Errors
/// Why not.
fn decides_without(standing: &GroupStanding, node: NodeId) -> Result<(), String> {
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

    /// Node 1 leads three, since this moment, and what each of the others has.
    fn group_led_from(from: Option<Instant>, followers: &[(u64, bool, u64)]) -> GroupStanding {
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
            leads_from: from,
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

    fn group(followers: &[(u64, bool, u64)]) -> GroupStanding {
        group_led_from(None, followers)
    }

    /// Node 1 leads since this moment, and the two others are there.
    fn all_led_from(from: Instant) -> GroupStanding {
        group_led_from(Some(from), &[(2, true, 1000), (3, true, 1000)])
    }

    const SECOND: Duration = Duration::from_secs(1);

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
        let (spared, began) = (Spared::default(), Instant::now());
        let (all, now) = (all_led_from(began), began + MISSED_WITHIN);
        assert_eq!(spared.let_go(&all, NodeId(2), now), Ok(()));
        assert!(spared.let_go(&all, NodeId(3), now + SECOND).unwrap_err().contains("node 2"));
        assert_eq!(spared.let_go(&all, NodeId(2), now + 2 * SECOND), Ok(()), "its answer was lost");
        assert_eq!(spared.let_go(&all, NodeId(3), now + MISSED_WITHIN + 3 * SECOND), Ok(()));
    }

    /// Nodes 2 and 3 ask; the one that led before, which may be this one itself, let node 2 go.
    #[test]
    fn whoever_begins_to_lead_lets_nobody_go_until_one_whom_the_leader_before_let_go_would_be_missed() {
        let (before, began) = (Spared::default(), Instant::now());
        let asked = began + MISSED_WITHIN;
        assert_eq!(before.let_go(&all_led_from(began), NodeId(2), asked), Ok(()));
        let (next, took_over) = (Spared::default(), asked + SECOND);
        let all = all_led_from(took_over);
        for spared in [&next, &before] {
            let refused = spared.let_go(&all, NodeId(3), took_over + MISSED_WITHIN - SECOND);
            assert!(refused.is_err(), "node 2 may still answer, and be about to stop");
            assert_eq!(spared.let_go(&all, NodeId(3), took_over + MISSED_WITHIN), Ok(()));
        }
        let unknown = group(&[(2, true, 1000), (3, true, 1000)]);
        assert!(Spared::default().let_go(&unknown, NodeId(3), took_over).is_err(), "it does not know what was decided");
    }

    #[test]
    fn a_leader_that_is_to_go_lets_those_go_first_who_ask_and_hands_over_to_none_of_them() {
        let (spared, began) = (Spared::default(), Instant::now());
        let all = all_led_from(began);
        let early = spared.may_hand_over(&all, began + SECOND).unwrap_err();
        assert!(early.contains("just begun to lead"), "others may be about to ask: {early}");
        assert_eq!(spared.may_hand_over(&all, began + ASKS_WITHIN), Ok(()));
        // Node 2 asks again and again, until it is let go.
        let now = began + MISSED_WITHIN - SECOND;
        assert!(spared.let_go(&all, NodeId(2), now).is_err());
        let waits = spared.may_hand_over(&all, now + SECOND).unwrap_err();
        assert!(waits.contains("node 2 goes first"), "{waits}");
        assert_eq!(spared.let_go(&all, NodeId(2), now + SECOND), Ok(()));
        let waits = spared.may_hand_over(&all, now + SECOND).unwrap_err();
        assert!(
            waits.contains("node 2 was let go a moment ago"),
            "it is still there, and would be handed over to: {waits}"
        );
        let gone = group_led_from(Some(began), &[(2, false, 1000), (3, true, 1000)]);
        assert!(spared.may_hand_over(&gone, now + 2 * SECOND).is_err(), "without both nothing is decided");
    }

    #[test]
    fn a_leader_waits_for_nobody_who_asks_no_more() {
        let (spared, began) = (Spared::default(), Instant::now());
        let (all, asked) = (all_led_from(began), began + ASKS_WITHIN);
        assert!(spared.let_go(&all, NodeId(2), asked).is_err());
        assert!(spared.may_hand_over(&all, asked + ASKS_WITHIN - SECOND).is_err());
        assert_eq!(spared.may_hand_over(&all, asked + ASKS_WITHIN), Ok(()));
    }
}
