//! Serves a small HTTP API on a free port until standard input ends.

use std::io::BufRead;
use std::path::Path;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::endpoints::Endpoints;

/// Serves; `every_line` runs for each line of standard input.
pub(super) async fn serve(router: Router, folder: &Path, every_line: impl Fn() + Send + 'static) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
    let endpoints = Endpoints { grpc: None, http: Some(listener.local_addr()?), peer: None, pid: std::process::id() };
    endpoints.write(folder).context("cannot write the endpoints")?;
    let (ended, end) = oneshot::channel::<()>();
    std::thread::Builder::new().name("input".to_owned()).spawn(move || {
        std::io::stdin().lock().lines().map_while(Result::ok).for_each(|_| every_line());
        drop(ended);
    })?;
    tokio::select! {
        served = axum::serve(listener, router) => served.context("the HTTP server failed"),
        _ = end => Ok(()),
    }
}
