//! Opening a data folder: lock, identity, recovery of the log into state.

use std::ops::Range;

use vouch_broker::{Millis, State};
use vouch_commitlog::{Appender, Checkpoint, Durable, Entry, LogConfig, LogPosition, LogReader, Recovery};

use vouch_consensus::NodeId;

use crate::anew;
use crate::config::StorageConfig;
use crate::damaged::{self, DamagedLog};
use crate::error::{StartError, failed};
use crate::folder::{self, Folders};
use crate::known::Known;
use crate::position::log_position;
use crate::progress::{StartProgress, StartStep};
use crate::recover::{RecoveredShard, recover};
use crate::replay::check_feature_level;
use crate::replica::{LogName, ReplicaFile};
use crate::snapshots::Snapshots;

/// A log with the state that it says.
pub struct Opened {
    /// What the log says, to its end.
    pub state: State,
    /// Leader time before which no record may be stamped.
    pub logged: Millis,
    /// Reads the log.
    pub reader: LogReader,
    /// Bytes in a segment of it.
    pub segment_size: u64,
    /// The shard's snapshots.
    pub snapshots: Snapshots,
    /// Position that the snapshot covers from which the state was read; the start of the log without one.
    pub snapshot: LogPosition,
    /// The last entry that the oldest of its snapshots covers: from there on a group's log goes back for this replica. `None`: to
    /// the log's beginning.
    pub before: Option<Checkpoint>,
    /// There is a newer one, which cannot be used.
    pub passed_over: bool,
    /// What the log should still hold and lies before its first file.
    pub missing: Option<Range<LogPosition>>,
    /// How the log was opened.
    pub log: OpenedLog,
    /// The data folder, held as long as this lives. The last of all: whoever drops this lets go of the folder when nothing
    /// writes to it any more.
    pub folders: Folders,
}

/// How a log was opened.
pub enum OpenedLog {
    /// It was recovered, and goes on.
    Whole {
        /// Writes it.
        appender: Appender,
        /// What the recovery found.
        recovery: Recovery,
        /// The last entry that is in the state; `None`: the log is empty.
        base: Option<Checkpoint>,
        /// The entries behind that, of which only a leader knows whether they are committed. Alone there are none.
        tail: Vec<Entry>,
        /// What the replica notes of itself. An incarnation of it has begun.
        replica: Box<ReplicaFile>,
    },
    /// It is only read.
    Damaged(DamagedLog),
}

/// What opening would refuse for its settings, or for what lies in the data folder, as far as that is seen without reading
/// the log. Nothing is changed or taken: whether another process holds the folder is not asked.
///
/// # Errors
/// Those of [`open`].
pub fn check_start(config: &StorageConfig) -> Result<(), StartError> {
    config.check()?;
    folder::look(config)
}

