//! Who of the other nodes may connect.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;
use vouch_cluster::{NodeId, NodeRefused};
use vouch_shard::WhoBelongs;
use vouch_transport::{CertificateName, Lane, PeerAdmission, PeerHello};

use super::removal::tell_removal;
use super::token::ClusterToken;
use super::told::Hearsay;

/// Lets in who belongs to the cluster, as this node knows.
pub(super) struct ClusterAdmission {
    pub(super) me: NodeId,
    pub(super) belongs: watch::Receiver<WhoBelongs>,
    pub(super) hearsay: Arc<Hearsay>,
}

impl PeerAdmission for ClusterAdmission {
    fn admit(&self, hello: &PeerHello, _: Option<&CertificateName>) -> Result<(), String> {
        let node = NodeId(hello.from.node);
        self.judge(node, hello.lane, &hello.credential)
    }
}

impl ClusterAdmission {
    fn judge(&self, node: NodeId, lane: Lane, credential: &[u8]) -> Result<(), String> {
        let belongs = self.belongs.borrow();
        let nodes = &belongs.nodes;
        // Its log does not even say that this node itself was invited: it knows of nobody.
        if self.me > nodes.last {
            return Ok(());
        }
        if nodes.is_gone(node) {
            return Err(format!(
                "{}, or did not come while its token was good; to be one of it again, begin anew with an empty folder and a new \
                 token (`vouch cluster add`)",
                tell_removal(node)
            ));
        }
        match nodes.nodes.get(&node).map(|known| &known.invitation) {
            // Somebody starts a token once more that was used. To let him ask would end the connections of the node that is there, whose
            // name it has. One that does not vote yet may be that node itself, which heard no answer or has nothing of the log.
            Some(None) if !credential.is_empty() && belongs.members.votes(node) => {
                Err(NodeRefused::Token(node).to_string())
            }
            Some(None) => Ok(()),
            Some(Some(invited)) if invited.token != ClusterToken::digest(credential) => {
                Err(NodeRefused::Token(node).to_string())
            }
            Some(Some(_)) if lane == Lane::Calls => Ok(()),
            Some(Some(_)) => Err(format!("node {node} was invited, and has to join first")),
            // This node was away, and another one told it.
            None if self.hearsay.knows(node) => Ok(()),
            // It may have been invited just now: whoever leads knows, and is asked.
            None if lane == Lane::Calls && !credential.is_empty() && !self.hearsay.leads.load(Ordering::Relaxed) => {
                Ok(())
            }
            None => Err(format!(
                "this cluster has no node {node}; nodes are added with `vouch cluster add`, which gives a token to begin with"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use vouch_cluster::{ClusterNodes, GroupMembers, NodeAddresses, NodeInvitation};

    use super::super::told::ToldNodes;
    use super::*;

    /// Node 1 leads; 2 is there, 3 was invited, 4 is gone.
    fn nodes() -> ClusterNodes {
        let mut nodes = ClusterNodes::default();
        let token = ClusterToken::digest(b"secret");
        for _ in 2..=4 {
            nodes.invite(NodeInvitation { token, until_ms: 100 }, false, 1).unwrap();
        }
        let addresses = NodeAddresses { peer: "n2:1".to_owned(), grpc: String::new() };
        nodes.join(NodeId(2), token, addresses, 1).unwrap();
        nodes.leaves(NodeId(4), &[NodeId(1)].into()).unwrap();
        nodes
    }

    fn admission(me: u64, nodes: ClusterNodes) -> ClusterAdmission {
        let members = GroupMembers::voters([NodeId(1)]);
        let (_, belongs) = watch::channel(WhoBelongs { members, nodes, ..WhoBelongs::default() });
        ClusterAdmission { me: NodeId(me), belongs, hearsay: Arc::default() }
    }

    #[test]
    fn who_belongs_comes_in_and_everybody_else_hears_why_not() {
        let admission = admission(1, nodes());
        admission.hearsay.leads.store(true, Ordering::Relaxed);
        let judge = |node, lane, credential: &[u8]| admission.judge(NodeId(node), lane, credential);
        for lane in [Lane::Group(0), Lane::Calls, Lane::Sessions, Lane::Files] {
            assert_eq!(judge(2, lane, b""), Ok(()));
        }
        assert_eq!(judge(3, Lane::Calls, b"secret"), Ok(()));
        for (node, lane, credential, said) in [
            (3, Lane::Calls, &b"other"[..], "the token for node 3"),
            (3, Lane::Calls, b"", "vouch cluster add"),
            (3, Lane::Group(0), b"secret", "has to join first"),
            (4, Lane::Calls, b"secret", "node 4 was removed from this cluster"),
            (4, Lane::Group(0), b"", "an empty folder and a new token"),
            (5, Lane::Calls, b"secret", "no node 5; nodes are added with `vouch cluster add`"),
        ] {
            let why = judge(node, lane, credential).unwrap_err();
            assert!(why.contains(said) && why.len() <= vouch_transport::SENTENCE_MAX_BYTES, "{why}");
        }
    }

    #[test]
    fn a_token_that_was_used_is_shown_in_vain_where_its_node_votes_and_before_that_by_whoever_heard_no_answer() {
        let with = |voters: &[u64]| {
            let members = GroupMembers::voters(voters.iter().copied().map(NodeId));
            let (_, belongs) = watch::channel(WhoBelongs { members, nodes: nodes(), ..WhoBelongs::default() });
            ClusterAdmission { me: NodeId(1), belongs, hearsay: Arc::default() }
        };
        assert_eq!(with(&[1]).judge(NodeId(2), Lane::Calls, b"secret"), Ok(()));
        let why = with(&[1, 2]).judge(NodeId(2), Lane::Calls, b"secret").unwrap_err();
        assert!(why.contains("the token for node 2 was used"), "{why}");
        assert_eq!(with(&[1, 2]).judge(NodeId(2), Lane::Calls, b""), Ok(()));
    }

    #[test]
    fn a_node_that_knows_of_nobody_lets_all_in_and_one_that_was_away_those_it_was_told_of() {
        assert_eq!(admission(2, ClusterNodes::default()).judge(NodeId(7), Lane::Group(0), b""), Ok(()));
        let away = admission(1, nodes());
        let nodes = [(NodeId(5), "n5:1".to_owned())].into();
        away.hearsay.hear(ToldNodes { as_of: 9, leader: None, nodes }, 1);
        assert_eq!(away.judge(NodeId(5), Lane::Group(0), b""), Ok(()));
        assert!(away.judge(NodeId(6), Lane::Group(0), b"").is_err());
        assert!(away.judge(NodeId(6), Lane::Calls, b"").is_err());
        assert_eq!(away.judge(NodeId(6), Lane::Calls, b"secret"), Ok(()), "its leader is asked whether it was invited");
    }
}
