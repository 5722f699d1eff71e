//! The faces of a node, made of its parts.

use std::sync::Arc;

use super::parts::{CommonParts, NodeParts};
use super::tasks::NodeTasks;
use crate::cluster::{Doubting, LeaderWatch, Nodes};
use crate::components::Components;
use crate::damage::LogDamage;
use crate::forwarding::ForwardedCalls;
use crate::messages::Messages;
use crate::metrics::Views;
use crate::node::Node;
use crate::peers::Speaking;
use crate::running::RunningNode;
use crate::search::{MessagePlaces, Search};
use crate::secrets::{Secrets, keep_keys};
use crate::sessions;
use crate::settings::Settings;
use crate::sharing::{self, SessionCalls, SessionReporter};
use crate::status::Status;
use crate::transactions::Transactions;
use vouch_storage::OnDamage;

impl NodeParts {
    /// Makes the faces, and starts what runs beside them. Within a tokio runtime, whose workers run it.
    pub(super) fn into_node(self) -> Node {
        let common = self.common();
        let transactions = self.transactions(&common);
        let node = Node {
            messages: self.messages(&common),
            cluster: self.cluster(&common),
            settings: self.settings(&common),
            components: self.components(&common),
            secrets: self.secrets(&common),
            search: self.search(&common, transactions.clone()),
            transactions,
            damage: self.damage(&common),
            status: self.status(&common),
            metrics: common.metrics.clone(),
            sessions: self.sessions.clone(),
            identity: self.identity,
            running: self.running(&common),
        };
        if let Some(speaking) = &self.speaking {
            speaking.serve_clients(Arc::new(self.forwarded(&node, &common)));
            self.share_sessions(speaking, &common);
            let (data_dir, stopping) = (self.config.data_dir.clone(), self.stopping.clone());
            tokio::spawn(Doubting::new(node.cluster.clone(), data_dir, stopping).run());
        }
        tokio::spawn(sessions::expire(self.expiry()));
        tokio::spawn(keep_keys(common.key_exchange.clone(), self.stopping.clone()));
        if let Some(upkeep) = self.served.upkeep() {
            NodeTasks { parts: &self, common: &common, upkeep }.start();
        }
        node
    }

    fn messages(&self, common: &CommonParts) -> Arc<Messages> {
        Arc::new(Messages {
            shard: self.shard.clone(),
            leaders: common.leaders.clone(),
            log: self.log.clone(),
            routes: common.routes.clone(),
            sessions: self.sessions.clone(),
            clock: self.signals.clock.clone(),
            writable: self.writable(),
            shortages: common.shortages.clone(),
            metrics: common.metrics.clone(),
        })
    }

    fn transactions(&self, common: &CommonParts) -> Arc<Transactions> {
        Arc::new(Transactions {
            shard: self.shard.clone(),
            leaders: common.leaders.clone(),
            log: self.log.clone(),
            served: self.served.clone(),
            routes: common.routes.clone(),
            halves: common.halves.clone(),
            ends: common.ends.clone(),
            sample: common.sample.clone(),
            clock: self.signals.clock.clone(),
            turns: common.turns.clone(),
            writable: self.writable(),
            metrics: common.metrics.clone(),
        })
    }

    fn settings(&self, common: &CommonParts) -> Arc<Settings> {
        Arc::new(Settings {
            shard: self.shard.clone(),
            routes: common.routes.clone(),
            clock: self.signals.clock.clone(),
            writable: self.writable(),
        })
    }

    /// Tells the leader of the sessions here, and hears of those of others.
    fn share_sessions(&self, speaking: &Speaking, common: &CommonParts) {
        let (sessions, nodes) = (self.sessions.clone(), speaking.nodes.clone());
        let runtime = tokio::runtime::Handle::current();
        let room = common.others_room.clone();
        speaking.serve_sessions(Arc::new(SessionCalls {
            sessions: sessions.clone(),
            nodes: nodes.clone(),
            room: room.clone(),
            keys: common.key_exchange.clone(),
            handed_out: common.handed_out.clone(),
            runtime,
        }));
        let (leader, belongs) = (self.signals.leader(), self.signals.belongs());
        let stopping = self.stopping.clone();
        let (disk, shard) = (common.disk.clone(), self.shard.clone());
        let (leaders, handed_out) = (common.leaders.clone(), common.handed_out.clone());
        let keys = common.key_exchange.clone();
        tokio::spawn(sharing::run(SessionReporter {
            sessions,
            nodes,
            leader,
            belongs,
            stopping,
            disk,
            room,
            keys,
            shard,
            leaders,
            handed_out,
        }));
    }

