//! Opening a SQLite file: where it may lie, and what is turned off.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, config::DbConfig, limits::Limit};

use crate::{
    connection::Connector,
    dialect::Dialect,
    error::SqlError,
    gate::MAX_STATEMENT,
    grant::{DatabasePassword, GrantRefusal, SqlLimits, SqlSurroundings},
    mask::Mask,
};

use super::{
    errors,
    guard::Guard,
    identity::FileIdentity,
    session::{BUSY, SqliteConnection},
};

/// What the SQL of this crate is longer than a guest's may be: reading a thousand keys at once.
const OWN_STATEMENT: usize = MAX_STATEMENT + (64 << 10);

/// Opens one SQLite file.
pub(crate) struct SqliteConnector {
    path: PathBuf,
    dirs: Vec<PathBuf>,
    limits: SqlLimits,
}

impl SqliteConnector {
    /// Opens nothing yet, but looks where the file lies. One that is not there yet is no error: it is when it is used.
    pub(crate) fn new(path: &Path, limits: SqlLimits, surroundings: &SqlSurroundings) -> Result<Self, GrantRefusal> {
        let outside = |_| GrantRefusal::OutsideSqliteDirs;
        // A folder of the list that cannot be resolved allows nothing.
        let dirs: Vec<PathBuf> = surroundings.sqlite_dirs.iter().filter_map(|dir| fs::canonicalize(dir).ok()).collect();
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(GrantRefusal::OutsideSqliteDirs);
        };
        let path = fs::canonicalize(folder).map_err(outside)?.join(name);
        let resolved = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        if !lies_below(&resolved, &dirs) {
            return Err(GrantRefusal::OutsideSqliteDirs);
        }
        Ok(Self { path, dirs, limits })
    }
}

impl Connector for SqliteConnector {
    type Connection = SqliteConnection;
    const READS_LIKE: Dialect = Dialect::Sqlite;

    async fn connect(&self, _password: &DatabasePassword) -> Result<SqliteConnection, SqlError> {
        let (path, dirs, limits) = (self.path.clone(), self.dirs.clone(), self.limits);
        let opened = tokio::task::spawn_blocking(move || {
            // Once more, as a link may have been put there since.
            let resolved = fs::canonicalize(&path).map_err(|_| not_there())?;
            if !lies_below(&resolved, &dirs) {
                return Err(not_there());
            }
            let mask = Mask::new([path, resolved.clone()].map(|path| path.display().to_string()));
            let opened = open(&resolved, limits);
            let (connection, guard) = opened.map_err(|error| errors::at_connect(&error))?;
            let identity = FileIdentity::of(resolved).ok_or_else(not_there)?;
            Ok(SqliteConnection::new(connection, guard, mask, identity))
        });
        opened.await.map_err(|_| not_there())?
    }
}

/// Opens the file and turns off what a guest has no use for, before anything else is asked of it.
fn open(path: &Path, limits: SqlLimits) -> rusqlite::Result<(Connection, Guard)> {
    // Resolved before, so that a link on the way is one that was put there meanwhile.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "cell_size_check", true)?;
    let at_most = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, at_most(limits.bytes))?;
    connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, at_most(OWN_STATEMENT))?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
    let guard = Guard::set_on(&connection)?;
    Ok((connection, guard))
}

/// Both are resolved, so that comparing names is enough.
fn lies_below(path: &Path, dirs: &[PathBuf]) -> bool {
    dirs.iter().any(|dir| path.starts_with(dir))
}

/// Says the same of a file that is elsewhere as of none: what lies outside is nobody's business.
fn not_there() -> SqlError {
    SqlError::Unavailable(
        "the SQLite file is not there, or not below `sqlite_dirs`; see whether the service made it, and correct the url"
            .to_owned(),
    )
}
