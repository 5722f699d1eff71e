//! Values that bindings name: nobody is shown them, and components use them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::api::{Answer, Api, detail, each};

const BYTES: &str = "application/octet-stream";

async fn set(api: &Api, name: &str, value: &str) -> Answer {
    api.call("PUT", &format!("/v1/secrets/{name}"), &[("content-type", BYTES)], value.as_bytes()).await
}

#[tokio::test]
async fn a_secret_is_set_listed_replaced_and_deleted_and_its_value_shown_to_nobody() {
    let api = Api::start().await;
    let first = set(&api, "orders-db", "pa55-w0rd").await.is(201);
    assert_eq!(first.json(), json!({"name": "orders-db", "warnings": []}));
    let again = set(&api, "orders-db", "pa66-w0rd").await.is(200);
    assert_ne!(first.etag(), again.etag());
    let header = ("if-match", first.etag());
    let headers = [("content-type", BYTES), (header.0, header.1.as_str())];
    api.call("PUT", "/v1/secrets/orders-db", &headers, b"x").await.expect_problem(412, "precondition-failed");
    set(&api, "api", "\u{0}any bytes").await.is(201);

    let list = api.get("/v1/secrets").await.is(200);
    assert_eq!(each(&list.json(), "name"), ["api", "orders-db"]);
    let page = api.get("/v1/secrets?limit=1").await.is(200).json();
    assert_eq!((each(&page, "name"), &page["next"]), (vec!["api"], &json!("api")));
    let shown = api.get("/v1/secrets/orders-db").await.is(200);
    assert_eq!(shown.etag(), again.etag());
    let document = shown.json();
    assert_eq!((&document["opens_here"], &document["bindings"]), (&json!(true), &json!([])));
    for answer in [list, shown] {
        assert!(!answer.text().contains("w0rd"), "{}", answer.text());
    }

    api.delete("/v1/secrets/api").await.is(204);
    let problem = api.get("/v1/secrets/api").await.expect_problem(404, "not-found");
    assert!(detail(&problem).contains("vouch secret set api"), "{problem}");
    api.delete("/v1/secrets/api").await.expect_problem(404, "not-found");
}

#[tokio::test]
async fn what_is_no_secret_is_refused_and_not_repeated() {
    let api = Api::start().await;
    set(&api, "a%20b", "x").await.expect_problem(422, "invalid");
    set(&api, "empty", "").await.expect_problem(422, "invalid");
    set(&api, "long", &"x".repeat((64 << 10) + 1)).await.expect_problem(413, "too-large");
    set(&api, "longest", &"x".repeat(64 << 10)).await.is(201);
    let json = api.put("/v1/secrets/json", json!("x")).await.expect_problem(415, "unsupported-media-type");
    assert!(detail(&json).contains(BYTES), "{json}");
    assert_eq!(each(&api.get("/v1/secrets").await.json(), "name"), ["longest"]);
    api.post("/v1/secret-key/rotate", json!({"forget": true})).await.expect_problem(422, "invalid");
}

/// What the log holds of a secret opens with the key file alone, and neither is in the other.
#[tokio::test]
async fn a_value_lies_in_no_file_of_the_node() {
    let api = Api::start().await;
    set(&api, "db", "a-value-that-is-easy-to-find").await.is(201);
    fn look(folder: &std::path::Path, found: &mut usize) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                look(&path, found);
            } else {
                *found += 1;
                let bytes = std::fs::read(&path).unwrap();
                let has = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
                assert!(!has(b"a-value-that-is-easy-to-find"), "{}", path.display());
            }
        }
    }
    let mut files = 0;
    look(&api.data_dir(), &mut files);
    assert!(files > 2);
}

/// Answers 200 to who knows the token, 401 to others, and keeps what was sent.
struct Orders {
    origin: String,
    sent: Arc<Mutex<Vec<String>>>,
}

