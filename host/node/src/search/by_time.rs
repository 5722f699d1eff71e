//! Messages from a time on, in the order of their queues, merged by time.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use vouch_broker::{NotDone, QueueOffset, State, StoredMessage, TopicId};

use super::coverage::{SearchTrouble, Stretch, TopicExtent, WalkBudget, stretches};
use super::places::{ATTEMPTS_MAX, FoundPlace, MessagePlaces};
use crate::turns::{STEP, blocking};
use vouch_storage::{LookupFile, SAMPLE_EVERY};

/// Messages that one page looks at: committed halves that are older than wanted may lie between younger messages. A page
/// that has seen so many ends, and the next one goes on.
const LOOK_MAX: usize = 100_000;

/// One page.
pub(super) struct SincePage {
    pub(super) found: Vec<(FoundPlace, StoredMessage)>,
    /// The offset of each queue at which the next page begins; `None` if there is nothing more.
    pub(super) next: Option<Vec<QueueOffset>>,
}

/// A queue in the merge.
struct QueueHead {
    queue: u32,
    /// Read, and not given yet.
    read: VecDeque<(FoundPlace, StoredMessage)>,
    /// Offsets that are to be read.
    rest: Range<QueueOffset>,
}

impl QueueHead {
    /// The first offset that was not given.
    fn next(&self) -> QueueOffset {
        let front = self.read.front().and_then(|((_, place), _)| *place);
        front.map_or(self.rest.start, |(_, offset)| offset)
    }
}

impl MessagePlaces {
    /// Messages stored at `since_ms` or later, at most `limit`. `after`: the offsets at which the page begins, as the page
    /// before gave them.
    pub(super) async fn since(
        &self,
        topic: TopicId,
        since_ms: u64,
        after: Option<Vec<QueueOffset>>,
        limit: usize,
    ) -> Result<SincePage, NotDone> {
        for _ in 0..ATTEMPTS_MAX {
            let extent = self.extent(topic).await?;
            match self.first_offsets(&extent, since_ms, after.as_deref()).await {
                Ok(firsts) => return self.merge(extent, firsts, since_ms, limit).await,
                Err(SearchTrouble::NotDone(not_done)) => return Err(not_done),
                Err(SearchTrouble::Unusable(file, fault)) => self.lookups.give_up(&file, &fault),
            }
        }
        Err(NotDone::internal("the lookup index is damaged in too many places; look after the disk".to_owned()))
    }

    /// The first offset of each queue with a message of this time or later. A queue in `after` begins there.
    async fn first_offsets(
        &self,
        extent: &TopicExtent,
        since_ms: u64,
        after: Option<&[QueueOffset]>,
    ) -> Result<Vec<QueueOffset>, SearchTrouble> {
        let after = after.unwrap_or_default();
        let mut firsts: Vec<Option<QueueOffset>> = extent.queues.iter().map(|_| None).collect();
        for (first, after) in firsts.iter_mut().zip(after) {
            *first = Some(*after);
        }
        if since_ms == 0 {
            // Every message is as late, whatever its time.
            let starts = firsts.into_iter().zip(&extent.queues).map(|(first, queue)| first.unwrap_or(queue.start));
            return Ok(starts.collect());
        }
        let (files, of): (Arc<Vec<Arc<LookupFile>>>, TopicExtent) = (self.lookups.ready(), extent.clone());
        let stretches = blocking(move || stretches(&files, &of)).await??;
        let mut walked = WalkBudget::new();
        for stretch in stretches {
            if firsts[stretch.queue as usize].is_none() {
                let queue = stretch.queue as usize;
                firsts[queue] = self.first_in(extent.topic, stretch, since_ms, &mut walked).await?;
            }
        }
        self.first_carried(extent.topic, since_ms, &mut firsts, after.len()).await?;
        Ok(firsts.into_iter().zip(&extent.queues).map(|(first, queue)| first.unwrap_or(queue.end)).collect())
    }

