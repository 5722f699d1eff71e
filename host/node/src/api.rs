//! What the edges ask of a node, and what they get.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use vouch_broker::record::EndedBy;
use vouch_broker::{
    GroupConfig, GroupId, Handle, NewMessage, QueueOffset, ResourceName, StoredMessage, TagFilter, TopicConfig,
    TopicId, TransactionOutcome,
};

/// Most items in one page of a list.
pub const PAGE_MAX: usize = 1000;

/// Messages of one topic from one producer, stored all or none.
#[derive(Debug)]
pub struct SendRequest {
    /// The topic.
    pub topic: ResourceName,
    /// Client id of the producer.
    pub producer: String,
    /// At least one.
    pub messages: Vec<NewMessage>,
}

/// Where a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It is in a queue and durable.
    Stored {
        /// The queue.
        queue: u32,
        /// Its offset there.
        offset: QueueOffset,
    },
    /// It is a half message, durable and invisible.
    Prepared {
        /// The transaction: log position of the half's record.
        transaction: u64,
    },
    /// It is written and not durable: the topic's ack level is `memory`. Its place is not known yet, and a crash of the
    /// machine may still lose it.
    InMemory,
}

/// Ends a transaction.
#[derive(Debug)]
pub struct EndRequest {
    /// Topic of the half, as the caller says; `None` where it does not say (operators).
    pub topic: Option<ResourceName>,
    /// Message id of the half, as the caller says; checked if given.
    pub message_id: Option<String>,
    /// The transaction: log position of the half's record.
    pub transaction: u64,
    /// What becomes of it.
    pub outcome: TransactionOutcome,
    /// Who decides.
    pub by: EndedBy,
    /// Why; empty where nobody says.
    pub reason: String,
}

/// The recorded end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndReceipt {
    /// The outcome.
    pub outcome: TransactionOutcome,
    /// It had ended that way before.
    pub repeated: bool,
}

/// Asks for messages.
#[derive(Clone, Debug)]
pub struct ReceiveRequest {
    /// The topic.
    pub topic: ResourceName,
    /// The consumer group; it comes into being here if it does not exist.
    pub group: ResourceName,
    /// The consumer.
    pub client_id: String,
    /// Messages wanted, at most 32 are given.
    pub max: u32,
    /// Which of them.
    pub filter: TagFilter,
    /// How long they stay invisible to others; `None` for the default of 60 s.
    pub invisible_ms: Option<u64>,
    /// The broker keeps the leases alive while the consumer lives.
    pub auto_renew: bool,
    /// How long to wait for the first message.
    pub wait: Duration,
}

/// A message handed out.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub message: StoredMessage,
    /// The queue.
    pub queue: u32,
    /// Its offset there.
    pub offset: QueueOffset,
    /// Which delivery this is, from 1.
    pub attempt: u32,
    /// Token of the lease.
    pub handle: Handle,
    /// Length of the lease.
    pub invisible_ms: u64,
    /// For a dead letter: original topic and message id.
    pub dead_letter_origin: Option<(String, String)>,
}

/// What a route needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its life.
    pub id: TopicId,
    /// Its name.
    pub name: ResourceName,
    /// Its settings.
    pub config: TopicConfig,
    /// The resource's tag over HTTP.
    pub revision: u64,
}

/// What the settings of a consumer need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its life.
    pub id: GroupId,
    /// Its name.
    pub name: ResourceName,
    /// Its settings.
    pub config: GroupConfig,
    /// The resource's tag over HTTP.
    pub revision: u64,
}

/// An administrator's write: how to treat what is there (`If-Match`, `If-None-Match`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Whatever is there.
    #[default]
    Anything,
    /// Only if nothing is there.
    Absent,
    /// Only if it has this revision.
    Revision(u64),
}

impl Expect {
    pub(crate) fn revision(self) -> Option<u64> {
        match self {
            Self::Anything => None,
            Self::Absent => Some(0),
            Self::Revision(revision) => Some(revision),
        }
    }
}

/// The result of an administrator's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// It did not exist before.
    pub created: bool,
    /// Its revision now.
    pub revision: u64,
}

/// State of a transaction as operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionState {
    /// Waiting for its end or its next check.
    Open,
    /// Due, and nobody is there to ask; attempts do not move.
    WaitingForChecker,
    /// No longer asked; a decision still ends it.
    Parked,
    /// Ended: visible.
    Committed,
    /// Ended: dropped.
    RolledBack,
}

