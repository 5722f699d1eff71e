//! What this program writes and understands.

use vouch_broker::State;

use crate::error::StartError;

/// What this program writes and understands (ruling 20: new meanings are gated by it).
pub const FEATURE_LEVEL: u32 = 1;
/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whether this program understands everything that the log means.
pub(crate) fn check_feature_level(state: &State) -> Result<(), StartError> {
    match &state.cluster().init {
        Some(init) if init.feature_level > FEATURE_LEVEL => {
            let version = state.cluster().last_version.clone();
            Err(StartError::FeatureLevel { found: init.feature_level, version })
        }
        _ => Ok(()),
    }
}
