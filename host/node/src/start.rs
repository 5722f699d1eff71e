//! Starting and stopping a node.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};

use vouch_broker::{NothingStored, ShardId, State};
use vouch_commitlog::{Appender, LogReader, Recovery};
use vouch_storage::{
    DamagedLog, DiskUse, Folders, Listeners, Lookups, Opened, OpenedLog, Requests, Scrub, ScrubbedFiles, Snapshots,
    Snapshotter, StartError, StartProgress,
};

use crate::clock::{Clock, SystemTimeSource, TimeSource};
use crate::damage::LogDamage;
use crate::messages::Messages;
use crate::metrics::{Metrics, Views};
use crate::node::{Components, Identity, Inner, Node, Status};
use crate::plugins::PluginHost;
use crate::retention;
use crate::routes::Routes;
use crate::search::{MessagePlaces, Search};
use crate::served::{ServedLog, Upkeep};
use crate::settings::Settings;
use crate::shard::{Begun, Command, Inbox, Lead, Leadership, Output, Shard, Shared};
use crate::shortages::Shortages;
use crate::stopping::Stopping;
use crate::transactions::{Ends, Halves, Transactions};
use crate::turns::SearchTurns;
use crate::writable::Writable;
use crate::{NodeConfig, checks, plugins, watch};

/// Damaged places that a start tells one by one.
const TOLD_MAX: usize = 100;

/// What a start would refuse for its settings, or for what lies in the data folder, as far as that is seen without reading
/// the log. Nothing is changed or taken: whether another process holds the folder is not asked.
///
/// # Errors
/// Those of [`Node::start`].
pub fn check_start(config: &NodeConfig) -> Result<(), StartError> {
    plugins::check_settings(config)?;
    vouch_storage::check_start(&config.storage())
}

impl Node {
    /// Opens the data folder, recovers the log and starts. Blocks while it recovers; call it inside a tokio runtime,
    /// whose workers then run the checks.
    ///
    /// A log that is damaged is served read-only, if [`NodeConfig::on_damage`] says so: nothing is written, nobody is asked
    /// about transactions, and nothing of the folder's log and snapshots changes.
    pub fn start(config: NodeConfig) -> Result<Self, StartError> {
        Self::start_with(config, Arc::new(SystemTimeSource))
    }

    /// The same, for somebody who watches how far it is, and may give it up.
    pub fn start_watched(config: NodeConfig, progress: &StartProgress) -> Result<Self, StartError> {
        Self::begin(config, Arc::new(SystemTimeSource), progress)
    }

    /// The same with other clocks than the machine's: for tests of what a wrong clock does.
    pub fn start_with(config: NodeConfig, time: Arc<dyn TimeSource>) -> Result<Self, StartError> {
        Self::begin(config, time, &StartProgress::default())
    }

