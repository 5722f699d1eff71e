//! Each call ends with a line that says how, and, where it was refused, why; and the fields of lines are what they seem.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::Node;
use support::lines::{LEVEL, answered, line, lines, log};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use vouch_protocol::wire::messaging_service_client::MessagingServiceClient;
use vouch_protocol::wire::receive_message_response::Content;
use vouch_protocol::wire::settings::PubSub;
use vouch_protocol::wire::telemetry_command::Command;
use vouch_protocol::wire::*;

const JSON: [&str; 4] = ["--log-format", "json", "--log-level", LEVEL];

struct Client(MessagingServiceClient<Channel>);

fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("x-mq-client-id", "client".parse().unwrap());
    request
}

fn resource(name: &str) -> Option<Resource> {
    Some(Resource { name: name.to_owned(), ..Default::default() })
}

fn receive(wait_seconds: i64) -> ReceiveMessageRequest {
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    ReceiveMessageRequest {
        group: resource("g"),
        message_queue: Some(MessageQueue { topic: resource("plain"), ..Default::default() }),
        filter_expression: Some(FilterExpression { r#type: 1, expression: "*".to_owned() }),
        batch_size: 32,
        invisible_duration: seconds(30),
        long_polling_timeout: seconds(wait_seconds),
        ..Default::default()
    }
}

impl Client {
    async fn of(node: &Node) -> Self {
        let address = node.grpc.trim_start_matches("http://");
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Self(MessagingServiceClient::new(endpoint.connect().await.unwrap()))
    }

    /// A stream over which the client says this and nothing more.
    async fn declare(&mut self, pub_sub: PubSub, client_type: ClientType) -> tonic::Streaming<TelemetryCommand> {
        let settings = Settings { client_type: Some(client_type as i32), pub_sub: Some(pub_sub), ..Default::default() };
        let (sender, commands) = mpsc::channel(1);
        let command = TelemetryCommand { status: None, command: Some(Command::Settings(settings)) };
        sender.send(command).await.unwrap();
        let stream = self.0.telemetry(request(ReceiverStream::new(commands))).await.unwrap().into_inner();
        // The stream is open for as long as the test runs.
        std::mem::forget(sender);
        stream
    }

    async fn received(&mut self) -> Vec<(i32, String)> {
        let mut stream = self.0.receive_message(request(receive(5))).await.unwrap().into_inner();
        let mut messages = Vec::new();
        while let Some(element) = stream.message().await.unwrap() {
            if let Some(Content::Message(message)) = element.content {
                let system = message.system_properties.unwrap();
                messages.push((system.queue_id, system.receipt_handle.unwrap()));
            }
        }
        messages
    }

    async fn ack(&mut self, handles: impl IntoIterator<Item = String>) -> Status {
        let entry = |receipt_handle| AckMessageEntry { receipt_handle, ..Default::default() };
        let entries = handles.into_iter().map(entry).collect();
        let acks = AckMessageRequest { topic: resource("plain"), group: resource("g"), entries };
        self.0.ack_message(request(acks)).await.unwrap().into_inner().status.unwrap()
    }
}

/// A field is no document in a document, and a number is no text. Ids may be digits alone.
fn assert_plain(node: &Node) {
    for line in lines(node) {
        for (name, value) in ["fields", "span"].iter().filter_map(|part| line[part].as_object()).flatten() {
            let Some(text) = value.as_str() else { continue };
            assert!(!(text.starts_with('"') && text.ends_with('"')), "{name} is quoted twice: {line}");
            let is_name =
                name.ends_with("_id") || ["message", "transaction", "topic", "group"].contains(&name.as_str());
            assert!(is_name || text.parse::<f64>().is_err(), "{name} is a number as text: {line}");
        }
    }
}

fn why(line: &Value) -> &str {
    line["fields"]["why"].as_str().unwrap_or_else(|| panic!("it does not say why: {line}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_that_is_refused_says_why_and_about_what_it_was() {
    let node = Node::start(&JSON);
    node.admin(&["topic", "create", "plain"]).succeeded();
    let mut client = Client::of(&node).await;

    client.ack(["none".to_owned(), "none either".to_owned()]).await;
    let acked = answered(&node, "AckMessage", |line| line["fields"]["code"] == "INVALID_RECEIPT_HANDLE");
    assert!(why(&acked).starts_with("INVALID_RECEIPT_HANDLE: ") && why(&acked).contains("1 more"), "{acked}");
    assert_eq!((&acked["span"]["group"], acked["span"].get("message_id")), (&json!("g"), None), "it named none");

    let expression = Some(FilterExpression { r#type: 1, expression: "||".to_owned() });
    let subscriptions = vec![SubscriptionEntry { topic: resource("plain"), expression }];
    let subscription = Subscription { group: resource("g"), subscriptions, ..Default::default() };
    let mut stream = client.declare(PubSub::Subscription(subscription), ClientType::SimpleConsumer).await;
    while let Ok(Some(_)) = stream.message().await {}
    let refused = answered(&node, "Telemetry", |line| line["fields"]["code"] == "ILLEGAL_FILTER_EXPRESSION");
    assert!(!why(&refused).is_empty());
    assert_eq!((&refused["span"]["group"], &refused["span"]["topic"]), (&json!("g"), &json!("plain")));

    client.0.notify_client_termination(request(NotifyClientTerminationRequest { group: resource("g") })).await.unwrap();
    answered(&node, "NotifyClientTermination", |line| line["span"]["group"] == "g");

    client.0.get_offset(request(GetOffsetRequest::default())).await.unwrap_err();
    assert!(why(&answered(&node, "GetOffset", |_| true)).contains("not available"));

    node.admin(&["topic", "show", "nothing"]);
    let http = line(&node, "answered", |line| line["span"]["topic"] == "nothing");
    assert_eq!((&http["span"]["route"], &http["fields"]["status"]), (&json!("/v1/topics/{topic}"), &json!(404)));
    assert!(why(&http).contains("nothing"), "{http}");
    assert_plain(&node);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_leaves_a_line() {
    let node = Node::start(&JSON);
    node.admin(&["topic", "create", "plain"]).succeeded();
    let mut client = Client::of(&node).await;
    drop(client.0.receive_message(request(receive(25))).await.unwrap());
    let gone = line(&node, "the caller went away before the answer", |_| true);
    assert_eq!((&gone["span"]["name"], &gone["span"]["group"]), (&json!("ReceiveMessage"), &json!("g")));
    assert!(!log(&node).contains("MESSAGE_NOT_FOUND"), "it was no answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_numbers_and_texts_and_a_queue_is_that_of_the_whole_batch() {
    const SENT: usize = 32;
    let node = Node::start(&JSON);
    node.admin(&["topic", "create", "plain", "--queues", "4"]).succeeded();
    for _ in 0..SENT {
        node.client(&["message", "send", "plain", "--body", "x"]).succeeded();
    }
    let mut client = Client::of(&node).await;
    let mut messages = Vec::new();
    while messages.len() < SENT {
        messages.extend(client.received().await);
    }
    let handed_out = line(&node, "handed out", |_| true);
    assert!(handed_out["fields"]["offset"].is_u64() && handed_out["fields"]["queue"].is_u64(), "{handed_out}");
    let queue = messages[0].0;
    assert!(messages.iter().any(|(other, _)| *other != queue), "32 messages in one of four queues");
    let (first, handle) = messages.remove(0);
    client.ack([handle]).await;
    let acked = answered(&node, "AckMessage", |line| line["fields"]["code"] == "OK");
    assert_eq!(acked["span"]["queue"], first);
    client.ack(messages.into_iter().map(|(_, handle)| handle)).await;
    answered(&node, "AckMessage", |line| line["fields"]["code"] == "OK" && line["span"].get("queue").is_none());

    node.admin(&["topic", "create", "orders", "--type", "transaction"]).succeeded();
    let half = ["message", "send", "orders", "--body", "x", "--transaction", "leave-open", "--json"];
    let sent = node.client(&half).succeeded().json();
    let transaction = sent["transaction_id"].as_str().unwrap();
    node.admin(&["transaction", "commit", transaction, "--by", "me", "--reason", "seen"]).succeeded();
    let settled = line(&node, "settled by an operator", |_| true);
    assert_eq!((&settled["fields"]["by"], &settled["fields"]["reason"]), (&json!("me"), &json!("seen")));
    assert_plain(&node);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_says_nothing_and_is_counted_leaves_a_line() {
    let node = Node::start(&JSON);
    let policy = ["--type", "transaction", "--immunity", "0s", "--interval", "1s"];
    node.admin(&[&["topic", "create", "orders"][..], &policy].concat()).succeeded();
    let mut client = Client::of(&node).await;
    let publishing = Publishing { topics: vec![resource("orders").unwrap()], ..Default::default() };
    let mut stream = client.declare(PubSub::Publishing(publishing), ClientType::Producer).await;
    let system = SystemProperties {
        message_id: "m1".to_owned(),
        message_type: MessageType::Transaction as i32,
        ..Default::default()
    };
    let half =
        Message { topic: resource("orders"), body: "x".into(), system_properties: Some(system), ..Default::default() };
    client.0.send_message(request(SendMessageRequest { messages: vec![half] })).await.unwrap();
    tokio::spawn(async move { while let Ok(Some(_)) = stream.message().await {} });
    let beating = tokio::spawn(async move {
        loop {
            let heartbeat = HeartbeatRequest { client_type: ClientType::Producer as i32, ..Default::default() };
            client.0.heartbeat(request(heartbeat)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let counted = line(&node, "a producer said nothing; that counts as unknown", |_| true);
    assert_eq!((&counted["fields"]["client_id"], &counted["fields"]["checks"]), (&json!("client"), &json!(1)));
    assert_eq!((&counted["span"]["name"], &counted["span"]["message_id"]), (&json!("check"), &json!("m1")));
    beating.abort();
}
