//! Messages, as they are sent, received and found.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vouch_broker::{
    Handle, NewMessage, QueueOffset, RecordPosition, ResourceName, StoredMessage, TagFilter, TopicId, TransactionId,
};

use super::transactions::TransactionView;

/// Messages of one topic from one producer, stored all or none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SendRequest {
    /// The topic.
    pub topic: ResourceName,
    /// Client id of the producer.
    pub producer: String,
    /// At least one.
    pub messages: Vec<NewMessage>,
}

/// Where a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        /// The transaction.
        transaction: TransactionId,
    },
    /// It is written and not durable: the topic's ack level is `memory`. Its place is not known yet, and a crash of the
    /// machine may still lose it.
    InMemory,
}

/// Asks for messages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReceiveRequest {
    /// The topic.
    pub topic: ResourceName,
    /// The consumer group; it comes into being here if it does not exist.
    pub group: ResourceName,
    /// The consumer.
    pub client_id: String,
    /// Where its calls come from, if that is known: receives of one machine take half of the room for those that wait.
    pub address: Option<IpAddr>,
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    Below(RecordPosition),
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

/// Everything, for a consumer that gave no filter.
impl Default for ReceiveRequest {
    fn default() -> Self {
        Self {
            topic: ResourceName::default(),
            group: ResourceName::default(),
            client_id: String::new(),
            address: None,
            max: 1,
            filter: TagFilter::All,
            invisible_ms: None,
            auto_renew: false,
            wait: Duration::ZERO,
        }
    }
}
