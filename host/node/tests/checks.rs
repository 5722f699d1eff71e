//! What an outage does to open transactions, and what a component does that fails on one of them (ruling 4).

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod common;
#[path = "../../plugin/tests/suite/guests.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod guests;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::checking::{order_service, until};
use common::{half, prepare, start, topic};
use vouch_node::{Expect, Node, PluginUpload, TransactionState};

/// Asked again each 100 ms, so that what happens to the tenth ask happens soon.
const OFTEN: &str = r#"{"type":"transaction","transaction":{"immunity":"100ms","interval":"100ms"}}"#;
/// More asks than park a transaction on which a component fails.
const MANY: usize = 25;

async fn push(node: &Node, name: &str, wasm: bytes::Bytes) {
    let upload = PluginUpload { name: name.to_owned(), tag: "1.0".to_owned(), wasm, expected: None };
    node.components.upload(upload).await.unwrap();
}

async fn push_http_checkback(node: &Node) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
    push(node, "http-checkback", std::fs::read(file).unwrap().into()).await;
}

async fn bind_http(node: &Node, name: &str, address: SocketAddr) {
    bind_http_for(node, name, address, "1s").await;
}

async fn bind_http_for(node: &Node, name: &str, address: SocketAddr, deadline: &str) {
    let spec = serde_json::json!({
        "plugin": "http-checkback:1.0",
        "topics": [name],
        "limits": {"deadline": deadline},
        "grants": {"http": [format!("http://{address}")]},
        "config": {"url": format!("http://{address}/{{key}}"), "field": "/status", "commit": "PAID"},
    });
    node.components.put_binding(name, &spec.to_string(), Expect::Anything).await.unwrap();
}

/// A service that takes requests and answers none; how many it has taken.
fn hanging_service() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, taken) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = taken.clone();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            held.push(stream);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, taken)
}

async fn bind(node: &Node, plugin: &str, name: &str, tag: &str) {
    let spec = serde_json::json!({"plugin": format!("{plugin}:{tag}"), "topics": [name]});
    node.components.put_binding(name, &spec.to_string(), Expect::Anything).await.unwrap();
}

/// A service that is down until it is switched on: answers 503 to all paths, or to those that contain a word.
fn service(down_for: &'static str) -> (SocketAddr, Arc<AtomicUsize>, Arc<AtomicBool>) {
    let on = Arc::new(AtomicBool::new(false));
    let switch = on.clone();
    let (address, asked) = order_service(move |path| match path.contains(down_for) && !on.load(Ordering::SeqCst) {
        true => (503, String::new()),
        false => (200, r#"{"status":"PAID"}"#.to_owned()),
    });
    (address, asked, switch)
}

async fn until_asked(asked: &AtomicUsize, times: usize) {
    while asked.load(Ordering::SeqCst) < times {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_service_that_is_down_parks_nothing_while_another_binding_of_the_same_component_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    push_http_checkback(&node).await;
    let (down, asked, switch) = service("");
    let (up, ..) = service("never");
    for (name, address) in [("a", down), ("b", up)] {
        topic(&node, name, OFTEN).await;
        bind_http(&node, name, address).await;
    }
    let waiting = prepare(&node, "a", half("m1", "x")).await;
    for round in 1..=MANY {
        // The other service answers all the time.
        let other = prepare(&node, "b", half(&format!("o{round}"), "x")).await;
        until(&node, other, |view| view.state == TransactionState::Committed).await;
        until_asked(&asked, round).await;
    }
    let view = node.transactions.get(waiting).await.unwrap();
    assert_eq!((view.state, view.checks), (TransactionState::Open, 0), "{view:?}");
    let error = view.last_error.unwrap();
    assert!(error.text.contains("503") && error.by.contains("binding a"), "{error:?}");
    switch.store(true, Ordering::SeqCst);
    let view = until(&node, waiting, |view| view.state == TransactionState::Committed).await;
    assert!(view.last_error.is_some(), "its end hides no error");
    node.stop().await;
}

#[tokio::test]
async fn what_a_service_cannot_say_is_asked_on_while_it_answers_about_others() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    push_http_checkback(&node).await;
    let (address, asked, switch) = service("key-stuck");
    topic(&node, "a", OFTEN).await;
    bind_http(&node, "a", address).await;
    let stuck = prepare(&node, "a", half("stuck", "x")).await;
    for round in 1..=MANY {
        let other = prepare(&node, "a", half(&format!("o{round}"), "x")).await;
        until(&node, other, |view| view.state == TransactionState::Committed).await;
        until_asked(&asked, 2 * round).await;
    }
    assert_eq!(node.transactions.get(stuck).await.unwrap().state, TransactionState::Open);
    switch.store(true, Ordering::SeqCst);
    until(&node, stuck, |view| view.state == TransactionState::Committed).await;
    node.stop().await;
}

/// Traps on a body of one byte, and commits every other.
fn traps_on_one_byte() -> bytes::Bytes {
    // Offset of the size of the body in the record `pending`.
    let size = guests::field(96);
    guests::check(&format!("(if (i32.eq {size} (i32.const 1)) (then unreachable)) {}", guests::commit()))
}

#[tokio::test]
async fn an_input_on_which_the_component_fails_is_parked_with_its_trace_until_the_binding_is_set_again() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    push(&node, "faulty", traps_on_one_byte()).await;
    push(&node, "mended", guests::check(&guests::commit())).await;
    topic(&node, "a", OFTEN).await;
    bind(&node, "faulty", "a", "1.0").await;
    let poison = prepare(&node, "a", half("poison", "x")).await;
    let view = until(&node, poison, |view| view.last_error.is_some()).await;
    assert_eq!(view.state, TransactionState::Open, "{view:?}");
    let mut others = 0;
    let parked = loop {
        others += 1;
        let other = prepare(&node, "a", half(&format!("o{others}"), "fine")).await;
        until(&node, other, |view| view.state == TransactionState::Committed).await;
        let view = node.transactions.get(poison).await.unwrap();
        if view.state == TransactionState::Parked {
            break view;
        }
    };
    assert!(parked.parked_because.as_ref().unwrap().contains("times in a row"), "{parked:?}");
    assert_eq!((parked.checks, parked.next_check_at_ms), (0, None));
    let error = parked.last_error.clone().unwrap();
    assert!(error.text.contains("trap") && error.trace.contains("0:") && error.by.contains("binding a"), "{error:?}");
    assert!(parked.last_answer.unwrap().text.contains("trap"));
    node.stop().await;
    drop(node);

    let node = start(folder.path()).await;
    let view = node.transactions.get(poison).await.unwrap();
    assert_eq!((view.state, view.last_error), (TransactionState::Parked, Some(error)), "it is in the log");
    bind(&node, "mended", "a", "1.0").await;
    until(&node, poison, |view| view.state == TransactionState::Committed).await;
    node.stop().await;
}

