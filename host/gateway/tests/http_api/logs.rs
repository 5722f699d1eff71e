//! What components say: followed, and read once.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::{Api, detail};
use crate::plugins::{TAG, component, digest};

/// A node with a binding whose component says at each ask that nobody answers.
async fn talkative() -> Api {
    let api = Api::start().await;
    api.push(TAG, &component(), &[]).await.is(201);
    let settings = json!({"type": "transaction", "transaction": {"immunity": "0s"}});
    api.put("/v1/topics/orders", settings).await.is(201);
    bind(&api, 9).await;
    api
}

/// Sets the binding, each time to another port.
async fn bind(api: &Api, port: u16) {
    let body = json!({"plugin": "check:1.0", "topics": ["orders"],
        "grants": {"http": [format!("http://127.0.0.1:{port}")]},
        "config": {"url": format!("http://127.0.0.1:{port}/{{key}}"), "commit": "200", "rollback": "404"}});
    assert!(api.put("/v1/bindings/orders", body).await.status < 300);
}

/// The lines in the events of an answer, as far as it came.
fn lines(said: &str) -> Vec<Value> {
    let data = said.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn said_of(lines: &[Value], transaction: &str) -> bool {
    lines.iter().any(|line| line["transaction_id"] == transaction)
}

/// What is kept, read to its end.
async fn kept(api: &Api, query: &str) -> Vec<Value> {
    let answer = api.get(&format!("/v1/plugins/check/logs?follow=false{query}")).await.is(200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    lines(answer.text())
}

/// Follows the log; what came so far is in `said`.
struct Reader {
    stream: TcpStream,
    said: String,
}

impl Reader {
    async fn new(api: &Api) -> Self {
        let mut stream = TcpStream::connect(api.http).await.unwrap();
        stream.write_all(b"GET /v1/plugins/check/logs HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        Self { stream, said: String::new() }
    }

    /// Reads until something was said of a transaction.
    async fn until(&mut self, transaction: &str) -> Vec<Value> {
        while !said_of(&lines(&self.said), transaction) {
            let mut some = [0; 4096];
            let read = self.stream.read(&mut some).await.unwrap();
            assert!(read > 0, "the stream ended: {}", self.said);
            self.said.push_str(std::str::from_utf8(&some[..read]).unwrap());
        }
        lines(&self.said)
    }
}

#[tokio::test]
async fn what_a_component_says_is_followed_while_it_happens() {
    let api = talkative().await;
    let mut reader = Reader::new(&api).await;
    let id = api.half("orders", "m1").await;
    let lines = reader.until(&id).await;
    let said = &reader.said;
    assert!(said.starts_with("HTTP/1.1 200") && said.contains("content-type: text/event-stream"), "{said}");
    assert!(said.contains("event: log\n"), "{said}");
    let line = &lines[0];
    assert_eq!((&line["binding"], &line["transaction_id"]), (&json!("orders"), &json!(id)));
    assert_eq!((&line["digest"], line["number"].as_u64()), (&json!(digest(&component())), Some(1)));
    // A reader does not hold up the end.
    api.gateway.shutdown().await;
    let mut rest = Vec::new();
    reader.stream.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn a_reader_misses_nothing_when_the_binding_is_set_again() {
    let api = talkative().await;
    let mut reader = Reader::new(&api).await;
    let first = api.half("orders", "m1").await;
    reader.until(&first).await;
    bind(&api, 10).await;
    let second = api.half("orders", "m2").await;
    let lines = reader.until(&second).await;
    let begun = lines.iter().filter(|line| line["number"] == 1).count();
    assert_eq!(begun, 2, "each setting of a binding begins a log, and both are read from their first line: {lines:?}");
}

#[tokio::test]
async fn what_is_kept_is_read_once_and_from_a_time_on() {
    let api = talkative().await;
    assert_eq!(kept(&api, "").await, Vec::<Value>::new(), "nobody was asked yet");
    let id = api.half("orders", "m1").await;
    let mut lines = Vec::new();
    while !said_of(&lines, &id) {
        lines = kept(&api, "").await;
    }
    let (first, at) = (&lines[0], lines[0]["at"].as_str().unwrap());
    for (query, there) in [
        ("&since=1h".to_owned(), true),
        (format!("&since={at}"), true),
        ("&since=1700000000007".to_owned(), true),
        ("&since=2100-01-01T00:00:00Z".to_owned(), false),
    ] {
        assert_eq!(kept(&api, &query).await.contains(first), there, "{query}");
    }
    for (query, named) in [("follow=no", "follow"), ("since=soon", "since"), ("follow=false&since=", "since")] {
        let problem = api.get(&format!("/v1/plugins/check/logs?{query}")).await.expect_problem(400, "bad-parameter");
        assert!(detail(&problem).contains(named), "{problem}");
    }
    api.get("/v1/plugins/nothing/logs?follow=false").await.expect_problem(404, "not-found");
}