    /// What does for other nodes what their clients ask for.
    fn forwarded(&self, node: &Node, common: &CommonParts) -> ForwardedCalls {
        ForwardedCalls {
            shard: self.shard.clone(),
            messages: node.messages.clone(),
            transactions: node.transactions.clone(),
            secrets: node.secrets.clone(),
            routes: common.routes.clone(),
            sessions: self.sessions.clone(),
            http: common.http.clone(),
            runtime: tokio::runtime::Handle::current(),
            handed_out: common.handed_out.clone(),
            answers: Arc::default(),
        }
    }

    fn cluster(&self, common: &CommonParts) -> Arc<Nodes> {
        let leader = Arc::<LeaderWatch>::default();
        if self.speaking.is_some() {
            tokio::spawn(leader.clone().watch(self.shard.clone()));
        }
        Arc::new(Nodes {
            behind: self.signals.behind(),
            met_damage: self.signals.met_damage(),
            mends_from: self.mends_from,
            snapshots: self.signals.snapshots.clone(),
            scrub: (self.config.on_damage == OnDamage::Refuse).then(|| self.scrub.clone()),
            leader,
            shard: self.shard.clone(),
            leaders: common.leaders.clone(),
            http: common.http.clone(),
            speaking: self.speaking.clone(),
            log: self.log.clone(),
            belongs: self.signals.belongs(),
            clock: self.signals.clock.clone(),
            cluster_id: self.identity.cluster_id,
            segment_size: self.segment_size,
            program: self.config.program(),
            writable: self.writable(),
        })
    }

    fn components(&self, common: &CommonParts) -> Arc<Components> {
        Arc::new(Components {
            shard: self.shard.clone(),
            files: common.files.clone(),
            engine: self.engine.clone(),
            bound: common.bound.clone(),
            halves: common.halves.clone(),
            sample: common.sample.clone(),
            clock: self.signals.clock.clone(),
            writable: self.writable(),
            shortages: common.shortages.clone(),
            effects: common.effects.clone(),
            consumers: common.consumers.clone(),
        })
    }

    fn secrets(&self, common: &CommonParts) -> Arc<Secrets> {
        Arc::new(Secrets {
            shard: self.shard.clone(),
            leaders: common.leaders.clone(),
            here: common.sealed.clone(),
            exchange: common.key_exchange.clone(),
            writable: self.writable(),
        })
    }

    fn search(&self, common: &CommonParts, transactions: Arc<Transactions>) -> Arc<Search> {
        let (shard, log, lookups) = (self.shard.clone(), self.log.clone(), self.lookups.clone());
        Arc::new(Search {
            shard: shard.clone(),
            places: MessagePlaces { shard, log, lookups },
            transactions,
            halves: common.halves.clone(),
            turns: common.turns.clone(),
        })
    }

    fn damage(&self, common: &CommonParts) -> Arc<LogDamage> {
        Arc::new(LogDamage {
            shard: self.shard.clone(),
            log: self.log.clone(),
            served: self.served.clone(),
            folder: self.folder.clone(),
            segment_size: self.segment_size,
            missing: self.missing.clone(),
            scrub: self.scrub.clone(),
            repaired: self.repaired.clone(),
            routes: common.routes.clone(),
            turns: common.turns.clone(),
        })
    }

    fn status(&self, common: &CommonParts) -> Arc<Status> {
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

    /// What a stop ends, in its order.
    fn running(&self, common: &CommonParts) -> Arc<RunningNode> {
        Arc::new(RunningNode {
            http: common.http.clone(),
            shard: self.shard.clone(),
            served: self.served.clone(),
            log: self.log.clone(),
            lookups: self.lookups.clone(),
            speaking: self.speaking.clone(),
            writable: self.writable(),
            stopping: self.stopping.clone(),
            consumers: common.consumers_end.clone(),
            folders: self.folders.clone(),
        })
    }
}
