//! `/metrics`: the numbers of this node in the OpenMetrics text format, which Prometheus reads.
//!
//! Names, units and help texts are part of what users rely on: `host/docs/metrics.md` lists each, and a test holds the
//! two together.

mod cluster;
mod family;
mod labelled;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use vouch_broker::NothingStored;
use vouch_node::{Node, NodeHealth, Numbers, ProcessUse, SeriesView};

use super::App;
use super::cluster::leaderless;
use super::problem::Problem;

/// What Prometheus asks for.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What has to be read from files.
struct Outside {
    /// What the process uses of the machine.
    process: ProcessUse,
    /// How old the last backup is; nothing where none was taken.
    backup_age_seconds: Option<f64>,
}

impl Outside {
    /// Reads files below `/proc`, so not on a thread that serves others.
    fn read(node: &Node) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let age = |at: u64| now.saturating_sub(at) as f64;
        Self {
            process: ProcessUse::now(),
            backup_age_seconds: node.status.backed_up_at_ms().map(|at| seconds(age(at))),
        }
    }
}

/// `GET /metrics`.
pub(crate) async fn text(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let (numbers, view) = (app.node.status.numbers().await?, app.node.status.series().await?);
    let pauses = app.node.components.pauses().await?;
    // A log that is only read belongs to no group.
    let cluster = app.node.cluster.status().await.ok();
    let defect = |error: String| NothingStored::Internal(format!("the metrics cannot be written: {error}"));
    // Reads files, and may write a thousand series.
    let write = move || -> Result<String, std::fmt::Error> {
        let outside = Outside::read(&app.node);
        let mut text = String::new();
        let mut of_node = registry(&app, (&numbers, &*view), outside.backup_age_seconds);
        labelled::bindings(&mut of_node, pauses, &app.node.components.consumer_standings());
        if let Some(cluster) = &cluster {
            cluster::cluster(&mut of_node, cluster, numbers.log());
            cluster::certificate(&mut of_node, app.node.cluster.certificate_until());
        }
        encode_registry(&mut text, &of_node)?;
        let mut of_process = Registry::default();
        labelled::process(&mut of_process, outside.process);
        encode_registry(&mut text, &of_process)?;
        encode_eof(&mut text).map(|()| text)
    };
    let written = tokio::task::spawn_blocking(write).await.map_err(|error| defect(error.to_string()))?;
    let text = written.map_err(|error| defect(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

/// The numbers of this moment. They live in the node; here they only get their names.
fn registry(app: &App, (numbers, view): (&Numbers, &SeriesView), backup_age_seconds: Option<f64>) -> Registry {
    let node = &app.node;
    let mut registry = Registry::with_prefix("vouch");
    registry.register("build", "Version of the program", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
    count(&mut registry, node, numbers);
    measure(&mut registry, node, numbers);
    labelled::groups_and_topics(&mut registry, view);
    labelled::checks(&mut registry, &node.metrics.checks.counts());
    labelled::deliveries(&mut registry, &node.metrics.deliveries.counts());
    labelled::comparisons(&mut registry, &node.metrics.comparisons.counts());
    labelled::calls(&mut registry, app);
    labelled::durations(&mut registry, node);
    labelled::backup(&mut registry, backup_age_seconds);
    for (name, help, value) in [
        (
            "answers_waiting",
            "Bytes of answers made for gRPC clients that have not taken them yet",
            app.grpc_outbound.bytes(),
        ),
        (
            "http_answers_waiting",
            "Bytes of answers made for HTTP clients that have not taken them yet, those below 16 KiB not counted",
            app.http_outbound.bytes(),
        ),
    ] {
        registry.register_with_unit(name, help, Unit::Bytes, ConstGauge::new(value));
    }
    registry
}

/// What only grows: counters since the start.
fn count(registry: &mut Registry, node: &Node, numbers: &Numbers) {
    let metrics = &node.metrics;
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    for (name, help, value) in [
        ("messages_in", "Messages stored, half messages included", read(&metrics.messages_in)),
        (
            "messages_in_memory",
            "Messages acknowledged before they were on disk, on topics with the ack level memory",
            read(&metrics.messages_in_memory),
        ),
        (
            "messages_in_memory_refused",
            "Messages acknowledged before they were on disk that were not stored after all: their topic was deleted meanwhile",
            node.status.refused_in_memory(),
        ),
        ("messages_out", "Messages handed out, redeliveries included", read(&metrics.messages_out)),
        (
            "receive_scans",
            "Looks for messages that receives made: when they came, and when something came that they may want",
            node.status.receive_scans(),
        ),
        ("transaction_commits", "Transactions ended with a commit", read(&metrics.commits)),
        ("transaction_rollbacks", "Transactions ended with a rollback", read(&metrics.rollbacks)),
        (
            "transaction_conflicts",
            "Ends refused because the transaction had ended the other way",
            read(&metrics.end_conflicts),
        ),
        ("checks_unanswered", "Asks about transactions that got no answer", read(&metrics.checks_unanswered)),
        (
            "group_filter_differences",
            "Times that members of one group came to have different filters",
            node.sessions.filter_differences(),
        ),
        ("sessions_refused", "Clients that found no room among the sessions", node.sessions.refused()),
        ("overloads", "Requests refused because too much was in flight", read(&metrics.overloads)),
        (
            "disk_full_refusals",
            "Requests refused because the disk is at its high-water mark, or the log finds no room",
            read(&node.status.disk().refused),
        ),
        ("retention_expired", "Messages past their retention that are gone", read(&node.status.retention().expired)),
        (
            "retention_missed",
            "Messages that were gone before groups had finished them; each counts once for each group",
            read(&node.status.retention().missed),
        ),
        (
            "retention_carried",
            "Records written again because they are still needed",
            read(&node.status.retention().carried),
        ),
        (
            "retention_groups",
            "Groups that receives made, that never acknowledged a message, and that are gone",
            read(&node.status.retention().groups),
        ),
        ("retention_segments", "Segments of the log that were released", read(&node.status.retention().segments)),
        ("scrub_rounds", "Times that the whole sealed log was read again", read(&node.status.scrub().rounds)),
        (
            "scrub_mended",
            "Copies of snapshots and their parts that the scrubber found damaged or missing, and made again from the other copy",
            read(&node.status.scrub().mended),
        ),
        ("lookup_builds", "Files of the lookup index that were made", read(&node.status.lookup().builds)),
        (
            "lookup_damaged",
            "Files of the lookup index that were given up as damaged and made again",
            read(&node.status.lookup().damaged),
        ),
        ("resends", "Resent messages that were recognised and stored once", numbers.resends),
        ("reused_message_ids", "Message ids that were used again for other content", numbers.reused_ids),
    ] {
        registry.register(name, help, ConstCounter::new(value));
    }
}

/// The unit of all times in metrics.
fn seconds(ms: f64) -> f64 {
    ms / 1000.0
}

/// What goes up and down: as it is at this moment.
fn measure(registry: &mut Registry, node: &Node, numbers: &Numbers) {
    let (producers, consumers) = node.sessions.count();
    for (name, help, value) in [
        (
            "scrub_damaged",
            "Damaged ranges of the log, and files of snapshots damaged in both copies, that the last look found; above 0, restore \
             them from a backup, where no other node of a cluster mends them",
            node.status.scrub().damaged.load(Ordering::Relaxed),
        ),
        (
            "snapshot_failed",
            "1 while the last snapshot that was due was not made.",
            u64::from(node.status.snapshot_trouble().is_some()),
        ),
        (
            "log_repaired_segments",
            "Segments of the log that other nodes gave before this one last began to serve, since its own were damaged",
            node.damage.repaired_segments() as u64,
        ),
        ("lookup_files", "Files of the lookup index in use", node.status.lookup().files.load(Ordering::Relaxed)),
        (
            "lookup_missing",
            "Files of the lookup index that are not made yet",
            node.status.lookup().missing.load(Ordering::Relaxed),
        ),
        ("topics", "Topics", numbers.topics as u64),
        ("groups", "Consumer groups", numbers.groups as u64),
        ("transactions_open", "Open transactions, parked ones included", numbers.open_transactions as u64),
        ("transactions_parked", "Transactions that are no longer asked about", numbers.parked_transactions as u64),
        ("transactions_ended", "Ended transactions whose outcome is remembered", numbers.ended_transactions as u64),
        ("checks_running", "Asks about transactions under way", numbers.asking as u64),
        ("polls_waiting", "Receives that wait for messages", numbers.waiting_polls as u64),
        ("producer_sessions", "Live producers", producers as u64),
        ("consumer_sessions", "Live consumers", consumers as u64),
        (
            "disk_full",
            "1 while sends are refused because the disk is full, or something else that the log needs is short.",
            u64::from(node.status.disk().is_full()),
        ),
        (
            "read_only",
            "1 while a damaged log is served read-only.",
            u64::from(matches!(node.status.health(), NodeHealth::ReadOnly(_))),
        ),
        (
            "secret_keys_missing",
            "1 while this node lacks a key of secrets, or would after its next start since the key file cannot be read.",
            u64::from(node.secrets.lacks_keys() || node.secrets.key_file_is_at_fault()),
        ),
        (
            "ready",
            "1 while the node takes requests.",
            u64::from(node.status.health() == NodeHealth::Ready && leaderless(node).is_none()),
        ),
    ] {
        registry.register(name, help, ConstGauge::new(value));
    }
    for (name, help, value) in [
        (
            "clock_ahead",
            "By how much the log's time is ahead of the wall clock; below 0 where the wall clock is ahead and not followed yet",
            seconds(node.status.clock_ahead_ms() as f64),
        ),
        (
            "clock_doubted",
            "Time of the log that makes nothing older while nobody knows whether it passed",
            seconds(numbers.doubted_ms as f64),
        ),
    ] {
        registry.register_with_unit(name, help, Unit::Seconds, ConstGauge::new(value));
    }
    let log = node.status.log_usage();
    let read = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
    for (name, help, value) in [
        ("disk_used", "Bytes used on the file system of the data folder", read(&node.status.disk().used_bytes)),
        ("disk_size", "Bytes used and available there", read(&node.status.disk().total_bytes)),
        ("log_start", "First log position that is kept", log.start.0),
        ("log_segments", "Bytes of the log's segment files", log.segment_bytes),
        ("log_spares", "Bytes of released files that are kept to be used again", log.spare_bytes),
        ("log_held", "Bytes of deleted files that readers still hold", log.held_bytes),
        ("in_flight", "Bytes accepted and not yet answered", node.status.bytes_in_flight()),
        ("lookup", "Bytes of the lookup index", node.status.lookup().bytes.load(Ordering::Relaxed)),
        ("log_appended", "Log position after the last entry", numbers.appended.0),
        ("log_durable", "Log position before which everything is on disk", numbers.durable.0),
        ("log_applied", "Log position before which everything is applied", numbers.applied.0),
    ] {
        registry.register_with_unit(name, help, Unit::Bytes, ConstGauge::new(value));
    }
}
