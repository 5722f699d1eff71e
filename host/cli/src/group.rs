//! `vouch group`: create, list, show, update and delete consumer groups over the HTTP API.
//!
//! A group also comes into being with its first receive, with the node's defaults.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value};

use crate::http::{HttpArgs, segment};
use crate::output::{self, TextTable, cell};
use crate::resource::{self, PageArgs};
use crate::text::{self, SettingChange, set_some};

/// What can be done with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Create a group; fails if it exists. A group also comes into being when a consumer first receives.
    #[command(after_help = "Example:\n  vouch group create shipping --max-attempts 5")]
    Create {
        name: String,
        #[command(flatten)]
        settings: GroupSettings,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// List the groups.
    #[command(after_help = "Example:\n  vouch group list --json")]
    List {
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Show one group: its settings, its progress on every topic, and what it missed.
    #[command(after_help = "Example:\n  vouch group show shipping")]
    Show {
        name: String,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Change the settings that are named; the others stay.
    #[command(after_help = "Example:\n  vouch group update shipping --backoff 1s,10s,1m")]
    Update {
        name: String,
        #[command(flatten)]
        settings: GroupSettings,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Delete a group with its progress.
    #[command(after_help = "Example:\n  vouch group delete shipping")]
    Delete {
        name: String,
        #[command(flatten)]
        http: HttpArgs,
    },
}

impl GroupCommand {
    /// Whether `--json` was given.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Create { http, .. }
            | Self::List { http, .. }
            | Self::Show { http, .. }
            | Self::Update { http, .. }
            | Self::Delete { http, .. } => http.json,
        }
    }
}

/// Where a group begins on a topic that it has never read.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Start {
    /// The oldest message that is kept.
    Beginning,
    /// Only what arrives from now on.
    End,
}

/// The settings of a group in flags. What is not named is not sent: a new group has the node's default, an old one
/// keeps what it has.
#[derive(Debug, Default, Args)]
pub(crate) struct GroupSettings {
    /// Where the group starts on a topic it has never read.
    #[arg(long, value_enum)]
    start: Option<Start>,
    /// Deliveries before a message goes to the dead-letter topic.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: Option<u32>,
    /// Delays between deliveries to push clients, separated by commas; the last one repeats. `none` goes back to the default.
    #[arg(long, value_name = "TIMES", value_parser = text::or_none(text::durations))]
    backoff: Option<SettingChange<Vec<String>>>,
    /// Topic for messages that were delivered in vain. An empty text goes back to the default, %DLQ% and the group's name.
    #[arg(long, value_name = "TOPIC", value_parser = text::or_empty)]
    dead_letter_topic: Option<SettingChange<String>>,
}

impl GroupSettings {
    /// The members that were named, as the API takes them; `null` takes one back to its default.
    fn document(&self) -> Map<String, Value> {
        let mut document = Map::new();
        set_some(&mut document, "start", resource::value_name(self.start));
        set_some(&mut document, "max_attempts", self.max_attempts);
        set_some(&mut document, "backoff", self.backoff.clone());
        set_some(&mut document, "dead_letter_topic", self.dead_letter_topic.clone());
        document
    }
}

/// Runs `vouch group`.
pub(crate) fn run(command: GroupCommand) -> anyhow::Result<()> {
    match command {
        GroupCommand::Create { name, settings, http } => {
            resource::create(&http, "group", &path(&name), &name, settings.document())
        }
        GroupCommand::List { page, http } => list(&page, &http),
        GroupCommand::Show { name, http } => show(&name, &http),
        GroupCommand::Update { name, settings, http } => {
            resource::update(&http, "group", &path(&name), &name, settings.document())
        }
        GroupCommand::Delete { name, http } => resource::delete(&http, "group", &path(&name), &name),
    }
}

/// The path of a group in the HTTP API.
fn path(name: &str) -> String {
    format!("/v1/groups/{}", segment(name))
}

/// Prints a page of groups, a line each.
fn list(page: &PageArgs, http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.get(&format!("/v1/groups{}", page.query(&[])))?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    let mut table = TextTable::new(&["NAME", "ORDERED", "START", ">ATTEMPTS", "DEAD LETTERS"]);
    for group in resource::items(&answer.body) {
        let columns = ["name", "ordered", "start", "max_attempts", "dead_letter_topic"];
        table.row(columns.map(|name| cell(group, name)));
    }
    table.print()?;
    page.more(&answer.body)
}

/// Shows a group with its progress on each topic, and the gaps: stretches of messages that expired before it received
/// them. These are three answers of the node; between them a message may come or go.
fn show(name: &str, http: &HttpArgs) -> anyhow::Result<()> {
    let client = http.client()?;
    let mut group = client.get(&path(name))?.body;
    let progress = client.get(&format!("{}/progress", path(name)))?.body;
    let gaps = client.get(&format!("{}/gaps", path(name)))?.body;
    if http.json {
        if let Some(members) = group.as_object_mut() {
            members.insert("progress".to_owned(), progress);
            members.insert("gaps".to_owned(), gaps);
        }
        return Ok(output::json(&group)?);
    }
    output::line(output::describe(&group))?;
    let mut table = TextTable::new(&["TOPIC", ">LAG", ">READY", ">IN FLIGHT"]);
    for topic in resource::items(&progress) {
        table.row(["topic", "lag", "ready", "in_flight"].map(|name| cell(topic, name)));
    }
    output::line("")?;
    table.print()?;
    let gaps = resource::items(&gaps);
    if !gaps.is_empty() {
        output::line("")?;
        let mut table = TextTable::new(&["MISSED OF", ">QUEUE", ">FROM", ">TO", ">MESSAGES", "AT"]);
        for gap in gaps {
            table.row(["topic", "queue", "from", "to", "messages", "at"].map(|name| cell(gap, name)));
        }
        table.print()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_settings_are_sent() {
        assert!(GroupSettings::default().document().is_empty());
        let settings = GroupSettings { start: Some(Start::End), max_attempts: Some(3), ..GroupSettings::default() };
        assert_eq!(Value::Object(settings.document()), serde_json::json!({"start": "end", "max_attempts": 3}));
        let settings = GroupSettings {
            backoff: Some(SettingChange::Default),
            dead_letter_topic: Some(text::or_empty("").unwrap()),
            ..GroupSettings::default()
        };
        assert_eq!(Value::Object(settings.document()), serde_json::json!({"backoff": null, "dead_letter_topic": null}));
    }
}
