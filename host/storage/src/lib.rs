//! A shard on disk: opened into state, snapshotted, indexed, scrubbed, backed up, read when damaged. Whoever serves it, on
//! whatever threads, is above; here nobody knows of a runtime, a client or a component.

mod anew;
mod backup;
mod config;
mod damaged;
mod disk_use;
mod error;
mod folder;
mod known;
mod layout;
mod lookup;
mod open;
mod position;
mod progress;
mod pull;
mod recover;
mod remains;
mod replay;
mod replica;
mod scrub;
mod snapshots;
mod space;
mod stored;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod undecided;
mod version;
mod zeros;

pub use backup::{
    Backup, BackupError, BackupProgress, BackupStep, ExpectedShard, OnProgress, Restored, backup, check_backup,
    check_log, last_backup_ms, restore,
};
pub use config::{DEFAULT_SEGMENT_SIZE, JoinedCluster, OnDamage, StorageConfig};
pub use damaged::{DamagedLog, LostParts, is_break};
pub use disk_use::{DiskUse, Full};
pub use error::StartError;
pub use folder::{Folders, differs, in_use, note_differs, note_removed};
pub use known::Known;
pub use layout::{COMPONENTS, ShardFolder};
pub use lookup::{LookupFault, LookupFile, LookupReport, Lookups, Posted, Postings, QueueStretch, SAMPLE_EVERY, Term};
pub use open::{Opened, OpenedLog, check_start, open};
pub use position::{log_position, record_position, records_in};
pub use progress::{StartProgress, StartStep};
pub use pull::{
    Gathering, MissingFile, OfferedBy, OfferedFile, PlaceDisk, PlacePicture, PlaceStep, PullDisk, PullError, PullOffer,
    PullStage, StoppedLog, damaged_segments, discard_gathered, go_on, open_offered, unsound_segments,
};
pub use remains::{ClusterRemains, HeldRemains, RemainsError};
pub use replay::{UnreadableRecord, replay};
pub use replica::{Committed, LogName, NotedCut, ReplicaError, ReplicaFile, ReplicaNote};
pub use scrub::{LostFile, Scrub, ScrubReport, ScrubbedFiles};
pub use snapshots::{
    Comparison, CopyFate, DamagedCopy, Listeners, LoadedState, Requests, SealedUnlike, SnapshotBound, SnapshotBounds,
    SnapshotFailure, Snapshots, Snapshotter, StoredCopies, TakenSnapshot, newest_bound, verify_snapshots,
};
pub use space::Space;
pub use stored::{StoredError, message, record, record_len, transaction_at};
pub use undecided::UndecidedTail;
pub use version::VERSION;
// What of them stands in what is given here.
pub use vouch_consensus::{ClusterIncarnation, NodeId};
