//! What `topic`, `group` and `binding` have in common: named documents that are created, shown, changed and deleted.
//!
//! Every function prints what came of it: a sentence for a person, or with `--json` the node's document. A refusal
//! comes back as a [`ProblemAnswer`] in the node's own words.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use crate::failure::{ProblemAnswer, WrongUsage};
use crate::http::{HttpArgs, query};
use crate::output;

/// Which part of a list is shown.
#[derive(Debug, Default, Args)]
pub(crate) struct PageArgs {
    /// How many are shown at most, 1 to 1000; 100 if it is not said.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: Option<u32>,
    /// Start after this one: the mark at the end of the previous page.
    #[arg(long, value_name = "MARK")]
    after: Option<String>,
}

impl PageArgs {
    /// The query of this page with further filters.
    pub(crate) fn query(&self, filters: &[(&str, Option<&str>)]) -> String {
        let limit = self.limit.map(|limit| limit.to_string());
        let mut all = filters.to_vec();
        all.extend([("limit", limit.as_deref()), ("after", self.after.as_deref())]);
        query(&all)
    }

    /// Says how to go on, if the list does.
    pub(crate) fn more(&self, list: &Value) -> anyhow::Result<()> {
        match next_mark(list) {
            Some(mark) => Ok(output::note(format_args!("there are more: --after {mark}"))?),
            None => Ok(()),
        }
    }
}

/// The mark after which the next page begins, if there is one.
fn next_mark(list: &Value) -> Option<&str> {
    list.get("next").and_then(Value::as_str)
}

/// The items of a list answer.
pub(crate) fn items(list: &Value) -> &[Value] {
    list.get("items").unwrap_or(list).as_array().map_or(&[], Vec::as_slice)
}

/// The name under which a value is written on the command line and in the API.
pub(crate) fn value_name<T: ValueEnum>(value: Option<T>) -> Option<String> {
    value.and_then(|value| value.to_possible_value()).map(|value| value.get_name().to_owned())
}

/// Creates a document; refused if there is one.
///
/// # Errors
/// There is one already, told with the command that changes it; or the node refuses the document.
pub(crate) fn create(
    http: &HttpArgs,
    kind: &str,
    path: &str,
    name: &str,
    document: Map<String, Value>,
) -> anyhow::Result<()> {
    let mut document = document;
    leave_out_defaults(&mut document);
    let answer = http
        .client()?
        .put(path, &Value::Object(document), &[("if-none-match", "*")])
        // The node's "precondition failed" after `If-None-Match: *` means that the thing is there already.
        .map_err(|error| {
            ProblemAnswer::explain(error, 412, || {
                format!("{kind} {name} exists already; change it with: vouch {kind} update {name}")
            })
        })?;
    report(http, &answer.body, format!("{kind} {name} created"))
}

/// In what is new, what is absent has its default; `null` says so only where something is there already.
fn leave_out_defaults(document: &mut Map<String, Value>) {
    document.retain(|_, value| !value.is_null());
    document.values_mut().filter_map(Value::as_object_mut).for_each(leave_out_defaults);
}

/// Changes the named members of a document and keeps the others.
///
/// # Errors
/// [`WrongUsage`]: nothing was named. Or there is no such document, or the node refuses the change.
pub(crate) fn update(
    http: &HttpArgs,
    kind: &str,
    path: &str,
    name: &str,
    changes: Map<String, Value>,
) -> anyhow::Result<()> {
    if changes.is_empty() {
        return Err(WrongUsage::error(format!(
            "nothing to change: name at least one setting (vouch {kind} update --help)"
        )));
    }
    let answer = http.client()?.patch(path, &Value::Object(changes))?;
    report(http, &answer.body, format!("{kind} {name} updated"))
}

/// Shows one document.
pub(crate) fn show(http: &HttpArgs, path: &str) -> anyhow::Result<()> {
    let answer = http.client()?.get(path)?;
    if http.json {
        output::json(&answer.body)?
    } else {
        output::line(output::describe(&answer.body))?
    };
    Ok(())
}

