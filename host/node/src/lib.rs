//! Brings the crates to life: the shard's executor thread on the commit log, timers, sessions, the checkback runner,
//! component files, shutdown. The edges call [`Node`] and nothing below it.

mod api;
mod clock;
mod sessions;

pub use api::{
    AnswerView, Delivery, EndReceipt, EndRequest, Expect, GroupInfo, Health, MessageView, PluginUpload, ProgressView,
    ReceiveRequest, Receipt, SendRequest, TopicInfo, TransactionQuery, TransactionState, TransactionView, Written,
};
pub use sessions::{CheckCommand, Declaration, Role, SESSION_LIMIT, SESSIONS_MAX, Sessions, TelemetryStream};
