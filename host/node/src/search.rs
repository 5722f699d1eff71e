//! Looking through many messages or transactions for an administrator: in steps, so that nobody who sends waits long for
//! somebody who looks, and few at a time.

use std::sync::Arc;

use vouch_broker::{MessageKind, Millis, Refusal, ResourceName, StoredMessage, TopicId};

use crate::admin::{PAGE_MAX, Row, ended_row, open_row};
use crate::node::{Inner, Node};
use crate::shard::Executor;
use crate::{MessageView, TransactionMark, TransactionQuery, TransactionState, TransactionView};

/// How far back a message is looked for by its id, in messages of the topic.
const SEARCH_MAX: u64 = 1_000_000;
/// Entries that one step looks at on the executor's thread: some tens of microseconds of index entries.
const STEP: usize = 4096;
/// Searches at the same time; others wait for their turn.
pub(crate) const SEARCHES_MAX: usize = 2;

/// Position of a message, and its queue and offset; none for a half message that is still open.
type Place = (u64, Option<(u32, u64)>);

impl Node {
    /// Messages of a topic with this client id, newest first: looked for in the last million messages of the topic and
    /// in its open transactions.
    pub async fn messages(&self, topic: &str, message_id: &str) -> Result<Vec<MessageView>, Refusal> {
        let _turn = self.0.turn_to_search().await?;
        let name = ResourceName::plain(topic);
        let find = move |executor: &mut Executor| executor.state.topics().named(&name).map(|topic| topic.id);
        let id = self.0.shard.query(find).await??;
        let wanted: Arc<str> = message_id.into();
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let (halves, last) = self.0.shard.query(move |executor| open_halves(executor, id, after)).await?;
            found.extend(self.0.with_id(halves, &wanted).await?);
            let Some(last) = last else { break };
            after = Some(last);
        }
        // After the open ones: what is committed meanwhile is then in a queue, and found twice rather than not at all.
        let ends = self.0.shard.query(move |executor| ends(executor, id)).await?;
        for (queue, end) in (0..).zip(&ends) {
            let least = end.saturating_sub(SEARCH_MAX / ends.len() as u64);
            let mut end = *end;
            while end > least {
                let from = end.saturating_sub(STEP as u64).max(least);
                let places = self.0.shard.query(move |executor| queued(executor, id, queue, from..end)).await?;
                found.extend(self.0.with_id(places, &wanted).await?);
                end = from;
            }
        }
        found.sort_unstable_by_key(|(place, _)| std::cmp::Reverse(*place));
        found.dedup_by_key(|((position, _), _)| *position);
        found.truncate(PAGE_MAX);
        let mut views = Vec::new();
        for ((position, place), message) in found {
            let is_half = message.message.kind == MessageKind::Transaction;
            let transaction = if is_half { self.transaction(position).await.ok() } else { None };
            views.push(MessageView { message, topic: topic.to_owned(), place, transaction });
        }
        Ok(views)
    }

    /// Transactions, open ones in the order in which they were opened, ended ones in the order of their ends.
    pub async fn transactions(&self, query: TransactionQuery) -> Result<Vec<TransactionView>, Refusal> {
        let _turn = self.0.turn_to_search().await?;
        let now = self.0.shared.clock.now();
        let limit = query.limit.clamp(1, PAGE_MAX);
        let mut at = Some(At::begin(&query));
        let query = Arc::new(query);
        let mut rows = Vec::new();
        while let Some(from) = at.filter(|_| rows.len() < limit) {
            let (query, room) = (query.clone(), limit - rows.len());
            let step = move |executor: &mut Executor| step(executor, &query, from, room, now);
            let (more, next) = self.0.shard.query(step).await?;
            rows.extend(more);
            at = next;
        }
        let inner = self.0.clone();
        // The half of each is read and verified: not on a thread that serves calls.
        let views = move || rows.into_iter().map(|row| inner.view(row)).collect();
        tokio::task::spawn_blocking(views).await.map_err(|error| Refusal::Internal(format!("the list failed: {error}")))
    }
}

