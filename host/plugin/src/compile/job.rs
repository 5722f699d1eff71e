//! One compilation: what goes in, what comes out, and the work itself, which any process can do.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmtime::{Config, Engine, OutOfMemory};

use super::survey::survey;
use crate::{error_text::describe, inspect::Refused, quantity::ByteSize};

/// What a compilation is made with. The engine that runs the code has to be set in the same way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Threads to compile on.
    pub(crate) threads: usize,
    /// As in [`crate::EngineConfig`].
    pub(crate) memory_reservation: Option<ByteSize>,
    /// Memory that the compiler's process may take.
    pub(crate) memory: ByteSize,
    /// Processor time that it may take, in whole seconds, all threads together.
    pub(crate) seconds: u64,
    /// Largest compiled code.
    pub(crate) artifact: ByteSize,
}

/// Settings that decide what compiled code looks like.
pub(crate) fn engine_settings(memory_reservation: Option<ByteSize>) -> Config {
    let mut engine = Config::new();
    engine.wasm_component_model(true);
    engine.epoch_interruption(true);
    if let Some(size) = memory_reservation {
        engine.memory_reservation(size.0);
        engine.memory_reservation_for_growth(size.0);
    }
    engine
}

/// Compiled code as the compiler made it, in this run of the broker or of the process that it started for it.
pub(crate) struct Artifact(Vec<u8>);

impl Artifact {
    /// To be called with what [`Job::run`] made, and with nothing else: it is executed.
    pub(super) fn of_compiler(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn for_test(engine: &Engine, wasm: &[u8]) -> Self {
        Self(engine.precompile_component(wasm).unwrap())
    }
}

/// How much longer than its processor time a compilation may last: it stands back behind everything else.
const PATIENCE: u32 = 4;

impl Job {
    /// Looks at the component and compiles it, on the threads of the pool that this is called in.
    pub(crate) fn run(&self, wasm: &[u8]) -> Result<Artifact, Refused> {
        survey(wasm)?;
        Engine::new(&engine_settings(self.memory_reservation))
            .and_then(|engine| engine.precompile_component(wasm))
            .map(Artifact::of_compiler)
            .map_err(|error| {
                if error.is::<OutOfMemory>() {
                    self.over_memory()
                } else {
                    Refused::Invalid { reason: describe(&error) }
                }
            })
    }

    /// How long the process may last in all.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.seconds) * PATIENCE
    }

    pub(super) fn over_memory(&self) -> Refused {
        Refused::TooCostly { what: "memory".into(), limit: self.memory.to_string() }
    }

    pub(super) fn over_time(&self) -> Refused {
        Refused::TooCostly { what: "processor time".into(), limit: format!("{}s", self.seconds) }
    }

    pub(super) fn over_artifact(&self) -> Refused {
        Refused::TooCostly { what: "compiled code".into(), limit: self.artifact.to_string() }
    }

    /// For tests that compile what costs nothing.
    #[cfg(test)]
    pub(super) fn unlimited(threads: usize) -> Self {
        let size = ByteSize(u64::MAX);
        Self { threads, memory_reservation: None, memory: size, seconds: u64::MAX, artifact: size }
    }
}
