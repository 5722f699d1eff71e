//! The servers that take part in a measurement.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use super::LoadArgs;
use super::load::{self, Load, SendWindow};
use super::stats::Measured;
use crate::child::{ChildStart, Server};
use crate::failure::ProblemAnswer;
use crate::http::{HttpClient, segment};

/// A server, and what is sent to it.
pub(super) struct Contestant {
    /// As the report names it.
    pub(super) name: &'static str,
    /// Where its gRPC service is.
    pub(super) address: String,
    /// What is sent to it.
    pub(super) load: Load,
    /// `None`: a node that ran already.
    pub(super) process: Option<Server>,
}

impl Contestant {
    /// Sends its load for the time of one turn. `at_both_ends` is called at the beginning and the end of what is measured.
    pub(super) async fn turn(&self, window: SendWindow, at_both_ends: impl Fn()) -> anyhow::Result<Measured> {
        let cpu = || {
            at_both_ends();
            self.process.as_ref().map(Server::cpu_time).transpose()
        };
        let measured = load::run(&self.address, &self.load, window, cpu).await;
        measured.with_context(|| format!("while measuring {}", self.name))
    }
}

/// The node, one with a single topic where the node has many, and the peers.
pub(super) fn all(args: &LoadArgs, load: &Load, folder: &Path) -> anyhow::Result<Vec<Contestant>> {
    let mut all = vec![node(args, load, folder, "vouch")?];
    if load.topics.len() > 1 {
        all.push(node(args, &args.plain(1), folder, "single")?);
    }
    if !args.without_peers {
        all.push(peer("null", folder, load)?);
        all.push(peer("bare", folder, load)?);
    }
    Ok(all)
}

/// The node that was named, or one that is started; with the topics in place.
fn node(args: &LoadArgs, load: &Load, folder: &Path, name: &'static str) -> anyhow::Result<Contestant> {
    let (address, http, process) = match (&args.grpc, &args.http) {
        (Some(grpc), Some(http)) => (grpc.clone(), http.clone(), None),
        _ => {
            let node = start_node(&folder.join(name), &[])?;
            (node.grpc()?, node.http()?, Some(node))
        }
    };
    let kind = if load.transactions { "transaction" } else { "normal" };
    create_topics(&HttpClient::new(&http, args.token.clone())?, load, &json!({"type": kind}))?;
    Ok(Contestant { name, address, load: load.clone(), process })
}

/// A node on free ports, with default settings but for those that are named.
pub(super) fn start_node(folder: &Path, settings: &[&str]) -> anyhow::Result<Server> {
    let mut arguments: Vec<OsString> =
        ["serve", "--stop-with-parent", "--grpc-addr", "127.0.0.1:0"].map(Into::into).into();
    arguments.extend(["--http-addr".into(), "127.0.0.1:0".into(), "--data-dir".into(), folder.into()]);
    arguments.extend(settings.iter().map(Into::into));
    Server::start(ChildStart { name: "the node", arguments, folder, environment: &[("RUST_LOG", "warn")] })
}

/// The null or the bare server.
pub(super) fn peer(name: &'static str, folder: &Path, load: &Load) -> anyhow::Result<Contestant> {
    let folder = folder.join(name);
    let arguments = vec![format!("bench-{name}").into(), "--dir".into(), folder.clone().into()];
    let process = Server::start(ChildStart { name, arguments, folder: &folder, environment: &[] })?;
    Ok(Contestant { name, address: process.grpc()?, load: load.clone(), process: Some(process) })
}

/// Creates the topics; those of an earlier run are as good.
pub(super) fn create_topics(http: &HttpClient, load: &Load, settings: &Value) -> anyhow::Result<()> {
    for topic in load.topics.iter() {
        let created = http.put(&format!("/v1/topics/{}", segment(topic)), settings, &[("if-none-match", "*")]);
        match created {
            Err(error) if error.downcast_ref::<ProblemAnswer>().and_then(ProblemAnswer::status) == Some(412) => {}
            other => drop(other.with_context(|| format!("cannot create the topic {topic}"))?),
        }
    }
    Ok(())
}
