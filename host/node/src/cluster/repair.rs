//! When a member that serves is to take from others what it lacks.

use std::collections::BTreeSet;
use std::future::pending;
use std::time::{Duration, Instant};

use vouch_commitlog::LogPosition;
use vouch_consensus::Role;

use super::Nodes;
use crate::peers::{Lacking, Speaking};

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

    /// What is damaged here lies with the others as well. It serves on while they are too few to do without this node, and where it is
    /// alone: what is read of the damage meanwhile is refused, and told.
    async fn is_damaged(&self) -> Lacking {
        let Some((speaking, scrub)) = self.speaking.as_ref().zip(self.scrub.as_ref()) else { return pending().await };
        let mut told = String::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let damaged: BTreeSet<LogPosition> =
                scrub.found().iter().map(|range| LogPosition(range.from.0 - range.offset)).collect();
            if damaged.is_empty() {
                continue;
            }
            match self.may_be_spared(speaking).await {
                Ok(()) => {
                    tracing::error!(
                        segments = damaged.len(),
                        "the log of this node is damaged; it takes what is lost from the others, and serves again"
                    );
                    return Lacking { damaged: damaged.into_iter().collect(), ..speaking.lacking() };
                }
                Err(why) if why != told => {
                    tracing::warn!(
                        segments = damaged.len(),
                        why,
                        "the log of this node is damaged, and it serves on until the others can do without it, to take what is lost from \
                         them"
                    );
                    told = why;
                }
                Err(_) => {}
            }
        }
    }

    /// Whether the others can do without this node for a while, as whoever leads knows. Who leads itself hands over first, to one that
    /// does not ask for the same.
    async fn may_be_spared(&self, speaking: &Speaking) -> Result<(), String> {
        if self.snapshots.comparison().doubt().is_some() {
            return Err("it is in doubt whether this node knows what the others know, and what it had may decide that"
                .to_owned());
        }
        let group = self.shard.group().await.map_err(|why| why.to_string())?;
        match group.role {
            Role::Leads { .. } => {
                speaking.spared.may_hand_over(&group, Instant::now())?;
                let to = self.successor().await.map_err(|why| why.to_string())?;
                self.shard.hand_over(to).await.map_err(|why| why.to_string())?;
                Err(format!("it leads, and hands over to node {to} first"))
            }
            Role::Follows { leader: Some(leader) } => speaking.may_be_spared(leader).await,
            Role::Follows { leader: None } => Err("nobody leads".to_owned()),
        }
    }
}
