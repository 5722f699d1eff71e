//! `vouch message show` and `vouch message list`: what is stored, over HTTP.

use std::time::SystemTime;

use serde_json::Value;

use crate::failure::ProblemAnswer;
use crate::http::{HttpArgs, segment};
use crate::output::{self, TextTable, cell};
use crate::resource::{self, PageArgs};
use crate::text;

/// Letters of a body that a list shows.
const BODY_SHOWN: usize = 60;

/// Shows where a message is. One id may have several places: a client that sends again uses its id again.
pub(super) fn show(topic: &str, id: &str, http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.get(&format!("/v1/messages/{}/{}", segment(topic), segment(id)))?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    let found = resource::items(&answer.body).iter().map(output::describe).collect::<Vec<_>>();
    if found.is_empty() {
        let title = format!("no message of {topic} has the id {id}");
        let detail = "looked for in what the topic's queues hold and in its open transactions";
        return Err(ProblemAnswer::local("not-found", &title, detail.to_owned()));
    }
    Ok(output::line(found.join("\n\n"))?)
}

/// A time as the API takes it. How long ago is taken from this machine's clock.
pub(super) fn since(text: &str) -> Result<String, String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) || humantime::parse_rfc3339_weak(text).is_ok() {
        return Ok(text.to_owned());
    }
    let wrong = |error| format!("{error}; or write a time in UTC such as 2026-01-31T10:00:00Z");
    let ago = text::length(text).map_err(wrong)?;
    let then = SystemTime::now().checked_sub(ago).filter(|then| *then >= SystemTime::UNIX_EPOCH);
    let then = then.ok_or_else(|| format!("`{text}` ago is before 1970"))?;
    Ok(humantime::format_rfc3339_millis(then).to_string())
}

/// Prints a page of messages, a line each, with the beginning of the body.
pub(super) fn list(
    topic: &str,
    filters: &[(&str, Option<&str>)],
    page: &PageArgs,
    http: &HttpArgs,
) -> anyhow::Result<()> {
    let answer = http.client()?.get(&format!("/v1/messages/{}{}", segment(topic), page.query(filters)))?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    let mut table = TextTable::new(&["ID", "STORED", ">QUEUE", ">OFFSET", "TAG", "KEYS", "BODY"]);
    for message in resource::items(&answer.body) {
        let place = message.get("place").unwrap_or(&Value::Null);
        let before = [cell(message, "id"), cell(message, "stored_at"), cell(place, "queue"), cell(place, "offset")];
        table.row(before.into_iter().chain([cell(message, "tag"), cell(message, "keys"), body(message)]));
    }
    table.print()?;
    page.more(&answer.body)
}

/// The beginning of a body, on one line.
fn body(message: &Value) -> String {
    let Some(text) = message.get("body").and_then(Value::as_str) else {
        return if message.get("body_base64").is_some() { "(binary)" } else { "(left out)" }.to_owned();
    };
    let line: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    output::beginning(&line, BODY_SHOWN)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_time_is_given_as_such_or_as_how_long_ago() {
        assert_eq!(since("1700000000007").unwrap(), "1700000000007");
        assert_eq!(since("2026-01-31T10:00:00Z").unwrap(), "2026-01-31T10:00:00Z");
        let ago = humantime::parse_rfc3339(&since("1h").unwrap()).unwrap().elapsed().unwrap();
        assert!((3600..3700).contains(&ago.as_secs()), "{ago:?}");
        assert!(since("yesterday").is_err() && since("1000000years").is_err());
    }

    #[test]
    fn a_list_shows_the_beginning_of_a_body_on_one_line() {
        assert_eq!(body(&json!({"body": "a\nb"})), "a b");
        assert_eq!(body(&json!({"body": "x".repeat(61)})), format!("{}…", "x".repeat(59)));
        assert_eq!(body(&json!({"body_base64": "/wA="})), "(binary)");
        assert_eq!(body(&json!({"body_left_out_bytes": 7})), "(left out)");
    }
}
