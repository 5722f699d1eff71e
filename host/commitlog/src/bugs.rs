//! Mistakes that can be switched on in tests, to show that the tests would catch them. Not part of a real build: crates above
//! get at them with the feature `simulated-disk`.

use std::cell::Cell;
use std::fmt;
use std::sync::LazyLock;
use std::thread::LocalKey;

/// The variable that switches a mistake on for a whole process, by its name: for tests in which the log runs its own
/// threads.
#[cfg(test)]
pub(crate) const IN_THIS_PROCESS: &str = "VOUCH_INJECTED_BUG";

static INJECTED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("VOUCH_INJECTED_BUG").ok());

/// A mistake, off unless a test of the same thread or the process's environment switches it on.
pub struct Bug {
    name: &'static str,
    here: &'static LocalKey<Cell<bool>>,
}

impl Bug {
    pub(crate) fn injected(&self) -> bool {
        self.here.get() || INJECTED.as_deref() == Some(self.name)
    }

    /// Runs `body` with the mistake switched on, for this thread alone, and off again however it ends.
    pub fn during<R>(&self, body: impl FnOnce() -> R) -> R {
        struct Off(&'static LocalKey<Cell<bool>>);
        impl Drop for Off {
            fn drop(&mut self) {
                self.0.set(false);
            }
        }
        let _off = Off(self.here);
        self.here.set(true);
        body()
    }
}

impl fmt::Debug for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! bugs {
    ($($(#[$about:meta])* $name:ident)*) => {$(
        $(#[$about])*
        pub static $name: Bug = {
            thread_local!(static FLAG: Cell<bool> = const { Cell::new(false) });
            Bug { name: stringify!($name), here: &FLAG }
        };
    )*};
}

bugs! {
    /// A group counts as durable when its sync begins.
    ACK_BEFORE_SYNC
    /// A failed sync is tried again instead of ending the log.
    SYNC_AGAIN_AFTER_ERROR
    /// Blocks that were never written before are synced once, as if that changed no metadata.
    NEW_BLOCKS_SYNCED_ONCE
    /// All syncs go through one open file description, so one may use up the error of another.
    SHARED_SYNC_DESCRIPTION
    /// A kept group behind a lost one is taken for interior damage.
    LOST_GROUP_IS_DAMAGE
    /// What recovery read is served without having been synced.
    TAIL_NOT_SYNCED
    /// Recovery only syncs what it read, although a failed write-back may have left lost bytes as if clean.
    CLEAN_PAGES_TRUSTED
    /// The cut of a torn tail is not synced.
    CUT_NOT_SYNCED
    /// The position in an entry's header is not compared, so old bytes of a reused file pass for new ones.
    POSITION_IGNORED
    /// The old bytes of a recycled file are taken for a torn tail.
    OLD_BYTES_TAKEN_FOR_TAIL
    /// A recycled file is written below a horizon that is not durable yet; only the one before it is.
    HORIZON_NOT_SYNCED
    /// A file that was a segment above the one to be made is used for it.
    SPARE_FROM_AHEAD_USED
    /// A recycled file gets a segment's name before its header is durable.
    RECYCLED_BEFORE_SYNC
    /// A released file may be used again before its removal from the log is durable.
    RECYCLED_BEFORE_RELEASED
    /// A released file may be used again though a reader holds bytes of it.
    RECYCLED_WHILE_READ
    /// Bytes that may still be cut off and overwritten are handed out without a copy.
    UNSETTLED_BYTES_SHARED
    /// A segment is used before its name is durable.
    DIRECTORY_NOT_SYNCED
    /// A cut forgets the entries behind it and leaves their bytes on the disk.
    SUFFIX_NOT_CUT
    /// A cut takes the entry along behind which it should begin.
    CUT_OFF_BY_ONE
    /// A sync that began before a cut counts after it.
    SYNC_OF_BEFORE_THE_CUT_COUNTED
    /// The file of a segment that was cut off is kept for the next one.
    CUT_SEGMENT_KEPT
    /// Marks in a replica's entries, which speak of the disks of others, tell damage from a torn tail.
    MARKS_OF_OTHERS_TRUSTED
    /// The durable mark of an entry is written as 0, as if nothing were known.
    NO_DURABLE_MARK
    /// A start prepares the segment in which the log ends from its beginning, over the entries that are there.
    PREPARED_ANEW
    /// What is damaged below what is known to be durable is taken for a torn tail.
    DAMAGE_TAKEN_FOR_TAIL
    /// Entries are read without a look at their checksums.
    READ_UNVERIFIED
    /// Of a slot the first copy alone is read.
    NOTE_READ_ONCE
    /// A note is written and not synced.
    NOTE_NOT_SYNCED
    /// A note is written over the one before.
    NOTE_IN_ONE_SLOT
    /// What is read of a note is believed without having been written again.
    NOTE_BELIEVED_AS_READ
    /// A note is written again after an error.
    NOTE_WRITTEN_AFTER_ERROR
    /// A note's file gets its name before anything in it is durable.
    NOTE_NAMED_BEFORE_SYNC
}
