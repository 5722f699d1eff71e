//! Settings of the engine.

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    error::EngineError,
    http::{Resolver, SystemResolver, client_config},
    limits::MAX_NODE_CONCURRENCY,
    quantity::ByteSize,
};

/// Most guest threads.
pub const MAX_GUEST_THREADS: usize = 64;
/// Guest threads where nobody says otherwise.
pub const DEFAULT_GUEST_THREADS: usize = 2;
/// Checks at the same time on one node where nobody says otherwise.
pub const DEFAULT_NODE_CONCURRENCY: usize = 32;
/// Bounds of [`EngineConfig::max_memory`]: a 32-bit memory ends at 4 GiB.
pub(crate) const MAX_MEMORY: (ByteSize, ByteSize) = (ByteSize::mib(1), ByteSize::mib(4096));
/// Bounds of [`EngineConfig::max_component_size`].
pub(crate) const MAX_COMPONENT_SIZE: (ByteSize, ByteSize) = (ByteSize::kib(1), ByteSize::mib(256));
/// Least [`EngineConfig::memory_reservation`].
pub(crate) const LEAST_RESERVATION: ByteSize = ByteSize::mib(1);

/// Bounds of [`EngineConfig::compile_memory`]. Below the least the compiler's process does not even start.
pub(crate) const COMPILE_MEMORY: (ByteSize, ByteSize) = (ByteSize::mib(64), ByteSize::mib(64 << 10));
/// Bounds of [`EngineConfig::compile_time`].
pub(crate) const COMPILE_TIME: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// Where components are compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompilerProgram {
    /// In a process of its own for each, with limits: for whoever takes components from others.
    Process(Program),
    /// On threads of this process. Neither memory nor time of the compiler are limited then, and a component that crashes the
    /// compiler ends this process: for tests, and for programs that trust what they compile.
    InProcess,
}

/// A program that calls [`crate::compiler_process`] at once when it is started so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The program's file.
    pub path: PathBuf,
    /// What it is started with.
    pub arguments: Vec<OsString>,
}

impl CompilerProgram {
    /// The program that runs now, started with these arguments. It is found by the file that this process was started from,
    /// even where another file has taken its name since: an update does not change the compiler under a running engine.
    pub fn this_program(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        // Read by the started process itself, which is a copy of this one at that moment.
        let path = PathBuf::from("/proc/self/exe");
        Self::Process(Program { path, arguments: arguments.into_iter().map(Into::into).collect() })
    }
}

/// Settings of the engine; `EngineConfig::new(cache_dir)` has the defaults.
#[derive(Clone)]
pub struct EngineConfig {
    /// Threads that run guests, at low priority; as many again compile an upload, and as many a component that is bound.
    /// 1 to [`MAX_GUEST_THREADS`]; [`DEFAULT_GUEST_THREADS`].
    pub threads: usize,
    /// Where compiled code is kept. Made if missing, readable by the owner alone. What lies in it is executed: nobody but
    /// the broker may write there.
    pub cache_dir: PathBuf,
    /// Checks at the same time on this node, over all bindings. 1 to [`MAX_NODE_CONCURRENCY`];
    /// [`DEFAULT_NODE_CONCURRENCY`].
    pub concurrency: usize,
    /// The most that a binding may set as `limits.memory`. 1 MiB – 4 GiB; 256 MiB.
    pub max_memory: ByteSize,
    /// Largest component file. 1 KiB – 256 MiB; 32 MiB (components from JavaScript and Python come near 20 MB).
    pub max_component_size: ByteSize,
    /// Address space reserved for each guest memory, at least 1 MiB. `None`: the engine's 4 GiB, with which guests run
    /// fastest; set it where the address space of the process is limited.
    pub memory_reservation: Option<ByteSize>,
    /// Where components are compiled; in this process.
    pub compiler: CompilerProgram,
    /// Memory that the compiler's process may take for one component; at most two compile at once, an upload and one that is
    /// bound. 64 MiB – 64 GiB; 1 GiB.
    pub compile_memory: ByteSize,
    /// Processor time that the compiler's process may take for one component, in whole seconds, all its threads together. It
    /// may last four times as long, since it stands back behind everything else. 1 s – 1 h; 60 s.
    pub compile_time: Duration,
    /// How the hosts of outgoing requests are looked up.
    pub resolver: Arc<dyn Resolver>,
    /// A PEM file with certificates of authorities to trust for https and databases besides the public ones.
    pub extra_ca_file: Option<PathBuf>,
    /// SQLite files that bindings grant must lie below one of these; none: no such file is granted.
    pub sqlite_dirs: Vec<PathBuf>,
    /// The node is one of several, so what lies on its disk alone is granted to no binding.
    pub has_others: bool,
}

