//! What comes out of a call: an answer, or why there is none.

use std::time::Duration;

use serde::Serialize;

use crate::quantity::ByteSize;

/// What came of a call. Only [`Answered::Answer`] settles or counts anything of a check (ruling 1); a delivery without an answer
/// has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered<V> {
    /// The component answered.
    Answer(V),
    /// It did not, and nothing is staged. A check counts nothing: ask again with back-off (rulings 3 and 4). A delivery counts, if
    /// the component was run at all (ruling 9).
    NoAnswer(NoAnswer),
}

/// What came of a check.
pub type Checked = Answered<Verdict>;

/// What came of a delivery to a component.
pub type Consumed = Answered<ConsumerVerdict>;

/// What a component, or a service that it asked, can have written.
pub(crate) trait GuestTexts {
    /// Calls `each` with every such text, for whoever takes secrets out of them.
    fn each_text(&mut self, each: &mut impl FnMut(&mut String));
}

impl<V: GuestTexts> GuestTexts for Answered<V> {
    fn each_text(&mut self, each: &mut impl FnMut(&mut String)) {
        match self {
            Self::Answer(verdict) => verdict.each_text(each),
            Self::NoAnswer(no_answer) => no_answer.each_text(each),
        }
    }
}

/// A component's answer about a transaction.
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

impl GuestTexts for Verdict {
    fn each_text(&mut self, each: &mut impl FnMut(&mut String)) {
        match self {
            Self::Commit => {}
            Self::Rollback(reason) | Self::Unknown { reason, .. } => each(reason),
        }
    }
}

/// A component's answer about a message that was delivered to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerVerdict {
    /// Done; what was staged goes with the acknowledgement.
    Ack,
    /// Deliver again; counts as an attempt, and nothing was staged.
    Retry {
        /// Why, for the operator.
        reason: String,
        /// As the guest gave it; the broker clamps it. `None`: as the group's back-off says.
        retry_after: Option<Duration>,
    },
    /// To the dead-letter topic at once, with this reason; what was staged goes with it.
    Reject(String),
}

impl GuestTexts for ConsumerVerdict {
    fn each_text(&mut self, each: &mut impl FnMut(&mut String)) {
        match self {
            Self::Ack => {}
            Self::Retry { reason, .. } | Self::Reject(reason) => each(reason),
        }
    }
}

/// Why there is no answer. The text is for the operator who looks at the transaction or the delivery.
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
    /// As many calls as `limits.concurrency` or the engine's `concurrency` allows are running. The component was not
    /// started: nothing speaks against it. Ask again when one of them ends ([`crate::Binding::admit`] waits for that).
    #[error("{running} calls are already running, as many as {scope} allows")]
    NoCapacity {
        /// Calls that hold the places.
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
