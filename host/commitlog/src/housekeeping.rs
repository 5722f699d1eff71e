//! What is done beside the appending, at the caller's pace: releasing old segments, and telling what the log occupies.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::disk::Mapping;
use crate::factory::SegmentFactory;
use crate::group_commit::GroupCommit;
use crate::preallocate::{Preallocator, SpaceAhead};
use crate::reader::View;
use crate::segment::file_name;
use crate::spares::spare_name;
use crate::{DurationCounts, LogPosition, ReleaseError, Shortage};

/// What [`Housekeeping::release_before`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Segments that left the log.
    pub segments: u64,
    /// How many of their files were kept to be used again; the others were deleted.
    pub kept: u64,
    /// First position of the log now.
    pub start: LogPosition,
}

/// What a log occupies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogUsage {
    /// First position of the log.
    pub start: LogPosition,
    /// First position that is not appended yet.
    pub end: LogPosition,
    /// Segment files, the one prepared ahead included.
    pub segments: u64,
    /// Bytes that these files occupy when they are full. The last ones are sparse until they are filled.
    pub segment_bytes: u64,
    /// Bytes of released files that are kept for the next segments.
    pub spare_bytes: u64,
    /// Bytes behind the log's end in files that were used before: what is written there takes no more of the disk.
    pub reused_bytes: u64,
    /// Bytes of deleted files that the system gives back only when readers drop the [`bytes::Bytes`] they hold.
    pub held_bytes: u64,
}

/// Shared by all handles and the appender, which ends it.
#[derive(Default)]
pub(crate) struct HousekeepingState {
    /// Why nothing is released any more.
    ended: Option<Ended>,
    /// Mappings of deleted files that readers held.
    held: Vec<Weak<dyn Mapping>>,
    /// A segment that is no longer read from, and whose name could not be removed for the moment: it goes before any other.
    pending: Option<(u64, Arc<dyn Mapping>)>,
}

#[derive(Clone, Copy)]
enum Ended {
    /// The appender is gone: another process may own the folder.
    Closed,
    /// A name could not be removed for certain: removing the next one might leave a gap.
    Failed,
}

/// Why a segment's name was not removed.
enum Unremoved {
    /// For the moment, and for certain: the name is there.
    Short(Shortage, Arc<dyn Mapping>),
    /// Nobody knows whether it is.
    Failed(io::Error),
}

impl Unremoved {
    /// Of a change of names that failed.
    fn of(error: io::Error, mapping: Arc<dyn Mapping>) -> Self {
        match Shortage::of(&error) {
            Some(shortage) => Self::Short(shortage, mapping),
            None => Self::Failed(error),
        }
    }
}

