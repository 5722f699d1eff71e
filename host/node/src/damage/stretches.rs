//! Damaged stretches of the log, as they are told.

use std::ops::Range;
use std::path::PathBuf;

use vouch_broker::{NotDone, State};
use vouch_commitlog::{DamagedRange, LogPosition};
use vouch_storage::{LostFile, LostParts, is_break};

use super::{DamagedStretch, LogDamage, LostContent};

/// What the log itself says of a stretch.
pub(super) fn stretch(range: &DamagedRange) -> DamagedStretch {
    let DamagedRange { file, offset, length, from, to, reason, .. } = range.clone();
    let mut reason = reason;
    if is_break(range) {
        reason.push_str("; what lies on one side of it is of another history");
    }
    let entries_lost = range.entries_lost().filter(|_| !is_break(range));
    DamagedStretch { file, offset, length, from, to, reason, entries_lost, known: None }
}

/// A stretch of the log in which messages are whole and cannot be found.
fn unfindable(file: PathBuf, stretch: Range<LogPosition>, reason: String, known: LostContent) -> DamagedStretch {
    let length = std::fs::metadata(&file).map_or(0, |file| file.len());
    let Range { start: from, end: to } = stretch;
    DamagedStretch { file, offset: 0, length, from, to, reason, entries_lost: None, known: Some(known) }
}

impl LogDamage {
    /// Files before the first one that is there, of which something is needed.
    pub(super) fn missing_head(&self) -> Option<DamagedStretch> {
        let missing = self.missing.clone()?;
        Some(self.whole_stretch(missing, "this file and those behind it up to the first one of the log are missing"))
    }

    /// What is whole and not read, for it may be of another history.
    pub(super) fn doubtful(&self, doubtful_to: LogPosition) -> Option<DamagedStretch> {
        let stretch = self.log.start()..doubtful_to;
        (!stretch.is_empty()).then(|| self.whole_stretch(stretch, "it may be of another history, and is not read"))
    }

    /// What cannot be found without parts that a start did without.
    pub(super) async fn without_parts(&self, lost: &LostParts) -> Result<DamagedStretch, NotDone> {
        let file = lost.files.first().cloned().unwrap_or_default();
        let known = self.known(lost.gaps.queues.clone()).await?;
        Ok(unfindable(file, lost.stretch.clone(), lost.to_string(), known))
    }

    /// What a start would not find without a file of which both copies are damaged.
    pub(super) async fn lost_file(&self, LostFile { file, part, reason }: LostFile) -> Result<DamagedStretch, NotDone> {
        let Some(part) = part else {
            let reason = format!("both copies of this snapshot are damaged: {reason}; the next one takes its place");
            return Ok(unfindable(file, LogPosition::START..LogPosition::START, reason, LostContent::default()));
        };
        let look = move |state: &State| {
            let before = state.parts().into_iter().rfind(|other| *other < part);
            (LogPosition(before.unwrap_or(0))..LogPosition(part), state.messages_of_part(part))
        };
        let (stretch, messages) = self.shard.read(look).await?;
        let reason = format!("both copies of this part are damaged, and a start will not find its messages: {reason}");
        Ok(unfindable(file, stretch, reason, self.known(messages).await?))
    }

    /// The file that a log position lies in.
    fn segment_file(&self, position: LogPosition) -> PathBuf {
        self.folder.segment(LogPosition(position.0 - position.0 % self.segment_size))
    }

    /// A stretch of which nothing is to be had, whatever its bytes say.
    fn whole_stretch(&self, Range { start, end }: Range<LogPosition>, reason: &str) -> DamagedStretch {
        DamagedStretch {
            file: self.segment_file(start),
            offset: start.0 % self.segment_size,
            length: end.since(start),
            from: start,
            to: end,
            reason: reason.to_owned(),
            entries_lost: None,
            known: None,
        }
    }
}