impl Orders {
    async fn start(token: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let sent = Arc::<Mutex<Vec<String>>>::default();
        let keep = sent.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let keep = keep.clone();
                tokio::spawn(async move {
                    let mut lines = BufReader::new(stream);
                    let (mut line, mut authorization) = (String::new(), String::new());
                    while lines.read_line(&mut line).await.unwrap_or(0) > 2 {
                        if let Some(value) = line.trim().strip_prefix("authorization: ") {
                            authorization = value.to_owned();
                        }
                        line.clear();
                    }
                    let status = if authorization == token { "200 OK" } else { "401 Unauthorized" };
                    keep.lock().unwrap().push(authorization);
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    let _ = lines.get_mut().write_all(answer.as_bytes()).await;
                });
            }
        });
        Self { origin, sent }
    }
}

async fn until(api: &Api, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let give_up_at = Instant::now() + Duration::from_secs(30);
    loop {
        let shown = api.get(path).await.is(200).json();
        if holds(&shown) {
            return shown;
        }
        assert!(Instant::now() < give_up_at, "{shown}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_component_uses_a_secret_and_another_value_of_it_from_the_next_call_on() {
    let api = Api::start().await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
    let wasm = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}; build it with plugins/build"));
    api.push("/v1/plugins/check/tags/1.0", &wasm, &[]).await.is(201);
    let settings = json!({"type": "transaction", "transaction": {"immunity": "0s", "interval": "1s"}});
    api.put("/v1/topics/orders", settings).await.is(201);
    let orders = Orders::start("Bearer r1ght-t0ken").await;
    let config = json!({
        "url": format!("{}/{{key}}", orders.origin), "commit": "200", "authorization": {"secret": "orders-api"},
    });
    let binding = json!({
        "plugin": "check:1.0", "topics": ["orders"], "grants": {"http": [orders.origin]}, "config": config,
    });
    let missing = api.put("/v1/bindings/orders", binding.clone()).await.expect_problem(404, "not-found");
    assert!(detail(&missing).contains("vouch secret set orders-api"), "{missing}");

    set(&api, "orders-api", "Bearer wr0ng-t0ken").await.is(201);
    let bound = api.put("/v1/bindings/orders", binding).await.is(201).json();
    assert_eq!(bound["config"]["authorization"], json!({"secret": "orders-api"}), "it is shown by its name");
    let shown = api.get("/v1/secrets/orders-api").await.is(200).json();
    assert_eq!(shown["bindings"], json!(["orders"]));
    let used = api.delete("/v1/secrets/orders-api").await.expect_problem(409, "conflict");
    assert!(detail(&used).contains("orders"), "{used}");

    let id = api.half("orders", "m1").await;
    let transaction = format!("/v1/transactions/{id}");
    let asked = until(&api, &transaction, |shown| shown["last_error"].is_object()).await;
    let lines = api.node.components.binding_log("orders").await.unwrap().1.recent_logs();
    assert!(!asked.to_string().contains("wr0ng") && !format!("{lines:?}").contains("wr0ng"), "{asked} {lines:?}");
    assert_eq!(orders.sent.lock().unwrap()[0], "Bearer wr0ng-t0ken");

    set(&api, "orders-api", "Bearer r1ght-t0ken").await.is(200);
    until(&api, &transaction, |shown| shown["state"] == "committed").await;
    let then = api.node.components.binding_log("orders").await.unwrap().1.recent_logs();
    assert!(!lines.is_empty() && then.starts_with(&lines), "its log goes on: {lines:?} {then:?}");
    // Sealed anew it is the same value: the binding notices nothing.
    let rotated = api.post("/v1/secret-key/rotate", json!({"forget_old": true})).await.is(200).json();
    assert_eq!((&rotated["resealed"], &rotated["forgotten"]), (&json!(1), &json!(1)));
    let id = api.half("orders", "m2").await;
    until(&api, &format!("/v1/transactions/{id}"), |shown| shown["state"] == "committed").await;
    assert_eq!(orders.sent.lock().unwrap().last().unwrap(), "Bearer r1ght-t0ken");
}