#[tokio::test]
async fn a_component_that_fails_on_everything_parks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    push(&node, "faulty", guests::check("unreachable")).await;
    push(&node, "sound", guests::check(&guests::commit())).await;
    for (topic_name, plugin) in [("a", "faulty"), ("b", "sound")] {
        topic(&node, topic_name, OFTEN).await;
        bind(&node, plugin, topic_name, "1.0").await;
    }
    let waiting = prepare(&node, "a", half("m1", "x")).await;
    let also = prepare(&node, "a", half("m2", "x")).await;
    let unanswered = || node.metrics.checks_unanswered.load(Ordering::Relaxed);
    let mut others = 0;
    while unanswered() < 2 * MANY as u64 {
        others += 1;
        let other = prepare(&node, "b", half(&format!("o{others}"), "x")).await;
        until(&node, other, |view| view.state == TransactionState::Committed).await;
    }
    for transaction in [waiting, also] {
        let view = node.transactions.get(transaction).await.unwrap();
        assert_eq!(view.state, TransactionState::Open, "a bad deploy is no fault of the transactions: {view:?}");
    }
    bind(&node, "sound", "a", "1.0").await;
    for transaction in [waiting, also] {
        until(&node, transaction, |view| view.state == TransactionState::Committed).await;
    }
    node.stop().await;
}

/// More bindings wait for a service that hangs than the node has places, and each may wait for a minute.
#[tokio::test]
async fn bindings_whose_service_hangs_keep_no_other_from_its_answers_however_many_they_are() {
    const HUNG: usize = 34;
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    push_http_checkback(&node).await;
    let (hanging, taken) = hanging_service();
    for n in 0..HUNG {
        let name = format!("hung-{n}");
        topic(&node, &name, OFTEN).await;
        bind_http_for(&node, &name, hanging, "60s").await;
        prepare(&node, &name, half(&format!("m{n}"), "x")).await;
    }
    // The rest of the 32 places is for others.
    until_asked(&taken, 28).await;
    let (up, ..) = service("never");
    topic(&node, "healthy", OFTEN).await;
    bind_http(&node, "healthy", up).await;
    for n in 0..20 {
        let began = std::time::Instant::now();
        let asked = prepare(&node, "healthy", half(&format!("h{n}"), "x")).await;
        until(&node, asked, |view| view.state == TransactionState::Committed).await;
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "{n}: {:?}", began.elapsed());
    }
    // One that may take as long as those that hang, and was never asked, shows that it does not.
    topic(&node, "patient", OFTEN).await;
    bind_http_for(&node, "patient", up, "60s").await;
    let asked = prepare(&node, "patient", half("p", "x")).await;
    until(&node, asked, |view| view.state == TransactionState::Committed).await;
    let asked = taken.load(Ordering::SeqCst);
    assert!((28..=HUNG).contains(&asked), "none of those that hang was asked twice: {asked}");
    node.stop().await;
}
