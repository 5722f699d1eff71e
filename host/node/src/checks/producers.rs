//! Asking live producers over their streams (rulings 1 and 2).

use std::sync::Arc;
use std::time::{Duration, Instant};

use vouch_broker::record::EndedBy;

use super::answers::{ASK_AGAIN_MS, ask_again, count_unknown, finish};
use super::outages::HALVES;
use super::span::{record_client, record_half};
use super::unanswered::{Unanswered, no_answer, say_answered};
use vouch_leader::checks::Due;

use super::{Asker, ended};
use crate::metrics::{CheckOutcome, PRODUCER};
use crate::sessions::{AfterAsk, Asked};
use crate::sessions::{CheckCommand, Question};

/// A producer that lives on for this long without a call for the ask is *silent* (ruling 1).
const SILENCE: Duration = Duration::from_secs(15);
/// A stream that did not take the question for this long is not read; another one is asked.
const UNREAD: Duration = Duration::from_secs(5);
/// How often to look what became of a question. Takes a lock for a moment and asks nobody.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Asks live producers, one after another, until one was asked that lives on: its answer ends the ask, or its silence.
pub(super) async fn ask_producers(asker: &Asker, due: &Due) {
    let half = match asker.halves.get(due.transaction).await {
        Ok(half) => {
            say_answered(asker, HALVES);
            record_half(&half);
            half
        }
        Err(error) => return no_answer(asker, due, HALVES, Unanswered::of("producer", None, error)).await,
    };
    let command = CheckCommand { topic: due.topic.clone(), transaction: due.id, half };
    let mut tried = Vec::new();
    let silent = loop {
        let note = |client: &str, question: &Question| due.ask.note(client, Arc::new(question.clone()));
        let Some(asked) = asker.sessions.ask(&command, &tried, note) else {
            let at = asker.clock.now().plus_ms(ASK_AGAIN_MS);
            return ask_again(asker, due, at).await;
        };
        record_client(&asked.client_id);
        tracing::debug!(client_id = asked.client_id, "a producer is asked");
        let waited = tokio::select! {
            waited = wait_for(asker, due, &asked) => waited,
            () = ended(&due.ask) => return,
            () = asker.stopping.cancelled() => return,
        };
        match waited {
            Waited::Silent => break asked.client_id,
            // That one was not asked, or is gone: it has not answered, and somebody else may.
            Waited::InVain => tried.push(asked.stream),
        }
    };
    let by = EndedBy::Silence { client_id: silent.clone() };
    let counted = count_unknown(asker, due, None, by, "unknown (silent)".to_owned(), None).await;
    if counted == Ok(true) {
        tracing::debug!(client_id = silent, checks = due.number, "a producer said nothing; that counts as unknown");
        asker.metrics.checks.count(PRODUCER, CheckOutcome::Unknown);
    }
    finish(asker, due, counted.map(drop)).await;
}

/// What came of waiting for a producer that was asked.
enum Waited {
    /// It read the question, lives, and does not say.
    Silent,
    /// It never read the question, or is gone.
    InVain,
}

/// Waits for what becomes of a question, for as long as a live client may be silent, or one that does not read may hold
/// it.
async fn wait_for(asker: &Asker, due: &Due, asked: &Asked) -> Waited {
    let step = Duration::from_millis(due.step_ms);
    let (silence, unread) = (SILENCE.min(step), Instant::now() + UNREAD.min(step));
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match asker.sessions.after_ask(asked, silence, Instant::now()) {
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
