//! Lines of the node's log say which call or check they belong to, and nothing that a stranger sends forges one.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::Node;
use support::lines::{LEVEL, line, lines, log};

const COMPONENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
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
