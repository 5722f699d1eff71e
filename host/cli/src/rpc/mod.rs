//! A gRPC session as an official client has it: headers on every call, Settings first, heartbeats, a farewell.
//!
//! The commands use it for single messages, the demo for its producer and consumer, `vouch bench` for its headers.
//! Calls have 3 s, as with official clients; who waits longer is told, and the call may have happened all the same.

pub(crate) mod calls;
mod failed;
mod ids;

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status as GrpcStatus, Streaming};
use vouch_broker::ResourceName;
use vouch_protocol::wire::messaging_service_client::MessagingServiceClient;
use vouch_protocol::wire::{self, telemetry_command::Command};

use crate::config::GRPC_ADDR;
use crate::failure::WrongUsage;
pub(crate) use failed::{check, transport, wrong_port};
use failed::{or_wrong_port, refused, silent, source_text, unreachable_node};
use ids::client_id;
pub(crate) use ids::message_id;

/// How long a connection, a Settings exchange or a unary call may take: what official clients allow.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How often an open session reports itself.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);
/// Commands of the broker that wait to be read; nobody reads more than the first.
const COMMANDS_WAITING: usize = 8;

/// Where the gRPC service is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GrpcArgs {
    /// Address of the node's gRPC service.
    #[arg(long, env = "VOUCH_GRPC_ADDR", value_name = "ADDR", default_value = GRPC_ADDR)]
    pub(crate) grpc: String,
}

/// What the session is for.
#[derive(Clone, Debug)]
pub(crate) enum RpcRole {
    /// Sends to these topics.
    Producer { topics: Vec<String> },
    /// Receives from a topic for a group, message by message.
    SimpleConsumer { group: String, topic: String, expression: String },
}

/// The stub with the session's headers.
pub(crate) type MessagingStub = MessagingServiceClient<InterceptedService<Channel, Headers>>;

/// Adds what every call of a client carries.
#[derive(Clone)]
pub(crate) struct Headers {
    client_id: MetadataValue<Ascii>,
}

impl Headers {
    /// Headers of one of many clients of this process.
    pub(crate) fn numbered(number: u32) -> Self {
        let client_id = format!("{}@{number}", client_id()).parse().expect("made of visible ASCII characters");
        Self { client_id }
    }
}

impl Interceptor for Headers {
    /// Puts the headers on a call.
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, GrpcStatus> {
        let headers = request.metadata_mut();
        headers.insert("x-mq-client-id", self.client_id.clone());
        headers.insert("x-mq-language", MetadataValue::from_static("RUST"));
        headers.insert("x-mq-client-version", MetadataValue::from_static(env!("CARGO_PKG_VERSION")));
        headers.insert("x-mq-protocol", MetadataValue::from_static("v2"));
        Ok(request)
    }
}

/// One client instance of one node.
pub(crate) struct RpcSession {
    /// For calls.
    pub(crate) client: MessagingStub,
    role: RpcRole,
    heartbeat: JoinHandle<()>,
    /// Keeps our half of the telemetry stream open.
    _telemetry: mpsc::Sender<wire::TelemetryCommand>,
}

impl RpcSession {
    /// Connects and exchanges Settings.
    ///
    /// # Errors
    /// A problem that says how to reach a node, or the broker's refusal of the settings.
    pub(crate) async fn open(address: &str, role: RpcRole) -> anyhow::Result<Self> {
        Self::open_as(Headers::numbered(0), address, role).await
    }

