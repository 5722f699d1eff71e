//! Half messages: where they lie, and what a caller says of them held against what they are.

use std::sync::Arc;

use vouch_broker::record::MessageHead;
use vouch_broker::{
    HalfPosition, MessageKind, NotDone, RecordPosition, Refusal, ResourceName, State, StoredMessage, TopicId,
};
use vouch_commitlog::LogReader;

use crate::routes::Routes;
use crate::stored;
use vouch_shard::Shard;

/// Finds half messages.
pub(crate) struct Halves {
    pub(crate) shard: Arc<Shard>,
    pub(crate) log: LogReader,
    pub(crate) routes: Arc<Routes>,
}

impl Halves {
    /// Refuses what a caller named, since it is no transaction, or not the one that the caller means.
    pub(crate) fn unknown(&self, transaction: HalfPosition, why: String) -> NotDone {
        let id = self.shard.signals().transaction_id(transaction).to_string();
        NotDone::Refused(Refusal::UnknownTransaction { id, why })
    }

    /// The topic of a transaction, if a caller names it rightly. The half may lie elsewhere by now, or be gone.
    ///
    /// # Errors
    /// [`Refusal::UnknownTransaction`], which says what does not fit.
    pub(crate) async fn named(
        &self,
        transaction: HalfPosition,
        topic: Option<&ResourceName>,
        message_id: Option<&str>,
    ) -> Result<ResourceName, NotDone> {
        // Any number can come from outside; only one that leads to a half message's record is a transaction.
        let found = match self.half_at(transaction) {
            Ok(half) => Some(half),
            Err(_) => self.half_elsewhere(transaction).await.unwrap_or(None),
        };
        let (id, half) = match found {
            Some((head, half)) => (head.topic, Some(half)),
            // The log may have gone on without the half of one that ended; its outcome is remembered longer. One that is
            // open and whose half is damaged must end all the same.
            None => match self.shard.read(move |state| topic_of(state, transaction)).await? {
                Some(topic) => (topic, None),
                None => return Err(self.unknown(transaction, "no half message has this id".to_owned())),
            },
        };
        let name = self.routes.topic_name(id).await?;
        if let Some(said) = topic.filter(|said| **said != name) {
            return Err(self.unknown(transaction, format!("it belongs to topic {name}, not to {said}")));
        }
        if let (Some(said), Some(half)) = (message_id, half)
            && said != half.message.message_id
        {
            return Err(self.unknown(transaction, format!("it belongs to another message than {said}")));
        }
        Ok(name)
    }

    /// The half of an open transaction, wherever it lies. Read and verified.
    ///
    /// # Errors
    /// [`Refusal::UnknownTransaction`]; an internal error where its record is damaged.
    pub(crate) async fn get(&self, transaction: HalfPosition) -> Result<StoredMessage, NotDone> {
        match self.half_at(transaction) {
            Ok((_, half)) => Ok(half),
            Err(refusal) => self.half_elsewhere(transaction).await?.map(|(_, half)| half).ok_or(refusal),
        }
    }

    /// The half whose record first lay here, if it still does.
    fn half_at(&self, transaction: HalfPosition) -> Result<(MessageHead, StoredMessage), NotDone> {
        let (head, half) = stored::message(&self.log, transaction.first_place())?;
        // Where one half lies now, another one was never.
        if half.message.kind == MessageKind::Transaction
            && self.transaction_at(transaction.first_place()) == transaction
        {
            Ok((head, half))
        } else {
            Err(self.unknown(transaction, "no half message has this id".to_owned()))
        }
    }

    /// The half of an open transaction that was carried to another place.
    async fn half_elsewhere(&self, transaction: HalfPosition) -> Result<Option<(MessageHead, StoredMessage)>, NotDone> {
        let find = move |state: &State| state.place_of_half(transaction);
        match self.shard.read(find).await? {
            Some(place) => stored::message(&self.log, place).map(Some),
            None => Ok(None),
        }
    }

    /// The transaction whose half lies at this position of the log.
    pub(crate) fn transaction_at(&self, position: RecordPosition) -> HalfPosition {
        vouch_storage::transaction_at(&self.log, position)
    }
}

/// The topic of a transaction that is open, or whose outcome is remembered.
fn topic_of(state: &State, transaction: HalfPosition) -> Option<TopicId> {
    let open = state.open_transactions().get(transaction).map(|open| open.topic);
    open.or_else(|| state.outcomes().get(transaction).map(|ended| ended.topic))
}
