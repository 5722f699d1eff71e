//! Who votes when what operators want is done, and whether those who are left can decide. Pure.

use std::collections::BTreeSet;

use vouch_cluster::{ClusterNodes, GroupMembers, NodeAddresses, NodeId, next_change};
use vouch_shard::GroupStanding;

/// Steps after which the members are what the nodes want in any case: each node changes a few times at most.
const STEPS_MAX: usize = 256;

/// Who votes when all who are invited and may still come at this time have come and have the log, and all who leave are gone;
/// without a time, when nobody comes any more.
pub(super) fn voters_then(members: &GroupMembers, nodes: &ClusterNodes, now_ms: Option<u64>) -> BTreeSet<NodeId> {
    let mut nodes = nodes.clone();
    let may_come = |until_ms| now_ms.is_some_and(|now_ms| until_ms > now_ms);
    nodes.nodes.retain(|_, node| node.invitation.as_ref().is_none_or(|invited| may_come(invited.until_ms)));
    for node in nodes.nodes.values_mut().filter(|node| node.invitation.is_some()) {
        (node.invitation, node.addresses) = (None, Some(NodeAddresses::default()));
    }
    let (mut members, all) = (members.clone(), nodes.nodes.keys().copied().collect());
    for _ in 0..STEPS_MAX {
        let Some(next) = next_change(&members, &nodes, &all).and_then(|change| members.after(&change).ok()) else {
            break;
        };
        nodes.members_are(&next);
        members = next;
    }
    members.voters
}

/// How many of so many voters decide: more than half, so that two majorities have one in common.
pub fn majority_of(voters: usize) -> usize {
    voters / 2 + 1
}

/// Why the group could decide nothing any more without this node, as far as the one that leads knows; `None` if it could, or
/// if the node decides nothing anyway.
pub(super) fn undecided_without(group: &GroupStanding, nodes: &ClusterNodes, node: NodeId) -> Option<String> {
    if !group.members.voters.contains(&node) {
        return None;
    }
    let stays = |voter: &&NodeId| **voter != node && nodes.nodes.get(voter).is_some_and(|known| !known.is_leaving);
    let voters: BTreeSet<_> = group.members.voters.iter().filter(stays).copied().collect();
    let heard = group.followers.iter().filter(|other| other.is_heard).map(|other| other.node);
    let there: BTreeSet<_> = heard.chain([group.node]).collect();
    // Whether it is the last one the state itself decides.
    if voters.is_empty() || GroupMembers::voters(voters.iter().copied()).decide(&there) {
        return None;
    }
    let silent: BTreeSet<_> = voters.difference(&there).copied().collect();
    let (decide, of) = (majority_of(voters.len()), voters.len());
    Some(format!(
        "without node {node} nothing would be decided any more: {decide} of the {of} voters that are left ({}) must be there, and \
         {} not heard of lately. Start what is down, or add another node first; force=true removes node {node} all the same",
        told(&voters),
        if silent.len() == 1 { format!("node {} was", told(&silent)) } else { format!("nodes {} were", told(&silent)) },
    ))
}

