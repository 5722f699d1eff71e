//! `vouch plugin`: upload components, look at them, move tags, read what they say, delete.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::escape;
use crate::failure::{Problem, Usage};
use crate::http::{Answer, HttpArgs, HttpClient, query, segment};
use crate::output::{self, Table, cell};
use crate::resource::{self, Page};
use crate::text;

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Upload a component under a name and a tag; prints the node's verdict on it.
    #[command(after_help = "\
Example:
  vouch plugin push order-checkback:1.0 \\
      target/wasm32-wasip2/release/order_checkback.wasm")]
    Push {
        /// Name and tag.
        #[arg(value_name = "NAME:TAG", value_parser = Reference::parse)]
        reference: Reference,
        /// The component, a .wasm file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// If the tag names another component, move it.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// List the plugins.
    #[command(after_help = "Example:\n  vouch plugin list")]
    List {
        #[command(flatten)]
        page: Page,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Show a plugin: its tags and components, what they import and export.
    #[command(after_help = "Example:\n  vouch plugin show order-checkback")]
    Show {
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Give a component that was uploaded before another tag.
    #[command(after_help = "\
Example:
  vouch plugin tag order-checkback:1.0 stable --replace

A binding keeps the component it was set with; set it again to follow the tag.")]
    Tag {
        /// The component: by tag, or by digest as NAME@sha256:HEX.
        #[arg(value_name = "NAME:TAG", value_parser = Reference::parse)]
        source: Reference,
        /// The new tag.
        #[arg(value_name = "NEW_TAG")]
        tag: String,
        /// If the tag names another component, move it.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Show what the components of a plugin said lately: the last 256 lines of each binding that was asked.
    #[command(after_help = "\
Examples:
  vouch plugin logs order-checkback --since 10m
  vouch plugin logs order-checkback --follow --json | jq .text

A line is kept in the memory of the node that asked, until 256 newer ones came, the binding is set again or \
deleted, or the node stops. Binding by binding, oldest first; with --follow each new line as it comes.

Control characters are written out; with --json each line is one document, with the text as it was.")]
    Logs(LogsArgs),
    /// Delete a plugin or one of its components, which is refused while a binding uses it; or a tag, and with the last one
    /// the plugin.
    #[command(after_help = "\
Examples:
  vouch plugin delete order-checkback:0.9
  vouch plugin delete order-checkback")]
    Delete {
        /// NAME, NAME:TAG or NAME@sha256:HEX.
        #[arg(value_name = "NAME[:TAG]")]
        reference: String,
        #[command(flatten)]
        http: HttpArgs,
    },
}

impl PluginCommand {
    /// Whether `--json` was given.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Push { http, .. }
            | Self::List { http, .. }
            | Self::Show { http, .. }
            | Self::Tag { http, .. }
            | Self::Delete { http, .. } => http.json,
            Self::Logs(args) => args.http.json,
        }
    }
}

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
    http: HttpArgs,
}

/// A component by name and tag, or by name and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    name: String,
    version: Version,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Version {
    Tag(String),
    Digest(String),
}

impl Reference {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, version) = match text.split_once('@') {
            Some((name, digest)) => (name, Version::Digest(digest.to_owned())),
            None => match text.split_once(':') {
                Some((name, tag)) => (name, Version::Tag(tag.to_owned())),
                None => return Err(format!("`{text}` has no tag; write NAME:TAG, for example {text}:1.0")),
            },
        };
        let (Version::Tag(part) | Version::Digest(part)) = &version;
        if name.is_empty() || part.is_empty() {
            return Err(format!("`{text}` is not NAME:TAG or NAME@sha256:HEX"));
        }
        Ok(Self { name: name.to_owned(), version })
    }

    fn path(&self) -> String {
        match &self.version {
            Version::Tag(tag) => tag_path(&self.name, tag),
            Version::Digest(digest) => format!("{}/digests/{}", path(&self.name), segment(digest)),
        }
    }
}

/// Runs `vouch plugin`.
pub(crate) fn run(command: PluginCommand) -> anyhow::Result<()> {
    match command {
        PluginCommand::Push { reference, file, replace, http } => push(&reference, &file, replace, &http),
        PluginCommand::List { page, http } => list(&page, &http),
        PluginCommand::Show { name, http } => show(&name, &http),
        PluginCommand::Tag { source, tag, replace, http } => retag(&source, &tag, replace, &http),
        PluginCommand::Logs(args) => logs(&args),
        PluginCommand::Delete { reference, http } => delete(&reference, &http),
    }
}

