//! The HTTP port: HTTP/1.1, a bounded number of connections, each bounded in time and space.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, Response, header};
use axum::response::IntoResponse;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use vouch_broker::NothingStored;

use super::outbound::{AnswerRoom, HttpOutbound};
use super::places::{Answering, ConnectionKind, ConnectionPlace, PROBE_TIMEOUT, PlaceTaken, Places};
use super::problem::Problem;
use super::starting::Api;
use crate::accept::{Acceptor, Seldom};
use crate::listener::{DRAIN_TIMEOUT, SWEEP_INTERVAL, stopped};
use crate::outbound::ConnectionOutbound;

/// A connection whose next request's head is not complete in this time is closed, idle ones included.
pub const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// What is answered on every connection that gets in: supervisors, load balancers and monitors ask it.
pub const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// Bytes of a request's head.
const HEAD_MAX_BYTES: usize = 64 * 1024;
/// Descriptors kept for probes at times when the process has no other left.
const SPARE_DESCRIPTORS: usize = 4;

/// Accepts connections until `stopping` says so, then waits for what is in flight, at most [`DRAIN_TIMEOUT`].
pub(crate) async fn serve(
    listener: TcpListener,
    api: Api,
    places: Arc<Places>,
    outbound: Arc<HttpOutbound>,
    stopping: watch::Receiver<bool>,
) {
    let mut stop = stopping.clone();
    let mut connections = JoinSet::new();
    let mut acceptor = Acceptor::new(listener, "HTTP", SPARE_DESCRIPTORS);
    let (mut probes_only, mut refused) = (Seldom::default(), Seldom::default());
    let mut sweeps = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(ended) = connections.join_next() => log_panic(ended),
            _ = sweeps.tick() => outbound.sweep(Instant::now()),
            accepted = acceptor.next(|| places.make_room()) => {
                let peer = accepted.peer;
                let Some(place) = place(&places, accepted.scarce).await else {
                    refused.tell(|times| tracing::warn!(%peer, times, "HTTP connections refused: all places are taken"));
                    continue;
                };
                if place.kind == ConnectionKind::Probe {
                    probes_only.tell(|times| {
                        tracing::warn!(%peer, times, "HTTP connections let in for probes alone: all places are taken");
                    });
                }
                let service = Service::new(api.clone(), place, peer.ip(), &outbound);
                connections.spawn(connection(accepted.stream, peer, service, stopping.clone()));
            }
        }
    }
    drop(acceptor);
    let drained = timeout(DRAIN_TIMEOUT, async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(open = connections.len(), "HTTP connections cut: their requests did not finish in time");
    }
}

/// A place for a newcomer, as soon as those that were told to leave are gone.
async fn place(places: &Arc<Places>, scarce: bool) -> Option<ConnectionPlace> {
    loop {
        match places.take(Instant::now(), scarce) {
            PlaceTaken::Place(place) => return Some(place),
            PlaceTaken::Full => return None,
            PlaceTaken::Later => places.freed().await,
        }
    }
}

/// Tells of a task that panicked. Its connection is gone, the port goes on.
fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "an HTTP connection ended by a defect");
    }
}

/// One connection, until its peer leaves, it has to make way, its client takes nothing, or the node stops.
async fn connection(stream: TcpStream, peer: SocketAddr, service: Service, mut stopping: watch::Receiver<bool>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "HTTP connection closed before it began");
        return;
    }
    let (place, outbound) = (service.place.clone(), service.outbound.clone());
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP_HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let probe_late = tokio::time::sleep(PROBE_TIMEOUT);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = place.makes_way() => return tracing::debug!(%peer, "HTTP connection closed: others need its place"),
        () = probe_late, if place.kind == ConnectionKind::Probe => {
            return tracing::debug!(%peer, "HTTP connection closed: it brought no probe in {PROBE_TIMEOUT:?}");
        }
        () = outbound.stalls() => {
            return tracing::info!(%peer, "HTTP connection closed: its client does not take its answer");
        }
        () = stopped(&mut stopping) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "HTTP connection ended");
    }
}

/// The API on one connection.
struct Service {
    api: Api,
    place: Arc<ConnectionPlace>,
    address: IpAddr,
    all: Arc<HttpOutbound>,
    outbound: Arc<ConnectionOutbound>,
}

impl Service {
    fn new(api: Api, place: ConnectionPlace, address: IpAddr, all: &Arc<HttpOutbound>) -> Self {
        let (outbound, place) = (all.connection(), Arc::new(place));
        Self { api, place, address, all: all.clone(), outbound }
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<HeldBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // A connection that makes way is dropped in a moment.
        let Some(answering) = self.place.answer() else { return Box::pin(std::future::pending()) };
        let for_probes = self.place.kind == ConnectionKind::Probe;
        let admitted = !for_probes || PROBES.contains(&request.uri().path());
        let answer = admitted.then(|| TowerToHyperService::new(self.api.now()).call(request));
        let (all, address, outbound) = (self.all.clone(), self.address, self.outbound.clone());
        Box::pin(async move {
            let mut response = match answer {
                Some(answer) => answer.await?,
                None => all_in_use().into_response(),
            };
            let bytes = usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX);
            let room = all.room_for(address, bytes).unwrap_or_else(|no_room| {
                response = no_room.into_response();
                None
            });
            if for_probes {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            let held = Arc::new(Held { _answering: answering, _room: room });
            Ok(response.map(|body| HeldBody { body, held, outbound }))
        })
    }
}

/// What a request is told that came in on a place for probes and is none.
fn all_in_use() -> Problem {
    let probes = PROBES.join(", ");
    NothingStored::TooMany(format!("all HTTP connections are in use, and only {probes} are answered; try again later"))
        .into()
}

/// What an answer keeps until its last byte is written: its connection does not make way, and it has room.
struct Held {
    _answering: Answering,
    _room: Option<AnswerRoom>,
}

/// An answer that is counted, and has its time.
struct HeldBody {
    body: Body,
    held: Arc<Held>,
    outbound: Arc<ConnectionOutbound>,
}

impl http_body::Body for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let hold = |bytes| {
            let bytes = Bytes::from_owner(HeldBytes { bytes, _held: self.held.clone() });
            self.outbound.hold(bytes, None)
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(hold))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes on their way, with the room that they have.
struct HeldBytes {
    bytes: Bytes,
    _held: Arc<Held>,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
