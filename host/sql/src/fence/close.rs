//! Reading the fence, and closing it: *read; if missing and closing, a plain INSERT in a database transaction of its own; on
//! a unique violation read again.*
//!
//! | what the database answers to the INSERT or the COMMIT | what is concluded |
//! |---|---|
//! | COMMIT is answered | rolled back, for ever: whoever inserts the key later fails |
//! | the key is there | whatever the row says that is read now; if there is none any more, held |
//! | a lock time-out, a deadlock, a serialization failure, busy | held: somebody is at it, ask later |
//! | it only reads: a replica, a read-only server or file | unavailable, with the word to name the primary |
//! | past the deadline | timed out, and undone |
//! | no such table or column, no right to it | invalid: somebody has to mend it |
//! | nothing: the connection was lost, even in COMMIT | unavailable, whatever really happened: the next reading tells |
//!
//! No upsert and no IGNORE: an insert-or-nothing and a select in one statement find no row when the holder commits between
//! the two, and an upsert turns what was final.

use crate::{
    call::SqlCall,
    connection::{Access, Connector},
    dialect::Dialect,
    error::{Constraint, SqlError},
    granted::{Granted, check_key},
    run::run_in,
    table::TableName,
    transaction::{CommitFault, Transaction},
    value::{RowSet, Statement, Value},
};

/// What the fence says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// The business transaction happened.
    Committed,
    /// It did not, and never will.
    RolledBack,
    /// No decision: it may still come.
    Missing,
    /// No decision: an open transaction has the key, or the database is busy. Ask later.
    Held,
}

impl<K: Connector> Granted<K> {
    /// What the fence says of each key, in their order. Changes nothing.
    pub(crate) async fn read_fence(&self, keys: &[String], call: SqlCall) -> Result<Vec<Fenced>, SqlError> {
        let table = self.fence()?;
        keys.iter().try_for_each(|key| check_key(key))?;
        if keys.len() > self.grant.limits.keys {
            return Err(SqlError::TooLarge(format!("{} keys: at most {} fit", keys.len(), self.grant.limits.keys)));
        }
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let found = match self.read(table, keys, call).await {
            // The database was busy.
            Err(SqlError::Aborted(_)) => return Ok(vec![Fenced::Held; keys.len()]),
            found => found?,
        };
        keys.iter().map(|key| Ok(outcome_of(key, &found)?.unwrap_or(Fenced::Missing))).collect()
    }

    /// Makes a missing row `rolled_back`; if it does, `also` runs in the same database transaction. Never
    /// [`Fenced::Missing`].
    pub(crate) async fn close_fence(&self, key: &str, also: &[Statement], call: SqlCall) -> Result<Fenced, SqlError> {
        let table = self.fence()?;
        check_key(key)?;
        self.admit_writing(also)?;
        let closed = match self.outcome(table, key, call).await {
            Ok(Some(outcome)) => Ok(outcome),
            Ok(None) => self.insert(table, key, also, call).await,
            Err(error) => Err(error),
        };
        // The database is busy, or undid all of it because of somebody else.
        if matches!(closed, Err(SqlError::Aborted(_))) { Ok(Fenced::Held) } else { closed }
    }

    /// Inserts the row that makes it final, with what else is to happen then.
    async fn insert(
        &self,
        table: &TableName,
        key: &str,
        also: &[Statement],
        call: SqlCall,
    ) -> Result<Fenced, SqlError> {
        let mut transaction = Transaction::begin(&self.pool, Access::Keyed, call).await?;
        let dialect = transaction.dialect();
        // There is one writer at a time in SQLite, and this is it now: what is not there comes from nobody else.
        if dialect == Dialect::Sqlite {
            let read = transaction.run_own(&reading(table, dialect, &[key])).await;
            let outcome = read.and_then(|found| outcome_of(key, &found));
            if !matches!(outcome, Ok(None)) {
                transaction.roll_back().await;
                return Ok(outcome?.unwrap_or(Fenced::Held));
            }
        }
        if let Err(error) = transaction.run_own(&closing(table, dialect, key)).await {
            transaction.roll_back().await;
            return match error {
                // Somebody was first. If there is no row now, its holder undid it meanwhile, or it was cleaned away.
                SqlError::Conflict(violation) if is_of_the_key(violation.kind, dialect) => {
                    Ok(self.outcome(table, key, call).await?.unwrap_or(Fenced::Held))
                }
                SqlError::Conflict(violation) => Err(SqlError::Invalid(format!(
                    "the fence table does not take a row ({violation}); create it as `vouch sql fence-table` prints it"
                ))),
                error => Err(error),
            };
        }
        let (transaction, _) = run_in(transaction, also, &mut self.allowance()).await?;
        match transaction.commit().await {
            Ok(()) => Ok(Fenced::RolledBack),
            Err(CommitFault::Refused(error)) => Err(error),
            Err(CommitFault::InDoubt) => Err(SqlError::Unavailable(
                "the connection was lost while closing the fence; read the fence to know what became of it".to_owned(),
            )),
        }
    }

