//! The engine that runs components, and the folder of their files, as the settings want them.

use vouch_broker::state::Plugins;
use vouch_plugin::{Engine, EngineConfig};
use vouch_registry::ArtifactStore;

use crate::{NodeConfig, StartError};

/// What the settings say of the engine.
fn engine_config(config: &NodeConfig) -> EngineConfig {
    let mut engine = EngineConfig::new(config.data_dir.join("plugins").join("compiled"));
    engine.threads = config.plugin_threads;
    engine.concurrency = config.plugin_concurrency;
    engine.sqlite_dirs = config.sqlite_dirs.clone();
    engine.extra_ca_file = config.plugin_ca.clone();
    engine.has_others = config.peers.is_some();
    engine.compiler = config.plugin_compiler.clone();
    engine
}

/// Whether the engine would run with these settings.
pub(crate) fn check_settings(config: &NodeConfig) -> Result<(), StartError> {
    engine_config(config).validate().map_err(|error| StartError::Plugins(error.to_string()))
}

/// Starts the engine.
pub(crate) fn start_engine(config: &NodeConfig) -> Result<Engine, StartError> {
    Engine::start(engine_config(config)).map_err(|error| StartError::Plugins(error.to_string()))
}

/// Opens the folder of component files.
pub(crate) fn open_store(config: &NodeConfig) -> Result<ArtifactStore, StartError> {
    let components = config.data_dir.join(vouch_storage::COMPONENTS);
    ArtifactStore::open(components).map_err(|error| StartError::Plugins(error.to_string()))
}

/// Removes files of components that the log no longer knows.
pub(crate) fn remove_unused(store: &ArtifactStore, plugins: &Plugins) {
    if let Err(error) = store.retain(|digest| plugins.artifact(&digest.0).is_some()) {
        tracing::warn!(%error, "files of removed components could not be cleared away");
    }
}
