//! `vouch serve` and `vouch config check`.
//!
//! Both read the settings in the same order and say the same of what is wrong. Only `serve` goes on from there: it
//! takes the ports, answers probes on them, recovers the log, and serves until a signal.

mod logging;
mod peers;
mod reload;
mod settings;
mod signals;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use vouch_commitlog::Shortage;
use vouch_gateway::{Connections, Gateway, Ports};
use vouch_node::{Lacking, Node, NodeConfig, NodeHealth, StartError, StartProgress};

use crate::config::{Resolved, SettingArgs, unknown_variables};
use crate::descriptors::{self, Descriptors};
use crate::endpoints::Endpoints;
use crate::failure;
use crate::output::{self, TextTable};
use crate::runtime;
use logging::NodeLog;
use reload::{Reloading, SettingsOrigin};
pub(crate) use settings::COMPILE_COMPONENT;
use settings::{ServeSettings, WantedConnections, connections};
use signals::ProcessSignals;

/// A start that is given up has this long to end by itself. What it reads then it may go on reading until the process ends: it
/// has not begun to change anything, or is cut short as by a crash.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(2);
/// Settings that cannot be read now are read again after this long.
const SETTINGS_AGAIN: Duration = Duration::from_secs(10);

/// What a node is started with.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    settings: SettingArgs,
    /// Stop when standard input ends: for a process that starts this one.
    #[arg(long, hide = true)]
    stop_with_parent: bool,
}

/// What can be done with settings.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every setting, its value and where that comes from, and whether a node would start with them.
    #[command(after_help = "\
Example:
  vouch config check --config vouch.toml

Everything is checked that `vouch serve` checks before it takes a port and reads the log, with the same words and \
exit status, and nothing is changed: settings, certificate and token files, what lies in the data folder, and whether \
one that is missing can be made. Whether somebody uses a port or the folder just now is not asked, so the settings of \
a running node can be checked.")]
    Check(Box<CheckArgs>),
}

/// The settings that are checked, and how they are shown.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    settings: SettingArgs,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs `vouch config check`.
///
/// # Errors
/// What `serve` would refuse before it takes a port. The table is printed before that, so that the wrong value is seen
/// with its source.
pub(crate) fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let mut resolved = args.settings.resolve()?;
    let descriptors = descriptors::reachable();
    if let Ok((wanted, fit)) = connections(&resolved, descriptors)
        && fit.grpc < wanted.connections
    {
        resolved.lower("connections", fit.grpc.to_string(), format!("{descriptors} files may be open"));
    }
    if args.json {
        output::json(&resolved.document())?;
    } else {
        let mut table = TextTable::new(&["SETTING", "VALUE", "FROM"]);
        resolved.rows().for_each(|row| table.row(row));
        table.print()?;
    }
    warn_of_unknown_variables()?;
    ServeSettings::read(&resolved, descriptors)?.check()
}

/// Runs `vouch serve` until a signal.
///
/// # Errors
/// A setting is wrong, a port is taken, or the node does not start; what is served ends with the process in any case.
pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let descriptors = descriptors::raise();
    let runtime = runtime::server()?;
    let mut signals = {
        let _inside = runtime.enter();
        ProcessSignals::listen(args.stop_with_parent)?
    };
    let (args, limit) = (args.settings.clone(), descriptors.limit);
    let reading = {
        let args = args.clone();
        signals.beside(move || read(&args, limit))
    };
    let (started, mut settings) = match runtime.block_on(reading)? {
        ControlFlow::Continue(read) => read?,
        ControlFlow::Break(why) => {
            // Whoever reads from a pipe that nobody writes to ends with the process.
            runtime.shutdown_background();
            output::note(format_args!("vouch: stopped ({why}) while settings and their files were being read"))?;
            return Ok(());
        }
    };
    let log = NodeLog::start(settings.log_format, std::mem::take(&mut settings.log_filter));
    tell_limits(&settings, descriptors);
    let mut reloading = Reloading::new(SettingsOrigin { args, started, descriptors: limit }, log)?;
    // What listens for signals ends with this: a thread that reads for it would keep the runtime.
    let ended = runtime.block_on(async move {
        while let ServeEnd::Lacks(again) = serve(settings, &mut signals, &mut reloading).await? {
            settings = again.settings();
        }
        Ok(())
    });
    runtime.shutdown_timeout(GIVEN_UP_WITHIN);
    ended
}

