//! A binding as users write it.

use std::collections::BTreeMap;

use serde::Deserialize;
use vouch_broker::{NotDone, Refusal, ResourceName};
use vouch_plugin::{BindingSpec, Grants, Limits, MASK, mask_document, mask_urls, masked_member};

/// A binding as users write it (`PUT /v1/bindings/{name}`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BindingDocument {
    pub(super) plugin: String,
    #[serde(default)]
    pub(super) topics: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    grants: Grants,
    #[serde(default)]
    config: BTreeMap<String, serde_json::Value>,
    #[serde(default = "yes")]
    body: bool,
    #[serde(default)]
    pub(super) fallback: Fallback,
    #[serde(default)]
    limits: Limits,
}

/// Components get the body unless their binding says otherwise.
fn yes() -> bool {
    true
}

/// Who is asked when the component gives no answer (ruling 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Fallback {
    #[default]
    None,
    Producer,
}

impl BindingDocument {
    /// Reads a binding. What it says is checked as far as that needs no component: its topics, and that all of it is
    /// known.
    ///
    /// # Errors
    /// [`Refusal::Invalid`], without secrets; [`Refusal::NotBuilt`] for what is to come.
    pub(super) fn parse(spec: &str) -> Result<Self, NotDone> {
        let document: Self = serde_json::from_str(spec).map_err(|error| {
            NotDone::Refused(Refusal::Invalid(format!("the binding cannot be read: {}", mask_urls(&error.to_string()))))
        })?;
        if !document.groups.is_empty() {
            return Err(NotDone::Refused(Refusal::NotBuilt("a binding for consumer groups (use topics)")));
        }
        if document.topics.is_empty() {
            return Err(NotDone::Refused(Refusal::Invalid(
                "the binding names no topic; list at least one in \"topics\"".to_owned(),
            )));
        }
        for topic in &document.topics {
            ResourceName::parse(topic).check_topic()?;
        }
        Ok(document)
    }

    /// What the component is bound with.
    pub(super) fn spec(&self, name: &str) -> Result<BindingSpec, NotDone> {
        let text = |(key, value): (&String, &serde_json::Value)| match value {
            serde_json::Value::String(text) => Ok((key.clone(), text.clone())),
            serde_json::Value::Object(object) if object.contains_key("secret") => {
                Err(NotDone::Refused(Refusal::NotBuilt("a secret in a binding's config")))
            }
            other => {
                let shown = shown_entry(key, other);
                Err(NotDone::Refused(Refusal::Invalid(format!("config.{key} is {shown}; it must be a text in quotes"))))
            }
        };
        if let Some((database, _)) = self.grants.sql.iter().find(|(_, grant)| grant.secret().is_some()) {
            let hint = "a password of a database (use a socket, or an address of this machine that the server trusts)";
            tracing::debug!(database, "a binding names a secret");
            return Err(NotDone::Refused(Refusal::NotBuilt(hint)));
        }
        Ok(BindingSpec {
            name: name.to_owned(),
            grants: self.grants.clone(),
            limits: self.limits.clone(),
            config: self.config.iter().map(text).collect::<Result<_, _>>()?,
            body: self.body,
            passwords: BTreeMap::new(),
        })
    }
}

/// The limits that hold for a binding whose document has these `limits`: those that it sets, and the defaults of the others.
/// What cannot be read, since another version wrote it, is left as it is.
pub fn limits_in_force(limits: &serde_json::Value) -> serde_json::Value {
    let read = serde_json::from_value::<Limits>(limits.clone());
    read.ok().and_then(|limits| serde_json::to_value(limits).ok()).unwrap_or_else(|| limits.clone())
}

/// An entry of a binding's config as it may be shown.
fn shown_entry(key: &str, value: &serde_json::Value) -> String {
    let mut document = serde_json::json!({"config": {key: value}});
    mask_document(&mut document);
    match &document["config"][key] {
        serde_json::Value::String(masked) => masked.clone(),
        other => other.to_string(),
    }
}

/// A binding is shown without its secrets; sent back as it was shown it would lose them.
pub(super) fn refuse_masked(spec: &str) -> Result<(), NotDone> {
    let masked = serde_json::from_str(spec).ok().and_then(|document| masked_member(&document));
    masked.map_or(Ok(()), |member| {
        Err(NotDone::Refused(Refusal::Invalid(format!(
            "{member} has {MASK}, which is shown in place of a secret and is not the secret: write the value itself"
        ))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_granted_and_one_whose_password_is_a_secret_is_not_yet() {
        let spec = |grant: serde_json::Value| {
            let grants = serde_json::json!({"sql": {"shop": grant}});
            let document = serde_json::json!({"plugin": "p:1", "topics": ["t"], "grants": grants}).to_string();
            BindingDocument::parse(&document).and_then(|document| document.spec("b"))
        };
        let granted =
            spec(serde_json::json!({"url": "postgres://vouch@127.0.0.1/shop", "fence": "vouch_fence"})).unwrap();
        assert_eq!(granted.grants.sql.keys().collect::<Vec<_>>(), ["shop"]);
        assert!(granted.passwords.is_empty());
        let secret = serde_json::json!({"url": "postgres://vouch@db/shop", "password": {"secret": "shop-db"}});
        let refused = spec(secret).err().unwrap().to_string();
        assert!(refused.contains("a password of a database"), "{refused}");
        let unknown = spec(serde_json::json!({"url": "postgres://vouch@db/shop", "passwort": "x"})).err().unwrap();
        assert!(unknown.to_string().contains("the binding cannot be read"), "{unknown}");
    }

    #[test]
    fn an_entry_that_is_no_text_is_refused_without_its_secrets() {
        let refusal = |config: serde_json::Value| {
            let document = serde_json::json!({"plugin": "p:1", "topics": ["t"], "config": config}).to_string();
            BindingDocument::parse(&document).unwrap().spec("b").err().unwrap().to_string()
        };
        for (config, shown) in [
            (
                serde_json::json!({"db": {"password": "pa55", "port": 1}}),
                r#"config.db is {"password":"***","port":1};"#,
            ),
            (serde_json::json!({"urls": ["http://u:pa55@h"]}), r#"config.urls is ["http://***@h"];"#),
            (serde_json::json!({"token": ["pa55"]}), "config.token is ***;"),
            (serde_json::json!({"config": {"x": {"secret": "pa55"}}}), r#"config.config is {"x":{"secret":"***"}};"#),
            (serde_json::json!({"port": 1}), "config.port is 1;"),
        ] {
            let told = refusal(config);
            assert!(told.contains(shown) && !told.contains("pa55"), "{told}");
        }
    }
}
