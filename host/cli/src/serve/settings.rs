//! What a node is started with: every setting read, and all that can be checked before anything is taken or made.
//!
//! Each value is read by its form in the table (`config::table`), which holds it to its own bounds. What is checked
//! here and in [`ServeSettings::check`] is what no value can tell by itself: settings that contradict each other,
//! files, and what the machine has.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use vouch_broker::record::FEATURE_LEVEL;
use vouch_gateway::{
    Certificate, Connections, DESCRIPTORS_MIN, DoorError, GRPC_CONNECTIONS_DEFAULT, GatewayConfig, ServeError,
    TOKEN_MAX_BYTES,
};
use vouch_node::{CompilerProgram, NodeConfig};

use super::{logging, peers};
use crate::config::{LogFormat, Resolved};
use crate::failure::WrongUsage;

/// The command that a node starts itself with to compile a component.
pub(crate) const COMPILE_COMPONENT: &str = "compile-component";

/// What a node is started with, read and checked.
pub(super) struct ServeSettings {
    /// For `node`: folder, log, limits.
    pub(super) node: NodeConfig,
    /// For `gateway`: addresses, certificate, who may come in.
    pub(super) gateway: GatewayConfig,
    /// How lines of the log are written, for as long as the process runs.
    pub(super) log_format: LogFormat,
    /// Which of them, until a reload.
    pub(super) log_filter: EnvFilter,
    /// gRPC connections that are wanted, by whom; `gateway` has what fits.
    pub(super) connections_wanted: WantedConnections,
}

/// How many gRPC connections there should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WantedConnections {
    /// How many.
    pub(super) connections: usize,
    /// Somebody set it; else it is the default, of which nobody needs to be warned that it does not fit.
    pub(super) by_somebody: bool,
}

impl ServeSettings {
    /// `descriptors` are those that this process may have. May block for ever, where a file is a pipe or lies in a network.
    pub(super) fn read(resolved: &Resolved, descriptors: u64) -> anyhow::Result<Self> {
        Self::read_as(resolved, None, descriptors)
    }

    /// The same for a node that runs, `started` with other settings: it keeps its data folder, and so the self-signed
    /// certificate in it, and what it read from a pipe it cannot read again.
    pub(super) fn reread(resolved: &Resolved, started: &Resolved, descriptors: u64) -> anyhow::Result<Self> {
        Self::read_as(resolved, Some(started), descriptors)
    }

    /// Reads everything; `started` are the settings of a node that runs.
    fn read_as(resolved: &Resolved, started: Option<&Resolved>, descriptors: u64) -> anyhow::Result<Self> {
        let node = NodeConfig {
            data_dir: resolved.data_dir()?,
            segment_size: resolved.segment_size()?,
            zero_ahead: resolved.zero_ahead()?,
            syncs_in_flight: resolved.syncs_in_flight()?,
            snapshot_every: resolved.snapshot_every()?,
            catch_up_log: resolved.catch_up_log()?,
            scrub_rate: resolved.scrub_rate()?,
            retention_every: resolved.retention_every()?,
            disk_high_water: resolved.disk_high_water()?,
            disk_limit: resolved.disk_limit()?,
            on_damage: resolved.on_damage()?,
            // A node that runs has joined, and its token may be gone by now.
            joins: if started.is_some() { None } else { peers::joins(resolved)? },
            peers: peers::peers(resolved)?,
            lacking: None,
            feature_level: FEATURE_LEVEL,
            bytes_in_flight: resolved.bytes_in_flight()?,
            auto_create_topics: resolved.auto_create_topics()?,
            plugin_threads: resolved.plugin_threads()?,
            sqlite_dirs: resolved.sqlite_dirs()?,
            plugin_ca: resolved.plugin_ca()?,
            secret_key_file: resolved.secret_key_file()?,
            plugin_concurrency: resolved.plugin_concurrency()?,
            plugin_compiler: CompilerProgram::this_program([COMPILE_COMPONENT]),
        };
        let (connections_wanted, connections) = connections(resolved, descriptors)?;
        let gateway = GatewayConfig { connections, ..gateway(resolved, started)? };
        let log_format = resolved.log_format()?;
        Ok(Self { node, gateway, log_format, log_filter: logging::filter(resolved)?, connections_wanted })
    }

    /// Everything that a start would refuse before it takes a port, makes a folder and reads the log. `vouch config check` and
    /// `vouch serve` say the same because both ask here.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.gateway.check().map_err(wrong_setting)?;
        vouch_node::check_start(&self.node).context("the node does not start")?;
        Ok(self.gateway.check_addresses()?)
    }
}

/// A value that cannot be what its setting is, wherever it was written, and which only the edges can tell: wrong usage.
pub(super) fn wrong_setting(error: ServeError) -> anyhow::Error {
    match error {
        ServeError::Door(DoorError::Token | DoorError::HostName(_)) => WrongUsage::error(error.to_string()),
        other => other.into(),
    }
}

