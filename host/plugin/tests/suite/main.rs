//! The plugin suite: real components in the real engine.

// The lint lets tests unwrap; what helps them here is not marked as a test.
#![allow(clippy::unwrap_used)]

mod answers;
mod batches;
mod cache;
mod call_figures;
mod capacity;
mod compiler;
mod consumers;
mod guests;
mod handed;
mod host_memory;
mod http_answers;
mod http_checkback;
mod http_server;
mod imports;
mod limits;
mod outages;
mod outbox;
mod scripts;
mod sql_checkback;
mod state;
mod support;
mod upload;
