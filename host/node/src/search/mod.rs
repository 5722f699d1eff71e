//! Finding messages for an administrator: in steps, so that nobody who sends waits long for somebody who looks, and few at a
//! time.

mod by_term;
mod by_time;
mod coverage;
mod places;

use std::sync::Arc;

use vouch_broker::{MessageKind, NotDone, RecordPosition, Refusal, State, StoredMessage, TopicId};

use crate::names::topic_named;
use crate::transactions::{Halves, Transactions};
use crate::turns::SearchTurns;
use crate::{MessageMark, MessagePage, MessageQuery, MessageView, PAGE_MAX};
use by_term::{SearchTerm, WantedMessages};
use by_time::SincePage;
use places::FoundPlace;
pub(crate) use places::MessagePlaces;
use vouch_shard::Shard;

/// Finds messages by their ids, their keys and their times. Two searches run at a time, others wait for their turn; each is
/// refused with [`TooMany`](vouch_broker::NothingStored::TooMany) where it would read millions of messages one by one.
pub struct Search {
    pub(crate) shard: Arc<Shard>,
    pub(crate) places: MessagePlaces,
    /// Shows what became of halves.
    pub(crate) transactions: Arc<Transactions>,
    pub(crate) halves: Arc<Halves>,
    /// Few search at a time.
    pub(crate) turns: SearchTurns,
}

impl Search {
    /// Messages of a topic with this client id, newest first: those that are in its queues and its open transactions.
    /// At most [`PAGE_MAX`].
    ///
    /// # Errors
    /// [`Refusal::TopicNotFound`] and refusals of the topic's name.
    pub async fn by_id(&self, topic: &str, message_id: &str) -> Result<Vec<MessageView>, NotDone> {
        let _turn = self.turns.take().await?;
        let id = self.topic_id(topic).await?;
        let named = SearchTerm::Id(message_id.to_owned());
        let wanted = WantedMessages { named, below: RecordPosition::BEYOND, since_ms: 0, limit: PAGE_MAX };
        let found = self.places.newest(id, wanted).await?;
        Ok(self.message_views(topic, found).await)
    }

    /// Messages of a topic. With a key: those that have it, open transactions included, newest first. Without: those
    /// that are in queues, each queue in its order, the queues merged by time. Messages that cannot be read are left
    /// out.
    ///
    /// # Errors
    /// [`Refusal::TopicNotFound`]; [`Refusal::Invalid`] for a mark of another list.
    pub async fn list(&self, query: MessageQuery) -> Result<MessagePage, NotDone> {
        let _turn = self.turns.take().await?;
        let MessageQuery { topic, key, since_ms, after, limit } = query;
        let (id, limit) = (self.topic_id(&topic).await?, limit.clamp(1, PAGE_MAX));
        let since_ms = since_ms.unwrap_or(0);
        let (found, next) = match (key, after) {
            (Some(key), after @ (None | Some(MessageMark::Below(_)))) => {
                let below =
                    if let Some(MessageMark::Below(position)) = after { position } else { RecordPosition::BEYOND };
                let wanted = WantedMessages { named: SearchTerm::Key(key), below, since_ms, limit: limit + 1 };
                let mut found = self.places.newest(id, wanted).await?;
                let more = found.len() > limit;
                found.truncate(limit);
                let next = found.last().filter(|_| more).map(|((position, _), _)| MessageMark::Below(*position));
                (found, next)
            }
            (None, Some(MessageMark::Queues { topic, .. })) if topic != id => return Err(wrong_mark()),
            (None, after @ (None | Some(MessageMark::Queues { .. }))) => {
                let after = if let Some(MessageMark::Queues { next, .. }) = after { Some(next) } else { None };
                let SincePage { found, next } = self.places.since(id, since_ms, after, limit).await?;
                (found, next.map(|next| MessageMark::Queues { topic: id, next }))
            }
            _ => return Err(wrong_mark()),
        };
        Ok(MessagePage { messages: self.message_views(&topic, found).await, next })
    }

    /// Adds to each half what became of its transaction, as far as that is remembered.
    async fn message_views(&self, topic: &str, found: Vec<(FoundPlace, StoredMessage)>) -> Vec<MessageView> {
        let mut views = Vec::new();
        for ((position, place), message) in found {
            let is_half = message.message.kind == MessageKind::Transaction;
            let transaction = match is_half {
                true => {
                    let half = self.halves.transaction_at(position);
                    self.transactions.get(self.shard.signals().transaction_id(half)).await.ok()
                }
                false => None,
            };
            views.push(MessageView { message, topic: topic.to_owned(), place, transaction });
        }
        views
    }

    /// The life of a topic that is searched.
    async fn topic_id(&self, topic: &str) -> Result<TopicId, NotDone> {
        let name = topic_named(topic)?;
        let find = move |state: &State| state.topics().named(&name).map(|topic| topic.id);
        Ok(self.shard.read(find).await??)
    }
}

/// Refuses a mark that another list gave.
fn wrong_mark() -> NotDone {
    NotDone::Refused(Refusal::Invalid(
        "`after` is not the mark of a page of this list; leave it out to begin anew".to_owned(),
    ))
}
