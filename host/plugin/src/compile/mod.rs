//! From a file's bytes to code that can run.

mod child;
mod job;
mod process;
mod survey;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};
use tracing::Span;
use wasmtime::{Engine, component::Component};

use crate::{
    cache::ArtifactCache, config::CompilerProgram, declared::DeclaredConfig, error::CompileError, error_text::describe,
    upload::UploadRefused,
};

pub use process::compiler_process;

pub(crate) use job::{CompiledCode, Job, engine_settings};

/// A component ready to be used, what was made of it, and how it came about.
pub(crate) struct Compiled<T> {
    pub(crate) component: Component,
    /// What it says of its config.
    pub(crate) declared: Option<DeclaredConfig>,
    pub(crate) accepted: T,
    pub(crate) from: CompiledFrom,
    pub(crate) took: Duration,
}

/// Where a plugin's code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompiledFrom {
    /// Compiled just now.
    Compiler,
    /// Taken from the cache.
    Cache,
}

/// Compiles in a process of its own, one component after another; compiled code that was accepted is kept in the cache.
pub(crate) struct Compiler {
    engine: Engine,
    cache: Arc<ArtifactCache>,
    how: Arc<How>,
    uploads: Lane,
    loads: Lane,
    /// Threads for what is quick: looking into the cache, digests.
    aside: Handle,
}

/// By which program, and within which bounds.
struct How {
    program: CompilerProgram,
    job: Job,
}

/// Who waits for the code. An upload may be large and its author patient, while checks wait for a component that is bound;
/// so each has threads of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CompilePurpose {
    /// To look at an upload.
    Upload,
    /// To ask a component.
    Load,
}

/// Threads that compile, or wait for the process that does.
struct Lane {
    pool: rayon::ThreadPool,
    /// One component at a time: this bounds the memory that compilations take in sum. Who gave up keeps the turn until his
    /// work is really over.
    turn: Arc<Semaphore>,
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
    /// Nobody compiles on it yet.
    fn new(pool: rayon::ThreadPool) -> Self {
        Self { pool, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Waits for its turn, in the order of asking.
    async fn turn(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.turn).acquire_owned().await.expect("this semaphore is never closed")
    }

    /// Does it on the lane's threads. The work is told how to find out whether anybody waits for it still.
    async fn run<T: Send + 'static>(
        &self,
        turn: OwnedSemaphorePermit,
        work: impl FnOnce(&dyn Fn() -> bool) -> Result<T, CompileError> + Send + 'static,
    ) -> Result<T, CompileError> {
        let (send, receive) = oneshot::channel();
        let span = Span::current();
        self.pool.spawn(move || {
            let work = || span.in_scope(|| work(&|| !send.is_closed()));
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            drop(turn);
            // The caller may have gone; what was compiled by then is in the cache all the same.
            let _gone = send.send(outcome);
        });
        match receive.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => {
                Err(UploadRefused::Invalid { reason: "the compiler panicked on this component".to_owned() }.into())
            }
            Err(_) => Err(CompileError::Host("the threads that compile are gone".to_owned())),
        }
    }
}

impl How {
    /// Compiles, on a thread that may be blocked for minutes. A process is ended once `is_wanted` says no; nothing ends
    /// it within this one.
    fn compile(&self, wasm: &[u8], is_wanted: &dyn Fn() -> bool) -> Result<CompiledCode, CompileError> {
        match &self.program {
            CompilerProgram::InProcess => Ok(self.job.run(wasm)?),
            CompilerProgram::Process(program) => child::compile(program, &self.job, wasm, is_wanted),
        }
    }
}

impl Compiler {
    /// `pools`: for uploads and for loads. `aside`: a runtime whose blocking threads stand back like theirs.
    pub(crate) fn new(
        engine: Engine,
        (program, job): (CompilerProgram, Job),
        pools: [rayon::ThreadPool; 2],
        aside: Handle,
        cache: ArtifactCache,
    ) -> Self {
        let [uploads, loads] = pools.map(Lane::new);
        Self { engine, cache: Arc::new(cache), how: Arc::new(How { program, job }), uploads, loads, aside }
    }

    /// Takes the code for `digest` from the cache, or compiles `wasm` and keeps the result if `accept` takes it. The bytes
    /// must have that digest. What is in the cache waits for no compilation. If the returned future is dropped, a compilation
    /// under way is ended.
    pub(crate) async fn compile<T: Send + 'static>(
        &self,
        purpose: CompilePurpose,
        digest: String,
        wasm: Bytes,
        accept: impl Fn(&Component) -> Result<T, UploadRefused> + Clone + Send + 'static,
    ) -> Result<Compiled<T>, CompileError> {
        let kept = {
            let (cache, engine, digest) = (Arc::clone(&self.cache), self.engine.clone(), digest.clone());
            let (accept, span) = (accept.clone(), Span::current());
            self.aside.spawn_blocking(move || span.in_scope(|| cached(&cache, &engine, &digest, accept)))
        };
        if let Some(kept) = kept.await.map_err(|error| CompileError::Host(error.to_string()))? {
            return Ok(kept?);
        }
        let lane = match purpose {
            CompilePurpose::Upload => &self.uploads,
            CompilePurpose::Load => &self.loads,
        };
        let turn = lane.turn().await;
        let (engine, cache, how) = (self.engine.clone(), Arc::clone(&self.cache), Arc::clone(&self.how));
        lane.run(turn, move |is_wanted| {
            // It may have been compiled while this one waited.
            if let Some(kept) = cached(&cache, &engine, &digest, accept.clone()) {
                return Ok(kept?);
            }
            let started = Instant::now();
            let artifact = how.compile(&wasm, is_wanted)?;
            let (component, declared) = crate::cache::component_of(&engine, &artifact)
                .map_err(|error| CompileError::Host(format!("compiled code: {}", describe(&error))))?;
            let accepted = accept(&component)?;
            cache.keep(&digest, &artifact);
            let took = started.elapsed();
            Ok(Compiled { component, declared, accepted, from: CompiledFrom::Compiler, took })
        })
        .await
    }

    /// The digest of a file, computed aside.
    pub(crate) async fn digest(&self, wasm: Bytes) -> Result<String, CompileError> {
        let digest = self.aside.spawn_blocking(move || digest_of(&wasm));
        digest.await.map_err(|error| CompileError::Host(error.to_string()))
    }
}

