//! The fence: a rollback that the database cannot contradict.
//!
//! The business transaction inserts one row, `committed`; whoever wants to conclude that it did not happen inserts the same
//! key first, `rolled_back`. Nothing is concluded from an absence, a time-out or a lost connection; only from a row that
//! was read, or an INSERT whose commit was answered.

mod clean;
mod close;
mod examine;
mod tables;

#[cfg(test)]
mod races;

pub use clean::CLEANED_AT_A_TIME;
pub use close::Fenced;
pub use examine::FenceExamination;
pub use tables::fence_tables;
