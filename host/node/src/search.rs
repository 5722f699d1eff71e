//! Looking through many messages or transactions for an administrator: in steps, so that nobody who sends waits long for
//! somebody who looks, and few at a time.

mod by_term;
mod by_time;
mod coverage;

use std::sync::Arc;

use vouch_broker::{MessageKind, Millis, NotDone, Refusal, State, StoredMessage, TopicId};

use crate::PAGE_MAX;
use crate::admin::{Row, ended_row, open_row};
use crate::names::topic_named;
use crate::node::{Inner, Search, Transactions};
use crate::shard::Leader;
use crate::{
    MessageMark, MessagePage, MessageQuery, MessageView, TransactionMark, TransactionQuery, TransactionState,
    TransactionView,
};
use by_term::{Named, Wanted};
use by_time::Since;
use vouch_leader::Leader;

/// Entries that one step looks at on the executor's thread: some tens of microseconds of index entries.
const STEP: usize = 4096;
/// How often a search begins again without a file of the lookup index that was found damaged.
const ATTEMPTS_MAX: usize = 100;

/// Position of a message, and its queue and offset; none for a half message that is still open.
type Place = (u64, Option<(u32, QueueOffset)>);

impl Search {
    /// Messages of a topic with this client id, newest first: those that are in its queues and its open transactions.
    pub async fn by_id(&self, topic: &str, message_id: &str) -> Result<Vec<MessageView>, NotDone> {
        let _turn = self.0.searches.take().await?;
        let id = self.0.topic_id(topic).await?;
        let named = Named::Id(message_id.to_owned());
        let wanted = Wanted { named, below: u64::MAX, since_ms: 0, limit: PAGE_MAX };
        let found = self.0.newest(id, wanted).await?;
        Ok(self.message_views(topic, found).await)
    }

    /// Messages of a topic. With a key: those that have it, open transactions included, newest first. Without: those that
    /// are in queues, each queue in its order, the queues merged by time.
    pub async fn list(&self, query: MessageQuery) -> Result<MessagePage, NotDone> {
        let _turn = self.0.searches.take().await?;
        let MessageQuery { topic, key, since_ms, after, limit } = query;
        let (id, limit) = (self.0.topic_id(&topic).await?, limit.clamp(1, PAGE_MAX));
        let since_ms = since_ms.unwrap_or(0);
        let (found, next) = match (key, after) {
            (Some(key), after @ (None | Some(MessageMark::Below(_)))) => {
                let below = if let Some(MessageMark::Below(position)) = after { position } else { u64::MAX };
                let wanted = Wanted { named: Named::Key(key), below, since_ms, limit: limit + 1 };
                let mut found = self.0.newest(id, wanted).await?;
                let more = found.len() > limit;
                found.truncate(limit);
                let next = found.last().filter(|_| more).map(|((position, _), _)| MessageMark::Below(*position));
                (found, next)
            }
            (None, Some(MessageMark::Queues { topic, .. })) if topic != id => return Err(wrong_mark()),
            (None, after @ (None | Some(MessageMark::Queues { .. }))) => {
                let after = if let Some(MessageMark::Queues { next, .. }) = after { Some(next) } else { None };
                let Since { found, next } = self.0.since(id, since_ms, after, limit).await?;
                (found, next.map(|next| MessageMark::Queues { topic: id, next }))
            }
            _ => return Err(wrong_mark()),
        };
        Ok(MessagePage { messages: self.message_views(&topic, found).await, next })
    }

    async fn message_views(&self, topic: &str, found: Vec<(Place, StoredMessage)>) -> Vec<MessageView> {
        let mut views = Vec::new();
        for ((position, place), message) in found {
            let is_half = message.message.kind == MessageKind::Transaction;
            let transaction = match is_half {
                true => Transactions(self.0.clone()).get(self.0.transaction_at(position)).await.ok(),
                false => None,
            };
            views.push(MessageView { message, topic: topic.to_owned(), place, transaction });
        }
        views
    }
}

impl Transactions {
    /// Transactions, open ones in the order in which they were opened, ended ones in the order of their ends.
    pub async fn list(&self, query: TransactionQuery) -> Result<Vec<TransactionView>, NotDone> {
        let _turn = self.0.searches.take().await?;
        let now = self.0.shared.clock.now();
        let limit = query.limit.clamp(1, PAGE_MAX);
        let mut at = Some(At::begin(&query));
        let query = Arc::new(query);
        let mut rows = Vec::new();
        while let Some(from) = at.filter(|_| rows.len() < limit) {
            let (query, room) = (query.clone(), limit - rows.len());
            let step = move |state: &State, leader: &mut Leader| step(state, leader, &query, from, room, now);
            let (more, next) = self.0.shard.lead(step).await?;
            rows.extend(more);
            at = next;
        }
        let inner = self.0.clone();
        // The half of each is read and verified: not on a thread that serves calls.
        blocking(move || rows.into_iter().map(|row| inner.view(row)).collect()).await
    }
}

impl Inner {
    async fn topic_id(&self, topic: &str) -> Result<TopicId, NotDone> {
        let name = topic_named(topic)?;
        let find = move |state: &State| state.topics().named(&name).map(|topic| topic.id);
        Ok(self.shard.read(find).await??)
    }
}

fn wrong_mark() -> NotDone {
    NotDone::Refused(Refusal::Invalid(
        "`after` is not the mark of a page of this list; leave it out to begin anew".to_owned(),
    ))
}

/// Runs what reads files on a thread where that may take time.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NotDone> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| NotDone::internal(format!("the search failed: {error}")))
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
fn step(
    state: &State,
    leader: &Leader,
    query: &TransactionQuery,
    from: At,
    room: usize,
    now: Millis,
) -> (Vec<Row>, Option<At>) {
    let topic = query.topic.as_ref().map(|name| state.topics().named(name).ok().map(|topic| topic.id));
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
            for (id, open) in state.open_transactions().iter(after) {
                if in_topic(open.topic) && old(open.opened_at) {
                    rows.extend(Some(open_row(state, leader, id, open, now)).filter(wanted));
                }
                seen += 1;
                if seen == STEP || rows.len() == room {
                    return (rows, Some(At::Open(Some(id))));
                }
            }
            (rows, Some(At::Ended(None)).filter(|_| !open_only))
        }
        At::Ended(after) => {
            for (id, ended) in state.outcomes().iter_after(after) {
                if in_topic(ended.topic) && old(ended.at) {
                    rows.extend(Some(ended_row(state, leader, id, ended)).filter(wanted));
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
