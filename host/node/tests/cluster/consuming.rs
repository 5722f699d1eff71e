//! Bindings that consume in a cluster: whoever leads delivers, and what one leader had in hand the next one takes over.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vouch_broker::{GroupConfig, NewMessage, NotDone, ResourceName};
use vouch_node::{DeliveryCounts, Expect, Node, PluginUpload, SendRequest};

use crate::common::{message, receive_now, topic};
use crate::nodes::{Nodes, leads, until};

/// Leases of bindings here last so long: the deadline of a call, and 30 s.
const LEASE: Duration = Duration::from_secs(40);

async fn push(node: &Node, name: &str) {
    let file = format!("{}/../../plugins/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    let wasm = std::fs::read(file).unwrap().into();
    let upload = PluginUpload { name: name.to_owned(), tag: "1.0".to_owned(), wasm, expected: None };
    node.components.upload(upload).await.unwrap();
}

pub(crate) async fn bind(node: &Node, name: &str, spec: serde_json::Value) {
    node.components.put_binding(name, &spec.to_string(), Expect::Anything).await.unwrap();
}

/// Three nodes, a stock keeper, and its topics.
async fn stock_of_three() -> Nodes {
    let nodes = Nodes::three().await;
    let leader = nodes.leader().await;
    for name in ["goods", "payments", "orders", "reservations", "stock-short"] {
        topic(leader, name, "{}").await;
    }
    push(leader, "stock").await;
    let spec = serde_json::json!({
        "plugin": "stock:1.0", "groups": ["stock"],
        "subscriptions": {"goods": "*", "payments": "*", "orders": "*"},
        "grants": {"state": "orders", "publish": ["reservations", "stock-short"]},
        "limits": {"deadline": "10s"},
    });
    bind(leader, "stock", spec).await;
    nodes
}

/// Three nodes, and a binding `shipping` that hands every message of the topic `work` to this service, once if at all.
async fn pushing_of_three(address: SocketAddr) -> Nodes {
    let nodes = Nodes::three().await;
    let leader = nodes.leader().await;
    topic(leader, "work", r#"{"queues":1}"#).await;
    push(leader, "http-push").await;
    let once: GroupConfig = serde_json::from_str(r#"{"max_attempts":1}"#).unwrap();
    leader.settings.put_group("shipping", once, Expect::Anything).await.unwrap();
    let spec = serde_json::json!({
        "plugin": "http-push:1.0", "groups": ["shipping"], "subscriptions": {"work": "*"},
        "grants": {"http": [format!("http://{address}")]},
        "config": {"url": format!("http://{address}/{{key}}")},
        "limits": {"deadline": "10s"}, "unchecked": true,
    });
    bind(leader, "shipping", spec).await;
    nodes
}

/// Sends one through this node until it is stored; sent again it is the same message.
pub(crate) async fn must_send(node: &Node, to: &str, message: NewMessage) {
    until("it is stored", async || {
        let (topic, producer) = (ResourceName::plain(to), "producer-1".to_owned());
        match node.messages.send(SendRequest { topic, producer, messages: vec![message.clone()] }).await {
            Ok(_) => true,
            Err(NotDone::Unknown(_) | NotDone::NothingStored(_)) => false,
            Err(why) => panic!("{why}"),
        }
    })
    .await;
}

async fn must_send_goods(node: &Node, number: usize) {
    let body = serde_json::json!({"sku": "cup", "quantity": 1}).to_string();
    must_send(node, "goods", message(&format!("g{number}"), &body)).await;
}

async fn must_send_order(node: &Node, number: usize) {
    let body = serde_json::json!({"order": number.to_string(), "items": [{"sku": "pot", "quantity": 1}]}).to_string();
    must_send(node, "orders", message(&format!("o{number}"), &body)).await;
}

/// Waits until the leader says that nothing waits for a binding.
async fn all_is_done(nodes: &Nodes, binding: &str) {
    until("all messages are done", async || {
        let leader = nodes.leader().await;
        matches!(leader.components.waiting(binding).await, Ok(Some(0))) && leads(leader).await
    })
    .await;
}

pub(crate) async fn kept(node: &Node) -> BTreeMap<String, String> {
    let page = node.components.kept("stock", (String::new(), None), 1000).await.unwrap();
    page.keys.into_iter().map(|kept| (kept.key, String::from_utf8(kept.value).unwrap())).collect()
}

/// Orders that are announced as reserved, each as often as it is.
async fn reserved(node: &Node) -> Vec<String> {
    let mut orders: Vec<String> = Vec::new();
    for delivery in receive_now(node, "reservations", "looks").await {
        let body: serde_json::Value = serde_json::from_slice(&delivery.message.message.body).unwrap();
        orders.push(body["order"].as_str().unwrap().to_owned());
    }
    orders.sort_unstable_by_key(|order| order.parse::<usize>().unwrap());
    orders
}

/// Goods and orders were counted once each, and by every node alike.
async fn each_is_counted_once(nodes: &Nodes, goods: usize, orders: usize, pots: usize) {
    all_is_done(nodes, "stock").await;
    let leader = nodes.leader().await;
    let expected: Vec<String> = (0..orders).map(|number| number.to_string()).collect();
    assert_eq!(reserved(leader).await, expected, "each is published once");
    assert!(receive_now(leader, "stock-short", "looks").await.is_empty());
    let counted = [("stock:cup", goods), ("stock:pot", pots - orders)];
    let counted: BTreeMap<_, _> = counted.iter().map(|(key, number)| ((*key).to_owned(), number.to_string())).collect();
    for node in &nodes.running {
        until("every node has the same", async || kept(node).await == counted).await;
    }
}

/// Enough pots for all orders.
async fn put_pots(node: &Node, pots: usize) {
    let body = serde_json::json!({"sku": "pot", "quantity": pots}).to_string();
    must_send(node, "goods", message("pots", &body)).await;
    until("they are there", async || kept(node).await.contains_key("stock:pot")).await;
}

pub(crate) fn counts(node: &Node, binding: &str) -> DeliveryCounts {
    *node.metrics.deliveries.counts().of(binding.to_owned())
}

/// Where the leader stands among those that run, and its name.
async fn leads_at(nodes: &Nodes) -> usize {
    let leader = nodes.leader().await;
    nodes.running.iter().position(|node| std::ptr::eq(node, leader)).unwrap()
}

/// Lets another node lead: which one then does.
async fn another_leads(nodes: &Nodes) -> usize {
    let at = leads_at(nodes).await;
    let next = (at + 1) % nodes.running.len();
    let id = nodes.running[next].cluster.status().await.unwrap().group.node;
    until("it leads", async || {
        // Somebody else may have begun to lead meanwhile: then it is asked of that one.
        let _ = nodes.leader().await.cluster.transfer_leader(id).await;
        leads(&nodes.running[next]).await
    })
    .await;
    next
}

/// A service that notes who asked and when; it answers everybody at once but the first, who is answered when it is let.
struct Hanging {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
    goes_on: Arc<AtomicBool>,
}

impl Hanging {
    fn begin() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, goes_on) = (Arc::<Mutex<Vec<(String, Instant)>>>::default(), Arc::<AtomicBool>::default());
        let (note, is_let) = (asked.clone(), goes_on.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let (note, is_let) = (note.clone(), is_let.clone());
                std::thread::spawn(move || {
                    let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
                    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                        match stream.read(&mut buffer) {
                            Ok(0) | Err(_) => return,
                            Ok(read) => request.extend_from_slice(&buffer[..read]),
                        }
                    }
                    let path = String::from_utf8_lossy(&request).split_whitespace().nth(1).unwrap_or("/").to_owned();
                    let is_first = {
                        let mut note = note.lock().unwrap();
                        note.push((path, Instant::now()));
                        note.len() == 1
                    };
                    while is_first && !is_let.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    let _ = stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                });
            }
        });
        Self { address, asked, goes_on }
    }

    /// When each of those came that asked so far.
    fn times(&self) -> Vec<Instant> {
        self.asked.lock().unwrap().iter().map(|(_, at)| *at).collect()
    }

    fn total(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.goes_on.store(true, Ordering::SeqCst);
    }
}

