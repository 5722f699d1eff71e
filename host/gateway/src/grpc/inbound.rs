//! Bounds the memory and the time of requests that are still being received.
//!
//! A message counts with the bytes that are here, never with those that it announces, until it is whole. From then on the
//! node counts what it accepts. Until then its bytes wait here: the decoder behind would make room for all that is announced.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use vouch_protocol::limits::{CALL_MAX_BYTES, SEND_MAX_BYTES};

use super::trailer::RETRY_AFTER;
use crate::outbound::SHORTAGE_HURRY;

/// When a refused caller should try again: a few large requests take about that long to arrive.
const RETRY_AFTER_MS: u64 = 200;
/// Flag and length before each gRPC message.
const PREFIX_LEN: usize = 5;
/// Bytes of calls other than SendMessage that are being received: acknowledgements, ends and heartbeats do not wait for
/// sends.
const CALLS_MAX_BYTES: u64 = 64 << 20;
/// One connection may hold one of so many parts of a bound.
const CONNECTION_SHARE: u64 = 4;
/// What a frame takes besides its bytes.
const FRAME_COST: u64 = 64;
/// A smaller piece is copied before it is held: as it came it is a view into what the connection read at once, some kilobytes,
/// and would keep all of that.
const COPIED_BELOW: usize = 4096;
/// A request has this time, and more the more of it is here ...
pub(super) const BODY_GRACE: Duration = Duration::from_secs(10);
/// ... so that it comes at this rate at least, in bytes a second. While more than half of a bound is taken, requests that count
/// with it have to come [`SHORTAGE_HURRY`] times as fast.
pub(super) const BODY_RATE_MIN: u64 = 32 << 10;
/// Between two looks whether there is a shortage, for a request that nothing comes of.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Bytes that are being received.
#[derive(Debug)]
struct Pool {
    /// Bytes that are here now.
    held: AtomicU64,
    /// Bytes that may be.
    max: u64,
}

impl Pool {
    /// An empty one.
    fn new(max: u64) -> Self {
        Self { held: AtomicU64::new(0), max }
    }

    /// Adds to a message that holds `own` already.
    fn add(&self, own: u64, bytes: u64) -> Result<(), u64> {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        // A single message always fits an idle node, whatever the bound.
        if before <= own || before + bytes <= self.max {
            return Ok(());
        }
        self.remove(bytes);
        Err(before)
    }

    /// Gives back what was added.
    fn remove(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// More than half is taken: whoever sends has to hurry.
    fn is_short(&self) -> bool {
        self.held.load(Ordering::Relaxed) > self.max / 2
    }
}

/// The two bounds: of SendMessage, and of all other calls.
#[derive(Debug)]
struct Pools {
    /// Of SendMessage.
    sends: Pool,
    /// Of everything else, so that an acknowledgement never waits for sends.
    calls: Pool,
}

impl Pools {
    /// Two empty ones.
    fn new(sends: u64, calls: u64) -> Self {
        Self { sends: Pool::new(sends), calls: Pool::new(calls) }
    }

    /// Where a call counts.
    fn of(&self, method: Method) -> &Pool {
        match method {
            Method::Send => &self.sends,
            Method::Telemetry | Method::Other => &self.calls,
        }
    }
}

/// Bytes that are being received on all connections.
#[derive(Debug)]
pub(super) struct Inbound(Pools);

impl Inbound {
    /// `sends` bytes of SendMessage at once.
    pub(super) fn new(sends: u64) -> Arc<Self> {
        Arc::new(Self(Pools::new(sends, CALLS_MAX_BYTES)))
    }

    /// What one more connection counts with.
    pub(super) fn connection(self: &Arc<Self>) -> Arc<ConnectionInbound> {
        let share = |pool: &Pool| pool.max / CONNECTION_SHARE;
        let own = Pools::new(share(&self.0.sends), share(&self.0.calls));
        Arc::new(ConnectionInbound { node: self.clone(), own })
    }
}

/// Bytes that are being received on one connection.
#[derive(Debug)]
pub(super) struct ConnectionInbound {
    /// Of all connections.
    node: Arc<Inbound>,
    /// Of this one: a part of all, so that no connection holds all room.
    own: Pools,
}

impl ConnectionInbound {
    /// Counts more of a message on this connection and on all.
    ///
    /// # Errors
    /// One of the two has no room, and says so; then nothing is counted.
    fn add(&self, method: Method, own: u64, bytes: u64) -> Result<(), Status> {
        let (connection, node) = (self.own.of(method), self.node.0.of(method));
        connection.add(own, bytes).map_err(|before| refused(before, connection.max, "on this connection"))?;
        node.add(own, bytes).map_err(|before| {
            connection.remove(bytes);
            refused(before, node.max, "already")
        })
    }

