//! A real node in a folder of its own.

#![allow(dead_code, reason = "each suite uses a part of it")]

pub(crate) mod checking;
pub(crate) mod figures;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use vouch_broker::{BodyEncoding, MessageKind, Millis, NewMessage, ResourceName, TopicConfig, TransactionId};
use vouch_node::{Delivery, Expect, Node, NodeConfig, Receipt, ReceiveRequest, SendRequest};

/// Small segments, so that tests roll them; and little set aside for snapshots, which is a quarter gigabyte by itself.
pub(crate) fn config(folder: &Path) -> NodeConfig {
    let (segment_size, zero_ahead, snapshot_every) = (Some(4 << 20), 1 << 20, 32 << 20);
    NodeConfig { segment_size, zero_ahead, snapshot_every, ..NodeConfig::new(folder) }
}

pub(crate) async fn start(folder: &Path) -> Node {
    Node::start(config(folder)).expect("the node starts")
}

pub(crate) fn topic_config(json: &str) -> TopicConfig {
    serde_json::from_str(json).expect("the topic's settings are valid")
}

pub(crate) async fn topic(node: &Node, name: &str, json: &str) {
    node.settings.put_topic(name, topic_config(json), Expect::Anything).await.expect("the topic is made");
}

pub(crate) fn message(id: &str, body: &str) -> NewMessage {
    NewMessage {
        message_id: id.to_owned(),
        tag: None,
        keys: vec![format!("key-{id}")],
        properties: vec![("a".to_owned(), "1".to_owned())],
        kind: MessageKind::Normal,
        encoding: BodyEncoding::Identity,
        born_at: Millis(5),
        born_host: "host".to_owned(),
        trace_context: None,
        message_group: None,
        deliver_at: None,
        recovery_ms: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

pub(crate) fn half(id: &str, body: &str) -> NewMessage {
    NewMessage { kind: MessageKind::Transaction, ..message(id, body) }
}

pub(crate) async fn send(node: &Node, topic: &str, message: NewMessage) -> Receipt {
    let request =
        SendRequest { topic: ResourceName::plain(topic), producer: "producer-1".to_owned(), messages: vec![message] };
    node.messages.send(request).await.expect("the send is accepted")[0]
}

pub(crate) async fn prepare(node: &Node, topic: &str, message: NewMessage) -> TransactionId {
    match send(node, topic, message).await {
        Receipt::Prepared { transaction } => transaction,
        receipt => panic!("a half message was stored as a plain one: {receipt:?}"),
    }
}

pub(crate) fn receive(topic: &str, group: &str) -> ReceiveRequest {
    ReceiveRequest {
        topic: ResourceName::plain(topic),
        group: ResourceName::plain(group),
        client_id: "consumer-1".to_owned(),
        max: 32,
        invisible_ms: Some(30_000),
        wait: Duration::from_secs(10),
        ..ReceiveRequest::default()
    }
}

/// Receives what is there now.
pub(crate) async fn receive_now(node: &Node, topic: &str, group: &str) -> Vec<Delivery> {
    let request = ReceiveRequest { wait: Duration::ZERO, ..receive(topic, group) };
    let mut all = Vec::new();
    loop {
        let batch = node.messages.receive(request.clone()).await.expect("the receive is answered");
        if batch.is_empty() {
            return all;
        }
        all.extend(batch);
    }
}
