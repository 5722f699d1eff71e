//! Compiled code between runs.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use vouch_plugin::{BindingSpec, CompiledFrom, Engine, EngineConfig, LoadError, Plugin};

use crate::{
    guests::{check, commit},
    support::{COMMIT, House, pending},
};

struct Run {
    folder: tempfile::TempDir,
    wasm: Bytes,
    digest: String,
}

impl Run {
    async fn first() -> Self {
        let House { folder, engine } = House::new();
        let wasm = check(&commit());
        let digest = engine.inspect(wasm.clone()).await.unwrap().digest;
        Self { folder, wasm, digest }
    }

    /// Another engine on the same folder, as after a restart.
    async fn load_anew(&self) -> Plugin {
        let mut config = EngineConfig::new(self.folder.path().join("compiled"));
        config.concurrency = 8;
        Engine::start(config).unwrap().load(&self.digest, self.wasm.clone()).await.unwrap()
    }

    fn file(&self) -> PathBuf {
        let mut files = fs::read_dir(self.folder.path().join("compiled")).unwrap();
        let file = files.next().expect("one file").unwrap().path();
        assert!(files.next().is_none(), "one file");
        file
    }
}

async fn works(plugin: &Plugin) {
    assert_eq!(plugin.bind(BindingSpec::new("b")).unwrap().check(pending()).await, COMMIT);
}

#[tokio::test]
async fn after_a_restart_compiled_code_comes_from_the_cache() {
    let run = Run::first().await;
    let plugin = run.load_anew().await;
    assert_eq!(plugin.compiled_from(), CompiledFrom::Cache);
    works(&plugin).await;
}

#[tokio::test]
async fn damaged_code_is_compiled_again() {
    let run = Run::first().await;
    let good = fs::read(run.file()).unwrap();
    for position in [0, 20, 48, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[position] ^= 0x40;
        fs::write(run.file(), bad).unwrap();
        let plugin = run.load_anew().await;
        assert_eq!(plugin.compiled_from(), CompiledFrom::Compiler, "byte {position}");
        works(&plugin).await;
        assert_eq!(run.load_anew().await.compiled_from(), CompiledFrom::Cache, "made anew");
    }
    fs::write(run.file(), &good[..good.len() - 1]).unwrap();
    assert_eq!(run.load_anew().await.compiled_from(), CompiledFrom::Compiler, "cut short");
}

#[tokio::test]
async fn bytes_that_differ_from_their_digest_are_not_loaded() {
    let house = House::new();
    let wasm = check(&commit());
    let digest = house.engine.inspect(wasm).await.unwrap().digest;
    let other = check("unreachable");
    let error = house.engine.load(&digest, other).await.err().unwrap();
    assert!(matches!(error, LoadError::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn two_loads_of_one_digest_share_the_code() {
    let run = Run::first().await;
    let mut config = EngineConfig::new(run.folder.path().join("compiled"));
    config.concurrency = 8;
    let engine = Engine::start(config).unwrap();
    let first = engine.load(&run.digest, run.wasm.clone()).await.unwrap();
    // Bytes are not even looked at while the code is in use.
    let second = engine.load(&run.digest, Bytes::new()).await.unwrap();
    works(&second).await;
    drop((first, second));
    assert!(engine.load(&run.digest, Bytes::new()).await.is_err(), "nobody uses it any more");
}

#[tokio::test]
async fn the_cache_folder_is_the_brokers_alone() {
    use std::os::unix::fs::PermissionsExt;
    let run = Run::first().await;
    let mode = fs::metadata(run.folder.path().join("compiled")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
