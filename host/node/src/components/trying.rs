//! A binding is tried: its databases are looked at, and its component is asked in dry calls, of which nothing stays (ruling 34).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use vouch_broker::{NotDone, Refusal, ResourceName};
use vouch_plugin::{Binding, ByteSize, Checked, ExaminedDatabase, Message, Pending, SqlError, Tried, Verdict};

use super::Components;
use super::bound::bind;
use super::document::BindingDocument;
use vouch_registry::Digest;

/// How old a transaction is made out to be at its last check: whatever a binding waits for is over by then.
const LONG_AGO_MS: u64 = 365 * 24 * 60 * 60 * 1000;
/// What stands for each value of a half message that nobody named.
const SAMPLE: &str = "vouch-sample";

/// A half message that a component is asked about, as users write it. What is left out is made up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleHalf {
    /// Message id.
    id: Option<String>,
    /// Topic; the first of the binding.
    topic: Option<String>,
    /// Tag.
    tag: Option<String>,
    /// Business keys.
    keys: Option<Vec<String>>,
    /// Properties.
    #[serde(default)]
    properties: std::collections::BTreeMap<String, String>,
    /// Body, as text.
    body: Option<String>,
}

/// What came of trying a binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BindingTrial {
    /// Its databases.
    pub databases: Vec<TriedDatabase>,
    /// Calls of its component.
    pub calls: Vec<TriedCall>,
}

/// One database of a binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TriedDatabase {
    /// Its name in the binding.
    pub name: String,
    /// Why its fence must not be used.
    pub refusals: Vec<String>,
    /// Why a crash may take back what it said.
    pub warnings: Vec<String>,
    /// Why nobody knows: it was not reached, for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One dry call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TriedCall {
    /// `first check` or `last check`.
    pub asked_as: &'static str,
    /// `commit`, `rollback`, `unknown` or `no answer`.
    pub answer: &'static str,
    /// The component's reason, or why there is no answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What is wrong with the component, the binding or a statement, and stays so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
    /// What it asked for.
    pub asked_for: Vec<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Memory that it had at the end.
    pub memory: ByteSize,
    /// Of so much.
    pub memory_limit: ByteSize,
}

impl Components {
    /// Tries a binding as it stands: its databases, and its component with this half message, at the first check of a transaction
    /// and at the last one of an old one.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; why it cannot be asked at all.
    pub async fn try_binding(&self, name: &str, half: SampleHalf) -> Result<BindingTrial, NotDone> {
        let missing = || NotDone::Refused(Refusal::NotFound(format!("there is no binding {name}")));
        let entry = self.binding(name).await?.ok_or_else(missing)?;
        let document = BindingDocument::parse(&entry.spec)?;
        let plugin = self.bound.load(Digest(entry.digest)).await?;
        let opened = self.bound.opened(&document.secrets()).await?;
        // One of its own: what it says does not mix with what checks say, and it takes no place of theirs.
        let binding = bind(&plugin, &document, (name, 0), &opened, None)?.binding;
        let databases = binding.examine().await.into_iter().map(tried_database).collect();
        let message = sample(&document, half, self.clock.now().0);
        let mut calls = Vec::new();
        for (asked_as, age_ms, checks_left) in [("first check", 0, 9), ("last check", LONG_AGO_MS, 0)] {
            let pending = pending(message.clone(), self.clock.now().0, (age_ms, checks_left));
            calls.push(tried_call(asked_as, &binding, binding.try_check(pending).await));
        }
        Ok(BindingTrial { databases, calls })
    }
}

fn tried_database(ExaminedDatabase { name, found }: ExaminedDatabase) -> TriedDatabase {
    match found {
        Ok(found) => TriedDatabase { name, refusals: found.refusals, warnings: found.warnings, error: None },
        Err(why @ (SqlError::Invalid(_) | SqlError::NotGranted(_))) => {
            TriedDatabase { name, refusals: vec![why.to_string()], ..TriedDatabase::default() }
        }
        Err(why) => TriedDatabase { name, error: Some(why.to_string()), ..TriedDatabase::default() },
    }
}

