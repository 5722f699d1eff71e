//! Starting a node. Nobody else knows all of its parts.

mod faces;
mod parts;
mod tasks;
mod writing;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vouch_commitlog::LogPosition;
use vouch_storage::{Lookups, Opened, OpenedLog, Requests, StartError, StartProgress};

use crate::node::{Node, NodeIdentity};
use crate::peers::{Lacking, Pulled, lacks_what_is_damaged, pull};
use crate::served::ServedLog;
use crate::served_shard::SHARD;
use crate::sessions::Sessions;
use crate::stopping::Stopping;
use crate::{NodeConfig, components};
use parts::NodeParts;
use vouch_shard::clock::{Clock, SystemTimeSource, TimeSource};
use vouch_shard::{Inbox, NoPeers, Shard, ShardLinks, Signals};
use writing::{Begin, BegunShard, NoStart, RecoveredLog, read_only, tell_recovery};

/// Where nobody had what is damaged here, it is asked for again after this long.
const MENDS_AGAIN_AFTER: Duration = Duration::from_secs(60 * 60);

/// What came from other nodes before this one began.
#[derive(Default)]
struct Came {
    /// Where segments begin that were damaged, and are whole now.
    repaired: Vec<LogPosition>,
    /// Nobody gave what is damaged: it is not asked for before.
    mends_from: Option<Instant>,
}

/// What a start would refuse for its settings, or for what lies in the data folder, as far as that is seen without reading
/// the log. Nothing is changed or taken: whether another process holds the folder is not asked.
///
/// # Errors
/// Those of [`Node::start`].
pub fn check_start(config: &NodeConfig) -> Result<(), StartError> {
    components::check_settings(config)?;
    check_peers(config)?;
    vouch_storage::check_start(&config.storage())
}

/// Who joins has an address for the others, and the files for TLS can be used.
fn check_peers(config: &NodeConfig) -> Result<(), StartError> {
    let why = "a node joins a cluster over an address of its own for the others; name one with --peer-addr";
    let missing = config.joins.is_some() && config.peers.is_none();
    if missing {
        return Err(StartError::Peers(why.to_owned()));
    }
    let secured = config.peers.as_ref().map_or(Ok(()), |peers| peers.security.check());
    secured.map_err(|error| StartError::Peers(error.to_string()))
}

/// What is lost of the log of a member, the others have: it takes that from them, and has no part in the group until it is whole
/// again, so that it neither votes nor acknowledges with less than it once had.
///
/// # Errors
/// The start failed for another reason; or nobody else has the log.
fn what_others_have(config: &NodeConfig, error: StartError, progress: &StartProgress) -> Result<Lacking, StartError> {
    let is_lost = matches!(error, StartError::Damaged(_) | StartError::NoSnapshot { .. });
    if !is_lost || config.peers.is_none() {
        return Err(error);
    }
    let any = config.joins.as_ref().map(|joins| joins.address.clone());
    match lacks_what_is_damaged(&config.storage(), any, progress)? {
        Some(lacking) => {
            tracing::error!(
                %error, segments = lacking.damaged.len(),
                "the log of this node is damaged; it takes what is lost from the others, and neither votes nor serves meanwhile"
            );
            Ok(lacking)
        }
        None => Err(error),
    }
}

impl Node {
    /// Opens the data folder, recovers the log and starts. Blocks while it recovers; call it inside a tokio runtime,
    /// whose workers then run the checks.
    ///
    /// A log that is damaged is served read-only, if [`NodeConfig::on_damage`] says so: nothing is written, nobody is asked
    /// about transactions, and nothing of the folder's log and snapshots changes.
    ///
    /// A node that joins a cluster ([`NodeConfig::joins`]) is let in first, and has begun when it got the beginning of the log.
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

    /// Takes from other nodes what this one lacks, if it does, and begins then.
    fn begin(config: NodeConfig, time: Arc<dyn TimeSource>, progress: &StartProgress) -> Result<Self, StartError> {
        components::check_settings(&config)?;
        check_peers(&config)?;
        let (mut lacking, mut came) = (config.lacking.clone(), Came::default());
        loop {
            if let Some((lacking, peers)) = lacking.take().zip(config.peers.as_ref()) {
                let damaged = lacking.damaged.clone();
                match pull(&config.storage(), peers, lacking, progress)? {
                    Pulled::All => {
                        came.repaired.extend(damaged);
                        came.mends_from = None;
                    }
                    Pulled::Nothing => came.mends_from = Some(Instant::now() + MENDS_AGAIN_AFTER),
                }
            }
            match Self::begin_here(config.clone(), &came, time.clone(), progress) {
                Ok(node) => return Ok(node),
                Err(NoStart::Lacks(what)) => {
                    let any = config.joins.as_ref().map(|joins| joins.address.clone());
                    lacking = Some(Lacking { any, ..what });
                }
                Err(NoStart::Failed(error)) => lacking = Some(what_others_have(&config, error, progress)?),
            }
        }
    }

