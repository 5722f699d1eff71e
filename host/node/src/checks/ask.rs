//! One ask, from the question to the record.

use std::sync::Arc;
use std::time::Instant;

use vouch_broker::record::EndedBy;
use vouch_broker::state::BindingEntry;
use vouch_broker::{NotDone, State};
use vouch_plugin::{Admission, Checked, NoAnswer, Verdict};

use super::answers::{ask_again, finish, outcome_of, record};
use super::binding::Bound;
use super::producers::ask_producers;
use super::span::record_half;
use super::unanswered::{Unanswered, no_answer, say_answered, tell_unanswered};
use vouch_leader::checks::{Checker, Due};

use super::{Asker, ended};
use crate::components::Answerer;
use vouch_leader::Leader;

/// Asks once and records what comes of it. Whatever that is, the runner looks again after it.
pub(super) async fn ask(asker: Arc<Asker>, due: Due) {
    match due.checker.clone() {
        Checker::Component { binding, entry } => ask_component(&asker, &due, &binding, &entry).await,
        Checker::Producer => ask_producers(&asker, &due).await,
    }
    asker.changed.notify_one();
}

/// Asks a bound component. What it says is recorded; where it says nothing, a live producer is asked if the binding
/// wants that, and else it is asked again later.
async fn ask_component(asker: &Asker, due: &Due, name: &str, entry: &BindingEntry) {
    let Some((answerer, admission)) = admitted(asker, due, name, entry).await else { return };
    let half = match asker.halves.get(due.transaction).await {
        Ok(half) => half,
        // The body cannot be read: this one is reported, the others go on (S3.f).
        Err(error) => return no_answer(asker, due, name, Unanswered::of(name, Some(entry.revision), error)).await,
    };
    if due.ask.is_over() {
        return;
    }
    record_half(&half);
    let (asking, about, origin) = (answerer.clone(), due.clone(), half.producer.clone());
    let began = Instant::now();
    let checked = admission.check_prepared(move || asking.pending(&about, half)).await;
    asker.metrics.check_calls.observe(began.elapsed());
    let by = EndedBy::Component { binding: name.to_owned(), digest: answerer.binding.digest().to_owned() };
    let bound = Bound { name: name.to_owned(), revision: answerer.revision };
    let reason = match checked {
        Checked::Answer(verdict) => {
            answerer.answered(asker.clock.now());
            return answered(asker, due, verdict, by, &bound).await;
        }
        Checked::NoAnswer(NoAnswer::NoCapacity { .. }) => {
            return finish(asker, due, Err(NotDone::internal("no place was free".to_owned()))).await;
        }
        Checked::NoAnswer(reason) => reason,
    };
    if bound.is_superseded(asker, due, "no answer").await {
        return;
    }
    let unanswered = Unanswered {
        by: by.to_string(),
        text: reason.to_string(),
        trace: reason.trace().to_owned(),
        binding: Some(answerer.revision),
        failed: reason.blames_component().then(|| (by, answerer.clone())),
    };
    if answerer.fallback_to_producer && asker.sessions.has_producer(&due.topic, &origin) {
        let (transaction, error) = (due.transaction, unanswered.error(asker.clock.now()));
        let note = move |_: &State, leader: &mut Leader| leader.schedule.note_error(transaction, error);
        // A node that stops needs no schedule.
        let _ = asker.shard.lead(note).await;
        tell_unanswered(asker, due, name, &unanswered).await;
        return ask_producers(asker, due).await;
    }
    no_answer(asker, due, name, unanswered).await;
}

/// A place of the binding as it is when one is free; `None` where there is nothing more to do: it cannot be asked, which is told, or
/// nobody wants to hear it any more.
async fn admitted(asker: &Asker, due: &Due, name: &str, entry: &BindingEntry) -> Option<(Answerer, Admission)> {
    loop {
        let answerer = match asker.bound.answerer(name, entry).await {
            Ok(answerer) => answerer,
            // It is another one by now, and nobody asks this one any more.
            Err(_) if due.ask.is_over() => return None,
            Err(error) => {
                no_answer(asker, due, name, Unanswered::of(name, Some(entry.revision), error)).await;
                return None;
            }
        };
        // Many asks wait here for few places. They hold no message: that is read, and decompressed, in a place.
        // First whether the ask is over: a place that is free at last is not for a binding that is gone.
        let admission = tokio::select! {
            biased;
            () = ended(&due.ask) => return None,
            () = asker.stopping.cancelled() => return None,
            admission = answerer.binding.admit() => admission,
        };
        // A secret may have got another value while this waited: from then on that one is used.
        if entry.secrets.is_empty() || asker.bound.is_current(name, entry, &answerer).await {
            return Some((answerer, admission));
        }
    }
}

/// A component answered: that is recorded and counted, unless its binding is another one by now.
async fn answered(asker: &Asker, due: &Due, verdict: Verdict, by: EndedBy, bound: &Bound) {
    let outcome = outcome_of(&verdict);
    tracing::debug!(verdict = outcome.as_str(), "a component answered");
    let recorded = record(asker, due, verdict, by, bound).await;
    if recorded == Ok(false) {
        if bound.is_superseded(asker, due, outcome.as_str()).await {
            return;
        }
        // Nobody waits for it any more, or the change that stood against it was refused.
        ask_again(asker, due, asker.clock.now()).await;
    }
    say_answered(asker, &bound.name);
    asker.metrics.checks.count(&bound.name, outcome);
    finish(asker, due, recorded.map(drop)).await;
}
