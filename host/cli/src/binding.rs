//! `vouch binding`: which component answers for which topic, and what it may do.
//!
//! A binding is replaced as a whole, so that what it is never depends on what it was. The node checks the document
//! against the component (does it export what is needed, is every origin granted that its config names) and refuses or
//! warns; its sentences are printed as they come, in words of flags (`failure`).

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use crate::failure::WrongUsage;
use crate::http::{HttpArgs, segment};
use crate::output::{self, TextTable, cell};
use crate::resource::{self, PageArgs};
use crate::text::{self, set_some};

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
  vouch binding set orders --file binding.json")]
    Set {
        name: String,
        #[command(flatten)]
        settings: Box<BindingSettings>,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// List the bindings.
    #[command(after_help = "Example:\n  vouch binding list")]
    List {
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Show one binding: component, grants, limits, config.
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
  vouch binding test orders --ended 50")]
    Test {
        name: String,
        /// JSON file with the half message to ask about: id, topic, tag, keys, properties, body; what is left out is made up.
        #[arg(long, value_name = "FILE")]
        half: Option<PathBuf>,
        /// Ask about the last N transactions that producers ended themselves instead, and list where the component says the opposite.
        #[arg(long, value_name = "N", conflicts_with = "half", value_parser = clap::value_parser!(u32).range(1..=1000))]
        ended: Option<u32>,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Delete a binding: its open transactions wait for a producer, or for another binding.
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
            | Self::Delete { http, .. } => http.json,
        }
    }
}

/// Who is asked where the component gives no answer. The node's default is nobody.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Fallback {
    /// Without an answer of the component, wait.
    None,
    /// Without an answer of the component, ask a live producer of the topic.
    Producer,
}

/// A binding in flags. What is not named is not sent, and has the node's default.
#[derive(Debug, Default, Args)]
pub(crate) struct BindingSettings {
    /// The whole binding as a JSON file, as the HTTP API takes it. Excludes the other settings.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plugin", "topics", "allow_http", "allow_private_http", "config", "config_secret", "no_body", "fallback", "memory", "deadline", "concurrency", "unchecked"])]
    file: Option<PathBuf>,
    /// The component: NAME:TAG or NAME@sha256:HEX.
    #[arg(long, value_name = "REFERENCE", required_unless_present = "file")]
    plugin: Option<String>,
    /// Topic whose transactions it settles; may be repeated.
    #[arg(long = "topic", value_name = "TOPIC", required_unless_present = "file")]
    topics: Vec<String>,
    /// Origin that it may call over HTTP, for example http://127.0.0.1:9000; may be repeated.
    #[arg(long, value_name = "ORIGIN")]
    allow_http: Vec<String>,
    /// The same for a name that resolves to a private address.
    #[arg(long, value_name = "ORIGIN")]
    allow_private_http: Vec<String>,
    /// A value of the component's config; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = text::pair)]
    config: Vec<(String, String)>,
    /// A value of the component's config that is a secret, by its name (vouch secret set); may be repeated.
    #[arg(long, value_name = "NAME=SECRET", value_parser = text::pair)]
    config_secret: Vec<(String, String)>,
    /// Do not hand the message body to the component.
    #[arg(long)]
    no_body: bool,
    /// Who is asked when the component gives no answer.
    #[arg(long, value_enum)]
    fallback: Option<Fallback>,
    /// Memory of one instance, for example 64MiB.
    #[arg(long, value_name = "SIZE", value_parser = text::size)]
    memory: Option<String>,
    /// Time for one call, for example 1s.
    #[arg(long, value_name = "TIME", value_parser = text::duration)]
    deadline: Option<String>,
    /// Calls at the same time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// Set it without trying it: its component is not asked before it stands.
    #[arg(long)]
    unchecked: bool,
}

impl BindingSettings {
    /// The document that the API takes: of the file as it is, or of the flags.
    ///
    /// # Errors
    /// The file cannot be read. [`WrongUsage`]: it is no JSON; what in it is wrong the node tells.
    fn document(&self) -> anyhow::Result<Value> {
        if let Some(file) = &self.file {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            return text::json(&text).map_err(|why| WrongUsage::error(format!("{} {why}", file.display())));
        }
        if let Some((twice, _)) =
            self.config.iter().find(|(name, _)| self.config_secret.iter().any(|(other, _)| other == name))
        {
            return Err(WrongUsage::error(format!(
                "`{twice}` is set by --config and by --config-secret: leave out one of them"
            )));
        }
        let mut document = Map::new();
        set_some(&mut document, "plugin", self.plugin.clone());
        set_some(&mut document, "topics", (!self.topics.is_empty()).then(|| self.topics.clone()));
        set_some(&mut document, "grants", self.grants());
        set_some(&mut document, "config", self.config_object());
        set_some(&mut document, "body", self.no_body.then_some(false));
        set_some(&mut document, "fallback", resource::value_name(self.fallback));
        set_some(&mut document, "limits", self.limits());
        set_some(&mut document, "unchecked", self.unchecked.then_some(true));
        Ok(Value::Object(document))
    }

