//! MySQL and MariaDB, through `mysql_async`: its connections, not its pool.
//!
//! Ours is bounded and fair, and a connection of which anything is not known to be clean is closed. Each statement is prepared,
//! which allows one in a text, and closed after it was run, so that a changed schema is no trouble. The two databases
//! speak alike; only the setting that ends what runs too long has another name, and in MySQL it holds for queries alone.

mod connect;
mod errors;
mod session;
mod values;

pub(crate) use connect::MySqlConnector;
