//! What a node is started with: every setting read, and all that can be checked before anything is taken or made.

use std::fs::{self, File};
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use vouch_gateway::{Certificate, Connections, DESCRIPTORS_MIN, GatewayConfig, TOKEN_MAX_BYTES};
use vouch_node::{CompilerProgram, NodeConfig, OnDamage};
use vouch_protocol::limits::{INVISIBLE_MAX, RECEIVE_INVISIBLE_LEAST};

use super::logging::{self, LogFormat};
use crate::config::Resolved;
use crate::failure::Usage;
use crate::text;

/// The command that a node starts itself with to compile a component.
pub(crate) const COMPILE_COMPONENT: &str = "compile-component";

/// What a node is started with, read and checked.
pub(super) struct Settings {
    pub(super) node: NodeConfig,
    pub(super) gateway: GatewayConfig,
    pub(super) log_format: LogFormat,
    pub(super) log_filter: EnvFilter,
    /// Connections that somebody wanted; `gateway` has what fits.
    pub(super) connections_wanted: usize,
}

impl Settings {
    /// `descriptors` are those that this process may have. May block for ever, where a file is a pipe or lies in a network.
    pub(super) fn read(resolved: &Resolved, descriptors: u64) -> anyhow::Result<Self> {
        Self::read_as(resolved, None, descriptors)
    }

    /// The same for a node that runs, `started` with other settings: it keeps its data folder, and so the self-signed
    /// certificate in it, and what it read from a pipe it cannot read again.
    pub(super) fn reread(resolved: &Resolved, started: &Resolved, descriptors: u64) -> anyhow::Result<Self> {
        Self::read_as(resolved, Some(started), descriptors)
    }

    fn read_as(resolved: &Resolved, started: Option<&Resolved>, descriptors: u64) -> anyhow::Result<Self> {
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
            bytes_in_flight: resolved.get("bytes_in_flight", bytes_in_flight)?,
            auto_create_topics: resolved.get("auto_create_topics", yes_or_no)?,
            plugin_threads: resolved.get("plugin_threads", count)?,
            plugin_concurrency: resolved.get("plugin_concurrency", count)?,
            plugin_compiler: CompilerProgram::this_program([COMPILE_COMPONENT]),
        };
        let (connections_wanted, connections) = connections(resolved, descriptors)?;
        let gateway = GatewayConfig { connections, ..gateway(resolved, started)? };
        let log_format = resolved.get("log_format", LogFormat::parse)?;
        Ok(Self { node, gateway, log_format, log_filter: logging::filter(resolved)?, connections_wanted })
    }

    /// Everything that a start would refuse before it takes a port, makes a folder and reads the log. `vouch config check` and
    /// `vouch serve` say the same because both ask here.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.gateway.check()?;
        vouch_node::check_start(&self.node).context("the node does not start")?;
        Ok(self.gateway.check_addresses()?)
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

