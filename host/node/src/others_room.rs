//! Which other nodes have no room on their disks: what is sent must fit on those of a majority.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use vouch_broker::NothingStored;
use vouch_cluster::NodeId;
use vouch_shard::WhoBelongs;

/// What others told of their disks.
pub(crate) struct OthersRoom {
    belongs: watch::Receiver<WhoBelongs>,
    full: Mutex<BTreeSet<NodeId>>,
    /// Nodes that are not reached: what is sent does not come to their disks.
    unreached: Mutex<BTreeSet<NodeId>>,
}

impl OthersRoom {
    /// Nobody has told anything yet.
    pub(crate) fn new(belongs: watch::Receiver<WhoBelongs>) -> Self {
        Self { belongs, full: Mutex::default(), unreached: Mutex::default() }
    }

    /// A node told whether its disk is at its mark; one that is not reached any more has told nothing.
    pub(crate) fn told(&self, node: NodeId, is_full: bool) {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        if is_full && full.insert(node) {
            tracing::warn!(%node, "the disk of a node is at its high-water mark: it will fall behind");
        } else if !is_full && full.remove(&node) {
            tracing::info!(%node, "the disk of a node has room again, or the node is gone");
        }
    }

    /// Whether a node can be spoken with.
    pub(crate) fn is_reached(&self, node: NodeId, is_reached: bool) {
        let mut unreached = self.unreached.lock().unwrap_or_else(PoisonError::into_inner);
        match is_reached {
            true => unreached.remove(&node),
            false => unreached.insert(node),
        };
    }

    /// Whether a node told that it has no room.
    pub(crate) fn is_full(&self, node: NodeId) -> bool {
        self.full.lock().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }

    /// # Errors
    /// [`NothingStored::StorageFull`]: of those that vote a majority has no room, or is not there while another one has none. What is
    /// sent then would take the room that ends and acknowledgements need, on the one disk that counts.
    pub(crate) fn check(&self) -> Result<(), NothingStored> {
        let full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        if full.is_empty() {
            return Ok(());
        }
        let belongs = self.belongs.borrow();
        let voters = &belongs.members.voters;
        let unreached = self.unreached.lock().unwrap_or_else(PoisonError::into_inner);
        let without: Vec<_> = voters.iter().filter(|voter| full.contains(voter)).collect();
        let away: Vec<_> = voters.iter().filter(|voter| unreached.contains(voter) && !full.contains(voter)).collect();
        if without.is_empty() || (voters.len() - without.len() - away.len()) * 2 > voters.len() {
            return Ok(());
        }
        let besides = match away.as_slice() {
            [] => String::new(),
            away => format!(", nodes {} are not reached", told(away)),
        };
        Err(NothingStored::StorageFull(format!(
            "the disks of nodes {} are at their high-water marks{besides}, and with them a majority of {}: sends are refused, ends and \
             acknowledgements go on; free space there, or let topics expire sooner (retention)",
            told(&without),
            voters.len()
        )))
    }
}

fn told(nodes: &[&NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use vouch_cluster::GroupMembers;

    use super::*;

    #[test]
    fn sends_are_refused_while_a_majority_of_those_that_vote_has_no_room() {
        let members = GroupMembers::voters([1, 2, 3].map(NodeId));
        let (_tell, belongs) = watch::channel(WhoBelongs { members, ..WhoBelongs::default() });
        let room = OthersRoom::new(belongs);
        room.told(NodeId(2), true);
        // It does not vote.
        room.told(NodeId(9), true);
        assert_eq!(room.check(), Ok(()));
        room.told(NodeId(3), true);
        let NothingStored::StorageFull(why) = room.check().unwrap_err() else { panic!("for want of space") };
        assert!(why.contains("nodes 2, 3") && why.contains("majority of 3"), "{why}");
        room.told(NodeId(2), false);
        assert!(room.is_full(NodeId(3)) && room.check() == Ok(()));
    }

    #[test]
    fn a_node_that_is_not_reached_has_no_room_for_anybody_while_another_one_is_full() {
        let members = GroupMembers::voters([1, 2, 3].map(NodeId));
        let (_tell, belongs) = watch::channel(WhoBelongs { members, ..WhoBelongs::default() });
        let room = OthersRoom::new(belongs);
        room.is_reached(NodeId(2), false);
        assert_eq!(room.check(), Ok(()), "two of three have room");
        room.told(NodeId(3), true);
        let NothingStored::StorageFull(why) = room.check().unwrap_err() else { panic!("for want of space") };
        assert!(why.contains("nodes 3 are at") && why.contains("nodes 2 are not reached"), "{why}");
        room.is_reached(NodeId(2), true);
        assert_eq!(room.check(), Ok(()));
    }
}