    /// Opens the folder, starts the threads, and makes a node of it all. What fails leaves nothing running.
    fn begin_here(
        config: NodeConfig,
        came: &Came,
        time: Arc<dyn TimeSource>,
        progress: &StartProgress,
    ) -> Result<Self, NoStart> {
        let inbox = Arc::new(Inbox::new(config.bytes_in_flight));
        let storage = config.storage();
        let report_to = inbox.clone();
        let opened = vouch_storage::open(&storage, &move |durable| report_to.report(durable), progress)?;
        let clock = Clock::start(opened.logged, time);
        let (store, engine) = (components::open_store(&config)?, components::start_engine(&config)?);
        // Who does not want the node any more finds the log as it was.
        progress.go_on()?;
        let requests = Arc::new(Requests::due_at(opened.snapshot.plus(config.snapshot_every)));
        requests.are_by_name(opened.state.cluster().names_snapshots());
        let kept = matches!(opened.log, OpenedLog::Whole { .. });
        let (log, parts) = (opened.reader.clone(), opened.state.named_parts());
        let lookups = Lookups::of_shard(&storage.folder(), log, opened.segment_size, parts, kept)?;
        let node = opened.folders.node();
        let Opened { mut folders, state, reader, segment_size, snapshots, snapshot, before, .. } = opened;
        let (passed_over, missing, log) = (opened.passed_over, opened.missing, opened.log);
        let signals = Arc::new(Signals::new(clock, requests));
        let sessions = Arc::<Sessions>::default();
        let (shard, speaking, init, served, scrub) = match log {
            OpenedLog::Whole { appender, recovery, base, tail, replica } => {
                tell_recovery(&recovery, snapshot);
                components::remove_unused(&store, state.plugins());
                let begin = Begin {
                    config: &config,
                    segment_size,
                    folders: &mut folders,
                    state,
                    inbox,
                    reader: &reader,
                    signals: &signals,
                    sessions: &sessions,
                    progress,
                };
                let recovered = RecoveredLog { appender, recovery, file: replica, base, tail, before };
                let writing = begin.writing(recovered, snapshots, &lookups);
                // What failed leaves nothing behind that writes to a folder which is let go.
                let BegunShard { shard, speaking, begun, upkeep } = writing.inspect_err(|_| lookups.stop())?;
                if passed_over {
                    // Who makes it takes away what cannot be used. It is a newer one than those, whatever they covered.
                    signals.snapshots.want_here(begun.applied);
                }
                let report = upkeep.scrub.report.clone();
                (shard, speaking, begun.init, ServedLog::Kept(Arc::new(upkeep)), report)
            }
            OpenedLog::Damaged(damaged) => {
                let init = state.cluster().init.clone().expect("what is certain of a log has its first record");
                let (signals, members) = (signals.clone(), sessions.clone());
                let links = ShardLinks { inbox, signals, members, peers: Arc::new(NoPeers) };
                let shard = Shard::start(state, read_only(&damaged), None, links).map_err(StartError::Thread)?;
                (Arc::new(shard), None, init, ServedLog::Damaged(Box::new(damaged)), Arc::default())
            }
        };
        let parts = NodeParts {
            shard,
            speaking,
            served: Arc::new(served),
            log: reader,
            lookups: Arc::new(lookups),
            scrub,
            signals,
            sessions,
            folder: storage.folder(),
            segment_size,
            missing,
            repaired: came.repaired.clone(),
            mends_from: came.mends_from,
            store,
            engine,
            identity: NodeIdentity { cluster_id: init.cluster_id, node, handle_key: init.handle_key, shard: SHARD },
            stopping: Arc::new(Stopping::new()),
            folders: Arc::new(Mutex::new(Some(folders))),
            config,
        };
        Ok(parts.into_node())
    }
}
