//! What goes into a check and what comes out.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::quantity::ByteSize;

/// One ask: the record `pending` of the WIT interface `checkback`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Stable for the life of the transaction.
    pub transaction_id: String,
    /// The half message.
    pub half: Message,
    /// Client id of the producer that sent it.
    pub producer: String,
    /// When the half was stored, in ms since 1970 by the log's clock.
    pub opened_at_ms: u64,
    /// When this ask was made, in ms since 1970 by the log's clock.
    pub asked_at_ms: u64,
    /// 1 for the first check.
    pub check_number: u32,
    /// 0: an `unknown` parks the transaction.
    pub checks_left: u32,
}

impl Pending {
    /// About how many bytes a component is handed with it: what a batch is bounded by.
    pub fn size(&self) -> usize {
        /// Of its numbers, and of what each text costs beside its letters.
        const FIXED: usize = 256;
        let Message { id, topic, tag, keys, message_group, properties, attributes, born_host, body, .. } = &self.half;
        let pairs = properties.iter().chain(attributes).map(|(name, value)| name.len() + value.len() + 16);
        let texts =
            [id.len(), topic.len(), born_host.len(), self.transaction_id.len(), self.producer.len(), body.len()];
        let optional = [tag, message_group].into_iter().flatten().map(String::len);
        let keys = keys.iter().map(|key| key.len() + 8);
        FIXED + texts.into_iter().chain(optional).chain(keys).chain(pairs).sum::<usize>()
    }
}

/// The record `message` of the WIT interface `types`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The id that the client made.
    pub id: String,
    /// Topic.
    pub topic: String,
    /// Tag, if set.
    pub tag: Option<String>,
    /// Business keys.
    pub keys: Vec<String>,
    /// Ordering key, on ordered messages only.
    pub message_group: Option<String>,
    /// What the producer set.
    pub properties: Vec<(String, String)>,
    /// What the broker knows besides.
    pub attributes: Vec<(String, String)>,
    /// When it was made, in ms since 1970 by the producer's clock.
    pub born_at_ms: u64,
    /// Where it was made.
    pub born_host: String,
    /// When it was stored, in ms since 1970 by the log's clock.
    pub stored_at_ms: u64,
    /// Bytes in the decoded body, also where `body` is left out.
    pub body_size: u32,
    /// The decoded body. A binding with `"body": false` hands the guest an empty one whatever stands here, so the caller
    /// need not read it from the log.
    pub body: Bytes,
}

/// What came of a check. Only [`Checked::Answer`] settles or counts anything (ruling 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// The component answered.
    Answer(Verdict),
    /// It did not: nothing is staged, nothing is counted; ask again with back-off (rulings 3 and 4).
    NoAnswer(NoAnswer),
}

impl Checked {
    /// Calls `each` with every text of it that a component, or a service that it asked, can have written.
    pub(crate) fn each_text(&mut self, each: &mut impl FnMut(&mut String)) {
        match self {
            Self::Answer(Verdict::Commit) => {}
            Self::Answer(Verdict::Rollback(reason) | Verdict::Unknown { reason, .. }) => each(reason),
            Self::NoAnswer(no_answer) => no_answer.each_text(each),
        }
    }
}

/// A component's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Make the message visible.
    Commit,
    /// Drop it, with this reason.
    Rollback(String),
    /// Ask again; counts as one answered check.
    Unknown {
        /// Why, for the operator.
        reason: String,
        /// As the guest gave it; the broker clamps it (ruling 3).
        retry_after: Option<Duration>,
    },
}