    /// Files need not know the times of messages that were carried to another place of the log: their part says where they
    /// lay before. The first `known` queues begin where they do.
    async fn first_carried(
        &self,
        topic: TopicId,
        since_ms: u64,
        firsts: &mut [Option<QueueOffset>],
        known: usize,
    ) -> Result<(), NotDone> {
        let mut last = None;
        loop {
            let look =
                move |state: &State| state.topics().get(topic).map_or_else(Vec::new, |topic| topic.carried(last, STEP));
            let carried = self.shard.read(look).await?;
            let Some((queue, offset, _)) = carried.last() else { return Ok(()) };
            last = Some((*queue, *offset));
            let places = carried.iter().map(|(queue, offset, position)| (*position, Some((*queue, *offset)))).collect();
            for ((_, place), _) in self.read(places, move |message| message.stored_at.0 >= since_ms).await? {
                let Some((queue, offset)) = place else { continue };
                if let Some(first) = firsts.get_mut(queue as usize).filter(|_| queue as usize >= known) {
                    *first = Some(first.map_or(offset, |first| first.min(offset)));
                }
            }
        }
    }

    /// The first message of a time or later in one stretch of a queue.
    async fn first_in(
        &self,
        topic: TopicId,
        stretch: Stretch,
        since_ms: u64,
        walked: &mut WalkBudget,
    ) -> Result<Option<QueueOffset>, SearchTrouble> {
        let Stretch { queue, mut offsets, covered } = stretch;
        if let Some((file, row)) = covered {
            let of = file.clone();
            let candidates = blocking(move || of.since(&row, since_ms)).await?;
            let candidates = candidates.map_err(|fault| SearchTrouble::Unusable(file, fault))?;
            offsets = offsets.start.max(candidates.start)..offsets.end.min(candidates.end);
        }
        // The file says in which few it is; whatever it does not cover is walked in bigger steps.
        let mut step = SAMPLE_EVERY;
        while !offsets.is_empty() {
            let end = offsets.end.min(offsets.start.plus(step));
            walked.count(end.since(offsets.start))?;
            let places = self.places(topic, queue, offsets.start..end).await?;
            let found = self.read(places, move |message| message.stored_at.0 >= since_ms).await?;
            if let Some(((_, Some((_, offset))), _)) = found.first() {
                return Ok(Some(*offset));
            }
            (offsets.start, step) = (end, (step * 4).min(STEP as u64));
        }
        Ok(None)
    }

    /// Gives the queues' messages from these offsets on, the earliest of those that are next in their queues first.
    async fn merge(
        &self,
        extent: TopicExtent,
        firsts: Vec<QueueOffset>,
        since_ms: u64,
        limit: usize,
    ) -> Result<SincePage, NotDone> {
        let TopicExtent { topic, queues } = extent;
        let head = |((queue, offsets), first): ((u32, &Range<QueueOffset>), QueueOffset)| {
            let rest = first.clamp(offsets.start, offsets.end)..offsets.end;
            QueueHead { queue, read: VecDeque::new(), rest }
        };
        let mut heads: Vec<QueueHead> = (0..).zip(&queues).zip(firsts).map(head).collect();
        let batch = (limit / heads.len().max(1) + 1).min(STEP) as u64;
        let (mut found, mut looked) = (Vec::new(), 0);
        while found.len() < limit && looked < LOOK_MAX {
            for head in heads.iter_mut().filter(|head| head.read.is_empty()) {
                while head.read.is_empty() && !head.rest.is_empty() {
                    let end = head.rest.end.min(head.rest.start.plus(batch));
                    let places = self.places(topic, head.queue, head.rest.start..end).await?;
                    head.read.extend(self.read(places, |_| true).await?);
                    head.rest.start = end;
                }
            }
            let time = |head: &QueueHead| head.read.front().map(|(_, message)| message.stored_at);
            let earliest = heads.iter_mut().filter(|head| !head.read.is_empty()).min_by_key(|head| time(head));
            let Some((place, message)) = earliest.and_then(|head| head.read.pop_front()) else { break };
            looked += 1;
            if message.stored_at.0 >= since_ms {
                found.push((place, message));
            }
        }
        let more = heads.iter().any(|head| !head.read.is_empty() || !head.rest.is_empty());
        Ok(SincePage { found, next: more.then(|| heads.iter().map(QueueHead::next).collect()) })
    }
}