fn told(nodes: &BTreeSet<NodeId>) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use vouch_cluster::NodeInvitation;
    use vouch_consensus::{EntryId, FollowerProgress, Role};

    use super::*;

    /// Nodes 1 to `voters` vote and are there.
    fn cluster(voters: u64) -> (GroupMembers, ClusterNodes) {
        let mut nodes = ClusterNodes::default();
        for id in 2..=voters {
            invite(&mut nodes, false);
            nodes.join(NodeId(id), [0; 32], address(), 0).unwrap();
        }
        (GroupMembers::voters((1..=voters).map(NodeId)), nodes)
    }

    fn address() -> NodeAddresses {
        NodeAddresses { peer: "127.0.0.1:1".to_owned(), grpc: String::new() }
    }

    fn invite(nodes: &mut ClusterNodes, votes_at_once: bool) {
        nodes.invite(NodeInvitation { token: [0; 32], until_ms: 100 }, votes_at_once, 0).unwrap();
    }

    fn then(members: &GroupMembers, nodes: &ClusterNodes) -> Vec<u64> {
        voters_then(members, nodes, Some(0)).into_iter().map(|node| node.0).collect()
    }

    #[test]
    fn who_is_invited_votes_then_where_that_makes_an_odd_number_or_somebody_wants_it() {
        let (members, mut nodes) = cluster(1);
        assert_eq!(then(&members, &nodes), [1]);
        invite(&mut nodes, false);
        assert_eq!(then(&members, &nodes), [1], "the second listens until a third is there");
        invite(&mut nodes, false);
        assert_eq!(then(&members, &nodes), [1, 2, 3]);
        assert_eq!(voters_then(&members, &nodes, Some(100)), [NodeId(1)].into(), "who comes too late does not come");
        assert_eq!(voters_then(&members, &nodes, None), [NodeId(1)].into(), "nobody counts on who has not come");
        let (members, mut nodes) = cluster(1);
        invite(&mut nodes, true);
        assert_eq!(then(&members, &nodes), [1, 2]);
        assert_eq!([1, 2, 3, 4, 5].map(majority_of), [1, 2, 2, 3, 3]);
    }

    #[test]
    fn who_leaves_does_not_vote_then_and_who_waits_takes_the_place() {
        let (members, mut nodes) = cluster(3);
        nodes.leaves(NodeId(3), &members.voters).unwrap();
        assert_eq!(then(&members, &nodes), [1, 2]);
        invite(&mut nodes, false);
        assert_eq!(then(&members, &nodes), [1, 2, 4]);
    }

    #[test]
    fn who_is_invited_to_replace_a_node_votes_then_in_its_place() {
        let (members, mut nodes) = cluster(3);
        let invitation = NodeInvitation { token: [0; 32], until_ms: 100 };
        nodes.replace(NodeId(2), invitation.clone(), false, 0).unwrap();
        assert_eq!(then(&members, &nodes), [1, 3, 4]);
        assert_eq!(voters_then(&members, &nodes, Some(100)), members.voters, "it did not come");
        let (alone, mut nodes) = cluster(1);
        nodes.replace(NodeId(1), invitation, false, 0).unwrap();
        assert_eq!(then(&alone, &nodes), [2]);
    }

    /// How the group stands for node 1, which leads and hears of these.
    fn standing(members: GroupMembers, heard: &[u64]) -> GroupStanding {
        let others = members.voters.iter().filter(|node| node.0 != 1);
        let follower = |node: &NodeId| {
            let is_heard = heard.contains(&node.0);
            FollowerProgress { node: *node, durable: 1, durable_to: None, is_heard }
        };
        GroupStanding {
            node: NodeId(1),
            role: Role::Leads { since: EntryId { term: 1, index: 1 } },
            term: 1,
            leads_from: None,
            followers: others.map(follower).collect(),
            members,
            names_from: 0,
            awaits_others: false,
            needed_from: None,
            last: 1,
            committed: 1,
            committed_to: None,
        }
    }

    #[test]
    fn a_node_without_which_nothing_is_decided_stays_and_whoever_is_dead_may_go() {
        let (members, nodes) = cluster(3);
        let without = |heard: &[u64], node| undecided_without(&standing(members.clone(), heard), &nodes, NodeId(node));
        assert_eq!(without(&[2, 3], 3), None);
        assert_eq!(without(&[2, 3], 1), None, "whoever leads hands over first");
        assert_eq!(without(&[2], 3), None, "it is dead");
        let why = without(&[3], 3).unwrap();
        assert!(
            why.contains("2 of the 2 voters that are left (1, 2)") && why.contains("node 2 was not heard"),
            "{why}"
        );
        assert!(why.contains("force=true"), "{why}");
        assert_eq!(without(&[], 7), None, "it decides nothing");
        let (alone, nodes) = cluster(1);
        assert_eq!(undecided_without(&standing(alone, &[]), &nodes, NodeId(1)), None, "that is refused as the last");
    }
}
