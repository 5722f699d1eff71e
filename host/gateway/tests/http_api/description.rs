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

/// Checks a request that was taken, and an answer, against what the document says of this method and path. What no route
/// takes must be an error.
pub(crate) fn check(method: &str, path: &str, body: &[u8], answer: &Answer) {
    let path = path.split(['?', '#']).next().unwrap();
    let operation = operation(method, path);
    let what = format!("{method} {path} -> {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    let Some(operation) = operation else {
        assert!(answer.status >= 400 || method == "HEAD", "{what}");
        return;
    };
    if let (true, Some(schema)) = (answer.status < 300, request_schema(operation)) {
        let wrong = conforms(schema, &serde_json::from_slice(body).unwrap(), "");
        assert!(wrong.is_empty(), "a request was taken that the document does not allow: {wrong:?}; {what}");
    }
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

/// The default of a limit of bindings, as the document tells it.
pub(crate) fn default_limit(name: &str) -> &'static Value {
    &DOCUMENT["components"]["schemas"]["Binding"]["properties"]["limits"]["properties"][name]["default"]
}

/// What a JSON body must be.
fn request_schema(operation: &'static Value) -> Option<&'static Value> {
    let content = operation["requestBody"]["content"].as_object()?;
    content.iter().find(|(media, _)| media.ends_with("json")).map(|(_, content)| &content["schema"])
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

/// Members of requests that are not described are refused, and the schemas say so: each object names all its members, or
/// says what any member is.
#[test]
fn schemas_of_requests_take_nothing_that_is_not_described() {
    fn open(schema: &'static Value, at: &str) -> Vec<String> {
        let schema = resolved(schema);
        let (properties, more) = (&schema["properties"], &schema["additionalProperties"]);
        let takes_objects = schema["type"] == "object" || !properties.is_null();
        let mut found = Vec::new();
        if takes_objects && *more != Value::Bool(false) && !more.is_object() {
            found.push(at.to_owned());
        }
        for (name, property) in properties.as_object().into_iter().flatten() {
            found.extend(open(property, &format!("{at}/{name}")));
        }
        let nested = ["items", "additionalProperties"].map(|name| &schema[name]).into_iter().filter(|s| s.is_object());
        let choices = ["oneOf", "allOf", "anyOf"].into_iter().flat_map(|name| schema[name].as_array());
        nested.chain(choices.flatten()).for_each(|part| found.extend(open(part, at)));
        found
    }
    let mut looked_at = 0;
    for (path, methods) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let Some(schema) = request_schema(operation) else { continue };
            looked_at += 1;
            assert_eq!(open(schema, ""), Vec::<String>::new(), "{method} {path}");
        }
    }
    assert!(looked_at >= 8, "{looked_at}");
}

#[test]
fn changes_are_described_like_the_settings_that_they_change() {
    for name in ["Topic", "Group", "CheckPolicy"] {
        let names = |schema: &str| described(&DOCUMENT["components"]["schemas"][schema]);
        assert_eq!(names(name), names(&format!("{name}Change")));
    }
    let change = &DOCUMENT["components"]["schemas"]["TopicChange"];
    let taken = |value: Value| conforms(change, &value, "").is_empty();
    assert!(taken(serde_json::json!({"retention": null, "retention_size": null, "transaction": {"schedule": null}})));
    assert!(taken(serde_json::json!({"type": null, "transaction": null})) && !taken(serde_json::json!({"more": null})));
}

/// Values that a parameter may have.
fn samples(schema: &'static Value) -> Vec<String> {
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    }
    let sample = match schema["type"].as_str() {
        Some("integer") => "1",
        Some("boolean") => "true",
        _ => "1h",
    };
    vec![sample.to_owned()]
}

#[tokio::test]
async fn whatever_is_described_as_a_parameter_is_available() {
    let api = Api::start().await;
    let mut tried = 0;
    for (template, methods) in DOCUMENT["paths"].as_object().unwrap() {
        let path = template.replace(['{', '}'], "");
        for (method, operation) in methods.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().into_iter().flatten().map(resolved);
            for parameter in parameters.filter(|parameter| parameter["in"] == "query") {
                let name = parameter["name"].as_str().unwrap();
                for value in samples(&parameter["schema"]) {
                    let answer = api.call(&method.to_uppercase(), &format!("{path}?{name}={value}"), &[], b"").await;
                    assert_ne!(answer.status, 501, "{method} {path}?{name}={value}: {}", answer.text());
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 20, "{tried}");
}

#[test]
fn the_description_names_no_server_but_the_one_that_serves_it() {
    let servers = DOCUMENT["servers"].as_array().unwrap();
    assert!(servers.iter().all(|server| server["url"] == "/"), "{servers:?}");
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
    // Beside them stands what is told.
    let group = serde_json::to_value(group).unwrap();
    for (name, value, told) in [("Topic", &topic, &["name"][..]), ("Group", &group, &["name", "binding"])] {
        let mut settings: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        settings.extend(told);
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
