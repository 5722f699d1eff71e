//! Topics as the send path needs them, and the numbers of groups: a cache in front of the shard, void when topics or
//! groups change.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use vouch_broker::{GroupId, ResourceName};
use vouch_shard::Signals;

use crate::TopicInfo;

/// A topic with the turn of its queues.
#[derive(Debug)]
pub(crate) struct TopicRoute {
    pub(crate) info: TopicInfo,
    turn: AtomicU32,
}

impl TopicRoute {
    /// The next queue: each in turn, whatever the client wished (protocol paper §4.4.3).
    pub(crate) fn next_queue(&self) -> u32 {
        self.turn.fetch_add(1, Ordering::Relaxed) % self.info.config.queues
    }
}

#[derive(Default)]
struct Known {
    routes: HashMap<ResourceName, Arc<TopicRoute>>,
    groups: HashMap<ResourceName, GroupId>,
    /// Of which directory of the shard this is known: of another one it is void.
    directory: u64,
}

/// The cache.
pub(crate) struct Directory {
    known: RwLock<Known>,
    signals: Arc<Signals>,
}

impl Directory {
    /// Of the shard with these signals.
    pub(crate) fn new(signals: Arc<Signals>) -> Self {
        Self { known: RwLock::default(), signals }
    }

    /// What is known of the directory that there is now.
    fn known<T>(&self, look: impl FnOnce(&Known) -> Option<T>) -> Option<T> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.directory == self.generation() { look(&known) } else { None }
    }

    /// The same, to put something in that was learnt of this directory; `None` if there is another one since.
    fn known_of(&self, directory: u64) -> Option<RwLockWriteGuard<'_, Known>> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let now = self.generation();
        if known.directory != now {
            *known = Known { directory: now, ..Known::default() };
        }
        (directory == now).then_some(known)
    }

    /// A topic that is known here.
    pub(crate) fn route(&self, name: &ResourceName) -> Option<Arc<TopicRoute>> {
        self.known(|known| known.routes.get(name).cloned())
    }

    /// To be passed to [`Self::put`]: taken before the shard is asked.
    pub(crate) fn generation(&self) -> u64 {
        self.signals.directory()
    }

    /// Remembers an answer of the shard.
    pub(crate) fn put(&self, info: TopicInfo, generation: u64) -> Arc<TopicRoute> {
        let name = info.name.clone();
        let route = Arc::new(TopicRoute { info, turn: AtomicU32::new(0) });
        if let Some(mut known) = self.known_of(generation) {
            known.routes.insert(name, route.clone());
        }
        route
    }

    /// A group that is known here.
    pub(crate) fn group(&self, name: &ResourceName) -> Option<GroupId> {
        self.known(|known| known.groups.get(name).copied())
    }

    /// Remembers the number of a group. `generation`: as for [`Self::put`].
    pub(crate) fn put_group(&self, name: ResourceName, id: GroupId, generation: u64) {
        if let Some(mut known) = self.known_of(generation) {
            known.groups.insert(name, id);
        }
    }
}
