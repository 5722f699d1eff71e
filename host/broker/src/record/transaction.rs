//! Records about transactions. A transaction is identified by the place where its half message was first written.

use super::Fields;
use super::codec::{DecodeError, Reader, Writer};
use crate::{HalfPosition, Millis, TransactionOutcome};

/// The kinds of this family, each with its sentence: a link of the chain of [`super::each_kind`].
macro_rules! transaction_kinds {
    ([$next:path $(, $rest:path)*] $($before:tt)*) => {
        $next! { [$($rest),*] $($before)*
            /// A transaction ended.
            End,
            /// A check was answered *unknown*.
            CheckAnswered,
            /// The asking stopped.
            Park,
            /// The asking goes on.
            Resume,
            /// The asking stopped because the component fails.
            ComponentFailed,
        }
    };
}
pub(crate) use transaction_kinds;

/// Who decided or answered.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum EndedBy {
    /// A producer, on its own or as the answer to a check.
    Client {
        /// Its client id.
        client_id: String,
        /// Whether it answered a check.
        from_check: bool,
    },
    /// A component.
    Component {
        /// The binding that asked it.
        binding: String,
        /// What was run.
        digest: String,
    },
    /// A person, over HTTP.
    Operator {
        /// As given in the request.
        name: String,
    },
    /// A producer that was asked, lived on and made no call (ruling 1).
    Silence {
        /// Its client id.
        client_id: String,
    },
}

impl EndedBy {
    fn write(&self, w: &mut Writer<'_>) {
        match self {
            Self::Client { client_id, from_check } => {
                w.u8(1);
                w.text(client_id);
                w.u8(u8::from(*from_check));
            }
            Self::Component { binding, digest } => {
                w.u8(2);
                w.text(binding);
                w.text(digest);
            }
            Self::Operator { name } => {
                w.u8(3);
                w.text(name);
            }
            Self::Silence { client_id } => {
                w.u8(4);
                w.text(client_id);
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match r.u8("decided by")? {
            1 => Self::Client { client_id: r.string("client id")?, from_check: r.flag("from check")? },
            2 => Self::Component { binding: r.string("binding")?, digest: r.string("digest")? },
            3 => Self::Operator { name: r.string("operator")? },
            4 => Self::Silence { client_id: r.string("client id")? },
            other => return Err(DecodeError::Value { field: "decided by", value: other.into() }),
        })
    }
}

impl std::fmt::Display for EndedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client { client_id, from_check: false } => write!(f, "client {client_id}"),
            Self::Client { client_id, from_check: true } => write!(f, "client {client_id} (checked)"),
            Self::Component { binding, digest } => write!(f, "component {digest} (binding {binding})"),
            Self::Operator { name } => write!(f, "operator {name}"),
            Self::Silence { client_id } => write!(f, "client {client_id} (silent)"),
        }
    }
}

/// Ends a transaction: the final and the end mark are this one record (TX-13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The transaction.
    pub transaction: HalfPosition,
    /// What becomes of it.
    pub outcome: TransactionOutcome,
    /// Queue that a committed message goes to; the leader chose it.
    pub queue: u32,
    /// Who decided.
    pub by: EndedBy,
    /// Why; empty where nobody said.
    pub reason: String,
}

impl Fields for End {
    const KIND: u16 = 32;

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.transaction.0);
        w.u8(self.outcome as u8);
        w.u32(self.queue);
        self.by.write(w);
        w.text(&self.reason);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let transaction = HalfPosition(r.u64("transaction")?);
        let outcome = r.u8("outcome")?;
        Ok(Self {
            transaction,
            outcome: TransactionOutcome::from_number(outcome)
                .ok_or(DecodeError::Value { field: "outcome", value: outcome.into() })?,
            queue: r.u32("queue")?,
            by: EndedBy::read(r)?,
            reason: r.string("reason")?,
        })
    }
}

/// A check was answered *unknown*: counts one (ruling 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckAnswered {
    /// The transaction.
    pub transaction: HalfPosition,
    /// Which check was answered, from 1; an answer to another one than the next is stale and counts nothing.
    pub check_number: u32,
    /// When it was asked.
    pub asked_at: Millis,
    /// Replaces one step of the schedule, already clamped.
    pub retry_after_ms: Option<u64>,
    /// Who answered.
    pub by: EndedBy,
    /// Why it is undecided; empty where nobody said.
    pub reason: String,
}

impl Fields for CheckAnswered {
    const KIND: u16 = 33;

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.transaction.0);
        w.u32(self.check_number);
        w.u64(self.asked_at.0);
        w.option(self.retry_after_ms, |w, ms| w.u64(ms));
        self.by.write(w);
        w.text(&self.reason);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            transaction: HalfPosition(r.u64("transaction")?),
            check_number: r.u32("check number")?,
            asked_at: Millis(r.u64("asked at")?),
            retry_after_ms: r.option("retry after", |r| r.u64("retry after"))?,
            by: EndedBy::read(r)?,
            reason: r.string("reason")?,
        })
    }
}

/// Stops the asking for a reason other than the last counted answer. No longer written: an outage parks nothing, and where
/// a component fails [`ComponentFailed`] says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Park {
    /// The transaction.
    pub transaction: HalfPosition,
    /// Why.
    pub reason: String,
}

impl Fields for Park {
    const KIND: u16 = 34;

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.transaction.0);
        w.text(&self.reason);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { transaction: HalfPosition(r.u64("transaction")?), reason: r.string("reason")? })
    }
}

/// Stops the asking about a transaction on which its component fails again and again, while it answers about others: until
/// the binding is set anew (ruling 4). The input is the half message, which is kept while the transaction is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentFailed {
    /// The transaction.
    pub transaction: HalfPosition,
    /// Which check it was, from 1; stale if that one was answered meanwhile.
    pub check_number: u32,
    /// Log position of the record that set the binding that failed; stale if it was set anew meanwhile.
    pub binding_revision: u64,
    /// How often in a row it failed.
    pub failures: u32,
    /// What failed.
    pub by: EndedBy,
    /// What went wrong the last time.
    pub error: String,
    /// Where in the component, innermost first; empty where that is not known.
    pub trace: String,
}

impl Fields for ComponentFailed {
    const KIND: u16 = 36;

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.transaction.0);
        w.u32(self.check_number);
        w.u64(self.binding_revision);
        w.u32(self.failures);
        self.by.write(w);
        w.text(&self.error);
        w.text(&self.trace);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            transaction: HalfPosition(r.u64("transaction")?),
            check_number: r.u32("check number")?,
            binding_revision: r.u64("binding revision")?,
            failures: r.u32("failures")?,
            by: EndedBy::read(r)?,
            error: r.string("error")?,
            trace: r.string("trace")?,
        })
    }
}

/// An operator lets the asking begin again, with a fresh counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The transaction.
    pub transaction: HalfPosition,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Fields for Resume {
    const KIND: u16 = 35;

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.transaction.0);
        w.text(&self.by);
        w.text(&self.reason);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { transaction: HalfPosition(r.u64("transaction")?), by: r.string("by")?, reason: r.string("reason")? })
    }
}