fn tried_call(asked_as: &'static str, binding: &Binding, tried: Tried) -> TriedCall {
    let Tried { checked, asked, wrong, took, memory } = tried;
    let (answer, reason, failed) = match checked {
        Checked::Answer(Verdict::Commit) => ("commit", String::new(), None),
        Checked::Answer(Verdict::Rollback(reason)) => ("rollback", reason, None),
        Checked::Answer(Verdict::Unknown { reason, .. }) => ("unknown", reason, None),
        Checked::NoAnswer(why) => {
            let failed = why.blames_component().then(|| why.to_string());
            ("no answer", why.to_string(), failed)
        }
    };
    TriedCall {
        asked_as,
        answer,
        reason,
        wrong: wrong.or(failed),
        asked_for: asked,
        took_ms: millis(took),
        memory,
        memory_limit: binding.limits().memory,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A half message with every field, those of the user among them. It has each property that a value of the config names
/// in braces (`{property.NAME}`).
fn sample(document: &BindingDocument, half: SampleHalf, now_ms: u64) -> Message {
    let topic = half.topic.or_else(|| document.topics.first().cloned()).unwrap_or_default();
    let mut properties = half.properties;
    for name in document.properties_named() {
        properties.entry(name).or_insert_with(|| SAMPLE.to_owned());
    }
    let body = bytes::Bytes::from(half.body.unwrap_or_else(|| SAMPLE.to_owned()));
    Message {
        id: half.id.unwrap_or_else(|| SAMPLE.to_owned()),
        topic: ResourceName::parse(&topic).to_string(),
        tag: Some(half.tag.unwrap_or_else(|| SAMPLE.to_owned())),
        keys: half.keys.unwrap_or_else(|| vec![SAMPLE.to_owned()]),
        message_group: None,
        properties: properties.into_iter().collect(),
        attributes: vec![("message-type".to_owned(), "transaction".to_owned())],
        born_at_ms: now_ms,
        born_host: SAMPLE.to_owned(),
        stored_at_ms: now_ms,
        body_size: u32::try_from(body.len()).unwrap_or(u32::MAX),
        body,
    }
}

fn pending(half: Message, now_ms: u64, (age_ms, checks_left): (u64, u32)) -> Pending {
    let at = now_ms.saturating_sub(age_ms);
    Pending {
        transaction_id: SAMPLE.to_owned(),
        half: Message { born_at_ms: at, stored_at_ms: at, ..half },
        producer: SAMPLE.to_owned(),
        opened_at_ms: at,
        asked_at_ms: now_ms,
        check_number: if checks_left == 0 { 10 } else { 1 },
        checks_left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_every_field_and_each_property_that_the_config_names() {
        let document = serde_json::json!({"plugin": "p:1", "topics": ["tenant/orders"], "config": {
            "url": "http://h/{key}/{property.region}?x={property.shop}", "other": "{property.region", "secret": {"secret": "s"},
        }});
        let document = BindingDocument::parse(&document.to_string()).unwrap();
        let made = sample(&document, SampleHalf::default(), 7);
        let filled = |name: &str| (name.to_owned(), SAMPLE.to_owned());
        assert_eq!(made.properties, [filled("region"), filled("shop")]);
        assert_eq!((made.topic.as_str(), made.keys.as_slice()), ("tenant/orders", &[SAMPLE.to_owned()][..]));
        assert!(made.tag.is_some() && made.body_size as usize == made.body.len() && !made.id.is_empty());
        let half: SampleHalf =
            serde_json::from_str(r#"{"id": "m1", "keys": [], "properties": {"shop": "7"}, "body": "x"}"#).unwrap();
        let made = sample(&document, half, 7);
        assert_eq!((made.id.as_str(), made.keys.len(), made.body_size), ("m1", 0, 1));
        assert!(made.properties.contains(&("shop".to_owned(), "7".to_owned())));
        assert!(serde_json::from_str::<SampleHalf>(r#"{"keyes": []}"#).is_err());
    }
}
