//! The edges: gRPC service, HTTP API, TLS.
//!
//! Both ports are taken before the node starts ([`GatewayConfig::bind`]) and answer from then on ([`open`]): probes are
//! told how far the start is, and everything else is told to try again. What waits for clients is bounded on each port
//! by itself, in bytes and in time, so that nobody who reads nothing costs others more than their wait.

mod accept;
mod connections;
mod grpc;
mod http;
mod listener;
mod outbound;
mod tls;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vouch_node::{Node, StartProgress};

use outbound::Outbound;

pub use connections::{
    Connections, DESCRIPTORS_MIN, DESCRIPTORS_RESERVED, GRPC_CONNECTIONS_DEFAULT, HTTP_CONNECTIONS_MAX,
};
pub use http::{
    DoorError, HTTP_HEAD_TIMEOUT, HTTP_OUTBOUND_ADDRESS_MAX_BYTES, HTTP_OUTBOUND_MAX_BYTES, IDLE_MIN,
    PROBE_CONNECTIONS, PROBE_TIMEOUT, PROBES, SMALL_ANSWER_BYTES, TOKEN_MAX_BYTES,
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
    pub insecure_http: bool,
    /// gRPC beyond loopback, where nobody asks clients who they are, is meant (ruling 25).
    pub insecure_grpc: bool,
    /// Further names by which HTTP clients, and pages in browsers, may call this server.
    pub http_hosts: Vec<String>,
    /// Most connections at once.
    pub connections: Connections,
    /// Shortest lease that a receive may ask for; see [`vouch_protocol::limits::RECEIVE_INVISIBLE_LEAST`].
    pub receive_invisible_min: Duration,
}

impl GatewayConfig {
    /// Default settings for two addresses and a certificate: no token, no further names, nothing insecure.
    pub fn new(grpc_addr: SocketAddr, http_addr: SocketAddr, certificate: Certificate) -> Self {
        Self {
            grpc_addr,
            certificate,
            http_addr,
            http_token: None,
            insecure_http: false,
            insecure_grpc: false,
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
    /// Both ports cannot have one address.
    #[error("grpc_addr and http_addr are both {0}; choose another port for one of them")]
    SameAddress(SocketAddr),
    /// Anybody in the network could send, receive and end transactions.
    #[error(
        "gRPC at {0} would be open to the network, and gRPC clients are not asked yet who they are: say that this is meant \
         (insecure_grpc = true, --insecure-grpc), on a network where only your own programs reach the port, or listen on \
         127.0.0.1"
    )]
    OpenGrpc(SocketAddr),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP API may not be served like this.
    #[error(transparent)]
    Door(#[from] DoorError),
}

/// The running edges of a node.
///
/// It holds no node until [`Gateway::serve`] gives it one, and should be stopped with [`Gateway::shutdown`]: dropping it stops both ports, too, and waits for nothing.
pub struct Gateway {
    grpc_addr: SocketAddr,
    http_addr: SocketAddr,
    config: Mutex<GatewayConfig>,
    doors: Arc<http::Doors>,
    tls: watch::Sender<Option<tls::LoadedCertificate>>,
    services: grpc::Services,
    api: http::Api,
    outbound: Arc<Outbound>,
    http_outbound: Arc<http::HttpOutbound>,
    stop: watch::Sender<bool>,
    grpc: JoinHandle<()>,
    http: JoinHandle<()>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("grpc", &self.grpc_addr).field("http", &self.http_addr).finish_non_exhaustive()
    }
}

/// What changed with [`Gateway::take_over`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// New connections get another certificate.
    pub certificate: bool,
    /// Requests are held against another token, or other names.
    pub door: bool,
}

/// Reads other settings for a running [`Gateway`], wherever reading may take long.
#[derive(Debug)]
pub struct Rereading {
    running: GatewayConfig,
    /// It has a certificate.
    certified: bool,
}

impl Rereading {
    /// Reads what these settings name, and checks it. Addresses and bounds stay those of the gateway; files are read anew,
    /// and none is made.
    ///
    /// # Errors
    /// What [`GatewayConfig::check`] refuses; or there is no self-signed certificate to use instead of the one in use.
    pub fn read(&self, settings: &GatewayConfig) -> Result<Reread, ServeError> {
        let GatewayConfig { grpc_addr, http_addr, connections, receive_invisible_min, .. } = self.running;
        let config = GatewayConfig { grpc_addr, http_addr, connections, receive_invisible_min, ..settings.clone() };
        config.check_doors()?;
        let door = config.door()?;
        let loaded = tls::load_again(&config.certificate, self.certified)?;
        Ok(Reread { config, door, loaded })
    }
}

/// Other settings that were read and are right: nothing can fail any more when [`Gateway::take_over`] takes them.
#[derive(Debug)]
pub struct Reread {
    config: GatewayConfig,
    door: http::Door,
    loaded: Option<tls::LoadedCertificate>,
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

    /// Serves a node from now on, on connections that are open already, too.
    ///
    /// # Errors
    /// [`ServeError::Tls`]: the self-signed certificate cannot be made.
    pub fn serve(&self, node: Node) -> Result<(), ServeError> {
        if self.tls.borrow().is_none() {
            let certificate = self.config().certificate.clone();
            let loaded = tls::load(&certificate)?;
            self.tls.send_replace(Some(loaded));
        }
        let stopping = self.stop.subscribe();
        let least = self.config().receive_invisible_min;
        let shared = grpc::GrpcShared::new(node.clone(), self.grpc_addr, least, stopping.clone());
        let waiting = (self.grpc_addr, self.outbound.clone(), shared.calls());
        self.services.serve(shared);
        let router = http::router(node, self.doors.clone(), waiting, self.http_outbound.clone(), stopping);
        self.api.serve(router);
        Ok(())
    }

