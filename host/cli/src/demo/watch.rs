//! Watches a transaction over the broker's HTTP API and says what changed.

use serde_json::Value;

use super::screen::Style;
use crate::http::{HttpClient, segment};
use crate::output::cell;

/// A line of the transcript.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Who did something.
    pub(super) who: &'static str,
    /// What it was.
    pub(super) text: String,
    /// How it is set off.
    pub(super) style: Option<Style>,
}

/// One transaction, as it was last seen.
pub(super) struct Watch {
    /// Its id.
    pub(super) transaction: String,
    seen: Value,
    /// Asks that got no answer.
    pub(super) unanswered: u32,
}

impl Watch {
    /// Not looked at yet.
    pub(super) fn new(transaction: String) -> Self {
        Self { transaction, seen: Value::Null, unanswered: 0 }
    }

    /// Looks, and tells what is new.
    pub(super) fn look(&mut self, http: &HttpClient) -> anyhow::Result<Vec<Line>> {
        let now = fetch(http, &self.transaction)?;
        let lines = changes(&self.seen, &now);
        self.unanswered += lines.iter().filter(|line| line.text.starts_with(NO_ANSWER)).count() as u32;
        self.seen = now;
        Ok(lines)
    }

    /// Answered checks that were counted.
    pub(super) fn checks(&self) -> u64 {
        self.seen.get("checks").and_then(Value::as_u64).unwrap_or(0)
    }

    /// Whether it is over.
    pub(super) fn has_ended(&self) -> bool {
        ended(&self.seen).is_some()
    }
}

/// A line of an ask without an answer begins so.
const NO_ANSWER: &str = "got no answer";

/// The transaction as the API shows it.
pub(super) fn fetch(http: &HttpClient, transaction: &str) -> anyhow::Result<Value> {
    Ok(http.get(&format!("/v1/transactions/{}", segment(transaction)))?.body)
}

/// Who ended or answered: `client`, `component` or `operator`.
pub(super) fn decider(transaction: &Value) -> String {
    let by = transaction.get("last_answer").map_or_else(String::new, |answer| cell(answer, "by"));
    by.split_whitespace().next().unwrap_or("-").to_owned()
}

/// `committed` or `rolled back`; `None` while it is open.
pub(super) fn ended(transaction: &Value) -> Option<&'static str> {
    match transaction.get("state")?.as_str()? {
        "committed" => Some("committed"),
        "rolled_back" => Some("rolled back"),
        _ => None,
    }
}

/// What the broker says of a transaction now and did not say before.
fn changes(before: &Value, now: &Value) -> Vec<Line> {
    if let Some(outcome) = ended(now) {
        return if ended(before).is_none() { vec![end(now, outcome)] } else { Vec::new() };
    }
    let answer = |of: &Value| of.get("last_answer").filter(|answer| answer.is_object()).cloned();
    match (answer(before), answer(now)) {
        (old, Some(new)) if old.as_ref() != Some(&new) => vec![asked(now, &new)],
        _ => Vec::new(),
    }
}

/// How it ended, and by whom.
fn end(now: &Value, outcome: &str) -> Line {
    let by = decider(now);
    let reason = reason(now.get("last_answer").unwrap_or(&Value::Null)).map(|why| format!(" ({why})"));
    let then = if outcome == "committed" { "consumers can see it" } else { "no consumer will see it" };
    let text = format!("{outcome}, decided by the {by}{}; {then}", reason.unwrap_or_default());
    Line { who: "broker", text, style: Some(Style::Good) }
}

/// An ask, and what came of it.
fn asked(now: &Value, answer: &Value) -> Line {
    let text = match answer.get("error").and_then(Value::as_str) {
        Some(error) => format!("{NO_ANSWER} ({}); counts nothing, asks again", brief(error)),
        None => {
            let why = reason(answer).map(|why| format!(" ({why})")).unwrap_or_default();
            format!("cannot tell yet{why}; asks again, answered checks: {}", cell(now, "checks"))
        }
    };
    Line { who: "component", text, style: None }
}

/// Why the component decided so, if it said.
fn reason(answer: &Value) -> Option<String> {
    let text = answer.get("reason").or_else(|| answer.get("text"))?.as_str()?;
    (!text.is_empty()).then(|| brief(text).to_owned())
}

/// What went wrong or was found, without the address that was asked: the transcript names it once, at its beginning.
fn brief(text: &str) -> &str {
    let after_address = text.find("http://").and_then(|at| text[at..].find(": ").map(|end| at + end + 2));
    after_address.map_or(text, |start| &text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(before: &Value, now: &Value) -> Vec<String> {
        changes(before, now).into_iter().map(|line| format!("{}: {}", line.who, line.text)).collect()
    }

    #[test]
    fn an_unknown_counts_and_says_why() {
        let open = json!({"state": "open", "checks": 0, "last_answer": null});
        let asked = json!({"state": "open", "checks": 1,
            "last_answer": {"by": "component sha256:x", "verdict": "unknown", "reason": "http://127.0.0.1:1/orders/A: /status is open", "at": "1"}});
        assert_eq!(
            texts(&open, &asked),
            ["component: cannot tell yet (/status is open); asks again, answered checks: 1"]
        );
        assert!(texts(&asked, &asked).is_empty(), "what did not change is not told again");
    }

    #[test]
    fn no_answer_counts_nothing_and_is_told_each_time() {
        let first = json!({"state": "open", "checks": 0, "last_answer": {"by": "component x", "error": "status 503", "at": "1"}});
        let second = json!({"state": "open", "checks": 0, "last_answer": {"by": "component x", "error": "status 503", "at": "2"}});
        let expected = ["component: got no answer (status 503); counts nothing, asks again"];
        assert_eq!(texts(&Value::Null, &first), expected);
        assert_eq!(texts(&first, &second), expected);
    }

    #[test]
    fn the_end_names_who_decided_and_is_told_once() {
        let ended = json!({"state": "rolled_back", "checks": 0,
            "last_answer": {"by": "component sha256:x (binding orders)", "verdict": "rollback", "reason": "gone"}});
        let text = "broker: rolled back, decided by the component (gone); no consumer will see it";
        assert_eq!(texts(&Value::Null, &ended), [text]);
        assert!(texts(&ended, &ended).is_empty());
        assert_eq!(decider(&json!({"last_answer": {"by": "client a@b"}})), "client");
        assert_eq!(decider(&json!({"last_answer": null})), "-");
    }

    #[test]
    fn a_reason_is_told_without_the_address() {
        let error = "the component could not answer: http://127.0.0.1:9/orders/A: status 503";
        assert_eq!(brief(error), "status 503");
        assert_eq!(brief("deadline of 1s"), "deadline of 1s");
        assert_eq!(brief("no connection to http://127.0.0.1:9"), "no connection to http://127.0.0.1:9");
    }
}
