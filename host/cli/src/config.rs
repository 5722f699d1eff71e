//! Settings of a node: flag over environment over file over default, each with one name.
//!
//! A setting `grpc_addr` in the file is `VOUCH_GRPC_ADDR` in the environment and `--grpc-addr` on the command line.

use std::fmt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value, json};

use crate::failure::Usage;

/// Names further away than this from every known one get no suggestion.
const SUGGESTION_MIN_SIMILARITY: f64 = 0.7;

/// A setting as the documentation names it.
pub(crate) struct Setting {
    /// Name in the file.
    pub(crate) key: &'static str,
    /// Value where nobody says otherwise; empty: none.
    pub(crate) default: &'static str,
}

const fn setting(key: &'static str, default: &'static str) -> Setting {
    Setting { key, default }
}

/// Every setting, in the order of `vouch config check`.
pub(crate) const SETTINGS: [Setting; 28] = [
    setting("data_dir", "./vouch-data"),
    setting("grpc_addr", "127.0.0.1:8081"),
    setting("http_addr", "127.0.0.1:8080"),
    setting("http_token", ""),
    setting("http_token_file", ""),
    setting("http_hosts", ""),
    setting("insecure_http", "false"),
    setting("insecure_grpc", "false"),
    setting("insecure", "false"),
    setting("tls_certificate", ""),
    setting("tls_key", ""),
    setting("auto_create_topics", "false"),
    setting("receive_invisible_min", "10s"),
    setting("connections", "20000"),
    setting("bytes_in_flight", "256MiB"),
    setting("segment_size", "1GiB"),
    setting("zero_ahead", "64MiB"),
    setting("syncs_in_flight", "2"),
    setting("snapshot_every", "256MiB"),
    setting("scrub_rate", "8MiB"),
    setting("retention_every", "10s"),
    setting("disk_high_water", "90"),
    setting("disk_limit", ""),
    setting("on_damage", "refuse"),
    setting("plugin_threads", "2"),
    setting("plugin_concurrency", "32"),
    setting("log_format", "text"),
    setting("log_level", ""),
];

