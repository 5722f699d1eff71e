//! The threads that carry what nodes say to each other. They are no others' threads: a heartbeat that waits behind the clients'
//! requests would look like a node that is gone.

use std::io;
use std::sync::mpsc::{Receiver, sync_channel};

use tokio::runtime::{Builder, Handle, Runtime};

/// Enough for one to go on while the other reads something large.
const THREADS: usize = 2;

/// A runtime that may be dropped anywhere.
pub(super) struct PeerRuntime(Option<Runtime>);

impl PeerRuntime {
    /// # Errors
    /// The system gives no threads.
    pub(super) fn start() -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(THREADS).thread_name("vouch-peers").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    pub(super) fn handle(&self) -> &Handle {
        self.0.as_ref().expect("it runs until it is dropped").handle()
    }

    /// Runs something there. Its outcome can be waited for on any thread; nothing comes if it was dropped.
    pub(super) fn run<T: Send + 'static>(&self, run: impl Future<Output = T> + Send + 'static) -> Receiver<T> {
        let (tell, told) = sync_channel(1);
        self.handle().spawn(async move {
            // Whoever waited may have gone.
            let _ = tell.send(run.await);
        });
        told
    }
}

impl Drop for PeerRuntime {
    fn drop(&mut self) {
        // A plain drop would wait for its tasks, which no task of another runtime may do.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
