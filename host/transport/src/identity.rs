//! Who a node is, and what a connection is for.

use std::fmt;

/// A cluster's name: the 16 bytes that every log of it begins with.
pub type ClusterBytes = [u8; 16];

/// No node has this id. Who dials it takes whoever of its cluster answers there: a node that joins knows addresses before it
/// knows who is who.
pub const ANY_NODE: u64 = 0;

/// One life of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIdentity {
    /// The cluster it belongs to.
    pub cluster: ClusterBytes,
    /// Which time the cluster lives: a restore from a backup begins another one, which must not hear the one before.
    pub cluster_incarnation: u32,
    /// The node's id in its cluster, not [`ANY_NODE`].
    pub node: u64,
    /// The life of its process: another number after each start. Not zero.
    pub incarnation: u64,
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of cluster {}", self.node, HexBytes(&self.cluster))
    }
}

/// Bytes as people compare them.
pub(crate) struct HexBytes<'a>(pub(crate) &'a [u8]);

impl fmt::Display for HexBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a connection is for. Each has connections of its own, so that nothing big stands before something urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Datagrams of the group of one shard, from the dialer to the acceptor.
    Group(u32),
    /// Requests and answers.
    Calls,
    /// Requests and answers about sessions, which must not wait for other calls.
    Sessions,
    /// One pull of one file.
    Files,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(shard) => write!(f, "group {shard}"),
            Self::Calls => f.write_str("calls"),
            Self::Sessions => f.write_str("sessions"),
            Self::Files => f.write_str("files"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A node of the cluster that the unit tests live in.
    pub(crate) fn node(node: u64) -> PeerIdentity {
        PeerIdentity { cluster: [0xab; 16], cluster_incarnation: 3, node, incarnation: 100 + node }
    }

    #[test]
    fn people_read_who_and_what_for() {
        assert_eq!(node(2).to_string(), "node 2 of cluster abababababababababababababababab");
        let lanes = [Lane::Group(7), Lane::Calls, Lane::Sessions, Lane::Files].map(|lane| lane.to_string());
        assert_eq!(lanes, ["group 7", "calls", "sessions", "files"]);
    }
}
