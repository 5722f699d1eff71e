//! From a file's bytes to code that can run.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use wasmtime::{Engine, component::Component};

use crate::{cache::ArtifactCache, plugin::CompiledFrom};

/// A component ready to be linked, and how it came about.
pub(crate) struct Compiled {
    pub(crate) component: Component,
    pub(crate) from: CompiledFrom,
    pub(crate) took: Duration,
}

/// Compiles on threads of its own, one file after another; compiled code is kept in the cache.
pub(crate) struct Compiler {
    engine: Engine,
    pool: rayon::ThreadPool,
    cache: Arc<ArtifactCache>,
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

impl Compiler {
    pub(crate) fn new(engine: Engine, pool: rayon::ThreadPool, cache: ArtifactCache) -> Self {
        Self { engine, pool, cache: Arc::new(cache), turn: tokio::sync::Semaphore::new(1) }
    }

    /// Takes the code for `digest` from the cache, or compiles `wasm` and keeps the result. The bytes must have that
    /// digest.
    pub(crate) async fn compile(&self, digest: String, wasm: Bytes) -> wasmtime::Result<Compiled> {
        let _turn = self.turn.acquire().await?;
        let (engine, cache) = (self.engine.clone(), Arc::clone(&self.cache));
        self.run(move || {
            let started = Instant::now();
            let (component, from) = match cache.take(&engine, &digest) {
                Some(component) => (component, CompiledFrom::Cache),
                None => {
                    let component = Component::new(&engine, &wasm)?;
                    cache.keep(&digest, &component);
                    (component, CompiledFrom::Compiler)
                }
            };
            Ok(Compiled { component, from, took: started.elapsed() })
        })
        .await?
    }

    /// Runs other work that takes a while on the same threads.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> wasmtime::Result<T> {
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
