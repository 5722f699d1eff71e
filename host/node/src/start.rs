//! Opening a data folder: lock, identity, recovery of the log into state.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vouch_broker::record::{ClusterInit, DecodeError, Frame, Leapt, NodeStarted, Record};
use vouch_broker::state::RecordAt;
use vouch_broker::{Millis, State};
use vouch_commitlog::{
    Appender, CommitLog, Durable, Entry, EntryHeader, EntryKind, LogConfig, LogReader, OpenError, Recovery,
    segments_span,
};

use crate::clock::{Clock, TimeSource};
use crate::damage::{self, DamagedLog};
use crate::folder::{self, FolderLock, Folders, Identity};
use crate::lookup::{Lookups, Place};
use crate::shard::Inbox;
use crate::snapshots::{Loaded, Snapshots};
use crate::{DEFAULT_SEGMENT_SIZE, NodeConfig, StartProgress, StartStep, plugins};

/// What this program writes and understands (ruling 20: new meanings are gated by it).
const FEATURE_LEVEL: u32 = 1;
/// Version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Stop the other process, or use another folder.
    #[error("the data folder {} is in use by {holder}; stop it, or choose another folder with --data-dir", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who holds it, as far as that is known.
        holder: String,
    },
    /// Let the tool end, then start again.
    #[error("the data folder {} was held by {holder} for {} s; let that end, then start again", path.display(), waited.as_secs())]
    ToolHolds {
        /// The folder.
        path: PathBuf,
        /// Who holds it, as far as that is known.
        holder: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Choose another folder: what is in this one is somebody's.
    #[error(
        "{} holds {found} and no node of Vouch; choose a folder that is empty or does not exist (only lost+found and hidden \
         files may be there)",
        path.display()
    )]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// Something in it.
        found: String,
    },
    /// Restore it into a folder of its own: a node would change it.
    #[error(
        "{folder} is a backup, or one that was cut short, and a node would change it; put it back with: vouch restore \
         {folder} --data-dir DIR",
        folder = .0.display()
    )]
    IsBackup(PathBuf),
    /// Remove what is left, and restore again.
    #[error("a restore is under way here or was cut short: {} is left of it; remove that and restore again", .0.display())]
    UnfinishedRestore(PathBuf),
    /// Make a copy of its own: two nodes would write into one file.
    #[error(
        "{} has another name as well (a hard link): it lies in the log of another folder, too, and a node would change it \
         there; make a copy of its own, with: vouch backup, or cp -a without -l, and remove the other name",
        .0.display()
    )]
    SharedSegment(PathBuf),
    /// Mount the volume that is missing, or restore a backup.
    #[error(
        "{} {found}, but identity.json says that there was a log: if it lies on a volume of its own, mount that; otherwise \
         restore the folder from a backup. To begin anew without what was stored, choose a folder other than {}",
        missing.display(),
        data_dir.display()
    )]
    LogMissing {
        /// The data folder.
        data_dir: PathBuf,
        /// The folder that is not as it was.
        missing: PathBuf,
        /// What is wrong with it.
        found: &'static str,
    },
    /// The system refuses; the text says what.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The identity of the folder cannot be read.
    #[error("{} cannot be read: {why}; restore it from a backup, or move the folder away to begin anew", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The setting differs from what the log was made with.
    #[error(
        "the log in this folder has segments of {made_with} bytes, the setting says {setting}; leave the setting out"
    )]
    SegmentSize {
        /// In the folder.
        made_with: u64,
        /// In the configuration.
        setting: u64,
    },
    /// The setting leaves no room for a log.
    #[error(
        "disk_limit is {limit} bytes, which segments of {segment_size} bytes would fill at once; set at least {least}, or \
         begin a new folder with a smaller segment_size"
    )]
    DiskLimit {
        /// The setting.
        limit: u64,
        /// What it must be at least.
        least: u64,
        /// Bytes in a segment of this log.
        segment_size: u64,
    },
    /// The log does not open.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// Restore a backup, or start with [`crate::OnDamage::ReadOnly`] to read what is whole.
    #[error(
        "{0}; `vouch log verify` tells all of it, and `vouch serve --on-damage read-only` serves what is whole until it \
         is restored"
    )]
    Damaged(OpenError),
    /// Restore a backup: what is whole of the log does not say what happened.
    #[error("the log is damaged, and nothing of it can be served: {0}; restore the folder from a backup")]
    NothingCertain(String),
    /// The log is of a newer version.
    #[error(
        "the log needs feature level {found} (written by Vouch {version}); this is Vouch {VERSION} with level {FEATURE_LEVEL}: start a newer version"
    )]
    FeatureLevel {
        /// Needed.
        found: u32,
        /// Who wrote it.
        version: String,
    },
    /// Restore a backup, or start with [`crate::OnDamage::ReadOnly`] to read what is whole: what lies in the log alone does
    /// not say what happened before it.
    #[error(
        "the log begins at position {start}, its older segments are gone, and no snapshot in {} can be read (see the warnings \
         above); if that lies on a volume of its own, mount it; `vouch log verify` tells which files are damaged, and `vouch \
         serve --on-damage read-only` serves what is whole until the folder is restored from a backup",
        snapshots.display()
    )]
    NoSnapshot {
        /// First position of the log.
        start: u64,
        /// Folder of the snapshots.
        snapshots: PathBuf,
    },
    /// The first records cannot be written.
    #[error("the log cannot be written: {0}")]
    Append(#[from] vouch_commitlog::AppendError),
    /// The components' folder or engine does not start.
    #[error("plugins cannot run: {0}")]
    Plugins(String),
    /// A thread does not start.
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
    /// Whoever wanted the node said that it is not wanted any more ([`StartProgress::give_up`]).
    #[error("the start was given up before the log was recovered")]
    GivenUp,
}