/// What is for the ports.
fn gateway(resolved: &Resolved, started: Option<&Resolved>) -> anyhow::Result<GatewayConfig> {
    let (grpc, http) = (resolved.grpc_addr()?, resolved.http_addr()?);
    let mut config = GatewayConfig::new(grpc, http, certificate(resolved, started.unwrap_or(resolved))?);
    config.http_token = http_token(resolved, started.is_some())?;
    let both = resolved.insecure()?;
    config.insecure_http = resolved.insecure_http()? || both;
    config.insecure_grpc = resolved.insecure_grpc()? || both;
    config.http_hosts = resolved.http_hosts()?;
    config.receive_invisible_min = resolved.receive_invisible_min()?;
    Ok(config)
}

/// The token, or what the file with it says, without the end of its line. A pipe is read by the start and not `again`: who
/// wrote the token into it is gone, and reading would wait for ever or find it empty.
fn http_token(resolved: &Resolved, again: bool) -> anyhow::Result<Option<String>> {
    let (token, file) = (resolved.http_token()?, resolved.http_token_file()?);
    if token.as_ref().is_some_and(String::is_empty) {
        // A variable that a deployment left empty would take away the token of the file, and let everybody in.
        return Err(WrongUsage::error(
            "http_token is set and empty; write the token, or leave the setting (VOUCH_HTTP_TOKEN, --http-token) out to have none",
        ));
    }
    let Some(file) = file else { return Ok(token) };
    if token.is_some() {
        return Err(WrongUsage::error("http_token and http_token_file are both set; set one of them"));
    }
    if again && fs::metadata(&file).is_ok_and(|found| !found.is_file()) {
        return Err(WrongUsage::error(format!(
            "{} is not a regular file, and a node that runs reads its token from nothing else: a pipe cannot be read \
             twice; keep the token in a file, or restart the node",
            file.display()
        )));
    }
    let mut text = String::new();
    let read = File::open(&file).and_then(|opened| opened.take(2 * TOKEN_MAX_BYTES as u64).read_to_string(&mut text));
    match read {
        // Bytes that are no text are no token.
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return Err(WrongUsage::error(format!("the token in {} is no text: {error}", file.display())));
        }
        read => read.with_context(|| format!("cannot read the token from {}", file.display()))?,
    };
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// The gRPC connections that are wanted, and those of both ports that fit.
///
/// # Errors
/// [`DESCRIPTORS_MIN`]: fewer files may be open than a node needs at all.
pub(super) fn connections(resolved: &Resolved, descriptors: u64) -> anyhow::Result<(WantedConnections, Connections)> {
    let given = resolved.connections()?;
    let wanted =
        WantedConnections { connections: given.unwrap_or(GRPC_CONNECTIONS_DEFAULT), by_somebody: given.is_some() };
    let fit = Connections::within(descriptors, wanted.connections).with_context(|| {
        format!(
            "{descriptors} files may be open, and a node needs {DESCRIPTORS_MIN}, better 65536; raise the limit with \
             `ulimit -n`, or LimitNOFILE= of a systemd unit"
        )
    })?;
    Ok((wanted, fit))
}

/// Both files or neither; then the pair in the data folder of `runs`.
///
/// # Errors
/// [`WrongUsage`]: one of the two is set without the other.
fn certificate(resolved: &Resolved, runs: &Resolved) -> anyhow::Result<Certificate> {
    match (resolved.tls_certificate()?, resolved.tls_key()?) {
        (None, None) => Ok(Certificate::SelfSigned { folder: runs.data_dir()?.join("tls") }),
        (Some(certificate), Some(key)) => Ok(Certificate::Files { certificate, key }),
        (Some(_), None) => Err(WrongUsage::error("tls_certificate is set without tls_key; set both or neither")),
        (None, Some(_)) => Err(WrongUsage::error("tls_key is set without tls_certificate; set both or neither")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::SettingArgs;

    #[derive(Parser)]
    struct Given {
        #[command(flatten)]
        settings: SettingArgs,
    }

    #[test]
    fn a_node_that_runs_keeps_its_data_folder_and_with_it_the_self_signed_certificate() {
        let resolved = |data_dir| Given::parse_from(["vouch", "--data-dir", data_dir]).settings.resolve().unwrap();
        let (started, now) = (resolved("/first"), resolved("/second"));
        let first = Certificate::SelfSigned { folder: "/first/tls".into() };
        assert_eq!(ServeSettings::read(&started, 65536).unwrap().gateway.certificate, first);
        assert_eq!(ServeSettings::reread(&now, &started, 65536).unwrap().gateway.certificate, first);
    }
}
