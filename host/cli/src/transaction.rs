//! `vouch transaction`: look at open, parked and ended transactions, and decide them by hand.
//!
//! A decision by hand is final, like that of a component: it is in the log with the name of who made it and why. A
//! transaction that ended meanwhile is not decided twice; the node answers how it ended.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::http::{HttpArgs, segment};
use crate::output::{self, TextTable, cell};
use crate::resource::{self, PageArgs};
use crate::text;

/// What can be done with transactions.
#[derive(Debug, Subcommand)]
pub(crate) enum TransactionCommand {
    /// List transactions: open and parked ones in the order in which they were opened, then ended ones in that of their ends.
    #[command(after_help = "Example:\n  vouch transaction list --state parked --topic orders --older-than 10m")]
    List {
        /// Only those in this state.
        #[arg(long, value_enum)]
        state: Option<State>,
        /// Only those of this topic.
        #[arg(long, value_name = "TOPIC")]
        topic: Option<String>,
        /// Only those opened, or ended, at least so long ago, for example 10m.
        #[arg(long, value_name = "TIME", value_parser = text::duration)]
        older_than: Option<String>,
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Show one transaction: its state, its checks and the last answer.
    #[command(after_help = "Example:\n  vouch transaction show T00000000000000003000")]
    Show {
        id: String,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Commit by hand: the message becomes visible. The decision is recorded with your name.
    #[command(after_help = "Example:\n  vouch transaction commit T00000000000000003000 --reason 'order 17 is paid'")]
    Commit {
        id: String,
        #[command(flatten)]
        decision: Decision,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Roll back by hand: the message is dropped. The decision is recorded with your name.
    #[command(after_help = "Example:\n  vouch transaction rollback T00000000000000003000 --reason 'no such order'")]
    Rollback {
        id: String,
        #[command(flatten)]
        decision: Decision,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Ask again for a parked transaction: its checks start over.
    #[command(after_help = "Example:\n  vouch transaction resume T00000000000000003000 --reason 'API is repaired'")]
    Resume {
        id: String,
        #[command(flatten)]
        decision: Decision,
        #[command(flatten)]
        http: HttpArgs,
    },
}

impl TransactionCommand {
    /// Whether `--json` was given.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::List { http, .. }
            | Self::Show { http, .. }
            | Self::Commit { http, .. }
            | Self::Rollback { http, .. }
            | Self::Resume { http, .. } => http.json,
        }
    }
}

/// States by which a list is narrowed, by their names in the API.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum State {
    Open,
    WaitingForChecker,
    Parked,
    Committed,
    RolledBack,
}

/// Who decides and why, for the log.
#[derive(Debug, clap::Args)]
pub(crate) struct Decision {
    /// Who decides; the login name if absent.
    #[arg(long, env = "USER", value_name = "NAME", default_value = "operator")]
    by: String,
    /// Why; kept with the decision.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Runs `vouch transaction`.
pub(crate) fn run(command: TransactionCommand) -> anyhow::Result<()> {
    match command {
        TransactionCommand::List { state, topic, older_than, page, http } => {
            let state = resource::value_name(state);
            let filters =
                [("state", state.as_deref()), ("topic", topic.as_deref()), ("older_than", older_than.as_deref())];
            list(&page, &filters, &http)
        }
        TransactionCommand::Show { id, http } => resource::show(&http, &path(&id)),
        TransactionCommand::Commit { id, decision, http } => decide(&id, "commit", &decision, &http),
        TransactionCommand::Rollback { id, decision, http } => decide(&id, "rollback", &decision, &http),
        TransactionCommand::Resume { id, decision, http } => decide(&id, "resume", &decision, &http),
    }
}

/// The path of a transaction in the HTTP API.
fn path(id: &str) -> String {
    format!("/v1/transactions/{}", segment(id))
}

/// Prints a page of transactions, a line each, with who answered last and what.
fn list(page: &PageArgs, filters: &[(&str, Option<&str>)], http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.get(&format!("/v1/transactions{}", page.query(filters)))?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    let mut table = TextTable::new(&["ID", "TOPIC", "STATE", ">CHECKS", "OPENED", "NEXT CHECK", "LAST ANSWER"]);
    for transaction in resource::items(&answer.body) {
        let columns = ["id", "topic", "state", "checks", "opened_at", "next_check_at"];
        let cells = columns.map(|name| cell(transaction, name)).into_iter();
        table.row(cells.chain([last_answer(transaction)]));
    }
    table.print()?;
    page.more(&answer.body)
}

/// Letters of an error that a list shows; all of it is in `show` and in JSON.
const ERROR_SHOWN: usize = 40;

/// Who answered what, in one cell.
pub(crate) fn last_answer(transaction: &Value) -> String {
    let Some(answer) = transaction.get("last_answer").filter(|answer| answer.is_object()) else {
        return "-".to_owned();
    };
    let said = match answer.get("verdict") {
        Some(verdict) if !verdict.is_null() => output::plain(verdict),
        _ => {
            let error = cell(answer, "error");
            // Every error of a component begins so, and a cell has room for little.
            let error = error.strip_prefix("the component could not answer: ").unwrap_or(&error);
            format!("no answer: {}", output::beginning(error, ERROR_SHOWN))
        }
    };
    format!("{said} ({})", who(&cell(answer, "by")))
}

/// Who answered, short: of `component sha256:… (binding orders)` the binding.
fn who(by: &str) -> &str {
    by.split_once(" (")
        .filter(|(_, at)| at.starts_with("binding "))
        .and_then(|(_, at)| at.strip_suffix(')'))
        .unwrap_or(by)
}

/// Commits, rolls back or resumes by hand.
///
/// # Errors
/// There is no such transaction, or it ended in another way meanwhile.
fn decide(id: &str, action: &str, decision: &Decision, http: &HttpArgs) -> anyhow::Result<()> {
    let body = json!({"by": decision.by, "reason": decision.reason});
    let answer = http.client()?.post(&format!("{}/{action}", path(id)), &body)?;
    let state = cell(&answer.body, "state").replace('_', " ");
    resource::report(http, &answer.body, format!("transaction {id} is {state}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_names_who_gave_it() {
        let answered = json!({"last_answer": {"by": "plugin:check", "verdict": "unknown", "at": "…"}});
        assert_eq!(last_answer(&answered), "unknown (plugin:check)");
        let failed = json!({"last_answer": {"by": "plugin:check", "error": "deadline of 1s", "at": "…"}});
        assert_eq!(last_answer(&failed), "no answer: deadline of 1s (plugin:check)");
        assert_eq!(last_answer(&json!({"last_answer": null})), "-");
        let long = json!({"last_answer": {"by": "plugin:check", "error": "x".repeat(200), "at": "…"}});
        assert_eq!(last_answer(&long), format!("no answer: {}… (plugin:check)", "x".repeat(39)));
        let component = json!({"last_answer": {"by": "component sha256:50c3 (binding orders)", "verdict": "unknown"}});
        assert_eq!(last_answer(&component), "unknown (binding orders)");
    }

    #[test]
    fn states_are_written_as_in_the_api() {
        assert_eq!(resource::value_name(Some(State::WaitingForChecker)).unwrap(), "waiting_for_checker");
    }
}
