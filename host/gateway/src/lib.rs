//! The edges: gRPC service, HTTP API, TLS.

mod grpc;
mod listener;
mod tls;

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use vouch_node::Node;

pub use listener::{CONNECTIONS_MAX, DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT, STREAMS_MAX};
pub use tls::{Certificate, TlsError};

/// Where the edges listen.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// gRPC, plaintext and TLS on the same port; port 0 takes a free one.
    pub grpc_addr: SocketAddr,
    /// Certificate of the gRPC port.
    pub certificate: Certificate,
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
}

/// The running edges of a node.
#[derive(Debug)]
pub struct Gateway {
    /// Where gRPC clients connect.
    pub grpc_addr: SocketAddr,
    stop: watch::Sender<bool>,
    grpc: JoinHandle<()>,
}

impl Gateway {
    /// Stops: no new connections, long polls are answered at once, telemetry streams end, and what is in flight has
    /// [`DRAIN_TIMEOUT`] to finish.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.grpc.await {
            tracing::error!(%error, "the gRPC port ended by a defect");
        }
    }
}

/// Opens the ports and serves the node until [`Gateway::shutdown`]. The node is ready before this is called.
pub async fn serve(node: Node, config: GatewayConfig) -> Result<Gateway, ServeError> {
    let tls = TlsAcceptor::from(tls::server_config(&config.certificate)?);
    let (listener, grpc_addr) = listen(config.grpc_addr).await?;
    let (stop, stopping) = watch::channel(false);
    let services = grpc::Services(grpc::Shared::new(node, grpc_addr, stopping.clone()));
    let grpc = tokio::spawn(listener::serve(listener, tls, services, stopping));
    Ok(Gateway { grpc_addr, stop, grpc })
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
