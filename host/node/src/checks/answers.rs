//! What was answered, on its way into the log.

use std::ops::RangeInclusive;

use vouch_broker::record::{CheckAnswered, End, EndedBy, SettledHead};
use vouch_broker::state::Applied;
use vouch_broker::{Millis, NotDone, Refusal, State, TransactionOutcome};
use vouch_plugin::{Staged, Verdict};

use vouch_leader::Leader;
use vouch_leader::checks::Due;

use super::Asker;
use super::binding::Bound;
use crate::effects::{CallRuns, Settler};
use crate::metrics::CheckOutcome;

/// Pause before a transaction is looked at again whose producers went away.
pub(super) const ASK_AGAIN_MS: u64 = 1000;
/// A verdict's retry-after is clamped to this range (ruling 3).
const RETRY_AFTER_MS: RangeInclusive<u64> = 1000..=24 * 60 * 60 * 1000;

/// A verdict, as it is counted.
pub(super) fn outcome_of(verdict: &Verdict) -> CheckOutcome {
    match verdict {
        Verdict::Commit => CheckOutcome::Ended(TransactionOutcome::Committed),
        Verdict::Rollback(_) => CheckOutcome::Ended(TransactionOutcome::RolledBack),
        Verdict::Unknown { .. } => CheckOutcome::Unknown,
    }
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckRecorded {
    /// It is in the log, and counted.
    Taken,
    /// Nothing came of it: its binding is another one by now, or nobody waits for it.
    Dropped,
    /// What the component had read is another by now, or will be.
    Stale,
}

impl CheckRecorded {
    fn of(taken: bool) -> Self {
        if taken { Self::Taken } else { Self::Dropped }
    }
}

/// Proposes what a component said, with what it staged.
pub(super) async fn record(
    asker: &Asker,
    due: &Due,
    verdict: Verdict,
    by: EndedBy,
    bound: &Bound,
    (staged, runs): (Option<(Settler, Staged)>, &mut CallRuns),
) -> Result<CheckRecorded, NotDone> {
    let (outcome, reason) = match verdict {
        Verdict::Commit => (TransactionOutcome::Committed, String::new()),
        Verdict::Rollback(reason) => (TransactionOutcome::RolledBack, reason),
        Verdict::Unknown { reason, retry_after } => {
            let clamp = |ms: u64| ms.clamp(*RETRY_AFTER_MS.start(), *RETRY_AFTER_MS.end());
            let retry_after_ms = retry_after.map(|after| clamp(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)));
            let answer = check_answered(due, retry_after_ms, by, reason);
            return match staged {
                Some((settler, staged)) => {
                    let settled = asker.effects.settled(&settler, SettledHead::CheckAnswered(answer), staged).await?;
                    let is_awaited = is_awaited(due, Some(bound.clone()));
                    taken(asker.effects.propose_if(is_awaited, &settled, runs).await?)
                }
                None => count(asker, due, answer, Some(bound.clone())).await.map(CheckRecorded::of),
            };
        }
    };
    let queue = asker.routes.queue_for(&due.topic).await?;
    let end = End { transaction: due.transaction, outcome, queue, by, reason };
    let bound = bound.clone();
    match staged {
        Some((settler, staged)) => {
            let settled = asker.effects.settled(&settler, SettledHead::End(end.clone()), staged).await?;
            // Of an ask that is over, since another leader made it anew, nothing is to happen twice.
            let is_awaited = is_awaited(due, Some(bound));
            taken(asker.ends.settled(&end, asker.effects.propose_if(is_awaited, &settled, runs).await)?)
        }
        None => {
            let stays = move |state: &State, leader: &Leader| bound.stays(state, leader);
            Ok(CheckRecorded::of(asker.ends.end_if(stays, &end).await?.is_some()))
        }
    }
}

/// What became of an answer with what was staged.
fn taken(applied: Option<Applied>) -> Result<CheckRecorded, NotDone> {
    Ok(match applied {
        None | Some(Applied::Late) => CheckRecorded::Dropped,
        Some(Applied::Stale) => CheckRecorded::Stale,
        Some(_) => CheckRecorded::Taken,
    })
}

/// Whether an answer still counts when it is proposed: meanwhile the ask may be answered by another, or the transaction parked
/// and resumed, or the binding is another one.
fn is_awaited(due: &Due, bound: Option<Bound>) -> impl FnOnce(&State, &Leader) -> bool + Send + 'static {
    let this = due.clone();
    move |state, leader| leader.schedule.is_under_way(&this) && bound.is_none_or(|bound| bound.stays(state, leader))
}

/// The record that nobody knows.
fn check_answered(due: &Due, retry_after_ms: Option<u64>, by: EndedBy, reason: String) -> CheckAnswered {
    CheckAnswered {
        transaction: due.transaction,
        check_number: due.number,
        asked_at: due.asked_at,
        retry_after_ms,
        by,
        reason,
    }
}

/// Records that nobody knows: `bound` where a component said so. Whether that counted: meanwhile the ask may have had an
/// answer, or the binding is another one. Durable then.
pub(super) async fn count_unknown(
    asker: &Asker,
    due: &Due,
    retry_after_ms: Option<u64>,
    by: EndedBy,
    reason: String,
    bound: Option<Bound>,
) -> Result<bool, NotDone> {
    count(asker, due, check_answered(due, retry_after_ms, by, reason), bound).await
}

async fn count(asker: &Asker, due: &Due, answer: CheckAnswered, bound: Option<Bound>) -> Result<bool, NotDone> {
    let applied = asker.shard.propose_one_if(is_awaited(due, bound), |out| answer.encode(out)).await?;
    Ok(matches!(applied, Some(Applied::Counted { .. })))
}

/// What was answered is on record, and the record ended the ask. If it could not be recorded, ask again; a refusal that
/// says the transaction ended meanwhile is as good as an answer.
pub(super) async fn finish(asker: &Asker, due: &Due, recorded: Result<(), NotDone>) {
    match recorded {
        Ok(()) => {}
        Err(
            NotDone::Refused(Refusal::OutcomeConflict { .. })
            | NotDone::Refused(Refusal::AlreadyEnded { .. })
            | NotDone::Refused(Refusal::TopicNotFound(_)),
        ) => {
            ask_again(asker, due, asker.clock.now()).await;
        }
        Err(refusal) => {
            tracing::warn!(transaction = %due.id, %refusal, "what was answered could not be recorded; asking again");
            ask_again(asker, due, asker.clock.now().plus_ms(ASK_AGAIN_MS)).await;
        }
    }
}

/// Nobody was asked, or nothing came of it: it is asked again then, and nothing is counted.
pub(super) async fn ask_again(asker: &Asker, due: &Due, at: Millis) {
    let due = due.clone();
    // A node that stops needs no schedule.
    let _ = asker.shard.lead(move |_, leader| leader.schedule.ask_again(&due, at)).await;
}
