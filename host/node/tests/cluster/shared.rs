//! Sessions at one node, and a leader at another: it knows them, and reaches their clients.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vouch_broker::record::EndedBy;
use vouch_broker::{ResourceName, TagFilter, TransactionId, TransactionOutcome};
use vouch_node::{
    Declaration, EndRequest, Node, Question, Receipt, ReceiveRequest, SendRequest, SessionRole, TelemetryStream,
    TransactionState,
};

use crate::common::{half, message, receive, topic};
use crate::nodes::{Nodes, until};

/// A stream whose client reads.
#[derive(Default)]
struct Stream(Mutex<Vec<TransactionId>>);

impl TelemetryStream for Stream {
    fn send_check(&self, question: Question) -> bool {
        self.0.lock().unwrap().extend(question.take().map(|command| command.transaction));
        true
    }

    fn is_open(&self) -> bool {
        true
    }
}

fn follower<'a>(nodes: &'a Nodes, leader: &Node) -> &'a Node {
    nodes.running.iter().find(|node| !Arc::ptr_eq(&node.status, &leader.status)).unwrap()
}

/// A producer of `tx` that has its stream to this node.
fn producer(node: &Node) -> Arc<Stream> {
    let topics = vec![ResourceName::plain("tx")];
    let declared = Declaration { role: SessionRole::Producer, topics, group: None, subscriptions: vec![] };
    node.sessions.declare("asked", declared, Instant::now()).unwrap();
    let stream = Arc::<Stream>::default();
    node.sessions.attach("asked", stream.clone());
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_producer_is_asked_through_the_node_that_has_its_stream() {
    let mut nodes = Nodes::three().await;
    let checks = r#"{"type":"transaction","transaction":{"immunity":"1s","interval":"1s"}}"#;
    topic(nodes.leader().await, "tx", checks).await;
    let leader = nodes.leader().await.clone();
    let here = follower(&nodes, &leader).clone();
    let stream = producer(&here);
    let send = async |id: &str| {
        let (topic, producer) = (ResourceName::plain("tx"), "gone".to_owned());
        let messages = vec![half(id, id)];
        match here.messages.send(SendRequest { topic, producer, messages }).await.unwrap()[..] {
            [Receipt::Prepared { transaction }] => transaction,
            ref other => panic!("{other:?}"),
        }
    };
    let first = send("first").await;
    until("it is asked", async || stream.0.lock().unwrap().contains(&first)).await;
    let by = EndedBy::Client { client_id: "asked".to_owned(), from_check: true };
    let end = EndRequest {
        by,
        ..EndRequest::by_operator(first, TransactionOutcome::Committed, String::new(), String::new())
    };
    here.transactions.end(end).await.unwrap();
    // Any node shows what it knows, and this one hears of it in a moment.
    until("it is committed here, too", async || {
        here.transactions.get(first).await.unwrap().state == TransactionState::Committed
    })
    .await;
    // The next leader hears of the session, too, whichever it is.
    let second = send("second").await;
    let at = nodes.running.iter().position(|node| Arc::ptr_eq(&node.status, &leader.status)).unwrap();
    nodes.running.remove(at).stop().await;
    let asked_before = stream.0.lock().unwrap().iter().filter(|asked| **asked == second).count();
    until("it is asked by the next leader", async || {
        nodes.leader().await;
        stream.0.lock().unwrap().iter().filter(|asked| **asked == second).count() > asked_before
    })
    .await;
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn members_with_different_tags_at_two_nodes_get_all_when_the_leader_is_lost() {
    let mut nodes = Nodes::three().await;
    topic(nodes.leader().await, "tags", r#"{"queues":2}"#).await;
    let leader = nodes.leader().await.clone();
    let at = nodes.running.iter().position(|node| Arc::ptr_eq(&node.status, &leader.status)).unwrap();
    let others: Vec<_> =
        nodes.running.iter().filter(|node| !Arc::ptr_eq(&node.status, &leader.status)).cloned().collect();
    let members = [("a", others[0].clone()), ("b", others[1].clone())];
    let got = Arc::<Mutex<BTreeSet<(String, String)>>>::default();
    let mut running = Vec::new();
    for (tag, node) in members {
        let (group, name) = (ResourceName::plain("g"), ResourceName::plain("tags"));
        let subscriptions = vec![(name, TagFilter::tags([tag]))];
        let declared =
            Declaration { role: SessionRole::PushConsumer, topics: vec![], group: Some(group), subscriptions };
        let client = format!("member-{tag}");
        node.sessions.declare(&*client, declared, Instant::now()).unwrap();
        let got = got.clone();
        running.push(tokio::spawn(async move {
            loop {
                node.sessions.heard(&client, Instant::now());
                let request = ReceiveRequest {
                    client_id: client.clone(),
                    filter: TagFilter::tags([tag]),
                    wait: Duration::from_secs(2),
                    invisible_ms: Some(2_000),
                    ..receive("tags", "g")
                };
                // While nobody leads nothing comes.
                let Ok(deliveries) = node.messages.receive(request).await else { continue };
                let handles: Vec<_> = deliveries.iter().map(|delivery| delivery.handle).collect();
                let named = |message: &vouch_broker::StoredMessage| {
                    let message = &message.message;
                    (message.tag.clone().unwrap(), message.message_id.clone())
                };
                got.lock().unwrap().extend(deliveries.iter().map(|delivery| named(&delivery.message)));
                let _ = node.messages.ack(&handles).await;
            }
        }));
    }
    let mut sent = BTreeSet::new();
    let mut send = async |nodes: &Nodes, from: usize, to: usize| {
        for number in from..to {
            let tag = if number % 2 == 0 { "a" } else { "b" };
            let id = format!("m{number}");
            let message = vouch_broker::NewMessage { tag: Some(tag.to_owned()), ..message(&id, &id) };
            until("it is stored", async || {
                let (topic, producer) = (ResourceName::plain("tags"), "p".to_owned());
                let request = SendRequest { topic, producer, messages: vec![message.clone()] };
                nodes.running[0].messages.send(request).await.is_ok()
            })
            .await;
            sent.insert((tag.to_owned(), id));
        }
    };
    send(&nodes, 0, 20).await;
    nodes.running.remove(at).stop().await;
    send(&nodes, 20, 60).await;
    until("each message reached one", async || got.lock().unwrap().len() == 60).await;
    assert_eq!(*got.lock().unwrap(), sent);
    running.iter().for_each(tokio::task::JoinHandle::abort);
    nodes.stop_all().await;
}
