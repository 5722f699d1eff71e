//! Marks: entries without records, which cover the last group of a log that is idle and of one that closes (ruling 17). They
//! are proposals of whoever leads, like all entries; the log appends nothing by itself (ruling 29).

use std::time::{Duration, Instant};

use vouch_commitlog::{AppendError, Appender, EntryKind};

use super::executor::Executor;

/// A mark for which there is no room is tried again after this long: on an idle log nothing else comes to wait for.
const MARK_AGAIN: Duration = Duration::from_secs(1);

/// What the executor knows of the next mark.
#[derive(Default)]
pub(super) struct Marks {
    /// The next entry is one, unless there are records to write: these cover what came before as well.
    proposed: bool,
    /// The last one was refused, which was said; no other is tried before.
    again_at: Option<Instant>,
}

impl Executor {
    /// How long there is no mark to propose; `None` if nothing is uncovered.
    pub(super) fn mark_due_in(&self, now: Instant) -> Option<Duration> {
        let due_in = self.open_log().and_then(Appender::mark_due_in)?;
        Some(due_in.max(self.marks.again_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))))
    }

    /// Proposes a mark if the log was idle for long enough.
    pub(super) fn propose_mark_when_idle(&mut self, now: Instant) {
        self.marks.proposed =
            self.marks.again_at.is_none_or(|at| now >= at) && self.open_log().is_some_and(Appender::mark_needed);
    }

    /// Proposes what covers the last group of a log that is about to close, and all of it is durable.
    pub(super) fn propose_mark_of_the_end(&mut self) {
        self.marks.proposed = self.open_log().is_some_and(|log| !log.is_covered());
    }

    /// Writes the mark that was proposed, unless records follow at once.
    pub(super) fn write_mark(&mut self, records_follow: bool) {
        if std::mem::take(&mut self.marks.proposed) && !records_follow {
            self.write_entry(EntryKind::Mark, Vec::new(), self.time());
        }
    }

    pub(super) fn mark_written(&mut self) {
        self.marks.again_at = None;
    }

    pub(super) fn mark_refused(&mut self, error: &AppendError) {
        if self.marks.again_at.replace(Instant::now() + MARK_AGAIN).is_none() {
            tracing::warn!(%error, "no mark could be written on an idle log; it is tried again each second");
        }
    }
}
