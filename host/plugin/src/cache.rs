//! Compiled code on disk, so that a restart costs microseconds per plugin instead of seconds.
//!
//! One file per component: a header of [`MAGIC`], the SHA-256 of what follows, then the artifact. The file's name holds
//! the engine's compatibility hash (engine version, settings, processor features) and the component's digest, so that code
//! made for another engine or another processor is never even opened.

use std::{
    fs,
    hash::{Hash, Hasher},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use sha2::{Digest, Sha256};
use wasmtime::{Engine, component::Component};

use crate::compile::CompiledCode;
use crate::declared::DeclaredConfig;

/// First bytes of every file; the number is the version of this layout.
const MAGIC: &[u8; 16] = b"vouch-artifact-2";
/// Bytes of a SHA-256.
const CHECKSUM_LEN: usize = 32;
/// What stands before the compiled code.
const HEADER_LEN: usize = MAGIC.len() + CHECKSUM_LEN;
/// What the names of these files end with. Files of another name in the folder are left alone.
const EXTENSION: &str = "cwasm";
/// Most files kept; beyond it the longest unused go. Compiled code is some 10 times the size of a component.
pub(crate) const MAX_ARTIFACTS: usize = 128;
/// Largest compiled code, as it is made and as it is read back.
pub(crate) const MAX_ARTIFACT_BYTES: u64 = 256 << 20;

/// Compiled components on the disk, by the digest of the component and by what the engine compiles for.
///
/// # To ensure correctness
/// What is read from here is executed. So the folder is its owner's alone, a file is compared with its checksum before
/// the engine sees it, and the name says for which engine it was made: another version, another processor or another
/// setting finds no file and compiles.
pub(crate) struct ArtifactCache {
    folder: PathBuf,
    compatibility: u64,
}

impl ArtifactCache {
    /// Opens the folder, making it if needed, for its owner alone.
    pub(crate) fn open(folder: &Path, engine: &Engine) -> io::Result<Self> {
        vouch_files::create_dir_all(folder)?;
        // SipHash with fixed keys: the same value in every run of the same build.
        #[allow(deprecated, reason = "the value must not change from run to run, which DefaultHasher does not promise")]
        let mut hasher = std::hash::SipHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { folder: folder.to_owned(), compatibility: hasher.finish() })
    }

    /// Where the code of a component lies, whether it is there or not.
    fn path(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        self.folder.join(format!("{:016x}-{hex}.{EXTENSION}", self.compatibility))
    }

    /// The component compiled earlier from the file with this digest, and what it says of its config. A file that is damaged or of another kind is removed
    /// and answered with `None`: compile again.
    pub(crate) fn take(&self, engine: &Engine, digest: &str) -> Option<(Component, Option<DeclaredConfig>)> {
        let path = self.path(digest);
        let artifact = match read(&path) {
            Ok(artifact) => artifact,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a compiled plugin in the cache is unusable: compiling again");
                // What cannot be read for want of descriptors or memory is whole.
                if error.kind() == io::ErrorKind::InvalidData {
                    remove(&path);
                }
                return None;
            }
        };
        match deserialize(engine, &artifact[HEADER_LEN..]) {
            Ok(found) => {
                touch(&path);
                Some(found)
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the engine refuses a compiled plugin: compiling again");
                remove(&path);
                None
            }
        }
    }

    /// Keeps a compiled component. A failure costs a compilation at the next start and is logged, no more.
    pub(crate) fn keep(&self, digest: &str, artifact: &CompiledCode) {
        let path = self.path(digest);
        if let Err(error) = write(&path, artifact.bytes()) {
            tracing::warn!(path = %path.display(), %error, "compiled plugin not kept: it is compiled again at the next start");
        }
        if let Err(error) = self.prune() {
            tracing::warn!(path = %self.folder.display(), %error, "old compiled plugins not removed");
        }
    }

    /// Removes what was longest unused, files of other engines included, until [`MAX_ARTIFACTS`] are left.
    fn prune(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = fs::read_dir(&self.folder)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == EXTENSION))
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        files.sort();
        let surplus = files.len().saturating_sub(MAX_ARTIFACTS);
        files.iter().take(surplus).for_each(|(_, path)| remove(path));
        Ok(())
    }
}

/// Reads a file and checks its header and checksum.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    if fs::metadata(path)?.len() > MAX_ARTIFACT_BYTES + HEADER_LEN as u64 {
        return Err(damaged("it is too large"));
    }
    let bytes = fs::read(path)?;
    if bytes.len() < HEADER_LEN || &bytes[..MAGIC.len()] != MAGIC {
        return Err(damaged("it does not begin as a compiled plugin of this version does"));
    }
    if Sha256::digest(&bytes[HEADER_LEN..])[..] != bytes[MAGIC.len()..HEADER_LEN] {
        return Err(damaged("its checksum does not match"));
    }
    Ok(bytes)
}

