//! A node with its edges in a folder of its own, and a client that sends exactly what it is told.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vouch_broker::{BodyEncoding, MessageKind, Millis, NewMessage, ResourceName};
use vouch_gateway::{Certificate, Gateway, GatewayConfig};
use vouch_node::{Node, NodeConfig, OnDamage, Receipt, SendRequest};

use crate::description;
use crate::folder::TestFolder;

pub(crate) const JSON: &str = "application/json";
pub(crate) const PATCH: &str = "application/merge-patch+json";
pub(crate) const WASM: &str = "application/wasm";

/// A running node with its HTTP API.
pub(crate) struct Api {
    pub(crate) node: Node,
    pub(crate) http: SocketAddr,
    pub(crate) gateway: Gateway,
    folder: TestFolder,
}

/// Settings of the edges for a test: any free ports.
pub(crate) fn config(folder: &TestFolder) -> GatewayConfig {
    let certificate = Certificate::SelfSigned { folder: folder.path().join("tls") };
    GatewayConfig::new("127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap(), certificate)
}

/// Small segments, and little set aside for snapshots.
pub(crate) fn small(data: impl Into<PathBuf>) -> NodeConfig {
    let (segment_size, zero_ahead, snapshot_every) = (Some(4 << 20), 1 << 20, 32 << 20);
    NodeConfig { segment_size, zero_ahead, snapshot_every, ..NodeConfig::new(data) }
}

pub(crate) fn node(folder: &TestFolder) -> Node {
    let data = folder.path().join("data");
    Node::start(small(data)).unwrap()
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let folder = TestFolder::new();
        let node = node(&folder);
        Self::serve(node, folder, change).await
    }

    async fn serve(node: Node, folder: TestFolder, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let mut config = config(&folder);
        change(&mut config);
        let gateway = vouch_gateway::serve(node.clone(), config).await.unwrap();
        let http = SocketAddr::new("127.0.0.1".parse().unwrap(), gateway.http_addr().port());
        Self { node, http, gateway, folder }
    }

    /// Stops everything, lets something happen to the data folder, and starts again as an operator would who wants to
    /// read what is left of a damaged log.
    pub(crate) async fn start_read_only_after(self, happens: impl FnOnce(&Path)) -> Self {
        let Self { node, gateway, folder, .. } = self;
        gateway.shutdown().await;
        node.stop().await;
        drop(node);
        let data = folder.path().join("data");
        happens(&data);
        let node = Node::start(NodeConfig { on_damage: OnDamage::ReadOnly, ..NodeConfig::new(data) }).unwrap();
        Self::serve(node, folder, |_| {}).await
    }

    /// The node's data folder.
    pub(crate) fn data_dir(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// Sends a request and checks that the answer is one that `openapi.json` describes.
    pub(crate) async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            head.push_str(&format!("host: {}\r\n", self.http));
        }
        if !body.is_empty() || matches!(method, "PUT" | "POST" | "PATCH") {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        let answer = Answer::parse(&self.raw(&[head.as_bytes(), b"\r\n", body].concat()).await);
        description::check(method, path, body, &answer);
        answer
    }

    /// Sends bytes and reads until the other side closes.
    pub(crate) async fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], b"").await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, &[("content-type", JSON)], body.to_string().as_bytes()).await
    }

    pub(crate) async fn put_if(&self, path: &str, body: Value, header: (&str, &str)) -> Answer {
        self.call("PUT", path, &[("content-type", JSON), header], body.to_string().as_bytes()).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call("PATCH", path, &[("content-type", PATCH)], body.to_string().as_bytes()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, &[("content-type", JSON)], body.to_string().as_bytes()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, &[], b"").await
    }

    pub(crate) async fn push(&self, path: &str, wasm: &[u8], headers: &[(&str, &str)]) -> Answer {
        self.call("PUT", path, &[&[("content-type", WASM)], headers].concat(), wasm).await
    }

    /// A topic whose transactions nobody asks about.
    pub(crate) async fn transaction_topic(&self, name: &str) {
        let settings = serde_json::json!({"type": "transaction", "transaction": {"max_checks": 0}});
        self.put(&format!("/v1/topics/{name}"), settings).await.is(201);
    }

    /// Stores a half message and returns the id of its transaction.
    pub(crate) async fn half(&self, topic: &str, message_id: &str) -> String {
        let half = NewMessage { kind: MessageKind::Transaction, ..message(message_id, b"body") };
        match self.send(topic, half).await {
            Receipt::Prepared { transaction } => transaction.to_string(),
            receipt => panic!("a half message was stored as a plain one: {receipt:?}"),
        }
    }

    pub(crate) async fn send(&self, topic: &str, message: NewMessage) -> Receipt {
        let topic = ResourceName::plain(topic);
        let request = SendRequest { topic, producer: "producer-1".to_owned(), messages: vec![message] };
        self.node.messages.send(request).await.unwrap()[0]
    }
}

pub(crate) fn message(id: &str, body: &[u8]) -> NewMessage {
    NewMessage {
        message_id: id.to_owned(),
        tag: Some("created".to_owned()),
        keys: vec![format!("key-{id}")],
        properties: vec![("shop".to_owned(), "7".to_owned())],
        kind: MessageKind::Normal,
        encoding: BodyEncoding::Identity,
        born_at: Millis(1_700_000_000_007),
        born_host: "till-3".to_owned(),
        trace_context: None,
        message_group: None,
        deliver_at: None,
        recovery_ms: None,
        body: Bytes::copy_from_slice(body),
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| {
            panic!("no HTTP answer: {:?}", String::from_utf8_lossy(bytes));
        });
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        let headers = lines.map(header).collect();
        let answer = Self { status, headers, body: bytes[end + 4..].to_vec() };
        if let Some(length) = answer.header("content-length") {
            assert!(answer.body.is_empty() || length == answer.body.len().to_string(), "the body is whole");
        }
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// Checks the status and goes on.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// Checks that this is a problem with this status and name, and returns its document.
    #[track_caller]
    pub(crate) fn expect_problem(self, status: u16, name: &str) -> Value {
        let answer = self.is(status);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let problem = answer.json();
        assert_eq!(problem["type"], format!("urn:vouch:error:{name}"), "{problem}");
        assert_eq!(problem["status"], status);
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{problem}");
        problem
    }

    /// The entity tag, in its quotes.
    pub(crate) fn etag(&self) -> String {
        self.header("etag").unwrap_or_else(|| panic!("no ETag: {:?}", self.headers)).to_owned()
    }
}

/// The sentence of a problem.
pub(crate) fn detail(problem: &Value) -> &str {
    problem["detail"].as_str().unwrap()
}

/// One member of each item of a list.
pub(crate) fn each<'a>(list: &'a Value, member: &str) -> Vec<&'a str> {
    list["items"].as_array().unwrap().iter().map(|item| item[member].as_str().unwrap()).collect()
}