    fn begin(config: NodeConfig, time: Arc<dyn TimeSource>, progress: &StartProgress) -> Result<Self, StartError> {
        plugins::check_settings(&config)?;
        let inbox = Arc::new(Inbox::new(config.bytes_in_flight));
        let storage = config.storage();
        let report_to = inbox.clone();
        let opened = vouch_storage::open(&storage, &move |durable| report_to.report(durable), progress)?;
        let clock = Clock::start(opened.logged, time);
        let plugins = PluginHost::start(&config)?;
        // Who does not want the node any more finds the log as it was.
        progress.go_on()?;
        let requests = Arc::new(Requests::due_at(opened.snapshot + config.snapshot_every));
        let kept = matches!(opened.log, OpenedLog::Whole { .. });
        let (log, parts) = (opened.reader.clone(), opened.state.named_parts());
        let lookups = Lookups::of_shard(&storage.folder(), log, opened.segment_size, parts, kept)?;
        let Opened { mut folders, state, reader, segment_size, snapshots, snapshot, passed_over, missing, log, .. } =
            opened;
        let shared = Arc::new(Shared::new(Arc::new(Signals::new(clock, requests))));
        let (shard, init, log, scrub) = match log {
            OpenedLog::Whole { appender, recovery } => {
                tell_recovery(&recovery, snapshot);
                plugins.remove_unused(state.plugins());
                let begin = Begin {
                    config: &config,
                    segment_size,
                    folders: &mut folders,
                    state,
                    inbox,
                    reader: &reader,
                    shared: &shared,
                };
                let writing = begin.writing(appender, recovery, snapshots, &lookups);
                // What failed leaves nothing behind that writes to a folder which is let go.
                let (shard, begun, upkeep) = writing.inspect_err(|_| lookups.stop())?;
                if passed_over {
                    // Who makes it takes away what cannot be used. It is a newer one than those, whatever they covered.
                    shared.snapshots.want(begun.applied.0);
                }
                let report = upkeep.scrub.report.clone();
                (shard, begun.init, ServedLog::Kept(Arc::new(upkeep)), report)
            }
            OpenedLog::Damaged(damaged) => {
                let init = state.cluster().init.clone().expect("what is certain of a log has its first record");
                let shard = Shard::start(
                    state,
                    read_only(&damaged),
                    None,
                    inbox,
                    shared.signals.clone(),
                    shared.sessions.clone(),
                );
                (shard.map_err(StartError::Thread)?, init, ServedLog::Damaged(Box::new(damaged)), Arc::default())
            }
        };
        let (shard, log, lookups) = (Arc::new(shard), Arc::new(log), Arc::new(lookups));
        let (disk, metrics) = (Arc::new(DiskUse::new(config.disk_high_water)), Arc::<Metrics>::default());
        let shortages = Arc::new(Shortages::new(disk.clone(), metrics.clone()));
        let routes = Arc::new(Routes {
            shard: shard.clone(),
            directory: shared.directory.clone(),
            log: log.clone(),
            makes_topics: config.auto_create_topics,
        });
        let settings = Arc::new(Settings {
            shard: shard.clone(),
            routes: routes.clone(),
            clock: shared.clock.clone(),
            writable: Writable::new(shared.clone()),
        });
        let halves = Arc::new(Halves { shard: shard.clone(), log: reader.clone(), routes: routes.clone() });
        let ends = Arc::new(Ends { shard: shard.clone(), shortages: shortages.clone(), metrics: metrics.clone() });
        let turns = SearchTurns::new();
        let messages = Arc::new(Messages {
            shard: shard.clone(),
            log: reader.clone(),
            routes: routes.clone(),
            sessions: shared.sessions.clone(),
            clock: shared.clock.clone(),
            writable: Writable::new(shared.clone()),
            shortages: shortages.clone(),
            metrics: metrics.clone(),
        });
        let transactions = Arc::new(Transactions {
            shard: shard.clone(),
            log: reader.clone(),
            served: log.clone(),
            routes: routes.clone(),
            halves: halves.clone(),
            ends: ends.clone(),
            clock: shared.clock.clone(),
            turns: turns.clone(),
            writable: Writable::new(shared.clone()),
            metrics: metrics.clone(),
        });
        let search = Arc::new(Search {
            shard: shard.clone(),
            places: MessagePlaces { shard: shard.clone(), log: reader.clone(), lookups: lookups.clone() },
            transactions: transactions.clone(),
            halves: halves.clone(),
            turns: turns.clone(),
        });
        let damage = Arc::new(LogDamage {
            shard: shard.clone(),
            log: reader.clone(),
            served: log.clone(),
            folder: storage.folder(),
            segment_size,
            missing,
            scrub: scrub.clone(),
            routes: routes.clone(),
            turns,
        });
        let inner = Arc::new(Inner {
            halves,
            ends,
            routes,
            shard,
            log,
            scrub,
            lookups,
            retention: Arc::default(),
            shortages,
            writable: Writable::new(shared.clone()),
            disk,
            segment_size,
            shared,
            reader,
            plugins,
            stopping: Arc::new(Stopping::new()),
            metrics,
            views: Views::default(),
            config,
            folders: Arc::new(Mutex::new(Some(folders))),
        });
        tokio::spawn(sessions::expire(inner.clone()));
        if let Some(upkeep) = inner.log.upkeep() {
            tokio::spawn(checks::run(inner.clone()));
            tokio::spawn(retention::run(inner.clone(), upkeep.clone()));
            tokio::spawn(watch::run(inner.clone(), upkeep.clone()));
        }
        let identity = Identity { cluster_id: init.cluster_id, handle_key: init.handle_key, shard: ShardId::FIRST };
        Ok(Self {
            messages,
            transactions,
            settings,
            components: Components(inner.clone()),
            search,
            damage,
            status: Status(inner.clone()),
            metrics: inner.metrics.clone(),
            sessions: inner.shared.sessions.clone(),
            identity,
            inner,
        })
    }

    /// Answers long polls, makes everything proposed durable and closes the log. Requests after it are refused. When it
    /// resolves another process may have the folder; a second call waits for the first.
    pub async fn stop(&self) {
        self.inner.stopping.cancel();
        let inner = self.inner.clone();
        let stop = move || {
            // Held to the end: whoever calls meanwhile must not let go of a folder that is still written to.
            let mut folders = inner.folders.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(upkeep) = inner.log.upkeep() {
                upkeep.scrub.stop();
            }
            inner.lookups.stop();
            inner.shard.stop();
            if let Some(upkeep) = inner.log.upkeep() {
                // All of a log that closed without an error is durable.
                upkeep.snapshotter.stop(inner.shared.closed().is_none().then(|| inner.reader.end().0));
            }
            // Not after a panic above: then the log may still be open.
            drop(folders.take());
        };
        if let Err(error) = tokio::task::spawn_blocking(stop).await {
            tracing::error!(%error, "stopping the shard failed");
        }
    }
}