/// What lies in the cache, if `accept` takes it: it does not take in a later version what it took in an earlier.
fn cached<T>(
    cache: &ArtifactCache,
    engine: &Engine,
    digest: &str,
    accept: impl Fn(&Component) -> Result<T, UploadRefused>,
) -> Option<Result<Compiled<T>, UploadRefused>> {
    let started = Instant::now();
    let (component, declared) = cache.take(engine, digest)?;
    let accepted = accept(&component);
    let took = started.elapsed();
    Some(accepted.map(|accepted| Compiled { component, declared, accepted, from: CompiledFrom::Cache, took }))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn compiler(folder: &std::path::Path) -> Compiler {
        let engine = Engine::new(&engine_settings(None)).unwrap();
        let cache = ArtifactCache::open(&folder.join("compiled"), &engine).unwrap();
        let pool = || rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let how = (CompilerProgram::InProcess, Job::unlimited(1));
        Compiler::new(engine, how, [pool(), pool()], Handle::current(), cache)
    }

    fn component() -> (String, Bytes) {
        let text = r#"(component (core module (func (result i32) i32.const 7)) (instance $i)
            (export "vouch:plugin/checkback@0.1.0" (instance $i)))"#;
        let wasm = wat::parse_str(text).unwrap();
        (digest_of(&wasm), wasm.into())
    }

    /// Compiles, and says where the code came from; the deadline only bounds a failing test.
    async fn compile(compiler: &Compiler, purpose: CompilePurpose) -> CompiledFrom {
        let (digest, wasm) = component();
        let compiled = compiler.compile(purpose, digest, wasm, |_| Ok(()));
        tokio::time::timeout(Duration::from_secs(10), compiled).await.expect("it waits for nobody").unwrap().from
    }

    #[tokio::test]
    async fn a_component_that_is_bound_does_not_wait_for_an_upload() {
        let folder = tempfile::tempdir().unwrap();
        let compiler = compiler(folder.path());
        // An upload that takes until the end of the test: it has its turn and its thread.
        let _turn = compiler.uploads.turn().await;
        let end = Arc::new(Barrier::new(2));
        let ended = end.clone();
        compiler.uploads.pool.spawn(move || {
            ended.wait();
        });
        let (digest, wasm) = component();
        assert_eq!(compiler.digest(wasm).await.unwrap(), digest);
        for from in [CompiledFrom::Compiler, CompiledFrom::Cache] {
            assert_eq!(compile(&compiler, CompilePurpose::Load).await, from);
        }
        end.wait();
    }

    #[tokio::test]
    async fn code_in_the_cache_waits_for_no_turn() {
        let folder = tempfile::tempdir().unwrap();
        let compiler = compiler(folder.path());
        assert_eq!(compile(&compiler, CompilePurpose::Upload).await, CompiledFrom::Compiler);
        let _turns = (compiler.uploads.turn().await, compiler.loads.turn().await);
        for purpose in [CompilePurpose::Upload, CompilePurpose::Load] {
            assert_eq!(compile(&compiler, purpose).await, CompiledFrom::Cache);
        }
    }

    #[tokio::test]
    async fn only_what_was_accepted_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let compiler = compiler(folder.path());
        let refused = UploadRefused::NoKnownInterface { exports: Vec::new() };
        let (digest, wasm) = component();
        let refuse = refused.clone();
        let outcome =
            compiler.compile(CompilePurpose::Upload, digest, wasm, move |_| Err::<(), _>(refuse.clone())).await;
        assert_eq!(outcome.err(), Some(CompileError::Refused(refused)));
        assert_eq!(std::fs::read_dir(folder.path().join("compiled")).unwrap().count(), 0);
        assert_eq!(compile(&compiler, CompilePurpose::Upload).await, CompiledFrom::Compiler);
    }

    #[tokio::test]
    async fn who_gives_up_keeps_the_turn_until_the_work_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let compiler = Arc::new(compiler(folder.path()));
        let (began, begun) = oneshot::channel();
        let end = Arc::new(Barrier::new(2));
        let (lane, ended) = (Arc::clone(&compiler), Arc::clone(&end));
        let upload = tokio::spawn(async move {
            let turn = lane.uploads.turn().await;
            let work = move |is_wanted: &dyn Fn() -> bool| {
                began.send(()).unwrap();
                ended.wait();
                Ok(is_wanted())
            };
            lane.uploads.run(turn, work).await
        });
        begun.await.unwrap();
        upload.abort();
        assert!(upload.await.unwrap_err().is_cancelled());
        assert_eq!(compiler.uploads.turn.available_permits(), 0, "the work goes on");
        end.wait();
        assert_eq!(compile(&compiler, CompilePurpose::Upload).await, CompiledFrom::Compiler, "the turn came free");
    }
}
