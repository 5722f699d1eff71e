//! What a node is made of, and the faces made of that.

use std::ops::Range;
use std::sync::Arc;

use vouch_commitlog::LogReader;
use vouch_plugin::Engine;
use vouch_registry::ArtifactStore;
use vouch_storage::{DiskUse, Lookups, ScrubReport, ShardFolder};

use super::tasks::Tasks;
use crate::NodeConfig;
use crate::components::{BoundComponents, ComponentFiles, Components};
use crate::damage::LogDamage;
use crate::directory::Directory;
use crate::messages::Messages;
use crate::metrics::{Metrics, Views};
use crate::node::{Identity, Node};
use crate::retention::RetentionReport;
use crate::routes::Routes;
use crate::running::Running;
use crate::search::{MessagePlaces, Search};
use crate::served::ServedLog;
use crate::sessions::{self, Expiry, Sessions};
use crate::settings::Settings;
use crate::shortages::Shortages;
use crate::status::Status;
use crate::stopping::Stopping;
use crate::transactions::{Ends, Halves, Transactions};
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
    /// Makes the faces, and starts what runs beside them. Within a tokio runtime.
    pub(super) fn into_node(self) -> Node {
        let common = self.common();
        let transactions = self.transactions(&common);
        let node = Node {
            messages: self.messages(&common),
            settings: self.settings(&common),
            components: self.components(&common),
            search: self.search(&common, transactions.clone()),
            transactions,
            damage: self.damage(&common),
            status: self.status(&common),
            metrics: common.metrics.clone(),
            sessions: self.sessions.clone(),
            identity: self.identity,
            running: self.running(),
        };
        tokio::spawn(sessions::expire(self.expiry()));
        if let Some(upkeep) = self.served.upkeep() {
            Tasks { parts: &self, common: &common, upkeep }.start();
        }
        node
    }

    pub(super) fn writable(&self) -> Writable {
        Writable::new(self.signals.clone())
    }

    fn expiry(&self) -> Expiry {
        Expiry { sessions: self.sessions.clone(), shard: self.shard.clone(), stopping: self.stopping.clone() }
    }

    fn common(&self) -> Common {
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

    fn messages(&self, common: &Common) -> Arc<Messages> {
        Arc::new(Messages {
            shard: self.shard.clone(),
            log: self.log.clone(),
            routes: common.routes.clone(),
            sessions: self.sessions.clone(),
            clock: self.signals.clock.clone(),
            writable: self.writable(),
            shortages: common.shortages.clone(),
            metrics: common.metrics.clone(),
        })
    }

    fn transactions(&self, common: &Common) -> Arc<Transactions> {
        Arc::new(Transactions {
            shard: self.shard.clone(),
            log: self.log.clone(),
            served: self.served.clone(),
            routes: common.routes.clone(),
            halves: common.halves.clone(),
            ends: common.ends.clone(),
            clock: self.signals.clock.clone(),
            turns: common.turns.clone(),
            writable: self.writable(),
            metrics: common.metrics.clone(),
        })
    }

    fn settings(&self, common: &Common) -> Arc<Settings> {
        Arc::new(Settings {
            shard: self.shard.clone(),
            routes: common.routes.clone(),
            clock: self.signals.clock.clone(),
            writable: self.writable(),
        })
    }

    fn components(&self, common: &Common) -> Arc<Components> {
        Arc::new(Components {
            shard: self.shard.clone(),
            files: common.files.clone(),
            engine: self.engine.clone(),
            bound: common.bound.clone(),
            writable: self.writable(),
            shortages: common.shortages.clone(),
        })
    }

    fn search(&self, common: &Common, transactions: Arc<Transactions>) -> Arc<Search> {
        let (shard, log, lookups) = (self.shard.clone(), self.log.clone(), self.lookups.clone());
        Arc::new(Search {
            shard: shard.clone(),
            places: MessagePlaces { shard, log, lookups },
            transactions,
            halves: common.halves.clone(),
            turns: common.turns.clone(),
        })
    }

    fn damage(&self, common: &Common) -> Arc<LogDamage> {
        Arc::new(LogDamage {
            shard: self.shard.clone(),
            log: self.log.clone(),
            served: self.served.clone(),
            folder: self.folder.clone(),
            segment_size: self.segment_size,
            missing: self.missing.clone(),
            scrub: self.scrub.clone(),
            routes: common.routes.clone(),
            turns: common.turns.clone(),
        })
    }

    fn status(&self, common: &Common) -> Arc<Status> {
        Arc::new(Status {
            shard: self.shard.clone(),
            signals: self.signals.clone(),
            clock: self.signals.clock.clone(),
            writable: self.writable(),
            log: self.served.clone(),
            data_dir: self.config.data_dir.clone(),
            bytes_in_flight_max: self.config.bytes_in_flight,
            scrub: self.scrub.clone(),
            lookups: self.lookups.clone(),
            retention: common.retention.clone(),
            disk: common.disk.clone(),
            views: Views::new(self.shard.clone(), self.signals.clock.clone(), self.log.clone()),
            stopping: self.stopping.clone(),
        })
    }

    fn running(&self) -> Arc<Running> {
        Arc::new(Running {
            shard: self.shard.clone(),
            served: self.served.clone(),
            log: self.log.clone(),
            lookups: self.lookups.clone(),
            writable: self.writable(),
            stopping: self.stopping.clone(),
            folders: self.folders.clone(),
        })
    }
}
