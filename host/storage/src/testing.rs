//! For tests of who stands on this crate.

pub use crate::lookup::covering;