    /// Gives back what was added, on this connection and on all.
    fn remove(&self, method: Method, bytes: u64) {
        self.own.of(method).remove(bytes);
        self.node.0.of(method).remove(bytes);
    }

    /// Whether all that is being received of such calls, on all connections, leaves little room.
    fn is_short(&self, method: Method) -> bool {
        self.node.0.of(method).is_short()
    }
}

/// As with every refusal of that kind (ruling 21). There is no answer yet that could carry the code.
fn refused(before: u64, max: u64, place: &str) -> Status {
    let text = format!("{before} bytes are being received {place}, {max} are allowed at once; send it again later");
    let mut metadata = MetadataMap::new();
    metadata.insert(RETRY_AFTER, RETRY_AFTER_MS.into());
    Status::with_metadata(Code::ResourceExhausted, text, metadata)
}

/// Calls by what they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Send,
    /// Its messages may come at any time.
    Telemetry,
    Other,
}

impl Method {
    /// By the last part of the path.
    fn of(path: &str) -> Self {
        match path.rsplit('/').next() {
            Some("SendMessage") => Self::Send,
            Some("Telemetry") => Self::Telemetry,
            _ => Self::Other,
        }
    }

    /// Bytes of one message.
    fn most(self) -> usize {
        match self {
            Self::Send => SEND_MAX_BYTES,
            Self::Telemetry | Self::Other => CALL_MAX_BYTES,
        }
    }
}

/// The bytes of a request between arriving and being whole.
#[derive(Debug)]
struct Gathering {
    connection: Arc<ConnectionInbound>,
    /// Which bound it counts with.
    method: Method,
    /// Flag and length of the message that begins, as far as they have come.
    prefix: [u8; PREFIX_LEN],
    /// How many bytes of that.
    prefix_len: usize,
    /// Of the message that has begun, and not yet here.
    left: u64,
    /// What has come of it.
    held: VecDeque<Bytes>,
    /// What is counted of it.
    counted: u64,
    /// What is whole.
    whole: VecDeque<Bytes>,
}

impl Gathering {
    /// Nothing has come yet.
    fn new(connection: Arc<ConnectionInbound>, method: Method) -> Self {
        let (held, whole) = (VecDeque::new(), VecDeque::new());
        Self { connection, method, prefix: [0; PREFIX_LEN], prefix_len: 0, left: 0, held, counted: 0, whole }
    }

    /// Takes what has come. Returns what can be handed on as it is: most requests come in one piece.
    ///
    /// # Errors
    /// A message announces more than the call takes, or there is no room for what has come of it.
    fn take(&mut self, mut data: Bytes) -> Result<Option<Bytes>, Status> {
        let end = self.last_end(&data)?;
        if end == data.len() && self.held.is_empty() && self.whole.is_empty() {
            return Ok(Some(data));
        }
        if end > 0 {
            self.release();
            self.whole.append(&mut self.held);
            self.whole.push_back(data.split_to(end));
        }
        if !data.is_empty() {
            let cost = data.len() as u64 + FRAME_COST;
            self.connection.add(self.method, self.counted, cost)?;
            self.counted += cost;
            self.held.push_back(if data.len() < COPIED_BELOW { Bytes::copy_from_slice(&data) } else { data });
        }
        Ok(None)
    }

    /// Reads on. Returns where in `data` the last message ends that ends there, or 0.
    fn last_end(&mut self, data: &[u8]) -> Result<usize, Status> {
        let (mut at, mut end) = (0, 0);
        while at < data.len() {
            if self.left > 0 {
                let here = self.left.min((data.len() - at) as u64);
                self.left -= here;
                at += here as usize;
            } else {
                self.prefix[self.prefix_len] = data[at];
                self.prefix_len += 1;
                at += 1;
                if self.prefix_len < PREFIX_LEN {
                    continue;
                }
                self.prefix_len = 0;
                let [_, a, b, c, d] = self.prefix;
                self.left = u64::from(u32::from_be_bytes([a, b, c, d]));
                let most = self.method.most() as u64;
                if self.left > most {
                    let text = format!("the request has {} bytes; at most {most} are allowed for this call", self.left);
                    return Err(Status::out_of_range(text));
                }
            }
            if self.left == 0 {
                end = at;
            }
        }
        Ok(end)
    }

