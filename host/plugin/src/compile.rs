//! From a file's bytes to code that can run.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::{runtime::Handle, sync::oneshot};
use wasmtime::{Engine, component::Component};

use crate::{cache::ArtifactCache, plugin::CompiledFrom};

/// A component ready to be linked, and how it came about.
pub(crate) struct Compiled {
    pub(crate) component: Component,
    pub(crate) from: CompiledFrom,
    pub(crate) took: Duration,
}

/// Compiles on threads of its own; compiled code is kept in the cache.
pub(crate) struct Compiler {
    engine: Engine,
    cache: Arc<ArtifactCache>,
    uploads: Lane,
    loads: Lane,
    /// Threads for what is quick: looking into the cache, digests.
    aside: Handle,
}

/// Who waits for the code. An upload may be large and its author patient, while checks wait for a component that is bound;
/// so each has threads of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// To look at an upload.
    Upload,
    /// To ask a component.
    Load,
}

/// Threads that compile, one file after another.
struct Lane {
    pool: rayon::ThreadPool,
    /// One file at a time: a compilation uses all threads of the pool, and this bounds the memory it takes.
    turn: tokio::sync::Semaphore,
}

/// `sha256:` and the digest of `bytes` in hexadecimal.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}

impl Lane {
    fn new(pool: rayon::ThreadPool) -> Self {
        Self { pool, turn: tokio::sync::Semaphore::new(1) }
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> wasmtime::Result<T> {
        let (send, receive) = oneshot::channel();
        self.pool.spawn(move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // The caller may have gone; what was compiled is in the cache all the same.
            let _gone = send.send(outcome);
        });
        match receive.await? {
            Ok(value) => Ok(value),
            Err(_) => Err(wasmtime::Error::msg("the compiler panicked on this component")),
        }
    }
}

impl Compiler {
    /// `pools`: for uploads and for loads. `aside`: a runtime whose blocking threads stand back like theirs.
    pub(crate) fn new(engine: Engine, pools: [rayon::ThreadPool; 2], aside: Handle, cache: ArtifactCache) -> Self {
        let [uploads, loads] = pools.map(Lane::new);
        Self { engine, cache: Arc::new(cache), uploads, loads, aside }
    }

    /// Takes the code for `digest` from the cache, or compiles `wasm` and keeps the result. The bytes must have that
    /// digest. What is in the cache waits for no compilation.
    pub(crate) async fn compile(&self, purpose: Purpose, digest: String, wasm: Bytes) -> wasmtime::Result<Compiled> {
        if let Some(cached) = self.cached(&digest).await? {
            return Ok(cached);
        }
        let lane = match purpose {
            Purpose::Upload => &self.uploads,
            Purpose::Load => &self.loads,
        };
        let _turn = lane.turn.acquire().await?;
        // It may have been compiled while this one waited.
        if let Some(cached) = self.cached(&digest).await? {
            return Ok(cached);
        }
        let (engine, cache) = (self.engine.clone(), Arc::clone(&self.cache));
        lane.run(move || {
            let started = Instant::now();
            let component = Component::new(&engine, &wasm)?;
            cache.keep(&digest, &component);
            Ok(Compiled { component, from: CompiledFrom::Compiler, took: started.elapsed() })
        })
        .await?
    }

    async fn cached(&self, digest: &str) -> wasmtime::Result<Option<Compiled>> {
        let (engine, cache, digest) = (self.engine.clone(), Arc::clone(&self.cache), digest.to_owned());
        let look = move || {
            let started = Instant::now();
            let component = cache.take(&engine, &digest)?;
            Some(Compiled { component, from: CompiledFrom::Cache, took: started.elapsed() })
        };
        Ok(self.aside.spawn_blocking(look).await?)
    }

    /// The digest of a file, computed aside.
    pub(crate) async fn digest(&self, wasm: Bytes) -> wasmtime::Result<String> {
        Ok(self.aside.spawn_blocking(move || digest_of(&wasm)).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn compiler(folder: &std::path::Path) -> Compiler {
        let engine = Engine::default();
        let cache = ArtifactCache::open(&folder.join("compiled"), &engine).unwrap();
        let pool = || rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        Compiler::new(engine, [pool(), pool()], Handle::current(), cache)
    }

    fn component() -> (String, Bytes) {
        let wasm = wat::parse_str("(component (core module (func (result i32) i32.const 7)))").unwrap();
        (digest_of(&wasm), wasm.into())
    }

    /// Compiles, and says where the code came from; the deadline only bounds a failing test.
    async fn compile(compiler: &Compiler, purpose: Purpose) -> CompiledFrom {
        let (digest, wasm) = component();
        let compiled = compiler.compile(purpose, digest, wasm);
        tokio::time::timeout(Duration::from_secs(10), compiled).await.expect("it waits for nobody").unwrap().from
    }

    #[tokio::test]
    async fn a_component_that_is_bound_does_not_wait_for_an_upload() {
        let folder = tempfile::tempdir().unwrap();
        let compiler = compiler(folder.path());
        // An upload that takes until the end of the test: it has its turn and its thread.
        let _turn = compiler.uploads.turn.acquire().await.unwrap();
        let end = Arc::new(Barrier::new(2));
        let ended = end.clone();
        compiler.uploads.pool.spawn(move || {
            ended.wait();
        });
        let (digest, wasm) = component();
        assert_eq!(compiler.digest(wasm).await.unwrap(), digest);
        for from in [CompiledFrom::Compiler, CompiledFrom::Cache] {
            assert_eq!(compile(&compiler, Purpose::Load).await, from);
        }
        end.wait();
    }

    #[tokio::test]
    async fn code_in_the_cache_waits_for_no_turn() {
        let folder = tempfile::tempdir().unwrap();
        let compiler = compiler(folder.path());
        assert_eq!(compile(&compiler, Purpose::Upload).await, CompiledFrom::Compiler);
        let _turns = (compiler.uploads.turn.acquire().await.unwrap(), compiler.loads.turn.acquire().await.unwrap());
        for purpose in [Purpose::Upload, Purpose::Load] {
            assert_eq!(compile(&compiler, purpose).await, CompiledFrom::Cache);
        }
    }
}
