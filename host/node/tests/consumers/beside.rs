//! Bindings that consume beside others and with limits: clients in the same group, what is set or deleted meanwhile, a rate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vouch_broker::record::{Frame, Record};
use vouch_broker::{NewMessage, ResourceName, TagFilter};
use vouch_commitlog::{LogFolder, LogPosition};
use vouch_node::{Declaration, Node, ReceiveRequest, SessionRole};

use crate::common::checking::order_service;
use crate::common::{message, receive, receive_now, send, start, topic};
use crate::{Handed, all_is_done, bind, counts, dead_letters, group, push, push_to, wait_until, waiting};

fn tagged(id: &str, tag: &str) -> NewMessage {
    NewMessage { tag: Some(tag.to_owned()), ..message(id, "x") }
}

/// What a client of the group that wants `b` gets now; all of it is done then.
async fn client_gets(node: &Node, wait: Duration) -> Vec<String> {
    let mut got = Vec::new();
    loop {
        node.sessions.heard("client", Instant::now());
        let request = ReceiveRequest {
            client_id: "client".to_owned(),
            filter: TagFilter::tags(["b"]),
            wait,
            ..receive("orders", "shipping")
        };
        let batch = node.messages.receive(request).await.unwrap();
        if batch.is_empty() {
            got.sort();
            return got;
        }
        let handles: Vec<_> = batch.iter().map(|delivery| delivery.handle).collect();
        assert!(node.messages.ack(&handles).await.unwrap().iter().all(Result::is_ok));
        got.extend(batch.into_iter().map(|delivery| delivery.message.message.message_id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_and_a_client_in_one_group_get_each_what_they_want_also_while_the_binding_pauses() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", "{}").await;
    let handed = Handed::default();
    let note = handed.clone();
    let (address, _) = order_service(move |path| {
        note.note(path);
        (200, String::new())
    });
    push(&node, "http-push").await;
    let spec = serde_json::json!({
        "plugin": "http-push:1.0", "groups": ["shipping"], "subscriptions": {"orders": "a"},
        "grants": {"http": [format!("http://{address}")]}, "config": {"url": format!("http://{address}/{{key}}")},
        "unchecked": true,
    });
    bind(&node, "shipping", spec).await;
    let orders = ResourceName::plain("orders");
    let declared = Declaration {
        role: SessionRole::PushConsumer,
        topics: vec![],
        group: Some(ResourceName::plain("shipping")),
        subscriptions: vec![(orders, TagFilter::tags(["b"]))],
    };
    node.sessions.declare("client", declared, Instant::now()).unwrap();
    let send_some = async |of: &str| {
        for n in 0..10 {
            for tag in ["a", "b", "c"] {
                send(&node, "orders", tagged(&format!("{of}-{tag}-{n}"), tag)).await;
            }
        }
    };
    let of = |of: &str| (0..10).map(|n| format!("{of}-b-{n}")).collect::<Vec<_>>();
    send_some("first").await;
    assert_eq!(client_gets(&node, Duration::from_millis(500)).await, of("first"));
    all_is_done(&node, "shipping").await;
    assert_eq!(handed.total(), 10);
    node.components.pause_binding("shipping", true).await.unwrap();
    wait_until("nothing is under way", || async {
        node.components.consumer_standings().iter().all(|(_, standing)| standing.in_flight == 0)
    })
    .await;
    send_some("paused").await;
    assert_eq!(client_gets(&node, Duration::from_millis(500)).await, of("paused"), "the others are not kept back");
    assert_eq!(handed.total(), 10);
    node.components.pause_binding("shipping", false).await.unwrap();
    all_is_done(&node, "shipping").await;
    assert_eq!(handed.total(), 20, "nothing was skipped while it paused");
    assert!((0..10).all(|n| handed.times(&format!("key-paused-a-{n}")) == 1));
    assert_eq!(client_gets(&node, Duration::ZERO).await, Vec::<String>::new());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_spreads_deliveries_over_time() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", "{}").await;
    let came = Arc::<Mutex<Vec<Instant>>>::default();
    let note = came.clone();
    let (address, _) = order_service(move |_| {
        note.lock().unwrap().push(Instant::now());
        (200, String::new())
    });
    for n in 0..3 {
        send(&node, "orders", message(&n.to_string(), "x")).await;
    }
    push(&node, "http-push").await;
    let spec = serde_json::json!({
        "plugin": "http-push:1.0", "groups": ["shipping"], "subscriptions": {"orders": "*"}, "limits": {"rate": 1},
        "grants": {"http": [format!("http://{address}")]}, "config": {"url": format!("http://{address}/{{key}}")},
        "unchecked": true,
    });
    bind(&node, "shipping", spec).await;
    all_is_done(&node, "shipping").await;
    let came = came.lock().unwrap().clone();
    assert_eq!(came.len(), 3);
    // What one waits for is its turn; the call itself may take longer or shorter.
    assert!(came[2] - came[0] >= Duration::from_secs(1), "{:?}", came[2] - came[0]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_subscriptions_than_deliveries_at_once_are_all_served_with_a_rate_and_without() {
    for limits in [serde_json::json!({"concurrency": 1}), serde_json::json!({"concurrency": 1, "rate": 100})] {
        let folder = tempfile::tempdir().unwrap();
        let node = start(folder.path()).await;
        let topics: Vec<String> = (0..4).map(|n| format!("topic-{n}")).collect();
        for name in &topics {
            topic(&node, name, "{}").await;
        }
        let handed = Handed::default();
        let note = handed.clone();
        let (address, _) = order_service(move |path| {
            note.note(path);
            (200, String::new())
        });
        push(&node, "http-push").await;
        let subscriptions: serde_json::Map<_, _> = topics.iter().map(|name| (name.clone(), "*".into())).collect();
        let spec = serde_json::json!({
            "plugin": "http-push:1.0", "groups": ["g1", "g2"], "subscriptions": subscriptions, "limits": limits,
            "grants": {"http": [format!("http://{address}")]}, "config": {"url": format!("http://{address}/{{key}}")},
            "unchecked": true,
        });
        bind(&node, "shipping", spec).await;
        for name in &topics {
            for n in 0..2 {
                send(&node, name, message(&format!("{name}-{n}"), "x")).await;
            }
        }
        all_is_done(&node, "shipping").await;
        // Each group gets each of them.
        assert_eq!(handed.total(), 2 * 8);
        assert!(topics.iter().all(|name| (0..2).all(|n| handed.times(&format!("key-{name}-{n}")) == 2)));
        // While all wait, whoever waits lets the others look soon.
        for name in [&topics[3], &topics[0], &topics[2]] {
            send(&node, name, message(&format!("{name}-alone"), "x")).await;
            all_is_done(&node, "shipping").await;
            assert_eq!(handed.times(&format!("key-{name}-alone")), 2);
        }
        node.stop().await;
    }
}

/// A service that answers nobody until it is let, and notes what it was asked.
fn hanging() -> (std::net::SocketAddr, Handed, Arc<AtomicBool>) {
    let (handed, goes_on) = (Handed::default(), Arc::<AtomicBool>::default());
    let (note, is_let) = (handed.clone(), goes_on.clone());
    let (address, _) = order_service(move |path| {
        note.note(path);
        while !is_let.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        (200, String::new())
    });
    (address, handed, goes_on)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_is_set_anew_ends_what_it_has_and_what_comes_then_is_the_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", "{}").await;
    let (address, handed, goes_on) = hanging();
    push_to(&node, address).await;
    send(&node, "orders", message("before", "x")).await;
    wait_until("it is delivered", || async { handed.total() == 1 }).await;
    let spec = serde_json::json!({
        "plugin": "http-push:1.0", "groups": ["shipping"], "subscriptions": {"orders": "*"},
        "grants": {"http": [format!("http://{address}")]},
        "config": {"url": format!("http://{address}/anew/{{key}}")},
        "limits": {"deadline": "10s", "concurrency": 2}, "unchecked": true,
    });
    bind(&node, "shipping", spec).await;
    send(&node, "orders", message("after", "x")).await;
    goes_on.store(true, Ordering::SeqCst);
    all_is_done(&node, "shipping").await;
    assert_eq!((handed.times("key-before"), handed.times("anew/key-after")), (1, 1));
    assert_eq!(handed.total(), 2, "nothing twice");
    wait_until("both are counted", || async { counts(&node, "shipping").ack == 2 }).await;
    assert_eq!((counts(&node, "shipping").late, dead_letters(&node).await), (0, 0));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_is_deleted_and_set_again_while_it_delivers_delivers_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", "{}").await;
    let (address, handed, goes_on) = hanging();
    push_to(&node, address).await;
    send(&node, "orders", message("m", "x")).await;
    wait_until("it is delivered", || async { handed.total() == 1 }).await;
    node.components.delete_binding("shipping").await.unwrap();
    assert!(node.components.waiting("shipping").await.unwrap().is_none(), "it is gone");
    push_to(&node, address).await;
    assert_eq!(waiting(&node, "shipping").await, 1, "its group is where it was");
    goes_on.store(true, Ordering::SeqCst);
    all_is_done(&node, "shipping").await;
    send(&node, "orders", message("next", "x")).await;
    all_is_done(&node, "shipping").await;
    assert_eq!((handed.times("key-m"), handed.times("key-next")), (1, 1));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_has_no_more_in_hand_than_it_may_deliver_at_once_and_the_rest_is_for_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", "{}").await;
    let (address, _, goes_on) = hanging();
    // Two at once.
    push_to(&node, address).await;
    for n in 0..10 {
        send(&node, "orders", message(&n.to_string(), "x")).await;
    }
    let in_flight =
        || node.components.consumer_standings().iter().map(|(_, standing)| standing.in_flight).sum::<usize>();
    wait_until("two are under way", || async { in_flight() == 2 }).await;
    let others = receive_now(&node, "orders", "shipping").await;
    assert_eq!((others.len(), in_flight()), (8, 2));
    assert!(others.iter().all(|delivery| delivery.attempt == 1));
    let handles: Vec<_> = others.iter().map(|delivery| delivery.handle).collect();
    assert!(node.messages.ack(&handles).await.unwrap().iter().all(Result::is_ok));
    assert_eq!(waiting(&node, "shipping").await, 2);
    goes_on.store(true, Ordering::SeqCst);
    all_is_done(&node, "shipping").await;
    wait_until("both are counted", || async { counts(&node, "shipping").ack == 2 }).await;
    assert_eq!(in_flight(), 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_taken_out_and_put_back_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    let handed = Handed::default();
    let note = handed.clone();
    let (address, _) = order_service(move |path| {
        note.note(path);
        (200, String::new())
    });
    for name in ["orders", "returns"] {
        topic(&node, name, "{}").await;
    }
    push(&node, "http-push").await;
    let subscribe = async |subscriptions: serde_json::Value| {
        let spec = serde_json::json!({
            "plugin": "http-push:1.0", "groups": ["shipping"], "subscriptions": subscriptions,
            "grants": {"http": [format!("http://{address}")]}, "config": {"url": format!("http://{address}/{{key}}")},
            "unchecked": true,
        });
        bind(&node, "shipping", spec).await
    };
    let both = serde_json::json!({"orders": "*", "returns": "*"});
    subscribe(both.clone()).await;
    let send_both = async |id: &str| {
        for name in ["orders", "returns"] {
            send(&node, name, message(&format!("{name}-{id}"), "x")).await;
        }
    };
    send_both("1").await;
    all_is_done(&node, "shipping").await;
    assert_eq!(handed.total(), 2);
    assert_eq!(subscribe(serde_json::json!({"orders": "*"})).await.waiting, Some(0));
    send_both("2").await;
    all_is_done(&node, "shipping").await;
    assert_eq!((handed.times("key-orders-2"), handed.times("key-returns-2")), (1, 0), "nobody wants those");
    assert_eq!(subscribe(both).await.waiting, Some(1), "and they are there when somebody does");
    all_is_done(&node, "shipping").await;
    assert_eq!((handed.times("key-returns-2"), handed.total()), (1, 4), "nothing twice");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_while_a_binding_pauses_counts_nothing_even_if_the_pause_never_ends() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    topic(&node, "orders", "{}").await;
    group(&node, r#"{"max_attempts":20,"backoff":["60s"]}"#).await;
    let (address, _) = order_service(|_| (503, String::new()));
    push_to(&node, address).await;
    for n in 0..20 {
        send(&node, "orders", message(&n.to_string(), "x")).await;
    }
    // Ten that fail, those beside the tenth, and a probe a second later: all before that is in the log.
    wait_until("it fails, pauses and is probed", || async { counts(&node, "shipping").retry >= 13 }).await;
    node.stop().await;
    // Whoever leads next finds the attempts that are in the log.
    let log = LogFolder::open(&folder.path().join("shards/0/log")).unwrap();
    let (mut counted, mut given_back) = (0, 0);
    for entry in log.entries(LogPosition(0), LogPosition::BEYOND).unwrap() {
        let entry = entry.unwrap();
        let mut rest = &entry.payload[..];
        while !rest.is_empty() {
            let (frame, behind) = Frame::split(rest).unwrap();
            match Record::decode(&frame).unwrap() {
                Record::ChangeInvisible(change) => counted += u32::from(!change.uncounted),
                Record::GiveBack(back) => given_back += back.attempts,
                _ => {}
            }
            rest = behind;
        }
    }
    assert_eq!((counted, given_back), (9, 9), "nine came before the pause, and are given back");
}
