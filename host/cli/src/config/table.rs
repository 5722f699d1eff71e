//! The settings of a node, each in one row.
//!
//! A row says name, form, default and what the setting does. Everything else comes from it: the flag with its help, the
//! variable, the key of the file and what may stand there, the lines of `vouch config check`, the page for operators, and
//! the function of [`Resolved`] that reads the value. A setting that nobody reads is one that the compiler warns of.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use vouch_commitlog::{MAX_SEGMENT_SIZE, MAX_SYNCS_IN_FLIGHT, MAX_ZERO_AHEAD, MIN_SEGMENT_SIZE, MIN_ZERO_AHEAD};
use vouch_gateway::GRPC_CONNECTIONS_DEFAULT;
use vouch_node::{DEFAULT_SEGMENT_SIZE, MAX_GUEST_THREADS, MAX_NODE_CONCURRENCY, NodeConfig, OnDamage};
use vouch_protocol::limits::{INVISIBLE_MAX, RECEIVE_INVISIBLE_LEAST, RECEIVE_INVISIBLE_MIN};

use super::defaults::{DATA_DIR, GRPC_ADDR, HTTP_ADDR};
use super::forms::{
    Address, Choice, Count, FilePath, Folder, FolderList, Form, FormBounds, HostPort, IfGiven, Level, NameList, OrNone,
    Percent, Size, Time, Token, YesOrNo, size, time,
};
use super::log_lines::LogFormat;
use super::resolved::Resolved;
use super::setting::DefaultValue::{Nothing, Value};
use super::setting::SettingRow;