/// Opens the folder and recovers the log, of which `on_durable` hears what becomes durable.
///
/// # Errors
/// See [`StartError`].
pub fn open(
    config: &StorageConfig,
    on_durable: &(impl Fn(Durable) + Clone + Send + Sync + 'static),
    progress: &StartProgress,
) -> Result<Opened, StartError> {
    // A setting that no log can have leaves nothing behind.
    config.check()?;
    let folders = folder::open(config, progress)?;
    let identity = folders.identity();
    let snapshot_dir = config.folder().snapshots();
    let snapshots = Snapshots::of_folder(&snapshot_dir);

    let segment_size = identity.segment_size;
    let mut log = config.log(segment_size);
    (log.directory, log.cluster_id) = (config.folder().log(), identity.cluster_id()?);
    let name = LogName { cluster_id: log.cluster_id, shard: config.shard };
    let begins = identity.begins();
    if let Some(life) = begins {
        anew::begin(config, &log, name, life, &snapshots, progress)?;
    }
    let mut known = Known::of_shard(&config.folder(), name, &snapshots)?;
    known.tell(&mut log);
    let recover = |log: &LogConfig, known: &Known| {
        recover(&snapshots, &snapshot_dir, log.clone(), known.committed, on_durable, progress)
    };
    let mut recovered = recover(&log, &known);
    if matches!(recovered, Err(StartError::NoSnapshot { .. })) && damaged::rebuild(&log, &snapshots, progress) {
        // What could not be read before its life began can be read now.
        if let Some(life) = begins {
            anew::begin(config, &log, name, life, &snapshots, progress)?;
            known = Known::of_shard(&config.folder(), name, &snapshots)?;
            known.tell(&mut log);
        }
        recovered = recover(&log, &known);
    }
    progress.go_on()?;
    let recovered = match recovered {
        Err(StartError::Log(error)) => Err(damaged::judge(config.on_damage, &log, &snapshots, error, progress)?),
        Err(error @ StartError::NoSnapshot { .. }) => {
            Err(damaged::without_parts(config.on_damage, &log, &snapshots, error, progress)?)
        }
        Err(error) => return Err(error),
        Ok(recovered) => Ok(recovered),
    };
    let (state, logged, snapshot, reader, log) = match recovered {
        Ok(RecoveredShard { state, snapshot, base, tail, mut appender, reader, recovery }) => {
            check_feature_level(&state, config.feature_level)?;
            snapshots.prepare().map_err(failed("tidy", &snapshot_dir))?;
            let logged = state.cluster().clock.max(Millis(recovery.last_leader_time_ms));
            let mut replica = Box::new(ReplicaFile::of_shard(&config.folder(), name, &recovery)?);
            be_who_it_is(&folders, &state, config, &mut replica, &mut appender, &recovery)?;
            if replica.note().member {
                let ended = replica.end_with_an_entry(&mut appender, &recovery);
                ended.map_err(failed("cut off the end of", &log.directory))?;
            }
            let log = OpenedLog::Whole { appender, recovery, base, tail, replica };
            (state, logged, snapshot, reader, log)
        }
        Err(damaged::ReadOnly { state, snapshot, reader, log }) => {
            check_feature_level(&state, config.feature_level)?;
            let logged = state.cluster().clock;
            (state, logged, snapshot, reader, OpenedLog::Damaged(log))
        }
    };
    progress.enter(StartStep::Beginning);
    let before = snapshots.oldest_of(&reader).map_err(failed("read", &snapshot_dir))?;
    let passed_over = snapshots.newest_position().is_some_and(|newest| newest != snapshot);
    let missing = what_is_missing(&state, reader.start());
    Ok(Opened { folders, state, logged, reader, segment_size, snapshots, snapshot, before, passed_over, missing, log })
}

/// Nobody starts as another than he is: a node that joined a cluster is a member of it before it has anything, and one that is a
/// member, or was, says nothing without what it noted. With whom a cluster began, or began anew, is told by its log.
fn be_who_it_is(
    folders: &Folders,
    state: &State,
    config: &StorageConfig,
    replica: &mut ReplicaFile,
    appender: &mut Appender,
    recovery: &Recovery,
) -> Result<(), StartError> {
    let (note, joined) = (replica.note(), folders.identity().node);
    let began = folders.identity().begins().map(|life| life.node);
    let begins = joined.is_none() || began.is_some();
    if begins && state.incarnations().current() != folders.incarnation() {
        return Err(StartError::OfAnotherLife(config.data_dir.clone()));
    }
    if note.member {
        let fits = joined.is_none_or(|node| node == note.node.0);
        let (path, node) = (config.data_dir.clone(), note.node.0);
        return if fits {
            Ok(())
        } else {
            Err(StartError::OfAnotherNode { path, node, token: joined.unwrap_or(node) })
        };
    }
    match joined {
        _ if begins => {
            let alone = state.members().is_only(note.node) && note.node == began.unwrap_or(NodeId::FIRST);
            if alone { Ok(()) } else { Err(StartError::MemberWithoutNote(config.folder().replica())) }
        }
        Some(node) if recovery.last_index == 0 => {
            // What comes into the log is decided by others.
            appender.settle_by_caller();
            replica.is_member(NodeId(node)).map_err(failed("note in", config.folder().path()))
        }
        _ => Err(StartError::MemberWithoutNote(config.folder().replica())),
    }
}

/// Segments that only retention may remove were removed by somebody: what lay in them is told, and the rest is served.
fn what_is_missing(state: &State, log_start: LogPosition) -> Option<Range<LogPosition>> {
    if log_start == LogPosition::START {
        return None;
    }
    let first = log_position(state.needed_from());
    if first >= log_start {
        return None;
    }
    tracing::error!(
        log_start = log_start.0,
        first = first.0,
        "the log begins behind messages that are not past their retention; they cannot be read, `vouch log damage` lists \
         them: restore the folder from a backup"
    );
    Some(first..log_start)
}
