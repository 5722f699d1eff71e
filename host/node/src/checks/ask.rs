//! One ask, from the question to the record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use vouch_broker::record::{CheckAnswered, ComponentFailed, End, EndedBy};
use vouch_broker::state::Applied;
use vouch_broker::{Millis, NotDone, Refusal, ShardId, State, TransactionId, TransactionOutcome};
use vouch_plugin::{Checked, NoAnswer, Verdict};

use super::outages::{Answered as Outaged, HALVES};
use crate::metrics::{Answered, PRODUCER};
use crate::node::Inner;
use crate::plugins::Answerer;
use crate::questions::{CheckCommand, Question};
use crate::sessions::{AfterAsk, Asked};
use vouch_leader::Leader;
use vouch_leader::checks::AskError;
use vouch_leader::checks::{Ask, Checker, Due};

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
/// A transaction on which its component failed so often in a row is parked, if the same binding answered others since the
/// first of these failures (ruling 4).
const FAILURES_THAT_PARK: u32 = 10;

/// Asks once and records what comes of it.
pub(super) async fn ask(inner: Arc<Inner>, due: Due) {
    match due.checker.clone() {
        Checker::Component { binding } => ask_component(&inner, &due, &binding).await,
        Checker::Producer => ask_producers(&inner, &due).await,
    }
    inner.shared.checks_changed.notify_one();
}

/// Resolves when an ask is over.
async fn ended(ask: &Ask) {
    let (tell, told) = oneshot::channel::<()>();
    ask.at_end(move || drop(tell));
    // It is told by nothing but the end of whoever would tell it.
    let _ = told.await;
}

async fn ask_component(inner: &Arc<Inner>, due: &Due, name: &str) {
    let answerer = match inner.plugins.answerer(inner, name).await {
        Ok(answerer) => answerer,
        Err(error) => return no_answer(inner, due, name, Unanswered::of(name, error)).await,
    };
    // Many asks wait here for few places. They hold no message: that is read, and decompressed, in a place.
    let admission = tokio::select! {
        admission = answerer.binding.admit() => admission,
        () = ended(&due.ask) => return,
        () = inner.stopping.cancelled() => return,
    };
    let half = match inner.halves.get(due.transaction).await {
        Ok(half) => half,
        // The body cannot be read: this one is reported, the others go on (S3.f).
        Err(error) => return no_answer(inner, due, name, Unanswered::of(name, error)).await,
    };
    let (asking, about, origin) = (answerer.clone(), due.clone(), half.producer.clone());
    let began = Instant::now();
    let checked = admission.check_prepared(move || asking.pending(&about, half)).await;
    inner.metrics.check_calls.observe(began.elapsed());
    let by = EndedBy::Component { binding: name.to_owned(), digest: answerer.binding.digest().to_owned() };
    let recorded = match checked {
        Checked::Answer(verdict) => {
            answered(inner, name, &answerer);
            inner.metrics.checks.count(name, answer_of(&verdict));
            record(inner, due, verdict, by).await
        }
        Checked::NoAnswer(NoAnswer::NoCapacity { .. }) => Err(NotDone::internal("no place was free".to_owned())),
        Checked::NoAnswer(reason) => {
            let unanswered = Unanswered {
                by: by.to_string(),
                text: reason.to_string(),
                trace: reason.trace().to_owned(),
                failed: reason.blames_component().then_some((by, answerer.revision)),
            };
            if answerer.fallback_to_producer && inner.shared.sessions.has_producer(&due.topic, &origin) {
                let (transaction, error) = (due.transaction, unanswered.error(inner.shared.clock.now()));
                let note = move |_: &State, leader: &mut Leader| leader.schedule.note_error(transaction, error);
                // A node that stops needs no schedule.
                let _ = inner.shard.lead(note).await;
                tell_unanswered(inner, due, name, &unanswered);
                return ask_producers(inner, due).await;
            }
            return no_answer(inner, due, name, unanswered).await;
        }
    };
    finish(inner, due, recorded).await;
}

fn answer_of(verdict: &Verdict) -> Answered {
    match verdict {
        Verdict::Commit => Answered::Ended(TransactionOutcome::Committed),
        Verdict::Rollback(_) => Answered::Ended(TransactionOutcome::RolledBack),
        Verdict::Unknown { .. } => Answered::Unknown,
    }
}