/// Makes [`SETTINGS`] of its rows, and of each a function that reads the value, of the type behind the arrow.
macro_rules! settings {
    ($(
        $(#[doc = $text:literal])+
        $name:ident -> $value:ty = $form:expr, default $default:expr, $changed_by:ident;
    )+) => {
        /// Every setting, in the order of `vouch config check`.
        pub(crate) static SETTINGS: &[SettingRow] = &[$(
            SettingRow {
                name: stringify!($name),
                text: &[$($text),+],
                form: &$form,
                default: $default,
                reloads: settings!(@reloads $changed_by),
            },
        )+];

        /// Reads each setting by its form.
        ///
        /// # Errors
        /// Of each: [`WrongUsage`](crate::failure::WrongUsage), the value is wrong; the text names where it stands.
        impl Resolved {
            $(
                $(#[doc = $text])+
                pub(crate) fn $name(&self) -> anyhow::Result<$value> {
                    self.read(stringify!($name), |text, given| $form.take(text, given))
                }
            )+
        }
    };
    (@reloads sighup) => { true };
    (@reloads start) => { false };
}

settings! {
    /// Folder that holds everything the node keeps.
    data_dir -> PathBuf = Folder, default Value(|| DATA_DIR.to_owned()), start;

    /// Address of the gRPC service, plaintext and TLS; port 0 takes a free one; beyond loopback it needs --insecure-grpc.
    grpc_addr -> SocketAddr = Address, default Value(|| GRPC_ADDR.to_owned()), start;

    /// Address of the HTTP API; beyond loopback it needs a token or --insecure-http.
    http_addr -> SocketAddr = Address, default Value(|| HTTP_ADDR.to_owned()), start;

    /// Token that HTTP requests must carry: `authorization: Bearer TOKEN`.
    http_token -> Option<String> = IfGiven(Token), default Nothing(""), sighup;

    /// File that holds the token, instead; SIGHUP reads it anew.
    http_token_file -> Option<PathBuf> = OrNone(FilePath), default Nothing(""), sighup;

    /// Further names by which HTTP clients call this node, separated by commas; others are refused.
    http_hosts -> Vec<String> = NameList, default Nothing(""), sighup;

    /// Serve HTTP beyond loopback without a token.
    insecure_http -> bool = YesOrNo, default Value(no), sighup;

    /// Serve gRPC beyond loopback: clients are not asked yet who they are, and whoever reaches the port may send, receive
    /// and end transactions.
    insecure_grpc -> bool = YesOrNo, default Value(no), sighup;

    /// Both --insecure-http and --insecure-grpc. A token that is set is asked for all the same.
    insecure -> bool = YesOrNo, default Value(no), sighup;

    /// PEM file with the certificate of the gRPC service; without it a self-signed one is made. SIGHUP reads it anew.
    tls_certificate -> Option<PathBuf> = OrNone(FilePath), default Nothing(""), sighup;

    /// PEM file with its private key.
    tls_key -> Option<PathBuf> = OrNone(FilePath), default Nothing(""), sighup;

    /// Address on which this node listens for the other nodes of its cluster; port 0 takes a free one; without it the node is
    /// alone and listens to nobody.
    peer_addr -> Option<SocketAddr> = OrNone(Address), default Nothing(""), start;

    /// Where the other nodes reach this one; needed where peer_addr is all addresses, like 0.0.0.0.
    peer_advertise -> Option<String> = OrNone(HostPort), default Nothing("peer_addr"), start;

    /// Where clients reach this node, as the other nodes tell theirs.
    grpc_advertise -> Option<String> = OrNone(HostPort), default Nothing("grpc_addr, unless that is all addresses"), start;

    /// Tell clients of the official Java library the grpc_advertise of the node that leads, with those of the others behind it; only
    /// where they reach all of these. Every other client stays where it is, and its calls are passed on.
    routes_to_leader -> bool = YesOrNo, default Value(no), start;

    /// No TLS between nodes: for one machine, or a network that is nobody else's; without it --peer-certificate, --peer-key and
    /// --peer-ca are needed.
    peer_insecure -> bool = YesOrNo, default Value(no), start;

    /// PEM file with the certificate that this node shows to the others; vouch cluster certificates makes it. SIGHUP reads it anew,
    /// for connections that begin then.
    peer_certificate -> Option<PathBuf> = OrNone(FilePath), default Nothing(""), sighup;

    /// PEM file with its private key.
    peer_key -> Option<PathBuf> = OrNone(FilePath), default Nothing(""), sighup;

    /// PEM file with the certificate of the authority that issued those of all nodes.
    peer_ca -> Option<PathBuf> = OrNone(FilePath), default Nothing(""), sighup;

    /// Peer address of any node of a cluster that this one joins, with an empty data folder and --token-file; a node that has
    /// joined needs neither any more.
    join -> Option<String> = OrNone(HostPort), default Nothing(""), start;

    /// File with the token with which this node joins, once; vouch cluster add makes it.
    token_file -> Option<PathBuf> = OrNone(FilePath), default Nothing(""), start;

    /// A send to a topic that does not exist creates it, with type normal.
    auto_create_topics -> bool = YesOrNo, default Value(|| node().auto_create_topics.to_string()), start;

    /// Shortest invisible time that a receive may ask for, {least} to {most}; a receive with auto-renewal names none.
    receive_invisible_min -> Duration = Time(FormBounds::between(
        // Less would end while a message is on its way; more would refuse every receive.
        (RECEIVE_INVISIBLE_LEAST, "the shortest invisible time that a receive can have"),
        (INVISIBLE_MAX, "the longest invisible time there is"),
    )), default Value(|| time(RECEIVE_INVISIBLE_MIN)), start;

    /// gRPC connections at once; lowered to what the limit of open files leaves.
    connections -> Option<usize> = IfGiven(Count(FormBounds::NONE)),
        default Value(|| GRPC_CONNECTIONS_DEFAULT.to_string()), start;

    /// Bytes accepted and not yet on disk, beyond which requests are refused; at least {least}.
    // With less, requests would wait for each other. 0 is not how to say that there is no bound: memory has one.
    bytes_in_flight -> u64 = Size(FormBounds::at_least(1 << 20, "the least that may be in flight")),
        default Value(|| size(node().bytes_in_flight)), start;

    /// Size of a segment of the log; fixed when the data folder is made.
    segment_size -> Option<u64> = IfGiven(Size(FormBounds::told(MIN_SEGMENT_SIZE, MAX_SEGMENT_SIZE))),
        default Value(|| size(DEFAULT_SEGMENT_SIZE)), start;

    /// Bytes of the log kept zero-filled ahead of the writer.
    zero_ahead -> u64 = Size(FormBounds::told(MIN_ZERO_AHEAD, MAX_ZERO_AHEAD)),
        default Value(|| size(node().zero_ahead)), start;

    /// Overlapping syncs of the log, {least} to {most}.
    syncs_in_flight -> usize = Count(FormBounds::told(1, MAX_SYNCS_IN_FLIGHT)),
        default Value(|| node().syncs_in_flight.to_string()), start;

    /// Bytes of log between two snapshots of the state; a start reads at most about so much.
    // Less would write more snapshots than log.
    snapshot_every -> u64 = Size(FormBounds::at_least(1 << 20, "the least there may lie between two snapshots")),
        default Value(|| size(node().snapshot_every)), start;

    /// Bytes of log that a node which is there may lack and still gets from the one that leads, however slow it is.
    catch_up_log -> u64 = Size(FormBounds::NONE), default Value(|| size(node().catch_up_log)), start;

    /// Bytes a second of the log that are read again to find what a disk lost; 0 for none.
    scrub_rate -> u64 = Size(FormBounds::NONE), default Value(|| size(node().scrub_rate)), start;

    /// How often messages past their retention are looked for, and space that nobody needs is released.
    // Less would only keep the shard from its work.
    retention_every -> Duration = Time(FormBounds::at_least(
        Duration::from_millis(100),
        "the least there may lie between two looks",
    )), default Value(|| time(node().retention_every)), start;

    /// From how full a disk on, in percent, sends are refused; ends and acknowledgements go on.
    disk_high_water -> u8 = Percent, default Value(|| node().disk_high_water.to_string()), start;

    /// Bytes that the log may take of the disk; counts like a disk of that size.
    disk_limit -> Option<u64> = OrNone(Size(FormBounds::NONE)), default Nothing("all of it"), start;

    /// What a start does with a log that is damaged inside: refuse, or read-only, which serves what is whole and
    /// refuses all writes.
    on_damage -> OnDamage = ON_DAMAGE, default Value(|| ON_DAMAGE.word(OnDamage::default())), start;

    /// Threads that run components, and as many that compile one.
    plugin_threads -> usize = Count(FormBounds::told(1, MAX_GUEST_THREADS)),
        default Value(|| node().plugin_threads.to_string()), start;

    /// Calls of components at the same time, on the whole node; some are left for bindings that have none running.
    plugin_concurrency -> usize = Count(FormBounds::told(1, MAX_NODE_CONCURRENCY)),
        default Value(|| node().plugin_concurrency.to_string()), start;

    /// Folders below which SQLite files may lie that bindings grant to components, separated by commas; none: no such file is
    /// granted. Not for a node that is one of several.
    sqlite_dirs -> Vec<PathBuf> = FolderList, default Nothing(""), start;

    /// PEM file with certificates of authorities that databases and services of components may have theirs from, besides the public
    /// ones: of a company, or of a cloud's databases.
    plugin_ca -> Option<PathBuf> = OrNone(FilePath), default Nothing(""), start;

    /// File with the keys that open secrets, for its owner alone (mode 0600); made with the first secret. It is in no backup: keep a
    /// copy of it elsewhere.
    secret_key_file -> Option<PathBuf> = OrNone(FilePath), default Nothing("secrets.key in the data folder"), start;

    /// How log lines are written: text or json.
    log_format -> LogFormat = LOG_FORMAT, default Value(|| LOG_FORMAT.word(LogFormat::Text)), start;

    /// Which log lines are written: error, warn, info, debug or trace, also by module: info,vouch_node=debug. SIGHUP reads
    /// it anew from the file.
    log_level -> Option<String> = OrNone(Level), default Nothing("RUST_LOG, or info"), sighup;
}

/// What a start does with a damaged log.
const ON_DAMAGE: Choice<OnDamage> =
    Choice { placeholder: "WHAT", of: [("refuse", OnDamage::Refuse), ("read-only", OnDamage::ReadOnly)] };

/// How lines of the log are written.
const LOG_FORMAT: Choice<LogFormat> =
    Choice { placeholder: "FORMAT", of: [("text", LogFormat::Text), ("json", LogFormat::Json)] };

/// The defaults of a node, which the crate that runs it has.
fn node() -> NodeConfig {
    NodeConfig::new(DATA_DIR)
}

/// Switches are off where nobody turns them on.
fn no() -> String {
    false.to_string()
}
