//! A cut that the life before this one began and did not end.

use super::Scan;
use crate::cutting::Doomed;
use crate::format::SEGMENT_HEADER_LEN;
use crate::group_commit::IoFailure;
use crate::{OpenError, Operation, Settles, UnfinishedCut};

impl Scan<'_> {
    /// Finishes the cut that the caller had noted. Any number of starts may begin with it, whatever the one before left.
    pub(super) fn finish_cut(&mut self) -> Result<(), OpenError> {
        let Some(UnfinishedCut { to, end }) = self.config.unfinished_cut else { return Ok(()) };
        let refused = |reason| OpenError::UnfinishedCut { to, end, reason };
        if self.config.checkpoint.is_some_and(|checkpoint| checkpoint.end > to) {
            return Err(refused("the snapshot covers what lies behind it"));
        }
        if let Settles::ByCaller { from } = self.config.settles
            && from > to
        {
            return Err(refused("what lies behind it was settled"));
        }
        // Where an entry ends its segment exactly the log ends there, and not in the next one.
        let Some(last_byte) = to.0.checked_sub(1) else { return Err(refused("entries do not end there")) };
        let segment = self.factory.segment_start(last_byte);
        if to.0 < segment + SEGMENT_HEADER_LEN {
            return Err(refused("entries do not end there"));
        }
        let Some(at) = self.found.iter().position(|found| found.start == segment) else {
            // Where the log ends earlier nothing is left to cut; what is known durable tells whether that is damage.
            return match self.found.last().is_some_and(|last| last.start > segment) {
                true => Err(OpenError::SegmentMissing { file: self.path(segment) }),
                false => Ok(()),
            };
        };
        let found = &self.found[at];
        if !found.sound {
            return Err(self.unsound(found, to.0));
        }
        let doomed = Doomed {
            segment,
            file: &*found.file,
            sync: &*found.file,
            from: to.0,
            to: end.0.min(segment + self.config.segment_size),
            later: self.found[at + 1..].iter().map(|found| found.start).collect(),
        };
        doomed.take_off(&*self.factory.disk).map_err(|failure| self.not_finished(failure))?;
        self.found.truncate(at + 1);
        Ok(())
    }

    fn not_finished(&self, failure: IoFailure) -> OpenError {
        let IoFailure { segment, operation, cause, .. } = failure;
        let action = match operation {
            Operation::Remove => "finish a cut by removing",
            Operation::Sync => "finish a cut by syncing",
            Operation::Write | Operation::Prepare => "finish a cut in",
        };
        OpenError::Io { action, file: self.factory.disk.path(&segment), source: cause }
    }
}
