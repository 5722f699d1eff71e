//! Messages with a certain id or key, newest first.

use std::cmp::Reverse;
use std::sync::Arc;

use vouch_broker::{HalfPosition, NotDone, QueueOffset, RecordPosition, State, StoredMessage, TopicId};

use super::coverage::{SearchTrouble, TopicExtent, WalkBudget, stretches};
use super::places::{ATTEMPTS_MAX, FoundPlace, MessagePlaces};
use crate::turns::{STEP, blocking};
use vouch_storage::{LookupFile, Postings, Term};

/// Postings that are looked at together.
const BATCH: usize = 1024;

/// By what messages are looked for.
#[derive(Clone, Debug)]
pub(super) enum SearchTerm {
    Id(String),
    Key(String),
}

/// Which messages are looked for.
#[derive(Clone, Debug)]
pub(super) struct WantedMessages {
    pub(super) named: SearchTerm,
    /// Only those at log positions below this one.
    pub(super) below: RecordPosition,
    /// Only those stored at this time or later, in milliseconds since 1970.
    pub(super) since_ms: u64,
    /// At most so many, the newest.
    pub(super) limit: usize,
}

impl WantedMessages {
    /// The term under which the lookup index files it.
    fn term(&self) -> Term<'_> {
        match &self.named {
            SearchTerm::Id(id) => Term::Id(id),
            SearchTerm::Key(key) => Term::Key(key),
        }
    }

    /// Whether a message is one: what the index says is a hint, since it has hashes.
    fn fits(&self, stored: &StoredMessage) -> bool {
        let named = match &self.named {
            SearchTerm::Id(id) => stored.message.message_id == *id,
            SearchTerm::Key(key) => stored.message.keys.contains(key),
        };
        named && stored.stored_at.0 >= self.since_ms
    }
}

/// The newest messages that were found until now.
struct Newest {
    limit: usize,
    /// Newest first, each once.
    found: Vec<(FoundPlace, StoredMessage)>,
}

impl Newest {
    /// Adds messages; in any order, some perhaps again.
    fn add(&mut self, more: Vec<(FoundPlace, StoredMessage)>) {
        if more.is_empty() {
            return;
        }
        self.found.extend(more);
        // One that is found as open and in a queue was committed meanwhile: the queue stands first.
        self.found.sort_unstable_by_key(|(place, _)| Reverse(*place));
        self.found.dedup_by_key(|((position, _), _)| *position);
        self.found.truncate(self.limit);
    }

    /// Nothing at or below this position is among the newest; the start of the log while there is room.
    fn floor(&self) -> RecordPosition {
        let last = self.found.last().filter(|_| self.found.len() == self.limit);
        last.map_or(RecordPosition::START, |((position, _), _)| *position)
    }
}

impl MessagePlaces {
    /// The newest messages of a topic that are wanted: committed ones and open halves.
    pub(super) async fn newest(
        &self,
        topic: TopicId,
        wanted: WantedMessages,
    ) -> Result<Vec<(FoundPlace, StoredMessage)>, NotDone> {
        let wanted = Arc::new(wanted);
        let mut newest = Newest { limit: wanted.limit, found: Vec::new() };
        let mut after = None;
        loop {
            let (halves, last) = self.shard.read(move |state| open_halves(state, topic, after)).await?;
            self.keep(halves, &wanted, &mut newest).await?;
            let Some(last) = last else { break };
            after = Some(last);
        }
        // After the open ones: what is committed meanwhile is then in a queue, and found twice rather than not at all.
        for _ in 0..ATTEMPTS_MAX {
            let files = self.lookups.ready();
            let extent = self.extent(topic).await?;
            match self.newest_in_queues(&files, extent, &wanted, &mut newest).await {
                Ok(()) => return Ok(newest.found),
                Err(SearchTrouble::NotDone(not_done)) => return Err(not_done),
                Err(SearchTrouble::Unusable(file, fault)) => self.lookups.give_up(&file, &fault),
            }
        }
        Err(NotDone::internal("the lookup index is damaged in too many places; look after the disk".to_owned()))
    }

