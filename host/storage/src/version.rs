//! Who writes.

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
