//! Transactions: how they end, and what is shown of them.
//!
//! A transaction begins with its half message, which [`crate::Messages::send`] stores, and ends with one record,
//! whoever decides: its producer, a component, an operator. What is said of it later is held against that record.

mod ends;
mod halves;
mod list;
mod sample;
mod undecided;
mod view;

use std::borrow::Cow;
use std::sync::Arc;

use vouch_broker::record::{End, EndedBy, Resume};
use vouch_broker::{NotDone, TransactionId};
use vouch_commitlog::LogReader;

use crate::forwarding::{ForwardedAsk, Leaders, answer_of};
use crate::metrics::Metrics;
use crate::routes::Routes;
use crate::served::ServedLog;
use crate::turns::SearchTurns;
use crate::writable::Writable;
use crate::{EndReceipt, EndRequest, TransactionView};
pub(crate) use ends::Ends;
pub(crate) use halves::Halves;
pub(crate) use sample::{EndSample, SampledEnd};
use vouch_shard::Shard;
use vouch_shard::clock::Clock;

/// Transactions: ended, resumed, shown. A transaction is named by its shard and the place where its half was first
/// written; who names one that is none, or one of another shard, is refused with
/// [`Refusal::UnknownTransaction`](vouch_broker::Refusal::UnknownTransaction). What changes something resolves when that is
/// durable.
pub struct Transactions {
    pub(crate) shard: Arc<Shard>,
    /// Does what only a leader does, wherever that is.
    pub(crate) leaders: Arc<Leaders>,
    pub(crate) log: LogReader,
    /// Says whether something may lie where a damaged log is not served.
    pub(crate) served: Arc<ServedLog>,
    pub(crate) routes: Arc<Routes>,
    /// Finds what a caller names.
    pub(crate) halves: Arc<Halves>,
    /// Ends them, whoever decides.
    pub(crate) ends: Arc<Ends>,
    /// Some of those that producers sent.
    pub(crate) sample: Arc<EndSample>,
    pub(crate) clock: Arc<Clock>,
    /// Looking through many is done by few at a time.
    pub(crate) turns: SearchTurns,
    pub(crate) writable: Writable,
    /// Counts what producers answer.
    pub(crate) metrics: Arc<Metrics>,
}

impl Transactions {
    /// Ends a transaction. A repeat gets the recorded outcome, the opposite a conflict that names it (ruling 6).
    /// Resolves when the end is durable; it is written also where there is no room for sends any more.
    ///
    /// # Errors
    /// [`Refusal::UnknownTransaction`](vouch_broker::Refusal::UnknownTransaction) if topic, message and transaction do
    /// not belong together; [`Refusal::OutcomeConflict`](vouch_broker::Refusal::OutcomeConflict).
    pub async fn end(&self, request: EndRequest) -> Result<EndReceipt, NotDone> {
        let ask = || ForwardedAsk::End(Cow::Borrowed(&request));
        self.leaders.done(|| self.end_here(&request), ask, |answer| answer_of!(answer, Ended)).await
    }

    pub(crate) async fn end_here(&self, request: &EndRequest) -> Result<EndReceipt, NotDone> {
        self.writable.check()?;
        let EndRequest { topic, message_id, transaction, outcome, by, reason } = request.clone();
        let transaction = self.shard.signals().half_of(transaction)?;
        let topic = self.halves.named(transaction, topic.as_ref(), message_id.as_deref()).await?;
        let queue = self.routes.queue_for(&topic).await?;
        let is_producers = matches!(by, EndedBy::Client { .. });
        let ended = self.ends.end(&End { transaction, outcome, queue, by, reason }).await?;
        if is_producers && !ended.repeated {
            self.sample.offer(&topic, transaction, ended.outcome);
        }
        Ok(ended)
    }

    /// One transaction, open or ended, for as long as its outcome is remembered.
    ///
    /// # Errors
    /// [`Refusal::UnknownTransaction`](vouch_broker::Refusal::UnknownTransaction), or
    /// [`NothingStored::ReadOnly`](vouch_broker::NothingStored::ReadOnly) where it may lie behind the damage of the
    /// log.
    pub async fn get(&self, transaction: TransactionId) -> Result<TransactionView, NotDone> {
        let transaction = self.shard.signals().half_of(transaction)?;
        let now = self.clock.now();
        let row = self.shard.show(move |state, leader| view::row(state, leader, transaction, now)).await?;
        let unknown = || self.halves.unknown(transaction, "no transaction has this id".to_owned());
        let row = row.ok_or_else(|| self.served.if_all_is_served(unknown()))?;
        Ok(row.view(&self.log))
    }

    /// Lets the asking about a parked transaction begin again, with a fresh counter. Resolves when that is durable. Who
    /// did it and why is kept in the log.
    ///
    /// # Errors
    /// Those of [`Self::get`], and a refusal of one that is not parked.
    pub async fn resume(&self, transaction: TransactionId, by: String, reason: String) -> Result<(), NotDone> {
        self.writable.check()?;
        self.get(transaction).await?;
        let record = Resume { transaction: self.shard.signals().half_of(transaction)?, by, reason };
        self.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }
}
