//! What the edges ask of a node, and what they get.

mod components;
mod messages;
mod settings;
mod transactions;

pub use components::PluginUpload;
pub use messages::{
    Delivery, MessageMark, MessagePage, MessageQuery, MessageView, Receipt, ReceiveRequest, SendRequest,
};
pub use settings::{Expect, GapView, GroupInfo, ProgressView, TopicInfo, Written};
pub use transactions::{
    AnswerView, EndReceipt, EndRequest, ErrorView, TransactionMark, TransactionQuery, TransactionState, TransactionView,
};

/// Most items in one page of a list.
pub const PAGE_MAX: usize = 1000;

/// Health of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeHealth {
    /// It serves.
    Ready,
    /// The log takes no more writes; the reason.
    Poisoned(String),
    /// The log is damaged and only read; what to do.
    ReadOnly(String),
    /// It is going down.
    Stopping,
}
