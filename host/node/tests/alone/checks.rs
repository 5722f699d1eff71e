//! What an outage does to open transactions, and what a component does that fails on one of them (ruling 4).

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::common::checking::{order_service, until};
use crate::common::{half, prepare, start, topic};
use crate::guests;
use vouch_broker::{NotDone, Refusal};
use vouch_node::{Expect, Node, PluginUpload, PutBinding, TransactionState};

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
        // These services count who asks, or answer nobody.
        "unchecked": true,
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
    // Some fail on whatever they are asked.
    let spec = serde_json::json!({"plugin": format!("{plugin}:{tag}"), "topics": [name], "unchecked": true});
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

#[tokio::test]
async fn a_component_that_takes_many_settles_them_in_few_calls_and_only_what_it_fails_on_suffers() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    push(&node, "batch", guests::batch()).await;
    topic(&node, "a", r#"{"type":"transaction","transaction":{"immunity":"1s","interval":"1s"}}"#).await;
    let mut asked = Vec::new();
    for n in 0..60 {
        let (letter, expected) = match n {
            17 => ("p", None),
            44 => ("l", None),
            n if n % 2 == 0 => ("c", Some(TransactionState::Committed)),
            _ => ("r", Some(TransactionState::RolledBack)),
        };
        asked.push((prepare(&node, "a", half(&format!("{letter}{n}"), "x")).await, expected));
    }
    // Bound when all are due: one place, and the others wait with whoever has it.
    for (transaction, _) in &asked {
        until(&node, *transaction, |view| view.state == TransactionState::WaitingForChecker).await;
    }
    let spec =
        serde_json::json!({"plugin": "batch:1.0", "topics": ["a"], "limits": {"concurrency": 1}, "unchecked": true});
    node.components.put_binding("a", &spec.to_string(), Expect::Absent).await.unwrap();
    for (transaction, expected) in &asked {
        let view = until(&node, *transaction, |view| match expected {
            Some(state) => view.state == *state,
            None => view.last_error.is_some(),
        });
        let view = view.await;
        let error = view.last_error.map(|error| error.text).unwrap_or_default();
        match (expected, view.message_id.starts_with('p')) {
            (Some(_), _) => assert_eq!(error, "", "it was asked about with one that failed"),
            (None, true) => assert!(error.contains("trap"), "{error}"),
            (None, false) => assert!(error.contains("left this one out"), "{error}"),
        }
    }
    // One poison among 60 is found in two calls a halving; one by one there would be 60.
    let calls = node.metrics.check_calls.counts().buckets.iter().sum::<u64>();
    assert!(calls < 30, "{calls} calls");
    node.stop().await;
}

#[tokio::test]
async fn a_batch_of_a_service_that_is_away_costs_two_calls_and_blames_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    push(&node, "batch", guests::batch()).await;
    topic(&node, "a", r#"{"type":"transaction","transaction":{"immunity":"1s","interval":"1s"}}"#).await;
    let mut asked = Vec::new();
    for n in 0..50 {
        asked.push(prepare(&node, "a", half(&format!("e{n}"), "x")).await);
    }
    for transaction in &asked {
        until(&node, *transaction, |view| view.state == TransactionState::WaitingForChecker).await;
    }
    let spec =
        serde_json::json!({"plugin": "batch:1.0", "topics": ["a"], "limits": {"concurrency": 1}, "unchecked": true});
    node.components.put_binding("a", &spec.to_string(), Expect::Absent).await.unwrap();
    for transaction in asked {
        let view = until(&node, transaction, |view| view.last_error.is_some()).await;
        let error = view.last_error.unwrap().text;
        assert!(view.state == TransactionState::Open && error.contains("told by its id"), "{error}");
    }
    let calls = node.metrics.check_calls.counts().buckets.iter().sum::<u64>();
    assert!(calls < 25, "{calls} calls for 50 that nobody could answer about");
    node.stop().await;
}

/// What is bound to a topic without any "unchecked": tried first.
async fn put_tried(node: &Node, name: &str, plugin: &str, limits: serde_json::Value) -> Result<PutBinding, NotDone> {
    let spec = serde_json::json!({"plugin": format!("{plugin}:1.0"), "topics": [name], "limits": limits});
    node.components.put_binding(name, &spec.to_string(), Expect::Anything).await
}

#[tokio::test]
async fn a_component_that_fails_on_what_it_is_tried_with_is_not_set_unless_nobody_wants_to_know() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    push(&node, "traps", guests::check("unreachable")).await;
    push(&node, "spins", guests::check(guests::SPIN)).await;
    push(&node, "commits", guests::check(&guests::commit())).await;
    topic(&node, "a", OFTEN).await;
    for (plugin, says) in [("traps", "trapped"), ("spins", "computed for most of")] {
        let refused = put_tried(&node, "a", plugin, serde_json::json!({"deadline": "200ms"})).await.err().unwrap();
        assert!(
            matches!(&refused, NotDone::Refused(Refusal::Invalid(why)) if why.contains(says) && why.contains("unchecked")),
            "{refused}"
        );
        assert!(node.components.binding("a").await.unwrap().is_none());
    }
    bind(&node, "traps", "a", "1.0").await;
    let put = put_tried(&node, "a", "commits", serde_json::json!({})).await.unwrap();
    assert!(put.warnings.is_empty() && !put.written.created, "{:?}", put.warnings);
    let standing = node.components.standing("a", put.written.revision);
    assert_eq!(standing.and_then(|standing| standing.untried), None);
    node.stop().await;
}

