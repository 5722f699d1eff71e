//! Bindings that consume: what is told of them and of their groups, and how an operator lets them pause.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vouch_broker::NewMessage;

use crate::api::{Api, detail, message};

/// A node with the component that counts goods, and a topic of them.
pub(crate) async fn start() -> Api {
    let api = Api::start().await;
    push(&api).await;
    for topic in ["goods", "reservations"] {
        api.put(&format!("/v1/topics/{topic}"), json!({"queues": 1})).await.is(201);
    }
    api
}

pub(crate) async fn push(api: &Api) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/stock.wasm");
    let wasm = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}; build it with plugins/build"));
    api.push("/v1/plugins/stock/tags/1.0", &wasm, &[]).await.is(201);
}

/// A binding that counts goods for the group `stock`.
pub(crate) fn binding() -> Value {
    json!({
        "plugin": "stock:1.0", "groups": ["stock"], "subscriptions": {"goods": "*"},
        "grants": {"state": true, "publish": ["reservations"]}
    })
}

pub(crate) fn goods(id: &str, sku: &str, quantity: u32) -> NewMessage {
    message(id, json!({"sku": sku, "quantity": quantity}).to_string().as_bytes())
}

/// Waits until a document is as it should be.
pub(crate) async fn until(api: &Api, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let give_up_at = Instant::now() + Duration::from_secs(60);
    loop {
        let shown = api.get(path).await.is(200).json();
        if is_so(&shown) {
            return shown;
        }
        assert!(Instant::now() < give_up_at, "never: {path}: {shown}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_binding_that_consumes_tells_what_waits_and_its_group_names_it() {
    let api = start().await;
    for number in 0..3 {
        api.send("goods", goods(&format!("m{number}"), "teapot", 1)).await;
    }
    let set = api.put("/v1/bindings/stock", binding()).await.is(201).json();
    assert_eq!((&set["waiting"], &set["paused"], &set["start"]), (&json!(3), &json!(false), &json!("beginning")));
    let shown = until(&api, "/v1/bindings/stock", |shown| shown["waiting"] == 0).await;
    assert_eq!((&shown["groups"], &shown["subscriptions"]), (&json!(["stock"]), &json!({"goods": "*"})));
    assert_eq!(shown["grants"], json!({"state": true, "publish": ["reservations"]}));
    assert_eq!(shown["standing"]["consumer"]["in_flight"], 0, "{shown}");
    let listed = api.get("/v1/bindings").await.is(200).json();
    assert_eq!(listed["items"], json!([shown]));

    let group = api.get("/v1/groups/stock").await.is(200).json();
    assert_eq!(group["binding"], "stock");
    let progress = api.get("/v1/groups/stock/progress").await.is(200).json();
    assert_eq!((&progress["binding"], &progress["items"][0]["topic"]), (&json!("stock"), &json!("goods")));
    // What is told may be sent back, and changes nothing.
    api.put("/v1/groups/stock", group.clone()).await.is(200);
    api.patch("/v1/groups/stock", json!({"binding": "other", "max_attempts": 5})).await.is(200);
    let back = api.put("/v1/bindings/stock", shown.clone()).await.is(200).json();
    assert_eq!(back["subscriptions"], shown["subscriptions"]);
    api.put("/v1/groups/alone", json!({})).await.is(201);
    assert!(api.get("/v1/groups/alone").await.is(200).json().get("binding").is_none());
    assert!(api.get("/v1/groups/alone/progress").await.is(200).json().get("binding").is_none());
}

#[tokio::test]
async fn where_a_group_begins_and_what_a_binding_lacks_is_for_its_document_to_say() {
    let api = start().await;
    api.send("goods", goods("m1", "teapot", 1)).await;
    let with = |member: &str, value: Value| {
        let mut document = binding();
        document[member] = value;
        document
    };
    for (document, words) in [
        (with("subscriptions", json!({})), "subscriptions"),
        (with("groups", json!([])), "group"),
        (with("start", json!("now")), "expected `beginning` or `end`"),
        (with("limits", json!({"rate": 0})), "limits.rate"),
        (with("grants", json!({"state": "a b"})), "grants.state"),
    ] {
        let problem = api.put("/v1/bindings/stock", document).await.expect_problem(422, "invalid");
        assert!(detail(&problem).contains(words), "{words}: {problem}");
    }
    let missing = api.put("/v1/bindings/stock", with("subscriptions", json!({"godos": "*"}))).await;
    missing.expect_problem(404, "topic-not-found");
    let ends = api.put("/v1/bindings/stock", with("start", json!("end"))).await.is(201).json();
    assert_eq!((&ends["waiting"], &ends["start"]), (&json!(0), &json!("end")));
    // A group has one binding.
    let taken = api.put("/v1/bindings/other", binding()).await.expect_problem(409, "conflict");
    assert!(detail(&taken).contains("binding stock"), "{taken}");
}

#[tokio::test]
async fn a_binding_that_pauses_is_asked_nothing_until_it_is_resumed() {
    let api = start().await;
    api.put("/v1/bindings/stock", binding()).await.is(201);
    for _ in 0..2 {
        let paused = api.post("/v1/bindings/stock/pause", json!({})).await.is(200);
        assert_eq!((&paused.json()["paused"], &paused.json()["name"]), (&json!(true), &json!("stock")));
    }
    api.send("goods", goods("m1", "teapot", 1)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let shown = api.get("/v1/bindings/stock").await.is(200).json();
    assert_eq!((&shown["paused"], &shown["waiting"]), (&json!(true), &json!(1)), "{shown}");
    let anew = api.put("/v1/bindings/stock", binding()).await.is(200).json();
    assert_eq!(anew["paused"], true, "setting it is no reason to go on");
    let told = api.get("/metrics").await.is(200);
    assert!(told.text().contains("\nvouch_binding_paused{binding=\"stock\"} 1"), "{}", told.text());

    for _ in 0..2 {
        assert_eq!(api.post("/v1/bindings/stock/resume", json!({})).await.is(200).json()["paused"], false);
    }
    until(&api, "/v1/bindings/stock", |shown| shown["waiting"] == 0).await;
    api.post("/v1/bindings/none/pause", json!({})).await.expect_problem(404, "not-found");
    api.post("/v1/bindings/none/resume", json!({})).await.expect_problem(404, "not-found");
    api.post("/v1/bindings/stock/pause", json!({"for": "1h"})).await.expect_problem(422, "invalid");
}

/// A deploy that fails every delivery loses nothing, and everybody who looks sees why nothing happens.
#[tokio::test]
async fn a_binding_that_pauses_by_itself_tells_since_when_and_why() {
    let api = start().await;
    let mut without_state = binding();
    without_state["grants"] = json!({});
    without_state["unchecked"] = json!(true);
    api.put("/v1/bindings/stock", without_state).await.is(201);
    for number in 0..20 {
        api.send("goods", goods(&format!("m{number}"), "teapot", 1)).await;
    }
    let pauses = |shown: &Value| shown["standing"]["consumer"]["paused_since"].is_string();
    let shown = until(&api, "/v1/bindings/stock", pauses).await;
    let consumer = &shown["standing"]["consumer"];
    assert!(consumer["last_error"].as_str().is_some_and(|why| why.contains("state")), "{shown}");
    assert_eq!((&shown["paused"], consumer.get("paused_since_ms")), (&json!(false), None), "no operator did that");
    let told = api.get("/metrics").await.is(200);
    assert!(told.text().contains("\nvouch_binding_paused{binding=\"stock\"} 1"), "{}", told.text());
    assert!(told.text().contains("outcome=\"failed\"}"), "{}", told.text());

    api.put("/v1/bindings/stock", binding()).await.is(200);
    let shown = until(&api, "/v1/bindings/stock", |shown| !pauses(shown)).await;
    assert_eq!(shown["paused"], false);
}

#[tokio::test]
async fn a_binding_that_consumes_is_tried_with_a_message_and_nothing_of_that_stays() {
    let api = start().await;
    api.put("/v1/bindings/stock", binding()).await.is(201);
    let delivered = json!({"message": {"body": "{\"sku\": \"teapot\", \"quantity\": 3}", "keys": ["k"]}});
    let tried = api.post("/v1/bindings/stock/test", delivered).await.is(200).json();
    let calls = tried["calls"].as_array().unwrap();
    assert_eq!((calls.len(), &calls[0]["asked_as"], &calls[0]["answer"]), (1, &json!("delivery"), &json!("ack")));
    let kept = api.get("/v1/bindings/stock/state").await.is(200).json();
    assert_eq!(kept["items"], json!([]));
    let rejected = api.post("/v1/bindings/stock/test", json!({"message": {"body": "forty-two"}})).await.is(200).json();
    assert_eq!(rejected["calls"][0]["answer"], "reject");
    for two in [json!({"half": {}, "message": {}}), json!({"message": {}, "ended": 1})] {
        let problem = api.post("/v1/bindings/stock/test", two).await.expect_problem(400, "malformed");
        assert!(detail(&problem).contains("send one of them"), "{problem}");
    }
}
