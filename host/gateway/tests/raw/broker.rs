//! A broker for one test, and a client that speaks the bare protocol.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use vouch_broker::{GroupConfig, TopicConfig, TopicType};
use vouch_gateway::{Certificate, Gateway, GatewayConfig};
use vouch_node::{Expect, Node, NodeConfig, OnDamage};
use vouch_protocol::limits::RECEIVE_INVISIBLE_LEAST;
use vouch_protocol::wire::messaging_service_client::MessagingServiceClient;
use vouch_protocol::wire::receive_message_response::Content;
use vouch_protocol::wire::{
    AckMessageEntry, AckMessageRequest, AckMessageResponse, Code, FilterExpression, Message, MessageQueue, MessageType,
    ReceiveMessageRequest, Resource, SendMessageRequest, SendMessageResponse, Status, SystemProperties,
};

use crate::folder::TestFolder;

/// A running broker. Topics: `orders` (normal), `payments` (transaction), `any` (mixed).
pub(crate) struct Broker {
    pub(crate) node: Node,
    pub(crate) gateway: Gateway,
    pub(crate) folder: TestFolder,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// Serves receives that ask for leases of a second.
    pub(crate) async fn start_with_short_leases() -> Self {
        Self::start_at(|_| (), |edges| edges.receive_invisible_min = RECEIVE_INVISIBLE_LEAST).await
    }

    pub(crate) async fn start_with(configure: impl FnOnce(&mut NodeConfig)) -> Self {
        Self::start_at(configure, |_| ()).await
    }

    async fn start_at(configure: impl FnOnce(&mut NodeConfig), edges: impl FnOnce(&mut GatewayConfig)) -> Self {
        let folder = TestFolder::new();
        let mut config = NodeConfig::new(folder.path());
        config.segment_size = Some(64 << 20);
        config.zero_ahead = 1 << 20;
        config.snapshot_every = 32 << 20;
        configure(&mut config);
        let node = Node::start(config).unwrap();
        for (name, topic_type) in
            [("orders", TopicType::Normal), ("payments", TopicType::Transaction), ("any", TopicType::Mixed)]
        {
            let topic = TopicConfig { topic_type, ..TopicConfig::default() };
            node.settings.put_topic(name, topic, Expect::Anything).await.unwrap();
        }
        Self::serve_with(node, folder, edges).await
    }

    /// Stops, lets something happen to the data folder, and serves what is whole then.
    pub(crate) async fn serve_read_only_after(self, happens: impl FnOnce(&Path)) -> Self {
        let Self { node, gateway, folder } = self;
        gateway.shutdown().await;
        node.stop().await;
        drop(node);
        happens(folder.path());
        let config = NodeConfig { on_damage: OnDamage::ReadOnly, ..NodeConfig::new(folder.path()) };
        Self::serve(Node::start(config).unwrap(), folder).await
    }

    /// Stops, and serves the same folder again.
    pub(crate) async fn restarted(self) -> Self {
        let Self { node, gateway, folder } = self;
        gateway.shutdown().await;
        node.stop().await;
        drop(node);
        Self::serve(Node::start(NodeConfig::new(folder.path())).unwrap(), folder).await
    }

    async fn serve(node: Node, folder: TestFolder) -> Self {
        Self::serve_with(node, folder, |_| ()).await
    }

    async fn serve_with(node: Node, folder: TestFolder, configure: impl FnOnce(&mut GatewayConfig)) -> Self {
        let free = "127.0.0.1:0".parse().unwrap();
        let certificate = Certificate::SelfSigned { folder: folder.path().join("tls") };
        let mut edges = GatewayConfig::new(free, free, certificate);
        configure(&mut edges);
        let gateway = vouch_gateway::serve(node.clone(), edges).await.unwrap();
        Self { node, gateway, folder }
    }

    pub(crate) async fn group(&self, name: &str, config: GroupConfig) {
        self.node.settings.put_group(name, config, Expect::Anything).await.unwrap();
    }

    pub(crate) async fn client(&self, id: &'static str) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.gateway.grpc_addr())).unwrap();
        Client { grpc: MessagingServiceClient::new(endpoint.connect().await.unwrap()), id }
    }

    pub(crate) async fn stop(self) {
        self.gateway.shutdown().await;
        self.node.stop().await;
    }
}

/// A client instance.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) grpc: MessagingServiceClient<Channel>,
    pub(crate) id: &'static str,
}

