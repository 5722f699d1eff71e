//! Asking about open transactions, as far as a leader decides it: what is due, what is under way, what went wrong. Who asks,
//! and how, is a node's.

mod errors;
mod rebinding;
mod schedule;
mod under_way;

pub use errors::AskError;
pub(crate) use rebinding::Rebinding;
pub use schedule::{Checker, Due, Failing, NoAnswers, Schedule};
pub use under_way::{Ask, HandedQuestion};
