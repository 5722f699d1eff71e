//! Who belongs to the cluster, as the log says.

use vouch_cluster::{GroupMembers, NodeId};

use super::snapshot::{SectionSource, Snapshot, Unreadable};
use crate::record::codec::{DecodeError, Reader, Writer};
use crate::record::{read_nodes, write_nodes};

/// The members. A cluster begins with its first node alone, and no log says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Members(pub(super) GroupMembers);

impl Default for Members {
    fn default() -> Self {
        Self(GroupMembers::voters([NodeId::FIRST]))
    }
}

impl Snapshot for Members {
    const SECTION: u16 = 9;
    // Of the first version of sections the checksum leaves out the head; this one is younger.
    const OLDEST: u8 = 2;
    const VERSION: u8 = 2;

    fn write(&self, w: &mut Writer<'_>) {
        let GroupMembers { voters, outgoing, learners, learners_next } = &self.0;
        [voters, outgoing, learners, learners_next].into_iter().for_each(|nodes| write_nodes(w, nodes));
    }

    fn read(r: &mut Reader<'_>, _: &SectionSource<'_>) -> Result<Self, Unreadable> {
        let voters = read_nodes(r, "voters")?;
        if voters.is_empty() {
            return Err(DecodeError::Value { field: "voters", value: 0 }.into());
        }
        let (outgoing, learners) = (read_nodes(r, "outgoing")?, read_nodes(r, "learners")?);
        Ok(Self(GroupMembers { voters, outgoing, learners, learners_next: read_nodes(r, "learners next")? }))
    }
}
