//! The transport of one node: everything that it dials, and what its listener needs.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::admission::PeerAdmission;
use crate::calls::{CallOutbox, Caller};
use crate::counters::{DialedBy, Traffic, TrafficCounts};
use crate::dial::Dialer;
use crate::files::{self, FilePull, PullFailed};
use crate::group::{GroupLink, GroupOutbox};
use crate::hello::CREDENTIAL_MAX_BYTES;
use crate::identity::{Lane, PeerIdentity};
use crate::link::{Carry, Link, LinkHandle, Links};
use crate::listener::live::LiveConnections;
use crate::listener::{AdmissionGate, Host, PeerHandlers, PeerListener, ServingRoom};
use crate::peers::PeerTable;
use crate::settings::{TransportBounds, TransportTiming};
use crate::share::Share;
use crate::tls::{PeerSecurity, RereadSecurity, SecurityError, SecurityState};

/// What a transport is made of.
pub struct TransportConfig {
    /// Who this node is, in this life.
    pub identity: PeerIdentity,
    /// How connections are secured.
    pub security: PeerSecurity,
    /// Who may connect.
    pub admission: Arc<dyn PeerAdmission>,
    /// How long things may take.
    pub timing: TransportTiming,
    /// How much there may be.
    pub bounds: TransportBounds,
}

/// The transport of one node. Copies are the same one. Its links run on the tokio runtime that they are made on.
#[derive(Clone)]
pub struct Transport(Arc<Parts>);

struct Parts {
    dialer: Arc<Dialer>,
    host: Arc<Host>,
    peers: PeerTable,
    groups: Links<(u64, Lane), GroupOutbox>,
    calls: Links<(u64, Lane), CallOutbox>,
    /// Of calls that this node makes, by lane.
    calls_room: Arc<Share>,
    sessions_room: Arc<Share>,
}

impl Transport {
    /// # Errors
    /// The files for TLS cannot be read, or do not fit each other.
    ///
    /// # Panics
    /// The identity has a zero for node or incarnation: nobody would believe it.
    pub fn new(config: TransportConfig) -> Result<Self, SecurityError> {
        let TransportConfig { identity: me, security, admission, timing, bounds } = config;
        assert!(me.node != 0 && me.incarnation != 0, "a node and its life have numbers other than zero");
        let bounds = bounds.usable();
        let security = Arc::new(SecurityState::new(security)?);
        let traffic = Arc::new(Traffic::default());
        let live = LiveConnections::new(bounds.connections, bounds.peer_connections);
        let gate = AdmissionGate::new(admission);
        let room = ServingRoom::new(bounds);
        let dialer = Arc::new(Dialer { me, security: security.clone(), timing, credential: Mutex::default() });
        let host = Arc::new(Host { me, security, timing, bounds, gate, live, traffic, room });
        let calls_room = || Share::new(bounds.calls, bounds.calls_bytes);
        Ok(Self(Arc::new(Parts {
            dialer,
            host,
            peers: PeerTable::default(),
            groups: Links::default(),
            calls: Links::default(),
            calls_room: calls_room(),
            sessions_room: calls_room(),
        })))
    }

    /// Where other nodes are. Links to a node without an address are down.
    #[must_use]
    pub fn peers(&self) -> &PeerTable {
        &self.0.peers
    }

    /// Removes a node: its address, its connections in both directions, and the counters that no link of it uses. Take it out of what [`PeerAdmission`]
    /// allows before, or it comes back.
    pub fn remove_peer(&self, node: u64) {
        self.0.peers.remove(node);
        self.end_connections(node);
        self.0.host.traffic.forget(node);
    }

    /// Ends the connections that a node dialed.
    pub fn end_connections(&self, node: u64) {
        self.0.host.live.end(node);
    }

    /// What this node shows in each hello from now on: a token, while it joins. Nothing afterwards.
    ///
    /// # Errors
    /// It has more than [`CREDENTIAL_MAX_BYTES`], and is given back.
    pub fn set_credential(&self, credential: Bytes) -> Result<(), Bytes> {
        if credential.len() > CREDENTIAL_MAX_BYTES {
            return Err(credential);
        }
        *self.0.dialer.credential.lock().unwrap_or_else(PoisonError::into_inner) = credential;
        Ok(())
    }

