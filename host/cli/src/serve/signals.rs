//! What a node is told from outside: by signals, and by the process that started it.

use std::pin::Pin;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

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
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: [Signal; 2],
    parent: Pin<Box<dyn Future<Output = ()>>>,
}

impl Signals {
    /// Needs a tokio runtime around it. `with_parent`: the end of standard input stops the node, too.
    pub(super) fn listen(with_parent: bool) -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            user: [listen(SignalKind::user_defined1())?, listen(SignalKind::user_defined2())?],
            parent: if with_parent { Box::pin(runtime::parent_gone()) } else { Box::pin(std::future::pending()) },
        })
    }

    /// The next thing to do. Nothing is lost when this is dropped while it waits; after [`Told::Stop`] it is not asked again.
    pub(super) async fn next(&mut self) -> Told {
        let [first, second] = &mut self.user;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Told::Stop("SIGTERM"),
                _ = self.interrupt.recv() => return Told::Stop("SIGINT"),
                () = &mut self.parent => return Told::Stop("standard input ended"),
                _ = self.hangup.recv() => return Told::Reload,
                _ = first.recv() => tracing::debug!("SIGUSR1 means nothing here"),
                _ = second.recv() => tracing::debug!("SIGUSR2 means nothing here"),
            }
        }
    }
}
