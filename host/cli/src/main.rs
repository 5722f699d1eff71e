//! The binary `vouch`: runs a node, shows what it is for, measures it, and carries the operator's commands.
//!
//! What goes wrong is told once, by `report`: the sentence for people on standard error, the document for scripts on
//! standard output where `--json` was given. The exit status is 0 when all was done, 1 when it failed, 2 when flags or
//! settings are wrong.

mod args;
mod backup;
mod bench;
mod binding;
mod child;
mod cluster;
mod config;
mod damage;
mod demo;
mod descriptors;
#[cfg(test)]
mod documents;
mod endpoints;
mod escape;
mod failure;
mod group;
mod http;
mod log;
mod log_damage;
mod log_pieces;
mod message;
mod output;
mod plugin;
mod ports;
mod resource;
mod rpc;
mod runtime;
mod secret;
mod serve;
mod sql;
mod text;
mod topic;
mod transaction;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use tikv_jemallocator::Jemalloc;

use crate::args::{Cli, VouchCommand};

/// Memory that a burst needed goes back to the system soon after it, whichever thread had asked for it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Reads the command line, runs the command, and says how it ended. What is wrong with the flags themselves is told by
/// the parser, which ends the process with 2.
fn main() -> ExitCode {
    let cli = Cli::parse();
    let as_json = cli.command.prints_json();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if reader_is_gone(&error) => ExitCode::SUCCESS,
        Err(error) => report(&error, as_json),
    }
}

/// Runs a command to its end. Commands that serve return when they were told to stop.
fn run(command: VouchCommand) -> anyhow::Result<()> {
    match command {
        VouchCommand::Serve(args) => serve::run(&args),
        VouchCommand::Demo(args) => demo::run(&args),
        VouchCommand::Config(serve::ConfigCommand::Check(args)) => serve::check(&args),
        VouchCommand::DemoService(args) => demo::run_service(args),
        VouchCommand::DemoOrdersApi(args) => demo::run_orders_api(args),
        VouchCommand::DemoShipping(args) => demo::run_shipping(args),
        VouchCommand::Topic(command) => topic::run(command),
        VouchCommand::Group(command) => group::run(command),
        VouchCommand::Plugin(command) => plugin::run(command),
        VouchCommand::Binding(command) => binding::run(*command),
        VouchCommand::Secret(command) => secret::run(command),
        VouchCommand::Sql(command) => sql::run(command),
        VouchCommand::Transaction(command) => transaction::run(command),
        VouchCommand::Message(command) => message::run(command),
        VouchCommand::Log(command) => log::run(command),
        VouchCommand::Cluster(command) => cluster::run(command),
        VouchCommand::Backup(args) => backup::backup(&args),
        VouchCommand::Restore(args) => backup::restore(&args),
        VouchCommand::Bench(command) => bench::run(&command),
        VouchCommand::BenchNull(args) => bench::serve_null(&args),
        VouchCommand::BenchBare(args) => bench::serve_bare(&args),
        VouchCommand::CompileComponent => vouch_node::compiler_process(),
        VouchCommand::Completions { shell } => args::completions(shell),
    }
}

/// The sentence goes to standard error; with `--json` the document goes to standard output as well, where scripts read.
fn report(error: &anyhow::Error, as_json: bool) -> ExitCode {
    if as_json {
        // Nothing is left to tell it to if even this fails.
        let _ = output::json(&failure::document(error));
    }
    let _ = output::note(format_args!("vouch: {}", failure::sentence(error)));
    ExitCode::from(failure::exit_status(error))
}

/// `vouch topic list | head -1` is no failure.
fn reader_is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
