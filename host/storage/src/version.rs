//! What this program writes and understands.

/// What this program writes and understands (ruling 20: new meanings are gated by it).
pub const FEATURE_LEVEL: u32 = 1;
/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
