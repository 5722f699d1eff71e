//! The face of this crate: one database of one binding.
//!
//! Which kind of database it is shows in the url alone; whoever calls need not know.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    address::DatabaseUrl,
    call::SqlCall,
    connection::{Connector, TriedStatement},
    error::SqlError,
    fence::{FenceExamination, Fenced},
    grant::{DatabasePassword, GrantRefusal, SqlGrant, SqlSurroundings},
    granted::Granted,
    mysql::MySqlConnector,
    pool::Pool,
    postgres::PostgresConnector,
    run::Once,
    sqlite::SqliteConnector,
    value::{RowSet, Statement},
};

/// A database that a binding names, with its own pool of connections. Cheap to clone; all clones share the pool.
#[derive(Clone)]
pub struct Database(Arc<Kind>);

/// Which one it is.
enum Kind {
    Postgres(Granted<PostgresConnector>),
    MySql(Granted<MySqlConnector>),
    Sqlite(Granted<SqliteConnector>),
}

/// Says the same to whichever database it is.
macro_rules! each {
    ($database:expr, $granted:ident => $what:expr) => {
        match &*$database.0 {
            Kind::Postgres($granted) => $what,
            Kind::MySql($granted) => $what,
            Kind::Sqlite($granted) => $what,
        }
    };
}

impl Database {
    /// Makes ready what the grant names. Nothing is connected before the first call, so a database that is away is no
    /// error here.
    ///
    /// # Errors
    /// The grant itself cannot be used.
    pub fn open(
        grant: &SqlGrant,
        password: DatabasePassword,
        surroundings: &SqlSurroundings,
    ) -> Result<Self, GrantRefusal> {
        Ok(Self(Arc::new(match &grant.url {
            DatabaseUrl::Postgres(server) => {
                let connector = PostgresConnector::new(server.clone(), grant.tls, grant.limits, surroundings)?;
                Kind::Postgres(granted(grant, connector, password))
            }
            DatabaseUrl::MySql(server) => {
                let connector = MySqlConnector::new(server.clone(), grant.tls, grant.limits, surroundings)?;
                Kind::MySql(granted(grant, connector, password))
            }
            DatabaseUrl::Sqlite(path) => {
                let connector = SqliteConnector::new(path, grant.limits, surroundings)?;
                Kind::Sqlite(granted(grant, connector, password))
            }
        })))
    }

    /// Connects with this password from now on; connections made with another are closed after the call that has them.
    pub fn set_password(&self, password: DatabasePassword) {
        each!(self, granted => granted.pool.set_password(password));
    }

    /// Runs one statement, in a read-only database transaction unless the grant says `write`.
    ///
    /// # Errors
    /// As [`SqlError`] says.
    pub async fn run(&self, statement: &Statement, call: SqlCall) -> Result<RowSet, SqlError> {
        each!(self, granted => granted.run(statement, call).await)
    }

    /// Runs all of them in one database transaction, or none. Needs `write`.
    ///
    /// # Errors
    /// As [`SqlError`] says; but for [`SqlError::InDoubt`], nothing happened.
    pub async fn run_all(&self, statements: &[Statement], call: SqlCall) -> Result<Vec<RowSet>, SqlError> {
        each!(self, granted => granted.run_all(statements, call).await)
    }

    /// As [`Database::run_all`], and notes `key` in the same database transaction: under a key that was noted before,
    /// nothing runs. The statements need `write`, the key needs a once table.
    ///
    /// # Errors
    /// As [`SqlError`] says; after [`SqlError::InDoubt`] run it again: the key tells.
    pub async fn run_once(&self, key: &str, statements: &[Statement], call: SqlCall) -> Result<Once, SqlError> {
        each!(self, granted => granted.run_once(key, statements, call).await)
    }

    /// What the fence says of each key, in their order. Changes nothing; from a replica, [`Fenced::Missing`] may be old news.
    ///
    /// # Errors
    /// As [`SqlError`] says.
    pub async fn read_fence(&self, keys: &[String], call: SqlCall) -> Result<Vec<Fenced>, SqlError> {
        each!(self, granted => granted.read_fence(keys, call).await)
    }

    /// Makes a missing row `rolled_back`: a business transaction that comes later fails on the key. If it does, `also`
    /// (which needs `write`) runs in the same database transaction. Never [`Fenced::Missing`].
    ///
    /// # Errors
    /// As [`SqlError`] says, never [`SqlError::InDoubt`]: after [`SqlError::Unavailable`] the fence says what became of it.
    pub async fn close_fence(&self, key: &str, also: &[Statement], call: SqlCall) -> Result<Fenced, SqlError> {
        each!(self, granted => granted.close_fence(key, also, call).await)
    }

    /// Closes connections that nobody used for so long.
    pub fn close_idle(&self, idle_for: Duration) {
        each!(self, granted => granted.pool.close_idle(idle_for));
    }

    /// Prepares a statement on the database without running it.
    ///
    /// # Errors
    /// What would be wrong with it.
    pub async fn try_statement(&self, text: &str, call: SqlCall) -> Result<TriedStatement, SqlError> {
        each!(self, granted => granted.try_statement(text, call).await)
    }

    /// Looks whether the fence table can be trusted.
    ///
    /// # Errors
    /// It could not be looked at; what was found there is no error but a refusal or a warning.
    pub async fn examine_fence(&self, call: SqlCall) -> Result<FenceExamination, SqlError> {
        each!(self, granted => granted.examine_fence(call).await)
    }

    /// Deletes the oldest rows of the fence that were noted before this time, [`crate::CLEANED_AT_A_TIME`] at most, and
    /// says how many: call it again until that is 0. A dry call counts all of them and deletes none.
    ///
    /// # Errors
    /// As [`SqlError`] says.
    pub async fn clean_fence(&self, noted_before: SystemTime, call: SqlCall) -> Result<u64, SqlError> {
        each!(self, granted => granted.clean_fence(noted_before, call).await)
    }
}

/// A grant with an empty pool.
fn granted<K: Connector>(grant: &SqlGrant, connector: K, password: DatabasePassword) -> Granted<K> {
    Granted { pool: Pool::new(connector, grant.pool.get().into(), password), grant: grant.clone() }
}
