//! What a node is told from outside: by signals, and by the process that started it.

use std::ops::ControlFlow;
use std::pin::Pin;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::runtime;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Stop; for what reason.
    Stop(&'static str),
    /// Read certificates, tokens and the log level anew.
    Reload,
}

/// Every signal that would end the process is listened for, from before anything else happens: process 1 of a container is not
/// even ended by those that it does not listen for.
pub(super) struct Signals {
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

impl Signals {
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

    /// The next thing to do. Nothing is lost when this is dropped while it waits; after [`Told::Stop`] it is not asked again.
    pub(super) async fn next(&mut self) -> Told {
        let [first, second] = &mut self.user;
        loop {
            tokio::select! {
                why = self.stop.next() => return Told::Stop(why),
                _ = self.hangup.recv() => return Told::Reload,
                _ = first.recv() => tracing::debug!("SIGUSR1 means nothing here"),
                _ = second.recv() => tracing::debug!("SIGUSR2 means nothing here"),
            }
        }
    }

    /// What `work` comes to, which may block for ever and then ends with the process; or why the node is to stop before. Every
    /// other signal waits for [`Signals::next`].
    pub(super) async fn beside<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<ControlFlow<&'static str, T>> {
        tokio::select! {
            done = spawn_blocking(work) => done.map(ControlFlow::Continue).context("the start ended by a defect"),
            why = self.stop.next() => Ok(ControlFlow::Break(why)),
        }
    }
}

impl Stop {
    /// Why to stop. Nothing is lost when this is dropped while it waits; after its answer it is not asked again.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = &mut self.parent => "standard input ended",
        }
    }
}
