//! What is refused for want of space, and counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vouch_broker::{NotDone, NothingStored};
use vouch_storage::{DiskUse, Full};

use crate::metrics::Metrics;
use crate::others_room::OthersRoom;
use vouch_shard::short_of;

/// Says whether there is space for what can wait, and counts what found none.
pub(crate) struct Shortages {
    /// How full it is, and how many were refused for it.
    disk: Arc<DiskUse>,
    /// How full those of the other nodes are.
    others: Arc<OthersRoom>,
    /// Counts those that too much in flight refused.
    metrics: Arc<Metrics>,
}

impl Shortages {
    /// For the disk that retention measures.
    pub(crate) fn new(disk: Arc<DiskUse>, others: Arc<OthersRoom>, metrics: Arc<Metrics>) -> Self {
        Self { disk, others, metrics }
    }

    /// Refuses what can wait while the disk is full, so that ends and acknowledgements still find room.
    ///
    /// # Errors
    /// [`NothingStored::StorageFull`], or [`NothingStored::Short`] of something else than space.
    pub(crate) fn check_disk(&self) -> Result<(), NotDone> {
        self.disk.check().map_err(|full| match full {
            Full::Short(shortage) => short_of(shortage, full.to_string()),
            Full::Disk { .. } => NothingStored::StorageFull(full.to_string()),
        })?;
        Ok(self.others.check()?)
    }

    /// Counts a refusal for want of space in the log or among what is under way, and hands everything on.
    pub(crate) fn counted<T>(&self, result: Result<T, NotDone>) -> Result<T, NotDone> {
        match &result {
            Err(NotDone::NothingStored(NothingStored::Overloaded { .. })) => {
                self.metrics.overloads.fetch_add(1, Ordering::Relaxed)
            }
            Err(
                NotDone::NothingStored(NothingStored::StorageFull(_)) | NotDone::NothingStored(NothingStored::Short(_)),
            ) => self.disk.refused.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        result
    }
}
