//! MySQL and MariaDB, through `mysql_async`: its connections, not its pool.

mod connect;
mod errors;
mod session;
mod values;

pub(crate) use connect::MySqlConnector;
