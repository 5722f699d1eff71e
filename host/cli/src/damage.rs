//! `vouch log damage`: what a node knows to be damaged in its log.
//!
//! The node tells what it knows: all of it where it serves a damaged log read-only, else what its scrubber has come
//! across so far.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::failure::ProblemAnswer;
use crate::http::HttpArgs;
use crate::output;

/// What to do about it.
const ADVICE: &str = "  one of several nodes takes it from the others by itself, and says so; else restore what is lost from a backup. Look after \
                      the disk";

/// Prints it; fails if there is any.
///
/// # Errors
/// Any damage is one, with the places in its detail, so that a script sees it by the exit status.
pub(crate) fn show(http: &HttpArgs) -> anyhow::Result<()> {
    let mut answer = http.client()?.get("/v1/damage")?.body;
    let stretches = answer["damage"].as_array().map_or(&[][..], Vec::as_slice);
    let count = stretches.len() as u64 + answer["omitted"].as_u64().unwrap_or(0);
    if count == 0 && http.json {
        return Ok(output::json(&answer)?);
    } else if count == 0 {
        output::line("no damage of the log is known")?;
        let repaired = answer["repaired_segments"].as_array().map_or(&[][..], Vec::as_slice);
        if !repaired.is_empty() {
            let starts: Vec<String> = repaired.iter().map(ToString::to_string).collect();
            output::line(format_args!(
                "segments that were damaged, and came from the other nodes, since this one started, by the position of their first \
                 byte: {}",
                starts.join(", ")
            ))?;
        }
        return Ok(());
    }
    let detail: Vec<String> = stretches.iter().map(|stretch| format!("  {}", paragraph(stretch))).collect();
    let (title, detail) = (sentence(&answer, count), format!("{}\n{ADVICE}", detail.join("\n")));
    if let Some(members) = answer.as_object_mut() {
        members.insert("type".to_owned(), json!("urn:vouch:cli:damaged"));
        members.insert("title".to_owned(), json!(title));
        members.insert("detail".to_owned(), json!(detail));
    }
    Err(ProblemAnswer::from_document(answer).map_or_else(|| anyhow::anyhow!("the log is damaged"), Into::into))
}

/// How much is damaged, and how far the log is served where it is served read-only.
fn sentence(answer: &Value, count: u64) -> String {
    match answer["served_to"].as_u64() {
        None => format!("the log is damaged in {count} places, as far as this node has looked"),
        Some(served_to) => format!(
            "the log is damaged in {count} places, and served read-only up to position {served_to} of {}; {} whole bytes \
             behind that are not served",
            answer["log_end"], answer["not_served_bytes"]
        ),
    }
}

/// One stretch, and what was in it.
fn paragraph(stretch: &Value) -> String {
    let text = |name: &str| stretch[name].as_str().unwrap_or_default().to_owned();
    let mut out =
        format!("{} at offset {}, {} bytes: {}", text("file"), stretch["offset"], stretch["length"], text("reason"));
    if let Some(entries) = stretch["entries_lost"].as_u64() {
        let _ = write!(out, "; {entries} entries lost");
    }
    let lost = &stretch["lost"];
    if lost.is_null() {
        out.push_str("\n    nobody knows what was in it");
        return out;
    }
    let list = |name: &str| lost[name].as_array().map_or(&[][..], Vec::as_slice);
    for run in list("messages") {
        let topic = run["topic"].as_str().unwrap_or_default();
        let (queue, first, last) = (&run["queue"], &run["first_offset"], &run["last_offset"]);
        let _ = write!(out, "\n    lost: topic {topic}, queue {queue}, offsets {first} to {last}");
    }
    for transaction in list("open_transactions") {
        let _ = write!(out, "\n    lost: the half message of transaction {}", transaction.as_str().unwrap_or_default());
    }
    match (lost["component_pieces"].as_u64(), lost["omitted"].as_u64()) {
        (Some(0) | None, Some(0) | None) if list("messages").is_empty() && list("open_transactions").is_empty() => {
            out.push_str("\n    nothing in it is needed any more");
        }
        (pieces, omitted) => {
            if let Some(pieces) = pieces.filter(|pieces| *pieces > 0) {
                let _ = write!(out, "\n    lost: {pieces} pieces of components; upload these again");
            }
            if let Some(omitted) = omitted.filter(|omitted| *omitted > 0) {
                let _ = write!(out, "\n    and {omitted} more");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_told_with_everything_that_was_in_it() {
        let stretch = json!({"file": "/d/0.log", "offset": 4096, "length": 512, "reason": "torn", "entries_lost": 2, "lost": {
            "messages": [{"topic": "t", "queue": 1, "first_offset": 3, "last_offset": 5}],
            "open_transactions": ["00aa"], "component_pieces": 4, "omitted": 7}});
        assert_eq!(
            paragraph(&stretch),
            "/d/0.log at offset 4096, 512 bytes: torn; 2 entries lost\n    lost: topic t, queue 1, offsets 3 to 5\n    lost: \
             the half message of transaction 00aa\n    lost: 4 pieces of components; upload these again\n    and 7 more"
        );
        let nothing = json!({"messages": [], "open_transactions": [], "component_pieces": 0, "omitted": 0});
        let stretch =
            json!({"file": "f", "offset": 0, "length": 1, "reason": "r", "entries_lost": null, "lost": nothing});
        assert!(paragraph(&stretch).ends_with("\n    nothing in it is needed any more"));
        let stretch = json!({"file": "f", "offset": 0, "length": 1, "reason": "r", "entries_lost": null, "lost": null});
        assert!(paragraph(&stretch).contains("nobody knows"));
    }
}
