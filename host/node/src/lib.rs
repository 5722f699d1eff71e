//! Brings the crates to life: the shard's executor thread on the commit log, timers, sessions, the checkback runner,
//! component files, shutdown. The edges call [`Node`] and nothing below it.

mod admin;
mod answerers;
mod api;
mod backup;
mod checks;
mod clock;
mod config;
mod damage;
mod directory;
mod folder;
mod halves;
mod lifecycle;
mod lookup;
mod metrics;
mod node;
mod plugins;
mod progress;
mod questions;
mod retention;
mod scrub;
mod search;
mod sessions;
mod shard;
mod snapshots;
mod start;
mod stopping;
mod stored;

pub use admin::{PAGE_MAX, Status};
pub use api::{
    AnswerView, Delivery, EndReceipt, EndRequest, ErrorView, Expect, GapView, GroupInfo, Health, MessageMark,
    MessagePage, MessageQuery, MessageView, PluginUpload, ProgressView, Receipt, ReceiveRequest, SendRequest,
    TopicInfo, TransactionMark, TransactionQuery, TransactionState, TransactionView, Written,
};
pub use backup::{Backup, BackupError, BackupProgress, BackupStep, OnProgress, backup, check_backup, restore};
pub use clock::{SystemTimeSource, TimeSource};
pub use config::{DEFAULT_SEGMENT_SIZE, NodeConfig, OnDamage};
pub use damage::{Damage, DamagedStretch, Known, LostMessages};
pub use folder::in_use;
pub use lookup::LookupReport;
pub use metrics::{
    CheckCounts, Checks, GroupLag, Metrics, OTHER, PRODUCER, ProcessUse, SERIES_MAX, Series, SeriesView,
    TopicTransactions,
};
pub use node::Node;
pub use plugins::{UploadError, limits_in_force};
pub use progress::{StartProgress, StartStep};
pub use questions::{CheckCommand, Question, TelemetryStream};
pub use retention::{DiskUse, RetentionReport};
pub use scrub::ScrubReport;
pub use sessions::{
    Client, DEAD_AFTER, Declaration, NoRoom, Role, SESSION_LIMIT, SESSIONS_MAX, SETTINGS_ONLY_LIMIT, Sessions, machine,
};
pub use snapshots::{CopyFate, DamagedCopy, StoredCopies, known_durable, verify_snapshots};
pub use start::{StartError, check_start};
pub use vouch_commitlog::{DURATION_BOUNDS, DurationCounts, Durations};
pub use vouch_plugin::{CompilerProgram, compiler_process, mask_document};
