//! Lines of the node's log say which call, check or delivery they belong to, and nothing that a stranger sends forges one.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::Node;
use support::lines::{LEVEL, line, lines, log};

const COMPONENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
const STOCK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/stock.wasm");
const PUSH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-push.wasm");

#[test]
fn a_transaction_is_followed_from_its_half_to_its_checks_and_its_end() {
    let node = Node::start(&["--log-format", "json", "--log-level", LEVEL]);
    node.admin(&["topic", "create", "orders", "--type", "transaction", "--immunity", "0s"]).succeeded();
    node.admin(&["plugin", "push", "check:1.0", COMPONENT]).succeeded();
    // Nobody answers there: each check fails.
    let set = ["binding", "set", "orders", "--plugin", "check:1.0", "--topic", "orders", "--allow-http"];
    let config = ["http://127.0.0.1:9", "--config", "url=http://127.0.0.1:9/{key}", "--config", "commit=200"];
    node.admin(&[&set[..], &config].concat()).succeeded();
    let send = |end: &str| {
        let half = ["message", "send", "orders", "--body", "x", "--key", "1", "--transaction", end, "--json"];
        let sent = node.client(&half).succeeded().json();
        (sent["message_id"].clone(), sent["transaction_id"].clone())
    };

    let (message, transaction) = send("leave-open");
    assert!(message.is_string() && transaction.is_string(), "{message} {transaction}");
    let sent = line(&node, "answered", |line| line["span"]["message_id"] == message);
    assert_eq!((&sent["span"]["name"], &sent["fields"]["code"]), (&json!("SendMessage"), &json!("OK")));
    assert_eq!((&sent["span"]["topic"], &sent["span"]["transaction"]), (&json!("orders"), &transaction));
    assert!(sent["span"]["client_id"].is_string(), "{sent}");

    let check = line(
        &node,
        "checks get no answer; nothing is counted, and they are asked again (said once a minute)",
        |line| line["span"]["transaction"] == transaction,
    );
    assert_eq!(check["span"]["name"], "check");
    assert_eq!((&check["span"]["message_id"], &check["span"]["number"]), (&message, &json!(1)));
    assert_eq!((&check["span"]["topic"], &check["span"]["binding"]), (&json!("orders"), &json!("orders")));
    let digest = check["span"]["digest"].as_str().unwrap();
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{check}");

    let (message, transaction) = send("commit");
    let ended = line(&node, "answered", |line| line["span"]["name"] == "EndTransaction");
    assert_eq!((&ended["span"]["message_id"], &ended["span"]["transaction"]), (&message, &transaction));
    assert_eq!(ended["span"]["topic"], "orders");
    line(&node, "settled by its producer", |line| line["fields"]["transaction"] == transaction);

    let (_, transaction) = send("leave-open");
    node.admin(&["transaction", "commit", transaction.as_str().unwrap(), "--by", "me"]).succeeded();
    let decided =
        line(&node, "answered", |line| line["span"]["transaction"] == transaction && line["span"]["method"] == "POST");
    assert_eq!(decided["span"]["route"], "/v1/transactions/{id}/commit");
    assert_eq!(decided["fields"]["status"], 200);
}

/// Sends a message, and says its id.
fn sent(node: &Node, topic: &str, body: &str) -> Value {
    let sent = node.client(&["message", "send", topic, "--body", body, "--key", "1", "--json"]).succeeded().json();
    assert!(sent["message_id"].is_string(), "{sent}");
    sent["message_id"].clone()
}

#[test]
fn a_delivery_to_a_component_is_followed_through_what_the_component_says_to_its_answer() {
    let level = format!("{LEVEL},vouch::guest=debug");
    let node = Node::start(&["--log-format", "json", "--log-level", &level]);
    node.admin(&["topic", "create", "goods", "--queues", "1"]).succeeded();
    node.admin(&["plugin", "push", "stock:1.0", STOCK]).succeeded();
    let set = ["binding", "set", "counts", "--plugin", "stock:1.0", "--group", "shelf", "--subscribe", "goods"];
    node.admin(&[&set[..], &["--state"]].concat()).succeeded();
    let ids = [1, 2].map(|n| sent(&node, "goods", &format!("{{\"sku\": \"cup\", \"quantity\": {n}}}")));
    for (offset, id) in ids.iter().enumerate() {
        // The first line is the component's own, from a thread of its engine; the second one the node's.
        for message in ["goods: Ack", "a component answered"] {
            let line = line(&node, message, |line| line["span"]["message_id"] == *id);
            let span = &line["span"];
            let digest = span["digest"].as_str().unwrap();
            assert!(digest.starts_with("sha256:") && digest.len() == 71, "{line}");
            let expected = json!({
                "name": "delivery", "topic": "goods", "queue": 0, "offset": offset, "group": "shelf",
                "binding": "counts", "digest": digest, "attempt": 1, "message_id": id,
            });
            assert_eq!(*span, expected);
        }
    }
    assert_eq!(line(&node, "a component answered", |_| true)["fields"]["verdict"], "ack");
}

