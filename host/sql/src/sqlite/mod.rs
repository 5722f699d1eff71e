//! SQLite files, opened here in the process: no server stands between a statement and the file, so more is forbidden.
//!
//! - A file is opened only below the folders that the operator names, symbolic links resolved, and none is made.
//! - An authorizer lets a guest's statements read and change rows, and nothing else: no other file, no pragma, no schema.
//! - The file is defensive: no statement writes its schema or its pages. No extensions, no functions that the schema hides.
//! - What runs too long is interrupted by a look at the clock every thousand instructions.
//! - Every connection writes with `synchronous = full`, and waits half a second for others that write.
//! - A file that was replaced under its name is opened anew before the next transaction.
//!
//! SQLite blocks its thread, so each step runs in one that may be blocked; as many at a time as the pool has connections.

mod connect;
mod errors;
mod guard;
mod identity;
mod session;
mod values;

pub(crate) use connect::SqliteConnector;
