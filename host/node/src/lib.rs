//! Brings the crates to life: the shard's executor thread on the commit log, timers, sessions, the checkback runner,
//! component files, shutdown. The edges call [`Node`] and nothing below it.

mod api;
mod checks;
mod cluster;
mod components;
mod config;
mod consumers;
mod damage;
mod delivery_key;
mod directory;
mod effects;
mod forwarding;
mod messages;
mod metrics;
mod names;
mod node;
mod others_room;
mod peers;
mod retention;
mod routes;
mod running;
mod search;
mod secrets;
mod served;
mod served_shard;
mod sessions;
mod settings;
mod sharing;
mod shortages;
mod start;
mod status;
mod stopping;
mod stored;
mod transactions;
mod turns;
mod watch;
mod writable;
mod written;

pub use api::{
    AnswerView, Delivery, EndReceipt, EndRequest, ErrorView, Expect, GapView, GroupInfo, MessageMark, MessagePage,
    MessageQuery, MessageView, NodeHealth, PAGE_MAX, PluginUpload, ProgressView, Receipt, ReceiveRequest, SendRequest,
    TopicInfo, TransactionMark, TransactionQuery, TransactionState, TransactionView, Written,
};
pub use cluster::{ClusterView, NodeRole, NodeStanding, Nodes, OwnLog, UpgradeFinished, majority_of};
pub use components::{BindingStanding, BindingTrial, Contradiction, EndedOnes, SampleHalf, TriedCall, TriedDatabase};
pub use components::{
    CleanedFence, Components, FenceCleaning, KeptPage, KeptView, PutBinding, UploadError, limits_in_force,
};
pub use config::NodeConfig;
pub use consumers::ConsumerStanding;
pub use damage::{Damage, DamagedStretch, LogDamage, LostContent, LostMessages};
pub(crate) use delivery_key::delivery_key;
pub use forwarding::{CallContext, HttpAnswering, HttpCall, HttpCallAnswer, ServeHttp};
pub use messages::Messages;
pub use metrics::{
    CheckCounts, Checks, ComparisonCounts, Comparisons, Deliveries, DeliveryCounts, GroupLag, Metrics, PRODUCER,
};
pub use metrics::{ProcessUse, SeriesView, TopicTransactions};
pub use node::{Node, NodeIdentity};
pub use peers::{ClusterToken, JoinSettings, Lacking, NodeVersion, PeerSettings, TokenFault};
pub use retention::RetentionReport;
pub use search::Search;
pub use secrets::{KeyRotation, SecretView, Secrets};
pub use sessions::{CheckCommand, Question, TelemetryStream};
pub use sessions::{
    Client, DEAD_AFTER, Declaration, NoRoom, SESSION_LIMIT, SESSIONS_MAX, SETTINGS_ONLY_LIMIT, SessionRole, Sessions,
    machine,
};
pub use settings::Settings;
pub use start::check_start;
pub use status::{Numbers, Status};
pub use transactions::Transactions;
pub use vouch_cluster::{ADDRESS_MAX, NodeId};
pub use vouch_commitlog::{DURATION_BOUNDS, DurationCounts, Durations};
pub use vouch_leader::{OTHER, SERIES_MAX, Series};
pub use vouch_plugin::{CompilerProgram, MAX_GUEST_THREADS, MAX_NODE_CONCURRENCY, compiler_process, mask_document};
pub use vouch_plugin::{Dialect, fence_tables};
pub use vouch_secrets::{KEY_FILE, SECRET_VALUE_MAX, SecretValue, UnfitValue};
pub use vouch_shard::clock::{SystemTimeSource, TimeSource};
pub use vouch_storage::{
    BackupError, DEFAULT_SEGMENT_SIZE, DiskUse, LookupReport, OnDamage, ScrubReport, StartError, StartProgress,
    StartStep, backup,
};
pub use vouch_transport::{CertificateAuthority, CertificatesError, NodeCertificate, PeerSecurity, RereadSecurity};