/// The settings as flags, with their variables.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SettingArgs {
    /// TOML file with settings named like these flags: `data_dir = "…"`.
    #[arg(long, env = "VOUCH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder that holds everything the node keeps [default: ./vouch-data].
    #[arg(long, env = "VOUCH_DATA_DIR", value_name = "DIR")]
    data_dir: Option<String>,
    /// Address of the gRPC service, plaintext and TLS; port 0 takes a free one; beyond loopback it needs --insecure-grpc
    /// [default: 127.0.0.1:8081].
    #[arg(long, env = "VOUCH_GRPC_ADDR", value_name = "ADDR")]
    grpc_addr: Option<String>,
    /// Address of the HTTP API; beyond loopback it needs a token or --insecure-http [default: 127.0.0.1:8080].
    #[arg(long, env = "VOUCH_HTTP_ADDR", value_name = "ADDR")]
    http_addr: Option<String>,
    /// Token that HTTP requests must carry: `authorization: Bearer TOKEN`.
    #[arg(long, env = "VOUCH_HTTP_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    http_token: Option<String>,
    /// File that holds the token, instead; SIGHUP reads it anew.
    #[arg(long, env = "VOUCH_HTTP_TOKEN_FILE", value_name = "FILE")]
    http_token_file: Option<String>,
    /// Further names by which HTTP clients call this node, separated by commas; others are refused.
    #[arg(long, env = "VOUCH_HTTP_HOSTS", value_name = "NAMES")]
    http_hosts: Option<String>,
    /// Serve HTTP beyond loopback without a token.
    #[arg(long, env = "VOUCH_INSECURE_HTTP", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    insecure_http: Option<String>,
    /// Serve gRPC beyond loopback: clients are not asked yet who they are, and whoever reaches the port may send, receive
    /// and end transactions.
    #[arg(long, env = "VOUCH_INSECURE_GRPC", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    insecure_grpc: Option<String>,
    /// Both --insecure-http and --insecure-grpc. A token that is set is asked for all the same.
    #[arg(long, env = "VOUCH_INSECURE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    insecure: Option<String>,
    /// PEM file with the certificate of the gRPC service; without it a self-signed one is made. SIGHUP reads it anew.
    #[arg(long, env = "VOUCH_TLS_CERTIFICATE", value_name = "FILE")]
    tls_certificate: Option<String>,
    /// PEM file with its private key.
    #[arg(long, env = "VOUCH_TLS_KEY", value_name = "FILE")]
    tls_key: Option<String>,
    /// A send to a topic that does not exist creates it, with type normal.
    #[arg(long, env = "VOUCH_AUTO_CREATE_TOPICS", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    auto_create_topics: Option<String>,
    /// Shortest invisible time that a receive may ask for, 1s to 12h; a receive with auto-renewal names none [default: 10s].
    #[arg(long, env = "VOUCH_RECEIVE_INVISIBLE_MIN", value_name = "TIME")]
    receive_invisible_min: Option<String>,
    /// gRPC connections at once; lowered to what the limit of open files leaves [default: 20000].
    #[arg(long, env = "VOUCH_CONNECTIONS", value_name = "N")]
    connections: Option<String>,
    /// Bytes accepted and not yet on disk, beyond which requests are refused; at least 1MiB [default: 256MiB].
    #[arg(long, env = "VOUCH_BYTES_IN_FLIGHT", value_name = "SIZE")]
    bytes_in_flight: Option<String>,
    /// Size of a segment of the log; fixed when the data folder is made [default: 1GiB].
    #[arg(long, env = "VOUCH_SEGMENT_SIZE", value_name = "SIZE")]
    segment_size: Option<String>,
    /// Bytes of the log kept zero-filled ahead of the writer [default: 64MiB].
    #[arg(long, env = "VOUCH_ZERO_AHEAD", value_name = "SIZE")]
    zero_ahead: Option<String>,
    /// Overlapping syncs of the log, 1 to 4 [default: 2].
    #[arg(long, env = "VOUCH_SYNCS_IN_FLIGHT", value_name = "N")]
    syncs_in_flight: Option<String>,
    /// Bytes of log between two snapshots of the state; a start reads at most about so much [default: 256MiB].
    #[arg(long, env = "VOUCH_SNAPSHOT_EVERY", value_name = "SIZE")]
    snapshot_every: Option<String>,
    /// Bytes a second of the log that are read again to find what a disk lost; 0 for none [default: 8MiB].
    #[arg(long, env = "VOUCH_SCRUB_RATE", value_name = "SIZE")]
    scrub_rate: Option<String>,
    /// How often messages past their retention are looked for, and space that nobody needs is released [default: 10s].
    #[arg(long, env = "VOUCH_RETENTION_EVERY", value_name = "TIME")]
    retention_every: Option<String>,
    /// From how full a disk on, in percent, sends are refused; ends and acknowledgements go on [default: 90].
    #[arg(long, env = "VOUCH_DISK_HIGH_WATER", value_name = "PERCENT")]
    disk_high_water: Option<String>,
    /// Bytes that the log may take of the disk; counts like a disk of that size [default: all of it].
    #[arg(long, env = "VOUCH_DISK_LIMIT", value_name = "SIZE")]
    disk_limit: Option<String>,
    /// What a start does with a log that is damaged inside: refuse, or read-only, which serves what is whole and
    /// refuses all writes [default: refuse].
    #[arg(long, env = "VOUCH_ON_DAMAGE", value_name = "WHAT")]
    on_damage: Option<String>,
    /// Threads that run components, and as many that compile one [default: 2].
    #[arg(long, env = "VOUCH_PLUGIN_THREADS", value_name = "N")]
    plugin_threads: Option<String>,
    /// Calls of components at the same time, on the whole node; some are left for bindings that have none running
    /// [default: 32].
    #[arg(long, env = "VOUCH_PLUGIN_CONCURRENCY", value_name = "N")]
    plugin_concurrency: Option<String>,
    /// How log lines are written: text or json [default: text].
    #[arg(long, env = "VOUCH_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<String>,
    /// Which log lines are written: error, warn, info, debug or trace, also by module: info,vouch_node=debug. SIGHUP reads
    /// it anew from the file [default: RUST_LOG, or info].
    #[arg(long, env = "VOUCH_LOG_LEVEL", value_name = "LEVEL")]
    log_level: Option<String>,
}

