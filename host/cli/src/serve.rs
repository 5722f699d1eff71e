//! `vouch serve` and `vouch config check`.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use tracing_subscriber::EnvFilter;
use vouch_gateway::{Certificate, Connections, DESCRIPTORS_MIN, Gateway, GatewayConfig, Ports};
use vouch_node::{CompilerProgram, Health, Node, NodeConfig, OnDamage};
use vouch_protocol::limits::{INVISIBLE_MAX, RECEIVE_INVISIBLE_LEAST};

use crate::config::{Resolved, SettingArgs, unknown_variables};
use crate::descriptors::{self, Descriptors};
use crate::endpoints::Endpoints;
use crate::failure::Usage;
use crate::output::{self, Table};
use crate::{runtime, text};

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    settings: SettingArgs,
    /// Stop when standard input ends: for a process that starts this one.
    #[arg(long, hide = true)]
    stop_with_parent: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every setting, its value and where that comes from, and whether a node would start with them.
    #[command(after_help = "Example:\n  vouch config check --config vouch.toml")]
    Check(Box<CheckArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    settings: SettingArgs,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a node is started with, read and checked.
struct Settings {
    node: NodeConfig,
    gateway: GatewayConfig,
    log_format: LogFormat,
    /// Connections that somebody wanted; `gateway` has what fits.
    connections_wanted: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogFormat {
    Text,
    Json,
}

/// Runs `vouch config check`.
pub(crate) fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let mut resolved = args.settings.resolve()?;
    let descriptors = descriptors::reachable();
    if let Ok((wanted, fit)) = connections(&resolved, descriptors)
        && fit.grpc < wanted
    {
        resolved.lower("connections", fit.grpc.to_string(), format!("{descriptors} files may be open"));
    }
    if args.json {
        output::json(&resolved.document())?;
    } else {
        let mut table = Table::new(&["SETTING", "VALUE", "FROM"]);
        resolved.rows().for_each(|row| table.row(row));
        table.print()?;
    }
    warn_of_unknown_variables()?;
    Settings::read(&resolved, descriptors)?;
    Ok(())
}

/// Runs `vouch serve` until a signal.
pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let descriptors = descriptors::raise();
    let settings = Settings::read(&args.settings.resolve()?, descriptors.limit)?;
    warn_of_unknown_variables()?;
    start_logging(settings.log_format)?;
    tell_limits(&settings, descriptors);
    settings.gateway.check()?;
    let runtime = runtime::server()?;
    runtime.block_on(serve(settings, args.stop_with_parent))
}

async fn serve(settings: Settings, stop_with_parent: bool) -> anyhow::Result<()> {
    let data_dir = settings.node.data_dir.clone();
    remove_stale_endpoints(&data_dir)?;
    let ports = take_ports(&settings)?;
    // Starting blocks while the log is recovered; nothing else runs here yet.
    let node = Node::start(settings.node).context("the node does not start")?;
    Endpoints::remove(&data_dir).context("cannot remove the endpoints of an earlier run")?;
    let gateway = vouch_gateway::serve_on(node.clone(), settings.gateway, ports).await?;
    let stop = StopSignal::listen(stop_with_parent)?;
    announce(&gateway, &node.health(), &data_dir)?;
    let why = stop.received().await;
    tracing::info!(why, "stopping: answering what is in flight");
    gateway.shutdown().await;
    node.stop().await;
    remove_own_endpoints(&data_dir).context("cannot remove the endpoints")?;
    tracing::info!("stopped");
    Ok(())
}

/// Takes the ports before anything is made or changed in the folder. Where one is in use by a node on the same folder, that
/// is what is told.
fn take_ports(settings: &Settings) -> anyhow::Result<Ports> {
    settings.gateway.bind().map_err(|error| match vouch_node::in_use(&settings.node.data_dir) {
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
fn announce(gateway: &Gateway, health: &Health, data_dir: &Path) -> anyhow::Result<()> {
    let (grpc, http) = (gateway.grpc_addr(), gateway.http_addr());
    let endpoints = Endpoints { grpc: Some(grpc), http: Some(http), pid: std::process::id() };
    endpoints.write(data_dir).context("cannot write the endpoints")?;
    if let Health::ReadOnly(what_to_do) = health {
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

/// What ends a node.
struct StopSignal {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    with_parent: bool,
}

impl StopSignal {
    fn listen(with_parent: bool) -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            with_parent,
        })
    }

    async fn received(mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = runtime::parent_gone(), if self.with_parent => "standard input ended",
        }
    }
}

fn start_logging(format: LogFormat) -> anyhow::Result<()> {
    let filter =
        EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).from_env().map_err(|error| {
            Usage::error(format!("RUST_LOG: {error}; write for example RUST_LOG=info,vouch_node=debug"))
        })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => lines.json().init(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
    }
    Ok(())
}

