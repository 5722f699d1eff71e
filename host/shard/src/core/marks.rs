//! Marks: entries without records, which cover the last group of a log that is idle and of one that closes (ruling 17). They
//! are proposals of whoever leads, like all entries; the log appends nothing by itself (ruling 29).

use std::time::{Duration, Instant};

use vouch_commitlog::AppendError;

/// A mark for which there is no room is tried again after this long: on an idle log nothing else comes to wait for.
const MARK_AGAIN: Duration = Duration::from_secs(1);

/// What the core knows of the next mark.
#[derive(Default)]
pub(super) struct NextMark {
    /// The next entry is one, unless there are records to write: these cover what came before as well.
    proposed: bool,
    /// The last one was refused, which was said; no other is tried before.
    again_at: Option<Instant>,
}

impl NextMark {
    /// How long there is no mark to propose in a log that needs one in `due_in`.
    pub(super) fn due_in(&self, due_in: Duration, now: Instant) -> Duration {
        due_in.max(self.again_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now)))
    }

    /// Proposes a mark if one is needed, since the log is idle.
    pub(super) fn propose_when_idle(&mut self, needed: bool, now: Instant) {
        self.proposed = needed && self.again_at.is_none_or(|at| now >= at);
    }

    /// Proposes what covers the last group of a log that is about to close, and all of which is durable.
    pub(super) fn propose_end(&mut self, covered: bool) {
        self.proposed = !covered;
    }

    /// Whether one is to be written now: not where records follow at once.
    pub(super) fn take(&mut self, records_follow: bool) -> bool {
        std::mem::take(&mut self.proposed) && !records_follow
    }

    pub(super) fn written(&mut self) {
        self.again_at = None;
    }

    pub(super) fn refused(&mut self, error: &AppendError, now: Instant) {
        if self.again_at.replace(now + MARK_AGAIN).is_none() {
            tracing::warn!(%error, "no mark could be written on an idle log; it is tried again each second");
        }
    }
}
