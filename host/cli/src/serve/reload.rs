//! What SIGHUP does: files and settings are read anew, and what can change while the node serves does.
//!
//! All of it is taken over, or nothing is: everything is read and checked first, on a thread of its own, and only then
//! exchanged. A node that was told to reload and could not goes on as before, and says in its log what to mend.

use std::sync::Arc;

use anyhow::Context;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing_subscriber::EnvFilter;
use vouch_gateway::{Gateway, Reloaded, Rereading};
use vouch_node::{Nodes, RereadSecurity};

use super::logging::NodeLog;
use super::settings::ServeSettings;
use super::signals::{ProcessSignals, SignalOrder};
use crate::config::{Resolved, SettingArgs};
use crate::failure;

/// Where settings come from, and what they were.
#[derive(Clone)]
pub(super) struct SettingsOrigin {
    pub(super) args: SettingArgs,
    /// With these the node started.
    pub(super) started: Resolved,
    /// Files that may be open.
    pub(super) descriptors: u64,
}

/// What SIGHUP does, and how far it is.
pub(super) struct Reloading {
    origin: SettingsOrigin,
    log: NodeLog,
    /// Those to which a certificate is shown, when the node serves.
    nodes: Option<Arc<Nodes>>,
    /// As it holds now.
    log_level: Option<String>,
    /// Reads on a thread of its own: where a file lies in a network that is gone, this takes for ever.
    reading: Option<JoinHandle<anyhow::Result<Reread>>>,
    /// SIGHUP came meanwhile.
    again: bool,
}

impl Reloading {
    /// Nothing is being read yet.
    pub(super) fn new(origin: SettingsOrigin, log: NodeLog) -> anyhow::Result<Self> {
        let log_level = origin.started.log_level()?;
        Ok(Self { origin, log, nodes: None, log_level, reading: None, again: false })
    }

    /// The node serves: what it shows to others is read anew, too.
    pub(super) fn of_node(&mut self, nodes: Arc<Nodes>) {
        self.nodes = Some(nodes);
    }

    /// The settings as they are now, for a node that begins again in this process.
    ///
    /// # Errors
    /// What a start would refuse.
    pub(super) fn settings_anew(&self) -> anyhow::Result<ServeSettings> {
        let SettingsOrigin { args, started, descriptors } = &self.origin;
        let settings = ServeSettings::reread(&args.resolve()?, started, *descriptors)?;
        settings.check()?;
        Ok(settings)
    }

    /// Reloads whenever it is told to, until the node is to stop; says why. Nothing is lost when this is dropped while it
    /// waits.
    pub(super) async fn until_stop(&mut self, signals: &mut ProcessSignals, gateway: &Gateway) -> &'static str {
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    SignalOrder::Stop(why) => return why,
                    SignalOrder::Reload => self.begin(gateway),
                },
                read = read(&mut self.reading) => self.end(read, gateway),
            }
        }
    }

    /// Begins to read all anew. One thread reads at a time, however often it is told to.
    fn begin(&mut self, gateway: &Gateway) {
        self.again = self.reading.is_some();
        if self.again {
            tracing::info!("SIGHUP: files are still being read for the one before; when that ends they are read again");
            return;
        }
        let (origin, rereading, nodes) = (self.origin.clone(), gateway.rereading(), self.nodes.clone());
        self.reading = Some(spawn_blocking(move || origin.read(&rereading, nodes.as_deref())));
    }

    /// Either all of it holds from now on, or nothing; one line of the log says which.
    fn end(&mut self, read: anyhow::Result<Reread>, gateway: &Gateway) {
        match read.and_then(|read| self.take_over(read, gateway)) {
            Ok(Changed { now, with_the_next_start }) => tracing::info!(
                changed = now,
                with_the_next_start,
                "reloaded certificate and key, HTTP token and names, log level"
            ),
            Err(error) => tracing::error!(
                "nothing is reloaded, and what was read before goes on: {}; mend that, try it with vouch config check, and \
                 send SIGHUP again",
                failure::sentence(&error)
            ),
        }
        if std::mem::take(&mut self.again) {
            self.begin(gateway);
        }
    }

    /// Exchanges what was read for what holds.
    fn take_over(&mut self, read: Reread, gateway: &Gateway) -> anyhow::Result<Changed> {
        // The only step that can fail is the first.
        self.log.set(read.log_filter)?;
        let Reloaded { certificate, door } = gateway.take_over(read.edges);
        let level = self.log_level != read.log_level;
        self.log_level = read.log_level;
        let peers = self.nodes.as_ref().zip(read.peers).is_some_and(|(nodes, read)| nodes.take_over_certificates(read));
        let all = [
            (certificate, "certificate"),
            (peers, "certificate for other nodes"),
            (door, "HTTP token or names"),
            (level, "log level"),
        ];
        let now = names(all.into_iter().filter_map(|(changed, name)| changed.then_some(name)));
        Ok(Changed { now, with_the_next_start: read.with_the_next_start })
    }
}

/// What is being read, when it is; never, if nothing is.
async fn read(reading: &mut Option<JoinHandle<anyhow::Result<Reread>>>) -> anyhow::Result<Reread> {
    let Some(running) = reading else { return std::future::pending().await };
    let read = running.await;
    *reading = None;
    read.context("the reading ended by a defect")?
}

impl SettingsOrigin {
    /// Reads settings and files anew. What holds from the next start on only is named, so that nobody waits for it.
    ///
    /// # Errors
    /// What a start would refuse; or there is something that can be read once only.
    fn read(&self, rereading: &Rereading, nodes: Option<&Nodes>) -> anyhow::Result<Reread> {
        let resolved = self.args.resolve()?;
        let ServeSettings { gateway, log_filter, node, .. } =
            ServeSettings::reread(&resolved, &self.started, self.descriptors)?;
        let edges = rereading.read(&gateway)?;
        let peers = nodes.map_or(Ok(None), |nodes| nodes.reread_certificates(node.peers.as_ref()));
        let peers = peers.map_err(|why| anyhow::anyhow!("the certificate for other nodes: {why}"))?;
        let others = resolved.differing(&self.started).filter(|setting| !setting.reloads);
        let (log_level, with_the_next_start) = (resolved.log_level()?, names(others.map(|setting| setting.name)));
        Ok(Reread { edges, peers, log_filter, log_level, with_the_next_start })
    }
}

/// Everything that was read, and is right.
struct Reread {
    edges: vouch_gateway::Reread,
    peers: Option<RereadSecurity>,
    log_filter: EnvFilter,
    log_level: Option<String>,
    with_the_next_start: String,
}

/// What differs from before, for the log.
struct Changed {
    now: String,
    with_the_next_start: String,
}

fn names(names: impl Iterator<Item = &'static str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    /// What `Gateway::take_over` and the log take over, and nothing else: of the rest a reload says that it waits.
    #[test]
    fn what_sighup_changes_is_who_may_come_in_and_what_the_log_tells() {
        let reloads: Vec<&str> =
            SETTINGS.iter().filter(|setting| setting.reloads).map(|setting| setting.name).collect();
        let doors = ["http_token", "http_token_file", "http_hosts", "insecure_http", "insecure_grpc", "insecure"];
        let tls = ["tls_certificate", "tls_key", "peer_certificate", "peer_key", "peer_ca"];
        assert_eq!(reloads, [&doors[..], &tls, &["log_level"]].concat());
    }

    #[test]
    fn names_for_the_log_are_never_an_empty_text() {
        assert_eq!(names(std::iter::empty()), "nothing");
        assert_eq!(names(["a", "b"].into_iter()), "a, b");
    }
}