impl SettingArgs {
    fn given(&self, key: &str) -> Option<&String> {
        match key {
            "data_dir" => self.data_dir.as_ref(),
            "grpc_addr" => self.grpc_addr.as_ref(),
            "http_addr" => self.http_addr.as_ref(),
            "http_token" => self.http_token.as_ref(),
            "http_token_file" => self.http_token_file.as_ref(),
            "http_hosts" => self.http_hosts.as_ref(),
            "insecure_http" => self.insecure_http.as_ref(),
            "insecure_grpc" => self.insecure_grpc.as_ref(),
            "insecure" => self.insecure.as_ref(),
            "tls_certificate" => self.tls_certificate.as_ref(),
            "tls_key" => self.tls_key.as_ref(),
            "auto_create_topics" => self.auto_create_topics.as_ref(),
            "receive_invisible_min" => self.receive_invisible_min.as_ref(),
            "connections" => self.connections.as_ref(),
            "bytes_in_flight" => self.bytes_in_flight.as_ref(),
            "segment_size" => self.segment_size.as_ref(),
            "zero_ahead" => self.zero_ahead.as_ref(),
            "syncs_in_flight" => self.syncs_in_flight.as_ref(),
            "snapshot_every" => self.snapshot_every.as_ref(),
            "scrub_rate" => self.scrub_rate.as_ref(),
            "retention_every" => self.retention_every.as_ref(),
            "disk_high_water" => self.disk_high_water.as_ref(),
            "disk_limit" => self.disk_limit.as_ref(),
            "on_damage" => self.on_damage.as_ref(),
            "plugin_threads" => self.plugin_threads.as_ref(),
            "plugin_concurrency" => self.plugin_concurrency.as_ref(),
            "log_format" => self.log_format.as_ref(),
            "log_level" => self.log_level.as_ref(),
            _ => None,
        }
    }

    /// The file, the environment and the flags together.
    ///
    /// # Errors
    /// [`Usage`]: the file cannot be read, is no TOML, or has a key that does not exist.
    pub(crate) fn resolve(&self) -> anyhow::Result<Resolved> {
        let file = self.config.as_deref().map(read_file).transpose()?;
        let in_environment = |name: &str| std::env::var(name).ok();
        Ok(Resolved { values: SETTINGS.iter().map(|known| self.value(known, file.as_ref(), in_environment)).collect() })
    }

    fn value(
        &self,
        known: &'static Setting,
        file: Option<&File>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> SettingValue {
        let (text, source) = if let Some(text) = self.given(known.key) {
            let variable = variable(known.key);
            let from_environment = environment(&variable).as_ref() == Some(text);
            (text.clone(), if from_environment { Source::Environment(variable) } else { Source::Flag(known.key) })
        } else if let Some(text) = file.and_then(|file| file.get(known.key)) {
            (text.to_owned(), Source::File(known.key))
        } else {
            (known.default.to_owned(), Source::Default(known.key))
        };
        SettingValue { key: known.key, text, source, lowered: None }
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The command line.
    Flag(&'static str),
    /// This variable.
    Environment(String),
    /// The file.
    File(&'static str),
    /// Nobody said.
    Default(&'static str),
}

impl Source {
    fn kind(&self) -> &'static str {
        match self {
            Self::Flag(_) => "flag",
            Self::Environment(_) => "environment",
            Self::File(_) => "file",
            Self::Default(_) => "default",
        }
    }
}

/// As the user wrote it.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "--{}", key.replace('_', "-")),
            Self::Environment(variable) => f.write_str(variable),
            Self::File(key) => write!(f, "{key} in the file"),
            Self::Default(key) => write!(f, "the default of {key}"),
        }
    }
}

/// One setting with its value.
#[derive(Clone, Debug)]
struct SettingValue {
    key: &'static str,
    text: String,
    source: Source,
    /// What holds instead, and why.
    lowered: Option<Lowered>,
}

/// A value that this machine does not allow.
#[derive(Clone, Debug)]
struct Lowered {
    to: String,
    why: String,
}

/// Every setting with its value and where that comes from.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    values: Vec<SettingValue>,
}

impl Resolved {
    fn find(&self, key: &str) -> anyhow::Result<&SettingValue> {
        let found = self.values.iter().find(|value| value.key == key);
        found.with_context(|| format!("{key} is not a setting; this is a defect"))
    }

    /// The value, read by `parse`.
    ///
    /// # Errors
    /// [`Usage`]: the value is wrong; the text names where it stands.
    pub(crate) fn get<T>(&self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> anyhow::Result<T> {
        let value = self.find(key)?;
        parse(&value.text).map_err(|why| Usage::error(format!("{}: {why}", value.source)))
    }

    /// The value, or nothing if it is empty.
    pub(crate) fn optional(&self, key: &str) -> anyhow::Result<Option<String>> {
        Ok(Some(self.find(key)?.text.clone()).filter(|text| !text.is_empty()))
    }

    /// The value that somebody set, read by `parse`; nothing where it is the default.
    ///
    /// # Errors
    /// [`Usage`]: the value is wrong; the text names where it stands.
    pub(crate) fn given<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> anyhow::Result<Option<T>> {
        let value = self.get(key, parse)?;
        Ok(Some(value).filter(|_| self.is_given(key)))
    }

    /// Whether somebody set it.
    pub(crate) fn is_given(&self, key: &str) -> bool {
        self.find(key).is_ok_and(|found| !matches!(found.source, Source::Default(_)))
    }

    /// Settings that have another value than in `other`.
    pub(crate) fn differing(&self, other: &Self) -> impl Iterator<Item = &'static str> {
        let pairs = self.values.iter().zip(&other.values);
        pairs.filter(|(now, before)| now.text != before.text).map(|(now, _)| now.key)
    }