impl EngineConfig {
    /// The defaults, with compiled code kept in `cache_dir`.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            threads: DEFAULT_GUEST_THREADS,
            cache_dir: cache_dir.into(),
            concurrency: DEFAULT_NODE_CONCURRENCY,
            max_memory: ByteSize::mib(256),
            max_component_size: ByteSize::mib(32),
            memory_reservation: None,
            compiler: CompilerProgram::InProcess,
            compile_memory: ByteSize::mib(1024),
            compile_time: Duration::from_secs(60),
            resolver: Arc::new(SystemResolver::default()),
            extra_ca_file: None,
            sqlite_dirs: Vec::new(),
            has_others: false,
        }
    }

    /// Whom outgoing requests believe.
    ///
    /// # Errors
    /// [`EngineError::CaFile`].
    pub(crate) fn trusted(&self) -> Result<Arc<rustls::ClientConfig>, EngineError> {
        client_config(self.extra_ca_file.as_deref())
            .map_err(|cause| EngineError::CaFile { file: self.extra_ca_file.clone().unwrap_or_default(), cause })
    }

    /// Checks every setting against its bounds, and the file of authorities.
    ///
    /// # Errors
    /// [`EngineError::Setting`] with the first that is out of bounds; [`EngineError::CaFile`].
    pub fn validate(&self) -> Result<(), EngineError> {
        let setting = |name: &'static str, value: &dyn ToString, least: &dyn ToString, most: &dyn ToString| {
            Err(EngineError::Setting {
                name,
                value: value.to_string(),
                least: least.to_string(),
                most: most.to_string(),
            })
        };
        if !(1..=MAX_GUEST_THREADS).contains(&self.threads) {
            return setting("threads", &self.threads, &1, &MAX_GUEST_THREADS);
        }
        if !(1..=MAX_NODE_CONCURRENCY).contains(&self.concurrency) {
            return setting("concurrency", &self.concurrency, &1, &MAX_NODE_CONCURRENCY);
        }
        if !(MAX_MEMORY.0..=MAX_MEMORY.1).contains(&self.max_memory) {
            return setting("max_memory", &self.max_memory, &MAX_MEMORY.0, &MAX_MEMORY.1);
        }
        if !(MAX_COMPONENT_SIZE.0..=MAX_COMPONENT_SIZE.1).contains(&self.max_component_size) {
            let (least, most) = MAX_COMPONENT_SIZE;
            return setting("max_component_size", &self.max_component_size, &least, &most);
        }
        if !(COMPILE_MEMORY.0..=COMPILE_MEMORY.1).contains(&self.compile_memory) {
            let (least, most) = COMPILE_MEMORY;
            return setting("compile_memory", &self.compile_memory, &least, &most);
        }
        if !(COMPILE_TIME.0..=COMPILE_TIME.1).contains(&self.compile_time) {
            let seconds = |time: Duration| format!("{}s", time.as_secs());
            let (least, most) = COMPILE_TIME;
            return setting("compile_time", &seconds(self.compile_time), &seconds(least), &seconds(most));
        }
        match self.memory_reservation {
            Some(size) if !(LEAST_RESERVATION..=MAX_MEMORY.1).contains(&size) => {
                setting("memory_reservation", &size, &LEAST_RESERVATION, &MAX_MEMORY.1)
            }
            _ => self.trusted().map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_bounded_from_both_sides() {
        type Set = fn(&mut EngineConfig, u64);
        let threads: Set = |c, v| c.threads = v as usize;
        let concurrency: Set = |c, v| c.concurrency = v as usize;
        let memory: Set = |c, v| c.max_memory = ByteSize(v);
        let size: Set = |c, v| c.max_component_size = ByteSize(v);
        let compile_memory: Set = |c, v| c.compile_memory = ByteSize(v);
        let compile_time: Set = |c, v| c.compile_time = Duration::from_secs(v);
        let reservation: Set = |c, v| c.memory_reservation = Some(ByteSize(v));
        for (name, set, least, most) in [
            ("threads", threads, 1, 64),
            ("concurrency", concurrency, 1, 1024),
            ("max_memory", memory, 1 << 20, 4 << 30),
            ("max_component_size", size, 1 << 10, 256 << 20),
            ("compile_memory", compile_memory, 64 << 20, 64 << 30),
            ("compile_time", compile_time, 1, 3600),
            ("memory_reservation", reservation, 1 << 20, 4 << 30),
        ] {
            for (value, fits) in [(least - 1, false), (least, true), (most, true), (most + 1, false)] {
                let mut config = EngineConfig::new("unused");
                set(&mut config, value);
                let outcome = config.validate();
                assert_eq!(outcome.is_ok(), fits, "{name} = {value}");
                if let Err(error) = outcome {
                    assert!(error.to_string().contains(name), "{error}");
                }
            }
        }
    }
}
