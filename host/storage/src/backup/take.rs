//! Taking a backup.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::check::{CheckedFolder, ExpectedFolder, check_folder};
use super::compare::still_named;
use super::copy::{copy, hexadecimal};
use super::filling::{Filling, require_empty};
use super::folder::{sync_above, sync_folders};
use super::manifest::{FORMAT, FileEntry, Manifest};
use super::note;
use super::plan::{BackupTrouble, Plan, plan};
use super::planned::{FileKind, Planned};
use super::{Backup, BackupError, BackupProgress, BackupStep, OnProgress, SHARD, failed};
use crate::version::VERSION;

/// How often a backup begins again because the node tidied away what was being copied. Old things go first and are
/// copied first, so the second attempt is nearly always the last.
const ATTEMPTS: u32 = 8;

/// Takes a backup of a data folder, of a stopped or a running node, into a folder that is empty or does not exist. When
/// this returns, all of it is on the disk and was verified there.
///
/// Everything that was durable when this was called is in it, if the log says so: that is everything that was
/// acknowledged more than 100 ms before, and without a running node all that a start would find. Nothing that was not
/// durable is in it while a node runs.
///
/// # Errors
/// See [`BackupError`]. What was copied until then is removed.
pub fn backup(data_dir: &Path, target: &Path, on_progress: OnProgress<'_>) -> Result<Backup, BackupError> {
    super::plan::identity(data_dir)?;
    require_empty(target)?;
    let target = Filling::claim(target)?;
    refuse_inside(data_dir, target.path())?;
    let mut attempts = 1;
    let (mut manifest, checked) = loop {
        match take(data_dir, target.path(), on_progress) {
            Ok(taken) => break taken,
            Err(BackupTrouble::Failed(error)) => return Err(error),
            Err(BackupTrouble::Changed(why)) if attempts == ATTEMPTS => {
                return Err(BackupError::KeptChanging { attempts, why });
            }
            Err(BackupTrouble::Changed(why)) => {
                tracing::info!(attempts, why, "the node removed what was being copied; beginning again");
                target.empty().map_err(failed("empty", target.path()))?;
                attempts += 1;
            }
        }
    };
    sync_folders(target.path())?;
    sync_above(target.path())?;
    manifest.write(target.path())?;
    target.keep();
    note::leave(data_dir, manifest.made_at_ms);
    Ok(manifest.summary(checked.of_several))
}

/// A backup inside the data folder would be in the next one as well, and be lost with what it is a backup of.
fn refuse_inside(data_dir: &Path, target: &Path) -> Result<(), BackupError> {
    let data_dir = data_dir.canonicalize().map_err(failed("find", data_dir))?;
    let real = target.canonicalize().map_err(failed("find", target))?;
    if real.starts_with(data_dir) { Err(BackupError::InsideDataFolder(target.to_owned())) } else { Ok(()) }
}

/// One attempt. Gives the manifest, which is not written yet, and what the copy was found to be.
fn take(
    data_dir: &Path,
    target: &Path,
    on_progress: OnProgress<'_>,
) -> Result<(Manifest, CheckedFolder), BackupTrouble> {
    let made_at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    Manifest::announce(target)?;
    let plan = plan(data_dir)?;
    let files = copy_files(target, &plan, on_progress)?;
    let Plan { cluster_id, segment_size, log_start, log_end, snapshot, node_runs, .. } = plan;
    let expected = ExpectedFolder { cluster_id: hexadecimal(&cluster_id), segment_size, log_start, log_end, snapshot };
    // The segments kept their names while they were copied, so what does not hold now did not hold there.
    let checked = check_folder(target, &expected, on_progress).map_err(|error| match error {
        BackupError::Damaged { why, .. } => {
            // The copy goes away: the message names the file that it was made from.
            let (copy, original) = (target.display().to_string(), data_dir.display().to_string());
            BackupError::SourceDamaged(why.replace(&copy, &original))
        }
        other => other,
    })?;
    let manifest = Manifest {
        format: FORMAT,
        vouch: VERSION.to_owned(),
        made_at_ms,
        node_was_running: node_runs,
        cluster_id: expected.cluster_id,
        shard: SHARD.0,
        segment_size,
        log_start: log_start.0,
        log_end: log_end.0,
        snapshot: snapshot.map(|covered| covered.0),
        newest_record_ms: checked.newest_record_ms,
        files,
        sha256: String::new(),
    };
    Ok((manifest, checked))
}

/// Copies what was planned, in its order. A segment must have its name still when it is copied: then what was read is
/// what it was.
fn copy_files(target: &Path, plan: &Plan, on_progress: OnProgress<'_>) -> Result<Vec<FileEntry>, BackupTrouble> {
    let total_bytes = plan.files.iter().map(|file| file.extent.data).sum();
    let mut done_bytes = 0;
    let mut files = Vec::new();
    for Planned { kind, path, from, extent } in &plan.files {
        let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        let copied = copy(from, &target.join(path), *extent, &mut |bytes| {
            done_bytes += bytes;
            on_progress(BackupProgress { step: BackupStep::Files, done_bytes, total_bytes });
        });
        let copied = match copied {
            Ok(copied) => copied,
            Err(BackupError::Io { source, path: refused, .. }) if gone(&source) && refused == *from => match kind {
                FileKind::Component => continue,
                FileKind::Fixed | FileKind::Snapshot | FileKind::Segment => {
                    return Err(BackupTrouble::Changed(format!("{} was removed", from.display())));
                }
            },
            Err(error) => return Err(error.into()),
        };
        if *kind == FileKind::Segment && !still_named(&copied.source, from)? {
            return Err(BackupTrouble::Changed(format!("{} was released", from.display())));
        }
        files.push(FileEntry { path: path.clone(), length: extent.length, data: extent.data, sha256: copied.sha256 });
    }
    Ok(files)
}
