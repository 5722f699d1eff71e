//! `vouch plugin logs`: what components said, as long as the node that asked them keeps it.

use clap::Args;
use serde_json::Value;

use super::reference::path;
use crate::escape;
use crate::http::{HttpArgs, query};
use crate::output::{self, cell};
use crate::text;

/// Whose lines, from when on, and whether to wait for more.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The plugin.
    #[arg(value_name = "NAME")]
    name: String,
    /// Go on with each new line.
    #[arg(long)]
    follow: bool,
    /// Only lines from then on: how long ago, for example 10m, a time in UTC, or milliseconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = text::time_or_ago)]
    since: Option<String>,
    #[command(flatten)]
    pub(super) http: HttpArgs,
}

/// Prints lines as they come: those that are kept, and with `--follow` the new ones until the node ends the stream.
///
/// # Errors
/// There is no such plugin, or the connection breaks. That nothing is kept is no error; it is noted on standard error.
pub(super) fn logs(args: &LogsArgs) -> anyhow::Result<()> {
    let follow = (!args.follow).then_some("false");
    let filters = query(&[("follow", follow), ("since", args.since.as_deref())]);
    let events = args.http.client()?.lines(&format!("{}/logs{filters}", path(&args.name)))?;
    let mut said = false;
    for event in events {
        // Other lines name the event, or keep the connection alive.
        let event = event?;
        let Some(data) = event.strip_prefix("data:") else { continue };
        let line = text::json(data).map_err(|why| anyhow::anyhow!("a log line from the node {why}"))?;
        said = true;
        output::line(printed(&line, args.http.json))?;
    }
    match (said, args.follow) {
        (_, true) => Ok(output::note("the node ended the stream")?),
        (false, false) => Ok(output::note(nothing_kept(&args.name, args.since.as_deref()))?),
        (true, false) => Ok(()),
    }
}

/// Whether anything was said that is not kept any more, nobody knows.
fn nothing_kept(plugin: &str, since: Option<&str>) -> String {
    let since = since.map(|since| format!(" from --since {since} on")).unwrap_or_default();
    format!(
        "the node keeps no line of the components of {plugin}{since}: it keeps the last 256 of each binding, and those go \
         when the binding is set again or deleted, and when the node stops"
    )
}

/// A line of the log as it is printed. A document is escaped as JSON is ([`output::json_line`]): what is printed behind this
/// finds nothing more to escape.
fn printed(line: &Value, json: bool) -> String {
    if json { escape::json(&line.to_string()).into_owned() } else { log_line(line) }
}

/// When, for which binding, how loud, about which transaction, what.
fn log_line(line: &Value) -> String {
    let [at, binding, level, transaction, text] =
        ["at", "binding", "level", "transaction_id", "text"].map(|name| cell(line, name));
    format!("{at}  {binding}  {level:5}  {transaction}  {text}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_log_says_only_what_is_known() {
        let said = nothing_kept("check", None);
        assert!(said.contains("no line of the components of check:") && said.contains("set again"), "{said}");
        assert!(nothing_kept("check", Some("10m")).contains("of check from --since 10m on:"));
    }

    #[test]
    fn what_a_component_says_stays_on_its_line() {
        let line = json!({"at": "2026-01-31T10:00:00.000Z", "binding": "orders", "level": "warn", "transaction_id": "T0",
            "text": "a\n2026-01-31T10:00:00.000Z  orders  info   T0  forged\u{1b}[2J", "number": 1, "source": "guest"});
        let shown = log_line(&line);
        assert!(shown.starts_with("2026-01-31T10:00:00.000Z  orders  warn   T0  a\\n2026"), "{shown}");
        assert!(!shown.contains(char::is_control), "{shown}");
    }

    #[test]
    fn what_a_component_says_stays_the_same_document() {
        let line = json!({"binding": "orders", "text": "a\nb\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{2028}\u{feff}\u{e0041}é"});
        let shown = printed(&line, true);
        assert!(shown.contains("\\u202e") && shown.contains('é'), "{shown}");
        assert_eq!(escape::line(&shown), shown, "nothing in it acts on the screen, nor is escaped by another rule");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), line);
        assert_eq!(printed(&line, false), log_line(&line));
    }
}
