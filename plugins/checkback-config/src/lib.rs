//! What the ready-made checkbacks read of a binding's `config`: texts in which facts of the half message are filled in, lists of
//! values, and times. Their errors are sentences that name the setting and say what to do about it.

mod template;
mod values;

pub use template::{Facts, Template};
pub use values::{duration_ms, list};
