//! `vouch backup` and `vouch restore`.
//!
//! Both copy whole files and read back what they wrote, and neither changes its source. A copy that was cut short is
//! never taken for a whole one: a backup is one only when its `backup.json` is there, and a data folder appears under
//! its name when all of it is made.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use vouch_storage::{Backup, BackupError, BackupProgress, BackupStep, Restored};

use crate::config::DATA_DIR;
use crate::failure::WrongUsage;
use crate::output;

/// Up to where a backup of one of several nodes reaches.
const OF_SEVERAL: &str = "this is one of several nodes: the backup ends with what it knew to be committed, and is a beginning of the \
                          cluster's log. It restores the cluster as one node; a single node that is lost is replaced by one that joins \
                          (vouch cluster replace)";

/// What is copied, and where to.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// Folder for the backup: empty, or one that does not exist.
    #[arg(value_name = "TARGET_DIR")]
    target: PathBuf,
    /// Data folder of the node.
    #[arg(long, env = "VOUCH_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is made of which backup.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Folder that `vouch backup` made.
    #[arg(value_name = "BACKUP_DIR")]
    backup: PathBuf,
    /// Data folder to make: empty, or one that does not exist.
    #[arg(long, env = "VOUCH_DATA_DIR", value_name = "DIR", required_unless_present = "check")]
    data_dir: Option<PathBuf>,
    /// Verify the backup as a restore would, and restore nothing.
    #[arg(long)]
    check: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs `vouch backup`.
///
/// # Errors
/// The target is in use or has no room, the folder is no node's, or what was copied is not what was written: then the
/// target is no backup, and may be deleted.
pub(crate) fn backup(args: &BackupArgs) -> anyhow::Result<()> {
    let taken = with_bar(|progress| vouch_storage::backup(&args.data_dir, &args.target, progress))?;
    let BackupArgs { target, data_dir, json } = args;
    if *json {
        return Ok(output::json(&document(&taken, target))?);
    }
    let (target, data_dir) = (target.display(), data_dir.display());
    output::line(format_args!("backed up {data_dir} to {target}: {}", describe(&taken)))?;
    let so_far = match taken.node_was_running {
        true => "a node runs on it: what it acknowledged in the last 100 ms may not be in the backup",
        false if taken.of_several => "no node runs on it: everything that it knew to be committed is in the backup",
        false => "no node runs on it: everything is in the backup",
    };
    output::line(so_far)?;
    if taken.of_several {
        output::note(OF_SEVERAL)?;
    }
    Ok(output::note(
        "keys are not in it, neither those of TLS certificates nor those of secrets (secrets.key: keep a copy of it elsewhere); verify it at any \
         time with: vouch restore --check",
    )?)
}

/// Runs `vouch restore`.
///
/// # Errors
/// The backup is damaged or not complete, or the folder to make exists and is not empty: then nothing appears in it.
/// [`WrongUsage`]: neither a folder nor `--check` was named.
pub(crate) fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    let folder = args.backup.display();
    if args.check {
        let checked = with_bar(|progress| vouch_storage::check_backup(&args.backup, progress))?;
        if args.json {
            return Ok(output::json(&document(&checked, &args.backup))?);
        }
        output::line(format_args!("the backup in {folder} is sound: {}", describe(&checked)))?;
        if checked.of_several {
            output::note(OF_SEVERAL)?;
        }
        return Ok(());
    }
    let Some(data_dir) = &args.data_dir else {
        return Err(WrongUsage::error("name the folder to make with --data-dir, or verify the backup with --check"));
    };
    let restored = with_bar(|progress| vouch_storage::restore(&args.backup, data_dir, progress))?;
    let Restored { backup, node, incarnation } = &restored;
    if args.json {
        let mut document = document(backup, data_dir);
        document["node"] = json!(node.0);
        document["incarnation"] = json!(incarnation.to_string());
        return Ok(output::json(&document)?);
    }
    let data_dir = data_dir.display();
    output::line(format_args!("restored {folder} to {data_dir}: {}", describe(backup)))?;
    output::line(format_args!("start it with: vouch serve --data-dir {data_dir}"))?;
    Ok(output::note(format_args!(
        "it is a cluster of one, node {node}, in a life of its own ({incarnation}): transaction ids and receipt handles from after the \
         backup mean nothing to it, and nodes of before are strangers to it. Others are added with: vouch cluster add"
    ))?)
}

