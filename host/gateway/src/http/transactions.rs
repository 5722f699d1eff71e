//! `/v1/transactions`: open, parked and ended ones, and an operator's decision.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vouch_broker::{Refusal, ResourceName, TransactionId, TransactionOutcome};
use vouch_node::{
    AnswerView, EndRequest, ErrorView, TransactionMark, TransactionQuery, TransactionState, TransactionView,
};

use super::App;
use super::answer::{self, time};
use super::problem::Problem;
use super::request::{Params, PathNames, document, object};

/// Longest name of who decides, in bytes.
pub(crate) const BY_MAX_BYTES: usize = 256;
/// Longest reason of a decision, in bytes.
pub(crate) const REASON_MAX_BYTES: usize = 4096;
/// Tells the mark of an ended transaction from that of an open one.
const ENDED_MARK: &str = "ended-";

/// A transaction as JSON.
#[derive(Serialize)]
pub(crate) struct TransactionDocument {
    /// As clients have it.
    id: String,
    /// Where the message goes when it is committed.
    topic: String,
    state: TransactionState,
    /// Answered checks that count.
    checks: u32,
    /// Null for one that ended and whose half message is past its retention.
    opened_at: Option<String>,
    /// Null where nobody will be asked.
    next_check_at: Option<String>,
    ended_at: Option<String>,
    /// Who answered last and what, or who decided.
    last_answer: Option<Value>,
    /// The last ask that got no answer, whatever was answered since.
    last_error: Option<Value>,
    /// Why nobody is asked any more.
    parked_because: Option<String>,
    message_id: String,
    keys: Vec<String>,
    producer: String,
}

impl TransactionDocument {
    /// Times are written in UTC.
    pub(crate) fn new(view: TransactionView) -> Self {
        Self {
            id: view.transaction.to_string(),
            topic: view.topic,
            state: view.state,
            checks: view.checks,
            opened_at: view.opened_at_ms.map(time),
            next_check_at: view.next_check_at_ms.map(time),
            ended_at: view.ended_at_ms.map(time),
            last_answer: view.last_answer.map(last_answer),
            last_error: view.last_error.map(last_error),
            parked_because: view.parked_because,
            message_id: view.message_id,
            keys: view.keys,
            producer: view.producer,
        }
    }
}

/// Either a verdict with its reason, if there is one, or the error of an ask without an answer.
fn last_answer(answer: AnswerView) -> Value {
    let AnswerView { by, verdict, text, at_ms } = answer;
    let at = time(at_ms);
    match verdict {
        None => json!({"by": by, "error": text, "at": at}),
        Some(verdict) if text.is_empty() => json!({"by": by, "verdict": verdict, "at": at}),
        Some(verdict) => json!({"by": by, "verdict": verdict, "reason": text, "at": at}),
    }
}

/// What went wrong, with the trace of a component that trapped.
fn last_error(ErrorView { by, text, trace, at_ms }: ErrorView) -> Value {
    let mut error = json!({"by": by, "error": text, "at": time(at_ms)});
    if !trace.is_empty() {
        error["trace"] = trace.into();
    }
    error
}

/// The transaction of this node that an id names.
fn named(app: &App, id: &str) -> Result<TransactionId, Problem> {
    let parsed: TransactionId = id.parse()?;
    if parsed.shard != app.node.identity.shard {
        let why = format!("its shard {} is not served by this node", parsed.shard);
        return Err(Refusal::UnknownTransaction { id: id.to_owned(), why }.into());
    }
    Ok(parsed)
}

/// # Errors
/// There is no such transaction, or its outcome is forgotten.
async fn found(app: &App, transaction: TransactionId) -> Result<TransactionDocument, Problem> {
    Ok(TransactionDocument::new(app.node.transactions.get(transaction).await?))
}

/// # Errors
/// It is none; all of them are named.
fn state(text: &str) -> Result<TransactionState, String> {
    Ok(match text {
        "open" => TransactionState::Open,
        "waiting_for_checker" => TransactionState::WaitingForChecker,
        "parked" => TransactionState::Parked,
        "committed" => TransactionState::Committed,
        "rolled_back" => TransactionState::RolledBack,
        _ => return Err("it must be open, waiting_for_checker, parked, committed or rolled_back".to_owned()),
    })
}

/// Reads the `next` of a page.
fn mark(app: &App, text: &str) -> Result<TransactionMark, String> {
    let (ended, id) = text.strip_prefix(ENDED_MARK).map_or((false, text), |id| (true, id));
    let wrong = |_| "give the `next` of the page before, or leave it out".to_owned();
    let after = named(app, id).map_err(wrong)?;
    Ok(if ended { TransactionMark::Ended(after) } else { TransactionMark::Open(after) })
}

