//! Who is let in.

use crate::hello::PeerHello;
use crate::identity::{ANY_NODE, HexBytes, PeerIdentity};
use crate::name::CertificateName;

/// Decides which nodes may connect. What makes a hello plainly wrong, another cluster for one, was refused before it is asked.
///
/// # To ensure correctness
///
/// It is asked when a connection begins, and once more when the connection is in the table that
/// [`crate::Transport::end_connections`] looks through. So whoever takes a node out of what this allows, and calls that then,
/// can be sure that no connection of the node is left.
pub trait PeerAdmission: Send + Sync {
    /// Whether this peer may connect. `certificate` is the name in its certificate, which is that of the hello; none without TLS.
    /// It must be quick.
    ///
    /// # Errors
    /// A sentence for the operator of the other node, of [`crate::SENTENCE_MAX_BYTES`] at most.
    fn admit(&self, hello: &PeerHello, certificate: Option<&CertificateName>) -> Result<(), String>;
}

/// What is wrong with a hello, whatever the policy is.
///
/// # Errors
/// A sentence for the operator of the dialer.
pub(crate) fn check(hello: &PeerHello, me: &PeerIdentity, certificate: Option<&CertificateName>) -> Result<(), String> {
    let from = &hello.from;
    if from.cluster != me.cluster {
        return Err(format!(
            "this node belongs to cluster {}, and you to cluster {}: one of the two has the wrong address or folder",
            HexBytes(&me.cluster),
            HexBytes(&from.cluster)
        ));
    }
    if from.cluster_incarnation != me.cluster_incarnation {
        return Err(format!(
            "this node is in incarnation {:08X} of the cluster, and you are in incarnation {:08X}: it was restored or recovered without \
             one of the two, which comes back with an empty folder and a new token (`vouch cluster add`)",
            me.cluster_incarnation, from.cluster_incarnation
        ));
    }
    if from.node == me.node {
        return Err(format!(
            "this is node {0}, and you say that you are node {0}, too: two nodes have one identity, or one dials itself",
            me.node
        ));
    }
    if hello.to_node != me.node && hello.to_node != ANY_NODE {
        return Err(format!("this is node {}, and node {} is meant: its address is wrong", me.node, hello.to_node));
    }
    if hello.to_incarnation != 0 && hello.to_incarnation != me.incarnation {
        return Err(format!("node {} was started again since: its earlier life is meant", me.node));
    }
    match certificate {
        Some(name) if (name.cluster, name.node) != (from.cluster, from.node) => Err(format!(
            "your certificate is that of {name}, and you say that you are node {}: use the certificate that was issued for it",
            from.node
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Lane;
    use crate::identity::tests::node;

    fn hello(from: PeerIdentity, to_node: u64, to_incarnation: u64) -> PeerHello {
        PeerHello { lane: Lane::Calls, from, to_node, to_incarnation, nonce: 0, credential: Default::default() }
    }

    #[test]
    fn who_is_wrong_hears_what_is_wrong() {
        let me = node(1);
        let other_cluster = PeerIdentity { cluster: [1; 16], ..node(2) };
        let restored = PeerIdentity { cluster_incarnation: 4, ..node(2) };
        for (hello, said) in [
            (hello(other_cluster, 1, 0), "belongs to cluster abab"),
            (hello(restored, 1, 0), "in incarnation 00000003 of the cluster, and you are in incarnation 00000004"),
            (hello(PeerIdentity { incarnation: 9, ..node(1) }, 1, 0), "two nodes have one identity"),
            (hello(node(2), 3, 0), "this is node 1, and node 3 is meant"),
            (hello(node(2), 1, 100), "its earlier life is meant"),
        ] {
            let why = check(&hello, &me, None).unwrap_err();
            assert!(why.contains(said) && why.len() <= crate::SENTENCE_MAX_BYTES, "{why}");
        }
        for right in [hello(node(2), 1, 0), hello(node(2), 1, me.incarnation), hello(node(2), ANY_NODE, 0)] {
            assert_eq!(check(&right, &me, None), Ok(()));
        }
    }

    #[test]
    fn a_certificate_speaks_for_its_node_alone() {
        let (me, hello) = (node(1), hello(node(2), 1, 0));
        let name = |cluster, node| CertificateName { cluster, node };
        assert_eq!(check(&hello, &me, Some(&name([0xab; 16], 2))), Ok(()));
        for wrong in [name([0xab; 16], 3), name([0xac; 16], 2)] {
            let why = check(&hello, &me, Some(&wrong)).unwrap_err();
            assert!(why.contains(&wrong.to_string()), "{why}");
        }
    }
}
