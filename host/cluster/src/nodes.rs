//! The nodes of a cluster besides their votes: which ids were given, to whom, and where each is reached.

use std::collections::{BTreeMap, BTreeSet};

use crate::{GroupMembers, MEMBERS_MAX, NodeId};

/// Characters in an address.
pub const ADDRESS_MAX: usize = 255;

/// Where a node is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    /// By the other nodes: `host:port`.
    pub peer: String,
    /// By clients, where they can: `host:port`. Empty if it does not say.
    pub grpc: String,
}

/// An id that was given to a node which has yet to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInvitation {
    /// SHA-256 of the secret in its token. The secret itself is nowhere but there.
    pub token: [u8; 32],
    /// Until then it may come; milliseconds of the log's time.
    pub until_ms: u64,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    /// Where it is; `None` as long as it has not said so.
    pub addresses: Option<NodeAddresses>,
    /// It was invited, and has not come yet.
    pub invitation: Option<NodeInvitation>,
    /// It votes as soon as it has the log, even where that makes the voters an even number.
    pub votes_at_once: bool,
    /// It belongs to the cluster no more as soon as nobody counts on it.
    pub is_leaving: bool,
    /// It takes this one's place when it has the log: in one step, in which that one goes.
    pub replaces: Option<NodeId>,
}

/// Why nothing changes. Nothing is stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeRefused {
    /// Look at the nodes that there are.
    #[error("the cluster has no node {0}; `vouch cluster status` shows those that it has")]
    Unknown(NodeId),
    /// Remove some first.
    #[error("the cluster has {MEMBERS_MAX} nodes, those that are invited included; remove one first")]
    TooMany,
    /// Get a new one.
    #[error(
        "the token for node {0} was used, is too old, or is another node's; get a new one with `vouch cluster add`"
    )]
    Token(NodeId),
    /// Name it as `host:port`.
    #[error("{0:?} is no address; name it as host:port, with at most {ADDRESS_MAX} characters")]
    Address(String),
    /// It is the last one.
    #[error("node {0} is the last that votes; a cluster without it is none")]
    Last(NodeId),
    /// There is no place to take; let another one come.
    #[error(
        "node {0} has not come yet, so nobody can take its place; take its invitation back with `vouch cluster remove {0}`, \
         and get another with `vouch cluster add`"
    )]
    NotCome(NodeId),
    /// Let another one come.
    #[error("node {0} leaves the cluster already; let another one come with `vouch cluster add`")]
    Leaves(NodeId),
    /// One node has one successor.
    #[error(
        "node {by} is to take the place of node {node} already; start it with its token, or take it back with `vouch cluster \
         remove {by}` and ask again"
    )]
    Replaced {
        /// Whose place it is.
        node: NodeId,
        /// Who is to take it.
        by: NodeId,
    },
    /// It has no place of its own yet.
    #[error(
        "node {node} itself is to take the place of node {old}; take it back with `vouch cluster remove {node}`, and replace node \
         {old} again"
    )]
    Replaces {
        /// Who was to be replaced.
        node: NodeId,
        /// Whose place it waits for.
        old: NodeId,
    },
}

/// All nodes of a cluster. Ids are counted up and never used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNodes {
    /// The last id that was given.
    pub last: NodeId,
    /// Those that are there, or are to come.
    pub nodes: BTreeMap<NodeId, ClusterNode>,
}

impl ClusterNode {
    fn invited(invitation: Option<NodeInvitation>, votes_at_once: bool) -> Self {
        Self { addresses: None, invitation, votes_at_once, is_leaving: false, replaces: None }
    }
}

impl Default for ClusterNodes {
    /// The node with which each cluster begins.
    fn default() -> Self {
        Self::of_one(NodeId::FIRST)
    }
}

impl ClusterNodes {
    /// The nodes of a cluster that begins anew: this one alone. Ids of before are not given again.
    pub fn of_one(node: NodeId) -> Self {
        Self { last: node, nodes: BTreeMap::from([(node, ClusterNode::invited(None, true))]) }
    }
}

