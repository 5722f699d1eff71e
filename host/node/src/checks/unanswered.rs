//! Asks without an answer: nothing is counted, and they are asked again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vouch_broker::record::{ComponentFailed, EndedBy};
use vouch_broker::{Millis, NotDone, Refusal};

use super::outages::{AfterAnswer, HALVES};
use vouch_leader::checks::AskError;
use vouch_leader::checks::Due;

use super::Asker;
use crate::components::{Answerer, BindingsThen};
use crate::metrics::{CheckOutcome, PRODUCER};

/// A transaction on which its component failed so often in a row is parked, if the same binding answered others since the
/// first of these failures (ruling 4).
const FAILURES_THAT_PARK: u32 = 10;

/// An ask without an answer: who was asked, and why.
pub(super) struct Unanswered {
    pub(super) by: String,
    pub(super) text: String,
    /// Where in the component; empty where that is not known.
    pub(super) trace: String,
    /// Revision of the binding that was asked, if one was.
    pub(super) binding: Option<u64>,
    /// If the component itself failed: who that was.
    pub(super) failed: Option<(EndedBy, Answerer)>,
}

impl Unanswered {
    /// Nobody could be asked: no producer, or not this binding.
    pub(super) fn of(by: &str, binding: Option<u64>, error: NotDone) -> Self {
        Self { by: by.to_owned(), text: error.to_string(), trace: String::new(), binding, failed: None }
    }

    /// The same, as operators see it.
    pub(super) fn error(&self, at: Millis) -> AskError {
        AskError { by: self.by.clone(), text: self.text.clone(), trace: self.trace.clone(), at }
    }
}

/// The end of what [`no_answer`] said of a checker, if it is over: now, or when its minute is.
pub(super) fn say_answered(asker: &Asker, checker: &str) {
    match asker.outages.answered(checker, Instant::now()) {
        AfterAnswer::AskAgain(after) => {
            let (outages, checker) = (Arc::downgrade(&asker.outages), checker.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                if let Some(outages) = outages.upgrade() {
                    say_over(&checker, outages.over(&checker));
                }
            });
        }
        now => say_over(checker, now),
    }
}

/// Says the end of an outage, if it is one.
fn say_over(checker: &str, outage: AfterAnswer) {
    if let AfterAnswer::Over(lasted, unanswered) = outage {
        let lasted = humantime::format_duration(Duration::from_secs(lasted.as_secs()));
        tracing::info!(checker, %lasted, unanswered, "checks are answered again");
    }
}

/// Says that a checker gave no answer, also where somebody else is asked for it.
pub(super) async fn tell_unanswered(asker: &Asker, due: &Due, checker: &str, unanswered: &Unanswered) {
    let id = due.id;
    let (by, text) = (&unanswered.by, &unanswered.text);
    let said = asker.outages.no_answer(checker, unanswered.binding, Instant::now());
    if said == Some(1) {
        forget_removed(asker).await;
    }
    match said {
        Some(count) => tracing::warn!(
            transaction = %id, topic = %due.topic, by, text, unanswered = count,
            "checks get no answer; nothing is counted, and they are asked again (said once a minute)"
        ),
        None => tracing::debug!(transaction = %id, by, text, "a check got no answer"),
    }
    asker.metrics.checks_unanswered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    asker.metrics.checks.count(if checker == HALVES { PRODUCER } else { checker }, CheckOutcome::NoAnswer);
}

/// What was said of bindings that are gone goes when the next outage begins.
async fn forget_removed(asker: &Asker) {
    // A node that stops says nothing more.
    if let Ok(then) = BindingsThen::look(&asker.shard).await {
        asker.outages.retain(|checker, revision| !then.had_lost(checker, revision));
    }
}

/// Nothing is counted, and it is asked again later, for as long as it takes: an outage parks nothing.
pub(super) async fn no_answer(asker: &Asker, due: &Due, checker: &str, unanswered: Unanswered) {
    tell_unanswered(asker, due, checker, &unanswered).await;
    let (asked, error) = (due.clone(), unanswered.error(asker.clock.now()));
    let revision = unanswered.failed.as_ref().map(|(_, answerer)| answerer.revision);
    let noted = asker.shard.lead(move |_, leader| leader.schedule.no_answer(&asked, error, revision)).await;
    let (Ok(Some(failing)), Some((by, answerer))) = (noted, unanswered.failed) else { return };
    if failing.failures >= FAILURES_THAT_PARK && answerer.answered_since(failing.since) {
        let failed = ComponentFailed {
            transaction: due.transaction,
            check_number: due.number,
            binding_revision: failing.binding_revision,
            failures: failing.failures,
            by,
            error: unanswered.text,
            trace: unanswered.trace,
        };
        park(asker, due, failed).await;
    }
}

/// Parks a transaction on which its component always fails; a decision still ends it.
async fn park(asker: &Asker, due: &Due, failed: ComponentFailed) {
    let id = due.id;
    match asker.shard.propose_one(|out| failed.encode(out)).await {
        // What is parked is told where it is applied. Or somebody decided meanwhile, or the binding was set anew.
        Ok(_) | Err(NotDone::Refused(Refusal::AlreadyEnded { .. })) => {}
        Err(refusal) => tracing::warn!(transaction = %id, %refusal, "it could not be parked; it is asked again"),
    }
}