/// Writes beside and renames, so that a reader never sees half a file. Not synced: the checksum finds what a power cut
/// left half written.
fn write(path: &Path, artifact: &[u8]) -> io::Result<()> {
    vouch_files::appear(path, &path.with_extension("writing"), |file| {
        file.write_all(MAGIC)?;
        file.write_all(&Sha256::digest(artifact))?;
        file.write_all(artifact)
    })
}

/// Removes a file that is of no use. That it cannot be is told: the next start meets it again.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "file in the plugin cache not removed");
    }
}

/// Marks a file as used now, which is what [`ArtifactCache::prune`] goes by.
fn touch(path: &Path) {
    let touched = fs::File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    if let Err(error) = touched {
        tracing::debug!(path = %path.display(), %error, "time of use not kept");
    }
}

/// The component that was compiled just now, and what it says of its config.
pub(crate) fn component_of(
    engine: &Engine,
    artifact: &CompiledCode,
) -> wasmtime::Result<(Component, Option<DeclaredConfig>)> {
    deserialize(engine, artifact.bytes())
}

/// Turns bytes that the compiler wrote into code.
///
/// # Errors
/// They do not begin as they were written, or are for another engine.
#[allow(unsafe_code, reason = "the engine offers no safe way back from a file to code")]
fn deserialize(engine: &Engine, artifact: &[u8]) -> wasmtime::Result<(Component, Option<DeclaredConfig>)> {
    let Some((declared, code)) = CompiledCode::parts(artifact) else {
        wasmtime::bail!("it does not begin as it was written")
    };
    // SAFETY: `Component::deserialize` wants bytes that the engine's own compiler made. There are two ways here. Those of a
    // `CompiledCode` were made in this run: by the compiler in this process, or by the same program in a process that
    // this one started and that wrote them into a file in memory that no third process can open; it ended with success,
    // so they are whole. Those of a file lay in a folder that the broker made for its owner alone and that only this
    // module writes to; the checksum over them was just verified, so they are what was written, and only `keep` writes,
    // a `CompiledCode`. The engine itself then checks version, settings and processor features in the artifact. Someone
    // who can forge a file with its checksum in that folder runs as the broker's user already.
    unsafe { Component::deserialize(engine, code) }.map(|component| (component, declared))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> (tempfile::TempDir, Engine, ArtifactCache) {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = ArtifactCache::open(&folder.path().join("compiled"), &engine).unwrap();
        (folder, engine, cache)
    }

    fn artifact(engine: &Engine) -> CompiledCode {
        let text = r#"(component (instance $i) (export "vouch:plugin/checkback@0.1.0" (instance $i)))"#;
        CompiledCode::for_test(engine, &wat::parse_str(text).unwrap())
    }

    #[test]
    fn what_was_kept_is_taken_back() {
        let (_folder, engine, cache) = fixture();
        assert!(cache.take(&engine, "sha256:ab").is_none());
        cache.keep("sha256:ab", &artifact(&engine));
        assert!(cache.take(&engine, "sha256:ab").is_some());
        assert!(cache.take(&engine, "sha256:cd").is_none());
    }

    #[test]
    fn a_file_with_any_byte_changed_is_removed() {
        let (_folder, engine, cache) = fixture();
        cache.keep("sha256:ab", &artifact(&engine));
        let path = cache.path("sha256:ab");
        let good = fs::read(&path).unwrap();
        for position in [0, MAGIC.len(), HEADER_LEN, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[position] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(cache.take(&engine, "sha256:ab").is_none(), "byte {position}");
            assert!(!path.exists(), "byte {position}");
        }
        for length in [0, HEADER_LEN - 1, HEADER_LEN, good.len() - 1] {
            fs::write(&path, &good[..length]).unwrap();
            assert!(cache.take(&engine, "sha256:ab").is_none(), "{length} bytes");
        }
        fs::write(&path, &good).unwrap();
        assert!(cache.take(&engine, "sha256:ab").is_some());
    }

    #[test]
    fn a_foreign_file_with_a_right_checksum_is_refused_by_the_engine() {
        let (_folder, engine, cache) = fixture();
        let path = cache.path("sha256:ab");
        write(&path, b"\0\0\0\0\x7fELF and so on").unwrap();
        assert!(cache.take(&engine, "sha256:ab").is_none());
        assert!(!path.exists());
    }

    #[test]
    fn the_longest_unused_go_when_the_cache_is_full() {
        let (_folder, engine, cache) = fixture();
        let artifact = artifact(&engine);
        for n in 0..MAX_ARTIFACTS {
            cache.keep(&format!("sha256:{n:04}"), &artifact);
            let file = fs::File::options().append(true).open(cache.path(&format!("sha256:{n:04}"))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n as u64)).unwrap();
        }
        assert!(cache.take(&engine, "sha256:0000").is_some(), "full, not over");
        cache.keep("sha256:one-more", &artifact);
        assert!(cache.take(&engine, "sha256:0000").is_some(), "used a moment ago");
        assert!(cache.take(&engine, "sha256:0001").is_none(), "longest unused");
        assert!(cache.take(&engine, "sha256:0002").is_some());
        assert!(cache.take(&engine, "sha256:one-more").is_some());
    }
}
