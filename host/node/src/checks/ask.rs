//! One ask, from the question to the record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vouch_broker::record::{CheckAnswered, End, EndedBy, Park};
use vouch_broker::{Millis, Refusal, TransactionId, TransactionOutcome};
use vouch_plugin::{Checked, NoAnswer, Verdict};

use super::{Checker, Due};
use crate::node::Inner;
use crate::plugins::Answerer;
use crate::questions::CheckCommand;
use crate::sessions::{AfterAsk, Asked};

/// A producer that lives on for this long without a call for the ask is *silent* (ruling 1).
const SILENCE: Duration = Duration::from_secs(15);
/// A stream that did not take the question for this long is not read; another one is asked.
const UNREAD: Duration = Duration::from_secs(5);
/// How often to look what became of a question. Takes a lock for a moment and asks nobody.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Pause before a transaction is looked at again whose producers went away.
const ASK_AGAIN_MS: u64 = 1000;
/// A verdict's retry-after is clamped to this range (ruling 3).
const RETRY_AFTER_MS: std::ops::RangeInclusive<u64> = 1000..=24 * 60 * 60 * 1000;
/// So many asks in a row without an answer park a transaction whose component answers others (ruling 4).
const NO_ANSWERS_THAT_PARK: u32 = 10;

/// Asks once and records what comes of it.
pub(super) async fn ask(inner: Arc<Inner>, due: Due) {
    match due.checker.clone() {
        Checker::Component { binding } => ask_component(&inner, &due, &binding).await,
        Checker::Producer => ask_producers(&inner, &due).await,
    }
    inner.shared.checks_changed.notify_one();
}

async fn ask_component(inner: &Arc<Inner>, due: &Due, name: &str) {
    let answerer = match inner.plugins.answerer(inner, name).await {
        Ok(answerer) => answerer,
        Err(error) => return no_answer(inner, due, None, name.to_owned(), error.to_string()).await,
    };
    // Many asks wait here for few places. They hold no message: that is read, and decompressed, in a place.
    let admission = tokio::select! {
        admission = answerer.binding.admit() => admission,
        () = due.ask.ended() => return,
        () = inner.stopping.cancelled() => return,
    };
    let half = match inner.half(due.transaction).await {
        Ok(half) => half,
        // The body cannot be read: this one is reported, the others go on (S3.f).
        Err(error) => return no_answer(inner, due, None, name.to_owned(), error.to_string()).await,
    };
    let (asking, about, origin) = (answerer.clone(), due.clone(), half.producer.clone());
    let checked = admission.check_prepared(move || asking.pending(&about, half)).await;
    let by = EndedBy::Component { binding: name.to_owned(), digest: answerer.binding.digest().to_owned() };
    let recorded = match checked {
        Checked::Answer(verdict) => {
            inner.plugins.answered(answerer.binding.digest(), inner.shared.clock.now());
            record(inner, due, verdict, by).await
        }
        Checked::NoAnswer(NoAnswer::NoCapacity { .. }) => Err(Refusal::Internal("no place was free".to_owned())),
        Checked::NoAnswer(reason) => {
            if answerer.fallback_to_producer && inner.shared.sessions.has_producer(&due.topic, &origin) {
                return ask_producers(inner, due).await;
            }
            return no_answer(inner, due, Some(&answerer), by.to_string(), reason.to_string()).await;
        }
    };
    finish(inner, due, recorded).await;
}

/// Proposes what a component said.
async fn record(inner: &Inner, due: &Due, verdict: Verdict, by: EndedBy) -> Result<(), Refusal> {
    let (outcome, reason) = match verdict {
        Verdict::Commit => (TransactionOutcome::Committed, String::new()),
        Verdict::Rollback(reason) => (TransactionOutcome::RolledBack, reason),
        Verdict::Unknown { reason, retry_after } => {
            let clamp = |ms: u64| ms.clamp(*RETRY_AFTER_MS.start(), *RETRY_AFTER_MS.end());
            let retry_after_ms = retry_after.map(|after| clamp(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)));
            return count_unknown(inner, due, retry_after_ms, by, reason).await;
        }
    };
    let queue = inner.queue_for(&due.topic).await?;
    inner.end(&End { transaction: due.transaction, outcome, queue, by, reason }).await.map(drop)
}

async fn count_unknown(
    inner: &Inner,
    due: &Due,
    retry_after_ms: Option<u64>,
    by: EndedBy,
    reason: String,
) -> Result<(), Refusal> {
    let this = due.clone();
    if !inner.shard.query(move |executor| executor.schedule.is_under_way(&this)).await? {
        // Meanwhile the ask was answered by another, or the transaction was parked and resumed.
        return Ok(());
    }
    let answer = CheckAnswered {
        transaction: due.transaction,
        check_number: due.number,
        asked_at: due.asked_at,
        retry_after_ms,
        by,
        reason,
    };
    inner.shard.propose_one(|out| answer.encode(out)).await.map(drop)
}

