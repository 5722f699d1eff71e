//! Which database is spoken to.
//!
//! Little depends on it above the connections: placeholders, quotes, and a few statements of this crate's own.

/// A kind of database. MySQL and MariaDB differ in little, but where they do it matters: how a statement is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL 13 or later.
    Postgres,
    /// MySQL 8 or later.
    MySql,
    /// MariaDB 10.6 or later.
    MariaDb,
    /// SQLite, as it is built in.
    Sqlite,
}

impl Dialect {
    /// MySQL or MariaDB.
    pub(crate) fn is_mysql(self) -> bool {
        matches!(self, Self::MySql | Self::MariaDb)
    }

    /// The `n`-th placeholder, counted from 1.
    pub(crate) fn placeholder(self, n: usize) -> String {
        if self == Self::Postgres { format!("${n}") } else { "?".to_owned() }
    }

    /// So many placeholders, separated by commas.
    pub(crate) fn placeholders(self, count: usize) -> String {
        (1..=count).map(|n| self.placeholder(n)).collect::<Vec<_>>().join(", ")
    }
}