/// How serving ended.
enum ServeEnd {
    /// It was to.
    Stopped,
    /// The node is to take from others what it lacks, and to serve again.
    Lacks(Box<ServesAgain>),
}

/// What a node begins again with, in the same process: as somebody would start it anew, on the ports that it had.
struct ServesAgain {
    settings: ServeSettings,
    lacking: Lacking,
    grpc: SocketAddr,
    http: SocketAddr,
    peer: Option<SocketAddr>,
}

impl ServesAgain {
    /// The settings as they were read when it was to stop, with its ports.
    fn settings(self) -> ServeSettings {
        let mut settings = self.settings;
        (settings.gateway.grpc_addr, settings.gateway.http_addr) = (self.grpc, self.http);
        if let (Some(peers), Some(peer)) = (&mut settings.node.peers, self.peer) {
            peers.listen = peer.to_string();
        }
        settings.node.lacking = Some(self.lacking);
        settings
    }
}

/// Reads everything that a start needs to know before it takes a port, and checks it. A pipe that nobody writes to, and a file
/// in a network that is gone, block for ever.
fn read(args: &SettingArgs, descriptors: u64) -> anyhow::Result<(Resolved, ServeSettings)> {
    let started = args.resolve()?;
    let settings = ServeSettings::read(&started, descriptors)?;
    warn_of_unknown_variables()?;
    settings.check()?;
    Ok((started, settings))
}

/// Takes the ports and serves from the first moment on: probes and refusals while the log is recovered, everything
/// afterwards. Returns when what was in flight is finished, or its time is over.
async fn serve(
    settings: ServeSettings,
    signals: &mut ProcessSignals,
    reloading: &mut Reloading,
) -> anyhow::Result<ServeEnd> {
    let data_dir = settings.node.data_dir.clone();
    remove_stale_endpoints(&data_dir)?;
    let ports = take_ports(&settings)?;
    let progress = Arc::new(StartProgress::default());
    let (edges, watched) = (settings.gateway, progress.clone());
    let gateway = match signals.beside(move || vouch_gateway::open(edges, ports, watched)).await? {
        ControlFlow::Continue(gateway) => gateway?,
        ControlFlow::Break(why) => {
            tracing::info!(why, "stopping before the node serves: certificate and key are being read");
            tracing::info!("stopped");
            return Ok(ServeEnd::Stopped);
        }
    };
    let (grpc, http) = (gateway.grpc_addr(), gateway.http_addr());
    tracing::info!(%grpc, %http, "starting; until the log is recovered, /readyz on the HTTP port says how far it is");
    let config = peers::told_where_clients_are(settings.node, grpc);
    let Some(node) = start(config, progress, &gateway, signals, reloading).await? else {
        gateway.shutdown().await;
        tracing::info!("stopped");
        return Ok(ServeEnd::Stopped);
    };
    Endpoints::remove(&data_dir).context("cannot remove the endpoints of an earlier run")?;
    gateway.serve(node.clone())?;
    announce(&gateway, &node, &data_dir)?;
    reloading.of_node(node.cluster.clone());
    let (why, lacks) = until_end(&node, &gateway, signals, reloading).await;
    let peer = node.cluster.listens();
    tracing::info!(why, "stopping: answering what is in flight");
    // While clients are served: nobody has to wait until this node is missed.
    node.cluster.resign().await;
    gateway.shutdown().await;
    node.stop().await;
    remove_own_endpoints(&data_dir).context("cannot remove the endpoints")?;
    tracing::info!("stopped");
    let again = lacks.map(|(lacking, settings)| ServesAgain { settings: *settings, lacking, grpc, http, peer });
    Ok(again.map_or(ServeEnd::Stopped, |again| ServeEnd::Lacks(Box::new(again))))
}