/// What was answered is on record, and the record ended the ask. If it could not be recorded, ask again; a refusal that
/// says the transaction ended meanwhile is as good as an answer.
async fn finish(inner: &Inner, due: &Due, recorded: Result<(), Refusal>) {
    match recorded {
        Ok(()) => {}
        Err(Refusal::OutcomeConflict { .. } | Refusal::AlreadyEnded { .. } | Refusal::TopicNotFound(_)) => {
            ask_again(inner, due, inner.shared.clock.now()).await;
        }
        Err(refusal) => {
            let id = TransactionId { shard: 0, position: due.transaction };
            tracing::warn!(transaction = %id, %refusal, "what was answered could not be recorded; asking again");
            ask_again(inner, due, inner.shared.clock.now().plus_ms(ASK_AGAIN_MS)).await;
        }
    }
}

async fn no_answer(inner: &Arc<Inner>, due: &Due, answerer: Option<&Answerer>, by: String, text: String) {
    let id = TransactionId { shard: 0, position: due.transaction };
    tracing::warn!(transaction = %id, by, text, "a check got no answer; nothing is counted");
    let (transaction, now, asked) = (due.transaction, inner.shared.clock.now(), due.clone());
    inner.metrics.checks_unanswered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let noted = inner.shard.query(move |executor| executor.schedule.no_answer(&asked, now, by, text)).await;
    let (Ok(Some((count, since))), Some(answerer)) = (noted, answerer) else { return };
    let answers_others = inner.plugins.answered_since(answerer.binding.digest(), since);
    if count >= NO_ANSWERS_THAT_PARK && answers_others {
        let park = Park { transaction, reason: "no answer".to_owned() };
        let parked = inner.shard.propose_one(|out| park.encode(out)).await;
        tracing::warn!(transaction = %id, count, recorded = parked.is_ok(), "parked: its component answers others");
    }
}

/// Asks live producers, one after another, until one was asked that lives on: its answer ends the ask, or its silence.
async fn ask_producers(inner: &Arc<Inner>, due: &Due) {
    let half = match inner.half(due.transaction).await {
        Ok(half) => half,
        Err(error) => return no_answer(inner, due, None, "producer".to_owned(), error.to_string()).await,
    };
    let command = CheckCommand { topic: due.topic.clone(), transaction: due.transaction, half };
    let mut tried = Vec::new();
    let silent = loop {
        let note = |client: &str, question: &_| due.ask.note(client, question);
        let Some(asked) = inner.shared.sessions.ask(&command, &tried, note) else {
            let at = inner.shared.clock.now().plus_ms(ASK_AGAIN_MS);
            return ask_again(inner, due, at).await;
        };
        let waited = tokio::select! {
            waited = wait_for(inner, due, &asked) => waited,
            () = due.ask.ended() => return,
            () = inner.stopping.cancelled() => return,
        };
        match waited {
            Waited::Silent => break asked.client_id,
            // That one was not asked, or is gone: it has not answered, and somebody else may.
            Waited::InVain => tried.push(asked.stream),
        }
    };
    let by = EndedBy::Silence { client_id: silent };
    let counted = count_unknown(inner, due, None, by, "unknown (silent)".to_owned()).await;
    finish(inner, due, counted).await;
}

/// What came of waiting for a producer that was asked.
enum Waited {
    /// It read the question, lives, and does not say.
    Silent,
    /// It never read the question, or is gone.
    InVain,
}

async fn wait_for(inner: &Inner, due: &Due, asked: &Asked) -> Waited {
    let step = Duration::from_millis(due.step_ms);
    let (silence, unread) = (SILENCE.min(step), Instant::now() + UNREAD.min(step));
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match inner.shared.sessions.after_ask(asked, silence, Instant::now()) {
            AfterAsk::Silent => return Waited::Silent,
            AfterAsk::Lost => {
                asked.question.withdraw();
                return Waited::InVain;
            }
            AfterAsk::Unread if Instant::now() >= unread && asked.question.withdraw() => return Waited::InVain,
            AfterAsk::Unread | AfterAsk::NotYet => {}
        }
    }
}

async fn ask_again(inner: &Inner, due: &Due, at: Millis) {
    let due = due.clone();
    // A node that stops needs no schedule.
    let _ = inner.shard.query(move |executor| executor.schedule.ask_again(&due, at)).await;
}
