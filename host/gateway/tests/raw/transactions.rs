use std::time::Duration;

use vouch_broker::CheckPolicy;
use vouch_broker::{TopicConfig, TopicType};
use vouch_node::Expect;
use vouch_protocol::wire::telemetry_command::Command;
use vouch_protocol::wire::{
    Address, AddressScheme, ClientType, Code, EndTransactionRequest, Endpoints, HeartbeatRequest, MessageType,
    QueryRouteRequest, TransactionResolution,
};

use crate::broker::{Broker, Client, code, half_message, id, receive_request, resource, seconds, soon};
use crate::sessions::{Telemetry, producer_settings};

pub(crate) async fn prepare(client: &mut Client, topic: &str, id: &str) -> String {
    let response = client.send(vec![half_message(topic, id)]).await;
    assert_eq!(code(&response.status), Code::Ok, "{:?}", response.status);
    response.entries[0].transaction_id.clone()
}

pub(crate) async fn end(
    client: &mut Client,
    topic: &str,
    id: &str,
    transaction: &str,
    resolution: TransactionResolution,
) -> (Code, String) {
    let request = client.request(EndTransactionRequest {
        topic: resource(topic),
        message_id: id.to_owned(),
        transaction_id: transaction.to_owned(),
        resolution: resolution as i32,
        ..Default::default()
    });
    let status = client.grpc.end_transaction(request).await.unwrap().into_inner().status.unwrap();
    (status.code(), status.message)
}

use TransactionResolution::{Commit, Rollback, Unspecified};

