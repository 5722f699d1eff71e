//! What happens to a simulated disk, and what is made to go wrong there.

use std::collections::BTreeMap;

/// Files by name.
pub type Image = BTreeMap<String, Vec<u8>>;

/// What happened to a disk, in this order.
#[derive(Clone, Debug)]
pub enum DiskEvent {
    /// A file was made.
    Create {
        /// Its name.
        name: String,
        /// Its number, by which the other events name it.
        inode: usize,
    },
    /// A name was taken away.
    Remove {
        /// The name.
        name: String,
    },
    /// In one step: a power cut leaves the file with one of the two names.
    Rename {
        /// The name that it had.
        from: String,
        /// The name that it got.
        to: String,
    },
    /// Names are durable.
    SyncDirectory,
    /// A file got another size.
    Size {
        /// The file.
        inode: usize,
        /// Its size in bytes.
        size: u64,
    },
    /// Bytes were written.
    Write {
        /// The file.
        inode: usize,
        /// Where.
        offset: u64,
        /// The bytes.
        data: Vec<u8>,
    },
    /// What was written to a file is durable.
    Sync {
        /// The file.
        inode: usize,
    },
    /// What was pending of a file is lost.
    WritebackFailed {
        /// The file.
        inode: usize,
    },
    /// The journal was aborted while blocks of a file became written ones: what was written from here on since the last sync
    /// reads as zeros after a power cut. All that was pending before it is durable.
    BlocksLost {
        /// The file.
        inode: usize,
        /// The first of these bytes.
        from: u64,
    },
    /// The medium gives other bytes than were written, long after they were.
    Rotted {
        /// The file.
        inode: usize,
        /// Where.
        offset: u64,
        /// What it gives.
        data: Vec<u8>,
        /// Whoever reads now finds it; otherwise the page cache hides it until the power goes.
        seen: bool,
    },
    /// Not of the disk: the log has reported this position durable.
    Reported {
        /// The position.
        to: u64,
    },
    /// Not of the disk: the caller has noted that the log is to be cut off at this position.
    Cut {
        /// The position.
        to: u64,
    },
    /// Not of the disk: the caller asks the log to release what lies before this position.
    ReleaseAsked {
        /// The position.
        before: u64,
    },
    /// Not of the disk: the log says that it begins here now.
    Released {
        /// Its first position.
        start: u64,
    },
}

/// What a power cut does to what was not synced.
#[derive(Clone, Copy, Debug)]
pub enum PowerLoss {
    /// All of it is lost.
    All,
    /// All of it reached the disk.
    Nothing,
    /// Older writes are lost, later ones kept: a lost group before a kept one.
    OlderHalf,
    /// Every sector of every write for itself.
    Sectors,
}

/// Every way to lose what was not synced.
pub const LOSSES: [PowerLoss; 4] = [PowerLoss::All, PowerLoss::Nothing, PowerLoss::OlderHalf, PowerLoss::Sectors];

/// The next operation of a kind fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimFault {
    /// A write stops half-way with EIO.
    Write,
    /// A sync finds that the write-back failed.
    Sync,
    /// The journal is aborted in the next sync of blocks that are new: that one succeeds all the same, and from then on
    /// nothing does but reads and writes into memory ([`crate::disk::File::sync_new_blocks`]).
    NewBlocks,
    /// A sync of the folder fails.
    SyncDirectory,
    /// A write of zeros stops half-way with EIO.
    WriteOfZeros,
    /// A file cannot be removed.
    Remove,
    /// No space for new files and new blocks, until cleared.
    NoSpace,
    /// Nothing can be opened, until cleared.
    Descriptors,
    /// Nothing that takes memory of the system can be done, until cleared: all but entries, syncs and reads.
    Memory,
}