/// What was last said about a transaction, or why nothing was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerView {
    /// Who.
    pub by: String,
    /// `unknown`, `commit`, `rollback`; `resume` where an operator let the asking begin again; `None` for no answer.
    pub verdict: Option<&'static str>,
    /// The reason, or the error of an ask without an answer.
    pub text: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// The last ask about a transaction that got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorView {
    /// Who was asked.
    pub by: String,
    /// What went wrong.
    pub text: String,
    /// Where in the component, innermost first; empty where that is not known.
    pub trace: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// A transaction as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionView {
    /// Log position of the half's record.
    pub transaction: u64,
    /// Topic of the half.
    pub topic: String,
    /// State.
    pub state: TransactionState,
    /// Answered checks that count.
    pub checks: u32,
    /// Milliseconds since 1970; `None` for one that ended and whose half is past its retention, as are its keys then.
    pub opened_at_ms: Option<u64>,
    /// Milliseconds since 1970; `None` if no check is planned.
    pub next_check_at_ms: Option<u64>,
    /// Milliseconds since 1970; `None` while open.
    pub ended_at_ms: Option<u64>,
    /// Who was asked or decided, and what came of it.
    pub last_answer: Option<AnswerView>,
    /// The last error of an ask, whatever was answered or decided since. What is not in the log is forgotten with a restart,
    /// or after 20 000 errors of other transactions.
    pub last_error: Option<ErrorView>,
    /// Why it is parked.
    pub parked_because: Option<String>,
    /// Client id of the producer.
    pub producer: String,
    /// Message id of the half.
    pub message_id: String,
    /// Keys of the half.
    pub keys: Vec<String>,
}

/// The end of a page of transactions, where the next one begins. A transaction that ends between two pages moves to
/// the ended ones; the open ones behind it are not missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionMark {
    /// After this one, which was open.
    Open(u64),
    /// After this one, which had ended.
    Ended(u64),
}

/// Which transactions to list.
#[derive(Clone, Debug, Default)]
pub struct TransactionQuery {
    /// Only in this state.
    pub state: Option<TransactionState>,
    /// Only of this topic.
    pub topic: Option<ResourceName>,
    /// Only opened at least this long ago.
    pub older_than: Option<Duration>,
    /// Go on here.
    pub after: Option<TransactionMark>,
    /// At most this many, 1 to 1000.
    pub limit: usize,
}

/// Progress of a group on one topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgressView {
    /// The topic.
    pub topic: String,
    /// Not done: ready and in flight.
    pub lag: u64,
    /// Handed out, not done.
    pub in_flight: u64,
    /// Visible.
    pub ready: u64,
}

/// Messages that a group missed: they were past their retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GapView {
    /// The topic; empty if it was deleted so long ago that its name is forgotten.
    pub topic: String,
    /// What is missed there, and when that was recorded.
    pub gap: vouch_broker::state::Gap,
}

/// Where a message is.
#[derive(Clone, Debug)]
pub struct MessageView {
    /// The message.
    pub message: StoredMessage,
    /// The topic it was sent to.
    pub topic: String,
    /// Queue and offset, if it is in a queue.
    pub place: Option<(u32, QueueOffset)>,
    /// The transaction, for a half message.
    pub transaction: Option<TransactionView>,
}

/// The end of a page of messages, where the next one begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageMark {
    /// Of a list by key: messages at log positions below this one.
    Below(u64),
    /// Of a list of what is in queues.
    Queues {
        /// The topic's life: its offsets mean nothing in another one.
        topic: TopicId,
        /// The next offset of each queue.
        next: Vec<QueueOffset>,
    },
}

/// Which messages of a topic to list.
#[derive(Clone, Debug, Default)]
pub struct MessageQuery {
    /// The topic.
    pub topic: String,
    /// Only those with this key; newest first then.
    pub key: Option<String>,
    /// Only those stored at this time or later, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Go on here, with the same key and time.
    pub after: Option<MessageMark>,
    /// At most this many, 1 to 1000.
    pub limit: usize,
}

/// Some messages of a topic.
#[derive(Clone, Debug)]
pub struct MessagePage {
    /// The messages; a page may have fewer than were asked for and still not be the last.
    pub messages: Vec<MessageView>,
    /// Where the next page begins; `None` after the last message.
    pub next: Option<MessageMark>,
}

/// One component file for upload.
#[derive(Clone, Debug)]
pub struct PluginUpload {
    /// Name of the plugin.
    pub name: String,
    /// The tag that shall point at it.
    pub tag: String,
    /// The component.
    pub wasm: Bytes,
    /// Digest that the tag must point at now (`If-Match`), as `sha256:…`.
    pub expected: Option<String>,
}

/// Health of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It serves.
    Ready,
    /// The log takes no more writes; the reason.
    Poisoned(String),
    /// The log is damaged and only read; what to do.
    ReadOnly(String),
    /// It is going down.
    Stopping,
}

/// Everything, for a consumer that gave no filter.
impl Default for ReceiveRequest {
    fn default() -> Self {
        Self {
            topic: ResourceName::default(),
            group: ResourceName::default(),
            client_id: String::new(),
            max: 1,
            filter: TagFilter::All,
            invisible_ms: None,
            auto_renew: false,
            wait: Duration::ZERO,
        }
    }
}

/// What an operator decides about a transaction.
impl EndRequest {
    /// A decision of an operator.
    pub fn by_operator(transaction: u64, outcome: TransactionOutcome, name: String, reason: String) -> Self {
        Self { topic: None, message_id: None, transaction, outcome, by: EndedBy::Operator { name }, reason }
    }
}
