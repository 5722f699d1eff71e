//! When a member that serves is to take from others what it lacks.

use std::collections::BTreeSet;
use std::future::pending;
use std::time::Duration;

use vouch_cluster::{GroupMembers, NodeId};
use vouch_commitlog::LogPosition;

use super::{ClusterView, Nodes};
use crate::peers::Lacking;

/// Between two looks at what the scrubber found.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Nodes {
    /// Resolves when this node is further behind than the log goes back at the one that leads, or when segments of its log are found to
    /// be damaged which others have. It is to be stopped, and started with this as [`crate::NodeConfig::lacking`].
    pub async fn lacks(&self) -> Lacking {
        tokio::select! {
            behind = self.is_behind() => behind,
            damaged = self.is_damaged() => damaged,
        }
    }

    async fn is_behind(&self) -> Lacking {
        let mut behind = self.behind.clone();
        match &self.speaking {
            // It says so once, and not when the shard ends.
            Some(speaking) if behind.wait_for(|is_behind| *is_behind).await.is_ok() => speaking.lacking(),
            _ => pending().await,
        }
    }

    /// What is damaged here lies with the others as well; while they are too few to do without this node it serves on, as it does
    /// where it is alone. What is read of the damage meanwhile is refused, and told.
    async fn is_damaged(&self) -> Lacking {
        let Some((speaking, scrub)) = self.speaking.as_ref().zip(self.scrub.as_ref()) else { return pending().await };
        let mut told = BTreeSet::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let damaged: BTreeSet<LogPosition> =
                scrub.found().iter().map(|range| LogPosition(range.from.0 - range.offset)).collect();
            if damaged.is_empty() {
                continue;
            }
            let view = self.status().await;
            let can_spare = view.is_ok_and(|view| can_spare(&view));
            if can_spare {
                tracing::error!(
                    segments = damaged.len(),
                    "the log of this node is damaged; it takes what is lost from the others, and serves again"
                );
                return Lacking { damaged: damaged.into_iter().collect(), ..speaking.lacking() };
            }
            if told != damaged {
                tracing::warn!(
                    segments = damaged.len(),
                    "the log of this node is damaged, and too few others are there that it could stop serving to take what is lost from \
                     them: start those that are down"
                );
                told = damaged;
            }
        }
    }
}

/// Whether those who vote decide without this node: a majority of them is connected to it.
fn can_spare(view: &ClusterView) -> bool {
    let is_there = |node: &NodeId| *node != view.group.node && view.links.get(node).is_some_and(|link| link.is_up());
    let GroupMembers { voters, outgoing, .. } = &view.group.members;
    let decide = |voters: &BTreeSet<NodeId>| voters.iter().filter(|node| is_there(node)).count() > voters.len() / 2;
    decide(voters) && (outgoing.is_empty() || decide(outgoing))
}
