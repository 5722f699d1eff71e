//! The deterministic state machine behind the log.
//!
//! `State::apply(position, time, record)` is a pure function of the log: no clock, no I/O, no randomness. What a
//! leader needs besides (waiting polls, running checks) lives in the node and is rebuilt from this state.

mod handle;
mod message;
mod name;
mod refusal;
mod time;

pub use handle::Handle;
pub use message::{BodyEncoding, MessageKind, NewMessage, StoredMessage};
pub use name::{
    DEAD_LETTER_PREFIX, GROUP_NAME_MAX_CHARS, GroupId, INTERNAL_TOPIC_NAME_MAX_CHARS, NAMESPACE_MAX_CHARS, NameError,
    ResourceName, TOPIC_NAME_MAX_CHARS, TopicId, check_group_name, check_namespace, check_new_topic_name,
    check_topic_name,
};
pub use refusal::{Refusal, TransactionOutcome};
pub use time::Millis;
