//! PostgreSQL, spoken to in its own protocol (version 3, the extended query flow).
//!
//! The messages are those of the crate `postgres-protocol`; what a client library would put around them stands here, because
//! three things are wanted that none offers: the state of the transaction that the server tells after each statement,
//! parameters and fields in the server's own text form whatever their type, and a bound on a single row before it is read.
//!
//! One statement is one round trip: the time that it may take, the text to parse, the parameters, and the request to run it
//! are sent together and answered one after the other. Its transaction begins and ends with a round trip of its own: sent
//! together with it, a statement would run by itself if the beginning failed.
//!
//! Where the server's own words are passed on they are masked (`errors`); when connecting they are not passed on at all.

mod connect;
mod errors;
mod session;
mod values;
mod wire;

pub(crate) use connect::PostgresConnector;
