//! `vouch binding`: which component answers for which topic, which one consumes for which group, and what it may do.
//!
//! A binding is replaced as a whole, so that what it is never depends on what it was. The node checks the document
//! against the component (does it export what is needed, is every origin granted that its config names) and refuses or
//! warns; its sentences are printed as they come, in words of flags (`failure`).

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::failure::WrongUsage;
use crate::http::{HttpArgs, segment};
use crate::output::{self, TextTable, cell};
use crate::resource::{self, PageArgs};
use crate::text;

mod kept;
mod settings;

use kept::KeptCommand;
use settings::BindingSettings;

/// What can be done with bindings.
#[derive(Debug, Subcommand)]
pub(crate) enum BindingCommand {
    /// Create a binding, or replace it; what is not named takes its default.
    #[command(after_help = "\
Examples:
  vouch binding set orders --plugin http-checkback:1.0 --topic orders \\
      --allow-http http://127.0.0.1:9000 \\
      --config url=http://127.0.0.1:9000/orders/{key} --config field=/status \\
      --config commit=paid --config rollback=cancelled
  vouch binding set stock --plugin stock:1.0 --group stock \\
      --subscribe orders --subscribe payments=received \\
      --state --publish reservations
  vouch binding set orders --file binding.json")]
    Set {
        name: String,
        #[command(flatten)]
        settings: Box<BindingSettings>,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// List the bindings, those that consume with how many messages wait and are under way.
    #[command(after_help = "Example:\n  vouch binding list")]
    List {
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Show one binding: component, groups, grants, limits, config, and how it fares.
    #[command(after_help = "Example:\n  vouch binding show orders")]
    Show {
        name: String,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Try a binding: its databases are looked at and its component is asked, and nothing of that stays.
    #[command(after_help = "\
Examples:
  vouch binding test orders
  vouch binding test orders --half half.json
  vouch binding test stock --message message.json
  vouch binding test orders --ended 50")]
    Test {
        name: String,
        /// JSON file with the half message to ask about: id, topic, tag, keys, properties, body; what is left out is made up.
        #[arg(long, value_name = "FILE")]
        half: Option<PathBuf>,
        /// The same for one that consumes: JSON file with the message that is delivered.
        #[arg(long, value_name = "FILE", conflicts_with = "half")]
        message: Option<PathBuf>,
        /// Ask about the last N transactions that producers ended themselves instead, and list where the component says the opposite.
        #[arg(long, value_name = "N", conflicts_with_all = ["half", "message"], value_parser = clap::value_parser!(u32).range(1..=1000))]
        ended: Option<u32>,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Let a binding pause: its component is asked nothing until it is resumed, and what waits for it waits.
    #[command(after_help = "Example:\n  vouch binding pause stock")]
    Pause {
        name: String,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Let a binding go on that was paused.
    #[command(after_help = "Example:\n  vouch binding resume stock")]
    Resume {
        name: String,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Look at what a binding keeps, or delete it: list, get, delete.
    #[command(after_help = "\
Examples:
  vouch binding state stock list --prefix paid:
  vouch binding state stock get paid:1001
  vouch binding state stock delete paid:1001")]
    State {
        name: String,
        #[command(subcommand)]
        command: KeptCommand,
    },
    /// Delete a binding: its open transactions and messages wait for producers and consumers, or for another binding.
    #[command(after_help = "Example:\n  vouch binding delete orders")]
    Delete {
        name: String,
        #[command(flatten)]
        http: HttpArgs,
    },
}

impl BindingCommand {
    /// Whether `--json` was given.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Set { http, .. }
            | Self::List { http, .. }
            | Self::Show { http, .. }
            | Self::Test { http, .. }
            | Self::Pause { http, .. }
            | Self::Resume { http, .. }
            | Self::Delete { http, .. } => http.json,
            Self::State { command, .. } => command.json(),
        }
    }
}

/// Runs `vouch binding`.
pub(crate) fn run(command: BindingCommand) -> anyhow::Result<()> {
    match command {
        BindingCommand::Set { name, settings, http } => set(&name, &settings, &http),
        BindingCommand::List { page, http } => list(&page, &http),
        BindingCommand::Show { name, http } => resource::show(&http, &path(&name)),
        BindingCommand::Test { name, half, message, ended, http } => {
            let asked = match (ended, half, message) {
                (Some(count), ..) => json!({ "ended": count }),
                (None, Some(half), _) => json!({ "half": read_sample(&half)? }),
                (None, None, Some(message)) => json!({ "message": read_sample(&message)? }),
                (None, None, None) => json!({}),
            };
            test(&name, &asked, &http)
        }
        BindingCommand::Pause { name, http } => turn(&name, "pause", "pauses", &http),
        BindingCommand::Resume { name, http } => turn(&name, "resume", "goes on", &http),
        BindingCommand::State { name, command } => kept::run(&name, command),
        BindingCommand::Delete { name, http } => resource::delete(&http, "binding", &path(&name), &name),
    }
}

/// The path of a binding in the HTTP API.
fn path(name: &str) -> String {
    format!("/v1/bindings/{}", segment(name))
}

/// Sets a binding, and says which component answers from now on. What the node warns of goes to standard error.
fn set(name: &str, settings: &BindingSettings, http: &HttpArgs) -> anyhow::Result<()> {
    let document = settings.document()?;
    let answer = http.client()?.put(&path(name), &document, &[])?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    resource::warnings(http, &answer.body)?;
    let verb = if answer.created { "created" } else { "replaced" };
    output::line(format_args!("binding {name} {verb}: {} {}", component(&answer.body), does(&answer.body)))?;
    if let Some(waiting) = answer.body["waiting"].as_u64() {
        output::line(format_args!("{waiting} messages wait for its groups"))?;
    }
    if answer.body["paused"] == true {
        output::note(format_args!("warning: it pauses; let it go on with: vouch binding resume {name}"))?;
    }
    Ok(())
}

/// What a binding lets its component do.
fn does(binding: &Value) -> String {
    if binding["untried"].is_string() {
        return "stands untried".to_owned();
    }
    let has = |member: &str| binding[member].as_array().is_some_and(|all| !all.is_empty());
    let consumes = || format!("consumes for {}", cell(binding, "groups"));
    match (has("topics"), has("groups")) {
        (true, true) => format!("answers, and {}", consumes()),
        (false, true) => consumes(),
        (_, false) => "answers".to_owned(),
    }
}

/// Lets a binding pause or go on.
fn turn(name: &str, verb: &str, done: &str, http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.post(&format!("{}/{verb}", path(name)), &json!({}))?;
    resource::report(http, &answer.body, format!("binding {name} {done}"))
}

/// The component as the binding stored it: the digest, because a moved tag changes nothing (ruling 7).
fn component(binding: &Value) -> String {
    let plugin = cell(binding, "plugin");
    match binding.get("digest").and_then(Value::as_str) {
        Some(digest) if !plugin.contains('@') => format!("{plugin} ({})", digest.chars().take(19).collect::<String>()),
        _ => plugin,
    }
}

/// The message that a file describes, half or whole.
fn read_sample(file: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text::json(&text).map_err(|why| WrongUsage::error(format!("{} {why}", file.display())))
}

/// Says what a component said of transactions that producers ended.
fn ended(found: &Value, contradictions: &[Value]) -> anyhow::Result<()> {
    let [asked, agreed, undecided] = ["asked", "agreed", "undecided"].map(|member| cell(found, member));
    output::line(format_args!(
        "asked about {asked} transactions that producers ended: {agreed} agree, {undecided} undecided"
    ))?;
    if let Some(why) = found["undecided_because"].as_str() {
        output::line(format_args!("  undecided: {why}"))?;
    }
    for each in contradictions {
        let [transaction, topic, keys, ended, said] =
            ["transaction", "topic", "keys", "ended", "said"].map(|member| cell(each, member));
        let reason = each["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
        output::line(format_args!(
            "  {transaction} of {topic} (keys {keys}): its producer said {ended}, the component would say {said}{reason}"
        ))?;
    }
    Ok(())
}

/// Says what came of trying a binding. Fails if something is wrong with it that stays so, or if nobody knows.
fn test(name: &str, asked: &Value, http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.post_patiently(&format!("{}/test", path(name)), asked)?.body;
    let each = |member: &str| answer[member].as_array().cloned().unwrap_or_default();
    let contradictions = answer["ended"]["contradictions"].as_array().cloned().unwrap_or_default();
    if http.json {
        output::json(&answer)?;
    } else {
        for database in each("databases") {
            let name = cell(&database, "name");
            let found =
                [("refusals", "must not be used"), ("warnings", "warning")].into_iter().flat_map(|(member, word)| {
                    let said = database[member].as_array().cloned().unwrap_or_default();
                    said.into_iter().map(move |text| format!("{word}: {}", output::plain(&text)))
                });
            let error = database["error"].as_str().map(|error| format!("not known: {error}"));
            let lines: Vec<String> = found.chain(error).collect();
            match lines.as_slice() {
                [] => output::line(format_args!("database {name}: reached"))?,
                lines => lines.iter().try_for_each(|line| output::line(format_args!("database {name}: {line}")))?,
            }
        }
        for call in each("calls") {
            let [asked_as, said, took] = ["asked_as", "answer", "took_ms"].map(|member| cell(&call, member));
            let [memory, limit] = ["memory", "memory_limit"].map(|member| cell(&call, member));
            let reason = call["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
            output::line(format_args!("{asked_as}: {said}{reason} ({took} ms, {memory} of {limit})"))?;
            for asked in call["asked_for"].as_array().into_iter().flatten() {
                output::line(format_args!("  {}", output::plain(asked)))?;
            }
            if let Some(wrong) = call["wrong"].as_str() {
                output::line(format_args!("  wrong: {wrong}"))?;
            }
        }
        if answer["ended"].is_object() {
            ended(&answer["ended"], &contradictions)?;
        }
    }
    if answer["ended"].is_object() && contradictions.is_empty() && answer["ended"]["agreed"] == 0 {
        anyhow::bail!(
            "nothing could be compared: no transaction of binding {name} that a producer ended is known of which its \
            component says anything"
        );
    }
    if !contradictions.is_empty() {
        anyhow::bail!(
            "the component of binding {name} contradicts producers: does the service write the fence row, in this \
            database, with this key?"
        );
    }
    let refused = each("databases").iter().any(|found| found["refusals"].as_array().is_some_and(|all| !all.is_empty()));
    if refused || each("calls").iter().any(|call| call["wrong"].is_string()) {
        anyhow::bail!("binding {name} cannot do what it is set for; see above what is to be mended");
    }
    let unknown = each("databases").iter().any(|found| found["error"].is_string());
    if unknown || each("calls").iter().any(|call| call["answer"] == "no answer") {
        anyhow::bail!(
            "nobody knows whether binding {name} works; see above what did not answer, and try it again when that does"
        );
    }
    Ok(())
}

/// Prints a page of bindings, a line each.
fn list(page: &PageArgs, http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.get(&format!("/v1/bindings{}", page.query(&[])))?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    let headings = ["NAME", "COMPONENT", "TOPICS", "FALLBACK", "GROUPS", "RECEIVES", ">LAG", ">IN FLIGHT", "PAUSED"];
    let mut table = TextTable::new(&headings);
    for binding in resource::items(&answer.body) {
        let [name, topics, fallback, groups, lag] =
            ["name", "topics", "fallback", "groups", "waiting"].map(|member| cell(binding, member));
        let in_flight = cell(&binding["standing"]["consumer"], "in_flight");
        table.row([
            name,
            component(binding),
            topics,
            fallback,
            groups,
            received(binding),
            lag,
            in_flight,
            pause(binding),
        ]);
    }
    table.print()?;
    page.more(&answer.body)
}

/// The topics that a binding consumes, each with its filter where it has one, as flags write them.
fn received(binding: &Value) -> String {
    let subscriptions = binding["subscriptions"].as_object().into_iter().flatten();
    let written: Vec<String> = subscriptions
        .map(|(topic, filter)| match filter.as_str() {
            Some("*") | None => topic.clone(),
            Some(filter) => format!("{topic}={filter}"),
        })
        .collect();
    if written.is_empty() { "-".to_owned() } else { written.join(",") }
}

/// Who lets a binding pause, if anybody does: its operator, or itself since then.
fn pause(binding: &Value) -> String {
    match binding["standing"]["consumer"]["paused_since"].as_str() {
        _ if binding["paused"] == true => "by operator".to_owned(),
        Some(since) => format!("itself since {since}"),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_binding_does_is_told_in_words() {
        let both = json!({"topics": ["orders"], "groups": ["a", "b"]});
        assert_eq!(does(&both), "answers, and consumes for a,b");
        assert_eq!(does(&json!({"topics": [], "groups": ["a"]})), "consumes for a");
        assert_eq!(does(&json!({"topics": ["orders"], "groups": []})), "answers");
        assert_eq!(does(&json!({"topics": ["orders"], "groups": [], "untried": "it is away"})), "stands untried");
    }

    #[test]
    fn a_row_tells_what_is_received_and_who_lets_it_pause() {
        let consumer = json!({"paused_since": "2026-01-31T10:00:00.000Z"});
        let binding = json!({
            "subscriptions": {"goods": "*", "orders": "paid||open"}, "paused": false, "standing": {"consumer": consumer}
        });
        assert_eq!(received(&binding), "goods,orders=paid||open");
        assert_eq!(pause(&binding), "itself since 2026-01-31T10:00:00.000Z");
        assert_eq!(pause(&json!({"paused": true, "standing": {"consumer": consumer}})), "by operator");
        let checks = json!({"subscriptions": {}, "paused": false});
        assert_eq!((received(&checks), pause(&checks)), ("-".to_owned(), "-".to_owned()));
    }
}
