//! Records about the nodes of the cluster: who is invited, comes, moves and leaves, and who votes.

use std::collections::BTreeSet;

use vouch_cluster::{MEMBERS_MAX, MembersChange, NodeAddresses, NodeId};

use super::Fields;
use super::codec::{DecodeError, Reader, Writer};
use crate::Millis;

/// The kinds of this family, each with its sentence: a link of the chain of [`super::each_kind`].
macro_rules! members_kinds {
    ([$next:path $(, $rest:path)*] $($before:tt)*) => {
        $next! { [$($rest),*] $($before)*
            /// One step from some members of the cluster to others.
            MembersChanged,
            /// A node was given an id, and may come.
            NodeInvited,
            /// It came.
            NodeJoined,
            /// A node says where it is.
            NodeMoved,
            /// A node is to belong to the cluster no more.
            NodeLeaves,
        }
    };
}
pub(crate) use members_kinds;

/// One step from some members of the cluster to others. Alone in its entry, which is of the kind
/// *members*: a replica knows where its group changed by headers alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembersChanged {
    /// The step.
    pub change: MembersChange,
}

impl Fields for MembersChanged {
    const KIND: u16 = 15;

    fn write(&self, w: &mut Writer<'_>) {
        match &self.change {
            MembersChange::To { voters, learners } => {
                w.u8(0);
                write_nodes(w, voters);
                write_nodes(w, learners);
            }
            MembersChange::Finish => w.u8(1),
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let change = match r.u8("members")? {
            0 => MembersChange::To { voters: read_nodes(r, "voters")?, learners: read_nodes(r, "learners")? },
            1 => MembersChange::Finish,
            other => return Err(DecodeError::Value { field: "members", value: other.into() }),
        };
        Ok(Self { change })
    }
}

/// Ids of nodes, ascending.
pub(crate) fn write_nodes(w: &mut Writer<'_>, nodes: &BTreeSet<NodeId>) {
    w.varint(nodes.len() as u64);
    nodes.iter().for_each(|node| w.u64(node.0));
}

/// The same, read.
///
/// # Errors
/// They do not ascend, or are more than a cluster ever has.
pub(crate) fn read_nodes(r: &mut Reader<'_>, field: &'static str) -> Result<BTreeSet<NodeId>, DecodeError> {
    let mut nodes = BTreeSet::new();
    for _ in 0..r.count(field)? {
        let node = r.u64(field)?;
        // There is no node 0.
        if node == 0 || nodes.len() == MEMBERS_MAX || nodes.last().is_some_and(|last: &NodeId| last.0 >= node) {
            return Err(DecodeError::Value { field, value: node });
        }
        nodes.insert(NodeId(node));
    }
    Ok(nodes)
}

/// A node was given the next id, and may come once, with a token that holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInvited {
    /// SHA-256 of the secret.
    pub token: [u8; 32],
    /// Until then it may come.
    pub until: Millis,
    /// It votes as soon as it has the log, also where that makes the voters an even number.
    pub votes_at_once: bool,
    /// It takes the place of another one.
    pub replaces: Option<NodeReplaced>,
}

/// Whose place a node takes that was invited: an operator says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReplaced {
    /// Which goes, as soon as the other one has the log.
    pub node: NodeId,
    /// Who says so.
    pub by: String,
    /// Why, in the operator's words.
    pub reason: String,
}

impl Fields for NodeInvited {
    const KIND: u16 = 18;
    const VERSION: u8 = 2;
    const VERSION_LEVELS: &'static [(u8, u32)] = &[(2, 2)];

    /// In the first version it takes nobody's place.
    fn version(&self) -> u8 {
        if self.replaces.is_some() { 2 } else { 1 }
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.0.extend_from_slice(&self.token);
        w.u64(self.until.0);
        w.u8(self.votes_at_once.into());
        if let Some(NodeReplaced { node, by, reason }) = &self.replaces {
            w.u64(node.0);
            w.text(by);
            w.text(reason);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            token: read_token(r)?,
            until: Millis(r.u64("invited until")?),
            votes_at_once: r.flag("votes at once")?,
            replaces: None,
        })
    }

    fn read_version(r: &mut Reader<'_>, version: u8) -> Result<Self, DecodeError> {
        let mut invited = Self::read(r)?;
        if version > 1 {
            let (node, by) = (NodeId(r.u64("replaced node")?), r.string("by")?);
            invited.replaces = Some(NodeReplaced { node, by, reason: r.string("reason")? });
        }
        Ok(invited)
    }
}

/// A node came with its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeJoined {
    /// The id that the token is for.
    pub node: NodeId,
    /// SHA-256 of the secret that it brought.
    pub token: [u8; 32],
    /// Where it is.
    pub addresses: NodeAddresses,
}

impl Fields for NodeJoined {
    const KIND: u16 = 19;

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.node.0);
        w.0.extend_from_slice(&self.token);
        write_addresses(w, &self.addresses);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { node: NodeId(r.u64("node")?), token: read_token(r)?, addresses: read_addresses(r)? })
    }
}

/// A node says where it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeMoved {
    /// Which.
    pub node: NodeId,
    /// Where it is.
    pub addresses: NodeAddresses,
}

impl Fields for NodeMoved {
    const KIND: u16 = 20;

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.node.0);
        write_addresses(w, &self.addresses);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { node: NodeId(r.u64("node")?), addresses: read_addresses(r)? })
    }
}

/// A node is to belong to the cluster no more: an operator says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLeaves {
    /// Which.
    pub node: NodeId,
    /// Who says so.
    pub by: String,
    /// Why, in the operator's words.
    pub reason: String,
}

impl Fields for NodeLeaves {
    const KIND: u16 = 21;

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.node.0);
        w.text(&self.by);
        w.text(&self.reason);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { node: NodeId(r.u64("node")?), by: r.string("by")?, reason: r.string("reason")? })
    }
}

pub(crate) fn read_token(r: &mut Reader<'_>) -> Result<[u8; 32], DecodeError> {
    Ok(r.take(32, "token")?.try_into().expect("thirty-two bytes were taken"))
}

pub(crate) fn write_addresses(w: &mut Writer<'_>, addresses: &NodeAddresses) {
    w.text(&addresses.peer);
    w.text(&addresses.grpc);
}

pub(crate) fn read_addresses(r: &mut Reader<'_>) -> Result<NodeAddresses, DecodeError> {
    Ok(NodeAddresses { peer: r.string("peer address")?, grpc: r.string("grpc address")? })
}