/// `GET /v1/transactions`: open ones first, in the order in which they were opened, then ended ones in
/// the order in which they ended.
pub(crate) async fn list(State(app): State<Arc<App>>, params: Params) -> Result<Response, Problem> {
    let page = params.page()?;
    let after = params.read("after", |text| mark(&app, text))?;
    let mut query = TransactionQuery {
        state: params.read("state", state)?,
        topic: params.text("topic").map(ResourceName::parse),
        older_than: params.duration("older_than")?,
        after,
        limit: page.limit,
    };
    let views = app.node.transactions.list(query.clone()).await?;
    let next = match views.last().filter(|_| views.len() == page.limit) {
        Some(last) => {
            let ended = last.ended_at_ms.is_some();
            let id = last.transaction;
            let mark = if ended { TransactionMark::Ended(id) } else { TransactionMark::Open(id) };
            (query.after, query.limit) = (Some(mark), 1);
            let more = app.node.transactions.list(query).await?;
            (!more.is_empty()).then(|| if ended { format!("{ENDED_MARK}{id}") } else { id.to_string() })
        }
        None => None,
    };
    Ok(answer::list(views.into_iter().map(TransactionDocument::new).collect::<Vec<_>>(), next))
}

/// `GET /v1/transactions/{id}`.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    PathNames(id): PathNames<String>,
) -> Result<Json<TransactionDocument>, Problem> {
    Ok(Json(found(&app, named(&app, &id)?).await?))
}

/// Who decides, and why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    by: String,
    #[serde(default)]
    reason: String,
}

impl Decision {
    /// # Errors
    /// The body is no object, does not say who decides, or a name or a reason is too long.
    fn read(body: &[u8]) -> Result<Self, Problem> {
        let decision: Self = document(object(body)?)?;
        let invalid = |text: String| Err(Refusal::Invalid(text).into());
        if decision.by.trim().is_empty() || decision.by.len() > BY_MAX_BYTES {
            return invalid(format!("\"by\" must say who decides, in 1 to {BY_MAX_BYTES} bytes"));
        }
        if decision.reason.len() > REASON_MAX_BYTES {
            return invalid(format!(
                "\"reason\" has {} bytes; it may have at most {REASON_MAX_BYTES}",
                decision.reason.len()
            ));
        }
        Ok(decision)
    }
}

/// The transaction after a decision.
#[derive(Serialize)]
pub(crate) struct EndDocument {
    #[serde(flatten)]
    transaction: TransactionDocument,
    /// What the log says.
    outcome: TransactionOutcome,
    /// It had ended that way before.
    repeated: bool,
}

/// `POST /v1/transactions/{id}/commit`.
pub(crate) async fn commit(
    app: State<Arc<App>>,
    id: PathNames<String>,
    body: Bytes,
) -> Result<Json<EndDocument>, Problem> {
    end(app, id, body, TransactionOutcome::Committed).await
}

/// `POST /v1/transactions/{id}/rollback`.
pub(crate) async fn roll_back(
    app: State<Arc<App>>,
    id: PathNames<String>,
    body: Bytes,
) -> Result<Json<EndDocument>, Problem> {
    end(app, id, body, TransactionOutcome::RolledBack).await
}

/// Ends a transaction as an operator says.
///
/// # Errors
/// It ended in the other way, or there is none.
async fn end(
    State(app): State<Arc<App>>,
    PathNames(id): PathNames<String>,
    body: Bytes,
    outcome: TransactionOutcome,
) -> Result<Json<EndDocument>, Problem> {
    let transaction = named(&app, &id)?;
    let Decision { by, reason } = Decision::read(&body)?;
    let receipt = app.node.transactions.end(EndRequest::by_operator(transaction, outcome, by, reason)).await?;
    let transaction = found(&app, transaction).await?;
    Ok(Json(EndDocument { transaction, outcome: receipt.outcome, repeated: receipt.repeated }))
}

/// `POST /v1/transactions/{id}/resume`: asks again for a parked one.
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    PathNames(id): PathNames<String>,
    body: Bytes,
) -> Result<Json<TransactionDocument>, Problem> {
    let transaction = named(&app, &id)?;
    let Decision { by, reason } = Decision::read(&body)?;
    app.node.transactions.resume(transaction, by, reason).await?;
    Ok(Json(found(&app, transaction).await?))
}
