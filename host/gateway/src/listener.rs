//! The gRPC port: plaintext and TLS on the same one, told apart by the first byte (protocol paper §3.1).
//!
//! A connection has one task. It ends when the peer leaves, answers no ping, sends nothing in the time of its
//! handshake, or does not take its answers; and when the node stops, after the calls that are under way.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::accept::{Accepted, Acceptor, Seldom};
use crate::outbound::{ConnectionOutbound, Outbound};
use crate::tls::Tls;

/// A connection that has not finished its TLS handshake and the first bytes of HTTP/2 in this time is closed.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls at once on one connection; clients queue what is above.
pub const STREAMS_MAX: u32 = 2048;
/// Bytes of streamed answers that are made and not yet taken by their clients, on all connections.
pub const OUTBOUND_MAX_BYTES: usize = 256 << 20;
/// The same on one connection.
pub const CONNECTION_OUTBOUND_MAX_BYTES: usize = 16 << 20;
/// Between two looks for clients that take nothing.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// After a stop, what is in flight has this long to finish.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that answers no ping for this long is gone, and its connection is closed: 40 s after the last that was read
/// of one that vanished without a word.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two pings to an idle peer.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Metadata of one call, in bytes.
const HEADERS_MAX_BYTES: u32 = 16 * 1024;
/// First byte of a TLS record that opens a handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// What every HTTP/2 client sends first has this many bytes.
const PREFACE_LEN: usize = 24;

/// Makes the service of one connection.
pub(crate) trait Connect: Send + Sync + 'static {
    /// Of its answers.
    type Body: http_body::Body<Data = Bytes, Error = tonic::Status> + Send + 'static;
    /// The service.
    type Service: hyper::service::Service<
            http::Request<Incoming>,
            Response = http::Response<Self::Body>,
            Error = std::convert::Infallible,
            Future: Send,
        > + Send
        + 'static;

    /// The service for this peer.
    fn connect(&self, peer: SocketAddr, outbound: Arc<ConnectionOutbound>) -> Self::Service;
}

/// Serves at most `connections_max` connections until `stopping` says so, then waits for what is in flight, at most
/// [`DRAIN_TIMEOUT`].
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Tls,
    services: impl Connect,
    (connections_max, outbound): (usize, Arc<Outbound>),
    stopping: watch::Receiver<bool>,
) {
    let services = Arc::new(services);
    let mut stop = stopping.clone();
    let mut connections = JoinSet::new();
    let (mut acceptor, mut refused) = (Acceptor::new(listener, "gRPC", 0), Seldom::default());
    let mut sweeps = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(ended) = connections.join_next() => log_panic(ended),
            _ = sweeps.tick() => outbound.sweep(std::time::Instant::now()),
            Accepted { stream, peer, .. } = acceptor.next(|| ()) => {
                if connections.len() >= connections_max {
                    refused.tell(|times| {
                        tracing::warn!(%peer, times, "gRPC connections refused: {connections_max} are open");
                    });
                    continue;
                }
                let outbound = outbound.connection_from(peer.ip());
                connections.spawn(connection(stream, peer, tls.clone(), Arc::clone(&services), outbound, stopping.clone()));
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
        tracing::warn!(open = connections.len(), "connections cut: their calls did not finish in time");
    }
}

/// Resolves when the gateway stops, or is gone.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Tells of a task that panicked. Its connection is gone, the port goes on.
fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended by a defect");
    }
}

/// One connection, from its first byte to its end.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Tls,
    services: Arc<impl Connect>,
    outbound: Arc<ConnectionOutbound>,
    mut stopping: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "connection closed before it began");
        return;
    }
    let opened = tokio::select! {
        opened = timeout(HANDSHAKE_TIMEOUT, open(stream, tls)) => opened,
        () = stopped(&mut stopping) => return,
    };
    let service = services.connect(peer, outbound.clone());
    let speaks = async move {
        match opened {
            Ok(Ok(Opened::Plain(stream))) => speak(stream, peer, service, stopping).await,
            Ok(Ok(Opened::Tls(stream))) => speak(stream, peer, service, stopping).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "connection closed in its handshake"),
            Err(_) => tracing::debug!(%peer, "connection closed: no handshake in {HANDSHAKE_TIMEOUT:?}"),
        }
    };
    tokio::select! {
        biased;
        () = speaks => {}
        () = outbound.stalls() => tracing::info!(%peer, "connection closed: its client does not take its answers"),
    }
}

/// A connection after its first byte.
enum Opened {
    /// HTTP/2 without TLS.
    Plain(TcpStream),
    /// TLS, whose handshake is over.
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// Tells TLS from plain text by the first byte, which stays unread, and makes the handshake.
///
/// # Errors
/// The peer left, or its handshake fails. Clients that check certificates and do not know ours leave here.
async fn open(stream: TcpStream, tls: Tls) -> io::Result<Opened> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] == TLS_HANDSHAKE {
        let acceptor = tls.acceptor().await?;
        Ok(Opened::Tls(Box::new(acceptor.accept(stream).await?)))
    } else {
        Ok(Opened::Plain(stream))
    }
}

/// HTTP/2 on an open stream. Pings are answered at any rate: the C++ client sends one each minute, calls or not.
async fn speak<S, B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    service: S,
    mut stopping: watch::Receiver<bool>,
) where
    S: hyper::service::Service<
            http::Request<Incoming>,
            Response = http::Response<B>,
            Error = std::convert::Infallible,
            Future: Send + 'static,
        >,
    B: http_body::Body<Data = Bytes, Error = tonic::Status> + Send + 'static,
{
    let read = Arc::new(AtomicUsize::new(0));
    let io = TokioIo::new(CountRead { stream, read: Arc::clone(&read) });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_MAX_BYTES)
        .auto_date_header(false);
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut begins = pin!(tokio::time::sleep(HANDSHAKE_TIMEOUT));
    let (mut begun, mut asked_to_end) = (false, false);
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = begins.as_mut(), if !begun => {
                begun = true;
                if read.load(Ordering::Relaxed) < PREFACE_LEN {
                    tracing::debug!(%peer, "connection closed: no HTTP/2 in {HANDSHAKE_TIMEOUT:?}");
                    return;
                }
            }
            () = stopped(&mut stopping), if !asked_to_end => {
                asked_to_end = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

/// Counts what was read, to tell a peer that says nothing from one that has nothing to say.
struct CountRead<S> {
    /// What is read and written.
    stream: S,
    /// Bytes that were read, shared with who waits for the first of them.
    read: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for CountRead<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.read.fetch_add(buffer.filled().len() - before, Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountRead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