fn warn_of_unknown_variables() -> anyhow::Result<()> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    unknown_variables(names).iter().try_for_each(|warning| output::note(format_args!("warning: {warning}")))?;
    Ok(())
}

impl Settings {
    /// `descriptors` are those that this process may have.
    fn read(resolved: &Resolved, descriptors: u64) -> anyhow::Result<Self> {
        let node = NodeConfig {
            data_dir: resolved.get("data_dir", folder)?,
            segment_size: resolved.given("segment_size", text::bytes)?,
            zero_ahead: resolved.get("zero_ahead", text::bytes)?,
            syncs_in_flight: resolved.get("syncs_in_flight", count)?,
            snapshot_every: resolved.get("snapshot_every", snapshot_every)?,
            scrub_rate: resolved.get("scrub_rate", text::bytes)?,
            retention_every: resolved.get("retention_every", retention_every)?,
            disk_high_water: resolved.get("disk_high_water", percent)?,
            disk_limit: resolved.get("disk_limit", size_or_none)?,
            on_damage: resolved.get("on_damage", on_damage)?,
            bytes_in_flight: resolved.get("bytes_in_flight", text::bytes)?,
            auto_create_topics: resolved.get("auto_create_topics", yes_or_no)?,
            plugin_threads: resolved.get("plugin_threads", count)?,
            plugin_concurrency: resolved.get("plugin_concurrency", count)?,
            plugin_compiler: CompilerProgram::this_program([crate::args::COMPILE_COMPONENT]),
        };
        let (connections_wanted, connections) = connections(resolved, descriptors)?;
        let gateway = GatewayConfig { connections, ..gateway(resolved)? };
        Ok(Self { node, gateway, log_format: resolved.get("log_format", log_format)?, connections_wanted })
    }
}

/// Less would only keep the shard from its work.
fn retention_every(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_millis(100);
    match text::length(text)? {
        short if short < LEAST => {
            Err(format!("`{text}` is less than 100ms, the least there may lie between two looks"))
        }
        length => Ok(length),
    }
}

/// Less would end while a message is on its way; more than the longest lease would refuse every receive.
fn receive_invisible_min(text: &str) -> Result<Duration, String> {
    match text::length(text)? {
        short if short < RECEIVE_INVISIBLE_LEAST => {
            Err(format!("`{text}` is less than 1s, the shortest invisible time that a receive can have"))
        }
        long if long > INVISIBLE_MAX => Err(format!("`{text}` is more than 12h, the longest invisible time there is")),
        length => Ok(length),
    }
}

fn size_or_none(text: &str) -> Result<Option<u64>, String> {
    if text.is_empty() { Ok(None) } else { text::bytes(text).map(Some) }
}

fn percent(text: &str) -> Result<u8, String> {
    let percent = text.parse().ok().filter(|percent| (1..=99).contains(percent));
    percent.ok_or_else(|| format!("`{text}` is not a percentage; write a whole number from 1 to 99"))
}

/// Less would write more snapshots than log.
fn snapshot_every(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 1 << 20;
    match text::bytes(text)? {
        small if small < LEAST => {
            Err(format!("`{text}` is less than 1MiB, the least there may lie between two snapshots"))
        }
        size => Ok(size),
    }
}

fn gateway(resolved: &Resolved) -> anyhow::Result<GatewayConfig> {
    let mut config = GatewayConfig::new(resolved.get("grpc_addr", address)?, resolved.get("http_addr", address)?);
    config.certificate = certificate(resolved)?;
    config.http_token = resolved.optional("http_token")?;
    config.insecure = resolved.get("insecure", yes_or_no)?;
    config.http_hosts = resolved.get("http_hosts", names)?;
    config.receive_invisible_min = resolved.get("receive_invisible_min", receive_invisible_min)?;
    Ok(config)
}

/// Names separated by commas.
fn names(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    match names.as_slice() {
        [only] if only.is_empty() => Ok(Vec::new()),
        _ if names.iter().any(String::is_empty) => Err(format!("`{text}` has an empty name between its commas")),
        _ => Ok(names),
    }
}

