//! `vouch topic`: create, list, show, update and delete topics over the HTTP API.
//!
//! Times and sizes are checked for their form before they are sent; whether a value is within bounds only the node
//! knows, and says so.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use crate::http::{HttpArgs, query, segment};
use crate::output::{self, TextTable, cell};
use crate::resource::{self, PageArgs};
use crate::text::{self, SettingChange, set_some};

/// What can be done with topics.
#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create a topic; fails if it exists.
    #[command(after_help = "Example:\n  vouch topic create orders --type transaction --immunity 6s --interval 30s")]
    Create {
        name: String,
        #[command(flatten)]
        settings: TopicSettings,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// List the topics.
    #[command(after_help = "Example:\n  vouch topic list --json")]
    List {
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Show one topic with all its settings.
    #[command(after_help = "Example:\n  vouch topic show orders")]
    Show {
        name: String,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Change the settings that are named; the others stay.
    #[command(after_help = "\
Examples:
  vouch topic update orders --max-checks 30 --schedule 10s,30s,5m
  vouch topic update orders --retention none --schedule none")]
    Update {
        name: String,
        #[command(flatten)]
        settings: TopicSettings,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Delete a topic; refused while it holds open transactions or unconsumed messages, or a binding names it.
    #[command(after_help = "Example:\n  vouch topic delete orders")]
    Delete {
        name: String,
        /// Delete with everything in it, and leave a binding without its topic. The node records who did this, and why.
        #[arg(long)]
        force: bool,
        /// With --force, who does it; the login name if absent.
        #[arg(long, env = "USER", value_name = "NAME", default_value = "operator")]
        by: String,
        /// With --force, why.
        #[arg(long, value_name = "TEXT", default_value = "", requires = "force")]
        reason: String,
        #[command(flatten)]
        http: HttpArgs,
    },
}

impl TopicCommand {
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

/// What kind of messages a topic takes, by its names in the API.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TopicType {
    Normal,
    Fifo,
    Delay,
    Transaction,
    Mixed,
}

/// When a plain send is answered. Half messages and ends of transactions are always on disk before.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Acknowledge {
    /// Answered after the message is on disk.
    Durable,
    /// Answered before: a crash may lose it.
    Memory,
}

/// What becomes of messages past their retention that a group has not finished.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Unconsumed {
    /// They are kept, while somebody of the group was there within seven days.
    Keep,
    /// They go; the group gets a gap on record.
    Expire,
}

/// The settings of a topic in flags. What is not named is not sent: a new topic has the node's default, an old one
/// keeps what it has.
#[derive(Debug, Default, Args)]
pub(crate) struct TopicSettings {
    /// What kind of messages the topic takes; fifo and delay are not available yet.
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Option<TopicType>,
    /// Number of queues.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    queues: Option<u32>,
    /// When a send is answered.
    #[arg(long, value_enum)]
    ack: Option<Acknowledge>,
    /// How long messages are kept after they came into their queue, for example 72h; `none`, the default: for ever.
    #[arg(long, value_name = "TIME", value_parser = text::or_none(text::kept_for))]
    retention: Option<SettingChange<String>>,
    /// How many bytes of messages are kept, the newest, for example 10GiB; `none`, the default: all.
    #[arg(long, value_name = "SIZE", value_parser = text::or_none(text::kept_size))]
    retention_size: Option<SettingChange<String>>,
    /// What becomes of messages past their retention that a group has not finished.
    #[arg(long, value_enum)]
    unconsumed: Option<Unconsumed>,
    /// Transactions: time before the first check.
    #[arg(long, value_name = "TIME", value_parser = text::duration)]
    immunity: Option<String>,
    /// Transactions: time between checks.
    #[arg(long, value_name = "TIME", value_parser = text::duration)]
    interval: Option<String>,
    /// Transactions: answered checks before the transaction is parked; 0 never asks.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    max_checks: Option<u32>,
    /// Transactions: times between checks, separated by commas; replaces the interval, its last step repeats. `none`, the
    /// default: the interval.
    #[arg(long, value_name = "TIMES", value_parser = text::or_none(text::durations))]
    schedule: Option<SettingChange<Vec<String>>>,
}

impl TopicSettings {
    /// The members that were named, as the API takes them.
    fn document(&self) -> Map<String, Value> {
        let mut transaction = Map::new();
        set_some(&mut transaction, "immunity", self.immunity.clone());
        set_some(&mut transaction, "interval", self.interval.clone());
        set_some(&mut transaction, "max_checks", self.max_checks);
        set_some(&mut transaction, "schedule", self.schedule.clone());
        let mut document = Map::new();
        set_some(&mut document, "type", resource::value_name(self.kind));
        set_some(&mut document, "queues", self.queues);
        set_some(&mut document, "ack", resource::value_name(self.ack));
        set_some(&mut document, "retention", self.retention.clone());
        set_some(&mut document, "retention_size", self.retention_size.clone());
        set_some(&mut document, "unconsumed", resource::value_name(self.unconsumed));
        set_some(&mut document, "transaction", (!transaction.is_empty()).then_some(transaction));
        document
    }
}

/// Runs `vouch topic`.
pub(crate) fn run(command: TopicCommand) -> anyhow::Result<()> {
    match command {
        TopicCommand::Create { name, settings, http } => {
            resource::create(&http, "topic", &path(&name), &name, settings.document())
        }
        TopicCommand::List { page, http } => list(&page, &http),
        TopicCommand::Show { name, http } => resource::show(&http, &path(&name)),
        TopicCommand::Update { name, settings, http } => {
            resource::update(&http, "topic", &path(&name), &name, settings.document())
        }
        TopicCommand::Delete { name, force, by, reason, http } => {
            let (by, reason) =
                (force.then_some(by.as_str()), Some(reason.as_str()).filter(|reason| !reason.is_empty()));
            let suffix = query(&[("force", force.then_some("true")), ("by", by), ("reason", reason)]);
            resource::delete(&http, "topic", &format!("{}{suffix}", path(&name)), &name)
        }
    }
}

/// The path of a topic in the HTTP API.
fn path(name: &str) -> String {
    format!("/v1/topics/{}", segment(name))
}

/// Prints a page of topics, a line each.
fn list(page: &PageArgs, http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.get(&format!("/v1/topics{}", page.query(&[])))?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    let mut table = TextTable::new(&["NAME", "TYPE", ">QUEUES", "ACK", "RETENTION", "CHECKS"]);
    for topic in resource::items(&answer.body) {
        table.row([
            cell(topic, "name"),
            cell(topic, "type"),
            cell(topic, "queues"),
            cell(topic, "ack"),
            retention(topic),
            checks(topic),
        ]);
    }
    table.print()?;
    page.more(&answer.body)
}

/// How long and how much of a topic is kept, in one cell, and whether what a group has not finished goes too.
fn retention(topic: &Value) -> String {
    let limits = ["retention", "retention_size"].into_iter().filter(|name| !topic[name].is_null());
    let limits: Vec<String> = limits.map(|name| cell(topic, name)).collect();
    match topic["unconsumed"].as_str() {
        _ if limits.is_empty() => "-".to_owned(),
        Some("expire") => format!("{}, unconsumed too", limits.join(", ")),
        _ => limits.join(", "),
    }
}

/// How a topic's transactions are checked, in one cell.
fn checks(topic: &Value) -> String {
    let Some(transaction) = topic.get("transaction").filter(|transaction| transaction.is_object()) else {
        return "-".to_owned();
    };
    let steps = match transaction.get("schedule") {
        Some(Value::Array(steps)) if !steps.is_empty() => format!("after {}", output::plain(&json!(steps))),
        _ => format!("every {}", cell(transaction, "interval")),
    };
    format!("{} {steps}, at most {}", cell(transaction, "immunity"), cell(transaction, "max_checks"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_settings_are_sent() {
        assert!(TopicSettings::default().document().is_empty());
        let settings = TopicSettings {
            kind: Some(TopicType::Transaction),
            queues: Some(4),
            schedule: Some(SettingChange::To(vec!["10s".to_owned()])),
            ..TopicSettings::default()
        };
        let expected = json!({"type": "transaction", "queues": 4, "transaction": {"schedule": ["10s"]}});
        assert_eq!(Value::Object(settings.document()), expected);
    }

    #[test]
    fn what_was_set_can_be_taken_away() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            settings: TopicSettings,
        }
        let line = ["x", "--retention", "none", "--retention-size", "none", "--schedule", "none"];
        let Line { settings } = clap::Parser::parse_from(line);
        let expected = json!({"retention": null, "retention_size": null, "transaction": {"schedule": null}});
        assert_eq!(Value::Object(settings.document()), expected);
        assert!(<Line as clap::Parser>::try_parse_from(["x", "--retention", "nothing"]).is_err());
        assert!(<Line as clap::Parser>::try_parse_from(["x", "--retention-size", "10GB"]).is_err());
    }

    #[test]
    fn the_list_says_how_much_is_kept() {
        assert_eq!(retention(&json!({})), "-");
        assert_eq!(retention(&json!({"retention": "3days"})), "3days");
        assert_eq!(retention(&json!({"retention": "3days", "retention_size": "10GiB"})), "3days, 10GiB");
        assert_eq!(retention(&json!({"retention": "3days", "unconsumed": "keep"})), "3days");
        assert_eq!(retention(&json!({"retention": "3days", "unconsumed": "expire"})), "3days, unconsumed too");
    }

    #[test]
    fn the_list_says_how_transactions_are_checked() {
        let topic = json!({"transaction": {"immunity": "6s", "interval": "30s", "max_checks": 15}});
        assert_eq!(checks(&topic), "6s every 30s, at most 15");
        assert_eq!(checks(&json!({"type": "normal"})), "-");
    }
}