/// A record of the log that cannot be applied: the node must not guess what it meant.
#[derive(Debug, thiserror::Error)]
#[error("the record at position {position}, written by Vouch {version}, cannot be read: {why}")]
pub(crate) struct Unreadable {
    position: u64,
    version: String,
    why: DecodeError,
}

pub(crate) fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StartError + 'a {
    move |source| StartError::Io { action, path: path.to_owned(), source }
}

/// A log with the state that it says.
pub(crate) struct Opened {
    pub(crate) lock: FolderLock,
    pub(crate) state: State,
    pub(crate) clock: Clock,
    pub(crate) reader: LogReader,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) init: ClusterInit,
    pub(crate) snapshots: Snapshots,
    /// Position that the snapshot covers from which the state was read; 0 without one.
    pub(crate) snapshot: u64,
    /// There is a newer one, which cannot be used.
    pub(crate) passed_over: bool,
    /// What the log should still hold and lies before its first file.
    pub(crate) missing: Option<Range<u64>>,
    pub(crate) log: OpenedLog,
}

/// How a log was opened.
pub(crate) enum OpenedLog {
    /// It was recovered, and goes on.
    Whole { appender: Appender, index: u64, recovery: Recovery },
    /// It is only read.
    Damaged(DamagedLog),
}

/// What a start would refuse for its settings, or for what lies in the data folder, as far as that is seen without reading
/// the log. Nothing is changed or taken: whether another process holds the folder is not asked.
///
/// # Errors
/// Those of [`crate::Node::start`].
pub fn check_start(config: &NodeConfig) -> Result<(), StartError> {
    check_settings(config)?;
    folder::look(config)
}

fn check_settings(config: &NodeConfig) -> Result<(), StartError> {
    log_config(config, config.segment_size.unwrap_or(DEFAULT_SEGMENT_SIZE)).validate().map_err(OpenError::from)?;
    plugins::check_settings(config)
}

