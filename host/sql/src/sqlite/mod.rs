//! SQLite files, opened here in the process: no server stands between a statement and the file, so more is forbidden.

mod connect;
mod errors;
mod guard;
mod session;
mod values;

pub(crate) use connect::SqliteConnector;