/// Waits until the node is to stop: why, and what it takes from others before it begins again, with settings as a reload would read
/// them, so that a token which was exchanged stays exchanged. As long as these cannot be read it goes on as it is: it is behind, and
/// no worse than that; and where it is damaged, whether the others can do without it is asked again then.
async fn until_end(
    node: &Node,
    gateway: &Gateway,
    signals: &mut ProcessSignals,
    reloading: &mut Reloading,
) -> (&'static str, Option<(Lacking, Box<ServeSettings>)>) {
    let (mut lacking, mut waits): (Option<Lacking>, bool) = (None, false);
    loop {
        tokio::select! {
            why = reloading.until_stop(signals, gateway) => return (why, None),
            () = node.cluster.removed() => return ("this node was removed from its cluster", None),
            lacks = node.cluster.lacks(), if lacking.is_none() && !waits => lacking = Some(lacks),
            () = tokio::time::sleep(SETTINGS_AGAIN), if lacking.is_some() || waits => waits = false,
        }
        match tokio::task::block_in_place(|| reloading.settings_anew()) {
            Ok(settings) => {
                if let Some(lacking) = lacking.take() {
                    let why = "this node takes from another one what it lacks, and serves again";
                    return (why, Some((lacking, Box::new(settings))));
                }
            }
            Err(error) => {
                tracing::error!(
                    "this node is to take from another one what it lacks, and cannot begin again: {}; mend that, it is tried again",
                    failure::sentence(&error)
                );
                // Whoever let it go counts on others that may not be there later.
                waits = lacking.take_if(|lacking| lacking.is_damage()).is_some();
            }
        }
    }
}

/// Starts the node, which blocks while the log is recovered, and listens for signals meanwhile. Nothing if it is to stop.
async fn start(
    config: NodeConfig,
    progress: Arc<StartProgress>,
    gateway: &Gateway,
    signals: &mut ProcessSignals,
    reloading: &mut Reloading,
) -> anyhow::Result<Option<Node>> {
    let watched = progress.clone();
    let mut starting = spawn_blocking(move || Node::start_watched(config, &watched));
    let why = tokio::select! {
        started = &mut starting => {
            let started = started.context("the start ended by a defect")?;
            return started.context("the node does not start").map(Some);
        }
        why = reloading.until_stop(signals, gateway) => why,
    };
    tracing::info!(why, "stopping before the node serves: the start is given up");
    progress.give_up();
    match timeout(GIVEN_UP_WITHIN, starting).await {
        Ok(started) => match started.context("the start ended by a defect")? {
            // It was quicker than the signal.
            Ok(node) => node.stop().await,
            Err(StartError::GivenUp) => {}
            Err(error) => return Err(error).context("the node does not start"),
        },
        Err(_) => tracing::info!("the start still reads, and ends with this process"),
    }
    Ok(None)
}

/// Takes the ports before anything is made or changed in the folder. Where one is in use by a node on the same folder, that
/// is what is told.
fn take_ports(settings: &ServeSettings) -> anyhow::Result<Ports> {
    settings.gateway.bind().map_err(|error| match vouch_storage::in_use(&settings.node.data_dir) {
        Some(in_use) => anyhow::Error::new(in_use).context("the node does not start"),
        None => error.into(),
    })
}

/// Removes what this process wrote: another node may run where the folder of this one was.
fn remove_own_endpoints(data_dir: &Path) -> std::io::Result<()> {
    match Endpoints::read(data_dir) {
        Ok(Some(endpoints)) if endpoints.pid == std::process::id() => Endpoints::remove(data_dir),
        _ => Ok(()),
    }
}

