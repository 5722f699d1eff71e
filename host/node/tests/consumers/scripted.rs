//! Components that do what a test says: what they stage happens once, with an answer that is recorded, and else not at all.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use vouch_broker::TransactionId;
use vouch_node::{Expect, Node, PluginUpload, SampleHalf, TransactionState};

use crate::common::checking::until;
use crate::common::{half, message, prepare, receive, receive_now, send, start, topic};
use crate::scripts::{Says, Script, Written};
use crate::{all_is_done, as_consumer, bind, bodies, counts, kept, stock, wait_until};

/// Asked again each 100 ms where no answer came, each second where nobody knew; three times, then parked.
const CHECKED: &str = r#"{"type":"transaction","transaction":{"immunity":"100ms","interval":"100ms","max_checks":3}}"#;

/// Adds one to the number `n`, whatever it is, and traps if that is not taken.
pub(crate) const COUNTS: &str = r"(i32.store8 (i32.const 30000) (i32.const 110))
    (call $add (i32.const 30000) (i32.const 1) (i64.const 1) (i32.const 2048))
    (if (i32.load8_u (i32.const 2048)) (then unreachable))";

/// Computes for a second or more.
const TAKES_ITS_TIME: &str = r"(i64.store (i32.const 30008) (i64.const 1000000000))
    (loop $on (i64.store (i32.const 30008) (i64.sub (i64.load (i32.const 30008)) (i64.const 1)))
        (br_if $on (i64.ne (i64.load (i32.const 30008)) (i64.const 0))))";

/// Counts, and publishes a message to `audit` whose id it says.
fn counts_and_publishes() -> Script {
    Script::new().raw(COUNTS).publish(&Written { topic: "audit", body: 3, ..Written::default() })
}

pub(crate) async fn push(node: &Node, script: Script, says: Says<'_>) {
    let upload =
        PluginUpload { name: "script".to_owned(), tag: "1.0".to_owned(), wasm: script.says(says), expected: None };
    node.components.upload(upload).await.unwrap();
}

/// A node with the topics `orders` and `audit`, and this component bound for checks of the first.
async fn checking(folder: &std::path::Path, says: Says<'_>) -> Node {
    let node = start(folder).await;
    topic(&node, "orders", CHECKED).await;
    topic(&node, "audit", "{}").await;
    push(&node, counts_and_publishes(), says).await;
    let spec = serde_json::json!({
        "plugin": "script:1.0", "topics": ["orders"], "grants": {"state": true, "publish": ["audit"]}, "unchecked": true,
    });
    bind(&node, "checks", spec).await;
    node
}

/// A binding that consumes `goods` with a component that does this; what it publishes goes to `audit`.
pub(crate) async fn consuming(node: &Node, script: Script, says: Says<'_>, limits: serde_json::Value) {
    topic(node, "goods", "{}").await;
    topic(node, "audit", "{}").await;
    push(node, script, says).await;
    let spec = serde_json::json!({
        "plugin": "script:1.0", "groups": ["stock"], "subscriptions": {"goods": "*"}, "limits": limits,
        "grants": {"state": true, "publish": ["audit"]}, "unchecked": true,
    });
    bind(node, "stock", spec).await;
}

/// Ids of all messages of a topic, for a group that was not there before.
pub(crate) async fn ids(node: &Node, topic: &str, group: &str) -> Vec<String> {
    receive_now(node, topic, group).await.into_iter().map(|delivery| delivery.message.message.message_id).collect()
}

/// What a binding said so far.
pub(crate) async fn said(node: &Node, binding: &str) -> Vec<String> {
    let Some((_, binding)) = node.components.binding_log(binding).await else { return Vec::new() };
    binding.recent_logs().into_iter().map(|line| line.text).collect()
}

async fn is_as(node: &Node, transaction: TransactionId, wanted: TransactionState) {
    until(node, transaction, |view| view.state == wanted).await;
}

