//! A binding in flags: what `vouch binding set` makes of them.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::failure::WrongUsage;
use crate::group::Start;
use crate::resource;
use crate::text::{self, set_some};

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
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plugin", "topics", "groups", "subscribe", "start", "allow_http", "allow_private_http", "state", "publish", "config", "config_secret", "no_body", "fallback", "memory", "deadline", "concurrency", "state_quota", "rate", "effects_rate", "unchecked"])]
    file: Option<PathBuf>,
    /// The component: NAME:TAG or NAME@sha256:HEX.
    #[arg(long, value_name = "REFERENCE", required_unless_present = "file")]
    plugin: Option<String>,
    /// Topic whose transactions it settles; may be repeated.
    #[arg(long = "topic", value_name = "TOPIC", required_unless_present_any = ["file", "groups"])]
    topics: Vec<String>,
    /// Group for which it consumes, which comes into being if it is not there; may be repeated.
    #[arg(long = "group", value_name = "GROUP", requires = "subscribe")]
    groups: Vec<String>,
    /// Topic that its groups receive, all of it or what has one of these tags: orders, or 'orders=paid||open'; may be repeated.
    #[arg(long, value_name = "TOPIC[=FILTER]", requires = "groups", value_parser = text::subscription)]
    subscribe: Vec<(String, String)>,
    /// Where its groups start on a topic they have never read.
    #[arg(long, value_enum, requires = "groups")]
    start: Option<Start>,
    /// Origin that it may call over HTTP, for example http://127.0.0.1:9000; may be repeated.
    #[arg(long, value_name = "ORIGIN")]
    allow_http: Vec<String>,
    /// The same for a name that resolves to a private address.
    #[arg(long, value_name = "ORIGIN")]
    allow_private_http: Vec<String>,
    /// Let it keep state: in a namespace of its own, or in the one of this name, which several bindings may share.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    state: Option<String>,
    /// Topic that it may publish to; may be repeated.
    #[arg(long, value_name = "TOPIC")]
    publish: Vec<String>,
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
    /// What its namespace of state may hold, for example 64MiB.
    #[arg(long, value_name = "SIZE", value_parser = text::size)]
    state_quota: Option<String>,
    /// Deliveries in a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// What its answers may put into the log in a second, for example 16MiB.
    #[arg(long, value_name = "SIZE", value_parser = text::size)]
    effects_rate: Option<String>,
    /// Set it without trying it: its component is not asked before it stands.
    #[arg(long)]
    unchecked: bool,
}

impl BindingSettings {
    /// The document that the API takes: of the file as it is, or of the flags.
    ///
    /// # Errors
    /// The file cannot be read. [`WrongUsage`]: it is no JSON; what in it is wrong the node tells.
    pub(super) fn document(&self) -> anyhow::Result<Value> {
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
        let named = |topic: &String| self.subscribe.iter().filter(|(other, _)| other == topic).count();
        if let Some((twice, _)) = self.subscribe.iter().find(|(topic, _)| named(topic) > 1) {
            return Err(WrongUsage::error(format!(
                "`{twice}` is subscribed to twice: write all tags in one filter, as in --subscribe '{twice}=one||other'"
            )));
        }
        let mut document = Map::new();
        set_some(&mut document, "plugin", self.plugin.clone());
        set_some(&mut document, "topics", (!self.topics.is_empty()).then(|| self.topics.clone()));
        set_some(&mut document, "groups", (!self.groups.is_empty()).then(|| self.groups.clone()));
        let subscriptions = self.subscribe.iter().map(|(topic, filter)| (topic.clone(), json!(filter)));
        set_some(&mut document, "subscriptions", object(subscriptions));
        set_some(&mut document, "start", resource::value_name(self.start));
        set_some(&mut document, "grants", self.grants());
        set_some(&mut document, "config", self.config_object());
        set_some(&mut document, "body", self.no_body.then_some(false));
        set_some(&mut document, "fallback", resource::value_name(self.fallback));
        set_some(&mut document, "limits", self.limits());
        set_some(&mut document, "unchecked", self.unchecked.then_some(true));
        Ok(Value::Object(document))
    }

