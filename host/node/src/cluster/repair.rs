//! When a member that serves is to take from others what it lacks.

use super::Nodes;
use crate::peers::Lacking;

impl Nodes {
    /// Resolves when this node is further behind than the log goes back at the one that leads. It is to be stopped, and started with
    /// this as [`crate::NodeConfig::lacking`].
    pub async fn lacks(&self) -> Lacking {
        let mut behind = self.behind.clone();
        match &self.speaking {
            // It says so once, and not when the shard ends.
            Some(speaking) if behind.wait_for(|is_behind| *is_behind).await.is_ok() => speaking.lacking(),
            _ => std::future::pending().await,
        }
    }
}
