//! One connection to MySQL or MariaDB, ready for statements.

use std::time::Duration;

use mysql_async::{Conn, Error, Params, consts::StatusFlags, prelude::Queryable};

use crate::{
    call::SqlCall,
    connection::{Access, Allowance, Author, SqlConnection, TriedStatement},
    dialect::Dialect,
    error::{SqlError, StatementFault},
    mask::Mask,
    value::{RowSet, Statement},
};

use super::{errors, values};

/// With less time than this a lock is not waited for a second.
const LEAST_TIME_TO_WAIT: Duration = Duration::from_millis(1_500);

/// A connection that was let in.
pub(crate) struct MySqlConnection {
    connection: Conn,
    dialect: Dialect,
    mask: Mask,
    access: Access,
    /// The time of the next statement is bounded already.
    is_bounded: bool,
    /// A guest's statement ran since the session was last cleared.
    is_soiled: bool,
}

impl MySqlConnection {
    /// One that was set up.
    pub(super) fn new(connection: Conn, dialect: Dialect, mask: Mask) -> Self {
        Self { connection, dialect, mask, access: Access::Read, is_bounded: false, is_soiled: false }
    }

    /// What an error means for a statement of the transaction at hand.
    fn fault(&self, error: &Error) -> StatementFault {
        errors::fault(error, self.access, &self.mask)
    }

    /// Runs commands of this crate.
    async fn command(&mut self, text: String) -> Result<(), StatementFault> {
        self.connection.query_drop(text).await.map_err(|error| errors::fault(&error, self.access, &self.mask))
    }

    /// The setting by which the database itself ends what runs too long. MySQL has one for queries only: a change of rows
    /// that goes on is undone when its connection closes.
    fn bound(&self, time: Duration) -> String {
        match self.dialect {
            Dialect::MySql => format!("set session max_execution_time = {}", time.as_millis()),
            _ => format!("set session max_statement_time = {:.3}", time.as_secs_f64()),
        }
    }

    /// How long a lock is waited for, where that is to be said. MariaDB can do without waiting: where a statement's time would be over
    /// before the second that a lock is waited for at least, a key that somebody holds would look like a slow database.
    fn lock_wait(&self, access: Access, time: Duration) -> &'static str {
        match (self.dialect, access) {
            (Dialect::MariaDb, Access::Keyed) if time < LEAST_TIME_TO_WAIT => ", innodb_lock_wait_timeout = 0",
            (Dialect::MariaDb, _) => ", innodb_lock_wait_timeout = 1",
            _ => "",
        }
    }

    /// Reads the rows of a statement that is executed.
    async fn rows(
        &mut self,
        statement: &mysql_async::Statement,
        params: Params,
        allowance: &mut Allowance,
    ) -> Result<RowSet, StatementFault> {
        let (access, mask) = (self.access, &self.mask);
        let fault = |error: Error| errors::fault(&error, access, mask);
        let mut result = self.connection.exec_iter(statement, params).await.map_err(fault)?;
        let columns = result.columns();
        let columns = columns.as_deref().unwrap_or_default();
        let names: Vec<String> = columns.iter().map(|column| column.name_str().into_owned()).collect();
        allowance.take_columns(&names).map_err(StatementFault::Lost)?;
        let mut answer = RowSet { columns: names, ..RowSet::default() };
        while let Some(row) = result.next().await.map_err(fault)? {
            let row: Vec<_> =
                columns.iter().zip(row.unwrap()).map(|(column, field)| values::decode(column, field)).collect();
            // What is left of the answer is not read, so the connection goes.
            allowance.take(&row).map_err(StatementFault::Lost)?;
            answer.rows.push(row);
        }
        result.drop_result().await.map_err(fault)?;
        answer.affected = if answer.columns.is_empty() { self.connection.affected_rows() } else { 0 };
        Ok(answer)
    }

    /// Whether the server says that the database transaction is still open.
    fn is_in_transaction(&self) -> bool {
        self.connection
            .last_ok_packet()
            .is_some_and(|packet| packet.status_flags().contains(StatusFlags::SERVER_STATUS_IN_TRANS))
    }

    /// Clears the session of what a guest may have left there: variables, locks, temporary tables.
    async fn clear(&mut self) {
        if self.is_soiled && matches!(self.connection.reset().await, Ok(true)) {
            self.is_soiled = false;
        }
    }
}

impl SqlConnection for MySqlConnection {
    fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn is_clean(&self) -> bool {
        !self.is_soiled
    }

    async fn begin(&mut self, access: Access, call: SqlCall) -> Result<(), StatementFault> {
        self.access = access;
        let time = call.share_of_the_database();
        let (bound, lock_wait) = (self.bound(time), self.lock_wait(access, time));
        let mode = if access.writes() { "" } else { " read only" };
        self.command(format!("{bound}{lock_wait}; start transaction{mode}")).await?;
        self.is_bounded = true;
        Ok(())
    }

    async fn run(
        &mut self,
        statement: &Statement,
        author: Author,
        allowance: &mut Allowance,
        call: SqlCall,
    ) -> Result<RowSet, StatementFault> {
        self.is_soiled |= author == Author::Guest;
        if !std::mem::take(&mut self.is_bounded) {
            self.command(self.bound(call.share_of_the_database())).await?;
        }
        let prepared = self.connection.prep(statement.text.as_str()).await.map_err(|error| self.fault(&error))?;
        let (wanted, given) = (usize::from(prepared.num_params()), statement.params.len());
        if wanted != given {
            self.connection.close(prepared).await.map_err(|error| self.fault(&error))?;
            return Err(SqlError::Invalid(format!(
                "the statement has {wanted} placeholders and the call {given} parameters; give one for each"
            ))
            .into());
        }
        let params: Vec<_> = statement.params.iter().map(values::encode).collect();
        let params = if params.is_empty() { Params::Empty } else { Params::Positional(params) };
        let answer = self.rows(&prepared, params, allowance).await;
        if answer.is_ok() && !self.is_in_transaction() {
            return Err(StatementFault::Lost(SqlError::Invalid(
                "the statement ended the database transaction that it ran in; leave that to the broker".to_owned(),
            )));
        }
        if !matches!(answer, Err(StatementFault::Lost(_))) {
            self.connection.close(prepared).await.map_err(|error| self.fault(&error))?;
        }
        answer
    }

    async fn prepare(&mut self, text: &str) -> Result<TriedStatement, StatementFault> {
        let prepared = self.connection.prep(text).await.map_err(|error| self.fault(&error))?;
        let tried = TriedStatement {
            params: prepared.num_params().into(),
            columns: prepared.columns().iter().map(|column| column.name_str().into_owned()).collect(),
        };
        self.connection.close(prepared).await.map_err(|error| self.fault(&error))?;
        Ok(tried)
    }

    async fn commit(&mut self) -> Result<(), StatementFault> {
        let unbounded = self.bound(Duration::ZERO);
        let committed = self.connection.query_drop(format!("{unbounded}; commit")).await;
        committed.map_err(|error| errors::fault_at_commit(&error, self.access, &self.mask))?;
        self.clear().await;
        Ok(())
    }

    async fn roll_back(&mut self) -> Result<(), StatementFault> {
        self.command("rollback".to_owned()).await?;
        self.clear().await;
        Ok(())
    }
}