pub(crate) async fn last_error(node: &Node, binding: &str) -> Option<String> {
    let standings = node.components.consumer_standings();
    standings.into_iter().find(|(name, _)| name == binding).and_then(|(_, standing)| standing.last_error)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_check_stages_happens_once_with_the_end_that_it_says() {
    for (says, ends, delivered) in
        [(Says::Done, TransactionState::Committed, 2), (Says::Second("no"), TransactionState::RolledBack, 0)]
    {
        let folder = tempfile::tempdir().unwrap();
        let node = checking(folder.path(), says).await;
        let asked = [prepare(&node, "orders", half("1", "x")).await, prepare(&node, "orders", half("2", "x")).await];
        for transaction in asked {
            is_as(&node, transaction, ends).await;
        }
        let published: BTreeSet<String> = ids(&node, "audit", "looks").await.into_iter().collect();
        assert_eq!((published.len(), kept(&node, "checks").await["n"].as_str()), (2, "2"), "each once");
        assert_eq!(published, said(&node, "checks").await.into_iter().collect(), "under the ids that it was told");
        assert_eq!(ids(&node, "orders", "looks").await.len(), delivered);
        node.stop().await;
        // What happened is in the log, and nothing of it happens again.
        let node = start(folder.path()).await;
        assert_eq!(kept(&node, "checks").await["n"], "2");
        assert_eq!(ids(&node, "audit", "looks-again").await.len(), 2);
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_check_that_does_not_know_stages_once_under_ids_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let node = checking(folder.path(), Says::Third("perhaps")).await;
    let asked = prepare(&node, "orders", half("1", "x")).await;
    is_as(&node, asked, TransactionState::Parked).await;
    let published = ids(&node, "audit", "looks").await;
    assert_eq!((published.len(), kept(&node, "checks").await["n"].as_str()), (3, "3"), "three checks, each once");
    assert_eq!(published.iter().collect::<BTreeSet<_>>().len(), 3, "{published:?}");
    assert!(ids(&node, "orders", "looks").await.is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_without_an_answer_stages_nothing_and_has_the_same_ids_when_it_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let node = checking(folder.path(), Says::Err("the service is away")).await;
    let (one, other) = (prepare(&node, "orders", half("1", "x")).await, prepare(&node, "orders", half("2", "x")).await);
    wait_until("they are asked several times", || async { said(&node, "checks").await.len() >= 6 }).await;
    let told = said(&node, "checks").await;
    assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), 2, "one id for each transaction: {told:?}");
    for transaction in [one, other] {
        let view = node.transactions.get(transaction).await.unwrap();
        assert_eq!((view.state, view.checks), (TransactionState::Open, 0), "{view:?}");
    }
    assert!(kept(&node, "checks").await.is_empty());
    assert!(ids(&node, "audit", "looks").await.is_empty());
    // Set anew with a component that knows, it publishes under these ids: it is the same life, and the same check.
    push_over(&node, Says::Done).await;
    for transaction in [one, other] {
        is_as(&node, transaction, TransactionState::Committed).await;
    }
    let published: BTreeSet<String> = ids(&node, "audit", "looks").await.into_iter().collect();
    assert_eq!(published, told.into_iter().collect());
    assert_eq!(kept(&node, "checks").await["n"], "2");
    node.stop().await;
}

/// Sets the binding of checks again, with a component that says this.
async fn push_over(node: &Node, says: Says<'_>) {
    let wasm = counts_and_publishes().says(says);
    let upload = PluginUpload { name: "script".to_owned(), tag: "2.0".to_owned(), wasm, expected: None };
    node.components.upload(upload).await.unwrap();
    let spec = serde_json::json!({
        "plugin": "script:2.0", "topics": ["orders"], "grants": {"state": true, "publish": ["audit"]}, "unchecked": true,
    });
    bind(node, "checks", spec).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_about_several_transactions_stages_nothing_and_one_about_a_single_one_does() {
    const TRANSACTIONS: usize = 30;
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", CHECKED).await;
    topic(&node, "audit", "{}").await;
    // What is refused it does without.
    let add = "(call $add (i32.const 30000) (i32.const 1) (i64.const 1) (i32.const 2048))";
    let script = Script::new().raw("(i32.store8 (i32.const 30000) (i32.const 110))").raw(add);
    let wasm = script.publish(&Written { topic: "audit", body: 1, ..Written::default() }).with_batches();
    let upload = PluginUpload { name: "script".to_owned(), tag: "1.0".to_owned(), wasm, expected: None };
    node.components.upload(upload).await.unwrap();
    let mut asked = Vec::new();
    for n in 0..TRANSACTIONS {
        asked.push(prepare(&node, "orders", half(&n.to_string(), "x")).await);
    }
    // They are due, and wait together.
    let spec = serde_json::json!({
        "plugin": "script:1.0", "topics": ["orders"], "grants": {"state": true, "publish": ["audit"]},
        "limits": {"concurrency": 1}, "unchecked": true,
    });
    bind(&node, "checks", spec).await;
    for transaction in asked {
        is_as(&node, transaction, TransactionState::Committed).await;
    }
    let published = ids(&node, "audit", "looks").await;
    let told = said(&node, "checks").await;
    let (with_id, refused): (Vec<&String>, Vec<&String>) = told.iter().partition(|line| line.starts_with("01"));
    assert!(
        refused.iter().all(|line| line.contains("a call about several transactions stages nothing")),
        "{refused:?}"
    );
    assert!(published.iter().all(|id| with_id.contains(&id)) && published.len() <= TRANSACTIONS, "{published:?}");
    let counted = kept(&node, "checks").await.get("n").map_or(0, |n| n.parse::<usize>().unwrap());
    assert_eq!(counted, published.len(), "both, or neither");
    node.stop().await;
}

/// How often a binding's answers were counted as a commit, and how often it gave none.
fn check_counts(node: &Node) -> (u64, u64) {
    let counts = *node.metrics.checks.counts().of("checks".to_owned());
    (counts.commit, counts.no_answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_keeps_more_than_there_is_room_for_is_no_answer_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", CHECKED).await;
    let script = Script::new().raw(COUNTS).set_zeros("large", 2000);
    push(&node, script, Says::Done).await;
    let bind_with = async |room: &str| {
        let spec = serde_json::json!({
            "plugin": "script:1.0", "topics": ["orders"], "grants": {"state": true}, "limits": {"state": room},
            "unchecked": true,
        });
        bind(&node, "checks", spec).await
    };
    bind_with("1KiB").await;
    let asked = prepare(&node, "orders", half("1", "x")).await;
    let view = until(&node, asked, |view| view.last_error.is_some()).await;
    let error = view.last_error.unwrap();
    assert!(error.text.contains("limits.state"), "{error:?}");
    wait_until("it is asked again", || async { check_counts(&node).1 >= 3 }).await;
    let view = node.transactions.get(asked).await.unwrap();
    assert_eq!((view.state, view.checks, check_counts(&node).0), (TransactionState::Open, 0, 0));
    assert!(kept(&node, "checks").await.is_empty());
    bind_with("1MiB").await;
    is_as(&node, asked, TransactionState::Committed).await;
    wait_until("it is counted", || async { check_counts(&node).0 == 1 }).await;
    assert_eq!(kept(&node, "checks").await["n"], "1");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_whose_topic_is_deleted_while_it_runs_is_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", CHECKED).await;
    topic(&node, "audit", "{}").await;
    let fails = "(if (i32.load8_u (i32.const 2048)) (then unreachable))";
    push(&node, counts_and_publishes().raw(fails).raw(TAKES_ITS_TIME), Says::Done).await;
    let spec = serde_json::json!({
        "plugin": "script:1.0", "topics": ["orders"], "grants": {"state": true, "publish": ["audit"]},
        "limits": {"deadline": "60s"}, "unchecked": true,
    });
    bind(&node, "checks", spec).await;
    let asked = prepare(&node, "orders", half("1", "x")).await;
    wait_until("it has published", || async { !said(&node, "checks").await.is_empty() }).await;
    node.settings.delete_topic("audit", true).await.unwrap();
    // The first is refused where it is recorded, and the next ones are told so while they run.
    wait_until("it gave no answer", || async { check_counts(&node).1 >= 2 }).await;
    let view = node.transactions.get(asked).await.unwrap();
    assert_eq!((view.state, view.checks), (TransactionState::Open, 0), "{view:?}");
    assert!(view.last_error.is_some());
    assert_eq!(check_counts(&node).0, 0, "what was not recorded is not counted as said");
    assert!(kept(&node, "checks").await.is_empty());
    topic(&node, "audit", "{}").await;
    is_as(&node, asked, TransactionState::Committed).await;
    wait_until("it is counted", || async { check_counts(&node).0 == 1 }).await;
    let published: BTreeSet<String> = ids(&node, "audit", "looks").await.into_iter().collect();
    assert_eq!(published.len(), 1);
    assert!(said(&node, "checks").await.iter().any(|line| published.contains(line)), "under its id");
    assert_eq!(kept(&node, "checks").await["n"], "1");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_rejected_stages_and_one_that_is_to_be_tried_again_does_not() {
    for (says, dead, staged) in
        [(Says::Third("no good"), 1, 1), (Says::Second("later"), 1, 0), (Says::Err("ill"), 1, 0)]
    {
        let folder = tempfile::tempdir().unwrap();
        let node = start(folder.path()).await;
        let config = serde_json::from_str(r#"{"max_attempts":2,"backoff":["0s"]}"#).unwrap();
        node.settings.put_group("stock", config, Expect::Anything).await.unwrap();
        consuming(&node, counts_and_publishes(), says, serde_json::json!({})).await;
        send(&node, "goods", message("m", "x")).await;
        // Of its last delivery nobody knows whose fault it is, until another message succeeds or it alone failed ten times.
        if staged == 0 {
            wait_until("it was delivered twice", || async {
                let counts = counts(&node, "stock");
                counts.retry + counts.failed >= 2
            })
            .await;
            let told: Vec<String> = said(&node, "stock").await;
            assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), 1, "deliveries of a message are one call: {told:?}");
        } else {
            all_is_done(&node, "stock").await;
            assert_eq!(ids(&node, "%DLQ%stock", "looks").await.len(), dead);
        }
        assert_eq!(kept(&node, "stock").await.len(), staged);
        assert_eq!(ids(&node, "audit", "looks").await.len(), staged);
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_binding_answers_that_was_deleted_meanwhile_is_late_and_another_member_gets_the_message() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    let script = counts_and_publishes().raw(TAKES_ITS_TIME);
    consuming(&node, script, Says::Done, serde_json::json!({"deadline": "60s"})).await;
    send(&node, "goods", message("m", "x")).await;
    wait_until("it works at it", || async { !said(&node, "stock").await.is_empty() }).await;
    node.components.delete_binding("stock").await.unwrap();
    // Long before the lease of the binding that is gone is over.
    let began = Instant::now();
    let received = loop {
        let received = node.messages.receive(receive("goods", "stock")).await.unwrap();
        if !received.is_empty() {
            break received;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nobody else gets it");
    };
    assert_eq!((received.len(), received[0].attempt), (1, 1), "what was late did not count");
    assert_eq!(counts(&node, "stock").late, 1);
    assert!(node.messages.ack(&[received[0].handle]).await.unwrap().iter().all(Result::is_ok));
    assert!(ids(&node, "audit", "looks").await.is_empty());
    // Neither does a binding of the same name find something there.
    let spec = serde_json::json!({
        "plugin": "script:1.0", "groups": ["stock"], "subscriptions": {"goods": "*"}, "grants": {"state": true},
        "unchecked": true,
    });
    bind(&node, "stock", spec).await;
    assert!(kept(&node, "stock").await.is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_keeps_more_than_there_is_room_for_fails_and_nothing_of_it_happens() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    let script = Script::new().set("small", "1", None).set_zeros("large", 2000).publish(&Written {
        topic: "audit",
        body: 1,
        ..Written::default()
    });
    consuming(&node, script, Says::Done, serde_json::json!({"state": "1KiB"})).await;
    send(&node, "goods", message("m", "x")).await;
    wait_until("it failed", || async { counts(&node, "stock").failed >= 1 }).await;
    let error = last_error(&node, "stock").await.unwrap();
    assert!(error.contains("limits.state"), "{error}");
    assert!(kept(&node, "stock").await.is_empty());
    assert!(ids(&node, "audit", "looks").await.is_empty());
    assert_eq!(counts(&node, "stock").ack, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_writes_more_than_its_effects_rate_waits_with_its_next_deliveries() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    let script = Script::new().publish(&Written { topic: "audit", body: 48 << 10, ..Written::default() });
    consuming(&node, script, Says::Done, serde_json::json!({"effects_rate": "64KiB", "concurrency": 1})).await;
    let began = Instant::now();
    for n in 0..6 {
        send(&node, "goods", message(&n.to_string(), "x")).await;
    }
    all_is_done(&node, "stock").await;
    // More than four times what a second may have, of which one second's is free, and the last one is not waited for.
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert_eq!(ids(&node, "audit", "looks").await.len(), 6);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_whose_topic_is_deleted_while_it_runs_fails_and_succeeds_when_there_is_one_again() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    let config = serde_json::from_str(r#"{"backoff":["2s"]}"#).unwrap();
    node.settings.put_group("stock", config, Expect::Anything).await.unwrap();
    let script = counts_and_publishes().raw(TAKES_ITS_TIME);
    consuming(&node, script, Says::Done, serde_json::json!({"deadline": "60s"})).await;
    send(&node, "goods", message("m", "x")).await;
    wait_until("it has published", || async { !said(&node, "stock").await.is_empty() }).await;
    node.settings.delete_topic("audit", true).await.unwrap();
    wait_until("it failed", || async { counts(&node, "stock").failed == 1 }).await;
    let error = last_error(&node, "stock").await.unwrap();
    assert!(error.contains("audit"), "{error}");
    assert!(kept(&node, "stock").await.is_empty(), "what it kept belongs to what it published");
    topic(&node, "audit", "{}").await;
    all_is_done(&node, "stock").await;
    let told = said(&node, "stock").await;
    // A run that began while there was no topic was told so, and answered all the same: it may have kept and not published.
    let published = ids(&node, "audit", "looks").await;
    assert!(published.iter().all(|id| told.contains(id)), "{published:?} {told:?}");
    assert_eq!(kept(&node, "stock").await["n"], "1");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_tried_with_a_delivery_of_which_nothing_stays() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    stock(&node).await;
    bind(&node, "stock", as_consumer()).await;
    let trial = node.components.try_binding("stock", SampleHalf::default()).await.unwrap();
    let [call] = &trial.calls[..] else { panic!("{trial:?}") };
    assert_eq!((call.asked_as, call.answer), ("delivery", "reject"), "{call:?}");
    assert!(call.reason.contains("the body is no"), "{call:?}");
    let order = r#"{"topic":"orders","body":"{\"order\":\"1\",\"items\":[{\"sku\":\"cup\",\"quantity\":1}]}"}"#;
    let goods = r#"{"topic":"goods","body":"{\"sku\":\"cup\",\"quantity\":7}"}"#;
    for (half, asks_for) in [(goods, "stock:cup"), (order, "stock-short")] {
        let half: SampleHalf = serde_json::from_str(half).unwrap();
        let trial = node.components.try_binding("stock", half).await.unwrap();
        let [call] = &trial.calls[..] else { panic!("{trial:?}") };
        assert_eq!((call.answer, &call.wrong), ("ack", &None), "{call:?}");
        assert!(call.asked_for.iter().any(|asked| asked.contains(asks_for)), "{call:?}");
    }
    assert!(kept(&node, "stock").await.is_empty());
    assert!(bodies(&node, "stock-short", "looks").await.is_empty());
    assert_eq!(counts(&node, "stock").ack, 0, "a trial is no delivery");
    node.stop().await;
}