impl Client {
    /// A request with this client's metadata.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("x-mq-client-id", self.id.parse().unwrap());
        request
    }

    pub(crate) async fn send(&mut self, messages: Vec<Message>) -> SendMessageResponse {
        let request = self.request(SendMessageRequest { messages });
        self.grpc.send_message(request).await.unwrap().into_inner()
    }

    /// Sends one message that must be stored.
    pub(crate) async fn send_one(&mut self, topic: &str, id: &str) {
        let response = self.send(vec![message(topic, id)]).await;
        assert_eq!(code(&response.status), Code::Ok, "{:?}", response.status);
    }

    /// Receives what is there; waits up to five seconds for the first message.
    pub(crate) async fn receive(&mut self, topic: &str, group: &str) -> Vec<Message> {
        let received = self.receive_with(receive_request(topic, group)).await;
        assert!(matches!(received.code, Code::Ok | Code::MessageNotFound), "{received:?}");
        received.messages
    }

    pub(crate) async fn receive_with(&mut self, request: ReceiveMessageRequest) -> Received {
        let request = self.request(request);
        self.collect(request).await
    }

    pub(crate) async fn collect(&mut self, request: Request<ReceiveMessageRequest>) -> Received {
        let mut stream = self.grpc.receive_message(request).await.unwrap().into_inner();
        let mut received = Received::default();
        let mut statuses = 0;
        while let Some(element) = stream.message().await.unwrap() {
            match element.content.expect("the Rust client panics on an element without content") {
                Content::Status(status) => {
                    statuses += 1;
                    received.code = status.code();
                    received.text = status.message;
                }
                Content::Message(message) => received.messages.push(message),
                Content::DeliveryTimestamp(_) => received.told_the_time = true,
            }
        }
        assert_eq!(statuses, 1, "exactly one status in a stream");
        received
    }

    pub(crate) async fn ack(&mut self, topic: &str, group: &str, handles: &[&str]) -> AckMessageResponse {
        let entry = |handle: &&str| AckMessageEntry { receipt_handle: (*handle).to_owned(), ..Default::default() };
        let entries = handles.iter().map(entry).collect();
        let request = AckMessageRequest { topic: resource(topic), group: resource(group), entries };
        let request = self.request(request);
        self.grpc.ack_message(request).await.unwrap().into_inner()
    }
}

/// What came out of a receive stream.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) code: Code,
    pub(crate) text: String,
    pub(crate) messages: Vec<Message>,
    pub(crate) told_the_time: bool,
}

pub(crate) fn code(status: &Option<Status>) -> Code {
    status.as_ref().expect("every answer has a status").code()
}

pub(crate) fn resource(name: &str) -> Option<Resource> {
    Some(Resource { name: name.to_owned(), ..Default::default() })
}

pub(crate) fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

pub(crate) fn message(topic: &str, id: &str) -> Message {
    Message {
        topic: resource(topic),
        body: Bytes::from(format!("body of {id}")),
        system_properties: Some(SystemProperties { message_id: id.to_owned(), ..Default::default() }),
        ..Default::default()
    }
}

pub(crate) fn half_message(topic: &str, id: &str) -> Message {
    with_system(message(topic, id), |system| system.message_type = MessageType::Transaction as i32)
}

pub(crate) fn with_system(mut message: Message, change: impl FnOnce(&mut SystemProperties)) -> Message {
    change(message.system_properties.get_or_insert_default());
    message
}

pub(crate) fn receive_request(topic: &str, group: &str) -> ReceiveMessageRequest {
    ReceiveMessageRequest {
        group: resource(group),
        message_queue: Some(MessageQueue { topic: resource(topic), ..Default::default() }),
        filter_expression: Some(FilterExpression { r#type: 1, expression: "*".to_owned() }),
        batch_size: 32,
        invisible_duration: Some(seconds(30)),
        long_polling_timeout: Some(seconds(5)),
        ..Default::default()
    }
}

pub(crate) fn handle(message: &Message) -> &str {
    message.system_properties.as_ref().unwrap().receipt_handle.as_deref().unwrap()
}

pub(crate) fn id(message: &Message) -> &str {
    &message.system_properties.as_ref().unwrap().message_id
}

pub(crate) fn attempt(message: &Message) -> i32 {
    message.system_properties.as_ref().unwrap().delivery_attempt.unwrap()
}

/// Fails a test that would otherwise wait for ever.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("this takes far less than ten seconds")
}
