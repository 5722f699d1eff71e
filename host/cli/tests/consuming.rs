//! `vouch binding` for components that consume: set by flags, looked at, paused, tried; and what they keep.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use serde_json::json;
use support::cluster::until;
use support::{Node, Ran, vouch};

const COMPONENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/stock.wasm");
/// It counts goods for the group `stock`.
const SET: [&str; 12] = [
    "binding",
    "set",
    "stock",
    "--plugin",
    "stock:1.0",
    "--group",
    "stock",
    "--subscribe",
    "goods",
    "--publish",
    "reservations",
    "--state",
];

/// A node with the component, its topics, and three teapots that nobody has counted yet.
fn node_with_goods() -> Node {
    let node = Node::start(&[]);
    node.admin(&["plugin", "push", "stock:1.0", COMPONENT]).succeeded();
    for topic in ["goods", "reservations"] {
        node.admin(&["topic", "create", topic]).succeeded();
    }
    send(&node, "{\"sku\": \"teapot\", \"quantity\": 3}");
    node
}

fn send(node: &Node, body: &str) {
    node.client(&["message", "send", "goods", "--body", body]).succeeded();
}

/// Waits until the component has seen all that there is.
fn all_is_consumed(node: &Node) {
    until("the component has seen all", || {
        node.admin(&["binding", "show", "stock", "--json"]).succeeded().json()["waiting"] == 0
    });
}

