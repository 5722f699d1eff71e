//! What the handles of one engine, its components and their bindings share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use tokio::runtime::{Handle, Runtime};
use vouch_sql::SqlSurroundings;
use wasmtime::component::Linker;

use crate::{
    code::PluginCode, compile::Compiler, config::EngineConfig, guest::CallState, http::Resolver, places::NodePlaces,
    threads::RunningGuests,
};

/// The inside of [`crate::Engine`]; the last one to hold it stops its threads.
pub(crate) struct EngineCore {
    pub(crate) config: EngineConfig,
    pub(crate) linker: Arc<Linker<CallState>>,
    pub(crate) compiler: Compiler,
    pub(crate) tls: Arc<rustls::ClientConfig>,
    /// What databases of bindings may be.
    pub(crate) databases: SqlSurroundings,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) places: NodePlaces,
    pub(crate) running: RunningGuests,
    pub(crate) guests: Handle,
    /// Code in use, so that two bindings of one component share it.
    pub(crate) loaded: Mutex<HashMap<String, Weak<PluginCode>>>,
    pub(crate) runtime: Option<Runtime>,
}

impl Drop for EngineCore {
    fn drop(&mut self) {
        self.running.wake_ticker();
        // The last handle may go inside somebody's async task, where waiting for threads is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