/// How many dead letters the group `shipping` has.
async fn dead_letters(node: &Node) -> usize {
    match node.settings.topic(&ResourceName::plain("%DLQ%shipping")).await {
        Err(_) => 0,
        Ok(_) => receive_now(node, "%DLQ%shipping", "looks").await.len(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_good_counts_once_and_every_reservation_is_published_once_when_the_leader_stops() {
    let mut nodes = stock_of_three().await;
    let at = leads_at(&nodes).await;
    let through = nodes.running[(at + 1) % 3].clone();
    put_pots(&through, 100).await;
    for number in 0..40 {
        must_send_goods(&through, number).await;
        must_send_order(&through, number).await;
    }
    // In the middle of it: not all of them are done.
    let leader = nodes.running.remove(at);
    leader.stop().await;
    for number in 40..60 {
        must_send_goods(&through, number).await;
        must_send_order(&through, number).await;
    }
    each_is_counted_once(&nodes, 60, 60, 100).await;
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn leaders_in_turn_never_both_settle_one_delivery() {
    const ROUNDS: usize = 5;
    const IN_EACH: usize = 40;
    let nodes = stock_of_three().await;
    put_pots(&nodes.running[0], 1000).await;
    let mut led = BTreeSet::new();
    for round in 0..ROUNDS {
        let sending = async {
            let through = &nodes.running[round % 3];
            for number in round * IN_EACH..(round + 1) * IN_EACH {
                must_send_goods(through, number).await;
                must_send_order(through, number).await;
            }
        };
        let ((), next) = tokio::join!(sending, another_leads(&nodes));
        led.insert(next);
    }
    assert!(led.len() > 1, "{led:?}");
    each_is_counted_once(&nodes, ROUNDS * IN_EACH, ROUNDS * IN_EACH, 1000).await;
    // An answer of which nobody heard counts nowhere; none counts twice.
    let acked: u64 = nodes.running.iter().map(|node| counts(node, "stock").ack).sum();
    assert!(acked <= 2 * (ROUNDS * IN_EACH) as u64 + 1, "{acked}");
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_leader_had_in_hand_is_due_at_the_next_one_at_once_as_the_same_attempt() {
    let service = Hanging::begin();
    let nodes = pushing_of_three(service.address).await;
    let before = nodes.leader().await.clone();
    must_send(&before, "work", message("m", "x")).await;
    until("it is delivered", async || service.total() == 1).await;
    let began = Instant::now();
    let next = another_leads(&nodes).await;
    until("it is delivered by the next one", async || service.total() == 2).await;
    let waited = service.times()[1] - began;
    assert!(waited < LEASE - Duration::from_secs(5), "its lease was waited for: {waited:?}");
    all_is_done(&nodes, "shipping").await;
    // The service answers the first one, too: nobody listens any more.
    service.goes_on.store(true, Ordering::SeqCst);
    let leader = &nodes.running[next];
    assert_eq!(dead_letters(leader).await, 0, "it was its only attempt, and is that still");
    let settled: Vec<DeliveryCounts> = nodes.running.iter().map(|node| counts(node, "shipping")).collect();
    assert_eq!(settled.iter().map(|counts| counts.ack).sum::<u64>(), 1, "{settled:?}");
    assert_eq!(settled.iter().map(|counts| counts.failed + counts.dead_letter).sum::<u64>(), 0, "{settled:?}");
    let delivers = before.components.consumer_standings();
    assert!(delivers.is_empty(), "who leads no more delivers nothing, and shows nothing: {delivers:?}");
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_leader_had_in_hand_when_it_stopped_is_delivered_by_the_next_one_as_the_same_attempt() {
    let service = Hanging::begin();
    let mut nodes = pushing_of_three(service.address).await;
    let at = leads_at(&nodes).await;
    must_send(&nodes.running[at], "work", message("m", "x")).await;
    until("it is delivered", async || service.total() == 1).await;
    let began = Instant::now();
    nodes.running.remove(at).stop().await;
    until("it is delivered by the next one", async || service.total() == 2).await;
    let waited = service.times()[1] - began;
    assert!(waited < LEASE - Duration::from_secs(5), "its lease was waited for: {waited:?}");
    all_is_done(&nodes, "shipping").await;
    assert_eq!(dead_letters(nodes.leader().await).await, 0);
    assert_eq!(service.total(), 2);
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_binding_that_pauses_does_so_under_every_leader() {
    let service = Hanging::begin();
    service.goes_on.store(true, Ordering::SeqCst);
    let nodes = pushing_of_three(service.address).await;
    let send = async |id: &str| must_send(&nodes.running[0], "work", message(id, "x")).await;
    send("first").await;
    all_is_done(&nodes, "shipping").await;
    nodes.leader().await.components.pause_binding("shipping", true).await.unwrap();
    until("nothing is under way", async || {
        nodes.leader().await.components.consumer_standings().iter().all(|(_, standing)| standing.in_flight == 0)
    })
    .await;
    for round in 0..3 {
        another_leads(&nodes).await;
        send(&format!("while it pauses {round}")).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let leader = nodes.leader().await;
        let waiting = leader.components.waiting("shipping").await.unwrap();
        assert_eq!((waiting, service.total()), (Some(round + 1), 1));
        assert_eq!(leader.components.pauses().await.unwrap(), [("shipping".to_owned(), true)]);
    }
    nodes.leader().await.components.pause_binding("shipping", false).await.unwrap();
    all_is_done(&nodes, "shipping").await;
    assert_eq!(service.total(), 4);
    nodes.stop_all().await;
}