/// Removes what a crashed run left, so that nobody takes it for this one. While the process that wrote it runs, the
/// file is its own; the lock of the data folder decides then.
fn remove_stale_endpoints(data_dir: &Path) -> anyhow::Result<()> {
    let Ok(Some(left)) = Endpoints::read(data_dir) else { return Ok(()) };
    let runs = left.pid != std::process::id() && Path::new(&format!("/proc/{}", left.pid)).exists();
    if runs { Ok(()) } else { Endpoints::remove(data_dir).context("cannot remove the endpoints of an earlier run") }
}

/// Writes the endpoints, then says that the node is ready.
fn announce(gateway: &Gateway, node: &Node, data_dir: &Path) -> anyhow::Result<()> {
    let (grpc, http) = (gateway.grpc_addr(), gateway.http_addr());
    let peer = node.cluster.listens();
    let endpoints = Endpoints { grpc: Some(grpc), http: Some(http), peer, pid: std::process::id() };
    match endpoints.write(data_dir) {
        // Who must make room needs the node: that it listens is told below all the same.
        Err(error) if Shortage::of(&error).is_some() => {
            tracing::warn!(%error, "endpoints.json cannot be written; whoever reads the ports from it finds them in this log");
        }
        written => written.context("cannot write the endpoints")?,
    }
    if let NodeHealth::ReadOnly(what_to_do) = node.status.health() {
        tracing::warn!(%grpc, %http, data_dir = %data_dir.display(), what_to_do, "serving a damaged log read-only");
        if std::io::stdout().is_terminal() {
            output::line(format_args!(
                "Vouch serves a damaged log READ-ONLY: gRPC {grpc}, HTTP http://{http}. {what_to_do}."
            ))?;
        }
        return Ok(());
    }
    tracing::info!(%grpc, %http, data_dir = %data_dir.display(), "ready");
    if std::io::stdout().is_terminal() {
        output::line(format_args!("Vouch is ready: gRPC {grpc}, HTTP http://{http}. Stop it with Ctrl-C."))?;
    }
    Ok(())
}

/// Notes variables that look like settings and are none, on standard error. They are no error: a newer version may know
/// them.
fn warn_of_unknown_variables() -> anyhow::Result<()> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    unknown_variables(names).iter().try_for_each(|warning| output::note(format_args!("warning: {warning}")))?;
    Ok(())
}

/// Says that the limit of open files was raised, and that it leaves fewer connections than are wanted: a warning where
/// somebody set how many.
fn tell_limits(settings: &ServeSettings, descriptors: Descriptors) {
    let Descriptors { limit, before } = descriptors;
    let Connections { grpc, http } = settings.gateway.connections;
    if limit > before {
        tracing::info!(limit, before, "raised the limit of open files");
    }
    let WantedConnections { connections, by_somebody } = settings.connections_wanted;
    if grpc < connections {
        /// One sentence for both levels.
        const LOWERED: &str = "connections lowered: the limit of open files (ulimit -n) leaves no more";
        match by_somebody {
            true => tracing::warn!(limit, grpc, http, connections, "{LOWERED}"),
            false => tracing::info!(limit, grpc, http, connections, "{LOWERED}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_a_crashed_run_are_removed_and_those_of_a_running_one_stay() {
        let folder = tempfile::tempdir().unwrap();
        let endpoints = |pid| Endpoints { grpc: None, http: None, peer: None, pid };
        // The largest process id there can be is 2^22.
        endpoints(u32::MAX).write(folder.path()).unwrap();
        remove_stale_endpoints(folder.path()).unwrap();
        assert_eq!(Endpoints::read(folder.path()).unwrap(), None);
        endpoints(1).write(folder.path()).unwrap();
        remove_stale_endpoints(folder.path()).unwrap();
        assert_eq!(Endpoints::read(folder.path()).unwrap(), Some(endpoints(1)), "process 1 runs");
    }
}
