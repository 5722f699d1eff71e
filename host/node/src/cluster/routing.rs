//! Where clients are led that can hold the addresses of several nodes.
//!
//! All other clients stay where they are: led to one address alone, they would be lost with that node until they ask for the route
//! again.

use vouch_cluster::{ClusterNodes, NodeId};

/// Addresses of all members for clients: that of the node that leads first, the others in the order of their ids, so that all nodes
/// say the same, and a client opens new connections only when another one leads. `None`: a member does not say its own, and who were
/// led past it would not find it when the others are gone.
pub(super) fn client_route(leader: NodeId, nodes: &ClusterNodes) -> Option<Vec<String>> {
    let members = nodes.nodes.iter().filter(|(_, known)| known.invitation.is_none() && !known.is_leaving);
    let mut all = Vec::new();
    for (node, known) in members {
        let grpc = &known.addresses.as_ref()?.grpc;
        if grpc.is_empty() {
            return None;
        }
        all.push((*node != leader, grpc.clone()));
    }
    // It sorts those that are equal as they stand.
    all.sort_by_key(|(is_behind, _)| *is_behind);
    let leads = all.first().is_some_and(|(is_behind, _)| !is_behind);
    leads.then(|| all.into_iter().map(|(_, address)| address).collect())
}

#[cfg(test)]
mod tests {
    use vouch_cluster::{NodeAddresses, NodeInvitation};

    use super::*;

    fn nodes() -> ClusterNodes {
        let mut nodes = ClusterNodes::default();
        let at = |id: u64| NodeAddresses { peer: format!("10.0.0.{id}:8090"), grpc: format!("10.0.0.{id}:8081") };
        nodes.moved(NodeId(1), at(1)).unwrap();
        for id in 2..=4 {
            nodes.invite(NodeInvitation { token: [0; 32], until_ms: 9 }, false, 0).unwrap();
            if id < 4 {
                nodes.join(NodeId(id), [0; 32], at(id), 0).unwrap();
            }
        }
        nodes
    }

    #[test]
    fn clients_are_led_to_the_node_that_leads_with_the_other_members_behind_it() {
        let led = |leader| client_route(NodeId(leader), &nodes()).unwrap();
        assert_eq!(led(1), ["10.0.0.1:8081", "10.0.0.2:8081", "10.0.0.3:8081"]);
        assert_eq!(led(3), ["10.0.0.3:8081", "10.0.0.1:8081", "10.0.0.2:8081"]);
        assert_eq!(client_route(NodeId(9), &nodes()), None, "it is none of the members, as far as is known here");
    }

    #[test]
    fn clients_stay_where_they_are_when_a_member_does_not_say_where_they_reach_it() {
        let mut nodes = nodes();
        nodes.moved(NodeId(2), NodeAddresses { peer: "10.0.0.2:8090".to_owned(), grpc: String::new() }).unwrap();
        assert_eq!(client_route(NodeId(1), &nodes), None);
    }
}
