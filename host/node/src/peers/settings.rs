//! What a node needs to know to have others.

use vouch_transport::PeerSecurity;

use super::token::ClusterToken;

/// How a node speaks with the others of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// Where it listens for them, `host:port`; port 0 lets the system choose one.
    pub listen: String,
    /// Where they reach it, `host:port`, and where that is not where it listens. `None`: where it listens.
    pub advertise: Option<String>,
    /// How connections between nodes are secured; the same on all of them.
    pub security: PeerSecurity,
    /// Where clients reach it, `host:port`, as the others tell theirs. `None`: it does not say.
    pub grpc_advertise: Option<String>,
    /// Clients that can are led to the node that leads, with the others behind it. Without it every client stays where it is, and
    /// its calls are passed on.
    pub routes_to_leader: bool,
}

impl PeerSettings {
    /// Of a node that listens there, is reached there, and says of itself nothing else.
    pub fn new(listen: impl Into<String>, security: PeerSecurity) -> Self {
        Self { listen: listen.into(), advertise: None, security, grpc_advertise: None, routes_to_leader: false }
    }
}

/// How a node becomes one of a cluster that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinSettings {
    /// A node of the cluster, `host:port`: whichever.
    pub address: String,
    /// What `vouch cluster add` gave.
    pub token: ClusterToken,
}
