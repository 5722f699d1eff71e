//! The edges: gRPC service, HTTP API, TLS.

mod accept;
mod connections;
mod grpc;
mod http;
mod listener;
mod outbound;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use vouch_node::Node;

use outbound::Outbound;

pub use connections::{
    Connections, DESCRIPTORS_MIN, DESCRIPTORS_RESERVED, GRPC_CONNECTIONS_DEFAULT, HTTP_CONNECTIONS_MAX,
};
pub use http::{
    DoorError, HTTP_HEAD_TIMEOUT, HTTP_OUTBOUND_MAX_BYTES, IDLE_MIN, PROBE_CONNECTIONS, PROBE_TIMEOUT, PROBES,
    SMALL_ANSWER_BYTES, TOKEN_MAX_BYTES,
};
pub use listener::{CONNECTION_OUTBOUND_MAX_BYTES, DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT, OUTBOUND_MAX_BYTES, STREAMS_MAX};
pub use tls::{Certificate, TlsError};

/// Where the edges listen.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// gRPC, plaintext and TLS on the same port; port 0 takes a free one.
    pub grpc_addr: SocketAddr,
    /// Certificate of the gRPC port.
    pub certificate: Certificate,
    /// The HTTP API; port 0 takes a free one.
    pub http_addr: SocketAddr,
    /// Token that HTTP requests must carry, as `authorization: Bearer …`.
    pub http_token: Option<String>,
    /// HTTP beyond loopback without a token is meant (ruling 25).
    pub insecure: bool,
    /// Further names by which HTTP clients, and pages in browsers, may call this server.
    pub http_hosts: Vec<String>,
    /// Most connections at once.
    pub connections: Connections,
    /// Shortest lease that a receive may ask for; see [`vouch_protocol::limits::RECEIVE_INVISIBLE_LEAST`].
    pub receive_invisible_min: Duration,
}

impl GatewayConfig {
    /// Default settings for two addresses: no token, no further names, a self-signed certificate kept in
    /// `./vouch-data/tls`.
    pub fn new(grpc_addr: SocketAddr, http_addr: SocketAddr) -> Self {
        Self {
            grpc_addr,
            certificate: Certificate::SelfSigned { folder: "./vouch-data/tls".into() },
            http_addr,
            http_token: None,
            insecure: false,
            http_hosts: Vec::new(),
            connections: Connections::default(),
            receive_invisible_min: vouch_protocol::limits::RECEIVE_INVISIBLE_MIN,
        }
    }
}

/// Why the edges do not start. The operator should correct the setting named.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}; choose another address, or port 0 for any free one")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP API may not be served like this.
    #[error(transparent)]
    Door(#[from] DoorError),
}

/// The running edges of a node.
#[derive(Debug)]
pub struct Gateway {
    grpc_addr: SocketAddr,
    http_addr: SocketAddr,
    stop: watch::Sender<bool>,
    grpc: JoinHandle<()>,
    http: JoinHandle<()>,
}

impl Gateway {
    /// Where gRPC clients connect.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where HTTP clients connect.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Stops: no new connections, long polls are answered at once, telemetry streams end, and what is in flight has
    /// [`DRAIN_TIMEOUT`] to finish.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        for (port, ended) in [("gRPC", self.grpc), ("HTTP", self.http)] {
            if let Err(error) = ended.await {
                tracing::error!(port, %error, "a port ended by a defect");
            }
        }
    }
}

impl GatewayConfig {
    /// Checks what can be checked before a node is started and a folder is made: the HTTP door, and an operator's own
    /// certificate.
    ///
    /// # Errors
    /// What [`serve`] would refuse.
    pub fn check(&self) -> Result<(), ServeError> {
        self.door()?;
        if matches!(self.certificate, Certificate::Files { .. }) {
            tls::server_config(&self.certificate)?;
        }
        Ok(())
    }

    fn door(&self) -> Result<http::Door, DoorError> {
        http::Door::new(self.http_addr, self.http_token.clone(), self.insecure, &self.http_hosts)
    }
}

/// Both ports, taken and not listened on yet: that a port is in use is told before a node is started, and who connects
/// before the node is ready is refused.
#[derive(Debug)]
pub struct Ports {
    grpc: (SocketAddr, TcpSocket),
    http: (SocketAddr, TcpSocket),
}

impl GatewayConfig {
    /// Takes both ports.
    ///
    /// # Errors
    /// [`ServeError::Listen`]: the system refuses one.
    pub fn bind(&self) -> Result<Ports, ServeError> {
        Ok(Ports { grpc: bind(self.grpc_addr)?, http: bind(self.http_addr)? })
    }
}

fn bind(address: SocketAddr) -> Result<(SocketAddr, TcpSocket), ServeError> {
    let take = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Connections of an earlier run may still be closing.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    };
    take().map(|socket| (address, socket)).map_err(|source| ServeError::Listen { address, source })
}

/// Takes the ports and serves the node until [`Gateway::shutdown`]. The node is ready before this is called.
pub async fn serve(node: Node, config: GatewayConfig) -> Result<Gateway, ServeError> {
    let ports = config.bind()?;
    serve_on(node, config, ports).await
}

/// As [`serve()`], on ports that were taken before.
pub async fn serve_on(node: Node, config: GatewayConfig, ports: Ports) -> Result<Gateway, ServeError> {
    let tls = TlsAcceptor::from(tls::server_config(&config.certificate)?);
    let door = config.door()?;
    let (grpc_listener, grpc_addr) = listen(ports.grpc)?;
    let (http_listener, http_addr) = listen(ports.http)?;
    let (stop, stopping) = watch::channel(false);
    let shared = grpc::Shared::new(node.clone(), grpc_addr, config.receive_invisible_min, stopping.clone());
    let calls = shared.calls();
    let services = grpc::Services(shared);
    let outbound = Outbound::new(OUTBOUND_MAX_BYTES, CONNECTION_OUTBOUND_MAX_BYTES);
    let grpc_bounds = (config.connections.grpc, Arc::clone(&outbound));
    let places = http::Places::new(config.connections.http);
    let grpc = tokio::spawn(listener::serve(grpc_listener, tls, services, grpc_bounds, stopping.clone()));
    let router = http::router(node, door, (grpc_addr, outbound, calls), stopping.clone());
    let http = tokio::spawn(http::serve(http_listener, router, places, stopping));
    Ok(Gateway { grpc_addr, http_addr, stop, grpc, http })
}

fn listen((address, socket): (SocketAddr, TcpSocket)) -> Result<(TcpListener, SocketAddr), ServeError> {
    /// Connections that wait to be accepted, at most.
    const BACKLOG: u32 = 1024;
    let failed = |source| ServeError::Listen { address, source };
    let listener = socket.listen(BACKLOG).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