    /// The same as a client that the broker knows already, from another session. A message that it sends again under the same id
    /// is stored once.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn open_as(headers: Headers, address: &str, role: RpcRole) -> anyhow::Result<Self> {
        Self::open_on(connect(address).await?, headers, address, role).await
    }

    /// Exchanges Settings.
    async fn open_on(channel: Channel, headers: Headers, address: &str, role: RpcRole) -> anyhow::Result<Self> {
        let mut client = MessagingServiceClient::with_interceptor(channel, headers).max_decoding_message_size(64 << 20);
        let (telemetry, outgoing) = mpsc::channel(COMMANDS_WAITING);
        telemetry.send(settings(&role)).await.map_err(|_| anyhow::anyhow!("the telemetry stream closed"))?;
        let exchange = exchange_settings(&mut client, outgoing);
        let incoming = match tokio::time::timeout(ANSWER_WITHIN, exchange).await {
            Err(_) => return Err(silent(address)),
            Ok(Err(error)) => return Err(or_wrong_port(address, error).await),
            Ok(Ok(incoming)) => incoming,
        };
        let heartbeat = tokio::spawn(keep_alive(client.clone(), role.clone(), incoming));
        Ok(Self { client, role, heartbeat, _telemetry: telemetry })
    }

    /// Opens a session, does something in it and closes it, whatever comes of that: done, refused, or interrupted (Ctrl-C).
    ///
    /// # Errors
    /// As [`Self::open`]; what the work says; that it was interrupted.
    pub(crate) async fn with<T>(
        address: &str,
        role: RpcRole,
        work: impl AsyncFnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        // Listened for before the broker can know the session: a process that ended in between would leave it behind.
        let mut interrupts = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
        let interrupted = || anyhow::anyhow!("interrupted");
        let channel = tokio::select! {
            channel = connect(address) => channel?,
            _ = interrupts.recv() => return Err(interrupted()),
        };
        // The exchange is short, and is waited for: the broker may know the session before its answer is here.
        let mut session = Self::open_on(channel, Headers::numbered(0), address, role).await?;
        let done = tokio::select! {
            done = work(&mut session) => done,
            _ = interrupts.recv() => Err(interrupted()),
        };
        session.close().await;
        done
    }

    /// Says goodbye, so that the broker forgets the session at once.
    pub(crate) async fn close(mut self) {
        self.say_goodbye().await;
    }

    /// As [`Self::close`], for a session that several may hold; it is good for nothing any more.
    pub(crate) async fn say_goodbye(&mut self) {
        self.heartbeat.abort();
        let farewell = wire::NotifyClientTerminationRequest { group: self.role.group() };
        // A farewell that is lost costs nothing: the broker forgets silent sessions.
        let _ = self.client.notify_client_termination(unary(farewell)).await;
    }
}

/// One that is dropped without a farewell sends no heartbeats any more: its node is gone, or forgets it after a while.
impl Drop for RpcSession {
    fn drop(&mut self) {
        self.heartbeat.abort();
    }
}

impl RpcRole {
    /// The group of a consumer; producers have none.
    fn group(&self) -> Option<wire::Resource> {
        match self {
            Self::Producer { .. } => None,
            Self::SimpleConsumer { group, .. } => Some(resource(group)),
        }
    }

    /// What the client says it is.
    fn client_type(&self) -> wire::ClientType {
        match self {
            Self::Producer { .. } => wire::ClientType::Producer,
            Self::SimpleConsumer { .. } => wire::ClientType::SimpleConsumer,
        }
    }
}

/// What of an address is host and port.
fn host_of(address: &str) -> &str {
    let address = address.trim();
    address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/')
}

/// Opens an HTTP/2 connection in plain text.
///
/// # Errors
/// [`WrongUsage`]: the address is none. A [`ProblemAnswer`](crate::failure::ProblemAnswer) that says how to start or
/// name a node: nobody answers there.
pub(crate) async fn connect(address: &str) -> anyhow::Result<Channel> {
    let host = host_of(address);
    if host.is_empty() || host.contains(['/', ' ', '@']) || !host.contains(':') {
        return Err(WrongUsage::error(format!(
            "`{address}` is not the address of a gRPC service; write host:port, for example {GRPC_ADDR}"
        )));
    }
    let endpoint = Endpoint::from_shared(format!("http://{host}"))
        .map_err(|error| WrongUsage::error(format!("`{address}` is not an address: {error}")))?;
    let endpoint = endpoint.connect_timeout(ANSWER_WITHIN).tcp_nodelay(true);
    endpoint.connect().await.map_err(|error| unreachable_node(address, &source_text(&error)))
}

/// A request with the time-out that official clients give unary calls.
pub(crate) fn unary<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_WITHIN);
    request
}

