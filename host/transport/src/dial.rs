//! How this node dials another.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::answer::HelloAnswer;
use crate::connection::{self, Connection, LanePace};
use crate::counters::LaneCounters;
use crate::hello::{OPENING_BYTES, PeerHello};
use crate::identity::{ANY_NODE, Lane, PeerIdentity};
use crate::name::CertificateName;
use crate::settings::TransportTiming;
use crate::stream::Stream;
use crate::tls::{self, SecurityState};

/// Stands in [`crate::LinkState::Down`] before the sentence with which the other node refuses a connection.
pub const REFUSES: &str = "it refuses: ";

/// Dials other nodes as this one. It holds no connection: whoever dials gets it.
pub(crate) struct Dialer {
    /// Who dials.
    pub(crate) me: PeerIdentity,
    pub(crate) security: Arc<SecurityState>,
    pub(crate) timing: TransportTiming,
    /// Shown in each hello.
    pub(crate) credential: Mutex<Bytes>,
}

impl Dialer {
    /// A connection to a node for a lane.
    ///
    /// # Errors
    /// A sentence for the operator, with the address in it; what the acceptor says is passed on.
    pub(crate) async fn dial(
        &self,
        node: u64,
        lane: Lane,
        address: &str,
        counters: &Arc<LaneCounters>,
    ) -> Result<Connection, String> {
        let limit = self.timing.handshake;
        let connection = timeout(limit, self.connect(node, lane, address, counters)).await;
        let connection = connection.unwrap_or_else(|_| Err(format!("it does not answer within {limit:?}")));
        connection.map_err(|why| format!("node {node} at {address}: {why}"))
    }

    async fn connect(
        &self,
        node: u64,
        lane: Lane,
        address: &str,
        counters: &Arc<LaneCounters>,
    ) -> Result<Connection, String> {
        let stream = reach(address, self.timing.handshake).await?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (mut stream, certificate) = self.security.connect(stream).await?;
        if let Some(name) = certificate {
            self.check(&name, node)?;
        }
        let credential = self.credential.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let nonce = rand::random();
        let hello = PeerHello { lane, from: self.me, to_node: node, to_incarnation: 0, nonce, credential };
        let written = async {
            stream.write_all(&hello.encode()).await?;
            stream.flush().await
        };
        // Who refuses our certificate may have closed already, and its reason waits to be read.
        let written = written.await;
        let answer = match (read_answer(&mut stream).await, written) {
            (Ok(answer), _) => answer,
            (Err(error), _) => return Err(tls::said(&error)),
        };
        match answer {
            HelloAnswer::Refused(why) => Err(format!("{REFUSES}{why}")),
            HelloAnswer::Accepted { by, .. } => {
                self.check_answer(&by, node, certificate)?;
                let pace = if lane == Lane::Files { LanePace::of_pull } else { LanePace::of_asked };
                let seed = connection::seed(&hello, &answer);
                Ok(Connection::new(stream, seed, by, pace(&self.timing), counters.clone()))
            }
        }
    }

    /// Whether the certificate is that of the node that is meant.
    fn check(&self, name: &CertificateName, node: u64) -> Result<(), String> {
        if name.cluster != self.me.cluster {
            return Err(format!("its certificate is that of another cluster ({name})"));
        }
        if name.node != node && node != ANY_NODE {
            return Err(format!("its certificate is that of {name}: another node answers there"));
        }
        Ok(())
    }

    /// An acceptor checked all of this already. One that did not is not one of ours.
    fn check_answer(&self, by: &PeerIdentity, node: u64, certificate: Option<CertificateName>) -> Result<(), String> {
        let is_ours = (by.cluster, by.cluster_incarnation) == (self.me.cluster, self.me.cluster_incarnation);
        let is_meant = node == ANY_NODE || by.node == node;
        let is_certified = certificate.is_none_or(|name| name.node == by.node);
        if is_ours && is_meant && is_certified && by.node != self.me.node {
            return Ok(());
        }
        Err(format!("it says that it is {by}, which is not who was dialed"))
    }
}

/// Connects to one of the addresses of a name, in their order. Each gets its part of the time: one that swallows packets takes
/// nothing from those behind it.
async fn reach(address: &str, limit: Duration) -> Result<TcpStream, String> {
    let found: Vec<SocketAddr> =
        lookup_host(address).await.map_err(|error| format!("its name is not resolved: {error}"))?.collect();
    let part = limit / u32::try_from(found.len() + 1).unwrap_or(u32::MAX);
    let mut why = "its name has no address".to_owned();
    for address in found {
        match timeout(part, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => why = format!("it is not reached: {error}"),
            Err(_) => why = format!("it is not reached within {part:?}"),
        }
    }
    Err(why)
}

async fn read_answer(stream: &mut Stream) -> std::io::Result<HelloAnswer> {
    let foreign = || std::io::Error::other("what answers there is no node of this version");
    let mut opening = [0; OPENING_BYTES];
    stream.read_exact(&mut opening).await?;
    let mut rest = vec![0; HelloAnswer::follows(&opening).ok_or_else(foreign)?];
    stream.read_exact(&mut rest).await?;
    HelloAnswer::decode(&opening, &rest).ok_or_else(foreign)
}