    /// A message has begun and is not whole.
    fn is_amid(&self) -> bool {
        !self.held.is_empty()
    }

    /// What is whole counts no more: whoever takes it counts it.
    fn release(&mut self) {
        self.connection.remove(self.method, std::mem::take(&mut self.counted));
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.release();
    }
}

/// When a request must be here.
#[derive(Debug)]
struct Hurry {
    /// Bytes that have come.
    arrived: u64,
    /// Since it is waited for: most requests are here at once, and need no clock.
    waiting: Option<Waiting>,
}

/// Since when a request is waited for.
#[derive(Debug)]
struct Waiting {
    began: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Hurry {
    /// Nothing has come, and nobody waits.
    fn new() -> Self {
        Self { arrived: 0, waiting: None }
    }

    /// From when it is first waited for.
    fn within(&self, short: bool) -> Duration {
        let within = BODY_GRACE + Duration::from_millis(self.arrived * 1000 / BODY_RATE_MIN);
        if short { within / SHORTAGE_HURRY } else { within }
    }

    /// Ready when it is too late.
    fn poll(&mut self, cx: &mut Context<'_>, is_short: impl Fn() -> bool) -> Poll<()> {
        loop {
            let (now, within) = (Instant::now(), self.within(is_short()));
            let until = |began: Instant| (began + within).min(now + LOOK_EVERY);
            let Waiting { began, timer } = self
                .waiting
                .get_or_insert_with(|| Waiting { began: now, timer: Box::pin(tokio::time::sleep_until(until(now))) });
            if *began + within <= now {
                return Poll::Ready(());
            }
            if timer.is_elapsed() {
                timer.as_mut().reset(until(*began));
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// A request's body that counts, and comes in whole messages.
#[derive(Debug)]
pub(crate) struct CountedBody {
    /// What comes, in pieces of the transport's making.
    body: Incoming,
    /// What has come and is not whole.
    gathering: Gathering,
    /// None between two messages of a stream.
    hurry: Option<Hurry>,
    /// Nothing more comes.
    ended: bool,
}

impl CountedBody {
    /// The body of a call to this path.
    pub(super) fn new(body: Incoming, path: &str, connection: Arc<ConnectionInbound>) -> Self {
        let method = Method::of(path);
        let hurry = (method != Method::Telemetry).then(Hurry::new);
        Self { body, gathering: Gathering::new(connection, method), hurry, ended: false }
    }

    /// A piece that has come: gives what can be handed on, and sets the clock of the next.
    ///
    /// # Errors
    /// The message is larger than the call takes, or there is no room.
    fn take(&mut self, data: Bytes) -> Result<Option<Bytes>, Status> {
        let arrived = data.len() as u64;
        let whole = self.gathering.take(data)?;
        if self.gathering.method == Method::Telemetry && !self.gathering.is_amid() {
            self.hurry = None;
        } else {
            self.hurry.get_or_insert_with(Hurry::new).arrived += arrived;
        }
        Ok(whole)
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = Status;

    /// Gives whole messages only. A body that is cut off, too large or too slow ends with the status that says so.
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(data) = self.gathering.whole.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => match self.take(data) {
                        Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                        Ok(None) => {}
                        Err(status) => return Poll::Ready(Some(Err(status))),
                    },
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                // The client went away, or broke the protocol: as without this layer.
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(Status::from_error(Box::new(error))))),
                Poll::Ready(None) => {
                    // What is not whole is the decoder's to refuse.
                    let this = &mut *self;
                    this.ended = true;
                    this.gathering.whole.append(&mut this.gathering.held);
                }
                Poll::Pending => {
                    let this = &mut *self;
                    let is_short = || this.gathering.connection.is_short(this.gathering.method);
                    let late = this.hurry.as_mut().is_some_and(|hurry| hurry.poll(cx, is_short).is_ready());
                    if !late {
                        return Poll::Pending;
                    }
                    let rate = BODY_RATE_MIN >> 10;
                    let text = format!(
                        "the request came too slowly: less than {rate} KiB/s after {BODY_GRACE:?}, or {SHORTAGE_HURRY} times \
                         that while much is being received; send it again"
                    );
                    return Poll::Ready(Some(Err(Status::deadline_exceeded(text))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.gathering.whole.is_empty() && !self.gathering.is_amid() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[path = "inbound_tests.rs"]
mod tests;