fn path(name: &str) -> String {
    format!("/v1/plugins/{}", segment(name))
}

fn tag_path(name: &str, tag: &str) -> String {
    format!("{}/tags/{}", path(name), segment(tag))
}

fn push(reference: &Reference, file: &Path, replace: bool, http: &HttpArgs) -> anyhow::Result<()> {
    let Version::Tag(tag) = &reference.version else {
        return Err(Usage::error("a component is pushed under a tag, NAME:TAG; the node computes its digest"));
    };
    let bytes = std::fs::read(file).with_context(|| format!("cannot read the component {}", file.display()))?;
    let (answer, moved) = put_tag(&http.client()?, &reference.name, tag, bytes, replace)?;
    print_verdict(http, &answer, moved, &format!("{}:{tag}", reference.name))
}

/// Puts a component under a tag. The node refuses to move a tag that names another one, unless `replace`.
/// Returns its verdict, and whether the tag named another one before.
pub(crate) fn put_tag(
    client: &HttpClient,
    name: &str,
    tag: &str,
    bytes: Vec<u8>,
    replace: bool,
) -> anyhow::Result<(Answer, bool)> {
    let path = tag_path(name, tag);
    let current = if replace { current_digest(client, &path)? } else { None };
    let mut headers = vec![("content-type", "application/wasm")];
    if let Some(etag) = &current {
        headers.push(("if-match", etag));
    }
    let answer = client.put_bytes(&path, bytes, &headers).map_err(|error| explain_taken(error, name, tag))?;
    let moved = current.is_some() && answer.etag != current;
    Ok((answer, moved))
}

