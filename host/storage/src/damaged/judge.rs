//! Whether a log that does not open is damaged, and what becomes of it then.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use vouch_commitlog::{CommitLog, LogConfig, LogPosition, OpenError, SurveyProgress};

use super::read::{ReadOnly, read};
use crate::config::OnDamage;
use crate::error::StartError;
use crate::progress::{StartProgress, StartStep};
use crate::snapshots::Snapshots;

/// How often it is told how far the look at a long log has come.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// A log did not open. If that is for damage, what becomes of it is the operator's choice.
///
/// # Errors
/// The log is not damaged but cannot be opened; or it is, and the node shall not serve it, or nothing in it is certain.
pub(crate) fn judge(
    on_damage: OnDamage,
    config: &LogConfig,
    snapshots: &Snapshots,
    error: OpenError,
    progress: &StartProgress,
) -> Result<ReadOnly, StartError> {
    match on_damage {
        _ if !may_be_damage(&error) => return Err(error.into()),
        OnDamage::Refuse => return Err(StartError::Damaged(error)),
        OnDamage::ReadOnly => {}
    }
    tracing::error!(%error, "the log does not open; looking at all of it for what is whole");
    let mut config = config.clone();
    config.checkpoint = None;
    let opened = CommitLog::open_read_only(&config, LogPosition(0), &mut tell_progress(progress));
    match opened {
        // A sector that cannot be read stops a start, and is damage like any other.
        Ok(opened) if !opened.verification.is_sound() => read(opened, snapshots),
        // Whatever is wrong with it, it is nothing that reading would help against.
        Ok(_) | Err(_) => Err(error.into()),
    }
}

/// Makes parts again from the log that are lost, where it still has what they told; whether any was.
pub(crate) fn rebuild(config: &LogConfig, snapshots: &Snapshots, progress: &StartProgress) -> bool {
    let mut config = config.clone();
    config.checkpoint = None;
    let opened = CommitLog::open_read_only(&config, LogPosition(0), &mut tell_progress(progress));
    let Ok(opened) = opened.inspect_err(|error| tracing::error!(%error, "the log cannot be read")) else {
        return false;
    };
    let made = snapshots.rebuild(&opened.reader);
    made.inspect_err(|error| tracing::error!(%error, "a part cannot be made again")).is_ok_and(|made| made > 0)
}

/// No snapshot can be read, and the log does not begin at its beginning. What is whole of the newest one that is whole itself
/// can be served, with what follows in the log.
///
/// # Errors
/// The node shall not serve it, or no snapshot is whole.
pub(crate) fn without_parts(
    on_damage: OnDamage,
    config: &LogConfig,
    snapshots: &Snapshots,
    error: StartError,
    progress: &StartProgress,
) -> Result<ReadOnly, StartError> {
    if on_damage == OnDamage::Refuse {
        return Err(error);
    }
    tracing::error!(%error, "no snapshot can be read; looking for what is whole");
    let mut config = config.clone();
    config.checkpoint = None;
    let opened = CommitLog::open_read_only(&config, LogPosition(0), &mut tell_progress(progress))?;
    match read(opened, snapshots) {
        // That says more.
        Err(StartError::NothingCertain(_)) => Err(error),
        read => read,
    }
}

/// Whether a look at the whole log may find damage, and what is whole beside it. A disk that cannot read a sector says so
/// as an error of the system.
fn may_be_damage(error: &OpenError) -> bool {
    match error {
        OpenError::Damaged { .. }
        | OpenError::SegmentMissing { .. }
        | OpenError::SegmentLength { .. }
        | OpenError::Misnamed { .. }
        | OpenError::Checkpoint { .. } => true,
        // A mapped page that the disk cannot read is told as a bad address.
        OpenError::Io { source, .. } => {
            let errno = source.raw_os_error().map(Errno::from_raw_os_error);
            matches!(errno, Some(Errno::IO | Errno::FAULT))
        }
        _ => false,
    }
}

/// Tells whoever waits for the start at each step, and the log every few seconds.
fn tell_progress(progress: &StartProgress) -> impl FnMut(SurveyProgress) {
    let mut told = Instant::now();
    move |SurveyProgress { done_bytes, total_bytes }| {
        progress.enter(StartStep::Looking { done_bytes, total_bytes });
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            tracing::info!(done_bytes, total_bytes, "looking at the log");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_disk_that_cannot_read_is_damage_and_a_system_that_refuses_is_not() {
        let io =
            |errno: Errno| OpenError::Io { action: "read", file: "segment".into(), source: io::Error::from(errno) };
        for errno in [Errno::IO, Errno::FAULT] {
            assert!(may_be_damage(&io(errno)), "{errno}");
        }
        // What a start meets for want of something, or of a right, would be met again by whoever looks closer.
        for errno in [Errno::MFILE, Errno::NOMEM, Errno::NOSPC, Errno::ACCESS, Errno::NOENT] {
            assert!(!may_be_damage(&io(errno)), "{errno}");
        }
        let no_log = OpenError::NoLog { directory: "log".into() };
        assert!(!may_be_damage(&no_log));
    }

    #[test]
    fn whoever_waits_sees_how_far_the_look_has_come() {
        let progress = StartProgress::default();
        let mut tell = tell_progress(&progress);
        for done_bytes in [0, 5, 10] {
            tell(SurveyProgress { done_bytes, total_bytes: 10 });
            assert_eq!(progress.step(), StartStep::Looking { done_bytes, total_bytes: 10 });
        }
    }
}