    /// Reads other settings and takes them over, all or nothing; blocks while files are read.
    ///
    /// # Errors
    /// What [`Rereading::read`] refuses; then nothing is changed.
    pub fn reload(&self, settings: &GatewayConfig) -> Result<Reloaded, ServeError> {
        self.rereading().read(settings).map(|read| self.take_over(read))
    }

    /// Reads other settings for this gateway.
    pub fn rereading(&self) -> Rereading {
        Rereading { running: self.config().clone(), certified: self.tls.borrow().is_some() }
    }

    /// Takes over the certificate, the token and the names of other settings. New connections get the new certificate, and
    /// the next request meets the new token.
    pub fn take_over(&self, Reread { config, door, loaded }: Reread) -> Reloaded {
        *self.config() = config;
        let mut reloaded = Reloaded { door: self.doors.set(door), certificate: false };
        if let Some(loaded) = loaded {
            let before = self.tls.send_replace(Some(loaded.clone()));
            reloaded.certificate = before.is_none_or(|before| loaded.differs(&before));
        }
        reloaded
    }

    /// The settings that hold now; a reload replaces them as a whole.
    fn config(&self) -> MutexGuard<'_, GatewayConfig> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Checks what can be checked before a port is taken and a folder is made: who may come in, and the certificate, if it
    /// is there.
    ///
    /// # Errors
    /// What [`open`] would refuse.
    pub fn check(&self) -> Result<(), ServeError> {
        if self.grpc_addr == self.http_addr && self.grpc_addr.port() != 0 {
            return Err(ServeError::SameAddress(self.grpc_addr));
        }
        self.check_doors()?;
        tls::load_kept(&self.certificate)?;
        Ok(())
    }

    /// Who may come in, on both ports.
    fn check_doors(&self) -> Result<(), ServeError> {
        self.door()?;
        if !self.grpc_addr.ip().to_canonical().is_loopback() && !self.insecure_grpc {
            return Err(ServeError::OpenGrpc(self.grpc_addr));
        }
        Ok(())
    }

    /// Checks whether this machine has both addresses and lets this process listen there. That somebody listens already is
    /// no fault of the settings.
    ///
    /// # Errors
    /// [`ServeError::Listen`].
    ///
    /// The ports are taken for a moment and given back.
    pub fn check_addresses(&self) -> Result<(), ServeError> {
        [self.grpc_addr, self.http_addr].into_iter().try_for_each(|address| match bind(address) {
            Err(ServeError::Listen { source, .. }) if source.kind() == std::io::ErrorKind::AddrInUse => Ok(()),
            bound => bound.map(drop),
        })
    }

    /// The rules of the HTTP port.
    fn door(&self) -> Result<http::Door, DoorError> {
        http::Door::new(self.http_addr, self.http_token.clone(), self.insecure_http, &self.http_hosts)
    }
}

/// Both ports, taken and not listened on yet: that a port is in use is told before a node is started.
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

/// Takes an address without listening on it: clients are refused until somebody listens.
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

/// Takes the ports and serves the node until [`Gateway::shutdown`].
///
/// # Errors
/// What [`GatewayConfig::check`] and [`GatewayConfig::bind`] refuse; or the self-signed certificate cannot be made.
pub async fn serve(node: Node, config: GatewayConfig) -> Result<Gateway, ServeError> {
    config.check()?;
    let ports = config.bind()?;
    let gateway = open(config, ports, Arc::default())?;
    gateway.serve(node)?;
    Ok(gateway)
}

/// Listens on ports that were taken before, for a node that starts: until [`Gateway::serve`] probes are told how far it is, and
/// everything else that it is to be tried again. Needs a tokio runtime around it.
///
/// # Errors
/// What [`GatewayConfig::check`] refuses, or the system refuses to listen.
pub fn open(config: GatewayConfig, ports: Ports, progress: Arc<StartProgress>) -> Result<Gateway, ServeError> {
    config.check()?;
    let doors = http::Doors::new(config.door()?);
    let (tls, current_tls) = tls::Tls::new(tls::load_kept(&config.certificate)?);
    let (grpc_listener, grpc_addr) = listen(ports.grpc)?;
    let (http_listener, http_addr) = listen(ports.http)?;
    let (stop, stopping) = watch::channel(false);
    let services = grpc::Services::new(progress.clone());
    let outbound = Outbound::new(OUTBOUND_MAX_BYTES, CONNECTION_OUTBOUND_MAX_BYTES);
    let grpc_bounds = (config.connections.grpc, Arc::clone(&outbound));
    let grpc = listener::serve(grpc_listener, current_tls, services.clone(), grpc_bounds, stopping.clone());
    let (places, http_outbound) = (http::Places::new(config.connections.http), http::HttpOutbound::new());
    let api = http::Api::new(doors.clone(), progress);
    let http = http::serve(http_listener, api.clone(), places, http_outbound.clone(), stopping);
    let (grpc, http) = (tokio::spawn(grpc), tokio::spawn(http));
    let config = Mutex::new(config);
    Ok(Gateway { grpc_addr, http_addr, config, doors, tls, services, api, outbound, http_outbound, stop, grpc, http })
}

/// Listens on an address that was taken, and says which port it became.
fn listen((address, socket): (SocketAddr, TcpSocket)) -> Result<(TcpListener, SocketAddr), ServeError> {
    /// Connections that wait to be accepted, at most.
    const BACKLOG: u32 = 1024;
    let failed = |source| ServeError::Listen { address, source };
    let listener = socket.listen(BACKLOG).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
