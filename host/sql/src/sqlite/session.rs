//! One connection to a SQLite file. It works in threads that may block, one call at a time.

use std::time::Duration;

use rusqlite::{Connection, params_from_iter};
use tokio::time::Instant;

use crate::{
    call::SqlCall,
    connection::{Access, Allowance, Author, SqlConnection, TriedStatement},
    dialect::Dialect,
    error::{SqlError, StatementFault},
    mask::Mask,
    value::{RowSet, Statement},
};

use super::{
    errors,
    guard::Guard,
    identity::FileIdentity,
    values::{self, Parameter},
};

/// How long a lock of another connection is waited for.
pub(super) const BUSY: Duration = Duration::from_millis(500);

/// A file that was opened.
pub(crate) struct SqliteConnection {
    /// Away while a thread works with it.
    file: Option<OpenFile>,
}

/// What a thread takes along.
struct OpenFile {
    connection: Connection,
    guard: Guard,
    mask: Mask,
    access: Access,
    identity: FileIdentity,
}

impl SqliteConnection {
    /// One that was set up.
    pub(super) fn new(connection: Connection, guard: Guard, mask: Mask, identity: FileIdentity) -> Self {
        Self { file: Some(OpenFile { connection, guard, mask, access: Access::Read, identity }) }
    }

    /// Works with the file in a thread that may block. If nobody waits for the end any more, the file is closed there.
    async fn work<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut OpenFile) -> Result<T, StatementFault> + Send + 'static,
    ) -> Result<T, StatementFault> {
        let mut file = self.file.take().ok_or_else(StatementFault::connection_lost)?;
        let worked = tokio::task::spawn_blocking(move || {
            let result = work(&mut file);
            (file, result)
        });
        let (file, result) = worked.await.map_err(|_| StatementFault::connection_lost())?;
        self.file = Some(file);
        result
    }
}

impl OpenFile {
    /// Runs commands of this crate, without a bound on their time.
    fn command(&mut self, text: &str) -> Result<(), StatementFault> {
        self.guard.set_guest(false);
        self.guard.set_deadline(None);
        self.connection.execute_batch(text).map_err(|error| self.said(&error))
    }

    /// What an error means for a statement of the transaction at hand.
    fn said(&self, error: &rusqlite::Error) -> StatementFault {
        StatementFault::Said(errors::error_of(error, self.access, &self.mask))
    }

    /// Runs one statement, and looks whether the transaction is still open.
    fn run(
        &mut self,
        statement: Statement,
        author: Author,
        allowance: &mut Allowance,
    ) -> Result<RowSet, StatementFault> {
        self.guard.set_guest(author == Author::Guest);
        let answer = self.rows(statement, allowance);
        if self.connection.is_autocommit() {
            // Some errors undo the whole database transaction (`insert or rollback`, an interrupted change of rows).
            return Err(StatementFault::Lost(match answer {
                Err(fault) => fault.into_error(),
                Ok(_) => SqlError::Invalid(
                    "the statement ended the database transaction that it ran in; leave that to the broker".to_owned(),
                ),
            }));
        }
        answer
    }

    /// Reads the rows of one statement, as far as the allowance goes.
    fn rows(&self, statement: Statement, allowance: &mut Allowance) -> Result<RowSet, StatementFault> {
        let mut prepared = self.connection.prepare(&statement.text).map_err(|error| self.said(&error))?;
        let is_reading = prepared.readonly();
        let params = statement.params.into_iter().map(Parameter);
        let mut rows = prepared.query(params_from_iter(params)).map_err(|error| self.said(&error))?;
        let mut answer = RowSet::default();
        let mut is_first = true;
        loop {
            let row = rows.next().map_err(|error| self.said(&error))?;
            // The first step sees whether the schema is still the one that was prepared for, and prepares anew.
            if std::mem::take(&mut is_first) {
                answer.columns = row.map_or_else(Vec::new, |row| names(row.as_ref()));
            }
            let Some(row) = row else { break };
            let fields = (0..answer.columns.len()).map(|column| row.get_ref(column).map(values::decode));
            let row = fields.collect::<rusqlite::Result<Vec<_>>>().map_err(|error| self.said(&error))?;
            allowance.take(&row)?;
            answer.rows.push(row);
        }
        drop(rows);
        if answer.rows.is_empty() {
            answer.columns = names(&prepared);
        }
        allowance.take_columns(&answer.columns)?;
        answer.affected = if is_reading { 0 } else { self.connection.changes() };
        Ok(answer)
    }
}

/// Names of the columns that it answers.
fn names(prepared: &rusqlite::Statement<'_>) -> Vec<String> {
    prepared.column_names().into_iter().map(str::to_owned).collect()
}

impl SqlConnection for SqliteConnection {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn is_clean(&self) -> bool {
        // The authorizer lets nothing through that outlives a database transaction.
        self.file.is_some()
    }

    async fn begin(&mut self, access: Access, call: SqlCall) -> Result<(), StatementFault> {
        let busy = BUSY.min(call.share_of_the_database());
        self.work(move |file| {
            if !file.identity.is_still_there() {
                return Err(StatementFault::connection_lost());
            }
            file.access = access;
            file.connection.busy_timeout(busy).map_err(|error| file.said(&error))?;
            file.command(match access {
                Access::Read => "pragma query_only = on; begin",
                // A single statement takes the lock that it needs itself.
                Access::One => "pragma query_only = off; begin",
                // One that reads first could find its snapshot outdated when it writes.
                Access::Several | Access::Keyed => "pragma query_only = off; begin immediate",
            })
        })
        .await
    }

    async fn run(
        &mut self,
        statement: &Statement,
        author: Author,
        allowance: &mut Allowance,
        call: SqlCall,
    ) -> Result<RowSet, StatementFault> {
        let (statement, mut left) = (statement.clone(), *allowance);
        let deadline = Instant::now() + call.share_of_the_database();
        let worked = self.work(move |file| {
            file.guard.set_deadline(Some(deadline));
            let answer = file.run(statement, author, &mut left);
            file.guard.set_deadline(None);
            Ok((answer, left))
        });
        let (answer, left) = worked.await?;
        *allowance = left;
        answer
    }

    async fn prepare(&mut self, text: &str) -> Result<TriedStatement, StatementFault> {
        let text = text.to_owned();
        self.work(move |file| {
            file.guard.set_guest(true);
            let prepared = file.connection.prepare(&text).map_err(|error| file.said(&error))?;
            Ok(TriedStatement { params: prepared.parameter_count(), columns: names(&prepared) })
        })
        .await
    }

    async fn commit(&mut self) -> Result<(), StatementFault> {
        self.work(|file| {
            file.guard.set_guest(false);
            file.guard.set_deadline(None);
            let committed = file.connection.execute_batch("commit");
            committed.map_err(|error| errors::fault_at_commit(&error, file.access, &file.mask))
        })
        .await
    }

    async fn roll_back(&mut self) -> Result<(), StatementFault> {
        self.work(|file| file.command("rollback")).await
    }
}
