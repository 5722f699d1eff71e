//! `vouch binding state`: what the component of a binding keeps, looked at and deleted.

use anyhow::Context;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Subcommand;
use serde_json::Value;

use crate::http::{HttpArgs, query, segment};
use crate::output::{self, TextTable, cell};
use crate::resource::{self, PageArgs};

/// Letters of a value that a list shows.
const VALUE_SHOWN: usize = 60;

/// What can be done with what a binding keeps.
#[derive(Debug, Subcommand)]
pub(crate) enum KeptCommand {
    /// List its keys, with the beginning of each value.
    #[command(after_help = "Example:\n  vouch binding state stock list --prefix paid:")]
    List {
        /// Only keys that begin so.
        #[arg(long, value_name = "TEXT")]
        prefix: Option<String>,
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Print the value of a key.
    #[command(after_help = "\
Examples:
  vouch binding state stock get paid:1001
  vouch binding state stock get paid:1001 --json

On a terminal what is no text is escaped; into a file or a pipe the value goes byte for byte, with a line break behind \
it. With --json there are its version and when it expires, too.")]
    Get {
        key: String,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Delete a key, or all of them.
    #[command(after_help = "\
Examples:
  vouch binding state stock delete paid:1001
  vouch binding state stock delete --all

With --all goes also what other bindings keep that have the same namespace. Let the binding pause before: what it is \
doing may write a key again.")]
    Delete {
        #[arg(required_unless_present = "all")]
        key: Option<String>,
        /// All that is in the namespace of the binding.
        #[arg(long, conflicts_with = "key")]
        all: bool,
        #[command(flatten)]
        http: HttpArgs,
    },
}

impl KeptCommand {
    /// Whether `--json` was given.
    pub(super) fn json(&self) -> bool {
        match self {
            Self::List { http, .. } | Self::Get { http, .. } | Self::Delete { http, .. } => http.json,
        }
    }
}

/// Runs `vouch binding state`.
pub(super) fn run(binding: &str, command: KeptCommand) -> anyhow::Result<()> {
    match command {
        KeptCommand::List { prefix, page, http } => list(binding, prefix.as_deref(), &page, &http),
        KeptCommand::Get { key, http } => get(binding, &key, &http),
        KeptCommand::Delete { key, all: _, http } => delete(binding, key.as_deref(), &http),
    }
}

/// The path of what a binding keeps in the HTTP API.
fn path(binding: &str) -> String {
    format!("/v1/bindings/{}/state", segment(binding))
}

/// And of one key of that.
fn key_path(binding: &str, key: &str) -> String {
    format!("{}/{}", path(binding), segment(key))
}

/// Prints a page of keys, a line each, and how full the namespace is.
fn list(binding: &str, prefix: Option<&str>, page: &PageArgs, http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.get(&format!("{}{}", path(binding), page.query(&[("prefix", prefix)])))?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    let mut table = TextTable::new(&["KEY", "VALUE", ">VERSION", "EXPIRES"]);
    for kept in resource::items(&answer.body) {
        table.row([cell(kept, "key"), beginning(kept), cell(kept, "version"), cell(kept, "expires_at")]);
    }
    table.print()?;
    let [namespace, bytes, quota] = ["namespace", "bytes", "quota"].map(|member| cell(&answer.body, member));
    output::note(format_args!("namespace {namespace}: {bytes} of {quota} bytes"))?;
    page.more(&answer.body)
}

/// The beginning of a value.
fn beginning(kept: &Value) -> String {
    kept["value"].as_str().map_or_else(|| "(binary)".to_owned(), |text| output::beginning(text, VALUE_SHOWN))
}

/// Prints a value as it is kept.
fn get(binding: &str, key: &str, http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.get(&key_path(binding, key))?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    Ok(output::body("", &value(&answer.body)?)?)
}

/// The bytes of a value that came as text or as base64.
///
/// # Errors
/// It came as neither: what answered is no node of this version.
fn value(kept: &Value) -> anyhow::Result<Vec<u8>> {
    match (kept["value"].as_str(), kept["value_base64"].as_str()) {
        (Some(text), _) => Ok(text.as_bytes().to_vec()),
        (None, Some(encoded)) => {
            BASE64_STANDARD.decode(encoded).context("the value that the node answered is no base64")
        }
        (None, None) => anyhow::bail!("the node answered a key without its value"),
    }
}

/// Deletes a key; without one, all of them.
fn delete(binding: &str, key: Option<&str>, http: &HttpArgs) -> anyhow::Result<()> {
    let (path, sentence) = match key {
        Some(key) => (key_path(binding, key), format!("key {key} of binding {binding} deleted")),
        None => {
            let all = query(&[("all", Some("true"))]);
            (format!("{}{all}", path(binding)), format!("all that binding {binding} kept is deleted"))
        }
    };
    let answer = http.client()?.delete(&path)?;
    resource::report(http, &answer.body, sentence)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::fake::FakeNode;

    #[test]
    fn a_value_comes_as_text_or_as_base64() {
        assert_eq!(value(&json!({"value": "né"})).unwrap(), "né".as_bytes());
        assert_eq!(value(&json!({"value_base64": "/wA="})).unwrap(), [0xff, 0]);
        assert!(value(&json!({"value_base64": "?"})).is_err() && value(&json!({})).is_err());
        assert_eq!(beginning(&json!({"value_base64": "/wA="})), "(binary)");
        assert_eq!(beginning(&json!({"value": "x".repeat(61)})).chars().count(), VALUE_SHOWN);
    }

    #[test]
    fn keys_are_one_segment_and_only_all_of_them_are_deleted_without_one() {
        let node =
            FakeNode::answering(&[("204 No Content", ""), ("204 No Content", ""), ("200 OK", "{\"items\": []}")]);
        let http = node.args(false);
        delete("team/stock", Some("paid/10 %"), &http).unwrap();
        delete("stock", None, &http).unwrap();
        list("stock", Some("paid:"), &PageArgs::default(), &http).unwrap();
        assert_eq!(
            node.lines(),
            [
                "DELETE /v1/bindings/team%2Fstock/state/paid%2F10%20%25",
                "DELETE /v1/bindings/stock/state?all=true",
                "GET /v1/bindings/stock/state?prefix=paid%3A"
            ]
        );
    }
}
