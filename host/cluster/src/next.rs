//! What is to be done next, so that the nodes that there are become the members, by one step after the other.

use std::collections::BTreeSet;

use crate::{ClusterNodes, GroupMembers, MembersChange, NodeId};

/// The next step to the members that the nodes want, if one is to be taken now. `have_the_log`: whoever has what is committed,
/// or nearly.
///
/// A node gets the log before it votes: a vote that is asked of a node without the log is one that nobody has. Voters become an
/// even number only where somebody wants that: two are lost with either of them, four bear no more losses than three. Who takes
/// another's place takes it in one step, in which that one goes: between two, the group would bear less.
pub fn next_change(
    members: &GroupMembers,
    nodes: &ClusterNodes,
    have_the_log: &BTreeSet<NodeId>,
) -> Option<MembersChange> {
    if members.is_joint() {
        return Some(MembersChange::Finish);
    }
    let leaving = |node: &NodeId| nodes.nodes.get(node).is_none_or(|known| known.is_leaving);
    let is_to = |node: &NodeId| !leaving(node) && nodes.nodes[node].invitation.is_none();
    let come = |node: &NodeId| is_to(node) && nodes.nodes[node].addresses.is_some();
    let mut stay: BTreeSet<_> = members.voters.iter().copied().filter(|node| !leaving(node)).collect();
    let mut listen: BTreeSet<_> = members.learners.iter().copied().filter(|node| !leaving(node)).collect();
    let newcomers = nodes.nodes.keys().copied().filter(|node| come(node) && !members.all().contains(node));
    let newcomers: BTreeSet<_> = newcomers.collect();
    let mut ready: BTreeSet<_> = listen.intersection(have_the_log).copied().collect();
    let now = nodes.replacements().find(|(node, _)| ready.contains(node) || stay.contains(node));
    // Who waits for the place of one that votes takes no other.
    let waits: BTreeSet<_> = nodes.replacements().filter(|(_, old)| stay.contains(old)).map(|(node, _)| node).collect();
    ready.retain(|node| !waits.contains(node));
    // One after the other: somebody who votes now and later is there to lead meanwhile.
    if let Some((node, old)) = now {
        let old_votes = stay.remove(&old);
        if old_votes && stay.is_empty() {
            // It votes on, beside its successor, until that one leads.
            stay.insert(old);
        }
        if old_votes {
            stay.insert(node);
        }
        listen.remove(&old);
        ready.remove(&old);
    }
    let forced = ready.iter().any(|node| nodes.nodes[node].votes_at_once);
    if !forced && (stay.len() + ready.len()).is_multiple_of(2) {
        // The last to come waits for another.
        ready.pop_last();
    }
    let voters: BTreeSet<_> = stay.union(&ready).copied().collect();
    let learners: BTreeSet<_> = listen.union(&newcomers).copied().filter(|node| !voters.contains(node)).collect();
    let change = MembersChange::To { voters, learners };
    members.after(&change).is_ok().then_some(change)
}
