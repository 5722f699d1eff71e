//! Pulls: one node takes a file, or a stretch of one, from another. Each has a connection of its own, so it waits for nobody and
//! nobody waits for it; how fast it goes is for its reader to say, and for the sender's pace.

mod pace;
mod pull;
mod request;
mod sending;
mod source;

pub(crate) use pace::SendingPace;
pub(crate) use pull::begin;
pub use pull::{FilePull, PullFailed};
pub(crate) use sending::{FilesServed, send};
pub(crate) use source::ServeAnyFiles;
pub use source::ServeFiles;

/// The most bytes of one chunk.
pub const CHUNK_MAX_BYTES: usize = 256 << 10;
