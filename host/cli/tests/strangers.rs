//! What others wrote, on the screen of an operator; what is nobody's business; names of tenants, pasted back.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use serde_json::json;
use support::{Node, Ran, vouch};

/// Moves the cursor, forges a line, turns the direction of letters.
const HOSTILE: &str = "x\u{1b}[2J\nstate: committed\u{202e}\u{9b}31m";
const ESCAPED: &str = "x\\u{1b}[2J\\nstate: committed\\u{202e}\\u{9b}31m";

/// Nothing of this may reach a terminal from standard output or standard error.
fn assert_harmless(ran: &Ran) {
    for text in [&ran.stdout, &ran.stderr] {
        let acts = |letter: char| (letter.is_control() && letter != '\n') || letter == '\u{202e}';
        assert!(!text.contains(acts) && !text.contains("\nstate: committed"), "{ran:?}");
    }
}

#[test]
fn reasons_names_and_bodies_of_others_act_on_no_terminal() {
    let node = Node::start(&[]);
    node.admin(&["topic", "create", "orders", "--type", "mixed"]).succeeded();
    let half = ["message", "send", "orders", "--body", HOSTILE, "--transaction", "leave-open", "--json"];
    let sent = node.client(&half).succeeded().json();
    let id = sent["transaction_id"].as_str().unwrap();
    node.admin(&["transaction", "rollback", id, "--by", HOSTILE, "--reason", HOSTILE]).succeeded();

    let shown = node.admin(&["transaction", "show", id]).succeeded();
    assert!(shown.stdout.contains(&format!("reason:  {ESCAPED}")), "{shown:?}");
    let listed = node.admin(&["transaction", "list"]).succeeded();
    let message = node.admin(&["message", "list", "--topic", "orders"]).succeeded();
    let data = node.folder.path().join("data");
    let dumped = Ran::of(&vouch().args(["log", "dump", "--bodies", "--data-dir"]).arg(&data).output().unwrap());
    let refused = node.admin(&["message", "show", &format!("orders{HOSTILE}"), "x"]).failed_with(1);
    for ran in [&shown, &listed, &message, &dumped, &refused] {
        assert_harmless(ran);
    }
    // As JSON it is the same text, and acts on no terminal either.
    let document = node.admin(&["transaction", "show", id, "--json"]).succeeded();
    assert_eq!(document.json()["last_answer"]["reason"], HOSTILE);
    assert_harmless(&document);
}

#[test]
fn a_body_goes_into_a_pipe_as_it_was_sent() {
    let node = Node::start(&[]);
    node.admin(&["topic", "create", "t"]).succeeded();
    let file = node.folder.path().join("body");
    let body = b"one\ntwo\x1b[0m\xff\0three";
    std::fs::write(&file, body).unwrap();
    node.client(&["message", "send", "t", "--file", file.to_str().unwrap()]).succeeded();
    let receive = ["message", "receive", "t", "--group", "g", "--wait", "5s", "--grpc", &node.grpc];
    let output = vouch().args(receive).output().unwrap();
    assert!(output.stdout.ends_with(&[b": ", &body[..], b"\n"].concat()), "{:?}", Ran::of(&output));
}

