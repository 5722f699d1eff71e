//! Looking through many messages or transactions for an administrator: in steps, so that nobody who sends waits long for
//! somebody who looks, and few at a time.

mod by_term;
mod by_time;
mod coverage;

use vouch_broker::{MessageKind, NotDone, Refusal, State, StoredMessage, TopicId};

use crate::PAGE_MAX;
use crate::names::topic_named;
use crate::node::{Inner, Search};
use crate::{MessageMark, MessagePage, MessageQuery, MessageView};
use by_term::{Named, Wanted};
use by_time::Since;
use vouch_leader::Leader;

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
                true => self.0.transactions.get(self.0.halves.transaction_at(position)).await.ok(),
                false => None,
            };
            views.push(MessageView { message, topic: topic.to_owned(), place, transaction });
        }
        views
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