/// With less, requests would wait for each other. 0 is not how to say that there is no bound: memory has one.
fn bytes_in_flight(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 1 << 20;
    match text::bytes(text)? {
        small if small < LEAST => Err(format!("`{text}` is less than 1MiB, the least that may be in flight")),
        size => Ok(size),
    }
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

fn gateway(resolved: &Resolved, started: Option<&Resolved>) -> anyhow::Result<GatewayConfig> {
    let (grpc, http) = (resolved.get("grpc_addr", address)?, resolved.get("http_addr", address)?);
    let mut config = GatewayConfig::new(grpc, http, certificate(resolved, started.unwrap_or(resolved))?);
    config.http_token = http_token(resolved, started.is_some())?;
    let both = resolved.get("insecure", yes_or_no)?;
    config.insecure_http = resolved.get("insecure_http", yes_or_no)? || both;
    config.insecure_grpc = resolved.get("insecure_grpc", yes_or_no)? || both;
    config.http_hosts = resolved.get("http_hosts", names)?;
    config.receive_invisible_min = resolved.get("receive_invisible_min", receive_invisible_min)?;
    Ok(config)
}

/// The token, or what the file with it says, without the end of its line. A pipe is read by the start and not `again`: who
/// wrote the token into it is gone, and reading would wait for ever or find it empty.
fn http_token(resolved: &Resolved, again: bool) -> anyhow::Result<Option<String>> {
    let (token, file) = (resolved.optional("http_token")?, resolved.optional("http_token_file")?);
    if token.is_none() && resolved.is_given("http_token") {
        // A variable that a deployment left empty would take away the token of the file, and let everybody in.
        return Err(Usage::error(
            "http_token is set and empty; write the token, or leave the setting (VOUCH_HTTP_TOKEN, --http-token) out to have none",
        ));
    }
    let Some(file) = file else { return Ok(token) };
    if token.is_some() {
        return Err(Usage::error("http_token and http_token_file are both set; set one of them"));
    }
    if again && fs::metadata(&file).is_ok_and(|found| !found.is_file()) {
        return Err(Usage::error(format!(
            "{file} is not a regular file, and a node that runs reads its token from nothing else: a pipe cannot be read \
             twice; keep the token in a file, or restart the node"
        )));
    }
    let mut text = String::new();
    let read = File::open(&file).and_then(|file| file.take(2 * TOKEN_MAX_BYTES as u64).read_to_string(&mut text));
    read.map_err(|error| Usage::error(format!("cannot read the token from {file}: {error}")))?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
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
pub(super) fn connections(resolved: &Resolved, descriptors: u64) -> anyhow::Result<(usize, Connections)> {
    let wanted = resolved.get("connections", count)?;
    let fit = Connections::within(descriptors, wanted).with_context(|| {
        format!(
            "{descriptors} files may be open, and a node needs {DESCRIPTORS_MIN}, better 65536; raise the limit with \
             `ulimit -n`, or LimitNOFILE= of a systemd unit"
        )
    })?;
    Ok((wanted, fit))
}

/// Both files or neither; then the pair in the data folder of `runs`.
fn certificate(resolved: &Resolved, runs: &Resolved) -> anyhow::Result<Certificate> {
    match (resolved.optional("tls_certificate")?, resolved.optional("tls_key")?) {
        (None, None) => Ok(Certificate::SelfSigned { folder: runs.get("data_dir", folder)?.join("tls") }),
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
        assert_eq!(Settings::read(&started, 65536).unwrap().gateway.certificate, first);
        assert_eq!(Settings::reread(&now, &started, 65536).unwrap().gateway.certificate, first);
    }

    #[test]
    fn values_are_read_from_both_sides_of_their_bounds() {
        assert_eq!(count("1"), Ok(1));
        assert!(count("0").is_err() && count("-1").is_err() && count("x").is_err());
        assert_eq!((yes_or_no("true"), yes_or_no("false")), (Ok(true), Ok(false)));
        assert!(yes_or_no("yes").is_err());
        assert!(address("127.0.0.1:0").is_ok() && address("[::1]:8081").is_ok());
        assert!(address("localhost:1").is_err() && address("127.0.0.1").is_err());
        assert_eq!(names(""), Ok(Vec::new()));
        assert_eq!(names("a.example, b.example").map(|names| names.len()), Ok(2));
        assert!(names("a.example,").is_err());
        let (least, most) = (receive_invisible_min("1s"), receive_invisible_min("12h"));
        assert_eq!((least, most), (Ok(RECEIVE_INVISIBLE_LEAST), Ok(INVISIBLE_MAX)));
        assert!(receive_invisible_min("999ms").is_err() && receive_invisible_min("12h 1s").is_err());
        assert_eq!((on_damage("refuse"), on_damage("read-only")), (Ok(OnDamage::Refuse), Ok(OnDamage::ReadOnly)));
        assert!(on_damage("ignore").is_err() && on_damage("").is_err());
        assert!(folder("").is_err());
    }
}
