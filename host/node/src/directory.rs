//! Topics as the send path needs them, and the numbers of groups: a cache in front of the executor, emptied when topics or
//! groups change.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use vouch_broker::{GroupId, ResourceName};

use crate::TopicInfo;

/// A topic with the turn of its queues.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) info: TopicInfo,
    turn: AtomicU32,
}

impl Route {
    /// The next queue: each in turn, whatever the client wished (protocol paper §4.4.3).
    pub(crate) fn next_queue(&self) -> u32 {
        self.turn.fetch_add(1, Ordering::Relaxed) % self.info.config.queues
    }
}

#[derive(Default)]
struct Known {
    routes: HashMap<ResourceName, Arc<Route>>,
    groups: HashMap<ResourceName, GroupId>,
    /// Counts how often it was emptied: an answer from before is not put in after.
    generation: u64,
}

/// The cache.
#[derive(Default)]
pub(crate) struct Directory(RwLock<Known>);

impl Directory {
    /// A topic that is known here.
    pub(crate) fn route(&self, name: &ResourceName) -> Option<Arc<Route>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).routes.get(name).cloned()
    }

    /// To be passed to [`Self::put`]: taken before the executor is asked.
    pub(crate) fn generation(&self) -> u64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).generation
    }

    /// Remembers an answer of the executor.
    pub(crate) fn put(&self, info: TopicInfo, generation: u64) -> Arc<Route> {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let name = info.name.clone();
        let route = Arc::new(Route { info, turn: AtomicU32::new(0) });
        if known.generation == generation {
            known.routes.insert(name, route.clone());
        }
        route
    }

    /// A group that is known here.
    pub(crate) fn group(&self, name: &ResourceName) -> Option<GroupId> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).groups.get(name).copied()
    }

    /// Remembers the number of a group. `generation`: as for [`Self::put`].
    pub(crate) fn put_group(&self, name: ResourceName, id: GroupId, generation: u64) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.generation == generation {
            known.groups.insert(name, id);
        }
    }

    /// Topics or groups changed.
    pub(crate) fn clear(&self) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.routes.clear();
        known.groups.clear();
        known.generation += 1;
    }
}
