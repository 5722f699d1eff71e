//! One ask, from the question to the record.

use std::sync::Arc;
use std::time::Instant;

use vouch_broker::record::EndedBy;
use vouch_broker::state::BindingEntry;
use vouch_broker::{NotDone, Refusal, State};
use vouch_plugin::{Admission, Checked, NoAnswer, Staged, Verdict};

use super::answers::{CheckRecorded, ask_again, finish, outcome_of, record};
use super::batches;
use super::binding::Bound;
use super::call_name::call_name;
use super::producers::ask_producers;
use super::span::record_half;
use super::unanswered::{Unanswered, no_answer, say_answered, tell_unanswered};
use vouch_leader::checks::{Checker, Due};

use super::{Asker, ended};
use crate::components::{Answerer, BatchAnswer, CheckQuestion, JoinedAsk};
use crate::effects::{CallRuns, Settler, is_nothing};
use vouch_leader::Leader;

/// Asks once and records what comes of it. Whatever that is, the runner looks again after it.
pub(super) async fn ask(asker: Arc<Asker>, due: Due) {
    match due.checker.clone() {
        Checker::Component { binding, entry } => ask_component(&asker, &due, &binding, &entry).await,
        Checker::Producer => ask_producers(&asker, &due).await,
    }
    asker.changed.notify_one();
}

/// What is to be done after an ask.
#[derive(PartialEq, Eq)]
enum Then {
    /// Nothing.
    Done,
    /// What the component had read is another by now: it is asked once more, and nothing counts.
    AskOnceMore,
}

/// Asks a bound component: beside others that read the same, and alone where that went wrong too often.
async fn ask_component(asker: &Arc<Asker>, due: &Due, name: &str, entry: &BindingEntry) {
    let mut runs = CallRuns::default();
    while ask_component_once(asker, due, (name, entry), &mut runs).await == Then::AskOnceMore {
        tracing::debug!(binding = name, "what the component had read is another by now; it is asked once more");
    }
}

/// What it says is recorded; where it says nothing, a live producer is asked if the binding
/// wants that, and else it is asked again later.
async fn ask_component_once(
    asker: &Arc<Asker>,
    due: &Due,
    (name, entry): (&str, &BindingEntry),
    runs: &mut CallRuns,
) -> Then {
    let settler = Settler::of(name, entry);
    let Some((answerer, answer)) = checked(asker, due, (name, entry), (&settler, runs)).await else {
        return Then::Done;
    };
    let (checked, origin, staged) = match answer {
        BatchAnswer::Checked { checked, producer, staged } => (checked, producer, staged),
        // The body cannot be read: this one is reported, the others go on (S3.f).
        BatchAnswer::NotRead(error) => {
            no_answer(asker, due, name, Unanswered::of(name, Some(entry.revision), error)).await;
            return Then::Done;
        }
    };
    let by = EndedBy::Component { binding: name.to_owned(), digest: answerer.binding.digest().to_owned() };
    let bound = Bound { name: name.to_owned(), revision: answerer.revision };
    let reason = match checked {
        Checked::Answer(verdict) => {
            answerer.answered(asker.clock.now());
            let staged = staged.map(|staged| (settler, *staged));
            return answered(asker, due, verdict, by, &bound, (staged, runs)).await;
        }
        Checked::NoAnswer(NoAnswer::NoCapacity { .. }) => {
            finish(asker, due, Err(NotDone::internal("no place was free".to_owned()))).await;
            return Then::Done;
        }
        Checked::NoAnswer(reason) => reason,
    };
    runs.leave();
    if bound.is_superseded(asker, due, "no answer").await {
        return Then::Done;
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
        ask_producers(asker, due).await;
        return Then::Done;
    }
    no_answer(asker, due, name, unanswered).await;
    Then::Done
}

/// What the binding says, as it is when it has a place for this: alone, or together with others that wait; `None` where there is
/// nothing more to do: it cannot be asked, which is told, or nobody wants to hear it any more.
async fn checked(
    asker: &Arc<Asker>,
    due: &Due,
    (name, entry): (&str, &BindingEntry),
    (settler, runs): (&Settler, &mut CallRuns),
) -> Option<(Answerer, BatchAnswer)> {
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
        // One that has to run alone goes with nobody.
        if answerer.binding.takes_batches() && !runs.is_alone() {
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
            // First the place, then its keys: whoever has some has a place, and lets go of them soon.
            tokio::select! {
                biased;
                () = ended(&due.ask) => return None,
                () = asker.stopping.cancelled() => return None,
                () = asker.effects.enter(settler, runs) => {}
            }
            let answer = ask_alone(asker, due, (&answerer, settler), admission).await;
            return answer.map(|answer| (answerer, answer));
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
async fn ask_alone(
    asker: &Asker,
    due: &Due,
    (answerer, settler): (&Answerer, &Settler),
    admission: Admission,
) -> Option<BatchAnswer> {
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
    let reach = asker.effects.reach(settler, &call_name(due));
    let (checked, staged) = admission.check_prepared(move || asking.pending(&about, half), Some(reach)).await;
    asker.metrics.check_calls.observe(began.elapsed());
    let staged = (!is_nothing(&staged)).then(|| Box::new(staged));
    Some(BatchAnswer::Checked { checked, producer, staged })
}

/// A component answered: that is recorded and counted, with what it staged, unless its binding is another one by now.
async fn answered(
    asker: &Asker,
    due: &Due,
    verdict: Verdict,
    by: EndedBy,
    bound: &Bound,
    (staged, runs): (Option<(Settler, Staged)>, &mut CallRuns),
) -> Then {
    let outcome = outcome_of(&verdict);
    tracing::debug!(verdict = outcome.as_str(), "a component answered");
    let stages = staged.is_some();
    let recorded = record(asker, due, verdict, by, bound, (staged, runs)).await;
    match &recorded {
        Ok(CheckRecorded::Stale) => return Then::AskOnceMore,
        Ok(CheckRecorded::Dropped) => {
            if bound.is_superseded(asker, due, outcome.as_str()).await {
                return Then::Done;
            }
            // Nobody waits for it any more, or the change that stood against it was refused.
            ask_again(asker, due, asker.clock.now()).await;
        }
        // There is no room for what it keeps, or no topic for what it publishes: that is no answer, and tried again later.
        Err(NotDone::Refused(refusal)) if stages && is_of_what_is_staged(refusal, due) => {
            let why = recorded.err().unwrap_or_else(|| NotDone::internal(String::new()));
            no_answer(asker, due, &bound.name, Unanswered::of(&bound.name, Some(bound.revision), why)).await;
            return Then::Done;
        }
        Ok(CheckRecorded::Taken) | Err(_) => {}
    }
    say_answered(asker, &bound.name);
    asker.metrics.checks.count(&bound.name, outcome);
    finish(asker, due, recorded.map(drop)).await;
    Then::Done
}

/// Whether an answer was refused for what was staged with it: there is no room for that, or no topic.
fn is_of_what_is_staged(refusal: &Refusal, due: &Due) -> bool {
    match refusal {
        Refusal::TooMany(_) | Refusal::NotFound(_) | Refusal::Invalid(_) => true,
        // Without its own topic the transaction is over.
        Refusal::TopicNotFound(topic) => *topic != due.topic,
        _ => false,
    }
}
