//! The runtime of servers, the same for a node and for the servers it is measured against.
//!
//! Commands that make a call or two have a small runtime of their own (`message`).

use anyhow::Context;

/// A runtime with one worker per processor.
pub(crate) fn server() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("vouch-io")
        .build()
        .context("cannot start the network runtime")
}

/// Ready when standard input ends: the process that started this one is gone, or wants it to stop.
/// Where the thread that watches cannot be started this is never ready: better a server that outlives its parent than
/// one that ends at once.
pub(crate) async fn parent_gone() {
    let (gone, told) = tokio::sync::oneshot::channel();
    let watch = move || {
        crate::child::wait_for_parent();
        // Nobody waits any more: the server stopped for another reason.
        let _ = gone.send(());
    };
    if std::thread::Builder::new().name("parent-watch".to_owned()).spawn(watch).is_err() {
        tracing::warn!("cannot watch the parent process; stop this one with SIGTERM");
        return std::future::pending().await;
    }
    // The sender is dropped only after sending.
    let _ = told.await;
}
