//! Clients that come to a node which does not lead: the one that leads does what they ask for.

use std::time::Duration;

use vouch_broker::{NotDone, Refusal, ResourceName, TagFilter, TransactionOutcome};
use vouch_node::{EndRequest, Expect, Node, NodeHealth, Receipt, ReceiveRequest, SendRequest};

use crate::common::{half, message, receive, receive_now, topic, topic_config};
use crate::nodes::{Nodes, until};

impl Nodes {
    /// Those that do not lead.
    async fn followers(&self) -> Vec<&Node> {
        let leader = self.leader().await;
        self.running.iter().filter(|node| !std::ptr::eq(*node, leader)).collect()
    }
}

async fn sent(node: &Node, name: &str, id: &str) -> Result<Vec<Receipt>, NotDone> {
    let (topic, producer) = (ResourceName::plain(name), "producer-1".to_owned());
    node.messages.send(SendRequest { topic, producer, messages: vec![message(id, id)] }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_go_in_and_out_through_nodes_that_do_not_lead() {
    let nodes = Nodes::three().await;
    let [one, two] = nodes.followers().await[..] else { panic!("two follow") };
    let stored = sent(one, "t", "through-one").await.unwrap();
    // The same once more, through another node: it is stored once, and has its first place.
    assert_eq!(sent(two, "t", "through-one").await.unwrap(), stored);
    let received = receive_now(two, "t", "g").await;
    assert_eq!(received.len(), 21);
    assert!(received.iter().any(|delivery| delivery.message.message.body == "through-one"));
    assert_eq!(receive_now(one, "t", "g").await.len(), 0, "they are leased, whoever asks");
    let handles: Vec<_> = received.iter().map(|delivery| delivery.handle).collect();
    // Of three kinds of handles each is answered for itself.
    let (kept, rest) = handles.split_first().unwrap();
    let changed = one.messages.change_invisible(*kept, 60_000, false).await.unwrap();
    let mut acked = rest.to_vec();
    acked.push(*kept);
    let answers = one.messages.ack(&acked).await.unwrap();
    let (late, done) = answers.split_last().unwrap();
    assert!(done.iter().all(Result::is_ok) && done.len() == 20);
    assert!(matches!(late, Err(Refusal::InvalidHandle(why)) if why.contains("lease was changed")), "{late:?}");
    two.messages.forward_to_dead_letter(changed, "a test").await.unwrap();
    assert_eq!(receive_now(one, "%DLQ%g", "readers").await.len(), 1);
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_receive_waits_at_the_leader_and_is_given_up_with_its_caller() {
    let nodes = Nodes::three().await;
    let [one, two] = nodes.followers().await[..] else { panic!("two follow") };
    topic(nodes.leader().await, "later", r#"{"queues":1}"#).await;
    let waiting = |client: &str| ReceiveRequest {
        client_id: client.to_owned(),
        filter: TagFilter::All,
        wait: Duration::from_secs(20),
        ..receive("later", "g")
    };
    let waits = async || nodes.leader().await.status.numbers().await.unwrap().waiting_polls;
    // One that is given up: what comes then is not lost on it.
    let gone = tokio::spawn({
        let (one, request) = (one.clone(), waiting("gone"));
        async move { one.messages.receive(request).await }
    });
    until("it waits", async || waits().await == 1).await;
    gone.abort();
    until("it does not wait any more", async || waits().await == 0).await;
    let stays = tokio::spawn({
        let (two, request) = (two.clone(), waiting("stays"));
        async move { two.messages.receive(request).await }
    });
    until("the other one waits", async || waits().await == 1).await;
    sent(one, "later", "it").await.unwrap();
    let received = stays.await.unwrap().unwrap();
    assert_eq!((received.len(), received[0].attempt), (1, 1));
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_transaction_begins_at_one_node_and_ends_at_another() {
    let nodes = Nodes::three().await;
    topic(nodes.leader().await, "tx", r#"{"type":"transaction"}"#).await;
    let [one, two] = nodes.followers().await[..] else { panic!("two follow") };
    let (name, producer) = (ResourceName::plain("tx"), "producer-1".to_owned());
    let request = SendRequest { topic: name, producer, messages: vec![half("h", "half")] };
    let [Receipt::Prepared { transaction }] = one.messages.send(request).await.unwrap()[..] else { panic!("a half") };
    let end = |outcome| EndRequest::by_operator(transaction, outcome, "me".to_owned(), String::new());
    let ended = two.transactions.end(end(TransactionOutcome::Committed)).await.unwrap();
    assert!(!ended.repeated);
    assert!(one.transactions.end(end(TransactionOutcome::Committed)).await.unwrap().repeated);
    let conflict = one.transactions.end(end(TransactionOutcome::RolledBack)).await.unwrap_err();
    assert!(matches!(conflict, NotDone::Refused(Refusal::OutcomeConflict { .. })), "{conflict:?}");
    assert_eq!(receive_now(two, "tx", "g").await.len(), 1);
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_node_does_not_know_is_asked_of_the_leader() {
    let nodes = Nodes::three().await;
    let [one, _] = nodes.followers().await[..] else { panic!("two follow") };
    let missing = one.settings.topic(&ResourceName::plain("none")).await.unwrap_err();
    assert!(matches!(missing, NotDone::Refused(Refusal::TopicNotFound(_))), "{missing:?}");
    let put = nodes.leader().await.settings.put_topic("new", topic_config("{}"), Expect::Absent).await;
    put.unwrap();
    // At once: this node may not have applied it.
    one.settings.topic(&ResourceName::plain("new")).await.unwrap();
    sent(one, "new", "first").await.unwrap();
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_waits_for_the_next_leader_and_no_longer_than_that() {
    let mut nodes = Nodes::three().await;
    let leader = nodes.leader().await.status.clone();
    let at = nodes.running.iter().position(|node| std::sync::Arc::ptr_eq(&node.status, &leader)).unwrap();
    let lost = nodes.running.remove(at);
    lost.stop().await;
    // One of the two leads next, and each takes it whichever that is.
    for (number, node) in nodes.running.iter().enumerate() {
        let id = format!("again-{number}");
        until("it is stored", async || match sent(node, "t", &id).await {
            Ok(_) => true,
            Err(NotDone::Unknown(_) | NotDone::NothingStored(_)) => false,
            Err(why) => panic!("{why}"),
        })
        .await;
    }
    nodes.running.remove(0).stop().await;
    let alone = &nodes.running[0];
    until("it knows that nobody leads", async || alone.cluster.leader().is_none()).await;
    let refused = sent(alone, "t", "alone").await.unwrap_err();
    let is_told = matches!(refused, NotDone::NothingStored(vouch_broker::NothingStored::NotLeading { leader: None }));
    assert!(is_told, "{refused:?}");
    // What it has it shows.
    assert_eq!(alone.status.health(), NodeHealth::Ready);
    alone.settings.topic(&ResourceName::plain("t")).await.unwrap();
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_send_fails_where_a_node_lets_another_lead_before_it_stops() {
    let mut nodes = Nodes::three().await;
    for round in 0..3 {
        let leader = nodes.leader().await.clone();
        let other = nodes.followers().await[0].clone();
        let sending = tokio::spawn({
            let other = other.clone();
            async move {
                for number in 0..200 {
                    sent(&other, "t", &format!("r{round}-{number}")).await.unwrap();
                }
            }
        });
        leader.cluster.resign().await;
        assert!(!leader.cluster.leads(), "another one leads");
        sending.await.unwrap();
    }
    nodes.running.truncate(2);
    nodes.stop_all().await;
}