    /// Notes that another value holds than the one that was set.
    pub(crate) fn lower(&mut self, key: &str, to: String, why: String) {
        for value in self.values.iter_mut().filter(|value| value.key == key) {
            value.lowered = Some(Lowered { to: to.clone(), why: why.clone() });
        }
    }

    /// Rows for `vouch config check`: setting, value, where it comes from. Secrets are not shown.
    pub(crate) fn rows(&self) -> impl Iterator<Item = [String; 3]> {
        self.values.iter().map(|value| [value.key.to_owned(), shown(value), value.source.kind().to_owned()])
    }

    /// The same for scripts.
    pub(crate) fn document(&self) -> Value {
        let member = |value: &SettingValue| {
            let mut document = json!({"value": plain(value), "source": value.source.kind()});
            if let Some(lowered) = &value.lowered {
                document["lowered_to"] = lowered.to.as_str().into();
            }
            (value.key.to_owned(), document)
        };
        Value::Object(self.values.iter().map(member).collect::<Map<_, _>>())
    }
}

fn shown(value: &SettingValue) -> String {
    match &value.lowered {
        Some(Lowered { to, why }) => format!("{} (lowered to {to}: {why})", plain(value)),
        None => plain(value),
    }
}

fn plain(value: &SettingValue) -> String {
    match (value.key, value.text.as_str()) {
        (_, "") => "-".to_owned(),
        ("http_token", _) => "(set)".to_owned(),
        (_, text) => text.to_owned(),
    }
}

/// Variables that look like settings and are none: a typing mistake must not pass in silence.
pub(crate) fn unknown_variables(environment: impl Iterator<Item = String>) -> Vec<String> {
    const OTHERS: [&str; 1] = ["VOUCH_CONFIG"];
    let known: Vec<String> =
        SETTINGS.iter().map(|known| variable(known.key)).chain(OTHERS.map(str::to_owned)).collect();
    let unknown = environment.filter(|name| name.starts_with("VOUCH_") && !known.contains(name));
    unknown.map(|name| format!("{name} is not a setting{}", suggestion(&name, known.iter()))).collect()
}

/// The variable of a setting.
fn variable(key: &str) -> String {
    format!("VOUCH_{}", key.to_uppercase())
}

/// The settings of a file, as texts.
struct File {
    values: Vec<(String, String)>,
}

impl File {
    fn get(&self, key: &str) -> Option<&str> {
        self.values.iter().find(|(name, _)| name == key).map(|(_, text)| text.as_str())
    }
}

fn read_file(path: &Path) -> anyhow::Result<File> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Usage::error(format!("cannot read the configuration {shown}: {error}")))?;
    let is_pipe = || std::fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo());
    if text.is_empty() && is_pipe() {
        // Settings that were there the first time would be gone without a word.
        return Err(Usage::error(format!(
            "{shown} is a pipe and has nothing more; a configuration to be read again is a file"
        )));
    }
    parse_file(&text).map_err(|why| Usage::error(format!("{shown}: {why}")))
}

fn parse_file(text: &str) -> Result<File, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string().trim_end().to_owned())?;
    let values = table.into_iter().map(|(key, value)| {
        if !SETTINGS.iter().any(|known| known.key == key) {
            let near = suggestion(&key, SETTINGS.iter().map(|known| known.key));
            return Err(format!("`{key}` is not a setting{near}"));
        }
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(yes) => yes.to_string(),
            other => return Err(format!("`{key}` takes text, a whole number or true/false, not {}", other.type_str())),
        };
        Ok((key, text))
    });
    Ok(File { values: values.collect::<Result<_, _>>()? })
}

/// `; did you mean …?` with the nearest name, if any is near.
fn suggestion(name: &str, known: impl Iterator<Item = impl AsRef<str>>) -> String {
    let similarity = |candidate: &str| strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase());
    let near = known.map(|candidate| (similarity(candidate.as_ref()), candidate.as_ref().to_owned()));
    let best = near.max_by(|(a, _), (b, _)| a.total_cmp(b)).filter(|(near, _)| *near >= SUGGESTION_MIN_SIMILARITY);
    best.map_or_else(
        || "; vouch serve --help lists them".to_owned(),
        |(_, nearest)| format!("; did you mean `{nearest}`?"),
    )
}

#[cfg(test)]
mod tests;