    /// Uses files for TLS that were read anew ([`PeerSecurity::read`]) for connections that begin from now on. Whether they say
    /// something else than those before; with TLS or without stays as it is.
    pub fn take_over_security(&self, read: RereadSecurity) -> bool {
        self.0.host.security.take_over(read)
    }

    /// Until when others believe the certificate that this node shows; `None` without TLS.
    #[must_use]
    pub fn certificate_until(&self) -> Option<SystemTime> {
        self.0.host.security.until()
    }

    /// The link for datagrams to a node for a shard. Whoever asks for it again gets the same one.
    #[must_use]
    pub fn group(&self, node: u64, shard: u32) -> GroupLink {
        let lane = Lane::Group(shard);
        GroupLink::new(self.0.groups.get((node, lane), || {
            let TransportBounds { group_queue_frames: frames, group_queue_bytes: bytes, .. } = self.0.host.bounds;
            let counters = self.0.host.traffic.of(node, DialedBy::Us, lane);
            self.start(node, lane, GroupOutbox::new(Share::new(frames, bytes), counters, &self.0.dialer.timing))
        }))
    }

    /// The link for calls to a node. Whoever asks for it again gets the same one.
    #[must_use]
    pub fn caller(&self, node: u64) -> Caller {
        self.caller_on(node, Lane::Calls, &self.0.calls_room)
    }

    /// The link for calls about sessions to a node.
    #[must_use]
    pub fn session_caller(&self, node: u64) -> Caller {
        self.caller_on(node, Lane::Sessions, &self.0.sessions_room)
    }

    fn caller_on(&self, node: u64, lane: Lane, all: &Arc<Share>) -> Caller {
        Caller::new(self.0.calls.get((node, lane), || {
            let bounds = &self.0.host.bounds;
            let requests = Share::part(all, bounds.peer_calls, bounds.peer_calls_bytes);
            let answers = Share::new(bounds.peer_calls, bounds.answers_bytes);
            let counters = self.0.host.traffic.of(node, DialedBy::Us, lane);
            self.start(node, lane, CallOutbox::new(requests, answers, counters, &self.0.dialer.timing))
        }))
    }

    fn start<T: Carry>(&self, node: u64, lane: Lane, outbox: Arc<T>) -> LinkHandle<T> {
        let counters = self.0.host.traffic.of(node, DialedBy::Us, lane);
        let (dialer, addresses) = (self.0.dialer.clone(), self.0.peers.watch(node));
        Link { dialer, node, lane, outbox, addresses, counters }.start(CancellationToken::new())
    }

    /// Pulls a stretch of a file from a node: `len` bytes from the offset on, or what there is of them.
    ///
    /// # Errors
    /// There is no connection. That the node does not have the file is said by [`FilePull::next`].
    pub async fn pull(&self, node: u64, name: &str, from: u64, len: u64) -> Result<FilePull, PullFailed> {
        let address = self.0.peers.address(node);
        let address = address.ok_or_else(|| PullFailed::Broken(format!("no address of node {node} is known")))?;
        let counters = self.0.host.traffic.of(node, DialedBy::Us, Lane::Files);
        let connection = self.0.dialer.dial(node, Lane::Files, &address, &counters).await;
        let connection = connection.map_err(|why| {
            counters.fail(&why);
            PullFailed::Broken(why)
        })?;
        files::begin(connection, (name, from, len), counters.open()).await
    }

    /// Listens for peers, `HOST:PORT`; port 0 lets the system choose one.
    ///
    /// # Errors
    /// What the system says.
    pub async fn listen(&self, address: &str, handlers: PeerHandlers) -> std::io::Result<PeerListener> {
        PeerListener::bind(address, self.0.host.clone(), handlers).await
    }

    /// What was counted, by peer, direction and lane.
    #[must_use]
    pub fn counts(&self) -> TrafficCounts {
        self.0.host.traffic.counts()
    }

    /// Connections that were refused before anything was read from them but a hello, those of strangers included.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.host.gate.refused.load(Relaxed)
    }
}