/// Runs something long with a bar for the person who waits; nothing where nobody does.
///
/// # Errors
/// Those of `run`; the bar is taken away before.
fn with_bar<T>(run: impl FnOnce(&mut dyn FnMut(BackupProgress)) -> Result<T, BackupError>) -> anyhow::Result<T> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{msg:20} {bar:40} {bytes} of {total_bytes}, {eta} left");
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let done = run(&mut |BackupProgress { step, done_bytes, total_bytes }| {
        bar.set_message(match step {
            BackupStep::Files => "files",
            BackupStep::Log => "verifying the log",
        });
        bar.set_length(total_bytes);
        bar.set_position(done_bytes);
    });
    bar.finish_and_clear();
    Ok(done?)
}

/// A time in UTC, of milliseconds since 1970.
fn time(ms: u64) -> String {
    // What is beyond the calendar is damage that nobody should die of.
    const LAST_MS: u64 = 253_402_300_799_999;
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms.min(LAST_MS))).to_string()
}

/// A backup in one line: whose it is, how far it reaches, how large it is, and who made it when.
fn describe(backup: &Backup) -> String {
    format!(
        "cluster {}, log positions {} to {}, newest record of {}, {} in {} files, made {} by Vouch {}",
        backup.cluster_id,
        backup.log_start,
        backup.log_end,
        time(backup.newest_record_ms),
        HumanBytes(backup.bytes),
        backup.files,
        time(backup.made_at_ms),
        backup.vouch
    )
}

/// The same for scripts. `newest_record` is the time up to which everything is in it; `log_start` and `log_end` are
/// positions in bytes.
fn document(backup: &Backup, folder: &Path) -> Value {
    json!({
        "folder": folder.display().to_string(),
        "cluster_id": backup.cluster_id,
        "made_at": time(backup.made_at_ms),
        "vouch": backup.vouch,
        "log_start": backup.log_start.0,
        "log_end": backup.log_end.0,
        "snapshot": backup.snapshot.map(|covered| covered.0),
        "newest_record": time(backup.newest_record_ms),
        "node_was_running": backup.node_was_running,
        "of_several": backup.of_several,
        "files": backup.files,
        "bytes": backup.bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> Backup {
        Backup {
            cluster_id: "00ff".to_owned(),
            made_at_ms: 1_700_000_000_007,
            vouch: "0.1.0".to_owned(),
            log_start: vouch_commitlog::LogPosition(4096),
            log_end: vouch_commitlog::LogPosition(8192),
            snapshot: None,
            newest_record_ms: 1_699_999_999_000,
            node_was_running: true,
            of_several: false,
            files: 3,
            bytes: 2048,
        }
    }

    #[test]
    fn a_backup_is_told_with_how_far_it_reaches() {
        assert_eq!(
            describe(&backup()),
            "cluster 00ff, log positions 4096 to 8192, newest record of 2023-11-14T22:13:19.000Z, 2.00 KiB in 3 files, \
             made 2023-11-14T22:13:20.007Z by Vouch 0.1.0"
        );
        let document = document(&backup(), Path::new("/b"));
        assert_eq!((&document["folder"], &document["log_end"]), (&json!("/b"), &json!(8192)));
        assert_eq!((&document["snapshot"], &document["node_was_running"]), (&Value::Null, &json!(true)));
    }

    #[test]
    fn a_time_beyond_the_calendar_ends_nobody() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
