//! The engine: threads, compiler, linker, and the places that guests run in.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use vouch_sql::SqlSurroundings;
use wasmtime::{
    Config, InstanceAllocationStrategy, PoolingAllocationConfig,
    component::{Component, Linker},
};

use crate::{
    cache::{ArtifactCache, MAX_ARTIFACT_BYTES},
    capability,
    code::PluginCode,
    compile::{CompilePurpose, Compiled, Compiler, Job, engine_settings},
    config::{CompilerProgram, EngineConfig},
    core::EngineCore,
    declared::DeclaredConfig,
    error::{CompileError, EngineError, InspectError, LoadError},
    error_text::describe,
    guest_code::GuestCode,
    inspect::{self, Face},
    memory::{MAX_CORE_INSTANCES, MAX_MEMORIES, MAX_TABLE_ELEMENTS, MAX_TABLES},
    places::NodePlaces,
    plugin::Plugin,
    quantity::ByteSize,
    threads::{compile_pool, guest_runtime, start_ticker},
    upload::UploadVerdict,
};

/// Bytes of the engine's own records per core instance and per component.
const MAX_INSTANCE_RECORD: usize = 1 << 20;
/// Memory of a place that is cleared by writing instead of by giving it back, which would interrupt every thread of the
/// process after each check.
const KEEP_RESIDENT: usize = 512 << 10;

/// Runs components. A clone is another handle to the same engine; the last one to go stops its threads.
#[derive(Clone)]
pub struct Engine(Arc<EngineCore>);

impl Engine {
    /// Starts the engine's threads. Where the address space is too small for the pool of places, each check gets its memory
    /// from the system instead, which is slower; a warning says so.
    ///
    /// # Errors
    /// [`EngineError`]: a setting, the cache folder, the file of authorities, or the system.
    pub fn start(config: EngineConfig) -> Result<Self, EngineError> {
        config.validate()?;
        let engine = match wasmtime::Engine::new(&pooling(&config)) {
            Ok(engine) => engine,
            Err(error) => {
                let cause = describe(&error);
                tracing::warn!(%cause, "no room for a pool of guest memories: checks run slower; see memory_reservation");
                wasmtime::Engine::new(&engine_settings(config.memory_reservation))
                    .map_err(|error| EngineError::Unsupported(describe(&error)))?
            }
        };
        let cache = ArtifactCache::open(&config.cache_dir, &engine)
            .map_err(|cause| EngineError::CacheFolder { folder: config.cache_dir.clone(), cause })?;
        let tls = config.trusted()?;
        let extra_authorities = config.extra_ca_file.as_ref().map(std::fs::read).transpose();
        let extra_authorities = extra_authorities.unwrap_or_default().unwrap_or_default();
        let databases = SqlSurroundings { sqlite_dirs: config.sqlite_dirs.clone(), extra_authorities };
        let mut linker = Linker::new(&engine);
        capability::link(&mut linker).map_err(|error| EngineError::Unsupported(describe(&error)))?;
        let threads = |error: &dyn ToString| EngineError::Threads(error.to_string());
        // A thread that starts another process has nothing to do but wait for it.
        let compiling = if matches!(config.compiler, CompilerProgram::InProcess) { config.threads } else { 1 };
        let pool = || compile_pool(compiling).map_err(|error| threads(&error));
        let pools = [pool()?, pool()?];
        let job = Job {
            threads: config.threads,
            memory_reservation: config.memory_reservation,
            memory: config.compile_memory,
            seconds: config.compile_time.as_secs(),
            artifact: ByteSize(MAX_ARTIFACT_BYTES),
        };
        let how = (config.compiler.clone(), job);
        let runtime = guest_runtime(config.threads).map_err(|error| threads(&error))?;
        let running = start_ticker(engine.weak()).map_err(|error| threads(&error))?;
        Ok(Self(Arc::new(EngineCore {
            compiler: Compiler::new(engine.clone(), how, pools, runtime.handle().clone(), cache),
            places: NodePlaces::new(config.concurrency),
            resolver: Arc::clone(&config.resolver),
            guests: runtime.handle().clone(),
            runtime: Some(runtime),
            loaded: Mutex::default(),
            config,
            linker: Arc::new(linker),
            tls,
            databases,
            running,
        })))
    }

