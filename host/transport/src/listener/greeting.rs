//! How an acceptor finds out who dialed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::live::{LiveConnections, LivePlace};
use super::repeated::RepeatedRefusals;
use super::room::ServingRoom;
use crate::admission::{self, PeerAdmission};
use crate::answer::HelloAnswer;
use crate::connection::{self, Connection, LanePace};
use crate::counters::{DialedBy, LaneCounters, Traffic};
use crate::hello::{HelloFault, OPENING_BYTES, PeerHello, TRANSPORT_VERSION};
use crate::identity::{Lane, PeerIdentity};
use crate::name::CertificateName;
use crate::settings::{TransportBounds, TransportTiming};
use crate::stream::{self, Stream};
use crate::tls::{self, SecurityState};

/// Who is let in, and who was not.
pub(crate) struct AdmissionGate {
    /// The policy.
    pub(crate) admission: Arc<dyn PeerAdmission>,
    /// Connections that never got as far as frames.
    pub(crate) refused: AtomicU64,
    repeated: RepeatedRefusals,
}

impl AdmissionGate {
    /// Lets in who may by this policy.
    pub(crate) fn new(admission: Arc<dyn PeerAdmission>) -> Self {
        Self { admission, refused: AtomicU64::default(), repeated: RepeatedRefusals::default() }
    }
}

/// What a listener knows of the node that it listens for.
pub(crate) struct Host {
    /// Who is dialed here.
    pub(crate) me: PeerIdentity,
    pub(crate) security: Arc<SecurityState>,
    pub(crate) timing: TransportTiming,
    pub(crate) bounds: TransportBounds,
    /// Who is let in.
    pub(crate) gate: AdmissionGate,
    /// Who is in.
    pub(crate) live: Arc<LiveConnections>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) room: ServingRoom,
}

/// A connection of somebody who is known and let in.
pub(crate) struct Greeted {
    /// What frames go over from here on.
    pub(crate) connection: Connection,
    pub(crate) lane: Lane,
    /// Held as long as anything of the connection is handed on.
    pub(crate) place: LivePlace,
    pub(crate) counters: Arc<LaneCounters>,
}

impl Host {
    /// Who dialed, if that is somebody who may. Nothing else comes of a connection that does not say it in time.
    pub(super) async fn greet(&self, stream: TcpStream, from: SocketAddr) -> Option<Greeted> {
        let limit = self.timing.handshake;
        let greeted = timeout(limit, self.meet(stream)).await;
        match greeted.unwrap_or_else(|_| Err(format!("it did not say who it is within {limit:?}"))) {
            Ok(greeted) => Some(greeted),
            Err(why) => {
                self.gate.refused.fetch_add(1, Relaxed);
                match self.gate.repeated.is_new(from.ip(), &why, Instant::now()) {
                    true => tracing::warn!(%from, why, "a connection to the port for peers was refused"),
                    false => tracing::debug!(%from, why, "a connection to the port for peers was refused again"),
                }
                None
            }
        }
    }

    async fn meet(&self, stream: TcpStream) -> Result<Greeted, String> {
        let lost = |error: std::io::Error| format!("the connection failed: {error}");
        stream.set_nodelay(true).map_err(lost)?;
        match (tls::begins_with_tls(&stream).await.map_err(lost)?, self.security.is_mutual()) {
            (true, false) => {
                // What is written here is no TLS, and that is all the dialer understands of it.
                let why = "it speaks TLS, and this node does not: all nodes need the same setting for it".to_owned();
                return refuse(Box::new(stream), why).await;
            }
            (false, true) => {
                let why = "this node speaks TLS only: all nodes need the same setting for it".to_owned();
                return refuse(Box::new(stream), why).await;
            }
            _ => {}
        }
        let (mut stream, certificate) = self.security.accept(stream).await?;
        let hello = match read_hello(&mut stream).await.map_err(lost)? {
            Ok(hello) => hello,
            Err(HelloFault::Version(theirs)) => {
                let why = format!(
                    "this node speaks version {TRANSPORT_VERSION} of the protocol between nodes, and you speak version {theirs}"
                );
                return refuse(stream, why).await;
            }
            // Nobody who would read a sentence.
            Err(_) => return Err("what it says is no hello of a node".to_owned()),
        };
        match self.admit(&hello, certificate.as_ref()).await {
            Ok(place) => self.welcome(stream, hello, place).await.map_err(lost),
            Err(why) => refuse(stream, why).await,
        }
    }

    async fn admit(&self, hello: &PeerHello, certificate: Option<&CertificateName>) -> Result<LivePlace, String> {
        admission::check(hello, &self.me, certificate)?;
        self.gate.admission.admit(hello, certificate)?;
        let place = self.live.enter(hello.from, hello.lane).await?;
        // Whoever removed the node since then may not have found this connection.
        self.gate.admission.admit(hello, certificate)?;
        Ok(place)
    }

    async fn welcome(&self, mut stream: Stream, hello: PeerHello, place: LivePlace) -> std::io::Result<Greeted> {
        let answer = HelloAnswer::Accepted { by: self.me, nonce: rand::random() };
        stream.write_all(&answer.encode()).await?;
        stream.flush().await?;
        let counters = self.traffic.of(hello.from.node, DialedBy::Peer, hello.lane);
        let pace = if hello.lane == Lane::Files { LanePace::of_pull } else { LanePace::of_asked };
        let seed = connection::seed(&hello, &answer);
        let connection = Connection::new(stream, seed, hello.from, pace(&self.timing), counters.clone());
        Ok(Greeted { connection, lane: hello.lane, place, counters })
    }
}

async fn refuse<T>(mut stream: Stream, why: String) -> Result<T, String> {
    // Who does not read its refusal is refused all the same.
    let _ = stream.write_all(&HelloAnswer::Refused(why.clone()).encode()).await;
    stream::part(stream).await;
    Err(why)
}

/// Reads a hello, and never more than the longest one.
async fn read_hello(stream: &mut Stream) -> std::io::Result<Result<PeerHello, HelloFault>> {
    let mut opening = [0; OPENING_BYTES];
    stream.read_exact(&mut opening).await?;
    let length = match PeerHello::follows(&opening) {
        Ok(length) => length,
        Err(fault) => return Ok(Err(fault)),
    };
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    Ok(PeerHello::decode(&opening, &rest))
}