/// Opens the folder and recovers the log.
pub(crate) fn open(
    config: &NodeConfig,
    time: Arc<dyn TimeSource>,
    progress: &StartProgress,
) -> Result<Opened, StartError> {
    // A setting that no log can have leaves nothing behind.
    check_settings(config)?;
    let mut folders = folder::open(config, progress)?;
    let (identity, snapshot_dir) = (folders.identity.clone(), folders.snapshots.clone());
    let snapshots = Snapshots::of_folder(&snapshot_dir);

    let mut log = log_config(config, identity.segment_size);
    (log.directory, log.cluster_id) = (folders.log.clone(), identity.cluster_id()?);
    // If the log ends before it, that is damage (ruling 17).
    log.known_durable = snapshots.known_durable().map_err(failed("read", &snapshot_dir))?;
    let inbox = Arc::new(Inbox::new(config.bytes_in_flight));
    let mut recovered = recover(&snapshots, &snapshot_dir, log.clone(), &inbox, progress);
    if matches!(recovered, Err(StartError::NoSnapshot { .. })) && damage::rebuild(&log, &snapshots, progress) {
        recovered = recover(&snapshots, &snapshot_dir, log.clone(), &inbox, progress);
    }
    progress.go_on()?;
    let recovered = match recovered {
        Err(StartError::Log(error)) => Err(damage::judge(config.on_damage, &log, &snapshots, error, progress)?),
        Err(error @ StartError::NoSnapshot { .. }) => {
            Err(damage::without_parts(config.on_damage, &log, &snapshots, error, progress)?)
        }
        Err(error) => return Err(error),
        Ok(recovered) => Ok(recovered),
    };
    let (state, clock, snapshot, reader, log) = match recovered {
        Ok(Recovered { mut state, snapshot, mut appender, reader, recovery }) => {
            check_feature_level(&state)?;
            snapshots.prepare().map_err(failed("tidy", &snapshot_dir))?;
            let logged = state.cluster().clock.max(Millis(recovery.last_leader_time_ms));
            let clock = Clock::start(logged, time);
            let last_index = recovery.last_index;
            let index = write_first_records(&mut state, &mut appender, &inbox, &identity, &clock, last_index)?;
            folders.begun()?;
            (state, clock, snapshot, reader, OpenedLog::Whole { appender, index, recovery })
        }
        Err(damage::ReadOnly { state, snapshot, reader, log }) => {
            check_feature_level(&state)?;
            let clock = Clock::start(state.cluster().clock, time);
            (state, clock, snapshot, reader, OpenedLog::Damaged(log))
        }
    };
    progress.enter(StartStep::Beginning);
    let passed_over = snapshots.newest_position().is_some_and(|newest| newest != snapshot);
    let missing = what_is_missing(&state, reader.start().0);
    let init = state.cluster().init.clone().expect("the first record of every log is applied by now");
    let Folders { lock, .. } = folders;
    Ok(Opened { lock, state, clock, reader, inbox, init, snapshots, snapshot, passed_over, missing, log })
}

/// What the settings say of the log; whose it is and where comes with the folder.
fn log_config(config: &NodeConfig, segment_size: u64) -> LogConfig {
    let NodeConfig { zero_ahead, syncs_in_flight, .. } = *config;
    LogConfig { segment_size, zero_ahead, syncs_in_flight, ..LogConfig::new("", [0; 16]) }
}

/// Less than some segments would always be full: they count as whole, and one is prepared ahead.
pub(crate) fn check_disk_limit(config: &NodeConfig, segment_size: u64) -> Result<(), StartError> {
    const SEGMENTS: u64 = 4;
    let least = SEGMENTS * segment_size * 100 / u64::from(config.disk_high_water.max(1));
    match config.disk_limit {
        Some(limit) if limit < least => Err(StartError::DiskLimit { limit, least, segment_size }),
        _ => Ok(()),
    }
}

/// Segments that only retention may remove were removed by somebody: what lay in them is told, and the rest is served.
fn what_is_missing(state: &State, log_start: u64) -> Option<Range<u64>> {
    if log_start == 0 {
        return None;
    }
    let first = state.needed_from();
    if first >= log_start {
        return None;
    }
    tracing::error!(
        log_start,
        first,
        "the log begins behind messages that are not past their retention; they cannot be read, `vouch log damage` lists \
         them: restore the folder from a backup"
    );
    Some(first..log_start)
}

/// Starts the index by which messages are found, over the parts that the state reads from.
pub(crate) fn lookups(config: &NodeConfig, opened: &Opened) -> Result<Lookups, StartError> {
    let shard_dir = config.data_dir.join("shards").join("0");
    let folder = shard_dir.join("lookup");
    let parts = Snapshots::of_folder(shard_dir.join("snapshots"));
    let place = Place {
        folder: folder.clone(),
        log: opened.reader.clone(),
        segment_size: opened.init.segment_size,
        load_part: Box::new(move |part| parts.whole_part(part)),
    };
    let parts = opened.state.named_parts();
    match opened.log {
        OpenedLog::Whole { .. } => Lookups::start(place, parts).map_err(failed("prepare", &folder)),
        OpenedLog::Damaged(_) => Ok(Lookups::as_they_are(place, parts)),
    }
}

/// Whether this program understands everything that the log means.
pub(crate) fn check_feature_level(state: &State) -> Result<(), StartError> {
    match &state.cluster().init {
        Some(init) if init.feature_level > FEATURE_LEVEL => {
            let version = state.cluster().last_version.clone();
            Err(StartError::FeatureLevel { found: init.feature_level, version })
        }
        _ => Ok(()),
    }
}

struct Recovered {
    state: State,
    snapshot: u64,
    appender: Appender,
    reader: LogReader,
    recovery: Recovery,
}

