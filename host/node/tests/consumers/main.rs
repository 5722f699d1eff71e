//! Components that consume: what they stage happens with their answer, an outage costs no message, a poison message goes.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod alone;
mod beside;
#[path = "../common/mod.rs"]
mod common;
mod dying;
#[path = "../../../plugin/tests/suite/guests.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod guests;
mod keeping;
mod scripted;
#[path = "../../../plugin/tests/suite/scripts.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod scripts;
#[path = "../../../plugin/tests/suite/support.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::checking::{order_service, until};
use common::{config, half, message, prepare, receive_now, send, start, topic};
use vouch_broker::{GroupConfig, ResourceName};
use vouch_node::{DeliveryCounts, Expect, Node, NodeConfig, PluginUpload, PutBinding, TransactionState};

/// Bounds a test that fails, and nothing else.
const NEVER_LONGER: Duration = Duration::from_secs(60);

/// Waits until `look` says so.
async fn wait_until<F: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> F) {
    let deadline = Instant::now() + NEVER_LONGER;
    while !look().await {
        assert!(Instant::now() < deadline, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn push(node: &Node, name: &str) {
    let file = format!("{}/../../plugins/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    let wasm = std::fs::read(file).unwrap().into();
    let upload = PluginUpload { name: name.to_owned(), tag: "1.0".to_owned(), wasm, expected: None };
    node.components.upload(upload).await.unwrap();
}

async fn bind(node: &Node, name: &str, spec: serde_json::Value) -> PutBinding {
    node.components.put_binding(name, &spec.to_string(), Expect::Anything).await.unwrap()
}

async fn send_body(node: &Node, topic: &str, id: &str, body: serde_json::Value) {
    send(node, topic, message(id, &body.to_string())).await;
}

async fn waiting(node: &Node, binding: &str) -> u64 {
    node.components.waiting(binding).await.unwrap().unwrap()
}

async fn all_is_done(node: &Node, binding: &str) {
    wait_until("all messages are done", || async { waiting(node, binding).await == 0 }).await;
}

/// What a binding keeps, as text.
async fn kept(node: &Node, binding: &str) -> BTreeMap<String, String> {
    let page = node.components.kept(binding, (String::new(), None), 1000).await.unwrap();
    page.keys.into_iter().map(|kept| (kept.key, String::from_utf8(kept.value).unwrap())).collect()
}

/// Bodies of all messages of a topic, for a group of this name.
async fn bodies(node: &Node, topic: &str, group: &str) -> Vec<serde_json::Value> {
    let all = receive_now(node, topic, group).await;
    all.into_iter().map(|delivery| serde_json::from_slice(&delivery.message.message.body).unwrap()).collect()
}

/// A stock keeper with its five topics.
async fn stock(node: &Node) {
    topic(
        node,
        "orders",
        r#"{"type":"transaction","transaction":{"immunity":"100ms","interval":"100ms","max_checks":1000}}"#,
    )
    .await;
    for name in ["goods", "payments", "reservations", "stock-short"] {
        topic(node, name, "{}").await;
    }
    push(node, "stock").await;
}

fn as_consumer() -> serde_json::Value {
    serde_json::json!({
        "plugin": "stock:1.0", "groups": ["stock"],
        "subscriptions": {"goods": "*", "payments": "*", "orders": "*"},
        "grants": {"state": "orders", "publish": ["reservations", "stock-short"]},
        "limits": {"deadline": "10s"},
    })
}

/// A consumer that hands every message of the topic `orders` to a service.
async fn push_to(node: &Node, address: SocketAddr) {
    push(node, "http-push").await;
    let spec = serde_json::json!({
        "plugin": "http-push:1.0", "groups": ["shipping"], "subscriptions": {"orders": "*"},
        "grants": {"http": [format!("http://{address}")]},
        "config": {"url": format!("http://{address}/{{key}}")},
        "limits": {"deadline": "10s", "concurrency": 2}, "unchecked": true,
    });
    bind(node, "shipping", spec).await;
}

async fn group(node: &Node, json: &str) {
    let config: GroupConfig = serde_json::from_str(json).unwrap();
    node.settings.put_group("shipping", config, Expect::Anything).await.unwrap();
}

/// Messages that were handed to a service, by path, and how often each.
#[derive(Clone, Default)]
struct Handed(Arc<Mutex<BTreeMap<String, usize>>>);

impl Handed {
    fn note(&self, path: &str) -> usize {
        let mut handed = self.0.lock().unwrap();
        let times = handed.entry(path.trim_start_matches('/').to_owned()).or_default();
        *times += 1;
        *times
    }

    fn times(&self, path: &str) -> usize {
        self.0.lock().unwrap().get(path).copied().unwrap_or_default()
    }

    fn total(&self) -> usize {
        self.0.lock().unwrap().values().sum()
    }
}

/// What became of a binding's deliveries.
fn counts(node: &Node, binding: &str) -> DeliveryCounts {
    *node.metrics.deliveries.counts().of(binding.to_owned())
}

async fn dead_letters(node: &Node) -> usize {
    // The topic comes into being with the first of them.
    match node.settings.topic(&ResourceName::plain("%DLQ%shipping")).await {
        Err(_) => 0,
        Ok(_) => receive_now(node, "%DLQ%shipping", "looks").await.len(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_consumer_keeps_and_publishes_happens_with_its_acknowledgements_and_a_checkback_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    stock(&node).await;
    bind(&node, "stock", as_consumer()).await;
    let checkback = serde_json::json!({"plugin": "stock:1.0", "topics": ["orders"], "grants": {"state": "orders"}});
    bind(&node, "orders", checkback).await;
    send_body(&node, "goods", "g1", serde_json::json!({"sku": "teapot", "quantity": 3})).await;
    all_is_done(&node, "stock").await;
    assert_eq!(kept(&node, "stock").await["stock:teapot"], "3");
    let order = |id: &str, quantity: u32| {
        let body = serde_json::json!({"order": id, "items": [{"sku": "teapot", "quantity": quantity}]});
        half(id, &body.to_string())
    };
    let (paid, unpaid) = (prepare(&node, "orders", order("1", 2)).await, prepare(&node, "orders", order("2", 2)).await);
    until(&node, unpaid, |view| view.checks > 1).await;
    assert!(bodies(&node, "reservations", "looks").await.is_empty(), "nobody paid");
    send_body(&node, "payments", "p1", serde_json::json!({"order": "1"})).await;
    until(&node, paid, |view| view.state == TransactionState::Committed).await;
    wait_until("it is reserved", || async { kept(&node, "stock").await["stock:teapot"] == "1" }).await;
    let reserved = bodies(&node, "reservations", "looks").await;
    assert_eq!((reserved.len(), &reserved[0]["order"]), (1, &serde_json::json!("1")));
    // The second one is paid for, too, and there is too little.
    send_body(&node, "payments", "p2", serde_json::json!({"order": "2"})).await;
    until(&node, unpaid, |view| view.state == TransactionState::Committed).await;
    wait_until("it is missed", || async { !bodies(&node, "stock-short", "looks").await.is_empty() }).await;
    assert_eq!(kept(&node, "stock").await["stock:teapot"], "1");
    assert_eq!(kept(&node, "stock").await, kept(&node, "orders").await, "they share a namespace");
    all_is_done(&node, "stock").await;
    node.stop().await;
    // All of it is in the log.
    let node = start(folder.path()).await;
    assert_eq!(kept(&node, "orders").await["stock:teapot"], "1");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_deliveries_that_change_one_key_at_once_count_each_once() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    stock(&node).await;
    bind(&node, "stock", as_consumer()).await;
    for n in 0..300 {
        send_body(&node, "goods", &n.to_string(), serde_json::json!({"sku": "cup", "quantity": 1})).await;
    }
    all_is_done(&node, "stock").await;
    assert_eq!(kept(&node, "stock").await["stock:cup"], "300");
    let counts = counts(&node, "stock");
    assert_eq!((counts.ack, counts.failed, counts.late), (300, 0, 0), "{counts:?}");
    node.stop().await;
}

/// Who waits for keys holds none, and who waits for a place holds none either: else those who have the places would wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn more_bindings_than_there_are_places_change_one_key_and_all_get_on() {
    const EACH: u64 = 60;
    const BINDINGS: [&str; 3] = ["one", "two", "three"];
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(NodeConfig { plugin_concurrency: 2, ..config(folder.path()) }).unwrap();
    stock(&node).await;
    for name in BINDINGS {
        let mut spec = as_consumer();
        spec["groups"] = serde_json::json!([name]);
        spec["grants"]["state"] = serde_json::json!("shared");
        spec["limits"] = serde_json::json!({"concurrency": 2});
        bind(&node, name, spec).await;
    }
    for n in 0..EACH {
        send_body(&node, "goods", &n.to_string(), serde_json::json!({"sku": "cup", "quantity": 1})).await;
    }
    for name in BINDINGS {
        all_is_done(&node, name).await;
    }
    wait_until("all are counted", || async { BINDINGS.iter().all(|name| counts(&node, name).ack == EACH) }).await;
    let all = EACH * BINDINGS.len() as u64;
    assert_eq!(kept(&node, "one").await["stock:cup"], all.to_string());
    assert!(BINDINGS.iter().any(|name| counts(&node, name).stale > 0), "they were in each other's way");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_pauses_a_consumer_and_costs_no_message_an_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", "{}").await;
    // Three deliveries, and no pause between them: ten failures are soon there.
    group(&node, r#"{"max_attempts":3,"backoff":["0s"]}"#).await;
    let (handed, up) = (Handed::default(), Arc::new(AtomicBool::new(false)));
    let (note, is_up) = (handed.clone(), up.clone());
    let (address, _) = order_service(move |path| {
        if !is_up.load(Ordering::SeqCst) {
            return (503, String::new());
        }
        note.note(path);
        (200, String::new())
    });
    push_to(&node, address).await;
    for n in 0..20 {
        send(&node, "orders", message(&n.to_string(), "x")).await;
    }
    let paused = || async {
        let standings = node.components.consumer_standings();
        standings.iter().any(|(name, standing)| name == "shipping" && standing.paused_since_ms.is_some())
    };
    wait_until("it pauses", paused).await;
    let error = node.components.consumer_standings().remove(0).1.last_error.unwrap();
    assert!(error.contains("503"), "{error}");
    // Some more deliveries, each a probe: a fourth of them would be more than a message has.
    let counts = || counts(&node, "shipping");
    let before = counts().retry;
    wait_until("it is probed", || async { counts().retry >= before + 2 }).await;
    up.store(true, Ordering::SeqCst);
    all_is_done(&node, "shipping").await;
    assert_eq!(handed.total(), 20, "each once");
    assert_eq!((counts().dead_letter, counts().ack), (0, 20));
    assert!(!paused().await);
    assert_eq!(dead_letters(&node).await, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_message_among_good_ones_goes_after_its_attempts() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", "{}").await;
    group(&node, r#"{"max_attempts":4,"backoff":["0s"]}"#).await;
    let handed = Handed::default();
    let note = handed.clone();
    let (address, _) = order_service(move |path| {
        note.note(path);
        (if path == "/key-poison" { 500 } else { 200 }, String::new())
    });
    push_to(&node, address).await;
    send(&node, "orders", message("poison", "x")).await;
    // Good ones come all the time.
    let mut sent = 0;
    while handed.times("key-poison") < 4 {
        send(&node, "orders", message(&sent.to_string(), "x")).await;
        sent += 1;
        assert!(sent < 10_000, "{:?}", handed.0.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    all_is_done(&node, "shipping").await;
    assert_eq!(dead_letters(&node).await, 1);
    assert_eq!(handed.total() - handed.times("key-poison"), sent);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pauses_a_consumer_for_its_own_fault_makes_way_for_what_is_good_and_goes_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", "{}").await;
    // What failed is not the first thing that is delivered again: others have their turn between.
    group(&node, r#"{"max_attempts":4,"backoff":["200ms"]}"#).await;
    let handed = Handed::default();
    let note = handed.clone();
    let (address, _) = order_service(move |path| {
        note.note(path);
        (if path.starts_with("/key-poison") { 500 } else { 200 }, String::new())
    });
    push_to(&node, address).await;
    for n in 0..4 {
        send(&node, "orders", message(&format!("poison-{n}"), "x")).await;
    }
    wait_until("it pauses", || async {
        node.components.consumer_standings().iter().any(|(_, standing)| standing.paused_since_ms.is_some())
    })
    .await;
    // A good one comes at last, and others after it: they are not kept back by those that pause the binding.
    let mut sent = 0;
    let deadline = Instant::now() + NEVER_LONGER;
    while counts(&node, "shipping").dead_letter < 4 {
        assert!(Instant::now() < deadline, "{:?} {:?}", handed.0.lock().unwrap(), node.components.consumer_standings());
        send(&node, "orders", message(&sent.to_string(), "x")).await;
        sent += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    all_is_done(&node, "shipping").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_a_binding_consumes_for_is_not_deleted_under_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    stock(&node).await;
    bind(&node, "stock", as_consumer()).await;
    let refused = node.settings.delete_group("stock").await.unwrap_err().to_string();
    assert!(refused.contains("binding stock consumes for group stock"), "{refused}");
    node.components.delete_binding("stock").await.unwrap();
    node.settings.delete_group("stock").await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_rejected_is_a_dead_letter_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", "{}").await;
    let handed = Handed::default();
    let note = handed.clone();
    let (address, _) = order_service(move |path| (if note.note(path) > 0 { 422 } else { 200 }, String::new()));
    push_to(&node, address).await;
    send(&node, "orders", message("m", "x")).await;
    all_is_done(&node, "shipping").await;
    assert_eq!((dead_letters(&node).await, handed.times("key-m")), (1, 1));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_begins_at_the_end_gets_what_is_sent_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", "{}").await;
    // Each is done once. A call that was out of time may have brought its message all the same, and is counted as failed.
    let came = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = came.clone();
    let (address, asked) = order_service(move |path| {
        noted.lock().unwrap().insert(path.trim_start_matches('/').to_owned());
        (200, String::new())
    });
    let has_come = |wanted: &[&str]| came.lock().unwrap().iter().map(String::as_str).eq(wanted.iter().copied());
    push(&node, "http-push").await;
    for n in 0..5 {
        send(&node, "orders", message(&n.to_string(), "x")).await;
    }
    let spec = |group: &str, start: &str| {
        serde_json::json!({
            "plugin": "http-push:1.0", "groups": [group], "subscriptions": {"orders": "*"}, "start": start,
            "grants": {"http": [format!("http://{address}")]}, "config": {"url": format!("http://{address}/{group}-{{key}}")},
            "unchecked": true,
        })
    };
    assert_eq!(bind(&node, "from-now", spec("now", "end")).await.waiting, Some(0));
    send(&node, "orders", message("new", "x")).await;
    all_is_done(&node, "from-now").await;
    let is_done_once = async |from_now: u64, all: u64| {
        let both = || ["from-now", "all"].map(|binding| counts(&node, binding));
        // A message is done with its record, and counted behind that.
        wait_until("they are counted", || async { both()[0].ack >= from_now && both()[1].ack >= all }).await;
        let [of_new, of_all] = both();
        assert_eq!((of_new.ack, of_all.ack), (from_now, all));
        let calls = from_now + all + of_new.failed + of_all.failed;
        assert!(asked.load(Ordering::SeqCst) as u64 <= calls, "{asked:?} of {calls}");
    };
    assert!(has_come(&["now-key-new"]), "{came:?}");
    is_done_once(1, 0).await;
    bind(&node, "all", spec("all", "beginning")).await;
    all_is_done(&node, "all").await;
    let all = ["all-key-0", "all-key-1", "all-key-2", "all-key-3", "all-key-4", "all-key-new", "now-key-new"];
    assert!(has_come(&all), "{came:?}");
    is_done_once(1, 6).await;
    // Set again, it goes on where its group is.
    bind(&node, "all", spec("all", "end")).await;
    send(&node, "orders", message("newer", "x")).await;
    all_is_done(&node, "all").await;
    let both = [&all[..6], &["all-key-newer"], &all[6..], &["now-key-newer"]].concat();
    wait_until("both got it", || async { has_come(&both) }).await;
    all_is_done(&node, "from-now").await;
    is_done_once(2, 7).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_an_operator_lets_pause_receives_nothing_until_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", "{}").await;
    let (address, asked) = order_service(|_| (200, String::new()));
    push_to(&node, address).await;
    send(&node, "orders", message("first", "x")).await;
    all_is_done(&node, "shipping").await;
    node.components.pause_binding("shipping", true).await.unwrap();
    // What was received before is done, and no receive is under way any more when it is so for a while.
    wait_until("nothing is under way", || async {
        node.components.consumer_standings().iter().all(|(_, standing)| standing.in_flight == 0)
    })
    .await;
    node.stop().await;
    let node = start(folder.path()).await;
    send(&node, "orders", message("second", "x")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((waiting(&node, "shipping").await, asked.load(Ordering::SeqCst)), (1, 1), "a restart changes nothing");
    node.components.pause_binding("shipping", false).await.unwrap();
    all_is_done(&node, "shipping").await;
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_a_components_hands_when_the_node_ended_is_taken_over_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", "{}").await;
    group(&node, r#"{"max_attempts":1}"#).await;
    let (hangs, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (hang, count) = (hangs.clone(), asked.clone());
    let (address, _) = order_service(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        while hang.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        (200, String::new())
    });
    push_to(&node, address).await;
    send(&node, "orders", message("m", "x")).await;
    wait_until("it is delivered", || async { asked.load(Ordering::SeqCst) == 1 }).await;
    node.stop().await;
    hangs.store(false, Ordering::SeqCst);
    let began = Instant::now();
    let node = start(folder.path()).await;
    all_is_done(&node, "shipping").await;
    assert!(began.elapsed() < Duration::from_secs(35), "a lease of 40 s was not waited for");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(dead_letters(&node).await, 0, "it was its only attempt, and is that still");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_binding_keeps_goes_with_it_and_an_operator_may_delete_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    stock(&node).await;
    bind(&node, "stock", as_consumer()).await;
    for sku in ["cup", "pot"] {
        send_body(&node, "goods", sku, serde_json::json!({"sku": sku, "quantity": 1})).await;
    }
    all_is_done(&node, "stock").await;
    let one = node.components.kept("stock", ("stock:".to_owned(), None), 1).await.unwrap();
    assert_eq!((one.keys[0].key.as_str(), one.namespace.as_str()), ("stock:cup", "orders"));
    let next = node.components.kept("stock", ("stock:".to_owned(), Some("stock:cup".to_owned())), 9).await.unwrap();
    assert_eq!(next.keys.iter().map(|kept| kept.key.as_str()).collect::<Vec<_>>(), ["stock:pot"]);
    node.components.delete_kept("stock", Some("stock:cup".to_owned())).await.unwrap();
    assert!(node.components.delete_kept("stock", Some("stock:cup".to_owned())).await.is_err());
    assert_eq!(kept(&node, "stock").await.into_keys().collect::<Vec<_>>(), ["stock:pot"]);
    node.components.delete_binding("stock").await.unwrap();
    bind(&node, "stock", as_consumer()).await;
    assert!(kept(&node, "stock").await.is_empty(), "it is another one");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_cannot_do_what_it_is_set_for_is_refused_with_what_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    stock(&node).await;
    push(&node, "http-checkback").await;
    push(&node, "http-push").await;
    for (spec, why) in [
        (serde_json::json!({"plugin": "stock:1.0"}), "neither a topic nor a group"),
        (serde_json::json!({"plugin": "stock:1.0", "groups": ["g"]}), "says not what"),
        (
            serde_json::json!({"plugin": "stock:1.0", "topics": ["orders"], "subscriptions": {"goods": "*"}}),
            "no group that",
        ),
        (
            serde_json::json!({"plugin": "stock:1.0", "groups": ["g"], "subscriptions": {"nowhere": "*"}}),
            "does not exist",
        ),
        (serde_json::json!({"plugin": "stock:1.0", "groups": ["g"], "subscriptions": {"goods": "||"}}), "names no tag"),
        (serde_json::json!({"plugin": "stock:1.0", "topics": ["orders"], "start": "end"}), "the binding has none"),
        (
            serde_json::json!({"plugin": "http-checkback:1.0", "groups": ["g"], "subscriptions": {"goods": "*"},
                "grants": {"http": ["http://127.0.0.1"]}, "config": {"url": "http://127.0.0.1/{key}", "commit": "200"}}),
            "consumes nothing",
        ),
        (
            serde_json::json!({"plugin": "http-push:1.0", "topics": ["orders"], "grants": {"http": ["http://127.0.0.1"]},
                "config": {"url": "http://127.0.0.1/{key}"}}),
            "answers no checks",
        ),
    ] {
        let refused = node.components.put_binding("b", &spec.to_string(), Expect::Anything).await;
        let said = refused.map(|_| ()).unwrap_err().to_string();
        assert!(said.contains(why), "{spec}: {said}");
    }
    bind(&node, "stock", as_consumer()).await;
    let second = node.components.put_binding("second", &as_consumer().to_string(), Expect::Anything).await;
    assert!(second.map(|_| ()).unwrap_err().to_string().contains("already served by binding stock"));
    node.stop().await;
}
