//! `vouch bench`: load on a node and, in the same run and by turns, on two servers that show what is possible here.

mod commit_log;
mod group_commit_file;
mod load;
mod peer_server;
mod peers;
mod report;
mod scratch;
mod stats;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use self::load::{Load, Window};
use self::report::{Report, Round};
use self::scratch::Scratch;
use crate::child::{Server, Start};
use crate::failure::Problem;
use crate::http::HttpClient;
use crate::output;
use crate::text;

pub(crate) use self::peer_server::{PeerArgs, serve_bare, serve_null};

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Send messages and wait for each to be on disk.
    #[command(after_help = "\
Examples:
  vouch bench send
  vouch bench send --batch 16
  vouch bench send --rate 2000          latency at a fixed pace, counted from when a send was due
  vouch bench send --grpc 10.0.0.5:8081 --http 10.0.0.5:8080 --without-peers")]
    Send(LoadArgs),
    /// Send half messages and commit each.
    #[command(after_help = "Example:\n  vouch bench transaction --producers 64")]
    Transaction(LoadArgs),
    /// Append to the commit log, beside the raw device.
    #[command(after_help = "Example:\n  vouch bench log --group 65536 --syncs 2")]
    Log(commit_log::LogArgs),
}

impl BenchCommand {
    /// Whether `--json` was given.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Send(args) | Self::Transaction(args) => args.json,
            Self::Log(args) => args.json,
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArgs {
    /// gRPC address of a running node; without it a node is started in a temporary folder.
    #[arg(long, env = "VOUCH_GRPC_ADDR", value_name = "ADDR", requires = "http")]
    grpc: Option<String>,
    /// HTTP address of that node: the topic is created there.
    #[arg(long, env = "VOUCH_HTTP_ADDR", value_name = "ADDR")]
    http: Option<String>,
    /// Token of its HTTP API, where it asks for one.
    #[arg(long = "http-token", env = "VOUCH_HTTP_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Messages per request.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Open loop: messages per second, at most one million. Without it each producer sends as fast as it is answered.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Producers, each with one request in flight.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    producers: u32,
    /// Connections that the producers share.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// Bytes of a body.
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    body: u32,
    /// Seconds that one server is measured in one round.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Rounds; the servers take turns in each.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Not measured at the beginning of each turn.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = text::length)]
    warmup: Duration,
    /// Messages sent to one server in one round, at most.
    #[arg(long, value_name = "N", default_value_t = 20_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages_max: u64,
    /// Do not measure the null and the bare server.
    #[arg(long)]
    without_peers: bool,
    /// Folder on the disk to be measured; without it a temporary one.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `vouch bench`.
pub(crate) fn run(command: &BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Send(args) => measure(args, false),
        BenchCommand::Transaction(args) => measure(args, true),
        BenchCommand::Log(args) => commit_log::run(args),
    }
}

/// A server that takes part.
struct Contestant {
    name: &'static str,
    address: String,
    process: Option<Server>,
}

fn measure(args: &LoadArgs, transactions: bool) -> anyhow::Result<()> {
    let scratch = Scratch::create(args.dir.as_deref())?;
    let load = Load {
        topic: if transactions { "bench-transaction" } else { "bench-send" }.to_owned(),
        transactions,
        batch: args.batch,
        producers: args.producers,
        connections: args.connections,
        body: args.body,
        rate: args.rate,
    };
    let mut contestants = vec![node(args, &load, scratch.path())?];
    if !args.without_peers {
        contestants.push(peer("null", scratch.path())?);
        contestants.push(peer("bare", scratch.path())?);
    }
    let mut report = Report::new(load.clone(), args.rounds, args.seconds, scratch.describe());
    if !args.json {
        output::line(report.heading())?;
    }
    let runtime = tokio::runtime::Runtime::new().context("cannot start the load generator's runtime")?;
    for number in 0..args.rounds {
        let round = runtime.block_on(take_turns(&contestants, &load, args, number))?;
        if !args.json {
            output::line(report.render_round(&round))?;
        }
        report.rounds.push(round);
    }
    if args.json {
        output::json(&report.document())?
    } else {
        output::line(report.summary())?
    };
    contestants.into_iter().filter_map(|contestant| contestant.process).try_for_each(Server::stop)?;
    report.complain_about_failures()
}

/// One turn for each, in an order that moves on with every round, so that none is always first.
async fn take_turns(contestants: &[Contestant], load: &Load, args: &LoadArgs, number: u32) -> anyhow::Result<Round> {
    let window = Window {
        warmup: args.warmup,
        measured: Duration::from_secs(u64::from(args.seconds)),
        messages_max: args.messages_max,
    };
    let mut round = Round { number: number + 1, seen: Vec::new() };
    for turn in 0..contestants.len() {
        let contestant = &contestants[(turn + number as usize) % contestants.len()];
        let cpu = || contestant.process.as_ref().map(Server::cpu_time).transpose();
        let measured = load::run(&contestant.address, load, window, cpu)
            .await
            .with_context(|| format!("while measuring {}", contestant.name))?;
        round.seen.push((contestant.name, measured));
    }
    round.seen.sort_by_key(|(name, _)| contestants.iter().position(|contestant| contestant.name == *name));
    Ok(round)
}

/// The node that was named, or one that is started; with the topic in place.
fn node(args: &LoadArgs, load: &Load, folder: &Path) -> anyhow::Result<Contestant> {
    let (address, http, process) = match (&args.grpc, &args.http) {
        (Some(grpc), Some(http)) => (grpc.clone(), http.clone(), None),
        _ => {
            let node = start_node(&folder.join("vouch"))?;
            (node.grpc()?, node.http()?, Some(node))
        }
    };
    create_topic(&HttpClient::new(&http, args.token.clone())?, load)?;
    Ok(Contestant { name: "vouch", address, process })
}

/// A node with default settings, on free ports.
fn start_node(folder: &Path) -> anyhow::Result<Server> {
    let mut arguments: Vec<OsString> =
        ["serve", "--stop-with-parent", "--grpc-addr", "127.0.0.1:0"].map(Into::into).into();
    arguments.extend(["--http-addr".into(), "127.0.0.1:0".into(), "--data-dir".into(), folder.into()]);
    Server::start(Start { name: "the node", arguments, folder, environment: &[("RUST_LOG", "warn")] })
}

fn peer(name: &'static str, folder: &Path) -> anyhow::Result<Contestant> {
    let folder = folder.join(name);
    let arguments = vec![format!("bench-{name}").into(), "--dir".into(), folder.clone().into()];
    let process = Server::start(Start { name, arguments, folder: &folder, environment: &[] })?;
    Ok(Contestant { name, address: process.grpc()?, process: Some(process) })
}

/// Creates the topic; one of an earlier run is as good.
fn create_topic(http: &HttpClient, load: &Load) -> anyhow::Result<()> {
    let kind = if load.transactions { "transaction" } else { "normal" };
    let created = http.put(&format!("/v1/topics/{}", load.topic), &json!({"type": kind}), &[("if-none-match", "*")]);
    match created {
        Err(error) if error.downcast_ref::<Problem>().and_then(Problem::status) == Some(412) => Ok(()),
        other => other.map(|_| ()).with_context(|| format!("cannot create the topic {}", load.topic)),
    }
}