/// The entity tag of what a plugin tag names now; `None` if there is no such tag.
fn current_digest(client: &HttpClient, path: &str) -> anyhow::Result<Option<String>> {
    match client.get(path) {
        Ok(answer) => Ok(answer.etag),
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

fn status(error: &anyhow::Error) -> Option<u16> {
    error.downcast_ref::<Problem>().and_then(Problem::status)
}

fn explain_taken(error: anyhow::Error, name: &str, tag: &str) -> anyhow::Error {
    let error = Problem::explain(error, 428, || {
        format!("{name}:{tag} names another component already; --replace moves the tag")
    });
    Problem::explain(error, 412, || format!("somebody else moved {name}:{tag} meanwhile; look at it, then try again"))
}

fn retag(source: &Reference, tag: &str, replace: bool, http: &HttpArgs) -> anyhow::Result<()> {
    let client = http.client()?;
    let digest = match &source.version {
        Version::Digest(digest) => digest.clone(),
        Version::Tag(_) => {
            let found = client.get(&source.path())?.body;
            found.get("digest").and_then(Value::as_str).context("the node's answer has no digest")?.to_owned()
        }
    };
    let bytes = client.get_bytes(&format!("{}/digests/{}", path(&source.name), segment(&digest)))?;
    let (answer, moved) = put_tag(&client, &source.name, tag, bytes, replace)?;
    print_verdict(http, &answer, moved, &format!("{}:{tag}", source.name))
}

fn print_verdict(http: &HttpArgs, answer: &Answer, moved: bool, reference: &str) -> anyhow::Result<()> {
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    let what = match (answer.created, moved) {
        (true, _) => "pushed",
        (_, true) => "moved to another component",
        _ => "is up to date",
    };
    output::line(format_args!("{reference} {what}"))?;
    Ok(output::line(described(&answer.body))?)
}

fn show(name: &str, http: &HttpArgs) -> anyhow::Result<()> {
    let mut answer = http.client()?.get(&path(name))?.body;
    if http.json {
        return Ok(output::json(&answer)?);
    }
    let components = answer.as_object_mut().and_then(|plugin| plugin.remove("components"));
    output::line(output::describe(&answer))?;
    for component in components.iter().flat_map(resource::items) {
        output::line(format_args!("\n{}", described(component)))?;
    }
    Ok(())
}

/// A component, and below it, line by line, what it reads of a binding's config.
fn described(component: &Value) -> String {
    let mut component = component.clone();
    let settings = component.get("config").and_then(Value::as_array).filter(|settings| !settings.is_empty()).cloned();
    let Some(settings) = settings else { return output::describe(&component) };
    component.as_object_mut().expect("it has a member").remove("config");
    let mut table = Table::new(&["NAME", "VALUE", ""]);
    settings.iter().for_each(|setting| table.row([cell(setting, "name"), value_of(setting), demands(setting)]));
    let table: Vec<String> = table.render().lines().map(|line| format!("  {line}")).collect();
    format!(
        "{}\nconfig, which a binding gives with --config NAME=VALUE:\n{}",
        output::describe(&component),
        table.join("\n")
    )
}

/// What the value of a setting has to be.
fn value_of(setting: &Value) -> String {
    match setting.get("values").and_then(Value::as_array) {
        Some(values) if !values.is_empty() => values.iter().map(output::plain).collect::<Vec<_>>().join(" | "),
        _ => cell(setting, "type"),
    }
}

/// Whether the component works without a setting, and what that one needs besides.
fn demands(setting: &Value) -> String {
    let required = setting["required"] == true;
    let needs = setting.get("needs").and_then(Value::as_array).filter(|needs| !needs.is_empty());
    let needs = needs.map(|needs| format!("needs {}", needs.iter().map(output::plain).collect::<Vec<_>>().join(", ")));
    required.then(|| "required".to_owned()).into_iter().chain(needs).collect::<Vec<_>>().join(", ")
}

fn list(page: &Page, http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.get(&format!("/v1/plugins{}", page.query(&[])))?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    let mut table = Table::new(&["NAME", "TAGS", ">COMPONENTS"]);
    for plugin in resource::items(&answer.body) {
        let components = plugin.get("digests").and_then(Value::as_array).map_or(0, Vec::len);
        table.row([cell(plugin, "name"), tags(plugin), components.to_string()]);
    }
    table.print()?;
    page.more(&answer.body)
}

/// The tags of a plugin, whether the node lists them as names, as objects with a name, or as a map to digests.
fn tags(plugin: &Value) -> String {
    let names: Vec<String> = match plugin.get("tags") {
        Some(Value::Object(tags)) => tags.keys().cloned().collect(),
        Some(Value::Array(tags)) => tags.iter().map(|tag| output::plain(tag.get("tag").unwrap_or(tag))).collect(),
        _ => Vec::new(),
    };
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

fn logs(args: &LogsArgs) -> anyhow::Result<()> {
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

fn delete(reference: &str, http: &HttpArgs) -> anyhow::Result<()> {
    let path = match Reference::parse(reference) {
        Ok(reference) => reference.path(),
        Err(_) if !reference.contains([':', '@']) => path(reference),
        Err(error) => return Err(Usage::error(error)),
    };
    resource::delete(http, "plugin", &path, reference)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_reference_names_a_tag_or_a_digest() {
        let tagged = Reference::parse("team/check:1.0").unwrap();
        assert_eq!(tagged.path(), "/v1/plugins/team%2Fcheck/tags/1.0");
        let digest = Reference::parse("check@sha256:ab").unwrap();
        assert_eq!(digest.path(), "/v1/plugins/check/digests/sha256%3Aab");
    }

    #[test]
    fn a_reference_without_tag_says_how_to_write_one() {
        assert!(Reference::parse("check").unwrap_err().contains("check:1.0"));
        assert!(Reference::parse("check:").is_err());
        assert!(Reference::parse(":1.0").is_err());
    }

    #[test]
    fn what_a_component_reads_of_its_config_has_a_line_for_each_name() {
        let component = json!({"name": "check", "size": 7, "config": [
            {"name": "url", "type": "url", "required": true},
            {"name": "fence", "type": "text", "values": ["on", "off"], "needs": ["url", "k\nforged"]},
            {"name": "field", "type": "text"},
        ]});
        assert_eq!(
            described(&component),
            "name: check\nsize: 7\nconfig, which a binding gives with --config NAME=VALUE:\n  \
             NAME   VALUE\n  \
             url    url       required\n  \
             fence  on | off  needs url, k\\nforged\n  \
             field  text"
        );
        // Of one that says nothing of it nothing is known, and one may say that there is none.
        assert_eq!(described(&json!({"name": "check"})), "name: check");
        assert_eq!(described(&json!({"name": "check", "config": []})), "config: -\nname:   check");
    }

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

    #[test]
    fn tags_are_listed_by_name() {
        assert_eq!(tags(&json!({"tags": {"1.0": "sha256:ab", "stable": "sha256:ab"}})), "1.0,stable");
        assert_eq!(tags(&json!({"tags": ["1.0"]})), "1.0");
        assert_eq!(tags(&json!({"tags": [{"tag": "1.0", "digest": "x"}]})), "1.0");
        assert_eq!(tags(&json!({})), "-");
    }
}
