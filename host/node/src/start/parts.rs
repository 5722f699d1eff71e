//! What a node is made of.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use vouch_cluster::NodeId;
use vouch_commitlog::{LogPosition, LogReader};
use vouch_plugin::Engine;
use vouch_registry::ArtifactStore;
use vouch_storage::{DiskUse, Lookups, ScrubReport, ShardFolder};

use crate::NodeConfig;
use crate::components::{BoundComponents, ComponentFiles};
use crate::consumers::{ConsumerStandings, ConsumersEnd};
use crate::directory::Directory;
use crate::effects::Effects;
use crate::forwarding::{HandedOutThere, HttpApi, Leaders};
use crate::metrics::Metrics;
use crate::node::NodeIdentity;
use crate::others_room::OthersRoom;
use crate::peers::Speaking;
use crate::retention::RetentionReport;
use crate::routes::Routes;
use crate::secrets::{KeyExchange, NodeKeys, SealedSecretsHere};
use crate::served::ServedLog;
use crate::sessions::{Expiry, Sessions};
use crate::shortages::Shortages;
use crate::stopping::Stopping;
use crate::transactions::{EndSample, Ends, Halves};
use crate::turns::SearchTurns;
use crate::watch::HeldFolders;
use crate::writable::Writable;
use vouch_shard::{Shard, Signals};

/// What a node is made of, when its shard runs.
pub(super) struct NodeParts {
    pub(super) config: NodeConfig,
    pub(super) identity: NodeIdentity,
    pub(super) shard: Arc<Shard>,
    /// The other nodes, where it has any.
    pub(super) speaking: Option<Arc<Speaking>>,
    /// What the executor shares with tasks.
    pub(super) signals: Arc<Signals>,
    pub(super) sessions: Arc<Sessions>,
    /// The log, with what looks after it where it is written.
    pub(super) served: Arc<ServedLog>,
    /// Reads the log, whoever writes it.
    pub(super) log: LogReader,
    pub(super) lookups: Arc<Lookups>,
    /// What the scrubber found.
    pub(super) scrub: Arc<ScrubReport>,
    pub(super) folder: ShardFolder,
    pub(super) segment_size: u64,
    /// What the log should still hold and lies before its first file.
    pub(super) missing: Option<Range<LogPosition>>,
    /// Where segments begin that were damaged, and that this start took from other nodes.
    pub(super) repaired: Vec<LogPosition>,
    /// Before that what is damaged is not asked for again; `None`: at any time.
    pub(super) mends_from: Option<Instant>,
    /// The files of components.
    pub(super) store: ArtifactStore,
    pub(super) engine: Engine,
    /// Tells tasks that the node stops.
    pub(super) stopping: Arc<Stopping>,
    /// The folder, until the node is stopped.
    pub(super) folders: Arc<HeldFolders>,
}

/// What several faces, or tasks, have in common.
pub(super) struct CommonParts {
    /// Does what only a leader does, wherever that is.
    pub(super) leaders: Arc<Leaders>,
    /// What went to consumers of other nodes a moment ago.
    pub(super) handed_out: Arc<HandedOutThere>,
    /// What answers requests over HTTP.
    pub(super) http: Arc<HttpApi>,
    /// Topics and groups by their names.
    pub(super) routes: Arc<Routes>,
    /// Finds half messages.
    pub(super) halves: Arc<Halves>,
    /// Ends transactions.
    pub(super) ends: Arc<Ends>,
    /// Some of those that producers sent.
    pub(super) sample: Arc<EndSample>,
    /// Bindings that are ready to be asked.
    pub(super) bound: Arc<BoundComponents>,
    /// Opens what bindings name.
    pub(super) sealed: Arc<SealedSecretsHere>,
    /// Gets and gives the keys for it.
    pub(super) key_exchange: Arc<KeyExchange>,
    /// Files of components.
    pub(super) files: ComponentFiles,
    /// Turns to search.
    pub(super) turns: SearchTurns,
    /// How full the disk is.
    pub(super) disk: Arc<DiskUse>,
    /// How full the disks of other nodes are.
    pub(super) others_room: Arc<OthersRoom>,
    /// What is refused for want of space.
    pub(super) shortages: Arc<Shortages>,
    pub(super) metrics: Arc<Metrics>,
    /// What components stage.
    pub(super) effects: Arc<Effects>,
    /// How bindings fare that consume.
    pub(super) consumers: Arc<ConsumerStandings>,
    /// How they end.
    pub(super) consumers_end: Arc<ConsumersEnd>,
    /// What retention did.
    pub(super) retention: Arc<RetentionReport>,
}

impl NodeParts {
    /// Says whether the log takes writes.
    pub(super) fn writable(&self) -> Writable {
        Writable::new(self.signals.clone())
    }

    pub(super) fn expiry(&self) -> Expiry {
        Expiry { sessions: self.sessions.clone(), shard: self.shard.clone(), stopping: self.stopping.clone() }
    }

    /// What several faces, or tasks, have in common, each made once.
    pub(super) fn common(&self) -> CommonParts {
        let (shard, log) = (self.shard.clone(), self.log.clone());
        let disk = Arc::new(DiskUse::new(self.config.disk_high_water));
        let metrics = Arc::<Metrics>::default();
        let others_room = Arc::new(OthersRoom::new(self.signals.belongs()));
        let shortages = Arc::new(Shortages::new(disk.clone(), others_room.clone(), metrics.clone()));
        // Who only reads a log says that the first node leads, and takes it all upon itself.
        let me = self.served.upkeep().map_or(NodeId::FIRST, |_| self.identity.node);
        let leaders = Arc::new(Leaders::new(me, self.signals.leader(), self.speaking.clone()));
        let routes = Arc::new(Routes {
            shard: shard.clone(),
            leaders: leaders.clone(),
            directory: Arc::new(Directory::new(self.signals.clone())),
            log: self.served.clone(),
            makes_topics: self.config.auto_create_topics,
        });
        let keys = Arc::new(NodeKeys::of(self.config.secret_keys()));
        let sealed = Arc::new(SealedSecretsHere {
            shard: shard.clone(),
            keys: keys.clone(),
            cluster_id: self.identity.cluster_id,
        });
        let secured = self.speaking.as_ref().map(|speaking| speaking.is_secured());
        let (belongs, named) = (self.signals.belongs(), self.signals.secret_keys());
        let key_exchange = Arc::new(KeyExchange::new(keys, leaders.clone(), belongs, named, secured));
        let effects =
            Arc::new(Effects::new(shard.clone(), self.signals.clock.clone(), routes.clone(), self.identity.cluster_id));
        let files = ComponentFiles { shard: shard.clone(), log: log.clone(), store: self.store.clone() };
        CommonParts {
            leaders,
            http: Arc::default(),
            handed_out: Arc::default(),
            halves: Arc::new(Halves { shard: shard.clone(), log, routes: routes.clone() }),
            routes,
            ends: Arc::new(Ends { shard: shard.clone(), shortages: shortages.clone(), metrics: metrics.clone() }),
            sample: Arc::default(),
            bound: Arc::new(BoundComponents::new(shard, files.clone(), self.engine.clone(), sealed.clone())),
            sealed,
            key_exchange,
            files,
            turns: SearchTurns::new(),
            disk,
            others_room,
            shortages,
            metrics,
            effects,
            consumers: Arc::default(),
            consumers_end: Arc::default(),
            retention: Arc::default(),
        }
    }
}
