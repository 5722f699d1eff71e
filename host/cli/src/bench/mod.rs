//! `vouch bench`: load on a node and, in the same run and by turns, on two servers that show what is possible here.
//!
//! Absolute numbers say little about a machine that nobody else has. What counts is the ratio to what the same machine
//! does in the same minute with a server that only answers, and with one that only writes.

mod background;
mod commit_log;
mod contestants;
mod group_commit_file;
mod load;
mod peer_server;
mod peers;
mod report;
mod scratch;
mod stats;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use tokio::runtime::Runtime;

use self::contestants::Contestant;
use self::load::{Load, SendWindow};
use self::report::{Report, Round};
use self::scratch::Scratch;
use crate::child::Server;
use crate::output;
use crate::text;

pub(crate) use self::peer_server::{PeerArgs, serve_bare, serve_null};

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Send messages and wait for each to be on disk.
    #[command(after_help = "\
Examples:
  vouch bench send
  vouch bench send --batch 16
  vouch bench send --rate 2000      latency at a fixed pace, from the due times
  vouch bench send --topics 10000   the load over many topics, beside one topic
  vouch bench send --background     what background work of the node costs
  vouch bench send --grpc 10.0.0.5:8081 --http 10.0.0.5:8080 --without-peers")]
    Send(SendArgs),
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
            Self::Send(args) => args.load.json,
            Self::Transaction(args) => args.json,
            Self::Log(args) => args.json,
        }
    }
}

/// The load of plain sends.
#[derive(Clone, Debug, Args)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Spread the messages over so many topics; more than one are measured beside a node with one.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    topics: u32,
    /// Measure a node with scrub, snapshots, lookup index, retention and cold reads under way beside one without, and the
    /// bare server beside the same bytes a second of plain reads and writes.
    #[arg(long, conflicts_with_all = ["topics", "grpc", "http", "rate", "without_peers"])]
    background: bool,
}

/// A load, where it goes, and for how long.
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

impl LoadArgs {
    /// Plain messages, spread over so many topics.
    fn plain(&self, topics: u32) -> Load {
        self.load(load::topics("bench-send", topics), false)
    }

    /// Half messages that are committed.
    fn transactions(&self) -> Load {
        self.load(load::topics("bench-transaction", 1), true)
    }

    /// The load on these topics.
    fn load(&self, topics: Arc<[String]>, transactions: bool) -> Load {
        Load {
            topics,
            transactions,
            batch: self.batch,
            producers: self.producers,
            connections: self.connections,
            body: self.body,
            rate: self.rate,
        }
    }

    /// The time of one turn.
    fn window(&self) -> SendWindow {
        SendWindow {
            warmup: self.warmup,
            measured: Duration::from_secs(u64::from(self.seconds)),
            messages_max: self.messages_max,
        }
    }
}

/// Runs `vouch bench`.
pub(crate) fn run(command: &BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Send(SendArgs { load, background: true, .. }) => background::run(load),
        BenchCommand::Send(SendArgs { load, topics, .. }) => measure(load, &load.plain(*topics)),
        BenchCommand::Transaction(args) => measure(args, &args.transactions()),
        BenchCommand::Log(args) => commit_log::run(args),
    }
}

/// Measures round by round and prints each as it ends.
///
/// # Errors
/// A request failed, or a server answered nothing: then no number of it is worth anything. What was measured is printed
/// before.
fn measure(args: &LoadArgs, load: &Load) -> anyhow::Result<()> {
    let scratch = Scratch::create(args.dir.as_deref())?;
    let contestants = contestants::all(args, load, scratch.path())?;
    let mut report = Report::new(load.clone(), args.rounds, args.seconds, scratch.describe());
    if !args.json {
        output::line(report.heading())?;
    }
    let runtime = runtime()?;
    for number in 0..args.rounds {
        let round = runtime.block_on(take_turns(&contestants, args, number))?;
        if !args.json {
            output::line(report::render_round(&round))?;
        }
        report.rounds.push(round);
    }
    if args.json {
        output::json(&report.document())?
    } else {
        output::line(report.summary())?
    };
    contestants.into_iter().filter_map(|contestant| contestant.process).try_for_each(Server::stop)?;
    report::complain_about_failures(&report.rounds)
}

/// The runtime of the load.
fn runtime() -> anyhow::Result<Runtime> {
    Runtime::new().context("cannot start the load generator's runtime")
}

/// One turn for each, in an order that moves on with every round, so that none is always first.
async fn take_turns(contestants: &[Contestant], args: &LoadArgs, number: u32) -> anyhow::Result<Round> {
    let mut round = Round { number: number + 1, seen: Vec::new() };
    for turn in 0..contestants.len() {
        let contestant = &contestants[(turn + number as usize) % contestants.len()];
        round.seen.push((contestant.name, contestant.turn(args.window(), || ()).await?));
    }
    round.seen.sort_by_key(|(name, _)| contestants.iter().position(|contestant| contestant.name == *name));
    Ok(round)
}
