//! Where nodes are, by what this node's own log says and by what others told it. A node that joins has no log yet, and one that
//! was away may have an old one.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use vouch_cluster::NodeId;
use vouch_shard::WhoBelongs;

/// The nodes of a cluster, as one of its members knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ToldNodes {
    /// Index of the log up to which that member knew what is committed. What is in a log up to there is newer.
    pub(crate) as_of: u64,
    /// Who leads, as it knew.
    pub(crate) leader: Option<NodeId>,
    /// All nodes with an address, and where they are for each other.
    pub(crate) nodes: BTreeMap<NodeId, String>,
}

/// The newest of what others told.
#[derive(Debug, Default)]
pub(crate) struct Hearsay {
    latest: Mutex<ToldNodes>,
    /// Where nodes say that they are themselves, and where they were by the log then. Without a leader nobody could note it: nodes
    /// that have moved may be missing for an election.
    places: Mutex<BTreeMap<NodeId, (String, Option<String>)>>,
    /// This node leads, as it knew a moment ago: then its own log is ahead of all that others could tell.
    pub(crate) leads: AtomicBool,
    /// There is something new.
    pub(crate) changed: Notify,
}

impl Hearsay {
    /// Takes what a member told, if it is newer than what is known.
    pub(crate) fn hear(&self, told: ToldNodes, committed: u64) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_of > committed && told.as_of >= latest.as_of && told != *latest {
            *latest = told;
            self.changed.notify_one();
        }
    }

    /// A node says where it is. Holds until the log says something else than it did.
    pub(crate) fn is_at(&self, node: NodeId, address: &str, belongs: &WhoBelongs) {
        let then = addresses_in(belongs).remove(&node);
        if address.is_empty() || then.as_deref() == Some(address) {
            return;
        }
        let place = (address.to_owned(), then);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.insert(node, place.clone()) != Some(place) {
            self.changed.notify_one();
        }
    }

    /// What is in the log up to this index is known by the log: forgets what was told of before.
    pub(crate) fn forget(&self, committed: u64) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if !latest.nodes.is_empty() && latest.as_of <= committed {
            *latest = ToldNodes::default();
            self.changed.notify_one();
        }
    }

    /// Whether another member told of this node.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).nodes.contains_key(&node)
    }

    /// Where the others are. What was told is newer than the log.
    pub(crate) fn addresses(&self, belongs: &WhoBelongs, me: NodeId) -> BTreeMap<NodeId, String> {
        let mut all = addresses_in(belongs);
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let hold = places.iter().filter(|(node, (_, then))| all.get(node) == then.as_ref());
        let hold: Vec<_> = hold.map(|(node, (address, _))| (*node, address.clone())).collect();
        drop(places);
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(latest.nodes.iter().map(|(node, address)| (*node, address.clone())));
        all.extend(hold);
        all.remove(&me);
        all
    }
}

/// Where the nodes are, as the log says.
pub(crate) fn addresses_in(belongs: &WhoBelongs) -> BTreeMap<NodeId, String> {
    let nodes = belongs.nodes.nodes.iter();
    nodes.filter_map(|(id, node)| Some((*id, node.addresses.as_ref()?.peer.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use vouch_cluster::NodeAddresses;

    use super::*;

    #[test]
    fn a_node_is_where_it_says_until_the_log_says_something_new() {
        let (hearsay, mut belongs) = (Hearsay::default(), WhoBelongs::default());
        let logged = |belongs: &mut WhoBelongs, address: &str| {
            let address = NodeAddresses { peer: address.to_owned(), grpc: String::new() };
            belongs.nodes.nodes.get_mut(&NodeId(1)).unwrap().addresses = Some(address);
        };
        let at = |belongs: &WhoBelongs| hearsay.addresses(belongs, NodeId(2)).get(&NodeId(1)).cloned();
        logged(&mut belongs, "old:1");
        hearsay.is_at(NodeId(1), "", &belongs);
        assert_eq!(at(&belongs).as_deref(), Some("old:1"));
        hearsay.is_at(NodeId(1), "new:1", &belongs);
        assert_eq!(at(&belongs).as_deref(), Some("new:1"));
        logged(&mut belongs, "newer:1");
        assert_eq!(at(&belongs).as_deref(), Some("newer:1"));
    }

    #[test]
    fn what_was_told_holds_until_the_log_is_as_far() {
        let (hearsay, mut belongs) = (Hearsay::default(), WhoBelongs::default());
        let address = NodeAddresses { peer: "old:1".to_owned(), grpc: String::new() };
        belongs.nodes.nodes.get_mut(&NodeId(1)).unwrap().addresses = Some(address);
        let of = |hearsay: &Hearsay, node| hearsay.addresses(&belongs, NodeId(2)).get(&NodeId(node)).cloned();
        assert_eq!(of(&hearsay, 1).as_deref(), Some("old:1"));
        let nodes = [(1, "new:1"), (2, "me:1"), (3, "third:1")];
        let nodes = nodes.map(|(node, address)| (NodeId(node), address.to_owned())).into();
        let told = ToldNodes { as_of: 9, leader: None, nodes };
        hearsay.hear(told.clone(), 9);
        assert!(!hearsay.knows(NodeId(3)), "the log is as far");
        hearsay.hear(told.clone(), 8);
        hearsay.hear(ToldNodes { as_of: 5, ..ToldNodes::default() }, 4);
        assert!(hearsay.knows(NodeId(3)));
        assert_eq!((of(&hearsay, 1).as_deref(), of(&hearsay, 2)), (Some("new:1"), None));
        hearsay.forget(8);
        assert!(hearsay.knows(NodeId(3)));
        hearsay.forget(9);
        assert_eq!((of(&hearsay, 1).as_deref(), of(&hearsay, 3)), (Some("old:1"), None));
    }
}
