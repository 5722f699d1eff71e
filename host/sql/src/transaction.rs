//! One database transaction of one call, over a connection that is lent for it.
//!
//! Every step is bounded by the deadline of the call. The first error ends it: after one, only `roll_back` makes sense, and
//! a transaction that is merely dropped takes its connection along, which the database takes for a rollback.

use std::sync::Arc;

use tokio::time::timeout_at;

use crate::{
    call::SqlCall,
    connection::{Access, Allowance, Author, Connector, SqlConnection, TriedStatement},
    dialect::Dialect,
    error::{SqlError, StatementFault},
    grant::SqlLimits,
    pool::{LentConnection, Pool},
    value::{RowSet, Statement},
};

/// A database transaction that was begun. Dropped without an end it is undone with its connection.
pub(crate) struct Transaction<K: Connector> {
    lent: LentConnection<K>,
    call: SqlCall,
    dialect: Dialect,
}

/// Why a commit was not answered with success.
#[derive(Clone, Debug)]
pub(crate) enum CommitFault {
    /// The database said that it did not: all is undone.
    Refused(SqlError),
    /// No answer: it did, or it did not.
    InDoubt,
}

impl CommitFault {
    /// The error of a call for which *in doubt* is an answer.
    pub(crate) fn into_error(self) -> SqlError {
        match self {
            Self::Refused(error) => error,
            Self::InDoubt => SqlError::InDoubt(
                "the connection was lost while committing; read whether it happened before doing it again".to_owned(),
            ),
        }
    }
}

impl<K: Connector> Transaction<K> {
    /// Begins one, over a connection as soon as there is one.
    pub(crate) async fn begin(pool: &Arc<Pool<K>>, access: Access, call: SqlCall) -> Result<Self, SqlError> {
        let mut lent = pool.lend(call).await?;
        let mut begun = begin_over(&mut lent, access, call).await;
        if lent.is_used && matches!(begun, Err(StatementFault::Lost(SqlError::Unavailable(_)))) {
            // The server was restarted or closed it since; nothing was asked of it yet, so asking anew is safe.
            lent.renew(call).await?;
            begun = begin_over(&mut lent, access, call).await;
        }
        let dialect = begun.map_err(StatementFault::into_error)?;
        Ok(Self { lent, call, dialect })
    }

    /// Which database it is in.
    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Runs a guest's statement. After an error all that is left to do is [`Transaction::roll_back`].
    pub(crate) async fn run(&mut self, statement: &Statement, allowance: &mut Allowance) -> Result<RowSet, SqlError> {
        self.run_of(statement, Author::Guest, allowance).await
    }

    /// Runs a statement of this crate.
    pub(crate) async fn run_own(&mut self, statement: &Statement) -> Result<RowSet, SqlError> {
        self.run_of(statement, Author::House, &mut Allowance::new(SqlLimits::default())).await
    }

    /// Runs a statement; one that is not answered in time has taken the connection with it.
    async fn run_of(
        &mut self,
        statement: &Statement,
        author: Author,
        allowance: &mut Allowance,
    ) -> Result<RowSet, SqlError> {
        let mut connection = self.lent.take().map_err(StatementFault::into_error)?;
        let heard = timeout_at(self.call.deadline, connection.run(statement, author, allowance, self.call)).await;
        self.lent.heard(connection, heard).map_err(StatementFault::into_error)
    }

    /// Prepares a statement and runs nothing.
    pub(crate) async fn prepare(&mut self, text: &str) -> Result<TriedStatement, SqlError> {
        let mut connection = self.lent.take().map_err(StatementFault::into_error)?;
        let heard = timeout_at(self.call.deadline, connection.prepare(text)).await;
        self.lent.heard(connection, heard).map_err(StatementFault::into_error)
    }

    /// Keeps what was done; in a dry call undoes it.
    pub(crate) async fn commit(mut self) -> Result<(), CommitFault> {
        if self.call.dry {
            self.roll_back().await;
            return Ok(());
        }
        let mut connection = self.lent.take().map_err(|fault| CommitFault::Refused(fault.into_error()))?;
        let heard = timeout_at(self.call.deadline, connection.commit()).await;
        match self.lent.heard(connection, heard) {
            Ok(()) => {
                self.lent.give_back();
                Ok(())
            }
            Err(StatementFault::Said(error)) => {
                self.roll_back().await;
                Err(CommitFault::Refused(error))
            }
            Err(StatementFault::Lost(_)) => Err(CommitFault::InDoubt),
        }
    }

    /// Undoes what was done. If that is not answered the connection is closed, which undoes it, too.
    pub(crate) async fn roll_back(mut self) {
        let Ok(mut connection) = self.lent.take() else { return };
        let heard = timeout_at(self.call.deadline, connection.roll_back()).await;
        if self.lent.heard(connection, heard).is_ok() {
            self.lent.give_back();
        }
    }
}

/// Begins over the connection at hand, and says which database it is to.
async fn begin_over<K: Connector>(
    lent: &mut LentConnection<K>,
    access: Access,
    call: SqlCall,
) -> Result<Dialect, StatementFault> {
    let mut connection = lent.take()?;
    let heard = timeout_at(call.deadline, connection.begin(access, call)).await;
    lent.heard(connection, heard)?;
    lent.connection().map(SqlConnection::dialect).ok_or_else(StatementFault::connection_lost)
}