/// Proposes what a component said.
async fn record(inner: &Inner, due: &Due, verdict: Verdict, by: EndedBy) -> Result<(), NotDone> {
    let (outcome, reason) = match verdict {
        Verdict::Commit => (TransactionOutcome::Committed, String::new()),
        Verdict::Rollback(reason) => (TransactionOutcome::RolledBack, reason),
        Verdict::Unknown { reason, retry_after } => {
            let clamp = |ms: u64| ms.clamp(*RETRY_AFTER_MS.start(), *RETRY_AFTER_MS.end());
            let retry_after_ms = retry_after.map(|after| clamp(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)));
            return count_unknown(inner, due, retry_after_ms, by, reason).await.map(drop);
        }
    };
    let queue = inner.routes.queue_for(&due.topic).await?;
    inner.ends.end(&End { transaction: due.transaction, outcome, queue, by, reason }).await.map(drop)
}

/// Records that nobody knows. Whether that counted: meanwhile the ask may have had an answer.
async fn count_unknown(
    inner: &Inner,
    due: &Due,
    retry_after_ms: Option<u64>,
    by: EndedBy,
    reason: String,
) -> Result<bool, NotDone> {
    let this = due.clone();
    if !inner.shard.lead(move |_, leader| leader.schedule.is_under_way(&this)).await? {
        // Meanwhile the ask was answered by another, or the transaction was parked and resumed.
        return Ok(false);
    }
    let answer = CheckAnswered {
        transaction: due.transaction,
        check_number: due.number,
        asked_at: due.asked_at,
        retry_after_ms,
        by,
        reason,
    };
    let applied = inner.shard.propose_one(|out| answer.encode(out)).await?;
    Ok(matches!(applied, Applied::Counted { .. }))
}

/// What was answered is on record, and the record ended the ask. If it could not be recorded, ask again; a refusal that
/// says the transaction ended meanwhile is as good as an answer.
async fn finish(inner: &Inner, due: &Due, recorded: Result<(), NotDone>) {
    match recorded {
        Ok(()) => {}
        Err(
            NotDone::Refused(Refusal::OutcomeConflict { .. })
            | NotDone::Refused(Refusal::AlreadyEnded { .. })
            | NotDone::Refused(Refusal::TopicNotFound(_)),
        ) => {
            ask_again(inner, due, inner.shared.clock.now()).await;
        }
        Err(refusal) => {
            let id = TransactionId { shard: ShardId::FIRST, position: due.transaction };
            tracing::warn!(transaction = %id, %refusal, "what was answered could not be recorded; asking again");
            ask_again(inner, due, inner.shared.clock.now().plus_ms(ASK_AGAIN_MS)).await;
        }
    }
}

/// An ask without an answer: who was asked, and why.
struct Unanswered {
    by: String,
    text: String,
    /// Where in the component; empty where that is not known.
    trace: String,
    /// If the component itself failed: who that was, and the revision of its binding.
    failed: Option<(EndedBy, u64)>,
}

impl Unanswered {
    /// Nobody could be asked.
    fn of(by: &str, error: NotDone) -> Self {
        Self { by: by.to_owned(), text: error.to_string(), trace: String::new(), failed: None }
    }

    fn error(&self, at: Millis) -> AskError {
        AskError { by: self.by.clone(), text: self.text.clone(), trace: self.trace.clone(), at }
    }
}

/// A component answered: other transactions on which it fails may be parked for that.
fn answered(inner: &Arc<Inner>, binding: &str, answerer: &Answerer) {
    inner.plugins.answered(binding, answerer.revision, inner.shared.clock.now());
    say_answered(inner, binding);
}

/// The end of what [`no_answer`] said of a checker, if it is over: now, or when its minute is.
fn say_answered(inner: &Arc<Inner>, checker: &str) {
    match inner.plugins.outages.answered(checker, Instant::now()) {
        Outaged::AskAgain(after) => {
            let (inner, checker) = (Arc::downgrade(inner), checker.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                if let Some(inner) = inner.upgrade() {
                    say_over(&checker, inner.plugins.outages.over(&checker));
                }
            });
        }
        now => say_over(checker, now),
    }
}