/// The gRPC connections that are wanted, and those of both ports that fit.
fn connections(resolved: &Resolved, descriptors: u64) -> anyhow::Result<(usize, Connections)> {
    let wanted = resolved.get("connections", count)?;
    let fit = Connections::within(descriptors, wanted).with_context(|| {
        format!(
            "{descriptors} files may be open, and a node needs {DESCRIPTORS_MIN}, better 65536; raise the limit with \
             `ulimit -n`, or LimitNOFILE= of a systemd unit"
        )
    })?;
    Ok((wanted, fit))
}

fn tell_limits(settings: &Settings, descriptors: Descriptors) {
    let Descriptors { limit, before } = descriptors;
    let Connections { grpc, http } = settings.gateway.connections;
    if limit > before {
        tracing::info!(limit, before, "raised the limit of open files");
    }
    if grpc < settings.connections_wanted {
        let wanted = settings.connections_wanted;
        tracing::warn!(
            limit,
            grpc,
            http,
            wanted,
            "connections lowered: the limit of open files (ulimit -n) leaves no more"
        );
    }
}

/// Both files or neither.
fn certificate(resolved: &Resolved) -> anyhow::Result<Certificate> {
    match (resolved.optional("tls_certificate")?, resolved.optional("tls_key")?) {
        (None, None) => Ok(Certificate::SelfSigned { folder: resolved.get("data_dir", folder)?.join("tls") }),
        (Some(certificate), Some(key)) => Ok(Certificate::Files { certificate: certificate.into(), key: key.into() }),
        (Some(_), None) => Err(Usage::error("tls_certificate is set without tls_key; set both or neither")),
        (None, Some(_)) => Err(Usage::error("tls_key is set without tls_certificate; set both or neither")),
    }
}

fn folder(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("a folder is needed".to_owned()) } else { Ok(PathBuf::from(text)) }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an address; write IP:PORT, for example 127.0.0.1:8081"))
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| format!("`{text}` is not a whole number above 0"))
}

fn on_damage(text: &str) -> Result<OnDamage, String> {
    match text {
        "refuse" => Ok(OnDamage::Refuse),
        "read-only" => Ok(OnDamage::ReadOnly),
        _ => Err(format!("`{text}` is neither refuse nor read-only")),
    }
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("`{text}` is neither true nor false"))
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("`{text}` is neither text nor json")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_from_both_sides_of_their_bounds() {
        assert_eq!(count("1"), Ok(1));
        assert!(count("0").is_err() && count("-1").is_err() && count("x").is_err());
        assert_eq!((yes_or_no("true"), yes_or_no("false")), (Ok(true), Ok(false)));
        assert!(yes_or_no("yes").is_err());
        assert!(address("127.0.0.1:0").is_ok() && address("[::1]:8081").is_ok());
        assert!(address("localhost:1").is_err() && address("127.0.0.1").is_err());
        assert_eq!((log_format("text"), log_format("json")), (Ok(LogFormat::Text), Ok(LogFormat::Json)));
        assert_eq!(names(""), Ok(Vec::new()));
        assert_eq!(names("a.example, b.example").map(|names| names.len()), Ok(2));
        assert!(names("a.example,").is_err());
        let (least, most) = (receive_invisible_min("1s"), receive_invisible_min("12h"));
        assert_eq!((least, most), (Ok(RECEIVE_INVISIBLE_LEAST), Ok(INVISIBLE_MAX)));
        assert!(receive_invisible_min("999ms").is_err() && receive_invisible_min("12h 1s").is_err());
        assert_eq!((on_damage("refuse"), on_damage("read-only")), (Ok(OnDamage::Refuse), Ok(OnDamage::ReadOnly)));
        assert!(on_damage("ignore").is_err() && on_damage("").is_err());
        assert!(log_format("xml").is_err() && folder("").is_err());
    }

    #[test]
    fn endpoints_of_a_crashed_run_are_removed_and_those_of_a_running_one_stay() {
        let folder = tempfile::tempdir().unwrap();
        let endpoints = |pid| Endpoints { grpc: None, http: None, pid };
        // The largest process id there can be is 2^22.
        endpoints(u32::MAX).write(folder.path()).unwrap();
        remove_stale_endpoints(folder.path()).unwrap();
        assert_eq!(Endpoints::read(folder.path()).unwrap(), None);
        endpoints(1).write(folder.path()).unwrap();
        remove_stale_endpoints(folder.path()).unwrap();
        assert_eq!(Endpoints::read(folder.path()).unwrap(), Some(endpoints(1)), "process 1 runs");
    }
}
