//! PostgreSQL, spoken to in its own protocol (version 3, the extended query flow).
//!
//! The messages are those of the crate `postgres-protocol`; what a client library would put around them stands here, because
//! three things are wanted that none offers: the state of the transaction that the server tells after each statement,
//! parameters and fields in the server's own text form whatever their type, and a bound on a single row before it is read.

mod connect;
mod errors;
mod session;
mod values;
mod wire;

pub(crate) use connect::PostgresConnector;
