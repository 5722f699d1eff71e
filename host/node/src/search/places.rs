//! Where the messages of a topic lie, and what they say.

use std::ops::Range;
use std::sync::Arc;

use vouch_broker::{NotDone, QueueOffset, RecordPosition, State, StoredMessage, TopicId};
use vouch_commitlog::LogReader;
use vouch_storage::Lookups;

use super::coverage::TopicExtent;
use crate::turns::{STEP, blocking};
use vouch_shard::Shard;

/// How often a search begins again without a file of the lookup index that was found damaged.
pub(super) const ATTEMPTS_MAX: usize = 100;

/// Position of a message, and its queue and offset; none for a half message that is still open.
pub(super) type FoundPlace = (RecordPosition, Option<(u32, QueueOffset)>);

/// What a search goes through: the state, the log, the lookup index.
pub(crate) struct MessagePlaces {
    pub(crate) shard: Arc<Shard>,
    pub(crate) log: LogReader,
    /// Which messages of a part have a term, and when they were stored.
    pub(crate) lookups: Arc<Lookups>,
}

impl MessagePlaces {
    /// A topic as it is now; empty if it was deleted meanwhile.
    pub(super) async fn extent(&self, topic: TopicId) -> Result<TopicExtent, NotDone> {
        let look = move |state: &State| {
            let found = state.topics().get(topic);
            let offsets = |queue| found.map(|topic| topic.start(queue)..topic.end(queue));
            let queues = (0..found.map_or(0, |topic| topic.queue_count())).filter_map(offsets).collect();
            TopicExtent { topic, queues }
        };
        self.shard.read(look).await
    }

    /// Where the messages of some offsets lie; those that are no longer there are left out.
    pub(super) async fn places(
        &self,
        topic: TopicId,
        queue: u32,
        offsets: Range<QueueOffset>,
    ) -> Result<Vec<FoundPlace>, NotDone> {
        debug_assert!(offsets.end.since(offsets.start) <= STEP as u64);
        let look = move |state: &State| {
            let Some(topic) = state.topics().get(topic) else { return Vec::new() };
            let place = |offset| topic.entry(queue, offset).map(|entry| (entry.position, Some((queue, offset))));
            QueueOffset::each(offsets).filter_map(place).collect()
        };
        self.shard.read(look).await
    }

    /// Reads the messages at some places and keeps those that are wanted. What cannot be read is left out: the scrubber
    /// and whoever receives it tell of it.
    pub(super) async fn read(
        &self,
        places: Vec<FoundPlace>,
        wanted: impl Fn(&StoredMessage) -> bool + Send + 'static,
    ) -> Result<Vec<(FoundPlace, StoredMessage)>, NotDone> {
        let log = self.log.clone();
        blocking(move || {
            let read = |place: FoundPlace| {
                let (_, message) = vouch_storage::message(&log, place.0).ok()?;
                wanted(&message).then_some((place, message))
            };
            places.into_iter().filter_map(read).collect()
        })
        .await
    }
}
