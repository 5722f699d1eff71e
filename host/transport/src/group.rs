//! Datagrams of a shard's group: one way, in order, and rather dropped than late. Whoever sends repeats what matters.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;

use crate::connection::{Connection, Incoming, ToPeer};
use crate::counters::LaneCounters;
use crate::frame::{FRAME_MAX_BYTES, FrameHead, FrameKind};
use crate::identity::PeerIdentity;
use crate::link::{Carry, LinkHandle, LinkState};
use crate::reading::ReadFault;
use crate::sending::{Outgoing, send_all};
use crate::settings::TransportTiming;
use crate::share::{Share, ShareTaken};

/// What takes the datagrams of peers: who sent it, the shard, the datagram. It is called in the order in which they were sent,
/// and nothing is read from the peer's connection while it runs: it must be quick, and may be slow to slow the peer down.
pub type GroupHandler = dyn Fn(PeerIdentity, u32, Bytes) + Send + Sync;

/// A datagram of this many bytes or less takes no room of those that are read and not handled: there is one for each connection.
const SMALL_BYTES: usize = 64 << 10;

/// Why a datagram was dropped. It is gone; the sender sends what matters again when it would anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupNotSent {
    /// So much waits to be sent already.
    #[error("too much waits to be sent to this peer")]
    Full,
    /// There is no connection. The link says when there is one.
    #[error("there is no connection to this peer")]
    NotConnected,
    /// No frame carries so much.
    #[error("it is longer than {FRAME_MAX_BYTES} bytes")]
    TooLong,
}

/// Sends datagrams to one node for one shard. Copies are the same link; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct GroupLink(Arc<LinkHandle<GroupOutbox>>);

impl GroupLink {
    pub(crate) fn new(handle: Arc<LinkHandle<GroupOutbox>>) -> Self {
        Self(handle)
    }

    /// Queues a datagram, the pieces being its parts, for the connection there is now. It never waits. What is queued arrives in
    /// its order or, when the connection ends, from some point on not at all: it never arrives on a later connection.
    ///
    /// # Errors
    /// It was dropped, and is counted as such.
    pub fn send(&self, pieces: Vec<Bytes>) -> Result<(), GroupNotSent> {
        let outbox = &self.0.outbox;
        outbox.send(pieces).inspect_err(|_| outbox.counters.drop_one())
    }

    /// How the link stands now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.0.state.borrow().clone()
    }

    /// Hears of each change. Two changes that follow each other at once may look like one: the incarnation tells a new life.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<LinkState> {
        self.0.state.clone()
    }
}

/// Where datagrams wait.
#[derive(Debug)]
pub(crate) struct GroupOutbox {
    queue: Mutex<Option<UnboundedSender<Datagram>>>,
    room: Arc<Share>,
    counters: Arc<LaneCounters>,
    ping_every: Duration,
    ping_answer: Duration,
}

#[derive(Debug)]
struct Datagram {
    pieces: Vec<Bytes>,
    /// Until it is written, or dropped with its connection.
    _room: ShareTaken,
}

impl Outgoing for Datagram {
    fn begin(&mut self, number: u64) -> Option<(FrameHead, Vec<Bytes>)> {
        Some((FrameHead::new(FrameKind::Datagram, number), std::mem::take(&mut self.pieces)))
    }
}

impl GroupOutbox {
    pub(crate) fn new(room: Arc<Share>, counters: Arc<LaneCounters>, timing: &TransportTiming) -> Arc<Self> {
        let TransportTiming { ping_every, ping_answer, .. } = *timing;
        Arc::new(Self { queue: Mutex::default(), room, counters, ping_every, ping_answer })
    }

    fn send(&self, pieces: Vec<Bytes>) -> Result<(), GroupNotSent> {
        let length = pieces.iter().map(Bytes::len).sum();
        if length > FRAME_MAX_BYTES {
            return Err(GroupNotSent::TooLong);
        }
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_ref().ok_or(GroupNotSent::NotConnected)?;
        let room = self.room.take(length).ok_or(GroupNotSent::Full)?;
        queue.send(Datagram { pieces, _room: room }).map_err(|_| GroupNotSent::NotConnected)
    }
}

/// What is queued for one connection.
pub(crate) struct GroupQueue {
    outbox: Arc<GroupOutbox>,
    waiting: UnboundedReceiver<Datagram>,
}

impl Drop for GroupQueue {
    fn drop(&mut self) {
        *self.outbox.queue.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.waiting.close();
        while self.waiting.try_recv().is_ok() {
            self.outbox.counters.drop_one();
        }
    }
}

