//! Where the scrubber is, over restarts.

use std::io::Write;
use std::path::PathBuf;

use vouch_commitlog::LogPosition;
use vouch_files::appear;

/// Most bytes of the file that says where the scrubber was.
const MAX_PLACE_BYTES: usize = 20;

/// Where the scrubber is, in a file of its own. Not synced: if it is lost, some of the log is read again.
pub(super) struct ScrubPlace {
    file: PathBuf,
    kept: Option<LogPosition>,
}

impl ScrubPlace {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, kept: None }
    }

    /// Where to go on in a log that ends at `end`; 0 if nothing that can be used is kept.
    pub(super) fn read(&self, end: LogPosition) -> LogPosition {
        let kept = std::fs::read_to_string(&self.file).ok().filter(|text| text.len() <= MAX_PLACE_BYTES);
        let position = kept.and_then(|text| text.trim().parse().ok()).map(LogPosition);
        position.filter(|position| *position < end).unwrap_or(LogPosition(0))
    }

    /// Notes a place. That it cannot be noted is told, and costs no more than reading some of the log again.
    pub(super) fn keep(&mut self, position: LogPosition) {
        if self.kept == Some(position) {
            return;
        }
        self.kept = Some(position);
        let new = self.file.with_extension("new");
        let written = appear(&self.file, &new, |file| file.write_all(position.0.to_string().as_bytes()));
        if let Err(error) = written {
            tracing::warn!(%error, file = %self.file.display(), "where the scrubber is could not be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_kept_and_one_that_cannot_be_used_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut place = ScrubPlace::new(folder.path().join("scrub"));
        let end = LogPosition(1 << 30);
        assert_eq!(place.read(end), LogPosition(0), "nothing was kept yet");
        place.keep(LogPosition(4 << 20));
        assert_eq!(ScrubPlace::new(folder.path().join("scrub")).read(end), LogPosition(4 << 20));
        assert_eq!(place.read(LogPosition(4 << 20)), LogPosition(0), "the log was put back to an earlier state");
        for spoiled in ["", "-1", "4 MiB", "99999999999999999999999", &"0".repeat(1 << 16)] {
            std::fs::write(folder.path().join("scrub"), spoiled).unwrap();
            assert_eq!(place.read(end), LogPosition(0), "{spoiled:.20}");
        }
    }
}
