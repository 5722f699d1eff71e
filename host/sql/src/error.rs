//! What can go wrong, in the words of the WIT interface `sql`.
//!
//! The variants are told apart by what a caller should do: have somebody mend the binding or the statement, drop the values,
//! run it again, ask later, or look what happened.

/// Why a call has no result. Each text says what to do next, and holds no address, user or password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// The grant does not give this: whoever set the binding can.
    #[error("not granted: {0}")]
    NotGranted(String),
    /// The statement does not fit the database, or is of a kind that is not let through: no call fares better until
    /// somebody mends it.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The values of this call do not fit: trying this one again will not help.
    #[error("bad value: {0}")]
    BadValue(String),
    /// A constraint of the database stands against it.
    #[error("conflict: {0}")]
    Conflict(ConstraintViolation),
    /// The database undid it as a whole (deadlock, serialization failure, lock time-out): run it again.
    #[error("aborted: {0}")]
    Aborted(String),
    /// More rows or bytes than the limits allow. Nothing of it is kept.
    #[error("too large: {0}")]
    TooLarge(String),
    /// Past its deadline, and undone.
    #[error("timed out: {0}")]
    TimedOut(String),
    /// Not reached, or refused: certainly nothing happened. (Of [`crate::Database::close_fence`]: read the fence to know.)
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The connection was lost while committing: it may have happened.
    #[error("in doubt: {0}")]
    InDoubt(String),
}

impl SqlError {
    /// What the database says, for whoever takes out what is not to be shown.
    pub fn text_mut(&mut self) -> &mut String {
        match self {
            Self::Conflict(violation) => &mut violation.text,
            Self::NotGranted(text)
            | Self::Invalid(text)
            | Self::BadValue(text)
            | Self::Aborted(text)
            | Self::TooLarge(text)
            | Self::TimedOut(text)
            | Self::Unavailable(text)
            | Self::InDoubt(text) => text,
        }
    }
}

/// Which constraint, if the database says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ConstraintViolation {
    /// Of which kind it is.
    pub kind: Constraint,
    /// Its name; not every database tells.
    pub name: Option<String>,
    /// What the database says of it.
    pub text: String,
}

/// Kinds of constraints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// A unique or primary key.
    Unique,
    /// A reference to another row.
    ForeignKey,
    /// A condition on the row.
    Check,
    /// A missing value.
    NotNull,
    /// Anything else: an exclusion, a trigger.
    Other,
}

/// What an author does about a statement that a database does not take; behind the database's own words.
pub(crate) const MEND_STATEMENT: &str = "correct the statement, or what it names in the database";
/// The same about a value.
pub(crate) const MEND_VALUE: &str = "correct the value that the call gives";

/// What a connection says of one step: the error, and whether the connection can still be spoken over.
#[derive(Clone, Debug)]
pub(crate) enum StatementFault {
    /// The database answered with an error; the database transaction can be rolled back over this connection.
    Said(SqlError),
    /// No answer, or one that was not read to its end: this connection is good for nothing more.
    Lost(SqlError),
}

impl StatementFault {
    /// The error, whatever became of the connection.
    pub(crate) fn into_error(self) -> SqlError {
        match self {
            Self::Said(error) | Self::Lost(error) => error,
        }
    }

    /// The connection ended.
    pub(crate) fn connection_lost() -> Self {
        Self::Lost(SqlError::Unavailable("the connection to the database was lost; try again".to_owned()))
    }

    /// No answer came in time.
    pub(crate) fn no_answer() -> Self {
        Self::Lost(SqlError::TimedOut(
            "the database did not answer before the deadline; the statement was given up and is undone".to_owned(),
        ))
    }
}

impl From<SqlError> for StatementFault {
    fn from(error: SqlError) -> Self {
        Self::Said(error)
    }
}
