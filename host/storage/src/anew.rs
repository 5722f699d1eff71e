//! A cluster that begins anew (ruling 31), as its only node's first start finds it: a restore or a recovery made the folder that of
//! another node, and its log does not say so yet.
//!
//! # To ensure correctness
//! - Whose folder it is changes by one step, which the tool makes (`FolderIdentity::begin_anew`). From then on nobody starts it as the
//!   node that it was: what this does, each start does again until all of it is durable.
//! - The record that says so is the first of a term above all that the log and the note know. The term is noted before; the note of
//!   the former node is replaced when the record is durable, and tells by its node id that all is done.
//! - All that is whole in the log stays, whatever was known to be committed: it may have been acknowledged.
//! - What the former cluster may have otherwise is named as of the new life: from where on nothing was known to be committed.

use std::io;

use vouch_broker::record::ClusterBegunAnew;
use vouch_commitlog::{EntryHeader, EntryKind, LogConfig, LogPosition};

use crate::config::StorageConfig;
use crate::error::{StartError, failed};
use crate::folder::NewLife;
use crate::known::Known;
use crate::position::record_position;
use crate::progress::StartProgress;
use crate::recover::{RecoveredShard, recover};
use crate::replay::check_feature_level;
use crate::replica::{Committed, LogName, ReplicaFile};
use crate::snapshots::Snapshots;
use crate::version::VERSION;

/// Lets the log say that this life began with this node, where it does not yet. A log that is damaged is left as it is: whoever opens
/// it next judges that.
///
/// # Errors
/// Those of a start.
pub(crate) fn begin(
    config: &StorageConfig,
    log: &LogConfig,
    name: LogName,
    life: NewLife,
    snapshots: &Snapshots,
    progress: &StartProgress,
) -> Result<(), StartError> {
    let folder = config.folder();
    if ReplicaFile::look(&folder, name)?.is_some_and(|note| note.node == life.node) {
        return Ok(());
    }
    let (known, mut log) = (Known::of_shard(&folder, name, snapshots)?, log.clone());
    known.alone().tell(&mut log);
    let nobody = |_| ();
    let recovered = match recover(snapshots, &folder.snapshots(), log, u64::MAX, &nobody, progress) {
        Err(StartError::Log(_) | StartError::NoSnapshot { .. }) => return Ok(()),
        recovered => recovered?,
    };
    check_feature_level(&recovered.state, config.feature_level)?;
    let mut replica = ReplicaFile::of_shard(&folder, name, &recovered.recovery)?;
    let (path, log_dir) = (folder.replica(), folder.log());
    let (term, end) = if recovered.state.incarnations().current() == life.incarnation {
        let last = &recovered.recovery;
        (last.last_term.max(replica.note().term), Committed { index: last.last_index, position: last.end })
    } else {
        let term = recovered.recovery.last_term.max(replica.note().term) + 1;
        replica.term_and_vote(term, None).map_err(failed("write", &path))?;
        (term, say(recovered, life, term, known.stays()).map_err(failed("write to the log in", &log_dir))?)
    };
    replica.begins_anew(life.node, term, end).map_err(failed("write", &path))
}

/// Appends the record, and waits until it is durable; where it ends.
fn say(recovered: RecoveredShard, life: NewLife, term: u64, stays: LogPosition) -> io::Result<Committed> {
    let RecoveredShard { mut appender, recovery, .. } = recovered;
    let NewLife { incarnation, node } = life;
    let (since, written_by) = (record_position(stays.min(recovery.end)), VERSION.to_owned());
    let mut record = Vec::new();
    ClusterBegunAnew { incarnation, node, since, handle_key: rand::random(), written_by }.encode(&mut record);
    let index = recovery.last_index + 1;
    let header = EntryHeader { term, index, leader_time_ms: recovery.last_leader_time_ms, kind: EntryKind::Members };
    let appended = appender.append(header, &[&record]).map_err(io::Error::other)?;
    appender.close().map_err(io::Error::other)?;
    tracing::info!(%node, %incarnation, term, "this folder's cluster begins anew, with this node alone");
    Ok(Committed { index, position: appended.end })
}
