//! When a member is to take from others what it lacks: since it is too far behind, or since its scrubber found something damaged.

use std::time::Duration;

use tokio::time::sleep;
use vouch_commitlog::LogPosition;
use vouch_consensus::Role;

use super::{Nodes, majority_of};
use crate::peers::Lacking;

/// Between two looks at what the scrubber found.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A node that took something since it was damaged does so again after this long at the earliest: its disk may go on losing it.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

impl Nodes {
    /// Resolves when this node is to take from the others what it lacks. It is to be stopped, and started with this as
    /// [`crate::NodeConfig::lacking`].
    pub async fn lacks(&self) -> Lacking {
        tokio::select! {
            lacking = self.behind() => lacking,
            lacking = self.damaged() => lacking,
        }
    }

    /// It is further behind than the log goes back at the node that leads.
    async fn behind(&self) -> Lacking {
        let mut behind = self.behind.clone();
        match &self.speaking {
            // It says so once, and not when the shard ends.
            Some(speaking) if behind.wait_for(|is_behind| *is_behind).await.is_ok() => speaking.lacking(),
            _ => std::future::pending().await,
        }
    }

    /// Its scrubber found something that is damaged, and the others can do without this node for as long as it takes to get that.
    async fn damaged(&self) -> Lacking {
        let Some(speaking) = &self.speaking else { return std::future::pending().await };
        if self.repaired {
            sleep(AGAIN_AFTER).await;
        }
        loop {
            sleep(LOOK_EVERY).await;
            let (found, lost) = (self.scrub.found(), self.scrub.lost());
            if (!found.is_empty() || !lost.is_empty()) && self.can_be_spared().await {
                let (ranges, files) = (found.len(), lost.len());
                tracing::error!(ranges, files, "the disk of this node lost something; it takes that from the others");
                let size = self.segment_size;
                let starts = found
                    .iter()
                    .flat_map(|range| (range.from.0 / size..=range.to.0.max(1).div_ceil(size)).map(move |n| n * size));
                return Lacking { damaged: starts.map(LogPosition).collect(), ..speaking.lacking() };
            }
        }
    }

    /// Whether the others decide without this node, as far as it knows.
    async fn can_be_spared(&self) -> bool {
        let (Ok(group), Some(speaking)) = (self.shard.group().await, &self.speaking) else { return false };
        let leads_or_knows = match group.role {
            Role::Leads { .. } => true,
            Role::Follows { leader } => leader.is_some(),
        };
        let voters = &group.members.voters;
        let there = voters.iter().filter(|node| **node != group.node && speaking.nodes.is_up(**node)).count();
        leads_or_knows && !group.members.is_only(group.node) && there >= majority_of(voters.len())
    }
}
