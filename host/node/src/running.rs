//! What runs for as long as the node does, and how it ends.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use vouch_commitlog::LogReader;
use vouch_storage::Lookups;

use crate::consumers::ConsumersEnd;
use crate::forwarding::HttpApi;
use crate::peers::Speaking;
use crate::served::ServedLog;
use crate::stopping::Stopping;
use crate::watch::HeldFolders;
use crate::writable::Writable;
use vouch_shard::Shard;

/// Consumers have so long to give back what they hold.
const CONSUMERS_END_WITHIN: Duration = Duration::from_secs(2);

/// What runs for as long as the node does.
#[derive(Clone)]
pub(crate) struct RunningNode {
    pub(crate) shard: Arc<Shard>,
    /// Who looks after the log ends around the shard.
    pub(crate) served: Arc<ServedLog>,
    pub(crate) log: LogReader,
    pub(crate) lookups: Arc<Lookups>,
    /// The other nodes are spoken with until the shard has ended.
    pub(crate) speaking: Option<Arc<Speaking>>,
    /// Answers no more requests of other nodes, and lets go of the API.
    pub(crate) http: Arc<HttpApi>,
    /// A log that closed well is durable to its end.
    pub(crate) writable: Writable,
    /// Tells tasks, which end by themselves.
    pub(crate) stopping: Arc<Stopping>,
    /// What bindings hold that consume is given back while there is a shard.
    pub(crate) consumers: Arc<ConsumersEnd>,
    /// Let go last: until then the folder is written to.
    pub(crate) folders: Arc<HeldFolders>,
}

impl RunningNode {
    /// Ends it all, and lets go of the folder. Resolves when another process may have it; who calls meanwhile waits for
    /// the same.
    pub(crate) async fn stop(&self) {
        self.consumers.end_within(CONSUMERS_END_WITHIN).await;
        self.stopping.cancel();
        if let Some(speaking) = &self.speaking {
            // Other nodes ask the next one that leads: what comes from now on finds a shard that ends.
            speaking.serve_no_more();
        }
        self.http.end();
        let running = self.clone();
        let stop = move || {
            // Held to the end: whoever calls meanwhile must not let go of a folder that is still written to.
            let mut folders = running.folders.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(upkeep) = running.served.upkeep() {
                upkeep.scrub.stop();
            }
            running.lookups.stop();
            running.shard.stop();
            if let Some(upkeep) = running.served.upkeep() {
                // All of a log that closed without an error is durable.
                upkeep.snapshotter.stop(running.writable.closed().is_none().then(|| running.log.end()));
            }
            // Not after a panic above: then the log may still be open.
            drop(folders.take());
        };
        if let Err(error) = tokio::task::spawn_blocking(stop).await {
            tracing::error!(%error, "stopping the shard failed");
        }
        if let Some(speaking) = &self.speaking {
            speaking.stop().await;
        }
    }
}