#[tokio::test]
async fn a_binding_whose_service_hangs_is_set_within_its_deadline_and_stands_untried_until_it_answers() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    push_http_checkback(&node).await;
    topic(&node, "a", OFTEN).await;
    let (hangs, taken) = hanging_service();
    let (answers, _, on) = service("orders");
    let spec = |address: SocketAddr| {
        serde_json::json!({
            "plugin": "http-checkback:1.0", "topics": ["a"], "grants": {"http": [format!("http://{address}")]},
            "config": {"url": format!("http://{address}/orders/{{key}}"), "field": "/status", "commit": "PAID"},
        })
        .to_string()
    };
    for address in [hangs, answers] {
        let put = node.components.put_binding("a", &spec(address), Expect::Anything).await.unwrap();
        assert!(put.warnings.iter().any(|warning| warning.contains("untried")), "{:?}", put.warnings);
        let standing = node.components.standing("a", put.written.revision).unwrap();
        assert!(standing.untried.is_some(), "{standing:?}");
    }
    assert_eq!(taken.load(Ordering::SeqCst), 1, "it is asked once");
    on.store(true, Ordering::SeqCst);
    let transaction = prepare(&node, "a", half("m1", "x")).await;
    until(&node, transaction, |view| view.state == TransactionState::Committed).await;
    let revision = node.components.binding("a").await.unwrap().unwrap().revision;
    assert_eq!(node.components.standing("a", revision).unwrap().untried, None, "an answer tells as much as a trial");
    node.stop().await;
}

#[tokio::test]
async fn a_call_about_many_takes_no_more_than_fit_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    push(&node, "batch", guests::batch()).await;
    topic(&node, "a", r#"{"type":"transaction","transaction":{"immunity":"1s","interval":"1h"}}"#).await;
    let body = "x".repeat(300 << 10);
    let mut asked = Vec::new();
    for n in 0..12 {
        asked.push(prepare(&node, "a", half(&format!("c{n}"), &body)).await);
    }
    for transaction in &asked {
        until(&node, *transaction, |view| view.state == TransactionState::WaitingForChecker).await;
    }
    let spec =
        serde_json::json!({"plugin": "batch:1.0", "topics": ["a"], "limits": {"concurrency": 1}, "unchecked": true});
    node.components.put_binding("a", &spec.to_string(), Expect::Absent).await.unwrap();
    for transaction in asked {
        until(&node, transaction, |view| view.state == TransactionState::Committed).await;
    }
    // Three of them are below a MiB; the one that came first may have gone alone.
    let calls = node.metrics.check_calls.counts().buckets.iter().sum::<u64>();
    assert!((4..=6).contains(&calls), "{calls} calls about 12 of 300 KiB");
    node.stop().await;
}

#[tokio::test]
async fn what_is_left_of_a_batch_is_not_asked_of_a_binding_that_was_deleted_meanwhile() {
    const ASKED: usize = 12;
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    push(&node, "batch", guests::batch()).await;
    push(&node, "commits", guests::check(&guests::commit())).await;
    topic(&node, "a", r#"{"type":"transaction","transaction":{"immunity":"1s","interval":"1h"}}"#).await;
    let mut asked = Vec::new();
    // Two of them never return: one of these is among those that go together, whichever goes first and alone.
    for n in 0..ASKED {
        let letter = if n < 2 { "w" } else { "c" };
        asked.push(prepare(&node, "a", half(&format!("{letter}{n}"), "x")).await);
    }
    for transaction in &asked {
        until(&node, *transaction, |view| view.state == TransactionState::WaitingForChecker).await;
    }
    let limits = serde_json::json!({"concurrency": 1, "deadline": "1s"});
    let spec = serde_json::json!({"plugin": "batch:1.0", "topics": ["a"], "limits": limits, "unchecked": true});
    node.components.put_binding("a", &spec.to_string(), Expect::Absent).await.unwrap();
    let calls = || node.metrics.check_calls.counts().buckets.iter().sum::<u64>();
    while calls() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    node.components.delete_binding("a").await.unwrap();
    let before = calls();
    // In this time the one that may run ends, and so would two more.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(calls() <= before + 1, "{before} calls before it was deleted, {} now", calls());
    bind(&node, "commits", "a", "1.0").await;
    for transaction in asked {
        until(&node, transaction, |view| view.state == TransactionState::Committed).await;
    }
    node.stop().await;
}
