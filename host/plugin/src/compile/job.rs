//! One compilation: what goes in, what comes out, and the work itself, which any process can do.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmtime::{Config, Engine, OutOfMemory};

use super::survey::survey;
use crate::{declared::DeclaredConfig, quantity::ByteSize, upload::UploadRefused};

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

/// Compiled code as the compiler made it, in this run of the broker or of the process that it started for it, behind what the
/// component says of its config: the length of that as JSON in four bytes, 0 if it says nothing, the JSON, the code.
pub(crate) struct CompiledCode(Vec<u8>);

impl CompiledCode {
    /// To be called with what [`Job::run`] made, and with nothing else: it is executed.
    pub(super) fn of_compiler(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// What the compiler made, in one piece. The length of what the component says of its config comes first.
    fn new(declared: Option<&DeclaredConfig>, code: &[u8]) -> Result<Self, UploadRefused> {
        let unwritable = |error: &dyn ToString| UploadRefused::Invalid { reason: error.to_string() };
        let json =
            declared.map(serde_json::to_vec).transpose().map_err(|error| unwritable(&error))?.unwrap_or_default();
        let len = u32::try_from(json.len()).map_err(|error| unwritable(&error))?;
        Ok(Self([&len.to_le_bytes(), json.as_slice(), code].concat()))
    }

    /// All of it, as it goes into a file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What the component says of its config, and the code; `None` if it is not what the compiler wrote.
    pub(crate) fn parts(bytes: &[u8]) -> Option<(Option<DeclaredConfig>, &[u8])> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (json, code) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        let declared = if json.is_empty() { None } else { Some(serde_json::from_slice(json).ok()?) };
        Some((declared, code))
    }

    #[cfg(test)]
    pub(crate) fn for_test(engine: &Engine, wasm: &[u8]) -> Self {
        let code = engine.precompile_component(wasm).unwrap();
        Self::new(survey(wasm).unwrap().as_ref(), &code).unwrap()
    }
}

/// How much longer than its processor time a compilation may last: it stands back behind everything else.
const PATIENCE: u32 = 4;

impl Job {
    /// Looks at the component and compiles it, on the threads of the pool that this is called in.
    pub(crate) fn run(&self, wasm: &[u8]) -> Result<CompiledCode, UploadRefused> {
        let declared = survey(wasm)?;
        let code = Engine::new(&engine_settings(self.memory_reservation))
            .and_then(|engine| engine.precompile_component(wasm))
            .map_err(
                |error| {
                    if error.is::<OutOfMemory>() { self.over_memory() } else { UploadRefused::invalid(&error) }
                },
            )?;
        CompiledCode::new(declared.as_ref(), &code)
    }

    /// How long the process may last in all.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.seconds) * PATIENCE
    }

    /// The component takes more memory to compile than is allowed. It is the component's fault, and trying again is of
    /// no use; so are the next two.
    pub(super) fn over_memory(&self) -> UploadRefused {
        UploadRefused::TooCostly { what: "memory".into(), limit: self.memory.to_string() }
    }

    /// It takes more processor time than is allowed.
    pub(super) fn over_time(&self) -> UploadRefused {
        UploadRefused::TooCostly { what: "processor time".into(), limit: format!("{}s", self.seconds) }
    }

    /// It becomes more code than is allowed.
    pub(super) fn over_artifact(&self) -> UploadRefused {
        UploadRefused::TooCostly { what: "compiled code".into(), limit: self.artifact.to_string() }
    }

    /// For tests that compile what costs nothing.
    #[cfg(test)]
    pub(super) fn unlimited(threads: usize) -> Self {
        let size = ByteSize(u64::MAX);
        Self { threads, memory_reservation: None, memory: size, seconds: u64::MAX, artifact: size }
    }
}
