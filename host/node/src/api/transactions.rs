//! Transactions, as they are ended and shown.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use vouch_broker::record::EndedBy;
use vouch_broker::{ResourceName, TransactionId, TransactionOutcome};

/// Ends a transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndRequest {
    /// Topic of the half, as the caller says; `None` where it does not say (operators).
    pub topic: Option<ResourceName>,
    /// Message id of the half, as the caller says; checked if given.
    pub message_id: Option<String>,
    /// The transaction.
    pub transaction: TransactionId,
    /// What becomes of it.
    pub outcome: TransactionOutcome,
    /// Who decides.
    pub by: EndedBy,
    /// Why; empty where nobody says.
    pub reason: String,
}

/// The recorded end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndReceipt {
    /// The outcome.
    pub outcome: TransactionOutcome,
    /// It had ended that way before.
    pub repeated: bool,
}

/// State of a transaction as operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionState {
    /// Waiting for its end or its next check.
    Open,
    /// Due, and nobody is there to ask; attempts do not move.
    WaitingForChecker,
    /// No longer asked; a decision still ends it.
    Parked,
    /// Ended: visible.
    Committed,
    /// Ended: dropped.
    RolledBack,
}

/// What was last said about a transaction, or why nothing was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerView {
    /// Who.
    pub by: String,
    /// `unknown`, `commit`, `rollback`; `resume` where an operator let the asking begin again; `None` for no answer.
    pub verdict: Option<&'static str>,
    /// The reason, or the error of an ask without an answer.
    pub text: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// The last ask about a transaction that got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorView {
    /// Who was asked.
    pub by: String,
    /// What went wrong.
    pub text: String,
    /// Where in the component, innermost first; empty where that is not known.
    pub trace: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// A transaction as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionView {
    /// The transaction.
    pub transaction: TransactionId,
    /// Topic of the half.
    pub topic: String,
    /// State.
    pub state: TransactionState,
    /// Answered checks that count.
    pub checks: u32,
    /// Milliseconds since 1970; `None` for one that ended and whose half is past its retention, as are its keys then.
    pub opened_at_ms: Option<u64>,
    /// Milliseconds since 1970; `None` if no check is planned.
    pub next_check_at_ms: Option<u64>,
    /// Milliseconds since 1970; `None` while open.
    pub ended_at_ms: Option<u64>,
    /// Who was asked or decided, and what came of it.
    pub last_answer: Option<AnswerView>,
    /// The last error of an ask, whatever was answered or decided since. What is not in the log is forgotten with a restart,
    /// or after 20 000 errors of other transactions.
    pub last_error: Option<ErrorView>,
    /// Why it is parked.
    pub parked_because: Option<String>,
    /// Client id of the producer.
    pub producer: String,
    /// Message id of the half.
    pub message_id: String,
    /// Keys of the half.
    pub keys: Vec<String>,
}

/// The end of a page of transactions, where the next one begins. A transaction that ends between two pages moves to
/// the ended ones; the open ones behind it are not missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionMark {
    /// After this one, which was open.
    Open(TransactionId),
    /// After this one, which had ended.
    Ended(TransactionId),
}

/// Which transactions to list.
#[derive(Clone, Debug, Default)]
pub struct TransactionQuery {
    /// Only in this state.
    pub state: Option<TransactionState>,
    /// Only of this topic.
    pub topic: Option<ResourceName>,
    /// Only opened at least this long ago.
    pub older_than: Option<Duration>,
    /// Go on here.
    pub after: Option<TransactionMark>,
    /// At most this many, 1 to 1000.
    pub limit: usize,
}

/// What an operator decides about a transaction.
impl EndRequest {
    /// A decision of an operator.
    pub fn by_operator(transaction: TransactionId, outcome: TransactionOutcome, name: String, reason: String) -> Self {
        Self { topic: None, message_id: None, transaction, outcome, by: EndedBy::Operator { name }, reason }
    }
}
