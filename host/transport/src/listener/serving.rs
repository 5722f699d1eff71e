//! What is done with the connections of peers.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::greeting::{Greeted, Host};
use super::room::ServingRoom;
use crate::calls::{self, CallsServed, Serve, ServeAny};
use crate::connection::Connection;
use crate::files::{self, FilesServed, ServeAnyFiles, ServeFiles};
use crate::group::{self, GroupHandler};
use crate::identity::{Lane, PeerIdentity};
use crate::share::Share;

/// Who handles what peers send. A lane without a handler refuses nothing: its connections are closed as soon as they are made.
#[derive(Clone, Default)]
pub struct PeerHandlers {
    group: Option<Arc<GroupHandler>>,
    calls: Option<Arc<dyn ServeAny>>,
    sessions: Option<Arc<dyn ServeAny>>,
    files: Option<Arc<dyn ServeAnyFiles>>,
}

impl PeerHandlers {
    /// Takes the datagrams of groups. See [`GroupHandler`].
    #[must_use]
    pub fn group(mut self, handler: impl Fn(PeerIdentity, u32, Bytes) + Send + Sync + 'static) -> Self {
        self.group = Some(Arc::new(handler));
        self
    }

    /// Answers calls.
    #[must_use]
    pub fn calls(mut self, handler: impl Serve) -> Self {
        self.calls = Some(Arc::new(handler));
        self
    }

    /// Answers calls about sessions.
    #[must_use]
    pub fn sessions(mut self, handler: impl Serve) -> Self {
        self.sessions = Some(Arc::new(handler));
        self
    }

    /// Opens files.
    #[must_use]
    pub fn files(mut self, files: impl ServeFiles) -> Self {
        self.files = Some(Arc::new(files));
        self
    }
}

/// Carries a connection from its first byte to its last.
pub(super) async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    host: Arc<Host>,
    handlers: PeerHandlers,
    stranger: OwnedSemaphorePermit,
) {
    let Some(Greeted { connection, lane, place, counters }) = host.greet(stream, from).await else { return };
    drop(stranger);
    let _open = counters.open();
    let peer = connection.peer;
    tracing::info!(node = peer.node, %lane, incarnation = peer.incarnation, %from, "a peer connected");
    let why = tokio::select! {
        biased;
        () = place.is_to_end() => "the peer was removed, or connected anew".to_owned(),
        why = carry(connection, lane, &host.room, &handlers) => why,
    };
    if counters.fail(&why) {
        tracing::info!(node = peer.node, %lane, why, "a connection of a peer ended");
    }
}

async fn carry(connection: Connection, lane: Lane, room: &ServingRoom, handlers: &PeerHandlers) -> String {
    let of_peer = room.of(connection.peer.node);
    let nobody = format!("nobody handles the lane {lane} here");
    let served = |handler: &Arc<dyn ServeAny>, room: &Arc<Share>, calls: usize| CallsServed {
        handler: handler.clone(),
        room: room.clone(),
        calls,
    };
    let calls = room.peer_calls();
    match (lane, handlers) {
        (Lane::Group(shard), PeerHandlers { group: Some(handler), .. }) => {
            group::receive(connection, shard, &**handler, &of_peer.datagrams).await
        }
        (Lane::Calls, PeerHandlers { calls: Some(handler), .. }) => {
            calls::answer(connection, served(handler, &of_peer.calls, calls)).await
        }
        (Lane::Sessions, PeerHandlers { sessions: Some(handler), .. }) => {
            calls::answer(connection, served(handler, &of_peer.sessions, calls)).await
        }
        (Lane::Files, PeerHandlers { files: Some(files), .. }) => {
            files::send(connection, FilesServed { files: files.clone(), pace: room.pace() }).await
        }
        _ => nobody,
    }
}