#[tokio::test(flavor = "multi_thread")]
async fn a_half_message_is_seen_after_its_commit_once_and_never_after_a_rollback() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let kept = prepare(&mut client, "payments", "kept").await;
    let dropped = prepare(&mut client, "payments", "dropped").await;
    assert_ne!(kept, dropped);
    let mut now = receive_request("payments", "group");
    now.long_polling_timeout = Some(seconds(0));
    assert_eq!(soon(client.receive_with(now.clone())).await.code, Code::MessageNotFound);

    assert_eq!(end(&mut client, "payments", "dropped", &dropped, Rollback).await.0, Code::Ok);
    for _ in 0..2 {
        assert_eq!(end(&mut client, "payments", "kept", &kept, Commit).await.0, Code::Ok);
    }
    let received = soon(client.receive("payments", "group")).await;
    assert_eq!(received.iter().map(id).collect::<Vec<_>>(), ["kept"]);
    assert_eq!(received[0].system_properties.as_ref().unwrap().message_type(), MessageType::Normal);
    assert_eq!(soon(client.receive_with(now)).await.messages.len(), 0, "the second commit made no second message");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_opposite_decision_is_a_conflict_that_names_the_outcome() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let id = prepare(&mut client, "payments", "1").await;
    assert_eq!(end(&mut client, "payments", "1", &id, Commit).await.0, Code::Ok);
    let (code, text) = end(&mut client, "payments", "1", &id, Rollback).await;
    assert_eq!(code, Code::PreconditionFailed);
    assert!(text.contains("committed"), "{text}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecided_answer_leaves_the_transaction_open() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let id = prepare(&mut client, "payments", "1").await;
    assert_eq!(end(&mut client, "payments", "1", &id, Unspecified).await.0, Code::Ok);
    assert_eq!(end(&mut client, "payments", "1", &id, Commit).await.0, Code::Ok);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_name_no_transaction_here_are_refused() {
    let broker = Broker::start().await;
    let mut client = broker.client("client").await;
    let id = prepare(&mut client, "payments", "1").await;
    let unknown = format!("T0000{:016X}", u64::from_str_radix(&id[5..], 16).unwrap() + 8);
    let other_shard = format!("T0001{}", &id[5..]);
    for (topic, message, transaction) in [
        ("payments", "1", ""),
        ("payments", "1", "  "),
        ("payments", "1", "garbage"),
        ("payments", "1", unknown.as_str()),
        ("payments", "1", other_shard.as_str()),
        ("payments", "1", "T0000FFFFFFFFFFFFFFFF"),
        ("payments", "2", id.as_str()),
        ("any", "1", id.as_str()),
    ] {
        for resolution in [Commit, Unspecified] {
            let (code, text) = end(&mut client, topic, message, transaction, resolution).await;
            assert_eq!(code, Code::InvalidTransactionId, "{topic} {message} {transaction:?}: {text}");
        }
    }
    assert_eq!(end(&mut client, "payments", " ", &id, Commit).await.0, Code::IllegalMessageId);
    assert_eq!(end(&mut client, "payments", "1", &id, Rollback).await.0, Code::Ok, "it is still open");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_is_asked_over_its_telemetry_stream_and_its_answer_counts() {
    let broker = Broker::start().await;
    quick(&broker).await;
    let mut client = broker.client("producer").await;
    let mut telemetry = Telemetry::open(&mut client).await.unwrap();
    telemetry.exchange(producer_settings(&["quick"])).await;
    let transaction = prepare(&mut client, "quick", "1").await;

    let question = soon(telemetry.next()).await.unwrap().unwrap();
    let Some(Command::RecoverOrphanedTransactionCommand(question)) = question.command else {
        panic!("the broker said {question:?}")
    };
    assert_eq!(question.transaction_id, transaction);
    let half = question.message.unwrap();
    let system = half.system_properties.as_ref().unwrap();
    assert_eq!((id(&half), half.topic.clone()), ("1", resource("quick")));
    assert_eq!((&half.body[..], system.message_type()), (&b"body of 1"[..], MessageType::Transaction));
    assert!(system.body_digest.is_some() && system.body_encoding != 0 && system.receipt_handle.is_none());

    assert_eq!(end(&mut client, "quick", "1", &question.transaction_id, Commit).await.0, Code::Ok);
    assert_eq!(soon(client.receive("quick", "group")).await.len(), 1);
    broker.stop().await;
}

/// A topic whose transactions are asked about at once.
async fn quick(broker: &Broker) {
    let quick = CheckPolicy { immunity: Duration::ZERO, ..CheckPolicy::default() };
    let topic = TopicConfig { topic_type: TopicType::Transaction, transaction: quick, ..TopicConfig::default() };
    broker.node.settings.put_topic("quick", topic, Expect::Anything).await.unwrap();
}

/// The transaction that the broker asks about.
async fn asked(telemetry: &mut Telemetry) -> String {
    match soon(telemetry.next()).await.unwrap().unwrap().command {
        Some(Command::RecoverOrphanedTransactionCommand(question)) => question.transaction_id,
        other => panic!("the broker said {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reopened_stream_is_asked_before_settings_come_over_it() {
    let broker = Broker::start().await;
    quick(&broker).await;
    let mut client = broker.client("producer").await;
    let mut telemetry = Telemetry::open(&mut client).await.unwrap();
    telemetry.exchange(producer_settings(&["quick"])).await;
    drop(telemetry);
    let mut stranger = broker.client("stranger").await;
    let transaction = prepare(&mut stranger, "quick", "1").await;
    let mut reopened = Telemetry::open(&mut client).await.unwrap();
    assert_eq!(asked(&mut reopened).await, transaction);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_producer_is_asked_that_sends_heartbeats_and_asks_for_routes() {
    let broker = Broker::start().await;
    quick(&broker).await;
    let transaction = prepare(&mut broker.client("gone").await, "quick", "1").await;
    let broker = broker.restarted().await;
    let mut client = broker.client("producer").await;
    // Its stream comes first, before anybody knows what it is.
    let mut telemetry = Telemetry::open(&mut client).await.unwrap();
    let heartbeat = client.request(HeartbeatRequest { group: None, client_type: ClientType::Producer as i32 });
    assert_eq!(code(&client.grpc.heartbeat(heartbeat).await.unwrap().into_inner().status), Code::Ok);
    let address = Address { host: "127.0.0.1".to_owned(), port: 1 };
    let endpoints = Some(Endpoints { scheme: AddressScheme::IPv4 as i32, addresses: vec![address] });
    let route = client.request(QueryRouteRequest { topic: resource("quick"), endpoints });
    assert_eq!(code(&client.grpc.query_route(route).await.unwrap().into_inner().status), Code::Ok);
    assert_eq!(asked(&mut telemetry).await, transaction);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_not_known_and_sends_a_half_message_is_asked_about_it() {
    let broker = Broker::start().await;
    quick(&broker).await;
    let mut client = broker.client("producer").await;
    let mut telemetry = Telemetry::open(&mut client).await.unwrap();
    let transaction = prepare(&mut client, "quick", "1").await;
    assert_eq!(asked(&mut telemetry).await, transaction);
    broker.stop().await;
}