    /// What the component may do beyond its own memory: origins that it may call. None, if no flag says so.
    fn grants(&self) -> Option<Value> {
        let private = self.allow_private_http.iter().map(|origin| json!({"origin": origin, "private": true}));
        let http: Vec<Value> = self.allow_http.iter().map(|origin| json!(origin)).chain(private).collect();
        (!http.is_empty()).then(|| json!({"http": http}))
    }

    /// The component's config; values are text, as components read them.
    fn config_object(&self) -> Option<Value> {
        let texts = self.config.iter().map(|(name, value)| (name.clone(), json!(value)));
        let secrets = self.config_secret.iter().map(|(name, secret)| (name.clone(), json!({ "secret": secret })));
        let members: Map<String, Value> = texts.chain(secrets).collect();
        (!members.is_empty()).then_some(Value::Object(members))
    }

    /// What one call may use, where a flag says so.
    fn limits(&self) -> Option<Value> {
        let mut limits = Map::new();
        set_some(&mut limits, "memory", self.memory.clone());
        set_some(&mut limits, "deadline", self.deadline.clone());
        set_some(&mut limits, "concurrency", self.concurrency);
        (!limits.is_empty()).then_some(Value::Object(limits))
    }
}

/// Runs `vouch binding`.
pub(crate) fn run(command: BindingCommand) -> anyhow::Result<()> {
    match command {
        BindingCommand::Set { name, settings, http } => set(&name, &settings, &http),
        BindingCommand::List { page, http } => list(&page, &http),
        BindingCommand::Show { name, http } => resource::show(&http, &path(&name)),
        BindingCommand::Test { name, half, ended, http } => {
            let asked = match ended {
                Some(count) => json!({ "ended": count }),
                None => json!({ "half": half.as_deref().map_or_else(|| Ok(json!({})), read_half)? }),
            };
            test(&name, &asked, &http)
        }
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
    Ok(output::line(format_args!("binding {name} {verb}: {} answers", component(&answer.body)))?)
}

/// The component as the binding stored it: the digest, because a moved tag changes nothing (ruling 7).
fn component(binding: &Value) -> String {
    let plugin = cell(binding, "plugin");
    match binding.get("digest").and_then(Value::as_str) {
        Some(digest) if !plugin.contains('@') => format!("{plugin} ({})", digest.chars().take(19).collect::<String>()),
        _ => plugin,
    }
}

/// The half message that a file describes.
fn read_half(file: &Path) -> anyhow::Result<Value> {
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

/// Says what came of trying a binding. Fails if something is wrong with it that stays so.
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
    Ok(())
}

/// Prints a page of bindings, a line each.
fn list(page: &PageArgs, http: &HttpArgs) -> anyhow::Result<()> {
    let answer = http.client()?.get(&format!("/v1/bindings{}", page.query(&[])))?;
    if http.json {
        return Ok(output::json(&answer.body)?);
    }
    let mut table = TextTable::new(&["NAME", "COMPONENT", "TOPICS", "FALLBACK"]);
    for binding in resource::items(&answer.body) {
        table.row([cell(binding, "name"), component(binding), cell(binding, "topics"), cell(binding, "fallback")]);
    }
    table.print()?;
    page.more(&answer.body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_the_document_that_the_api_takes() {
        let settings = BindingSettings {
            plugin: Some("check:1.0".to_owned()),
            topics: vec!["orders".to_owned()],
            allow_http: vec!["http://127.0.0.1:9000".to_owned()],
            allow_private_http: vec!["http://orders.internal".to_owned()],
            config: vec![("field".to_owned(), "/status".to_owned())],
            config_secret: vec![("authorization".to_owned(), "orders-api".to_owned())],
            no_body: true,
            deadline: Some("1s".to_owned()),
            ..BindingSettings::default()
        };
        let expected = json!({
            "plugin": "check:1.0", "topics": ["orders"], "body": false, "limits": {"deadline": "1s"},
            "grants": {"http": ["http://127.0.0.1:9000", {"origin": "http://orders.internal", "private": true}]},
            "config": {"field": "/status", "authorization": {"secret": "orders-api"}}
        });
        assert_eq!(settings.document().unwrap(), expected);
    }

    #[test]
    fn a_file_that_is_not_json_is_wrong_usage() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "plugin: yaml").unwrap();
        let settings = BindingSettings { file: Some(file.path().to_owned()), ..BindingSettings::default() };
        assert!(settings.document().unwrap_err().is::<WrongUsage>());
    }
}