/// Deletes one document.
///
/// # Errors
/// There is none, or something still needs it; the node says what, and which flag overrules it if one does.
pub(crate) fn delete(http: &HttpArgs, kind: &str, path: &str, name: &str) -> anyhow::Result<()> {
    let answer = http.client()?.delete(path)?;
    warnings(http, &answer.body)?;
    report(http, &answer.body, format!("{kind} {name} deleted"))
}

/// What the node warns of, for people; scripts find it in the answer.
pub(crate) fn warnings(http: &HttpArgs, body: &Value) -> anyhow::Result<()> {
    let warnings = body.get("warnings").and_then(Value::as_array).into_iter().flatten().filter(|_| !http.json);
    for warning in warnings {
        output::note(format_args!("warning: {}", output::plain(warning)))?;
    }
    Ok(())
}

/// The node's answer for scripts, a sentence for people.
pub(crate) fn report(http: &HttpArgs, body: &Value, sentence: String) -> anyhow::Result<()> {
    if http.json {
        output::json(body)?
    } else {
        output::line(sentence)?
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::fake::FakeNode;

    #[test]
    fn lists_are_read_with_and_without_a_frame() {
        assert_eq!(items(&json!({"items": [1], "next": "x"})), [json!(1)]);
        assert_eq!(items(&json!([1, 2])).len(), 2);
        assert!(items(&json!({})).is_empty());
        assert_eq!(next_mark(&json!({"items": [], "next": "x"})), Some("x"));
        assert_eq!(next_mark(&json!({"items": [], "next": null})), None);
    }

    #[test]
    fn what_is_new_is_sent_without_its_defaults() {
        let document = json!({"retention": null, "queues": 4, "transaction": {"schedule": null, "max_checks": 3}});
        let Value::Object(mut document) = document else { panic!("an object") };
        leave_out_defaults(&mut document);
        assert_eq!(Value::Object(document), json!({"queues": 4, "transaction": {"max_checks": 3}}));
    }

    fn object(document: Value) -> Map<String, Value> {
        let Value::Object(members) = document else { panic!("an object") };
        members
    }

    #[test]
    fn what_is_created_may_not_be_there_and_what_is_told_then_names_the_command_that_changes_it() {
        let node = FakeNode::answering(&[
            ("201 Created", "{}"),
            ("412 Precondition Failed", "{\"title\": \"x\", \"status\": 412}"),
        ]);
        let http = node.args(false);
        create(&http, "topic", "/v1/topics/t", "t", object(json!({"queues": 4, "retention": null}))).unwrap();
        let taken = create(&http, "topic", "/v1/topics/t", "t", Map::new()).unwrap_err().to_string();
        assert_eq!(taken, "topic t exists already; change it with: vouch topic update t");
        let asked = node.asked();
        assert!(asked.iter().all(|asked| asked.headers.contains(&"if-none-match: *".to_owned())));
        assert_eq!(asked[0].body, "{\"queues\":4}", "what is null is the default anyway");
    }

    #[test]
    fn a_change_of_nothing_is_wrong_usage_and_asks_nobody() {
        let node = FakeNode::answering(&[("200 OK", "{}")]);
        let error = update(&node.args(false), "group", "/v1/groups/g", "g", Map::new()).unwrap_err();
        assert!(error.is::<WrongUsage>() && error.to_string().contains("vouch group update --help"), "{error}");
        assert!(node.lines().is_empty());
        update(&node.args(false), "group", "/v1/groups/g", "g", object(json!({"backoff": null}))).unwrap();
        assert_eq!(node.asked()[0].body, "{\"backoff\":null}", "a default that is asked for is sent");
    }

    #[test]
    fn a_page_is_part_of_the_query() {
        let page = PageArgs { limit: Some(10), after: Some("a b".to_owned()) };
        assert_eq!(page.query(&[("state", Some("open"))]), "?state=open&limit=10&after=a%20b");
    }
}
