//! How full the disk is: sends are refused before anything is deleted that somebody may still want, and before ends and
//! acks find no room.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vouch_commitlog::Shortage;

use crate::space::Space;

/// Why sends are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The log cannot grow for want of something other than space.
    #[error(
        "the log finds no {0} to grow; nothing was stored. Ends of transactions and acknowledgements go on; sends are taken \
         again when there are some: {remedy}",
        remedy = .0.remedy()
    )]
    Short(Shortage),
    /// The disk, or what the log may take of it.
    #[error(
        "the disk is full, or at its high-water mark of {high_water} %; nothing was stored. Ends of transactions and \
         acknowledgements go on; sends are taken again when space is freed"
    )]
    Disk {
        /// The mark, in percent.
        high_water: u8,
    },
}

/// What was last measured.
#[derive(Debug)]
pub struct DiskUse {
    high_water: u8,
    full: AtomicBool,
    /// What the log is short of.
    short: Mutex<Option<Shortage>>,
    /// Bytes used on the file system of the data folder.
    pub used_bytes: AtomicU64,
    /// Bytes used and available there.
    pub total_bytes: AtomicU64,
    /// Bytes that the log's segments occupy, with those that are only held for readers.
    pub log_bytes: AtomicU64,
    /// Requests that were refused because the disk is full.
    pub refused: AtomicU64,
}

