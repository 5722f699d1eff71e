//! Component files by digest.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use vouch_files::{appear_durably, create_dir_all};

use crate::Digest;

/// The operation failed; nothing half-written is ever visible under a digest.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct StoreError {
    /// What was tried.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// A folder of component files, each named by the digest of its bytes.
#[derive(Clone, Debug)]
pub struct ArtifactStore {
    folder: PathBuf,
}

/// For `map_err`: what was tried with which file. The action is a verb that follows *cannot*.
fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError { action, path: path.to_owned(), source }
}

impl ArtifactStore {
    /// Opens the folder, or creates it: for its owner alone, as everything in it.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let folder = folder.into();
        create_dir_all(&folder).map_err(failed("create", &folder))?;
        Ok(Self { folder })
    }

    /// Where the file of a digest lies, whether it is there or not. Equal bytes have one file, however many names they
    /// have.
    fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.folder.join(format!("{}.wasm", name.trim_start_matches("sha256:")))
    }

    /// Keeps a component. Written beside its place and renamed, so that a crash leaves the whole file or none.
    ///
    /// # Errors
    /// The system refuses. Nothing that is half written lies there under its name, and a repeat does no harm.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        let path = self.path(&digest);
        if self.get(&digest)?.is_some() {
            return Ok(digest);
        }
        // The same component may be uploaded twice at once.
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let number = WRITES.fetch_add(1, Ordering::Relaxed);
        let unfinished = path.with_extension(format!("part-{}-{number}", std::process::id()));
        appear_durably(&path, &unfinished, |file| file.write_all(bytes)).map_err(failed("write", &path))?;
        Ok(digest)
    }

    /// The component with this digest; `None` if it is not here, or its bytes are damaged: take them from the log.
    ///
    /// # Errors
    /// The file is there and cannot be read: that says nothing of its bytes.
    pub fn get(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let path = self.path(digest);
        match fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == *digest => Ok(Some(bytes.into())),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("read", &path)(source)),
        }
    }

    /// Removes every file that `keep` does not name, leftovers of cut-off writes included.
    pub fn retain(&self, keep: impl Fn(&Digest) -> bool) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.folder).map_err(failed("list", &self.folder))? {
            let path = entry.map_err(failed("list", &self.folder))?.path();
            let digest = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_suffix(".wasm"))
                .and_then(|hex| format!("sha256:{hex}").parse().ok());
            if !digest.is_some_and(|digest| keep(&digest)) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_comes_back_as_it_was_and_a_damaged_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path()).unwrap();
        let digest = store.put(b"component").unwrap();
        assert_eq!(store.get(&digest).unwrap().as_deref(), Some(&b"component"[..]));
        fs::write(store.path(&digest), b"componenT").unwrap();
        assert_eq!(store.get(&digest).unwrap(), None);
        assert_eq!(store.get(&Digest::of(b"other")).unwrap(), None);
    }

    #[test]
    fn the_same_component_can_be_kept_by_many_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path()).unwrap();
        let component = vec![7; 1 << 20];
        std::thread::scope(|scope| {
            let puts: Vec<_> = (0..8).map(|_| scope.spawn(|| store.put(&component).unwrap())).collect();
            let digests: Vec<_> = puts.into_iter().map(|put| put.join().unwrap()).collect();
            assert!(digests.iter().all(|digest| *digest == Digest::of(&component)));
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn retain_removes_what_nobody_names_and_unfinished_files() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path()).unwrap();
        let (kept, dropped) = (store.put(b"kept").unwrap(), store.put(b"dropped").unwrap());
        fs::write(folder.path().join("x.part-1"), b"half").unwrap();
        store.retain(|digest| *digest == kept).unwrap();
        assert!(store.get(&kept).unwrap().is_some() && store.get(&dropped).unwrap().is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
