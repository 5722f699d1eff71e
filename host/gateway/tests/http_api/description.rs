//! Holds answers against `openapi.json`: as much of JSON Schema as that document uses.

use std::sync::LazyLock;

use serde_json::Value;

use crate::api::{Answer, Api};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(include_str!("../../openapi.json")).unwrap());

fn resolved(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(to) => DOCUMENT.pointer(to.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// Checks an answer against what the document says of this method and path. What no route takes must be an error.
pub(crate) fn check(method: &str, path: &str, answer: &Answer) {
    let path = path.split(['?', '#']).next().unwrap();
    let operation = operation(method, path);
    let what = format!("{method} {path} -> {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    let Some(operation) = operation else {
        assert!(answer.status >= 400 || method == "HEAD", "{what}");
        return;
    };
    let status = answer.status.to_string();
    let response = operation["responses"].get(&status).unwrap_or(&operation["responses"]["default"]);
    if response["content"].is_null() {
        return assert!(answer.body.is_empty(), "{what}");
    }
    let media = answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
    let content = &response["content"][media];
    assert!(content.is_object(), "the answer is {media:?}, which the document does not list; {what}");
    if media.ends_with("json") {
        let wrong = conforms(&content["schema"], &answer.json(), "");
        assert!(wrong.is_empty(), "{wrong:?}; {what}");
    }
    if !response["headers"]["ETag"].is_null() {
        assert!(answer.header("etag").is_some_and(|tag| tag.starts_with('"')), "no ETag; {what}");
    }
}

fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |template: &str| {
        let wanted: Vec<&str> = template.split('/').collect();
        wanted.len() == parts.len() && wanted.iter().zip(&parts).all(|(want, is)| want.starts_with('{') || want == is)
    };
    let (_, methods) = DOCUMENT["paths"].as_object().unwrap().iter().find(|(template, _)| fits(template))?;
    methods.get(method.to_lowercase())
}

/// What of a value does not fit its schema.
fn conforms(schema: &'static Value, value: &Value, at: &str) -> Vec<String> {
    let schema = resolved(schema);
    let mut wrong = Vec::new();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        wrong.extend(conforms(part, value, at));
    }
    if let Some(choices) = schema["oneOf"].as_array()
        && choices.iter().filter(|choice| conforms(choice, value, at).is_empty()).count() != 1
    {
        wrong.push(format!("{at}: {value} is not one of those it may be"));
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        Value::String(one) => vec![one.as_str()],
        _ => Vec::new(),
    };
    let is = |kind: &&str| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{at}: the type {other} is not known"),
    };
    if !types.is_empty() && !types.iter().any(is) {
        wrong.push(format!("{at}: {value} is not {types:?}"));
    }
    if let (Some(allowed), false) = (schema["enum"].as_array(), value.is_null())
        && !allowed.contains(value)
    {
        wrong.push(format!("{at}: {value} is not in {allowed:?}"));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            wrong.push(format!("{at}: {name} is missing"));
        }
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let at = format!("{at}/{name}");
        match (schema["properties"].get(name), &schema["additionalProperties"]) {
            (Some(property), _) => wrong.extend(conforms(property, member, &at)),
            (None, Value::Bool(false)) => wrong.push(format!("{at} is not described")),
            (None, other @ Value::Object(_)) => wrong.extend(conforms(other, member, &at)),
            (None, _) => {}
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        if !schema["items"].is_null() {
            wrong.extend(conforms(&schema["items"], item, &format!("{at}/{index}")));
        }
    }
    wrong
}

/// The members that a schema describes, those of its parts too.
fn described(schema: &'static Value) -> Vec<&'static str> {
    let schema = resolved(schema);
    let mut names: Vec<&str> =
        schema["properties"].as_object().into_iter().flatten().map(|(name, _)| &**name).collect();
    schema["allOf"].as_array().into_iter().flatten().for_each(|part| names.extend(described(part)));
    names
}

#[tokio::test]
async fn the_description_is_served_as_it_is_committed() {
    let api = Api::start().await;
    let served = api.get("/openapi.json").await.is(200);
    assert_eq!(served.json(), *DOCUMENT);
}

#[test]
fn what_is_not_described_would_be_noticed() {
    let topic = &DOCUMENT["components"]["schemas"]["Topic"];
    let fits = |value: Value| conforms(topic, &value, "").is_empty();
    assert!(fits(serde_json::json!({"type": "normal", "queues": 8, "transaction": {"max_checks": 1}})));
    for wrong in [
        serde_json::json!({"queues": "8"}),
        serde_json::json!({"type": "other"}),
        serde_json::json!({"more": 1}),
        serde_json::json!({"transaction": {"more": 1}}),
        serde_json::json!([]),
    ] {
        assert!(!fits(wrong.clone()), "{wrong}");
    }
}

/// A list of settings is as long as the settings: one that is added without its description is noticed.
#[test]
fn every_setting_is_described() {
    let schema = |name: &str| described(&DOCUMENT["components"]["schemas"][name]);
    let topic = serde_json::to_value(vouch_broker::TopicConfig {
        retention: Some(std::time::Duration::from_hours(1)),
        retention_size: Some(1),
        unconsumed: vouch_broker::Unconsumed::Expire,
        transaction: vouch_broker::CheckPolicy { schedule: vec![std::time::Duration::ZERO], ..Default::default() },
        ..Default::default()
    })
    .unwrap();
    let group = vouch_broker::GroupConfig { dead_letter_topic: Some("d".to_owned()), ..Default::default() };
    for (name, value) in [("Topic", &topic), ("Group", &serde_json::to_value(group).unwrap())] {
        let mut settings: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).chain(["name"]).collect();
        let mut described = schema(name);
        settings.sort_unstable();
        described.sort_unstable();
        assert_eq!(settings, described, "{name}");
    }
    let policy: Vec<&str> = topic["transaction"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut described = schema("CheckPolicy");
    described.sort_unstable();
    assert_eq!(policy, described);
}
