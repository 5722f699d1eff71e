//! One ask, from the question to the record.

use std::sync::Arc;
use std::time::Instant;

use vouch_broker::record::EndedBy;
use vouch_broker::state::BindingEntry;
use vouch_broker::{NotDone, State};
use vouch_plugin::{Admission, Checked, NoAnswer, Verdict};

use super::answers::{ask_again, finish, outcome_of, record};
use super::batches;
use super::binding::Bound;
use super::producers::ask_producers;
use super::span::record_half;
use super::unanswered::{Unanswered, no_answer, say_answered, tell_unanswered};
use vouch_leader::checks::{Checker, Due};

use super::{Asker, ended};
use crate::components::{Answerer, BatchAnswer, CheckQuestion, JoinedAsk};
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
async fn ask_component(asker: &Arc<Asker>, due: &Due, name: &str, entry: &BindingEntry) {
    let Some((answerer, answer)) = checked(asker, due, name, entry).await else { return };
    let (checked, origin) = match answer {
        BatchAnswer::Checked { checked, producer } => (checked, producer),
        // The body cannot be read: this one is reported, the others go on (S3.f).
        BatchAnswer::NotRead(error) => {
            return no_answer(asker, due, name, Unanswered::of(name, Some(entry.revision), error)).await;
        }
    };
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

/// What the binding says, as it is when it has a place for this: alone, or together with others that wait; `None` where there is
/// nothing more to do: it cannot be asked, which is told, or nobody wants to hear it any more.
async fn checked(asker: &Arc<Asker>, due: &Due, name: &str, entry: &BindingEntry) -> Option<(Answerer, BatchAnswer)> {
    // Where asks go together: where this one waits.
    let mut joined: Option<JoinedAsk> = None;
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
        if answerer.binding.takes_batches() {
            joined.get_or_insert_with(|| answerer.batches.join(due.clone()));
        }
        // Many asks wait here for few places. They hold no message: that is read, and decompressed, in a place.
        // First whether the ask is over: a place that is free at last is not for a binding that is gone.
        let admission = tokio::select! {
            biased;
            () = ended(&due.ask) => return None,
            () = asker.stopping.cancelled() => return None,
            () = taken(&mut joined) => None,
            admission = answerer.binding.admit() => Some(admission),
        };
        let Some(admission) = admission else {
            let answer = told(asker, due, joined?).await?;
            return Some((answerer, answer));
        };
        // A secret may have got another value while this waited: from then on that one is used.
        if !entry.secrets.is_empty() && !asker.bound.is_current(name, entry, &answerer).await {
            // Its place in the line is another one then.
            joined = None;
            continue;
        }
        if joined.is_none() {
            return ask_alone(asker, due, &answerer, admission).await.map(|answer| (answerer, answer));
        }
        // On its own, so that each is told as soon as there is something to tell. This one is among them, or waits for another place.
        tokio::spawn(batches::ask_waiting(asker.clone(), answerer, admission));
        tokio::task::yield_now().await;
    }
}

/// Resolves when an ask was taken along with others; never, where it does not go with any.
async fn taken(joined: &mut Option<JoinedAsk>) {
    match joined {
        // Taken, or forgotten since it is over: then nobody waits here either.
        Some(joined) => drop((&mut joined.taken).await),
        None => std::future::pending().await,
    }
}

/// What came of an ask that went with others; `None` where nobody wants to hear it any more.
async fn told(asker: &Asker, due: &Due, joined: JoinedAsk) -> Option<BatchAnswer> {
    let told = tokio::select! {
        biased;
        () = ended(&due.ask) => return None,
        () = asker.stopping.cancelled() => return None,
        told = joined.answer => told,
    };
    // Whoever asked for all of them may be gone, without a word.
    let unasked = |_| BatchAnswer::NotRead(NotDone::internal("the call about several was not made".to_owned()));
    Some(told.unwrap_or_else(unasked))
}

/// Asks about this one alone; `None` where nobody wants to hear it any more.
async fn ask_alone(asker: &Asker, due: &Due, answerer: &Answerer, admission: Admission) -> Option<BatchAnswer> {
    let half = match asker.halves.get(due.transaction).await {
        Ok(half) => half,
        Err(error) => return Some(BatchAnswer::NotRead(error)),
    };
    if due.ask.is_over() {
        return None;
    }
    record_half(&half);
    let (asking, about, producer) = (answerer.clone(), CheckQuestion::from(due), half.producer.clone());
    let began = Instant::now();
    let checked = admission.check_prepared(move || asking.pending(&about, half)).await;
    asker.metrics.check_calls.observe(began.elapsed());
    Some(BatchAnswer::Checked { checked, producer })
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