/// Reads the newest snapshot that fits the log, and the log from there.
fn recover(
    snapshots: &Snapshots,
    snapshot_dir: &Path,
    mut log: LogConfig,
    inbox: &Arc<Inbox>,
    progress: &StartProgress,
) -> Result<Recovered, StartError> {
    let mut below = u64::MAX;
    loop {
        progress.enter(StartStep::ReadingSnapshot);
        let loaded = snapshots.newest_below(below).map_err(failed("read", snapshot_dir))?;
        let (mut state, checkpoint) = match loaded {
            Some(Loaded { checkpoint, state }) => (state, Some(checkpoint)),
            None => (State::default(), None),
        };
        log.checkpoint = checkpoint;
        let report_to = inbox.clone();
        let on_durable = Box::new(move |durable: Durable| report_to.report(durable));
        // That it cannot be listed is told by the log itself.
        let span = segments_span(&log.directory).unwrap_or_default();
        let from = checkpoint.map_or(span.start, |checkpoint| checkpoint.end.0);
        progress.replays(span.end.saturating_sub(from));
        let opened = CommitLog::open(log.clone(), on_durable, &mut |entry| -> Result<(), Interrupted> {
            progress.go_on()?;
            progress.replayed(entry.end.0.saturating_sub(from));
            Ok(replay(&mut state, &entry)?)
        });
        match (opened, checkpoint) {
            (Err(OpenError::Entry { .. }), _) if progress.go_on().is_err() => return Err(StartError::GivenUp),
            (Ok((_, reader, _)), None) if reader.start().0 > 0 => {
                return Err(StartError::NoSnapshot { start: reader.start().0, snapshots: snapshot_dir.to_owned() });
            }
            (Ok((appender, reader, recovery)), _) => {
                let snapshot = checkpoint.map_or(0, |checkpoint| checkpoint.end.0);
                return Ok(Recovered { state, snapshot, appender, reader, recovery });
            }
            (Err(error @ OpenError::Checkpoint { .. }), Some(checkpoint)) => {
                tracing::warn!(%error, "the newest snapshot does not fit the log; trying an older one, or the whole log");
                below = checkpoint.end.0;
            }
            (Err(error), _) => return Err(error.into()),
        }
    }
}

/// Why an entry is not replayed.
type Interrupted = Box<dyn std::error::Error + Send + Sync>;

/// Applies the records of an entry that is in the log already.
pub(crate) fn replay(state: &mut State, entry: &Entry) -> Result<(), Unreadable> {
    let time = Millis(entry.leader_time_ms);
    let mut effects = Vec::new();
    let mut records: &[u8] = &entry.payload;
    let mut position = entry.payload_position.0;
    while !records.is_empty() {
        let unreadable =
            |state: &State, why| Unreadable { position, version: state.cluster().last_version.clone(), why };
        let (frame, rest) = Frame::split(records).map_err(|why| unreadable(state, why))?;
        let record = Record::decode(&frame).map_err(|why| unreadable(state, why))?;
        // What was refused then is refused now; its caller was told then.
        let _ = state.apply(RecordAt { position, time }, &record, &mut effects);
        effects.clear();
        position += u64::from(frame.record_len());
        records = rest;
    }
    Ok(())
}

/// Writes what every log begins with, and that this node goes on from here; durable before anything is served.
fn write_first_records(
    state: &mut State,
    appender: &mut Appender,
    inbox: &Inbox,
    identity: &Identity,
    clock: &Clock,
    last_index: u64,
) -> Result<u64, StartError> {
    let mut records = Vec::new();
    if state.cluster().init.is_none() {
        let init = ClusterInit {
            cluster_id: identity.cluster_id()?,
            segment_size: identity.segment_size,
            handle_key: rand::random(),
            feature_level: FEATURE_LEVEL,
            written_by: VERSION.to_owned(),
        };
        init.encode(&mut records);
    }
    NodeStarted { version: VERSION.to_owned() }.encode(&mut records);
    if let Some(from) = clock.leapt_from() {
        Leapt { from, doubted: true }.encode(&mut records);
    }
    let now = clock.now();
    let header = EntryHeader { term: 1, index: last_index + 1, leader_time_ms: now.0, kind: EntryKind::Records };
    let appended = appender.append(header, &[&records])?;
    inbox.wait_durable(appended.end.0).map_err(|reason| {
        StartError::Thread(io::Error::other(format!("the first records did not become durable: {reason}")))
    })?;
    let entry = Entry {
        position: appended.position,
        payload_position: appended.payload_position,
        end: appended.end,
        term: 1,
        index: last_index + 1,
        leader_time_ms: now.0,
        kind: EntryKind::Records,
        payload: records.into(),
    };
    replay(state, &entry).expect("records that were encoded just now can be read");
    Ok(last_index + 1)
}