impl From<io::Error> for Unremoved {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// The shared state of housekeeping.
pub(crate) type SharedState = Arc<Mutex<HousekeepingState>>;

fn lock(state: &SharedState) -> MutexGuard<'_, HousekeepingState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a release that is under way, and lets no other begin.
pub(crate) fn close(state: &SharedState) {
    lock(state).ended = Some(Ended::Closed);
}

/// A handle for the thread that looks after space. Cheap to clone; it may outlive the appender, but then releases
/// nothing.
#[derive(Clone)]
pub struct Housekeeping {
    pub(crate) commit: Arc<GroupCommit>,
    pub(crate) space: Arc<Preallocator>,
    pub(crate) view: Arc<View>,
    pub(crate) state: SharedState,
}

impl Housekeeping {
    /// Removes the segments that lie entirely below `position`, oldest first, each removal made durable before the
    /// next: a power cut leaves a log that begins later, never one with a gap. `position` should be that of the
    /// checkpoint of a durable snapshot, so that the log can still be replayed behind it.
    ///
    /// A segment stays, whatever `position` says, until a later one holds an entry that is durable and settled: the log
    /// always knows the index it goes on with. What readers hold of a removed segment stays valid and keeps its space occupied
    /// ([`LogUsage::held_bytes`]); files that nobody holds are kept for the next segments, a few of them. Takes two
    /// changes of the folder a segment, and the time the file system needs to free its blocks: not for a thread that
    /// must answer quickly.
    ///
    /// # Errors
    /// See [`ReleaseError`]. What was released before the error is gone.
    pub fn release_before(&self, position: LogPosition) -> Result<Released, ReleaseError> {
        let mut state = lock(&self.state);
        let mut released = Released::default();
        loop {
            match state.ended {
                Some(Ended::Closed) => return Err(ReleaseError::Closed),
                Some(Ended::Failed) => return Err(ReleaseError::FailedBefore),
                None => {}
            }
            if let Some(report) = self.commit.poisoned() {
                return Err(report.clone().into());
            }
            let first = state.pending.take().or_else(|| self.view.release_first(position.0, self.kept()));
            let Some((start, mapping)) = first else {
                released.start = LogPosition(self.view.start());
                return Ok(released);
            };
            match self.remove(start, mapping, &mut state) {
                Ok(kept) => released.kept += u64::from(kept),
                Err(Unremoved::Short(shortage, mapping)) => {
                    state.pending = Some((start, mapping));
                    let file = self.factory().disk.path(&file_name(start));
                    return Err(ReleaseError::Short { shortage, file });
                }
                Err(Unremoved::Failed(source)) => {
                    state.ended = Some(Ended::Failed);
                    let file = self.factory().disk.path(&file_name(start));
                    return Err(ReleaseError::Io { file, source });
                }
            }
            released.segments += 1;
        }
    }

    /// Takes the file of a segment that no reader finds any more out of the log; whether it was kept.
    fn remove(
        &self,
        start: u64,
        mut mapping: Arc<dyn Mapping>,
        state: &mut HousekeepingState,
    ) -> Result<bool, Unremoved> {
        let SegmentFactory { disk, spares, .. } = self.factory();
        let name = file_name(start);
        // Nobody can take another reference: the view was the only place to get one.
        let unused = Arc::get_mut(&mut mapping).is_some();
        #[cfg(any(test, feature = "simulated-disk"))]
        let unused = unused || crate::bugs::RECYCLED_WHILE_READ.injected();
        if unused && spares.has_room() {
            let spare = spare_name(start);
            if let Err(error) = disk.rename(&name, &spare) {
                return Err(Unremoved::of(error, mapping));
            }
            #[cfg(any(test, feature = "simulated-disk"))]
            if crate::bugs::RECYCLED_BEFORE_RELEASED.injected() {
                spares.add(spare);
                return Ok(true);
            }
            disk.sync_directory()?;
            spares.add(spare);
            return Ok(true);
        }
        if let Err(error) = disk.remove(&name) {
            return Err(Unremoved::of(error, mapping));
        }
        disk.sync_directory()?;
        state.held.push(Arc::downgrade(&mapping));
        Ok(false)
    }

    /// How long the syncs of the log's threads took.
    pub fn syncs(&self) -> DurationCounts {
        self.commit.syncs.counts()
    }

    /// What the log occupies now.
    pub fn usage(&self) -> LogUsage {
        let mut state = lock(&self.state);
        state.held.retain(|mapping| mapping.strong_count() > 0);
        let held = state.held.len() as u64;
        drop(state);
        let size = self.view.segment_size;
        let (start, segments) = self.view.extent();
        let end = self.view.appended();
        let SpaceAhead { next_is_prepared, reused_bytes } = self.space.ahead_of(end);
        let segments = segments + u64::from(next_is_prepared);
        LogUsage {
            start: LogPosition(start),
            end: LogPosition(end),
            segments,
            segment_bytes: segments * size,
            spare_bytes: self.factory().spares.count() * size,
            reused_bytes,
            held_bytes: held * size,
        }
    }

    /// Below this the log is durable and stays as it is.
    pub(crate) fn kept(&self) -> u64 {
        self.commit.durable().min(self.view.settled().position())
    }

    pub(crate) fn factory(&self) -> &SegmentFactory {
        self.space.factory()
    }
}