    /// Looks at an uploaded file: what it is and wants, or why it is refused. Compiles it, at low priority, one upload after
    /// another; the compiled code of one that is accepted stays in the cache for [`Engine::load`]. If the returned future is
    /// dropped, the compilation is ended.
    ///
    /// # Errors
    /// [`InspectError`]: a refusal, for the author of the plugin, or a failure of the host.
    pub async fn inspect(&self, wasm: Bytes) -> Result<UploadVerdict, InspectError> {
        inspect::screen(&wasm, self.0.config.max_component_size)?;
        let size = wasm.len() as u64;
        let digest = self.0.compiler.digest(wasm.clone()).await?;
        let compiled = self.compile(CompilePurpose::Upload, digest.clone(), wasm).await?;
        let (face, _) = compiled.accepted;
        let warnings = compiled.declared.as_ref().map(DeclaredConfig::unknown_to_this_version).unwrap_or_default();
        Ok(UploadVerdict {
            digest,
            worlds: face.worlds,
            imports_wanted: face.imports_wanted,
            exports: face.exports,
            config: compiled.declared,
            warnings,
            size,
            compile_time: compiled.took,
        })
    }

    /// Makes a component ready to be bound. `digest` is `sha256:` and the hexadecimal digest of `wasm`. Compiled code in
    /// the cache is used if it is whole and this engine's own, and made again if not.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(&self, digest: &str, wasm: Bytes) -> Result<Plugin, LoadError> {
        if let Some(code) = self.loaded(digest) {
            return Ok(Plugin::new(Arc::clone(&self.0), code));
        }
        inspect::screen(&wasm, self.0.config.max_component_size)?;
        let found = self.0.compiler.digest(wasm.clone()).await?;
        if found != digest {
            return Err(LoadError::DigestMismatch { expected: digest.to_owned(), found });
        }
        let compiled = self.compile(CompilePurpose::Load, found.clone(), wasm).await?;
        let code = Arc::new(PluginCode::new(found, compiled));
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.retain(|_, code| code.strong_count() > 0);
        loaded.insert(digest.to_owned(), Arc::downgrade(&code));
        drop(loaded);
        Ok(Plugin::new(Arc::clone(&self.0), code))
    }

    /// Checks that are running now, over all bindings.
    pub fn running(&self) -> usize {
        self.0.places.held()
    }

    /// Code that somebody still holds, so that it is not read or compiled twice.
    fn loaded(&self, digest: &str) -> Option<Arc<PluginCode>> {
        self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(digest)?.upgrade()
    }

    /// Compiles or takes from the cache, and links. What does not link is not kept: it would be refused at each start
    /// anew.
    async fn compile(
        &self,
        purpose: CompilePurpose,
        digest: String,
        wasm: Bytes,
    ) -> Result<Compiled<(Face, GuestCode)>, CompileError> {
        let linker = Arc::clone(&self.0.linker);
        let accept = move |component: &Component| {
            let face = inspect::face(component)?;
            let code = inspect::link(&linker, component, &face.worlds)?;
            Ok((face, code))
        };
        self.0.compiler.compile(purpose, digest, wasm, accept).await
    }
}

/// The engine's settings with every instance in a pool that is reserved once. Each number is the bound that a guest
/// meets when it instantiates, so none of them is left to a default.
fn pooling(config: &EngineConfig) -> Config {
    // Validated to be at most 1024.
    let places = u32::try_from(config.concurrency).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    // As many of everything as all places can need together: the pool never runs out before the places do.
    pool.total_component_instances(places)
        .total_core_instances(places.saturating_mul(MAX_CORE_INSTANCES))
        .total_memories(places.saturating_mul(MAX_MEMORIES))
        .total_tables(places.saturating_mul(MAX_TABLES))
        .total_stacks(places)
        .max_core_instances_per_component(MAX_CORE_INSTANCES)
        .max_memories_per_component(MAX_MEMORIES)
        .max_tables_per_component(MAX_TABLES)
        .max_component_instance_size(MAX_INSTANCE_RECORD)
        .max_core_instance_size(MAX_INSTANCE_RECORD)
        .max_memories_per_module(MAX_MEMORIES)
        .max_tables_per_module(MAX_TABLES)
        .max_memory_size(config.max_memory.as_usize())
        .table_elements(MAX_TABLE_ELEMENTS)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .max_unused_warm_slots(places);
    let mut engine = engine_settings(config.memory_reservation);
    engine.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    engine
}