#[test]
fn a_component_is_bound_to_a_group_by_flags_and_shown_with_how_it_fares() {
    let node = node_with_goods();
    let set = node.admin(&[&SET[..], &["--rate", "100", "--start", "beginning"]].concat()).succeeded();
    assert!(
        set.stdout.contains("binding stock created: stock:1.0") && set.stdout.contains("consumes for stock"),
        "{set:?}"
    );
    assert!(set.stdout.contains("\n1 messages wait for its groups\n"), "{set:?}");
    all_is_consumed(&node);

    let list = node.admin(&["binding", "list"]).succeeded().stdout;
    let heads = ["GROUPS", "RECEIVES", "LAG", "IN FLIGHT", "PAUSED"];
    assert!(heads.iter().all(|head| list.contains(head)) && list.contains("goods"), "{list}");
    let shown = node.admin(&["binding", "show", "stock"]).succeeded().stdout;
    for line in ["groups:", "subscriptions:\n  goods: *", "waiting:", "in_flight: 0", "paused:", "rate:"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let document = node.admin(&["binding", "show", "stock", "--json"]).succeeded().json();
    assert_eq!(document["grants"], json!({"state": true, "publish": ["reservations"]}));
    let group = node.admin(&["group", "show", "stock"]).succeeded().stdout;
    assert!(group.lines().any(|line| line.starts_with("binding:") && line.ends_with(" stock")), "{group}");
    assert_eq!(node.admin(&["group", "show", "stock", "--json"]).succeeded().json()["binding"], "stock");
    // What is shown can be set again.
    let file = node.folder.path().join("binding.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let again = node.admin(&["binding", "set", "stock", "--file", file.to_str().unwrap(), "--json"]).succeeded();
    assert_eq!((&again.json()["waiting"], &again.json()["subscriptions"]), (&json!(0), &document["subscriptions"]));
}

#[test]
fn a_binding_pauses_and_goes_on_as_its_operator_says() {
    let node = node_with_goods();
    node.admin(&SET).succeeded();
    all_is_consumed(&node);
    assert_eq!(node.admin(&["binding", "pause", "stock"]).succeeded().stdout, "binding stock pauses\n");
    assert_eq!(node.admin(&["binding", "pause", "stock", "--json"]).succeeded().json()["paused"], true);
    send(&node, "{\"sku\": \"cup\", \"quantity\": 1}");
    let list = node.admin(&["binding", "list"]).succeeded().stdout;
    assert!(list.contains("by operator"), "{list}");
    let set = node.admin(&SET).succeeded();
    assert!(set.stderr.contains("vouch binding resume stock"), "{set:?}");
    let kept = node.admin(&["binding", "state", "stock", "list", "--json"]).succeeded().json();
    assert_eq!(kept["items"].as_array().unwrap().len(), 1, "the cup is not counted: {kept}");
    assert_eq!(node.admin(&["binding", "resume", "stock"]).succeeded().stdout, "binding stock goes on\n");
    all_is_consumed(&node);
    let unknown = node.admin(&["binding", "pause", "none"]).failed_with(1);
    assert!(unknown.stderr.contains("none"), "{unknown:?}");
}

#[test]
fn what_a_binding_keeps_is_listed_printed_and_deleted() {
    let node = node_with_goods();
    node.admin(&SET).succeeded();
    send(&node, "{\"sku\": \"cup\", \"quantity\": 12}");
    all_is_consumed(&node);
    let state = |words: &[&str]| node.admin(&[&["binding", "state", "stock"], words].concat());
    let list = state(&["list"]).succeeded();
    assert!(list.stdout.contains("stock:teapot  3") && list.stdout.contains("EXPIRES"), "{list:?}");
    assert!(list.stderr.contains("namespace stock: ") && list.stderr.contains(" of 67108864 bytes"), "{list:?}");
    let cups = state(&["list", "--prefix", "stock:c", "--json"]).succeeded().json();
    assert_eq!((cups["items"].as_array().unwrap().len(), &cups["items"][0]["value"]), (1, &json!("12")));
    let page = state(&["list", "--limit", "1"]).succeeded();
    assert!(page.stderr.contains("there are more: --after stock:cup"), "{page:?}");
    assert_eq!(state(&["get", "stock:teapot"]).succeeded().stdout, "3\n");
    assert!(state(&["get", "stock:teapot", "--json"]).succeeded().json()["version"].is_u64());
    let missing = state(&["get", "stock:pan"]).failed_with(1);
    assert!(missing.stderr.contains("keeps nothing under the key"), "{missing:?}");

    assert_eq!(state(&["delete", "stock:cup"]).succeeded().stdout, "key stock:cup of binding stock deleted\n");
    state(&["delete", "stock:cup"]).failed_with(1);
    state(&["delete"]).failed_with(2);
    state(&["delete", "stock:teapot", "--all"]).failed_with(2);
    state(&["delete", "--all"]).succeeded();
    assert_eq!(state(&["list", "--json"]).succeeded().json()["items"], json!([]));
}

#[test]
fn a_component_is_tried_with_a_message_of_a_file() {
    let node = node_with_goods();
    node.admin(&SET).succeeded();
    let file = node.folder.path().join("message.json");
    let test = |body: &str, flag: &str| {
        std::fs::write(&file, json!({"topic": "goods", "body": body}).to_string()).unwrap();
        node.admin(&["binding", "test", "stock", flag, file.to_str().unwrap()])
    };
    let tried = test("{\"sku\": \"pan\", \"quantity\": 1}", "--message").succeeded().stdout;
    assert!(tried.starts_with("delivery: ack"), "{tried}");
    let tried = test("forty-two", "--message").succeeded().stdout;
    assert!(tried.starts_with("delivery: reject"), "{tried}");
    let kept = node.admin(&["binding", "state", "stock", "list", "--prefix", "stock:pan", "--json"]).succeeded().json();
    assert_eq!(kept["items"], json!([]), "nothing of it stays");
}

/// What a record of many parts decided stands first, and what components keep is in no dump.
#[test]
fn the_log_tells_what_a_delivery_decided_and_not_what_is_kept() {
    let node = node_with_goods();
    send(&node, "{\"sku\": \"secret-stock\", \"quantity\": 424242}");
    node.admin(&SET).succeeded();
    all_is_consumed(&node);
    let data = node.folder.path().join("data");
    let dumped = Ran::of(&vouch().args(["log", "dump", "--data-dir"]).arg(&data).output().unwrap()).succeeded().stdout;
    let settled: Vec<&str> = dumped.lines().filter(|line| line.contains("Settled {")).collect();
    assert_eq!(settled.len(), 2, "{dumped}");
    assert!(
        settled.iter().all(|line| line.contains("binding: \"stock\"") && line.contains("head: Ack")),
        "{settled:?}"
    );
    assert!(settled.iter().any(|line| line.contains("stock:teapot")), "{settled:?}");
    assert!(!dumped.contains("424242"), "{dumped}");
}
