//! The encoding of records: what lies in the log for ever.

mod golden;
mod hostile;
mod round_trip;
pub(crate) mod samples;