impl Inner {
    async fn turn_to_search(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Refusal> {
        self.searches.acquire().await.map_err(|_| Refusal::Stopping)
    }

    /// Reads the messages at these places and keeps those with this client id.
    async fn with_id(
        self: &Arc<Self>,
        places: Vec<Place>,
        wanted: &Arc<str>,
    ) -> Result<Vec<(Place, StoredMessage)>, Refusal> {
        let (inner, wanted) = (self.clone(), wanted.clone());
        let search = move || {
            let read = |place: Place| {
                let (_, message) = inner.read_message(place.0).ok()?;
                (message.message.message_id == *wanted).then_some((place, message))
            };
            places.into_iter().filter_map(read).collect()
        };
        let found = tokio::task::spawn_blocking(search).await;
        found.map_err(|error| Refusal::Internal(format!("the search failed: {error}")))
    }
}

fn ends(executor: &mut Executor, topic: TopicId) -> Vec<u64> {
    let topic = executor.state.topics().get(topic);
    topic.map_or_else(Vec::new, |topic| (0..topic.queue_count()).map(|queue| topic.end(queue)).collect())
}

fn queued(executor: &Executor, topic: TopicId, queue: u32, offsets: std::ops::Range<u64>) -> Vec<Place> {
    let Some(topic) = executor.state.topics().get(topic) else { return Vec::new() };
    let place = |offset| topic.entry(queue, offset).map(|entry| (entry.position, Some((queue, offset))));
    offsets.filter_map(place).collect()
}

/// The topic's transactions among the next open ones, and where to go on.
fn open_halves(executor: &Executor, topic: TopicId, after: Option<u64>) -> (Vec<Place>, Option<u64>) {
    let (mut halves, mut last) = (Vec::new(), None);
    for (n, (transaction, open)) in executor.state.open_transactions().iter(after).take(STEP).enumerate() {
        if open.topic == topic {
            halves.push((transaction, None));
        }
        last = Some(transaction).filter(|_| n + 1 == STEP);
    }
    (halves, last)
}

/// Where a list of transactions goes on.
#[derive(Clone, Copy)]
enum At {
    Open(Option<u64>),
    Ended(Option<u64>),
}

impl At {
    fn begin(query: &TransactionQuery) -> Self {
        let ended_only = matches!(query.state, Some(TransactionState::Committed | TransactionState::RolledBack));
        match query.after {
            None if ended_only => Self::Ended(None),
            None => Self::Open(None),
            Some(TransactionMark::Open(_)) if ended_only => Self::Ended(None),
            Some(TransactionMark::Open(after)) => Self::Open(Some(after)),
            Some(TransactionMark::Ended(after)) => Self::Ended(Some(after)),
        }
    }
}

/// Looks at the next transactions; up to `room` rows of them, and where to go on.
fn step(executor: &Executor, query: &TransactionQuery, from: At, room: usize, now: Millis) -> (Vec<Row>, Option<At>) {
    let topic = query.topic.as_ref().map(|name| executor.state.topics().named(name).ok().map(|topic| topic.id));
    let in_topic = |id| topic.is_none_or(|wanted| wanted == Some(id));
    let old = |at: Millis| query.older_than.is_none_or(|age| u128::from(now.ms_since(at)) >= age.as_millis());
    let wanted = |row: &Row| query.state.is_none_or(|state| state == row.state);
    let open_only = matches!(
        query.state,
        Some(TransactionState::Open | TransactionState::Parked | TransactionState::WaitingForChecker)
    );
    let mut rows = Vec::new();
    let mut seen = 0;
    match from {
        At::Open(after) => {
            for (id, open) in executor.state.open_transactions().iter(after) {
                if in_topic(open.topic) && old(open.opened_at) {
                    rows.extend(Some(open_row(executor, id, open, now)).filter(wanted));
                }
                seen += 1;
                if seen == STEP || rows.len() == room {
                    return (rows, Some(At::Open(Some(id))));
                }
            }
            (rows, Some(At::Ended(None)).filter(|_| !open_only))
        }
        At::Ended(after) => {
            for (id, ended) in executor.state.outcomes().iter_after(after) {
                if in_topic(ended.topic) && old(ended.at) {
                    rows.extend(Some(ended_row(executor, id, ended)).filter(wanted));
                }
                seen += 1;
                if seen == STEP || rows.len() == room {
                    return (rows, Some(At::Ended(Some(id))));
                }
            }
            (rows, None)
        }
    }
}