#[test]
fn secrets_of_bindings_are_in_no_output() {
    let node = Node::start(&[]);
    let component = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
    node.admin(&["plugin", "push", "check:1.0", component]).succeeded();
    node.admin(&["topic", "create", "orders", "--type", "transaction"]).succeeded();
    let set =
        ["binding", "set", "b", "--plugin", "check:1.0", "--topic", "orders", "--allow-http", "http://127.0.0.1:9"];
    let config = [
        "--config",
        "url=http://127.0.0.1:9/{key}?sig=pa55word",
        "--config",
        "commit=200",
        "--config",
        "authorization=s3cr3t",
    ];
    let set = [&set[..], &config].concat();
    let data = node.folder.path().join("data");
    let dump = |json: &[&str]| {
        Ran::of(&vouch().args(["log", "dump", "--data-dir"]).arg(&data).args(json).output().unwrap()).succeeded()
    };
    for ran in [
        node.admin(&set).succeeded(),
        node.admin(&[&set[..], &["--json"]].concat()).succeeded(),
        node.admin(&["binding", "show", "b"]).succeeded(),
        node.admin(&["binding", "show", "b", "--json"]).succeeded(),
        node.admin(&["binding", "list", "--json"]).succeeded(),
        dump(&[]),
        dump(&["--json"]),
    ] {
        assert!(!ran.stdout.contains("s3cr3t") && !ran.stdout.contains("pa55word"), "{ran:?}");
    }
    assert!(dump(&[]).stdout.contains("BindingPut"), "what was looked for is there");
    let shown = node.admin(&["binding", "show", "b", "--json"]).succeeded();
    assert_eq!(shown.json()["config"]["authorization"], "***");
    let back = node.folder.path().join("binding.json");
    std::fs::write(&back, &shown.stdout).unwrap();
    let refused = node.admin(&["binding", "set", "b", "--file", back.to_str().unwrap()]).failed_with(1);
    assert!(refused.stderr.contains("config.authorization has ***"), "{refused:?}");
    let misspelt = set.iter().map(|word| word.replace("url=", "ulr=")).collect::<Vec<_>>();
    let misspelt: Vec<&str> = misspelt.iter().map(String::as_str).collect();
    assert!(node.admin(&misspelt).failed_with(1).stderr.contains("did you mean `url`?"));
}

#[test]
fn names_of_a_namespace_work_in_every_command_that_shows_them() {
    let node = Node::start(&[]);
    let missing = node.admin(&["topic", "show", "tenant/orders"]).failed_with(1);
    assert!(missing.stderr.contains("vouch topic create tenant/orders"), "{missing:?}");
    node.admin(&["topic", "create", "tenant/orders", "--type", "mixed"]).succeeded();
    node.admin(&["group", "create", "tenant/shop", "--max-attempts", "1"]).succeeded();
    let listed = |kind: &str| {
        let list = node.admin(&[kind, "list", "--json"]).succeeded().json();
        list["items"][0]["name"].as_str().unwrap().to_owned()
    };
    let (topic, group) = (&listed("topic"), &listed("group"));
    assert_eq!((topic.as_str(), group.as_str()), ("tenant/orders", "tenant/shop"));
    node.admin(&["topic", "update", topic, "--retention", "72h"]).succeeded();
    node.admin(&["group", "update", group, "--max-attempts", "2"]).succeeded();
    let sent = node.client(&["message", "send", topic, "--body", "x", "--key", "k", "--json"]).succeeded().json();
    let id = sent["message_id"].as_str().unwrap();
    node.client(&["message", "send", topic, "--body", "y", "--transaction", "commit"]).succeeded();
    for ran in [
        node.admin(&["message", "show", topic, id, "--json"]),
        node.admin(&["message", "list", "--topic", topic, "--key", "k", "--json"]),
    ] {
        assert_eq!(ran.succeeded().json()["items"][0]["topic"], "tenant/orders");
    }
    let receive = ["message", "receive", topic, "--group", group, "--count", "2", "--wait", "5s"];
    assert_eq!(node.client(&receive).succeeded().stdout.lines().count(), 2);
    let shown = node.admin(&["group", "show", group]).succeeded().stdout;
    assert!(shown.contains("tenant/orders"), "{shown}");
    let transactions = node.admin(&["transaction", "list", "--topic", topic, "--json"]).succeeded().json();
    assert_eq!(transactions["items"][0]["topic"], "tenant/orders");

    let component = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
    node.admin(&["plugin", "push", "check:1.0", component]).succeeded();
    let set = ["binding", "set", "b", "--plugin", "check:1.0", "--topic", topic, "--allow-http", "http://127.0.0.1:9"];
    node.admin(&[&set[..], &["--config", "url=http://127.0.0.1:9/{key}", "--config", "commit=200"]].concat())
        .succeeded();
    assert_eq!(node.admin(&["binding", "show", "b", "--json"]).succeeded().json()["topics"], json!([topic]));
    node.admin(&["binding", "delete", "b"]).succeeded();
    node.admin(&["topic", "delete", topic, "--force"]).succeeded();
    node.admin(&["group", "delete", group]).succeeded();
}
