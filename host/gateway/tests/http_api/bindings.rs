//! What of a binding is shown, and which bindings are refused because they could not do what they are set for.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::{Api, detail};

const SECRETS: [&str; 3] = ["s3cr3t-header", "k3y-in-url", "t0ken-in-url"];

async fn start() -> Api {
    let api = Api::start().await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
    let wasm = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}; build it with plugins/build"));
    api.push("/v1/plugins/check/tags/1.0", &wasm, &[]).await.is(201);
    api
}

async fn topic(api: &Api, name: &str) {
    let settings = json!({"type": "transaction", "transaction": {"immunity": "0s", "interval": "1s"}});
    api.put(&format!("/v1/topics/{name}"), settings).await.is(201);
}

fn binding(config: Value) -> Value {
    let grants = json!({"http": ["http://127.0.0.1:9", "http://h"]});
    json!({"plugin": "check:1.0", "topics": ["orders"], "grants": grants, "config": config})
}

/// Everything that a binding with secrets can say of itself, by every path.
#[tokio::test]
async fn secrets_of_a_binding_are_shown_to_nobody_and_reach_the_component() {
    let api = start().await;
    topic(&api, "orders").await;
    // Nobody answers there: the host tells so in the log of the binding, with the address.
    let url = "http://127.0.0.1:9/{key}?key=k3y-in-url&token=t0ken-in-url";
    let config = json!({"url": url, "commit": "200", "authorization": "Bearer s3cr3t-header"});
    let set = api.put("/v1/bindings/orders", binding(config.clone())).await.is(201);
    let masked = json!({"url": "http://127.0.0.1:9/{key}?key=***&token=***", "commit": "200", "authorization": "***"});
    assert_eq!(set.json()["config"], masked);
    assert_eq!(api.get("/v1/bindings/orders").await.is(200).json()["config"], masked);
    assert_eq!(api.get("/v1/bindings").await.is(200).json()["items"][0]["config"], masked);

    let id = api.half("orders", "m1").await;
    let give_up_at = Instant::now() + Duration::from_secs(30);
    let error = loop {
        let shown = api.get(&format!("/v1/transactions/{id}")).await.is(200).json();
        if shown["last_error"].is_object() {
            break shown.to_string();
        }
        assert!(Instant::now() < give_up_at, "{shown}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let lines = api.node.components.binding_log("orders").await.unwrap().1.recent_logs();
    assert!(!lines.is_empty());
    let said = format!("{error} {lines:?}");
    // It had the true address, and nobody is told more of it.
    assert!(error.contains("127.0.0.1:9/key-m1"), "{error}");
    for secret in SECRETS {
        assert!(!said.contains(secret), "{said}");
    }
}

#[tokio::test]
async fn a_mask_that_comes_back_is_refused_and_changes_nothing() {
    let api = start().await;
    topic(&api, "orders").await;
    let config = json!({"url": "http://h/{key}?sig=pw", "commit": "200", "authorization": "x"});
    let set = api.put("/v1/bindings/orders", binding(config)).await.is(201);
    let mut back = set.json();
    for (member, mended) in [("config.authorization", "authorization"), ("config.url", "url")] {
        let problem = api.put("/v1/bindings/orders", back.clone()).await.expect_problem(422, "invalid");
        assert!(detail(&problem).contains(member) && detail(&problem).contains("write the value"), "{problem}");
        back["config"][mended] = json!("http://h/{key}");
    }
    assert_eq!(api.get("/v1/bindings/orders").await.etag(), set.etag());
    api.put("/v1/bindings/orders", back).await.is(200);
}

#[tokio::test]
async fn refusals_of_bindings_tell_no_secrets() {
    let api = start().await;
    topic(&api, "orders").await;
    let good = json!({"url": "http://h/{key}", "commit": "200"});
    let with = |name: &str, value: Value| {
        let mut config = good.clone();
        config[name] = value;
        binding(config)
    };
    let mut granted = binding(good.clone());
    granted["grants"] = json!({"http": ["http://me:pa55word@h"]});
    for body in [with("authorization", json!(["pa55word"])), with("url", json!("ftp://me:pa55word@h")), granted] {
        let problem = api.put("/v1/bindings/orders", body).await.expect_problem(422, "invalid");
        assert!(!detail(&problem).contains("pa55word") && detail(&problem).contains("***"), "{problem}");
    }
}

#[tokio::test]
async fn a_binding_names_topics_that_exist() {
    let api = start().await;
    let config = json!({"url": "http://h/{key}", "commit": "200"});
    let mut body = binding(config);
    let missing = api.put("/v1/bindings/orders", body.clone()).await.expect_problem(404, "topic-not-found");
    assert!(detail(&missing).contains("vouch topic create orders"), "{missing}");
    topic(&api, "orders").await;
    body["topics"] = json!(["orders", "tenant/orders"]);
    let missing = api.put("/v1/bindings/orders", body.clone()).await.expect_problem(404, "topic-not-found");
    assert!(detail(&missing).contains("vouch topic create tenant/orders"), "{missing}");
    api.get("/v1/bindings/orders").await.expect_problem(404, "not-found");
    topic(&api, "tenant%2Forders").await;
    api.put("/v1/bindings/orders", body).await.is(201);
}

#[tokio::test]
async fn a_config_that_the_component_cannot_work_with_is_refused() {
    let api = start().await;
    topic(&api, "orders").await;
    let url = "http://h/{key}";
    for (config, words) in [
        (json!({"ulr": url, "commit": "200"}), "did you mean `url`?"),
        (json!({"commit": "200"}), "`url` is missing"),
        (json!({"url": url}), "`commit` is missing"),
        (json!({"url": url, "commit": " "}), "`commit` is missing"),
        (json!({"url": "h/{key}", "commit": "200"}), "write a URL"),
        (json!({"url": url, "commit": "200", "rollback-missing-after": "soon"}), "`soon`; write a whole number"),
        (json!({"url": url, "commit": "200", "timeout": "1s"}), "It reads url, field, commit"),
        (json!({"url": url, "commit": "placed"}), "or set config `field`"),
        (json!({"url": url, "commit": "placed", "field": "status"}), "begins with /"),
        (json!({"url": "http://h/#{key}", "commit": "200"}), "has a #"),
        (json!({"url": "http://me:pa55word@h/{key}", "commit": "200"}), "user or password"),
        (json!({"url": "http://h:81/{key}", "commit": "200"}), "grants http://127.0.0.1:9, http://h: every request"),
        (json!({"url": "http://h/{kye}", "commit": "200"}), "did you mean {key}?"),
        (json!({"url": url, "commit": "200", "rollback": "200"}), "in both config `commit` and config `rollback`"),
        (json!({"url": url, "commit": "200", "authorization": ""}), "`authorization` is empty"),
    ] {
        let problem = api.put("/v1/bindings/orders", binding(config.clone())).await.expect_problem(422, "invalid");
        assert!(detail(&problem).contains(words), "{config}: {problem}");
    }
    let component = api.get("/v1/plugins/check/tags/1.0").await.is(200).json();
    assert_eq!(
        component["config"][0],
        json!({"name": "url", "type": "request-url", "required": true,
        "variables": ["key", "id", "transaction", "property.*"]})
    );
}

/// A binding without its topic settles nothing: whoever deletes the topic is told of it.
#[tokio::test]
async fn a_topic_that_a_binding_names_is_deleted_by_force_only_and_the_binding_is_told() {
    let api = start().await;
    topic(&api, "orders").await;
    topic(&api, "unbound").await;
    let body = binding(json!({"url": "http://h/{key}", "commit": "200"}));
    api.put("/v1/bindings/settles", body).await.is(201);
    let refused = api.delete("/v1/topics/orders").await.expect_problem(409, "conflict");
    let words = ["binding settles", "vouch binding delete settles", "force=true"];
    assert!(words.iter().all(|word| detail(&refused).contains(word)), "{refused}");
    api.get("/v1/topics/orders").await.is(200);

    api.delete("/v1/topics/unbound").await.is(204);
    let deleted = api.delete("/v1/topics/orders?force=true").await.is(200).json();
    let warning = deleted["warnings"][0].as_str().unwrap();
    assert!(warning.contains("binding settles") && warning.contains("topic orders"), "{deleted}");
    api.get("/v1/topics/orders").await.expect_problem(404, "topic-not-found");
    // Who asks for what is gone is told that, not of the binding.
    api.delete("/v1/topics/orders").await.expect_problem(404, "topic-not-found");
    // It settles again what comes to a topic of this name.
    topic(&api, "orders").await;
    api.delete("/v1/bindings/settles").await.is(204);
    api.delete("/v1/topics/orders?force=true").await.is(204);
}

#[tokio::test]
async fn a_binding_is_tried_by_who_set_it() {
    let api = start().await;
    topic(&api, "orders").await;
    // Nobody answers there.
    let config = json!({"url": "http://127.0.0.1:9/{key}/{property.region}?token=t0ken-in-url", "commit": "200"});
    api.put("/v1/bindings/orders", binding(config)).await.is(201);
    let half = json!({"half": {"keys": ["o-7"]}});
    let tried = api.post("/v1/bindings/orders/test", half).await.is(200).json();
    assert_eq!(tried["databases"], json!([]));
    for (call, asked_as) in tried["calls"].as_array().unwrap().iter().zip(["first check", "last check"]) {
        assert_eq!((&call["asked_as"], &call["answer"]), (&json!(asked_as), &json!("no answer")));
        assert_eq!(call["asked_for"], json!(["GET http://127.0.0.1:9/o-7/vouch-sample?token=***"]));
        assert!(call["wrong"].is_null(), "that nobody answers there is not the component's fault: {call}");
    }
    api.post("/v1/bindings/none/test", json!({})).await.expect_problem(404, "not-found");
    api.post("/v1/bindings/orders/test", json!({"half": {"keyes": []}})).await.expect_problem(422, "invalid");
    let clean = api.post("/v1/bindings/orders/fence-clean", json!({})).await.expect_problem(422, "invalid");
    assert!(detail(&clean).contains("no database with a fence"), "{clean}");
    let short = api.post("/v1/bindings/orders/fence-clean", json!({"older_than": "soon"})).await;
    short.expect_problem(422, "invalid");
}