    /// What the fence says of one key, if anything.
    async fn outcome(&self, table: &TableName, key: &str, call: SqlCall) -> Result<Option<Fenced>, SqlError> {
        let found = self.read(table, &[key.to_owned()], call).await?;
        outcome_of(key, &found)
    }

    /// The rows of these keys, in a database transaction of their own: what is read is what was committed by then.
    async fn read(&self, table: &TableName, keys: &[String], call: SqlCall) -> Result<RowSet, SqlError> {
        let mut transaction = Transaction::begin(&self.pool, Access::Read, call).await?;
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let found = transaction.run_own(&reading(table, transaction.dialect(), &keys)).await;
        // It changed nothing, so how it ends is all the same; and what was read is kept, even if the end is not answered.
        transaction.roll_back().await;
        found
    }
}

/// `select`, for one key or many at once.
fn reading(table: &TableName, dialect: Dialect, keys: &[&str]) -> Statement {
    let table = table.quoted(dialect);
    let places = dialect.placeholders(keys.len());
    let keys: Vec<Value> = keys.iter().map(|key| Value::Text((*key).to_owned())).collect();
    Statement::new(format!("select fence_key, outcome from {table} where fence_key in ({places})"), keys)
}

/// The plain INSERT that decides.
fn closing(table: &TableName, dialect: Dialect, key: &str) -> Statement {
    let (table, place) = (table.quoted(dialect), dialect.placeholder(1));
    let text = format!("insert into {table} (fence_key, outcome) values ({place}, 'rolled_back')");
    Statement::new(text, [Value::Text(key.to_owned())])
}

/// Whether it says that the key is there already. In SQLite the trigger that makes rows final says so, too.
fn is_of_the_key(kind: Constraint, dialect: Dialect) -> bool {
    kind == Constraint::Unique || (dialect == Dialect::Sqlite && kind == Constraint::Other)
}

/// What the rows say of a key. Compared byte by byte: a table whose keys ignore case finds rows of other keys.
fn outcome_of(key: &str, found: &RowSet) -> Result<Option<Fenced>, SqlError> {
    let is_key = |value: &Value| match value {
        Value::Text(text) => text == key,
        Value::Bytes(bytes) => bytes == key.as_bytes(),
        _ => false,
    };
    let Some(row) = found.rows.iter().find(|row| row.first().is_some_and(is_key)) else { return Ok(None) };
    match row.get(1) {
        Some(Value::Text(outcome)) if outcome == "committed" => Ok(Some(Fenced::Committed)),
        Some(Value::Text(outcome)) if outcome == "rolled_back" => Ok(Some(Fenced::RolledBack)),
        _ => Err(SqlError::Invalid(
            "a row of the fence says neither `committed` nor `rolled_back`; correct what the service inserts"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fence_is_read_and_closed_with_the_statements_of_the_protocol() {
        let table: TableName = "vouch_fence".parse().unwrap();
        let read = reading(&table, Dialect::Postgres, &["a", "b"]);
        assert_eq!(read.text, r#"select fence_key, outcome from "vouch_fence" where fence_key in ($1, $2)"#);
        let close = closing(&table, Dialect::MariaDb, "a");
        assert_eq!(close.text, "insert into `vouch_fence` (fence_key, outcome) values (?, 'rolled_back')");
        assert_eq!(close.params, [Value::Text("a".to_owned())]);
    }

    #[test]
    fn a_row_decides_only_about_the_very_key() {
        let row = |key: Value, outcome: &str| vec![key, Value::Text(outcome.to_owned())];
        let rows = |rows| RowSet { rows, ..RowSet::default() };
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(outcome_of("a", &rows(vec![row(text("A"), "committed")])), Ok(None));
        assert_eq!(outcome_of("a", &rows(vec![row(text("a "), "committed")])), Ok(None));
        let both = rows(vec![row(text("A"), "committed"), row(Value::Bytes(b"a".to_vec()), "rolled_back")]);
        assert_eq!(outcome_of("a", &both), Ok(Some(Fenced::RolledBack)));
        assert!(matches!(outcome_of("a", &rows(vec![row(text("a"), "maybe")])), Err(SqlError::Invalid(_))));
    }
}
