//! How a command fails: what is printed, where, and with which exit status.
//!
//! Three kinds are told apart. [`WrongUsage`]: what was asked for is wrong, exit status 2. [`ProblemAnswer`]: a
//! document, mostly the node's own, that scripts get as it came. Everything else is an error with its causes, told in
//! one sentence.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Value, json};

use crate::escape;

/// The command was understood but its arguments or settings are wrong. Exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongUsage(pub(crate) String);

impl WrongUsage {
    /// A wrong-usage failure, ready to return.
    pub(crate) fn error(text: impl Into<String>) -> anyhow::Error {
        Self(text.into()).into()
    }
}

/// An `application/problem+json` answer: from the node, or made here when the node could not be asked.
#[derive(Debug, Clone)]
pub(crate) struct ProblemAnswer {
    /// The document as it came, for `--json`.
    raw: Value,
    /// What is said to a person instead of its title and detail.
    told: Option<String>,
}

/// What this program says of a node that it does not reach, or not any more.
const LOST: [&str; 3] = ["unreachable", "closed", "transport"];

/// What the node says of its HTTP API, and what the same is on the command line.
const IN_FLAGS: [(&str, &str); 18] = [
    ("null takes the limit away", "none takes the limit away"),
    ("force=true", "--force"),
    ("list that origin in grants.http", "allow that origin with --allow-http (in a file: grants.http)"),
    ("`all=true`", "--all"),
    ("list in \"topics\" whose", "name with --topic whose"),
    ("or in \"groups\" for whom", "or with --group for whom"),
    (
        "add \"subscriptions\": {\"TOPIC\": \"*\"}, or a filter in the place of the asterisk",
        "add --subscribe TOPIC or TOPIC=FILTER",
    ),
    ("list one in \"groups\"", "name one with --group"),
    ("set it all the same with \"unchecked\": true", "set it all the same with --unchecked"),
    ("`after`", "--after"),
    ("`limit`", "--limit"),
    ("`since`", "--since"),
    ("`older_than`", "--older-than"),
    ("\"by\"", "--by"),
    ("\"reason\"", "--reason"),
    ("the `next` of the page before", "the mark at the end of the page before"),
    ("send it as `authorization: Bearer TOKEN`", "give it with --http-token or VOUCH_HTTP_TOKEN"),
    (
        "the token is not the one of this node",
        "the token of --http-token or VOUCH_HTTP_TOKEN is not the one of this node",
    ),
];

/// The node's sentence in words of the command line.
fn in_flags(text: &str) -> String {
    IN_FLAGS.iter().fold(text.to_owned(), |text, (api, flags)| text.replace(api, flags))
}

impl std::error::Error for ProblemAnswer {}

impl ProblemAnswer {
    /// Reads a problem document. `None` if it is none: neither `title` nor `detail`.
    pub(crate) fn from_document(raw: Value) -> Option<Self> {
        let has = |name: &str| raw.get(name).is_some_and(Value::is_string);
        (has("title") || has("detail")).then_some(Self { raw, told: None })
    }

    /// A problem that this program found, in the same form as the node's.
    pub(crate) fn local(kind: &str, title: &str, detail: String) -> anyhow::Error {
        let raw = json!({"type": format!("urn:vouch:cli:{kind}"), "title": title, "detail": detail});
        Self { raw, told: None }.into()
    }

    /// A refusal that came by gRPC, with the code of its protocol.
    pub(crate) fn refusal(code: i32, title: &str, detail: String) -> anyhow::Error {
        let raw = json!({"type": "urn:vouch:cli:refused", "title": title, "detail": detail, "code": code});
        Self { raw, told: None }.into()
    }

    /// Whether the same may go well in a moment, or by another node: nobody answers, nobody leads, or nobody knows what came of it.
    /// Whatever it was may have happened all the same.
    pub(crate) fn may_pass(&self) -> bool {
        let is_lost = self
            .text("type")
            .and_then(|kind| kind.strip_prefix("urn:vouch:cli:"))
            .is_some_and(|kind| LOST.contains(&kind));
        let code = self.raw.get("code").and_then(Value::as_u64).unwrap_or_default();
        is_lost || matches!(self.status(), Some(503 | 504)) || matches!(code, 50_002 | 50_400..=50_499)
    }

    /// Says this to a person where the node refused with this status: it speaks of headers, a person gave flags. What is
    /// printed with `--json` stays the node's.
    pub(crate) fn explain(error: anyhow::Error, status: u16, told: impl FnOnce() -> String) -> anyhow::Error {
        match error.downcast::<Self>() {
            Ok(problem) if problem.status() == Some(status) => Self { told: Some(told()), ..problem }.into(),
            Ok(problem) => problem.into(),
            Err(other) => other,
        }
    }

    /// The document for scripts.
    pub(crate) fn document(&self) -> &Value {
        &self.raw
    }

    /// The HTTP status, if the node gave one.
    pub(crate) fn status(&self) -> Option<u16> {
        self.raw.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok())
    }

    /// What a node says has names and reasons of others in it, and is one line; this program writes lists.
    fn safe<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.status().is_some() { escape::line(text) } else { escape::lines(text) }
    }

    /// A member of the document that is text with something in it.
    fn text(&self, name: &str) -> Option<&str> {
        self.raw.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }
}

