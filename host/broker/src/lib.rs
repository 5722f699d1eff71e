//! The deterministic state machine behind the log.
//!
//! [`State::apply`] is a pure function of the log: no clock, no I/O, no randomness. What a leader needs besides
//! (waiting polls, running checks) lives in the node and is rebuilt from this state; the part of it that decides what
//! to hand out is [`delivery`], as pure as the rest.

#[cfg(any(test, feature = "testing"))]
pub mod bugs;
pub mod check;
mod config;
pub mod delivery;
mod duration_text;
mod filter;
mod generation;
mod half_position;
mod handle;
mod literal;
mod message;
mod name;
mod not_done;
mod queue_offset;
pub mod record;
mod record_position;
mod refusal;
mod shard_id;
mod size_text;
pub mod state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod time;
mod transaction_id;

pub use config::{
    AckLevel, BACKOFF_MAX, CHECK_STEP_MAX, CHECK_STEP_MIN, CheckPolicy, GroupConfig, MAX_ATTEMPTS_MAX, MAX_CHECKS_MAX,
    QUEUES_MAX, RETENTION_MAX, RETENTION_MIN, RETENTION_SIZE_MIN, SCHEDULE_STEPS_MAX, StartPosition, TopicConfig,
    TopicType, Unconsumed,
};
pub use filter::{TagFilter, TagHash};
pub use generation::Generation;
pub use half_position::HalfPosition;
pub use handle::Handle;
pub use message::{BodyEncoding, MessageKind, NewMessage, StoredMessage};
pub use name::{
    DEAD_LETTER_PREFIX, GROUP_NAME_MAX_CHARS, GroupId, INTERNAL_TOPIC_NAME_MAX_CHARS, NAMESPACE_MAX_CHARS, NameError,
    ResourceName, TOPIC_NAME_MAX_CHARS, TopicId, check_group_name, check_namespace, check_new_topic_name,
    check_topic_name,
};
pub use not_done::{NotDone, NothingStored};
pub use queue_offset::QueueOffset;
pub use record_position::RecordPosition;
pub use refusal::{Refusal, TransactionOutcome};
pub use shard_id::ShardId;
pub use state::State;
pub use time::Millis;
pub use transaction_id::TransactionId;
