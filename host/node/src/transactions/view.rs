//! A transaction as operators see it.

use vouch_broker::record::End;
use vouch_broker::state::{Ended, Failure, OpenTransaction};
use vouch_broker::{HalfPosition, Millis, RecordPosition, State, TransactionId, TransactionOutcome};
use vouch_commitlog::LogReader;

use crate::names::topic_text;
use crate::stored;
use crate::{AnswerView, ErrorView, TransactionState, TransactionView};
use vouch_leader::Leader;

/// A transaction as the executor knows it; what the half's record says is read outside.
pub(crate) struct TransactionRow {
    transaction: TransactionId,
    /// Where its half lies, if it still does.
    half: RecordPosition,
    topic: String,
    pub(super) state: TransactionState,
    open: Option<OpenTransaction>,
    ended: Option<Ended>,
    /// When an ask since the last answer got none.
    no_answer_at: Option<Millis>,
    last_error: Option<ErrorView>,
    next_check_at: Option<Millis>,
}

impl TransactionRow {
    /// The row with what the records of the half and of the end say. Reads both and verifies them.
    pub(super) fn view(self, log: &LogReader) -> TransactionView {
        let half = stored::message(log, self.half).ok().map(|(_, half)| half);
        let last = self.open.as_ref().and_then(|open| {
            let answer = open.last_answer.as_deref()?;
            Some(AnswerView {
                by: answer.by.clone(),
                verdict: Some(if open.is_resumed() { "resume" } else { "unknown" }),
                text: answer.reason.clone(),
                at_ms: answer.at.0,
            })
        });
        let no_answer = self.no_answer_at.map(|at| no_answer(at, self.last_error.as_ref()));
        let newer = [no_answer, last].into_iter().flatten().max_by_key(|answer| answer.at_ms);
        let decided = self.ended.and_then(|ended| decision(log, &ended));
        TransactionView {
            transaction: self.transaction,
            topic: self.topic,
            state: self.state,
            checks: self.open.as_ref().map(|open| open.checks).or(self.ended.map(|ended| ended.checks)).unwrap_or(0),
            opened_at_ms: half
                .as_ref()
                .map(|half| half.stored_at.0)
                .or(self.open.as_ref().map(|open| open.opened_at.0)),
            next_check_at_ms: self.next_check_at.map(|at| at.0),
            ended_at_ms: self.ended.map(|ended| ended.at.0),
            last_answer: decided.or(newer),
            last_error: self.last_error,
            parked_because: self.open.and_then(|open| open.parked).map(|parked| parked.reason.into()),
            producer: half.as_ref().map_or_else(String::new, |half| half.producer.clone()),
            message_id: half.as_ref().map_or_else(String::new, |half| half.message.message_id.clone()),
            keys: half.map_or_else(Vec::new, |half| half.message.keys),
        }
    }
}

/// A transaction that is open, or whose outcome is remembered.
pub(super) fn row(state: &State, leader: &Leader, transaction: HalfPosition, now: Millis) -> Option<TransactionRow> {
    let open = state.open_transactions().get(transaction);
    match open {
        Some(open) => Some(open_row(state, leader, transaction, open, now)),
        None => state.outcomes().get(transaction).map(|ended| ended_row(state, leader, transaction, ended)),
    }
}

/// A transaction that is open: what the state has of it, and what the leader knows of asks about it.
pub(super) fn open_row(
    at: &State,
    leader: &Leader,
    transaction: HalfPosition,
    open: &OpenTransaction,
    now: Millis,
) -> TransactionRow {
    let no_answers = leader.schedule.no_answers(transaction);
    let state = if open.parked.is_some() {
        TransactionState::Parked
    } else if open.next_due <= now && leader.schedule.is_without_checker(open.topic) {
        TransactionState::WaitingForChecker
    } else {
        TransactionState::Open
    };
    let next = no_answers.map_or(open.next_due, |no_answers| no_answers.next_at.max(open.next_due));
    TransactionRow {
        transaction: at.incarnations().transaction_id(transaction),
        half: at.place_of_half(transaction).unwrap_or(transaction.first_place()),
        topic: topic_text(at, open.topic),
        state,
        open: Some(open.clone()),
        ended: None,
        no_answer_at: no_answers.map(|no_answers| no_answers.last_at).or(open
            .failure
            .as_ref()
            .filter(|_| open.parked.is_some())
            .map(|failure| failure.at)),
        last_error: last_error(leader, transaction, open.failure.as_deref()),
        next_check_at: Some(next).filter(|at| *at != Millis::NEVER),
    }
}

/// One that ended, for as long as its outcome is remembered.
pub(super) fn ended_row(at: &State, leader: &Leader, transaction: HalfPosition, ended: &Ended) -> TransactionRow {
    let state = match ended.outcome {
        TransactionOutcome::Committed => TransactionState::Committed,
        TransactionOutcome::RolledBack => TransactionState::RolledBack,
    };
    let topic = topic_text(at, ended.topic);
    let half = transaction.first_place();
    TransactionRow {
        transaction: at.incarnations().transaction_id(transaction),
        half,
        topic,
        state,
        open: None,
        ended: Some(*ended),
        no_answer_at: None,
        last_error: last_error(leader, transaction, None),
        next_check_at: None,
    }
}

/// The last error of asks about a transaction: what this node saw, or what the log says.
fn last_error(leader: &Leader, transaction: HalfPosition, failure: Option<&Failure>) -> Option<ErrorView> {
    let seen = leader.schedule.last_error(transaction).map(|error| ErrorView {
        by: error.by.clone(),
        text: error.text.clone(),
        trace: error.trace.clone(),
        at_ms: error.at.0,
    });
    let recorded = failure.map(|failure| ErrorView {
        by: failure.by.clone(),
        text: failure.error.clone(),
        trace: failure.trace.clone(),
        at_ms: failure.at.0,
    });
    // What the log says was written a moment after it was heard: the later one is shown now and after a restart.
    [seen, recorded].into_iter().flatten().max_by_key(|error| error.at_ms)
}

/// An ask without an answer, as the last that was heard of a transaction.
fn no_answer(at: Millis, error: Option<&ErrorView>) -> AnswerView {
    let (by, text) = match error {
        Some(error) => (error.by.clone(), error.text.clone()),
        None => (String::new(), "no answer; of so many transactions without one the words are not kept".to_owned()),
    };
    AnswerView { by, verdict: None, text, at_ms: at.0 }
}

/// Who ended a transaction and why, from the record that did.
fn decision(log: &LogReader, ended: &Ended) -> Option<AnswerView> {
    let End { outcome, by, reason, .. } = stored::end(log, ended.record).ok()?;
    let verdict = match outcome {
        TransactionOutcome::Committed => "commit",
        TransactionOutcome::RolledBack => "rollback",
    };
    Some(AnswerView { by: by.to_string(), verdict: Some(verdict), text: reason, at_ms: ended.at.0 })
}