/// Says what is damaged, and that nothing is written.
fn read_only(damaged: &DamagedLog) -> Output {
    let DamagedLog { found, served_to, lost, .. } = damaged;
    if let Some(lost) = lost {
        tracing::error!("{lost}");
    }
    for range in found.damage.iter().take(TOLD_MAX) {
        tracing::error!(%range, entries_lost = range.entries_lost(), "the log is damaged");
    }
    let (places, end) = (found.damage.len(), found.end.0);
    tracing::warn!(places, served_to, end, "serving read-only what is whole of a damaged log; nothing is written");
    let what_to_do = "GET /v1/damage lists what is lost; restore the folder from a backup";
    let (appended, durable) = (found.end, found.durable.min(found.end));
    let why = NothingStored::ReadOnly(what_to_do.to_owned());
    Output::Refused { why, appended, durable, applied: LogPosition(*served_to) }
}

fn tell_recovery(recovery: &Recovery, snapshot: u64) {
    let (entries, end, clean) = (recovery.entries, recovery.end.0, recovery.clean);
    let took_ms = recovery.duration.as_millis() as u64;
    tracing::info!(entries, end, snapshot, clean, took_ms, "recovered the log");
}

/// What the threads of a node begin with.
struct Begin<'a> {
    config: &'a NodeConfig,
    segment_size: u64,
    folders: &'a mut Folders,
    state: State,
    inbox: Arc<Inbox>,
    reader: &'a LogReader,
    shared: &'a Arc<Shared>,
}

impl Begin<'_> {
    /// Starts the shard, and what looks after its log when its first records are durable.
    fn writing(
        self,
        appender: Appender,
        recovery: Recovery,
        snapshots: Snapshots,
        lookups: &Lookups,
    ) -> Result<(Shard, Begun, Upkeep), StartError> {
        let Self { config, segment_size, folders, state, inbox, reader, shared } = self;
        let housekeeping = appender.housekeeping();
        let adopted = state.parts().last().copied().unwrap_or(0);
        let prepared = config.zero_ahead.min(segment_size);
        let output = Output::Log { appender, reader: reader.clone(), prepared };
        let (on_begun, begun) = sync_channel(1);
        let (leadership, cluster_id) = (Leadership::of_one(&recovery), folders.cluster_id()?);
        let (handle_key, leapt_from) = (rand::random(), shared.clock.leapt_from());
        let lead = Lead { leadership, cluster_id, segment_size, handle_key, leapt_from };
        let shard = Shard::start(
            state,
            output,
            Some((lead, on_begun)),
            inbox.clone(),
            shared.signals.clone(),
            shared.sessions.clone(),
        );
        let shard = shard.map_err(StartError::Thread)?;
        let look_after = || {
            let ended = |_| Err(shared.closed().cloned().unwrap_or(NothingStored::Stopping).into());
            let begun = begun.recv().unwrap_or_else(ended).map_err(StartError::FirstRecords)?;
            folders.begun()?;
            let snapshots = Arc::new(snapshots);
            let place = config.storage().folder().scrub();
            let files = ScrubbedFiles { snapshots: snapshots.clone(), requests: shared.snapshots.clone() };
            let scrub = Scrub::start(housekeeping.clone(), files, config.scrub_rate, place);
            let scrub = scrub.map_err(StartError::Thread)?;
            let mending = inbox.clone();
            let listeners = Listeners {
                adopt: Box::new(move |position, part| inbox.push(Request::Adopt(position, part))),
                mended: Box::new(move |part, copies| mending.push(Request::ReadFrom(part, copies))),
                sealed: Box::new(lookups.announcer()),
            };
            let (requests, every) = (shared.snapshots.clone(), config.snapshot_every);
            let snapshotter = Snapshotter::start(snapshots, requests, reader.clone(), every, adopted, listeners)
                .inspect_err(|_| scrub.stop())
                .map_err(StartError::Thread)?;
            Ok((begun, Upkeep { housekeeping, snapshotter, scrub, recovery }))
        };
        match look_after() {
            Ok((begun, upkeep)) => Ok((shard, begun, upkeep)),
            Err(error) => {
                shard.stop();
                Err(error)
            }
        }
    }
}