fn say_over(checker: &str, outage: Outaged) {
    if let Outaged::Over(lasted, unanswered) = outage {
        let lasted = humantime::format_duration(Duration::from_secs(lasted.as_secs()));
        tracing::info!(checker, %lasted, unanswered, "checks are answered again");
    }
}

/// Says that a checker gave no answer, also where somebody else is asked for it.
fn tell_unanswered(inner: &Inner, due: &Due, checker: &str, unanswered: &Unanswered) {
    let id = TransactionId { shard: ShardId::FIRST, position: due.transaction };
    let (by, text) = (&unanswered.by, &unanswered.text);
    match inner.plugins.outages.no_answer(checker, Instant::now()) {
        Some(count) => tracing::warn!(
            transaction = %id, topic = %due.topic, by, text, unanswered = count,
            "checks get no answer; nothing is counted, and they are asked again (said once a minute)"
        ),
        None => tracing::debug!(transaction = %id, by, text, "a check got no answer"),
    }
    inner.metrics.checks_unanswered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    inner.metrics.checks.count(if checker == HALVES { PRODUCER } else { checker }, Answered::NoAnswer);
}

/// Nothing is counted, and it is asked again later, for as long as it takes: an outage parks nothing.
async fn no_answer(inner: &Arc<Inner>, due: &Due, checker: &str, unanswered: Unanswered) {
    tell_unanswered(inner, due, checker, &unanswered);
    let (asked, error) = (due.clone(), unanswered.error(inner.shared.clock.now()));
    let revision = unanswered.failed.as_ref().map(|(_, revision)| *revision);
    let noted = inner.shard.lead(move |_, leader| leader.schedule.no_answer(&asked, error, revision)).await;
    let (Ok(Some(failing)), Some((by, _))) = (noted, unanswered.failed) else { return };
    if failing.failures >= FAILURES_THAT_PARK
        && inner.plugins.answered_since(checker, failing.binding_revision, failing.since)
    {
        let failed = ComponentFailed {
            transaction: due.transaction,
            check_number: due.number,
            binding_revision: failing.binding_revision,
            failures: failing.failures,
            by,
            error: unanswered.text,
            trace: unanswered.trace,
        };
        park(inner, failed).await;
    }
}

async fn park(inner: &Inner, failed: ComponentFailed) {
    let id = TransactionId { shard: ShardId::FIRST, position: failed.transaction };
    match inner.shard.propose_one(|out| failed.encode(out)).await {
        // What is parked is told where it is applied. Or somebody decided meanwhile, or the binding was set anew.
        Ok(_) | Err(NotDone::Refused(Refusal::AlreadyEnded { .. })) => {}
        Err(refusal) => tracing::warn!(transaction = %id, %refusal, "it could not be parked; it is asked again"),
    }
}

/// Asks live producers, one after another, until one was asked that lives on: its answer ends the ask, or its silence.
async fn ask_producers(inner: &Arc<Inner>, due: &Due) {
    let half = match inner.halves.get(due.transaction).await {
        Ok(half) => {
            say_answered(inner, HALVES);
            half
        }
        Err(error) => return no_answer(inner, due, HALVES, Unanswered::of("producer", error)).await,
    };
    let command = CheckCommand { topic: due.topic.clone(), transaction: due.transaction, half };
    let mut tried = Vec::new();
    let silent = loop {
        let note = |client: &str, question: &Question| due.ask.note(client, Arc::new(question.clone()));
        let Some(asked) = inner.shared.sessions.ask(&command, &tried, note) else {
            let at = inner.shared.clock.now().plus_ms(ASK_AGAIN_MS);
            return ask_again(inner, due, at).await;
        };
        let waited = tokio::select! {
            waited = wait_for(inner, due, &asked) => waited,
            () = ended(&due.ask) => return,
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
    if counted == Ok(true) {
        inner.metrics.checks.count(PRODUCER, Answered::Unknown);
    }
    finish(inner, due, counted.map(drop)).await;
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
    let _ = inner.shard.lead(move |_, leader| leader.schedule.ask_again(&due, at)).await;
}
