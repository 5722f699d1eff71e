//! What a connection to a database can do, whichever database it is.
//!
//! Everything above this trait is written once; everything below it is what one database does its own way: its protocol,
//! the names of its settings, the meaning of its errors.

use crate::{
    call::SqlCall,
    dialect::Dialect,
    error::{SqlError, StatementFault},
    grant::{DatabasePassword, SqlLimits},
    value::{RowSet, Statement, Value},
};

/// What a database transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading: the database itself refuses every change.
    Read,
    /// One statement that may write.
    One,
    /// Several that may.
    Several,
    /// One that inserts a key first, which somebody else may hold: it waits for a lock half a second at most (a whole one
    /// in MySQL and MariaDB, which count in seconds; MariaDB does not wait where there is less time than that).
    Keyed,
}

impl Access {
    /// Rows may change.
    pub(crate) fn writes(self) -> bool {
        self != Self::Read
    }
}

/// Who wrote a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Author {
    /// This crate: it leaves nothing behind in the session.
    House,
    /// A guest: whatever it may have left there must be gone before the connection is used again.
    Guest,
}

/// Makes connections.
pub(crate) trait Connector: Send + Sync + 'static {
    /// What it makes.
    type Connection: SqlConnection;
    /// By whose rules a statement is read before there is a connection. (MySQL and MariaDB read alike.)
    const READS_LIKE: Dialect;

    /// A new connection, ready to begin. The caller bounds the time.
    fn connect(&self, password: &DatabasePassword) -> impl Future<Output = Result<Self::Connection, SqlError>> + Send;
}

/// A connection, which is spoken over by one call at a time.
///
/// # To ensure correctness
/// - [`StatementFault::Said`] means that the connection can go on, if only with `roll_back`; after
///   [`StatementFault::Lost`] it is dropped, and so it is when a future is dropped before its end.
/// - `commit` answers `Ok` only if the database said that it committed, and `Said` only if it said that it did not.
/// - After `commit` or `roll_back` nothing that a guest's statement left in the session is there any more, or `is_clean`
///   says that it may be.
/// - A statement that ended the database transaction, in whatever way, is `Lost`.
pub(crate) trait SqlConnection: Send + 'static {
    /// Which database is at the other end.
    fn dialect(&self) -> Dialect;

    /// Whether nothing is left in the session of what a guest's statements may have put there.
    fn is_clean(&self) -> bool;

    /// Begins a database transaction.
    fn begin(&mut self, access: Access, call: SqlCall) -> impl Future<Output = Result<(), StatementFault>> + Send;

    /// Runs one statement in it, until the deadline of the call at most.
    fn run(
        &mut self,
        statement: &Statement,
        author: Author,
        allowance: &mut Allowance,
        call: SqlCall,
    ) -> impl Future<Output = Result<RowSet, StatementFault>> + Send;

    /// Prepares a statement, in a database transaction, without running it.
    fn prepare(&mut self, text: &str) -> impl Future<Output = Result<TriedStatement, StatementFault>> + Send;

    /// Ends the database transaction, keeping what it did.
    fn commit(&mut self) -> impl Future<Output = Result<(), StatementFault>> + Send;

    /// Ends it and keeps nothing.
    fn roll_back(&mut self) -> impl Future<Output = Result<(), StatementFault>> + Send;
}

/// What a database says of a statement that it prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriedStatement {
    /// How many parameters it wants.
    pub params: usize,
    /// Names of the columns that it answers.
    pub columns: Vec<String>,
}

/// What a call may still answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// Rows, and that many more than none make an error.
    pub(crate) rows: usize,
    /// Bytes.
    pub(crate) bytes: usize,
    limits: SqlLimits,
}

impl Allowance {
    /// All that the limits give.
    pub(crate) fn new(limits: SqlLimits) -> Self {
        Self { rows: limits.rows, bytes: limits.bytes, limits }
    }

    /// Takes a row off it.
    pub(crate) fn take(&mut self, row: &[Value]) -> Result<(), SqlError> {
        let size = size_of::<Vec<Value>>() + row.iter().map(Value::size).sum::<usize>();
        self.rows = self.rows.checked_sub(1).ok_or_else(|| self.too_many_rows())?;
        self.bytes = self.bytes.checked_sub(size).ok_or_else(|| self.too_many_bytes())?;
        Ok(())
    }

    /// Names of columns, which come even without rows.
    pub(crate) fn take_columns(&mut self, columns: &[String]) -> Result<(), SqlError> {
        let size = columns.iter().map(|name| size_of::<String>() + name.len()).sum::<usize>();
        self.bytes = self.bytes.checked_sub(size).ok_or_else(|| self.too_many_bytes())?;
        Ok(())
    }

    /// The answer has more rows than it may.
    pub(crate) fn too_many_rows(&self) -> SqlError {
        SqlError::TooLarge(format!("more than {} rows; ask for fewer (LIMIT)", self.limits.rows))
    }

    /// The answer has more bytes than it may.
    pub(crate) fn too_many_bytes(&self) -> SqlError {
        SqlError::TooLarge(format!("more than {} bytes of answer; ask for less", self.limits.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_bounded_in_rows_and_bytes() {
        let limits = SqlLimits { rows: 2, bytes: 1_000, ..SqlLimits::default() };
        let mut allowance = Allowance::new(limits);
        let row = [Value::Integer(1)];
        assert_eq!(allowance.take(&row), Ok(()));
        assert_eq!(allowance.take(&row), Ok(()));
        assert!(matches!(allowance.take(&row), Err(SqlError::TooLarge(text)) if text.contains("2 rows")));
        let mut allowance = Allowance::new(limits);
        assert_eq!(allowance.take(&[Value::Text("a".repeat(900))]), Ok(()));
        let wide = Allowance::new(limits).take(&[Value::Bytes(vec![0; 1_000])]);
        assert!(matches!(wide, Err(SqlError::TooLarge(text)) if text.contains("1000 bytes")));
        assert!(Allowance::new(limits).take_columns(&["a".repeat(1_000)]).is_err());
    }
}
