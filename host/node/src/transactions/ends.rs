//! The end of a transaction, whoever decided.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vouch_broker::record::{End, EndedBy};
use vouch_broker::state::Applied;
use vouch_broker::{NotDone, Refusal, State, TransactionOutcome};
use vouch_leader::Leader;

use crate::EndReceipt;
use crate::metrics::{CheckOutcome, Metrics, PRODUCER};
use crate::shortages::Shortages;
use vouch_shard::Shard;

/// Ends transactions, and counts how that went.
pub(crate) struct Ends {
    pub(crate) shard: Arc<Shard>,
    pub(crate) shortages: Arc<Shortages>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Ends {
    /// Ends a transaction, whoever decided, and counts how that went. Resolves when it is durable.
    ///
    /// # Errors
    /// [`Refusal::OutcomeConflict`] where it had ended the other way.
    pub(crate) async fn end(&self, end: &End) -> Result<EndReceipt, NotDone> {
        self.ended(end, self.shard.propose_one(|out| end.encode(out)).await)
    }

    /// The same if this holds when the end is proposed; `None` if it does not.
    pub(crate) async fn end_if(
        &self,
        condition: impl FnOnce(&State, &Leader) -> bool + Send + 'static,
        end: &End,
    ) -> Result<Option<EndReceipt>, NotDone> {
        let applied = self.shard.propose_one_if(condition, |out| end.encode(out)).await.transpose();
        applied.map(|applied| self.ended(end, applied)).transpose()
    }

    /// The same of an end that was proposed with what a component staged: what came of it.
    pub(crate) fn settled(
        &self,
        end: &End,
        applied: Result<Option<Applied>, NotDone>,
    ) -> Result<Option<Applied>, NotDone> {
        match applied {
            Ok(Some(applied @ Applied::Ended { .. })) => self.ended(end, Ok(applied.clone())).map(|_| Some(applied)),
            Ok(other) => Ok(other),
            Err(error) => self.ended(end, Err(error)).map(|_| None),
        }
    }

    fn ended(&self, end: &End, applied: Result<Applied, NotDone>) -> Result<EndReceipt, NotDone> {
        let applied = self.shortages.counted(applied);
        let counter = match &applied {
            Err(NotDone::Refused(Refusal::OutcomeConflict { .. })) => Some(&self.metrics.end_conflicts),
            Ok(Applied::Ended { outcome: TransactionOutcome::Committed, repeated: false }) => {
                Some(&self.metrics.commits)
            }
            Ok(Applied::Ended { outcome: TransactionOutcome::RolledBack, repeated: false }) => {
                Some(&self.metrics.rollbacks)
            }
            _ => None,
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if let (EndedBy::Client { from_check: true, .. }, Ok(Applied::Ended { outcome, repeated: false })) =
            (&end.by, &applied)
        {
            self.metrics.checks.count(PRODUCER, CheckOutcome::Ended(*outcome));
        }
        match applied? {
            Applied::Ended { outcome, repeated } => Ok(EndReceipt { outcome, repeated }),
            other => Err(NotDone::Unknown(format!("an end was answered with {other:?}"))),
        }
    }
}