/// Why there is no answer. The text is for the operator who looks at the transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The component returned `err`: it ran well and could not find out.
    #[error("the component could not answer: {0}")]
    GuestError(String),
    /// It trapped: a panic, an exit, a fault. Look at the plugin's log; the component wants repair.
    #[error("the component trapped: {why}")]
    Trap {
        /// What happened.
        why: String,
        /// Where in the component, innermost first; empty where that is not known.
        trace: String,
    },
    /// It was stopped after `limits.deadline`, most of which it waited: for a service, or for the machine.
    #[error("the component did not answer within {} and was stopped", humantime::format_duration(*.deadline))]
    Deadline {
        /// The limit that ran out.
        deadline: Duration,
    },
    /// It was stopped after `limits.deadline`, most of which it computed.
    #[error(
        "the component computed for most of {} without an answer and was stopped",
        humantime::format_duration(*.deadline)
    )]
    TimeUsedUp {
        /// The limit that ran out.
        deadline: Duration,
    },
    /// A request that it made failed, was answered that the service is out of order, or had no whole answer yet, and then
    /// the component failed as well: that may be its way to say so, and says nothing against the transaction.
    #[error("{trouble}, and then {then}")]
    Outside {
        /// What befell the first such request.
        trouble: String,
        /// How the component failed.
        then: Box<NoAnswer>,
    },
    /// It asked for more than `limits.memory` and was stopped.
    #[error("the component asked for more than {limit} of memory and was stopped")]
    MemoryLimit {
        /// The limit it ran into.
        limit: ByteSize,
    },
    /// Its answer, or something it handed to the host, is longer than allowed.
    #[error("the component handed over more than {limit} of text in one piece")]
    OutputTooLarge {
        /// The limit it ran into.
        limit: ByteSize,
    },
    /// As many checks as `limits.concurrency` or the engine's `concurrency` allows are running. The component was not
    /// started: nothing speaks against it. Ask again when one of them ends ([`crate::Binding::admit`] waits for that).
    #[error("{running} checks are already running, as many as {scope} allows")]
    NoCapacity {
        /// Checks that hold the places.
        running: usize,
        /// Whose limit it is.
        scope: &'static str,
    },
    /// It answered about others that it was asked about with this one, and said nothing of this one.
    #[error("the component answered about others of its batch and left this one out; its log may say why")]
    LeftOut,
    /// A call about several gave no answer, and neither did those that were asked about alone then.
    #[error("{why} (asked about {asked} transactions at once)")]
    Several {
        /// How many these were.
        asked: usize,
        /// Why.
        why: Box<NoAnswer>,
    },
    /// The host failed, not the component. The log has the cause.
    #[error("the plugin host failed: {0}")]
    Host(String),
}

impl NoAnswer {
    /// A stable word for metrics and records.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::GuestError(_) => "guest-error",
            Self::Trap { .. } => "trap",
            Self::Deadline { .. } => "deadline",
            Self::TimeUsedUp { .. } => "time-used-up",
            Self::Outside { .. } => "outside",
            Self::MemoryLimit { .. } => "memory-limit",
            Self::OutputTooLarge { .. } => "output-too-large",
            Self::NoCapacity { .. } => "no-capacity",
            Self::LeftOut => "left-out",
            Self::Several { why, .. } => why.kind(),
            Self::Host(_) => "host",
        }
    }

    /// Whether the component itself failed on this input (ruling 4); `false` if it said that it cannot answer, waited for
    /// others, met a fault of others, or was never started.
    pub fn blames_component(&self) -> bool {
        match self {
            Self::Trap { .. } | Self::TimeUsedUp { .. } | Self::MemoryLimit { .. } | Self::OutputTooLarge { .. } => {
                true
            }
            Self::GuestError(_)
            | Self::Deadline { .. }
            | Self::Outside { .. }
            | Self::NoCapacity { .. }
            | Self::LeftOut
            | Self::Several { .. }
            | Self::Host(_) => false,
        }
    }

    /// Every text in it that a component wrote, for whoever takes secrets out of them.
    pub(crate) fn each_text(&mut self, each: &mut impl FnMut(&mut String)) {
        match self {
            Self::GuestError(text) | Self::Host(text) => each(text),
            Self::Trap { why, trace } => {
                each(why);
                each(trace);
            }
            Self::Outside { trouble, then } => {
                each(trouble);
                then.each_text(each);
            }
            Self::Several { why, .. } => why.each_text(each),
            Self::Deadline { .. }
            | Self::TimeUsedUp { .. }
            | Self::MemoryLimit { .. }
            | Self::OutputTooLarge { .. }
            | Self::LeftOut
            | Self::NoCapacity { .. } => {}
        }
    }

    /// Where in the component it failed, innermost first; empty where that is not known.
    pub fn trace(&self) -> &str {
        match self {
            Self::Trap { trace, .. } => trace,
            Self::Outside { then, .. } => then.trace(),
            Self::Several { why, .. } => why.trace(),
            _ => "",
        }
    }
}

impl Serialize for NoAnswer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut object = serializer.serialize_struct("NoAnswer", 2)?;
        object.serialize_field("kind", self.kind())?;
        object.serialize_field("detail", &self.to_string())?;
        object.end()
    }
}
