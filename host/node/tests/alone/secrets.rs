//! Secrets of bindings that change while components are asked.

use std::sync::{Arc, Mutex, mpsc};

use crate::common::checking::{order_service, until};
use crate::common::{half, prepare, start, topic};
use vouch_broker::TransactionId;
use vouch_node::{Expect, Node, PluginUpload, SecretValue, TransactionState};

async fn set_url(node: &Node, url: String) {
    let value = SecretValue::new(url.into_bytes()).unwrap();
    node.secrets.set("orders-url", value, Expect::Anything).await.unwrap();
}

/// A binding whose address is a secret, and which has one place.
async fn bind(node: &Node, origin: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist/http-checkback.wasm");
    let wasm = std::fs::read(path).unwrap().into();
    let upload = PluginUpload { name: "check".to_owned(), tag: "1".to_owned(), wasm, expected: None };
    node.components.upload(upload).await.unwrap();
    let spec = serde_json::json!({
        "plugin": "check:1", "topics": ["orders"], "grants": {"http": [origin]},
        "config": {"url": {"secret": "orders-url"}, "commit": "200"}, "limits": {"concurrency": 1, "deadline": "30s"},
    });
    node.components.put_binding("orders", &spec.to_string(), Expect::Absent).await.unwrap();
}

/// While one question has the only place, others wait for it. What they use then is the value of then.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn asks_that_wait_for_a_place_use_the_value_that_a_secret_has_when_one_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", r#"{"type":"transaction","transaction":{"immunity":"50ms","interval":"100ms"}}"#).await;
    let paths = Arc::<Mutex<Vec<String>>>::default();
    let (go_on, waits) = mpsc::channel::<()>();
    let seen = paths.clone();
    let (address, asked) = order_service(move |path| {
        seen.lock().unwrap().push(path.to_owned());
        if path.starts_with("/right/") {
            return (200, String::new());
        }
        waits.recv().unwrap();
        (403, String::new())
    });
    let origin = format!("http://{address}");
    set_url(&node, format!("{origin}/wrong/{{key}}")).await;
    bind(&node, &origin).await;
    let mut halves: Vec<TransactionId> = Vec::new();
    for id in ["m1", "m2", "m3", "m4"] {
        halves.push(prepare(&node, "orders", half(id, id)).await);
    }
    while asked.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    set_url(&node, format!("{origin}/right/{{key}}")).await;
    go_on.send(()).unwrap();
    for transaction in halves {
        until(&node, transaction, |shown| shown.state == TransactionState::Committed).await;
    }
    let paths = paths.lock().unwrap().clone();
    let wrong = paths.iter().filter(|path| path.starts_with("/wrong/")).count();
    assert_eq!((wrong, paths.len() - wrong), (1, 4), "{paths:?}");
    node.stop().await;
}

/// The binding stands, and says why it cannot be asked; what its component said before can still be read.
#[tokio::test]
async fn a_value_that_is_of_no_use_silences_its_bindings_until_it_is_mended_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", r#"{"type":"transaction","transaction":{"immunity":"50ms","interval":"100ms"}}"#).await;
    let (address, _) = order_service(|_| (200, String::new()));
    let url = format!("http://{address}/{{key}}");
    set_url(&node, url.clone()).await;
    bind(&node, &format!("http://{address}")).await;
    let first = prepare(&node, "orders", half("m1", "x")).await;
    until(&node, first, |shown| shown.state == TransactionState::Committed).await;
    let said = node.components.binding_log("orders").await.unwrap().1.recent_logs();
    assert!(!said.is_empty());

    let no_text = SecretValue::new(vec![0xff]).unwrap();
    let (_, warnings) = node.secrets.set("orders-url", no_text, Expect::Anything).await.unwrap();
    assert!(matches!(&warnings[..], [told] if told.contains("no text") && told.contains("orders")), "{warnings:?}");
    let second = prepare(&node, "orders", half("m2", "x")).await;
    let shown = until(&node, second, |shown| shown.last_error.is_some()).await;
    assert!(shown.last_error.unwrap().text.contains("secret orders-url is no text"));
    assert_eq!((shown.checks, shown.state), (0, TransactionState::Open), "nothing is counted");
    let then = node.components.binding_log("orders").await.unwrap().1.recent_logs();
    assert!(then.starts_with(&said), "{then:?}");
    set_url(&node, url).await;
    until(&node, second, |shown| shown.state == TransactionState::Committed).await;
    node.stop().await;
}