    /// What the component may do beyond its own memory: origins that it may call, state that it may keep, topics that it may
    /// publish to. None, if no flag says so.
    fn grants(&self) -> Option<Value> {
        let private = self.allow_private_http.iter().map(|origin| json!({"origin": origin, "private": true}));
        let http: Vec<Value> = self.allow_http.iter().map(|origin| json!(origin)).chain(private).collect();
        let state = self.state.as_deref().map(|name| if name.is_empty() { json!(true) } else { json!(name) });
        let mut grants = Map::new();
        set_some(&mut grants, "http", (!http.is_empty()).then_some(http));
        set_some(&mut grants, "state", state);
        set_some(&mut grants, "publish", (!self.publish.is_empty()).then(|| self.publish.clone()));
        object(grants)
    }

    /// The component's config; values are text, as components read them.
    fn config_object(&self) -> Option<Value> {
        let texts = self.config.iter().map(|(name, value)| (name.clone(), json!(value)));
        let secrets = self.config_secret.iter().map(|(name, secret)| (name.clone(), json!({ "secret": secret })));
        object(texts.chain(secrets))
    }

    /// What one call may use, where a flag says so.
    fn limits(&self) -> Option<Value> {
        let mut limits = Map::new();
        set_some(&mut limits, "memory", self.memory.clone());
        set_some(&mut limits, "deadline", self.deadline.clone());
        set_some(&mut limits, "concurrency", self.concurrency);
        set_some(&mut limits, "state", self.state_quota.clone());
        set_some(&mut limits, "rate", self.rate);
        set_some(&mut limits, "effects_rate", self.effects_rate.clone());
        object(limits)
    }
}

/// An object of these members; none, if there are none: what no flag says is not sent.
fn object(members: impl IntoIterator<Item = (String, Value)>) -> Option<Value> {
    let members: Map<String, Value> = members.into_iter().collect();
    (!members.is_empty()).then_some(Value::Object(members))
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

    fn consuming() -> BindingSettings {
        BindingSettings {
            plugin: Some("stock:1.0".to_owned()),
            groups: vec!["stock".to_owned()],
            subscribe: vec![("orders".to_owned(), "paid||open".to_owned()), ("goods".to_owned(), "*".to_owned())],
            ..BindingSettings::default()
        }
    }

    #[test]
    fn flags_of_one_that_consumes_become_groups_subscriptions_and_grants() {
        let settings = BindingSettings {
            start: Some(Start::End),
            state: Some("shelf".to_owned()),
            publish: vec!["reservations".to_owned()],
            state_quota: Some("1MiB".to_owned()),
            rate: Some(50),
            effects_rate: Some("4MiB".to_owned()),
            ..consuming()
        };
        let expected = json!({
            "plugin": "stock:1.0", "groups": ["stock"], "subscriptions": {"orders": "paid||open", "goods": "*"}, "start": "end",
            "grants": {"state": "shelf", "publish": ["reservations"]}, "limits": {"state": "1MiB", "rate": 50, "effects_rate": "4MiB"}
        });
        assert_eq!(settings.document().unwrap(), expected);
        let own = BindingSettings { state: Some(String::new()), ..consuming() };
        assert_eq!(own.document().unwrap()["grants"], json!({"state": true}));
        assert_eq!(consuming().document().unwrap().as_object().unwrap().len(), 3, "what no flag says is not sent");
    }

    #[test]
    fn a_topic_that_is_subscribed_to_twice_is_wrong_usage() {
        let mut settings = consuming();
        settings.subscribe.push(("orders".to_owned(), "*".to_owned()));
        let error = settings.document().unwrap_err();
        assert!(error.is::<WrongUsage>() && error.to_string().contains("--subscribe 'orders="), "{error}");
    }

    #[test]
    fn a_file_that_is_not_json_is_wrong_usage() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "plugin: yaml").unwrap();
        let settings = BindingSettings { file: Some(file.path().to_owned()), ..BindingSettings::default() };
        assert!(settings.document().unwrap_err().is::<WrongUsage>());
    }
}
