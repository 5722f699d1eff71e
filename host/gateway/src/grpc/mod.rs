//! The service `apache.rocketmq.v2.MessagingService`: each call from metadata to answer.
//!
//! Results travel in the `status` of an ordinary answer; a gRPC error is for what is not built and for broken streams.
//!
//! A call goes through these hands: `gate` (does the node serve yet), `layer` and `inbound` (its bytes, counted), the
//! generated service, `service` (metadata apart, the call to its module), and on the way out `answer` (code and
//! sentence) and `trailer` (its bytes, counted again).

mod answer;
mod aside;
mod caller;
mod calls;
mod gate;
mod inbound;
mod large;
mod layer;
mod lease;
mod receive;
mod route;
mod send;
mod service;
mod session;
mod span;
mod telemetry;
mod trailer;
mod transaction;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use vouch_broker::Millis;
use vouch_node::{Node, StartProgress};
use vouch_protocol::HandleKey;

use crate::listener::{Connect, stopped};
use crate::outbound::ConnectionOutbound;
use aside::Aside;
pub(crate) use calls::Calls;
use gate::Gate;
use inbound::Inbound;
use large::LargeMessages;
use trailer::AnswerBody;

/// What all connections share.
pub(crate) struct GrpcShared {
    /// Does what is asked for.
    node: Node,
    /// Seals receipt handles and opens them.
    handles: HandleKey,
    /// What is being received.
    inbound: Arc<Inbound>,
    /// Where bodies are decompressed and digested.
    aside: Aside,
    /// Where messages travel alone.
    large: LargeMessages,
    /// What was answered, for `/metrics`.
    calls: Arc<Calls>,
    /// Address of this node, as messages name it.
    store_host: String,
    /// Shortest lease that a receive may ask for.
    receive_invisible_min: Duration,
    stopping: watch::Receiver<bool>,
}

impl GrpcShared {
    /// For a node that serves at `address`.
    pub(crate) fn new(
        node: Node,
        address: SocketAddr,
        receive_invisible_min: Duration,
        stopping: watch::Receiver<bool>,
    ) -> Arc<Self> {
        let handles = HandleKey::new(&node.identity.handle_key);
        let inbound = Inbound::new(node.status.bytes_in_flight_max());
        let store_host = address.to_string();
        let (aside, large) = (Aside::default(), LargeMessages::default());
        let calls = Arc::default();
        Arc::new(Self { node, handles, inbound, aside, large, calls, store_host, receive_invisible_min, stopping })
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
#[derive(Clone)]
pub(crate) struct Services {
    /// Empty until the node serves.
    served: Arc<OnceLock<Arc<GrpcShared>>>,
    /// How far the start is until then.
    progress: Arc<StartProgress>,
}

impl Services {
    /// For a node that starts.
    pub(crate) fn new(progress: Arc<StartProgress>) -> Self {
        Self { served: Arc::default(), progress }
    }

    /// From now on calls are served, also on connections that are open already.
    pub(crate) fn serve(&self, shared: Arc<GrpcShared>) {
        self.served.get_or_init(|| shared);
    }
}

impl Connect for Services {
    type Body = AnswerBody;
    type Service = Gate;

    fn connect(&self, peer: SocketAddr, outbound: Arc<ConnectionOutbound>) -> Gate {
        Gate::new(self.served.clone(), self.progress.clone(), peer.ip(), outbound)
    }
}

/// The service as one peer sees it.
pub(crate) struct Messaging {
    shared: Arc<GrpcShared>,
    /// Where it is.
    address: IpAddr,
    /// The same as text: the born host of its messages.
    peer: String,
}

/// The wall clock, for times that are told and not recorded.
fn wall_clock() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