    /// Goes through what no file covers, then what was carried, then the files, the newest first, until older ones
    /// cannot count.
    async fn newest_in_queues(
        &self,
        files: &Arc<Vec<Arc<LookupFile>>>,
        extent: TopicExtent,
        wanted: &Arc<WantedMessages>,
        newest: &mut Newest,
    ) -> Result<(), SearchTrouble> {
        let topic = extent.topic;
        let covering = files.clone();
        let mut walked = WalkBudget::new();
        let stretches = blocking(move || stretches(&covering, &extent)).await??;
        for stretch in stretches.iter().rev().filter(|stretch| stretch.covered.is_none()) {
            walked.count(stretch.offsets.end.since(stretch.offsets.start))?;
            let mut end = stretch.offsets.end;
            while end > stretch.offsets.start {
                let from = QueueOffset(end.0.saturating_sub(STEP as u64)).max(stretch.offsets.start);
                let places = self.places(topic, stretch.queue, from..end).await?;
                self.keep(places, wanted, newest).await?;
                end = from;
            }
        }
        self.newest_carried(topic, wanted, newest).await?;
        for file in files.iter().rev() {
            // Everything in it, and in those before it, lies below its part.
            if file.part() <= newest.floor().0 {
                break;
            }
            if file.latest_ms() >= wanted.since_ms {
                self.newest_in_file(file, topic, wanted, newest).await?;
            }
        }
        Ok(())
    }

    /// Messages that were carried to another place of the log lie elsewhere than their part and its file say.
    async fn newest_carried(
        &self,
        topic: TopicId,
        wanted: &Arc<WantedMessages>,
        newest: &mut Newest,
    ) -> Result<(), SearchTrouble> {
        let mut after = None;
        loop {
            let look = move |state: &State| {
                state.topics().get(topic).map_or_else(Vec::new, |topic| topic.carried(after, STEP))
            };
            let carried = self.shard.read(look).await?;
            let Some((queue, offset, _)) = carried.last() else { return Ok(()) };
            after = Some((*queue, *offset));
            let places = carried.iter().map(|(queue, offset, position)| (*position, Some((*queue, *offset)))).collect();
            self.keep(places, wanted, newest).await?;
        }
    }

    /// Goes through what a file has under the term, newest first, in batches.
    async fn newest_in_file(
        &self,
        file: &Arc<LookupFile>,
        topic: TopicId,
        wanted: &Arc<WantedMessages>,
        newest: &mut Newest,
    ) -> Result<(), SearchTrouble> {
        let (hash, below, from) = (wanted.term().hash(topic), wanted.below, file.clone());
        let unusable = |fault| SearchTrouble::Unusable(file.clone(), fault);
        let mut postings = blocking(move || from.postings(hash, below)).await?.map_err(unusable)?;
        loop {
            let floor = newest.floor();
            let (rest, batch) = blocking(move || next_batch(postings, floor)).await?.map_err(unusable)?;
            let Some(batch) = batch else { return Ok(()) };
            postings = rest;
            // Whether each is still there, and there, is for the state to say.
            let look = move |state: &State| -> Vec<FoundPlace> {
                let Some(of) = state.topics().get(topic) else { return Vec::new() };
                let there = |(position, queue, offset): &(RecordPosition, u32, QueueOffset)| {
                    of.entry(*queue, *offset).is_some_and(|entry| entry.position == *position)
                };
                let places = batch.into_iter().filter(there);
                places.map(|(position, queue, offset)| (position, Some((queue, offset)))).collect()
            };
            let places = self.shard.read(look).await?;
            self.keep(places, wanted, newest).await?;
        }
    }

    /// Reads the messages at these places and keeps those that are wanted and among the newest.
    async fn keep(
        &self,
        mut places: Vec<FoundPlace>,
        wanted: &Arc<WantedMessages>,
        newest: &mut Newest,
    ) -> Result<(), NotDone> {
        let (below, floor) = (wanted.below, newest.floor());
        places.retain(|(position, _)| *position < below && *position >= floor);
        if !places.is_empty() {
            let fits = wanted.clone();
            newest.add(self.read(places, move |message| fits.fits(message)).await?);
        }
        Ok(())
    }
}

/// Position, queue and offset of the next postings from `floor` on, none if there are no more.
type PostingBatch = Option<Vec<(RecordPosition, u32, QueueOffset)>>;

/// Reads the next postings of a file.
fn next_batch(
    mut postings: Postings,
    floor: RecordPosition,
) -> Result<(Postings, PostingBatch), vouch_storage::LookupFault> {
    let mut batch = Vec::new();
    while batch.len() < BATCH
        && let Some(found) = postings.next_found()?.filter(|found| found.position >= floor)
    {
        batch.push((found.position, found.queue, found.offset));
    }
    Ok((postings, Some(batch).filter(|batch| !batch.is_empty())))
}

/// The topic's transactions among the next open ones, and where to go on.
fn open_halves(state: &State, topic: TopicId, after: Option<HalfPosition>) -> (Vec<FoundPlace>, Option<HalfPosition>) {
    let (mut halves, mut last) = (Vec::new(), None);
    for (n, (transaction, open)) in state.open_transactions().iter(after).take(STEP).enumerate() {
        if open.topic == topic {
            let position = state.place_of_half(transaction).unwrap_or(transaction.first_place());
            halves.push((position, None));
        }
        last = Some(transaction).filter(|_| n + 1 == STEP);
    }
    (halves, last)
}
