//! Calls that run alone with their keys, since others changed too often what they had read: who waits for them, and who does not.

use vouch_node::{Node, PluginUpload};

use crate::common::gate::Gate;
use crate::common::{message, send, start, topic};
use crate::scripts::{Says, Script};
use crate::{all_is_done, bind, counts, kept, wait_until, waiting};

/// How often a call is stale side by side with others.
const SIDE_BY_SIDE: u64 = 3;

/// A binding of this name that consumes the topic of this name with a component, and keeps in the namespace `shared`.
async fn keeps_beside_others(node: &Node, name: &str, wasm: bytes::Bytes, grants: Option<&Gate>) {
    topic(node, name, "{}").await;
    let upload = PluginUpload { name: name.to_owned(), tag: "1.0".to_owned(), wasm, expected: None };
    node.components.upload(upload).await.unwrap();
    let http: Vec<String> = grants.map(|gate| format!("http://{}", gate.address)).into_iter().collect();
    let spec = serde_json::json!({
        "plugin": format!("{name}:1.0"), "groups": [name], "subscriptions": {name: "*"}, "unchecked": true,
        "grants": {"state": "shared", "http": http}, "limits": {"deadline": "60s", "concurrency": 4},
    });
    bind(node, name, spec).await;
}

/// A node where `slow` reads `contested`, waits for the service, and writes `contested` and `slow`; `quick` writes `contested` and
/// counts; `apart` counts under a key that nobody else has.
async fn contested(folder: &std::path::Path, gate: &Gate) -> Node {
    let node = start(folder).await;
    let slow = Script::new().look("contested").ask(&gate.address.to_string()).set("contested", "slow", None);
    keeps_beside_others(&node, "slow", slow.set("slow", "1", None).asking(), Some(gate)).await;
    let quick = Script::new().set("contested", "quick", None).says(Says::Done);
    keeps_beside_others(&node, "quick", quick, None).await;
    let other = Script::new().look("apart").set("apart", "1", None).says(Says::Done);
    keeps_beside_others(&node, "apart", other, None).await;
    node
}

/// Lets `slow` run until it is alone with its keys, and waits for the service.
async fn until_it_is_alone(node: &Node, gate: &Gate) {
    send(node, "slow", message("m", "x")).await;
    for run in 1..=SIDE_BY_SIDE {
        let number = usize::try_from(run).unwrap();
        wait_until("it has read, and waits", || async { gate.asked() == number }).await;
        send(node, "quick", message(&run.to_string(), "x")).await;
        all_is_done(node, "quick").await;
        gate.answer(number);
        wait_until("it was stale", || async { counts(node, "slow").stale == run }).await;
    }
    wait_until("it runs once more, and waits", || async { gate.asked() as u64 == SIDE_BY_SIDE + 1 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_runs_alone_holds_its_keys_against_those_who_write_them_and_no_others() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), Gate::begin());
    let node = contested(folder.path(), &gate).await;
    until_it_is_alone(&node, &gate).await;
    // Two counters of one namespace do not wait for each other.
    for n in 0..5 {
        send(&node, "apart", message(&n.to_string(), "x")).await;
    }
    all_is_done(&node, "apart").await;
    wait_until("all are counted", || async {
        eprintln!("{:?}", counts(&node, "apart"));
        counts(&node, "apart").ack == 5
    })
    .await;
    // Who writes what it read is told at once that it has to wait, and does.
    send(&node, "quick", message("beside", "x")).await;
    wait_until("it is kept out", || async { counts(&node, "quick").stale == 1 }).await;
    assert_eq!((waiting(&node, "quick").await, waiting(&node, "slow").await), (1, 1));
    assert_eq!(kept(&node, "slow").await["contested"], "quick", "the last one that was before it");
    gate.open_from(1);
    for name in ["slow", "quick"] {
        all_is_done(&node, name).await;
    }
    wait_until("it is counted", || async { counts(&node, "slow").ack == 1 }).await;
    assert_eq!((gate.asked() as u64, counts(&node, "slow").stale), (SIDE_BY_SIDE + 1, SIDE_BY_SIDE), "not stale again");
    assert_eq!(counts(&node, "quick").stale, 1, "it had its turn");
    let kept = kept(&node, "slow").await;
    assert_eq!((kept["contested"].as_str(), kept["slow"].as_str()), ("quick", "1"), "one after the other");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_ended_while_it_is_alone_leaves_its_keys_to_the_others() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), Gate::begin());
    let node = contested(folder.path(), &gate).await;
    until_it_is_alone(&node, &gate).await;
    send(&node, "quick", message("beside", "x")).await;
    wait_until("it is kept out", || async { counts(&node, "quick").stale == 1 }).await;
    // Its call ends when it is answered, and nothing of it happens: its binding is gone.
    node.components.delete_binding("slow").await.unwrap();
    gate.open_from(1);
    all_is_done(&node, "quick").await;
    let kept = kept(&node, "quick").await;
    assert_eq!((kept["contested"].as_str(), kept.get("slow")), ("quick", None));
    node.stop().await;
}
