//! What a node is made of.

use std::ops::Range;
use std::sync::Arc;

use vouch_commitlog::LogReader;
use vouch_plugin::Engine;
use vouch_registry::ArtifactStore;
use vouch_storage::{DiskUse, Lookups, ScrubReport, ShardFolder};

use crate::NodeConfig;
use crate::components::{BoundComponents, ComponentFiles};
use crate::directory::Directory;
use crate::metrics::Metrics;
use crate::node::Identity;
use crate::retention::RetentionReport;
use crate::routes::Routes;
use crate::served::ServedLog;
use crate::sessions::{Expiry, Sessions};
use crate::shortages::Shortages;
use crate::stopping::Stopping;
use crate::transactions::{Ends, Halves};
use crate::turns::SearchTurns;
use crate::watch::HeldFolders;
use crate::writable::Writable;
use vouch_shard::{Shard, Signals};

/// What a node is made of, when its shard runs.
pub(super) struct Parts {
    pub(super) config: NodeConfig,
    pub(super) identity: Identity,
    pub(super) shard: Arc<Shard>,
    pub(super) signals: Arc<Signals>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) served: Arc<ServedLog>,
    pub(super) log: LogReader,
    pub(super) lookups: Arc<Lookups>,
    pub(super) scrub: Arc<ScrubReport>,
    pub(super) folder: ShardFolder,
    pub(super) segment_size: u64,
    /// What the log should still hold and lies before its first file.
    pub(super) missing: Option<Range<u64>>,
    pub(super) store: ArtifactStore,
    pub(super) engine: Engine,
    pub(super) stopping: Arc<Stopping>,
    pub(super) folders: Arc<HeldFolders>,
}

/// What several faces, or tasks, have in common.
pub(super) struct Common {
    pub(super) routes: Arc<Routes>,
    pub(super) halves: Arc<Halves>,
    pub(super) ends: Arc<Ends>,
    pub(super) bound: Arc<BoundComponents>,
    pub(super) files: ComponentFiles,
    pub(super) turns: SearchTurns,
    pub(super) disk: Arc<DiskUse>,
    pub(super) shortages: Arc<Shortages>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) retention: Arc<RetentionReport>,
}

impl Parts {
    pub(super) fn writable(&self) -> Writable {
        Writable::new(self.signals.clone())
    }

    pub(super) fn expiry(&self) -> Expiry {
        Expiry { sessions: self.sessions.clone(), shard: self.shard.clone(), stopping: self.stopping.clone() }
    }

    pub(super) fn common(&self) -> Common {
        let (shard, log) = (self.shard.clone(), self.log.clone());
        let disk = Arc::new(DiskUse::new(self.config.disk_high_water));
        let metrics = Arc::<Metrics>::default();
        let shortages = Arc::new(Shortages::new(disk.clone(), metrics.clone()));
        let routes = Arc::new(Routes {
            shard: shard.clone(),
            directory: Arc::new(Directory::new(self.signals.clone())),
            log: self.served.clone(),
            makes_topics: self.config.auto_create_topics,
        });
        let files = ComponentFiles { shard: shard.clone(), log: log.clone(), store: self.store.clone() };
        Common {
            halves: Arc::new(Halves { shard: shard.clone(), log, routes: routes.clone() }),
            routes,
            ends: Arc::new(Ends { shard: shard.clone(), shortages: shortages.clone(), metrics: metrics.clone() }),
            bound: Arc::new(BoundComponents::new(shard, files.clone(), self.engine.clone())),
            files,
            turns: SearchTurns::new(),
            disk,
            shortages,
            metrics,
            retention: Arc::default(),
        }
    }
}