impl Carry for GroupOutbox {
    type Queue = GroupQueue;

    fn open(self: &Arc<Self>) -> GroupQueue {
        let (sender, waiting) = mpsc::unbounded_channel();
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        GroupQueue { outbox: self.clone(), waiting }
    }

    async fn carry(mut queue: GroupQueue, connection: Connection) -> String {
        let Connection { mut reader, mut writer, pulse, .. } = connection;
        let (every, limit) = (queue.outbox.ping_every, queue.outbox.ping_answer);
        let Err(why) = tokio::select! {
            sent = send_all(&mut queue.waiting, &mut writer, &pulse, every) => sent,
            heard = hear_pongs(&mut reader) => heard.map_err(|fault| fault.to_string()),
            lapsed = pulse.lapse(limit) => lapsed,
        };
        why
    }
}

/// All that an acceptor sends on this lane.
async fn hear_pongs(reader: &mut Incoming) -> Result<Infallible, ReadFault> {
    loop {
        let header = reader.next().await?;
        if header.head.kind != FrameKind::Pong || header.length > 0 {
            return Err(ReadFault::Protocol("it sends on a lane that is ours to send on"));
        }
        reader.skip(&header).await?;
    }
}

/// The acceptor's side: hands on what comes until the connection ends, and says why it did. `room` is for what is read and not
/// handled, of this peer.
pub(crate) async fn receive(connection: Connection, shard: u32, handler: &GroupHandler, room: &Share) -> String {
    let Connection { peer, mut reader, mut writer, .. } = connection;
    let Err(why) = receive_all((&mut reader, &mut writer), peer, shard, handler, room).await;
    why
}

async fn receive_all(
    (reader, writer): (&mut Incoming, &mut ToPeer),
    peer: PeerIdentity,
    shard: u32,
    handler: &GroupHandler,
    room: &Share,
) -> Result<Infallible, String> {
    let fault = |fault: ReadFault| fault.to_string();
    let mut expected = 0;
    loop {
        let header = reader.next().await.map_err(fault)?;
        match header.head.kind {
            FrameKind::Ping => {
                reader.skip(&header).await.map_err(fault)?;
                let pong = FrameHead::new(FrameKind::Pong, 0);
                writer.frame_at_once(pong, &[]).await.map_err(|fault| fault.to_string())?;
            }
            FrameKind::Datagram if header.head.number == expected => {
                let taken = if header.length > SMALL_BYTES { room.wait(header.length).await } else { None };
                let payload = reader.payload(&header).await.map_err(fault)?;
                expected += 1;
                handler(peer, shard, payload);
                drop(taken);
            }
            FrameKind::Datagram => return Err(fault(ReadFault::Protocol("a datagram is missing, or comes twice"))),
            _ => return Err(fault(ReadFault::Protocol("a frame of another lane"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::LanePace;
    use crate::identity::tests::node;

    /// What the acceptor hands on of datagrams with these numbers, and why it ends.
    async fn received(numbers: &[u64]) -> (Vec<Bytes>, String) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let pace = LanePace::of_asked(&TransportTiming::default());
        let mut dialer = Connection::new(Box::new(near), 5, node(2), pace, Arc::default());
        let acceptor = Connection::new(Box::new(far), 5, node(1), pace, Arc::default());
        for number in numbers {
            let datagram = Bytes::copy_from_slice(&number.to_le_bytes());
            dialer.writer.frame(FrameHead::new(FrameKind::Datagram, *number), &[datagram]).await.unwrap();
        }
        dialer.writer.flush().await.unwrap();
        drop(dialer);
        let handled = Arc::new(Mutex::new(Vec::new()));
        let handler = {
            let handled = handled.clone();
            move |_, _, datagram| handled.lock().unwrap().push(datagram)
        };
        let why = receive(acceptor, 0, &handler, &Share::new(1, FRAME_MAX_BYTES)).await;
        let handled = std::mem::take(&mut *handled.lock().unwrap());
        (handled, why)
    }

    #[tokio::test]
    async fn a_datagram_that_comes_twice_or_is_missing_ends_the_connection() {
        let (handled, why) = received(&[0, 1, 2]).await;
        assert_eq!((handled.len(), why.as_str()), (3, "the peer closed the connection"));
        for wrong in [[0, 1, 1], [0, 1, 3], [0, 1, 0]] {
            let (handled, why) = received(&wrong).await;
            assert_eq!(handled.len(), 2, "{wrong:?}");
            assert!(why.contains("a datagram is missing, or comes twice"), "{why}");
        }
        assert_eq!(received(&[1]).await.0.len(), 0, "each connection begins with zero");
    }
}
