//! Statements of a guest: one, several, or several once.
//!
//! Each call is one database transaction. What is answered was committed, and what was not answered was not, but for
//! *in doubt*: then the connection was lost between the two.

use crate::{
    call::SqlCall,
    connection::{Access, Allowance, Connector, TriedStatement},
    dialect::Dialect,
    error::{Constraint, SqlError},
    gate,
    granted::{Granted, check_key},
    table::TableName,
    transaction::{CommitFault, Transaction},
    value::{RowSet, Statement, Value},
};

/// What became of statements that are to run once.
#[derive(Clone, Debug, PartialEq)]
pub enum Once {
    /// They ran.
    Done(Vec<RowSet>),
    /// They ran before, under the same key. What they answered then is not kept: read it again.
    Already,
}

impl<K: Connector> Granted<K> {
    /// Runs one statement; read-only unless the grant says `write`.
    pub(crate) async fn run(&self, statement: &Statement, call: SqlCall) -> Result<RowSet, SqlError> {
        self.admit(std::slice::from_ref(statement))?;
        let access = if self.grant.write { Access::One } else { Access::Read };
        let transaction = Transaction::begin(&self.pool, access, call).await?;
        let (transaction, mut answers) =
            run_in(transaction, std::slice::from_ref(statement), &mut self.allowance()).await?;
        match transaction.commit().await {
            Ok(()) => Ok(answers.pop().unwrap_or_default()),
            // Nothing was changed, so there is nothing to doubt.
            Err(CommitFault::InDoubt) if !access.writes() => {
                Err(SqlError::Unavailable("the connection was lost after reading; read again".to_owned()))
            }
            Err(fault) => Err(fault.into_error()),
        }
    }

    /// Runs all of them or none, in one database transaction.
    pub(crate) async fn run_all(&self, statements: &[Statement], call: SqlCall) -> Result<Vec<RowSet>, SqlError> {
        self.admit_writing(statements)?;
        if statements.is_empty() {
            return Ok(Vec::new());
        }
        let transaction = Transaction::begin(&self.pool, Access::Several, call).await?;
        let (transaction, answers) = run_in(transaction, statements, &mut self.allowance()).await?;
        transaction.commit().await.map_err(CommitFault::into_error)?;
        Ok(answers)
    }

    /// As `run_all`, and notes the key in the same database transaction.
    pub(crate) async fn run_once(&self, key: &str, statements: &[Statement], call: SqlCall) -> Result<Once, SqlError> {
        let table = self.once()?;
        check_key(key)?;
        self.admit_writing(statements)?;
        let mut transaction = Transaction::begin(&self.pool, Access::Keyed, call).await?;
        let note = note_key(table, transaction.dialect(), key);
        match transaction.run_own(&note).await {
            Ok(_) => {}
            Err(error) => {
                transaction.roll_back().await;
                return match error {
                    SqlError::Conflict(violation) if violation.kind == Constraint::Unique => Ok(Once::Already),
                    error => Err(error),
                };
            }
        }
        let (transaction, answers) = run_in(transaction, statements, &mut self.allowance()).await?;
        transaction.commit().await.map_err(CommitFault::into_error)?;
        Ok(Once::Done(answers))
    }

    /// Prepares a statement and runs nothing: what is wrong with it, without an effect.
    pub(crate) async fn try_statement(&self, text: &str, call: SqlCall) -> Result<TriedStatement, SqlError> {
        gate::admit(K::READS_LIKE, text)?;
        // MySQL refuses to prepare a change in a transaction that only reads.
        let access = if self.grant.write { Access::One } else { Access::Read };
        let mut transaction = Transaction::begin(&self.pool, access, call).await?;
        let tried = transaction.prepare(text).await;
        transaction.roll_back().await;
        tried
    }
}

/// Runs statements one after the other; after the first error all of them are undone.
pub(crate) async fn run_in<K: Connector>(
    mut transaction: Transaction<K>,
    statements: &[Statement],
    allowance: &mut Allowance,
) -> Result<(Transaction<K>, Vec<RowSet>), SqlError> {
    let mut answers = Vec::with_capacity(statements.len());
    for statement in statements {
        match transaction.run(statement, allowance).await {
            Ok(answer) => answers.push(answer),
            Err(error) => {
                transaction.roll_back().await;
                return Err(error);
            }
        }
    }
    Ok((transaction, answers))
}

/// The plain INSERT by which a key counts as noted.
fn note_key(table: &TableName, dialect: Dialect, key: &str) -> Statement {
    let text = format!("insert into {} (once_key) values ({})", table.quoted(dialect), dialect.placeholder(1));
    Statement::new(text, [Value::Text(key.to_owned())])
}
