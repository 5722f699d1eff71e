//! `vouch:plugin/host`: always granted.

use crate::{
    bindings::{
        host::{Host, Level},
        types,
    },
    guest::CallState,
    handed::takes,
    log::LogSource,
};

impl types::Host for CallState {}

impl Host for CallState {
    fn log(&mut self, level: Level, text: String) -> wasmtime::Result<()> {
        takes(text.len())?;
        self.log.write(level, LogSource::Guest, text);
        Ok(())
    }

    fn config(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        takes(name.len())?;
        Ok(self.config.get(&name).cloned())
    }

    fn now(&mut self) -> u64 {
        // The log's clock as of the ask, moved on by what the call took: a guest that compares with `asked-at` never sees
        // time run backwards, whatever the node's own clock says.
        let passed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.asked_at_ms.saturating_add(passed)
    }
}
