//! Who belongs to the cluster, as the log says.

use std::collections::BTreeMap;

use vouch_cluster::{ClusterNode, ClusterNodes, GroupMembers, MEMBERS_MAX, NodeId, NodeInvitation};

use super::snapshot::{SectionSource, Snapshot, Unreadable};
use crate::record::codec::{DecodeError, Reader, Writer};
use crate::record::{read_addresses, read_nodes, read_token, write_addresses, write_nodes};

/// The members. A cluster begins with its first node alone, and no log says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClusterMembers {
    pub(super) group: GroupMembers,
    pub(super) nodes: ClusterNodes,
}

impl ClusterMembers {
    /// Those of a cluster that begins, or begins anew, with this node.
    pub(super) fn of_one(node: NodeId) -> Self {
        Self { group: GroupMembers::voters([node]), nodes: ClusterNodes::of_one(node) }
    }
}

impl Default for ClusterMembers {
    fn default() -> Self {
        Self::of_one(NodeId::FIRST)
    }
}

impl Snapshot for ClusterMembers {
    const SECTION: u16 = 9;
    // Of the first version of sections the checksum leaves out the head; this one is younger.
    const OLDEST: u8 = 2;
    const VERSION: u8 = 3;
    const VERSION_LEVELS: &'static [(u8, u32)] = &[(3, 2)];

    /// In the second version no node is to take another's place.
    fn version(&self) -> u8 {
        if self.nodes.nodes.values().any(|node| node.replaces.is_some()) { 3 } else { 2 }
    }

    fn write(&self, w: &mut Writer<'_>, version: u8) {
        let Self { group, nodes } = self;
        let GroupMembers { voters, outgoing, learners, learners_next } = group;
        [voters, outgoing, learners, learners_next].into_iter().for_each(|nodes| write_nodes(w, nodes));
        w.u64(nodes.last.0);
        w.varint(nodes.nodes.len() as u64);
        for (id, ClusterNode { addresses, invitation, votes_at_once, is_leaving, replaces }) in &nodes.nodes {
            w.u64(id.0);
            w.option(addresses.as_ref(), write_addresses);
            w.option(invitation.as_ref(), |w, NodeInvitation { token, until_ms }| {
                w.0.extend_from_slice(token);
                w.u64(*until_ms);
            });
            w.u8((*votes_at_once).into());
            w.u8((*is_leaving).into());
            if version > 2 {
                w.option(*replaces, |w, old| w.u64(old.0));
            }
        }
    }

    fn read(r: &mut Reader<'_>, source: &SectionSource<'_>) -> Result<Self, Unreadable> {
        let voters = read_nodes(r, "voters")?;
        if voters.is_empty() {
            return Err(DecodeError::Value { field: "voters", value: 0 }.into());
        }
        let (outgoing, learners) = (read_nodes(r, "outgoing")?, read_nodes(r, "learners")?);
        let group = GroupMembers { voters, outgoing, learners, learners_next: read_nodes(r, "learners next")? };
        let (last, mut nodes) = (NodeId(r.u64("last node")?), BTreeMap::new());
        for _ in 0..r.count("nodes")? {
            let id = NodeId(r.u64("node")?);
            let ascends = nodes.last_key_value().is_none_or(|(last, _)| *last < id);
            if !ascends || id > last || nodes.len() == MEMBERS_MAX {
                return Err(DecodeError::Value { field: "node", value: id.0 }.into());
            }
            let node = ClusterNode {
                addresses: r.option("addresses", read_addresses)?,
                invitation: r.option("invitation", |r| {
                    Ok(NodeInvitation { token: read_token(r)?, until_ms: r.u64("invited until")? })
                })?,
                votes_at_once: r.flag("votes at once")?,
                is_leaving: r.flag("leaves")?,
                replaces: match source.version {
                    2 => None,
                    _ => r.option("replaces", |r| r.u64("replaced node"))?.map(NodeId),
                },
            };
            nodes.insert(id, node);
        }
        let read = Self { group, nodes: ClusterNodes { last, nodes } };
        // What says nothing new is written as before.
        match read.version() == source.version {
            true => Ok(read),
            false => Err(DecodeError::Value { field: "replaces", value: 0 }.into()),
        }
    }
}