impl DiskUse {
    /// Nothing is measured yet. `high_water`: percent from which on the disk counts as full.
    pub fn new(high_water: u8) -> Self {
        Self {
            high_water,
            full: AtomicBool::new(false),
            short: Mutex::default(),
            used_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            log_bytes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Whether the high-water mark is reached, or something is missing for the log's next piece.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    fn short(&self) -> MutexGuard<'_, Option<Shortage>> {
        self.short.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what was measured, and of what the log is short, as it may be below the mark; whether sends are refused from now
    /// on. `room`: bytes of what is used that the log has ready for what comes next, so that no send takes more of the disk for them.
    pub fn measured(&self, disk: Space, room: u64, log: u64, limit: Option<u64>, short: Option<Shortage>) -> bool {
        *self.short() = short;
        self.used_bytes.store(disk.used, Ordering::Relaxed);
        self.total_bytes.store(disk.total, Ordering::Relaxed);
        self.log_bytes.store(log, Ordering::Relaxed);
        let over_limit = limit.is_some_and(|total| Space { used: log, total }.reaches(self.high_water));
        let taken = Space { used: disk.used.saturating_sub(room), ..disk };
        let full = taken.reaches(self.high_water) || over_limit || short.is_some();
        if self.full.swap(full, Ordering::Relaxed) != full {
            let (used, total, mark) = (disk.used, disk.total, self.high_water);
            if let Some(shortage) = short.filter(|shortage| *shortage != Shortage::Space) {
                tracing::error!(
                    "the log finds no {shortage} to grow: sends are refused, ends and acks go on; {}",
                    shortage.remedy()
                );
            } else if full {
                tracing::error!(
                    used,
                    total,
                    room,
                    log,
                    limit,
                    mark,
                    short = short.is_some(),
                    "the disk is at its high-water mark, or the log finds no room: sends are refused, ends and acks go on; free space, let topics \
                     expire sooner (retention), or raise disk_limit or disk_high_water"
                );
            } else {
                tracing::info!(
                    used,
                    total,
                    room,
                    log,
                    limit,
                    mark,
                    "the disk is below its high-water mark, and the log finds room: sends are taken again"
                );
            }
        }
        full
    }

    /// Why what can wait is refused, if it is; counts it.
    pub fn check(&self) -> Result<(), Full> {
        if !self.is_full() {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        match self.short().filter(|shortage| *shortage != Shortage::Space) {
            Some(shortage) => Err(Full::Short(shortage)),
            None => Err(Full::Disk { high_water: self.high_water }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(disk: (u64, u64), log: u64, limit: Option<u64>) -> bool {
        DiskUse::new(90).measured(Space { used: disk.0, total: disk.1 }, 0, log, limit, None)
    }

    #[test]
    fn the_disk_or_the_limit_whichever_fills_first_reaches_the_mark() {
        assert!(!after((899, 1000), 0, None));
        assert!(after((900, 1000), 0, None));
        assert!(!after((1, 1000), 89, Some(100)));
        assert!(after((1, 1000), 90, Some(100)));
        assert!(!after((1, u64::MAX), u64::MAX / 2, None));
    }

    #[test]
    fn sends_are_refused_at_the_mark_and_taken_again_below_it() {
        let disk = DiskUse::new(50);
        assert!(disk.check().is_ok());
        disk.measured(Space { used: 5, total: 10 }, 0, 0, None, None);
        assert!(disk.check().is_err_and(|full| full.to_string().contains("50 %")));
        disk.measured(Space { used: 4, total: 10 }, 0, 0, None, None);
        assert!(disk.check().is_ok());
        disk.measured(Space { used: 4, total: 10 }, 0, 0, None, Some(Shortage::Space));
        assert!(disk.is_full() && disk.check().is_err(), "the log finds no room below the mark");
        assert_eq!(disk.refused.load(Ordering::Relaxed), 2);
        disk.measured(Space { used: 4, total: 10 }, 0, 0, None, Some(Shortage::Descriptors));
        assert!(disk.check().is_err_and(|full| full.to_string().contains("file descriptors")));
    }

    #[test]
    fn each_mark_is_met_from_both_sides_on_a_disk_and_a_limit_of_any_size() {
        for mark in [1_u8, 50, 90, 99, 100] {
            for total in [100_u64, 100 << 33, u64::MAX / 100 * 100] {
                let at = total / 100 * u64::from(mark);
                let full = |used| DiskUse::new(mark).measured(Space { used, total }, 0, 0, None, None);
                assert!(!full(at - 1) && full(at), "{mark} % of {total}");
                let full = |log| DiskUse::new(mark).measured(Space { used: 0, total: 1 }, 0, log, Some(total), None);
                assert!(!full(at - 1) && full(at), "{mark} % of a limit of {total}");
            }
        }
    }

    #[test]
    fn what_was_measured_is_told_and_only_refusals_are_counted() {
        let disk = DiskUse::new(80);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (used, log, refused) in [(10, 3, 0), (85, 40, 2), (20, 5, 2)] {
            disk.measured(Space { used, total: 100 }, 0, log, Some(1000), None);
            assert_eq!((read(&disk.used_bytes), read(&disk.total_bytes), read(&disk.log_bytes)), (used, 100, log));
            let _ = (disk.check(), disk.check());
            assert_eq!(read(&disk.refused), refused, "{used} of 100 used");
        }
    }

    /// An operator is told what the disk has, whatever the log has ready on it.
    #[test]
    fn what_the_log_has_ready_counts_as_room_and_is_told_as_used() {
        let disk = DiskUse::new(90);
        let measured = |used, room| disk.measured(Space { used, total: 100 }, room, 0, None, None);
        assert!(measured(95, 5) && !measured(95, 6) && !measured(3, 10));
        measured(95, 6);
        assert_eq!(disk.used_bytes.load(Ordering::Relaxed), 95);
    }

    #[test]
    fn whoever_is_refused_hears_what_is_missing_and_what_helps() {
        let disk = DiskUse::new(95);
        let space = Space { used: 0, total: 100 };
        for shortage in [Shortage::Descriptors, Shortage::Memory] {
            disk.measured(space, 0, 0, None, Some(shortage));
            let told = disk.check().unwrap_err();
            assert_eq!(told, Full::Short(shortage));
            assert!(told.to_string().contains(shortage.remedy()) && told.to_string().contains("nothing was stored"));
        }
        // Of space alone the mark is told, which is what an operator sets.
        disk.measured(space, 0, 0, None, Some(Shortage::Space));
        assert_eq!(disk.check().unwrap_err(), Full::Disk { high_water: 95 });
        disk.measured(space, 0, 0, None, None);
        assert!(disk.check().is_ok() && !disk.is_full());
    }
}
