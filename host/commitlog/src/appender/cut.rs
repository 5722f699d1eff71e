//! Cutting off the end of a running log.

use std::sync::Arc;

use super::{Appender, Tail};
use crate::cutting::Doomed;
use crate::format::{StoredHeader, StoredKind};
use crate::group_commit::IoFailure;
use crate::preallocate::{PAGE, PreallocatorCall};
use crate::segment::{WriteSegment, file_name};
use crate::{Checkpoint, CutError, LogPosition, Operation, PoisonReport, Shortage};

impl Appender {
    /// Cuts off everything behind the entry that `last` names ([`Checkpoint::BEFORE_ALL`]: everything). When this returns,
    /// it is gone from the disk for good, and the log goes on behind that entry. May take as long as writing and syncing
    /// what is cut off does.
    ///
    /// The caller has noted the cut before ([`crate::UnfinishedCut`]): a start that is given the note comes to the same
    /// log, wherever the power was cut. Syncs that are in flight end first, and count for nothing above the cut, so
    /// [`Self::durable`] may be lower than before, and `on_durable` is told so, perhaps from here. Readers that come to what is cut off are told that the log ends before
    /// it, or, if they are there at that very moment, that no sound entry is there; bytes that they hold do not change.
    ///
    /// # Errors
    /// See [`CutError`]: nothing was changed, unless the log is poisoned.
    pub fn cut(&mut self, last: &Checkpoint) -> Result<(), CutError> {
        if let Some(report) = self.commit.poisoned() {
            return Err(report.clone().into());
        }
        let tail = self.tail_behind(last)?;
        self.refuse_settled(last)?;
        if last.end.0 == self.tail.end {
            return Ok(());
        }
        #[cfg(any(test, feature = "simulated-disk"))]
        let tail = match crate::bugs::CUT_OFF_BY_ONE.injected() {
            true => Tail { end: last.position.0, ..tail },
            false => tail,
        };
        let segment = self.segment_that_ends_at(tail.end)?;
        self.commit.pause(self.threads.is_some())?;
        // A sync that was awaited may have settled what it made durable.
        if let Err(refused) = self.refuse_settled(last) {
            self.commit.resume();
            return Err(refused);
        }
        self.take_off(tail, segment)?;
        Ok(())
    }

    /// What must be known of the entry to go on behind it.
    fn tail_behind(&self, last: &Checkpoint) -> Result<Tail, CutError> {
        let not_there = |reason: String| CutError::NotThere { last: *last, reason };
        let Tail { end, .. } = self.tail;
        if *last == Checkpoint::BEFORE_ALL {
            if self.view.start() > 0 {
                return Err(not_there("the first segments of the log were released".to_owned()));
            }
            let end = last.end.0;
            return Ok(Tail { end, previous: 0, term: 0, index: 0, leader_time_ms: 0, mark: 0, records_end: 0 });
        }
        let (stored, _) = self.view.stored(last.position.0).map_err(|error| not_there(error.to_string()))?;
        let StoredKind::Entry(kind) = stored.header.kind else {
            return Err(not_there("the filler that ends a segment is there".to_owned()));
        };
        let there = Checkpoint::new(&stored.header, stored.checksum);
        if there != *last || there.end.0 > end {
            return Err(not_there(format!("another entry is there: {there}")));
        }
        let StoredHeader { term, index, leader_time_ms, durable_mark, position, .. } = stored.header;
        // What came before a mark is not read: it may be records right up to it.
        let records_end = if kind.holds_records() { there.end.0 } else { position };
        let (end, previous) = (there.end.0, there.checksum);
        Ok(Tail { end, previous, term, index, leader_time_ms, mark: durable_mark, records_end })
    }

    fn refuse_settled(&self, last: &Checkpoint) -> Result<(), CutError> {
        let settled = LogPosition(self.view.settled().position());
        if settled > last.end { Err(CutError::Settled { to: last.end, settled }) } else { Ok(()) }
    }

    /// The segment in which the log ends then, to be written on.
    fn segment_that_ends_at(&self, to: u64) -> Result<Arc<WriteSegment>, CutError> {
        // Where an entry ends its segment exactly the log ends there, and not in the next one.
        let start = self.space.factory().segment_start(to - 1);
        if let Some(segment) = self.commit.segment(start) {
            return Ok(segment);
        }
        let Some(mapping) = self.view.mapping(start) else { return Ok(self.segment.clone()) };
        let reopened = self.space.factory().reopen(start, mapping);
        reopened.map(Arc::new).map_err(|cause| match Shortage::of(&cause) {
            Some(shortage) => CutError::Short { shortage, file: self.space.factory().disk.path(&file_name(start)) },
            None => {
                let (segment, operation) = (file_name(start), Operation::Prepare);
                self.commit.poison(IoFailure { segment, offset: 0, operation, cause }).into()
            }
        })
    }

    /// From here on a failure ends the log.
    fn take_off(&mut self, tail: Tail, segment: Arc<WriteSegment>) -> Result<(), PoisonReport> {
        let (to, size) = (tail.end, self.view.segment_size);
        self.view.cut(to);
        let mut space = self.space.hold();
        let goes_back = segment.start != self.segment.start;
        // One that was created ahead holds nothing, and stays where it is still the next.
        let last = if goes_back { space.next().unwrap_or(self.segment.start) } else { segment.start };
        let doomed = Doomed {
            segment: segment.start,
            file: &*segment.file,
            sync: &*segment.sync_files[self.sync_slot],
            from: to,
            to: self.tail.end.min(segment.end),
            later: (segment.end..=last).step_by(size as usize).collect(),
        };
        #[cfg(any(test, feature = "simulated-disk"))]
        let doomed = match crate::bugs::CUT_SEGMENT_KEPT.injected() {
            true => doomed.but_keep(self.space.factory()),
            false => doomed,
        };
        doomed.take_off(&*self.space.factory().disk).map_err(|failure| self.commit.poison(failure))?;
        if goes_back {
            space.go_back(segment.clone());
            self.pages_taken_to = segment.end.next_multiple_of(PAGE);
        }
        drop(space);
        (self.tail, self.segment) = (tail, segment.clone());
        self.commit.cut(to, segment);
        self.space.send(PreallocatorCall::Fill);
        Ok(())
    }
}