fn check(addresses: &NodeAddresses) -> Result<(), NodeRefused> {
    let is_address = |text: &str| {
        let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
        text.len() <= ADDRESS_MAX && port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    match [&addresses.peer, &addresses.grpc].into_iter().find(|text| !is_address(text)) {
        Some(wrong) if !(wrong.is_empty() && is_address(&addresses.peer)) => Err(NodeRefused::Address(wrong.clone())),
        _ => Ok(()),
    }
}

/// Whether it came, or still may.
fn waits(node: &ClusterNode, now_ms: u64) -> bool {
    node.invitation.as_ref().is_none_or(|invited| invited.until_ms > now_ms)
}

impl ClusterNodes {
    /// Gives the next id to a node that is to come. Invitations that ran out by `now_ms` are forgotten.
    ///
    /// # Errors
    /// There are too many.
    pub fn invite(
        &mut self,
        invitation: NodeInvitation,
        votes_at_once: bool,
        now_ms: u64,
    ) -> Result<NodeId, NodeRefused> {
        let there = self.nodes.values().filter(|node| waits(node, now_ms)).count();
        if there >= MEMBERS_MAX {
            return Err(NodeRefused::TooMany);
        }
        self.nodes.retain(|_, node| waits(node, now_ms));
        self.last = NodeId(self.last.0 + 1);
        self.nodes.insert(self.last, ClusterNode::invited(Some(invitation), votes_at_once));
        Ok(self.last)
    }

    /// Gives the next id to a node that is to come and take the place of this one.
    ///
    /// # Errors
    /// That one is not there, leaves, or has a successor; there are too many.
    pub fn replace(
        &mut self,
        old: NodeId,
        invitation: NodeInvitation,
        votes_at_once: bool,
        now_ms: u64,
    ) -> Result<NodeId, NodeRefused> {
        let known = self.nodes.get(&old).ok_or(NodeRefused::Unknown(old))?;
        if known.invitation.is_some() {
            return Err(NodeRefused::NotCome(old));
        }
        if known.is_leaving {
            return Err(NodeRefused::Leaves(old));
        }
        if let Some(place) = known.replaces {
            return Err(NodeRefused::Replaces { node: old, old: place });
        }
        let takes_it = |node: &ClusterNode| node.replaces == Some(old) && !node.is_leaving && waits(node, now_ms);
        if let Some((by, _)) = self.nodes.iter().find(|(_, node)| takes_it(node)) {
            return Err(NodeRefused::Replaced { node: old, by: *by });
        }
        let node = self.invite(invitation, votes_at_once, now_ms)?;
        self.nodes.entry(node).and_modify(|invited| invited.replaces = Some(old));
        Ok(node)
    }

    /// Who is to take whose place: of each, the one and the other. Where either of them leaves there is no place to take.
    pub fn replacements(&self) -> impl Iterator<Item = (NodeId, NodeId)> {
        let stays = |node: &NodeId| self.nodes.get(node).is_some_and(|known| !known.is_leaving);
        let pairs = self.nodes.iter().filter_map(|(id, node)| Some((*id, node.replaces?)));
        pairs.filter(move |(node, old)| stays(node) && stays(old))
    }

    /// A node comes with its token, which is used up by that. It may come again from the same place: it heard no answer.
    ///
    /// # Errors
    /// The token is not that of this node, or too old.
    pub fn join(
        &mut self,
        node: NodeId,
        token: [u8; 32],
        addresses: NodeAddresses,
        now_ms: u64,
    ) -> Result<(), NodeRefused> {
        check(&addresses)?;
        let known = self.nodes.get_mut(&node).ok_or(NodeRefused::Token(node))?;
        match &known.invitation {
            Some(invited) if invited.token == token && invited.until_ms > now_ms => {}
            _ => return Err(NodeRefused::Token(node)),
        }
        (known.invitation, known.addresses) = (None, Some(addresses));
        Ok(())
    }

    /// A node says where it is now. Whether that is news.
    ///
    /// # Errors
    /// There is no such node, or it has yet to join.
    pub fn moved(&mut self, node: NodeId, addresses: NodeAddresses) -> Result<bool, NodeRefused> {
        check(&addresses)?;
        let known = self.nodes.get_mut(&node).filter(|known| known.invitation.is_none());
        let known = known.ok_or(NodeRefused::Unknown(node))?;
        Ok(known.addresses.replace(addresses.clone()).as_ref() != Some(&addresses))
    }

    /// A node is to leave. One that was only invited is gone at once.
    ///
    /// # Errors
    /// There is no such node, or no other votes.
    pub fn leaves(&mut self, node: NodeId, voters: &BTreeSet<NodeId>) -> Result<(), NodeRefused> {
        let stays = |voter: &NodeId| *voter != node && self.nodes.get(voter).is_some_and(|known| !known.is_leaving);
        let is_last = !voters.iter().any(stays);
        let known = self.nodes.get_mut(&node).ok_or(NodeRefused::Unknown(node))?;
        if known.invitation.is_some() {
            self.nodes.remove(&node);
        } else if is_last {
            return Err(NodeRefused::Last(node));
        } else {
            known.is_leaving = true;
        }
        Ok(())
    }

    /// These are the members now. Whose place another one took, that one leaves. Whoever leaves and is not among them is gone:
    /// nobody counts on it any more, or it never belonged to anybody. Who was to take its place is one like all others then.
    pub fn members_are(&mut self, members: &GroupMembers) {
        let GroupMembers { voters, learners, learners_next, .. } = members;
        let stays = |node: &NodeId| [voters, learners, learners_next].into_iter().any(|nodes| nodes.contains(node));
        let replaced: Vec<_> = self.replacements().filter(|(node, old)| stays(node) && !stays(old)).collect();
        for (_, old) in replaced {
            self.nodes.entry(old).and_modify(|known| known.is_leaving = true);
        }
        let all = members.all();
        self.nodes.retain(|id, node| !node.is_leaving || all.contains(id));
        let there: BTreeSet<_> = self.nodes.keys().copied().collect();
        for node in self.nodes.values_mut() {
            node.replaces = node.replaces.filter(|old| there.contains(old));
        }
    }

    /// Whether a node is to come that is none of these members: it needs the log from its beginning.
    pub fn awaits_others(&self, members: &BTreeSet<NodeId>, now_ms: u64) -> bool {
        let comes = |node: &ClusterNode| !node.is_leaving && waits(node, now_ms);
        self.nodes.iter().any(|(id, node)| !members.contains(id) && comes(node))
    }

    /// Whether it was a member once, or invited, and is not any more.
    pub fn is_gone(&self, node: NodeId) -> bool {
        node <= self.last && !self.nodes.contains_key(&node)
    }
}
