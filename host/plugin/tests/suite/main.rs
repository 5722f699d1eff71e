//! The plugin suite: real components in the real engine.

mod answers;
mod cache;
mod capacity;
mod guests;
mod http_checkback;
mod http_server;
mod imports;
mod limits;
mod support;
mod upload;