/// Title, then what to do next.
impl fmt::Display for ProblemAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(told) = &self.told {
            return f.write_str(told);
        }
        match (self.text("title"), self.text("detail")) {
            (Some(title), Some(detail)) if title != detail => {
                write!(f, "{}\n  {}", self.safe(title), self.safe(&in_flags(detail)))
            }
            (Some(text), _) | (None, Some(text)) => f.write_str(&self.safe(&in_flags(text))),
            (None, None) => f.write_str(&escape::line(&self.raw.to_string())),
        }
    }
}

/// The error and its causes. A cause that the text before it already tells is not told twice.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        before if before.contains(&cause) => told,
        before => format!("{before}: {cause}"),
    })
}

/// 2 for wrong usage, 1 for everything else.
pub(crate) fn exit_status(error: &anyhow::Error) -> u8 {
    if error.is::<WrongUsage>() { 2 } else { 1 }
}

/// The error as a JSON document, so that a script has one form to read whoever found it.
pub(crate) fn document(error: &anyhow::Error) -> Value {
    if let Some(problem) = error.downcast_ref::<ProblemAnswer>() {
        return problem.document().clone();
    }
    let kind = if error.is::<WrongUsage>() { "usage" } else { "failed" };
    json!({"type": format!("urn:vouch:cli:{kind}"), "title": error.to_string(), "detail": sentence(error)})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(raw: Value) -> ProblemAnswer {
        ProblemAnswer::from_document(raw).unwrap()
    }

    #[test]
    fn a_problem_reads_as_title_and_what_to_do_next() {
        let text = problem(json!({
            "type": "urn:vouch:problem:topic-not-found", "title": "topic orders does not exist",
            "detail": "create it with: vouch topic create orders", "status": 404
        }))
        .to_string();
        assert_eq!(text, "topic orders does not exist\n  create it with: vouch topic create orders");
    }

    #[test]
    fn what_a_node_says_is_shown_in_one_line_and_acts_on_no_terminal() {
        let text = problem(json!({"title": "a\nb", "detail": "c\u{1b}[2J\nd", "status": 422})).to_string();
        assert_eq!(text, "a\\nb\n  c\\u{1b}[2J\\nd");
        assert_eq!(problem(json!({"title": "a", "detail": "c\n\u{9b}d"})).to_string(), "a\n  c\n\\u{9b}d");
    }

    #[test]
    fn a_problem_that_says_the_same_twice_is_shown_once() {
        assert_eq!(problem(json!({"title": "no", "detail": "no"})).to_string(), "no");
        assert_eq!(problem(json!({"detail": "only this"})).to_string(), "only this");
        assert_eq!(problem(json!({"title": "only that", "detail": ""})).to_string(), "only that");
    }

    #[test]
    fn the_document_for_scripts_is_the_one_the_node_sent() {
        let raw = json!({"type": "urn:x", "title": "t", "detail": "d", "status": 409, "outcome": "committed"});
        let error: anyhow::Error = problem(raw.clone()).into();
        assert_eq!(document(&error), raw);
        assert_eq!(document(&error.context("while committing")), raw, "context must not hide the problem");
    }

    #[test]
    fn a_person_reads_flags_and_a_script_what_the_node_sent() {
        let raw = json!({"title": "Conflict", "detail": "delete with force=true and lose them", "status": 409});
        let error: anyhow::Error = problem(raw.clone()).into();
        assert_eq!(error.to_string(), "Conflict\n  delete with --force and lose them");
        let other = ProblemAnswer::explain(error, 412, || unreachable!("another status"));
        let told = ProblemAnswer::explain(other, 409, || "say --force".to_owned());
        assert_eq!((told.to_string().as_str(), document(&told)), ("say --force", raw));
        let local = ProblemAnswer::explain(anyhow::anyhow!("disk full"), 409, || "x".to_owned());
        assert_eq!(local.to_string(), "disk full");
    }

    #[test]
    fn what_another_node_may_do_is_told_from_what_is_refused_everywhere() {
        let passes = |raw: Value| problem(raw).may_pass();
        assert!(passes(json!({"type": "urn:vouch:cli:unreachable", "title": "t"})));
        assert!(passes(json!({"type": "urn:vouch:error:not-leading", "title": "t", "status": 503})));
        assert!(!passes(json!({"type": "urn:vouch:error:topic-not-found", "title": "t", "status": 404})));
        assert!(!passes(json!({"type": "urn:vouch:cli:usage", "title": "t"})));
        let refused = |code| ProblemAnswer::refusal(code, "t", "d".to_owned()).downcast::<ProblemAnswer>().unwrap();
        assert!(refused(50_002).may_pass() && refused(50_401).may_pass());
        assert!(!refused(40_402).may_pass() && !refused(50_001).may_pass());
    }

    #[test]
    fn other_json_is_no_problem_document() {
        assert!(ProblemAnswer::from_document(json!({"items": []})).is_none());
        assert!(ProblemAnswer::from_document(json!({"title": 7})).is_none());
    }

    #[test]
    fn wrong_usage_exits_2_and_failures_exit_1() {
        assert_eq!(exit_status(&WrongUsage::error("no such flag")), 2);
        assert_eq!(exit_status(&anyhow::anyhow!("disk full")), 1);
        assert_eq!(document(&WrongUsage::error("no such flag"))["type"], "urn:vouch:cli:usage");
    }
}
