//! A producer's answer *undecided* to a check.

use std::borrow::Cow;

use vouch_broker::record::{CheckAnswered, EndedBy};
use vouch_broker::state::Applied;
use vouch_broker::{NotDone, ResourceName, State, TransactionId};

use super::Transactions;
use crate::forwarding::{ForwardedAsk, answer_of};
use crate::metrics::{CheckOutcome, PRODUCER};
use vouch_leader::Leader;

impl Transactions {
    /// A client says that it cannot decide about a transaction, which it names as for an end. Counts if it is a
    /// producer that the ask under way went to (ruling 1), else changes nothing: not what a stranger says, nor the
    /// sender of the half that was not asked, nor anybody while a component is asked. Returns whether it counted, which
    /// is durable then.
    ///
    /// # Errors
    /// Those of [`Self::end`].
    pub async fn undecided(
        &self,
        transaction: TransactionId,
        topic: Option<&ResourceName>,
        message_id: Option<&str>,
        client_id: &str,
    ) -> Result<bool, NotDone> {
        let ask = || ForwardedAsk::Undecided {
            transaction,
            topic: topic.map(Cow::Borrowed),
            message_id: message_id.map(Cow::Borrowed),
            client_id: Cow::Borrowed(client_id),
        };
        let here = || self.undecided_here(transaction, topic, message_id, client_id);
        self.leaders.done(here, ask, |answer| answer_of!(answer, Counted)).await
    }

    pub(crate) async fn undecided_here(
        &self,
        transaction: TransactionId,
        topic: Option<&ResourceName>,
        message_id: Option<&str>,
        client_id: &str,
    ) -> Result<bool, NotDone> {
        self.writable.check()?;
        let transaction = self.shard.signals().half_of(transaction)?;
        self.halves.named(transaction, topic, message_id).await?;
        let client = client_id.to_owned();
        let find = move |_: &State, leader: &mut Leader| {
            let (ask, number, asked_at) = leader.schedule.under_way(transaction)?;
            ask.went_to(&client).then_some((number, asked_at))
        };
        let Some((check_number, asked_at)) = self.shard.lead(find).await? else { return Ok(false) };
        let by = EndedBy::Client { client_id: client_id.to_owned(), from_check: true };
        let answer =
            CheckAnswered { transaction, check_number, asked_at, retry_after_ms: None, by, reason: String::new() };
        let applied = self.shard.propose_one(|out| answer.encode(out)).await?;
        let counted = matches!(applied, Applied::Counted { .. });
        if counted {
            self.metrics.checks.count(PRODUCER, CheckOutcome::Unknown);
        }
        Ok(counted)
    }
}