#[test]
fn each_delivery_of_a_message_that_fails_says_which_one_it_was() {
    let node = Node::start(&["--log-format", "json", "--log-level", LEVEL]);
    node.admin(&["topic", "create", "orders"]).succeeded();
    node.admin(&["group", "create", "shipping", "--backoff", "0s"]).succeeded();
    node.admin(&["plugin", "push", "push:1.0", PUSH]).succeeded();
    // Nobody answers there: each delivery fails.
    let set = ["binding", "set", "ships", "--plugin", "push:1.0", "--group", "shipping", "--subscribe", "orders"];
    let config = ["--allow-http", "http://127.0.0.1:9", "--config", "url=http://127.0.0.1:9/{key}"];
    node.admin(&[&set[..], &config].concat()).succeeded();
    let id = sent(&node, "orders", "x");
    for attempt in [1, 2] {
        let failed = line(&node, "a delivery failed", |line| line["span"]["attempt"] == attempt);
        let span = &failed["span"];
        assert_eq!((&span["name"], &span["message_id"]), (&json!("delivery"), &id), "{failed}");
        assert_eq!((&span["binding"], &span["group"]), (&json!("ships"), &json!("shipping")), "{failed}");
        assert!(failed["fields"]["why"].as_str().is_some_and(|why| why.contains("127.0.0.1:9")), "{failed}");
    }
}

/// Asks for a topic, as whoever is traced.
fn get(node: &Node, path: &str) {
    let agent = ureq::Agent::config_builder().proxy(None).http_status_as_error(false).build().new_agent();
    let asked = agent.get(format!("http://{}{path}", node.http));
    asked.header("x-request-id", "r-1").header("traceparent", "00-aa-bb-01").call().unwrap();
}

#[test]
fn a_name_in_a_field_of_a_call_forges_no_line_and_acts_on_no_terminal() {
    const HOSTILE: &str = "/v1/topics/a%0A2026-01-01T00:00:00Z%20ERROR%20forged%1B[2J%E2%80%AEb%C2%9B31m";
    let text = Node::start(&["--log-level", LEVEL]);
    get(&text, HOSTILE);
    let give_up_at = Instant::now() + Duration::from_secs(30);
    while !log(&text).contains("/v1/topics/{topic}") {
        assert!(Instant::now() < give_up_at, "{}", log(&text));
        std::thread::sleep(Duration::from_millis(20));
    }
    let written = log(&text);
    let forged = written.lines().find(|line| line.contains("forged")).unwrap();
    assert!(forged.contains(r"topic=a\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J\u{202e}b\u{9b}31m"), "{forged}");
    assert!(forged.contains("http{method=GET"), "the line is that of the request: {forged}");

    let json = Node::start(&["--log-format", "json", "--log-level", LEVEL]);
    get(&json, HOSTILE);
    let answered = line(&json, "answered", |line| line["span"]["route"] == "/v1/topics/{topic}");
    let topic = "a\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J\u{202e}b\u{9b}31m";
    assert_eq!((&answered["span"]["topic"], &answered["fields"]["status"]), (&json!(topic), &json!(422)));
    assert_eq!(
        (&answered["span"]["request_id"], &answered["span"]["traceparent"]),
        (&json!("r-1"), &json!("00-aa-bb-01"))
    );
    for written in [written, log(&json)] {
        assert!(!written.chars().any(|letter| letter != '\n' && letter.is_control() || letter == '\u{202e}'));
    }
}

#[test]
fn at_the_default_level_nothing_is_written_of_single_calls() {
    let node = Node::start(&["--log-format", "json"]);
    node.admin(&["topic", "create", "plain"]).succeeded();
    node.client(&["message", "send", "plain", "--body", "x"]).succeeded();
    get(&node, "/v1/topics/nothing");
    assert!(lines(&node).iter().all(|line| line["fields"]["message"] != "answered"), "{}", log(&node));
}
