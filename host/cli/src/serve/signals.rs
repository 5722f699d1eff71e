//! What a node is told from outside: by signals, and by the process that started it.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::runtime;

/// Why a node stops whose parent is gone.
const PARENT_GONE: &str = "standard input ended";
/// So long what is under way then may still take.
const PARENT_GONE_WAITS: Duration = Duration::from_secs(2);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignalOrder {
    /// Stop; for what reason.
    Stop(&'static str),
    /// Read certificates, tokens and the log level anew.
    Reload,
}

/// Every signal that would end the process is listened for, from before anything else happens: process 1 of a container is not
/// even ended by those that it does not listen for.
pub(super) struct ProcessSignals {
    stop: Stop,
    hangup: Signal,
    user: [Signal; 2],
}

/// What stops the node.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    parent: Pin<Box<dyn Future<Output = ()>>>,
}

impl ProcessSignals {
    /// Needs a tokio runtime around it. `with_parent`: the end of standard input stops the node, too.
    pub(super) fn listen(with_parent: bool) -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let stop = Stop {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            parent: if with_parent { Box::pin(runtime::parent_gone()) } else { Box::pin(std::future::pending()) },
        };
        let hangup = listen(SignalKind::hangup())?;
        Ok(Self { stop, hangup, user: [listen(SignalKind::user_defined1())?, listen(SignalKind::user_defined2())?] })
    }

    /// The next thing to do. Nothing is lost when this is dropped while it waits; after [`SignalOrder::Stop`] it is not
    /// asked again.
    pub(super) async fn next(&mut self) -> SignalOrder {
        let [first, second] = &mut self.user;
        loop {
            tokio::select! {
                why = self.stop.next() => return SignalOrder::Stop(why),
                _ = self.hangup.recv() => return SignalOrder::Reload,
                _ = first.recv() => tracing::debug!("SIGUSR1 means nothing here"),
                _ = second.recv() => tracing::debug!("SIGUSR2 means nothing here"),
            }
        }
    }

    /// What `work` comes to, which may block for ever and then ends with the process; or why the node is to stop before. Every
    /// other signal waits for [`ProcessSignals::next`].
    pub(super) async fn beside<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<ControlFlow<&'static str, T>> {
        let mut work = spawn_blocking(work);
        let finished = |done: Result<T, _>| done.map(ControlFlow::Continue).context("the start ended by a defect");
        tokio::select! {
            done = &mut work => finished(done),
            why = self.stop.next() => {
                if why != PARENT_GONE {
                    return Ok(ControlFlow::Break(why));
                }
                // Nobody is in a hurry, and what it has to say may be why whoever started this is gone.
                self.stop.parent = Box::pin(std::future::ready(()));
                match timeout(PARENT_GONE_WAITS, work).await {
                    Ok(done) => finished(done),
                    Err(_) => Ok(ControlFlow::Break(why)),
                }
            }
        }
    }
}

impl Stop {
    /// Why to stop. Nothing is lost when this is dropped while it waits; after its answer it is not asked again.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = &mut self.parent => PARENT_GONE,
        }
    }
}
