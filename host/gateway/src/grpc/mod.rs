//! The service `apache.rocketmq.v2.MessagingService`: each call from metadata to answer.
//!
//! Results travel in the `status` of an ordinary answer; a gRPC error is for what is not built and for broken streams.

mod answer;
mod aside;
mod caller;
mod calls;
mod inbound;
mod large;
mod lease;
mod receive;
mod route;
mod send;
mod service;
mod session;
mod telemetry;
mod trailer;
mod transaction;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use vouch_broker::Millis;
use vouch_node::Node;
use vouch_protocol::HandleKey;
use vouch_protocol::limits::SEND_MAX_BYTES;
use vouch_protocol::wire::messaging_service_server::MessagingServiceServer;

use crate::listener::{Connect, stopped};
use crate::outbound::ConnectionOutbound;
use aside::Aside;
pub(crate) use calls::Calls;
use inbound::Inbound;
use large::LargeMessages;
use lease::GroupNumbers;
use trailer::{AnswerBody, WithTrailer};

/// What all connections share.
pub(crate) struct Shared {
    node: Node,
    handles: HandleKey,
    groups: GroupNumbers,
    inbound: Arc<Inbound>,
    aside: Aside,
    large: LargeMessages,
    calls: Arc<Calls>,
    /// Address of this node, as messages name it.
    store_host: String,
    /// Shortest lease that a receive may ask for.
    receive_invisible_min: Duration,
    stopping: watch::Receiver<bool>,
}

impl Shared {
    pub(crate) fn new(
        node: Node,
        address: SocketAddr,
        receive_invisible_min: Duration,
        stopping: watch::Receiver<bool>,
    ) -> Arc<Self> {
        let handles = HandleKey::new(&node.handle_key());
        let inbound = Inbound::new(node.bytes_in_flight_max());
        let (groups, store_host) = (GroupNumbers::default(), address.to_string());
        let (aside, large) = (Aside::default(), LargeMessages::default());
        let calls = Arc::default();
        Arc::new(Self {
            node,
            handles,
            groups,
            inbound,
            aside,
            large,
            calls,
            store_host,
            receive_invisible_min,
            stopping,
        })
    }

    /// What was answered.
    pub(crate) fn calls(&self) -> Arc<Calls> {
        Arc::clone(&self.calls)
    }

    /// Resolves when the node stops. Long polls answer then, and telemetry streams end.
    fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping.clone();
        async move { stopped(&mut stopping).await }
    }
}

/// Gives each connection its service.
pub(crate) struct Services(pub(crate) Arc<Shared>);

impl Connect for Services {
    type Body = AnswerBody;
    type Service = WithTrailer<MessagingServiceServer<Messaging>>;

    fn connect(&self, peer: SocketAddr, outbound: Arc<ConnectionOutbound>) -> Self::Service {
        let (shared, address) = (Arc::clone(&self.0), peer.ip());
        let messaging = Messaging { shared, address, peer: address.to_string() };
        let service = MessagingServiceServer::new(messaging).max_decoding_message_size(SEND_MAX_BYTES);
        WithTrailer::new(service, self.0.inbound.connection(), outbound)
    }
}

/// The service as one peer sees it.
pub(crate) struct Messaging {
    shared: Arc<Shared>,
    address: IpAddr,
    peer: String,
}

/// The wall clock, for times that are told and not recorded.
fn wall_clock() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
