//! Statements on databases that others own: pools, limits, fence, once. Knows no wasm and no broker.
//!
//! A [`Database`] is what a binding was granted: PostgreSQL, MySQL, MariaDB or a SQLite file, with a bounded pool of
//! connections. Whatever is asked of it is answered by the deadline of the call, in the words of [`SqlError`]; an outage is
//! an error value, and the next call finds the database again by itself.
//!
//! The three databases differ in how they are spoken to (`postgres`, `mysql`, `sqlite`), which errors they give and a few
//! statements. What is done with them stands once, above one trait (`connection`): running (`run`), and the fence
//! (`fence`).

mod address;
mod call;
mod connection;
mod database;
mod dialect;
mod error;
mod fence;
mod gate;
mod grant;
mod granted;
mod mask;
mod mysql;
mod pool;
mod postgres;
mod reaching;
mod run;
mod sqlite;
mod table;
mod tls;
mod transaction;
mod value;

// The races need both what is private here and the servers of the suite.
#[cfg(test)]
extern crate self as vouch_sql;
#[cfg(test)]
#[allow(dead_code, reason = "the suite uses more of it")]
#[path = "../tests/suite/places.rs"]
mod places;
#[cfg(test)]
#[allow(dead_code, reason = "the suite uses more of it")]
#[path = "../tests/suite/servers/mod.rs"]
mod servers;
#[cfg(test)]
#[path = "../tests/suite/service.rs"]
mod service;

pub use address::{DatabaseServer, DatabaseUrl, DatabaseUrlError};
pub use call::SqlCall;
pub use connection::TriedStatement;
pub use database::Database;
pub use dialect::Dialect;
pub use error::{Constraint, ConstraintViolation, SqlError};
pub use fence::{CLEANED_AT_A_TIME, FenceExamination, Fenced, fence_tables};
pub use gate::{MAX_STATEMENT, admit};
pub use grant::{DatabasePassword, GrantRefusal, SqlGrant, SqlLimits, SqlSurroundings, TlsUse};
pub use granted::MAX_KEY;
pub use run::Once;
pub use table::{TableName, TableNameError};
pub use value::{RowSet, Statement, Value};
