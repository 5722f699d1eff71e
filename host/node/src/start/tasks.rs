//! What runs beside the faces of a node that writes.

use std::sync::Arc;

use super::parts::{CommonParts, NodeParts};
use crate::checks::{self, Asker};
use crate::consumers::{self, Consumers};
use crate::retention::{self, Retention};
use crate::served::Upkeep;
use crate::watch::{self, FolderWatch};

/// What the tasks are made of.
pub(super) struct NodeTasks<'a> {
    pub(super) parts: &'a NodeParts,
    pub(super) common: &'a CommonParts,
    pub(super) upkeep: &'a Arc<Upkeep>,
}

impl NodeTasks<'_> {
    /// Starts them. They run until the node stops.
    pub(super) fn start(&self) {
        let asker = self.asker();
        tokio::spawn(checks::run_comparisons(asker.clone()));
        tokio::spawn(checks::run(asker));
        self.common.consumers_end.begins();
        tokio::spawn(consumers::run(self.consumers()));
        tokio::spawn(retention::run(self.retention()));
        tokio::spawn(watch::run(self.watch()));
    }

    /// What asks about open transactions.
    fn asker(&self) -> Arc<Asker> {
        let (parts, common) = (self.parts, self.common);
        Arc::new(Asker {
            shard: parts.shard.clone(),
            clock: parts.signals.clock.clone(),
            sessions: parts.sessions.clone(),
            bound: common.bound.clone(),
            halves: common.halves.clone(),
            ends: common.ends.clone(),
            sample: common.sample.clone(),
            routes: common.routes.clone(),
            metrics: common.metrics.clone(),
            outages: Arc::default(),
            effects: common.effects.clone(),
            changed: parts.signals.checks_changed.clone(),
            stopping: parts.stopping.clone(),
        })
    }

    /// What delivers to components.
    fn consumers(&self) -> Arc<Consumers> {
        let (parts, common) = (self.parts, self.common);
        Arc::new(Consumers {
            shard: parts.shard.clone(),
            clock: parts.signals.clock.clone(),
            log: parts.log.clone(),
            bound: common.bound.clone(),
            effects: common.effects.clone(),
            sessions: parts.sessions.clone(),
            metrics: common.metrics.clone(),
            standings: common.consumers.clone(),
            changed: parts.signals.bindings_changed.clone(),
            leader: parts.signals.leader(),
            end: common.consumers_end.clone(),
        })
    }

    /// What lets messages and segments go.
    fn retention(&self) -> Retention {
        let (parts, common) = (self.parts, self.common);
        Retention {
            shard: parts.shard.clone(),
            log: parts.log.clone(),
            upkeep: self.upkeep.clone(),
            clock: parts.signals.clock.clone(),
            sessions: parts.sessions.clone(),
            writable: parts.writable(),
            snapshots: parts.signals.snapshots.clone(),
            report: common.retention.clone(),
            disk: common.disk.clone(),
            segment_size: parts.segment_size,
            data_dir: parts.config.data_dir.clone(),
            disk_limit: parts.config.disk_limit,
            every: parts.config.retention_every,
            stopping: parts.stopping.clone(),
        }
    }

    /// What notices that the folder is gone.
    fn watch(&self) -> FolderWatch {
        let parts = self.parts;
        FolderWatch {
            shard: parts.shard.clone(),
            log: parts.log.clone(),
            upkeep: self.upkeep.clone(),
            lookups: parts.lookups.clone(),
            folders: parts.folders.clone(),
            folder: parts.folder.clone(),
            segment_size: parts.segment_size,
            stopping: parts.stopping.clone(),
        }
    }
}