/// A name on the wire: `name`, or `namespace/name`.
pub(crate) fn resource(name: &str) -> wire::Resource {
    vouch_protocol::validate::resource(&ResourceName::parse(name))
}

/// The first command on the telemetry stream: who the client is and what it wants.
fn settings(role: &RpcRole) -> wire::TelemetryCommand {
    use wire::settings::PubSub;
    let pub_sub = match role {
        RpcRole::Producer { topics } => PubSub::Publishing(wire::Publishing {
            topics: topics.iter().map(|topic| resource(topic)).collect(),
            ..wire::Publishing::default()
        }),
        RpcRole::SimpleConsumer { group, topic, expression } => PubSub::Subscription(wire::Subscription {
            group: Some(resource(group)),
            subscriptions: vec![wire::SubscriptionEntry {
                topic: Some(resource(topic)),
                expression: Some(filter(expression)),
            }],
            ..wire::Subscription::default()
        }),
    };
    let user_agent = wire::Ua {
        language: wire::Language::Rust as i32,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        platform: std::env::consts::OS.to_owned(),
        hostname: String::new(),
    };
    let settings = wire::Settings {
        client_type: Some(role.client_type() as i32),
        request_timeout: prost_types::Duration::try_from(ANSWER_WITHIN).ok(),
        user_agent: Some(user_agent),
        pub_sub: Some(pub_sub),
        ..wire::Settings::default()
    };
    wire::TelemetryCommand { status: None, command: Some(Command::Settings(settings)) }
}

/// A tag filter on the wire.
pub(crate) fn filter(expression: &str) -> wire::FilterExpression {
    wire::FilterExpression { r#type: wire::FilterType::Tag as i32, expression: expression.to_owned() }
}

/// Waits for the broker's Settings; what comes after them is left in the stream.
///
/// # Errors
/// The node refuses the settings, in its own words, or ends the stream without any.
async fn exchange_settings(
    client: &mut MessagingStub,
    outgoing: mpsc::Receiver<wire::TelemetryCommand>,
) -> anyhow::Result<Streaming<wire::TelemetryCommand>> {
    let answer = client.telemetry(Request::new(ReceiverStream::new(outgoing))).await;
    let mut incoming = answer.map_err(|error| transport(&error))?.into_inner();
    loop {
        let Some(command) = incoming.message().await.map_err(|error| transport(&error))? else {
            return Err(refused("stream closed", 0, "the broker ended the telemetry stream without settings"));
        };
        if matches!(command.command, Some(Command::Settings(_))) {
            check(command.status.as_ref())?;
            return Ok(incoming);
        }
    }
}

/// Heartbeats until the session is dropped; the broker's commands are read and left unanswered, as a client without
/// a checker does.
async fn keep_alive(mut client: MessagingStub, role: RpcRole, mut incoming: Streaming<wire::TelemetryCommand>) {
    // Not at once: most sessions are over by then, and a heartbeat that is under way at the farewell would begin another one.
    let mut timer = tokio::time::interval_at(tokio::time::Instant::now() + HEARTBEAT_EVERY, HEARTBEAT_EVERY);
    let mut open = true;
    loop {
        tokio::select! {
            _ = timer.tick() => {
                let beat = wire::HeartbeatRequest { group: role.group(), client_type: role.client_type() as i32 };
                // A lost heartbeat is followed by the next one.
                let _ = client.heartbeat(unary(beat)).await;
            }
            command = incoming.message(), if open => open = matches!(command, Ok(Some(_))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::ProblemAnswer;

    #[tokio::test]
    async fn what_is_no_address_is_wrong_usage() {
        for address in ["", "broker", "a b:1", "u@h:1", "h:1/x"] {
            assert!(connect(address).await.unwrap_err().is::<WrongUsage>(), "{address}");
        }
    }

    #[tokio::test]
    async fn an_unreachable_node_is_a_problem_with_advice() {
        // Bound and dropped: nobody listens there now.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = connect(&free.to_string()).await.unwrap_err();
        assert!(error.is::<ProblemAnswer>());
        assert!(error.to_string().contains("vouch serve"), "{error}");
    }
}
