//! The processes behind `bench-null` and `bench-bare`.
//!
//! The connection is served by the same library with the same settings as a node's (`vouch-gateway`, listener): one
//! task per connection, HTTP/2 with the same bounds, no delay on the socket. TLS is not offered.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use vouch_protocol::wire::messaging_service_server::MessagingServiceServer;

use super::group_commit_file::GroupCommitFile;
use super::peers::Peer;
use crate::endpoints::Endpoints;
use crate::runtime;

/// Largest request, as a node takes it.
const REQUEST_MAX_BYTES: usize = 130 << 20;
/// Calls at once on one connection, as at a node.
const STREAMS_MAX: u32 = 2048;
/// Metadata of one call, as at a node.
const HEADERS_MAX_BYTES: u32 = 16 * 1024;
/// Pings, as at a node.
const PING_INTERVAL: Duration = Duration::from_secs(60);
/// Who does not answer one for so long is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Where it says where it listens.
#[derive(Debug, Args)]
pub(crate) struct PeerArgs {
    /// Folder for the endpoints and the file.
    #[arg(long)]
    dir: PathBuf,
}

/// Serves *null* until standard input ends.
pub(crate) fn serve_null(args: &PeerArgs) -> anyhow::Result<()> {
    serve(Peer::null(), &args.dir)
}

/// Serves *bare* until standard input ends.
pub(crate) fn serve_bare(args: &PeerArgs) -> anyhow::Result<()> {
    let (file, writer) = GroupCommitFile::create(&args.dir.join("bare")).context("cannot create the file")?;
    serve(Peer::bare(file), &args.dir)?;
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))
}

/// Serves one of the two until standard input ends.
fn serve(peer: Peer, folder: &Path) -> anyhow::Result<()> {
    // Dropping the runtime drops the connections, and with them the last handles of the store.
    runtime::server()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
        let endpoints =
            Endpoints { grpc: Some(listener.local_addr()?), http: None, peer: None, pid: std::process::id() };
        endpoints.write(folder).context("cannot write the endpoints")?;
        let service = MessagingServiceServer::new(peer).max_decoding_message_size(REQUEST_MAX_BYTES);
        tokio::select! {
            ended = accept(&listener, service) => ended,
            () = runtime::parent_gone() => Ok(()),
        }
    })
}

/// Takes connections for ever.
async fn accept(listener: &TcpListener, service: MessagingServiceServer<Peer>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept a connection")?;
        stream.set_nodelay(true).context("cannot set up a connection")?;
        tokio::spawn(speak(stream, service.clone()));
    }
}

/// Speaks with one client until it leaves.
async fn speak(stream: TcpStream, service: MessagingServiceServer<Peer>) {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_MAX_BYTES)
        .auto_date_header(false);
    // The load generator just closes its connections; that is no failure.
    let _ = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
}
