//! The port that peers dial.
//!
//! Each connection has one task: it finds out who is there, within a few seconds, and then carries frames until the peer leaves,
//! is removed, or the listener stops. Whatever runs for it is dropped with it.

mod greeting;
pub(crate) mod live;
mod repeated;
mod room;
mod serving;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub(crate) use greeting::{AdmissionGate, Host};
pub(crate) use room::ServingRoom;
pub use serving::PeerHandlers;

/// Pause after the system refuses a connection: trying at once would spin.
const PAUSE: Duration = Duration::from_millis(100);

/// A port that listens. Dropping it stops it, without waiting for what runs to be dropped.
#[derive(Debug)]
pub struct PeerListener {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl PeerListener {
    /// Where it listens, with the port that the system chose if it was to choose.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, ends all connections and drops what runs for them. When this returns, no handler runs any more.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // It ends in no other way.
        let _ = (&mut self.task).await;
    }

    pub(crate) async fn bind(address: &str, host: Arc<Host>, handlers: PeerHandlers) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(listen(listener, host, handlers, stop.clone()));
        Ok(Self { address, stop, task })
    }
}

impl Drop for PeerListener {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn listen(listener: TcpListener, host: Arc<Host>, handlers: PeerHandlers, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    let strangers = Arc::new(Semaphore::new(host.bounds.strangers));
    let accept_all = async {
        loop {
            // Who is known gives the place back, who is not known in time is closed: so the next one waits for seconds at most.
            let Ok(place) = strangers.clone().acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, from)) => {
                    connections.spawn(serving::serve(stream, from, host.clone(), handlers.clone(), place));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection of a peer waits: the system refuses it");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = accept_all => {}
    }
    drop(listener);
    connections.shutdown().await;
}
