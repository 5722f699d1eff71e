//! The key file of this node, and what was read of it last.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use vouch_broker::{NotDone, Refusal};
use vouch_secrets::{KeyFileFault, SecretKeyFile, SecretKeyId, SecretKeys};

/// The keys of this node. The file is read where a key is asked for that is not known: an operator may have copied it meanwhile.
pub(crate) struct NodeKeys {
    file: Arc<SecretKeyFile>,
    known: RwLock<Option<SecretKeys>>,
}

impl NodeKeys {
    /// Of this file, which need not be there yet.
    pub(crate) fn of(path: PathBuf) -> Self {
        Self { file: Arc::new(SecretKeyFile::new(path)), known: RwLock::default() }
    }

    /// What was read last.
    pub(super) fn known(&self) -> Option<SecretKeys> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those of these that the file has not, as it was read last.
    pub(super) fn lacking(&self, ids: &BTreeSet<[u8; 8]>) -> BTreeSet<[u8; 8]> {
        let known = self.known();
        let has = |id: &[u8; 8]| known.as_ref().is_some_and(|known| known.has(SecretKeyId(*id)));
        ids.iter().filter(|id| !has(id)).copied().collect()
    }

    /// Keys, with this one among them where the file has it.
    ///
    /// # Errors
    /// There is no file, or it cannot be read.
    pub(super) async fn with(&self, id: [u8; 8]) -> Result<SecretKeys, KeyFileFault> {
        match self.known() {
            Some(known) if known.has(SecretKeyId(id)) => Ok(known),
            _ => self.change(SecretKeyFile::read).await,
        }
    }

    /// Reads or changes the file, beside the threads that serve others, and notes what is in it then.
    ///
    /// # Errors
    /// That fails; what was known stays known.
    pub(super) async fn change(
        &self,
        change: impl FnOnce(&SecretKeyFile) -> Result<SecretKeys, KeyFileFault> + Send + 'static,
    ) -> Result<SecretKeys, KeyFileFault> {
        let file = self.file.clone();
        let keys = match tokio::task::spawn_blocking(move || change(&file)).await {
            Ok(changed) => changed?,
            Err(ended) => {
                let (path, source) = (self.file.path().to_owned(), std::io::Error::other(ended));
                return Err(KeyFileFault::Io { action: "read", path, source });
            }
        };
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(keys.clone());
        Ok(keys)
    }
}

/// What the caller hears of a key file that cannot be used: it says what to do, and until then nothing is done.
pub(super) fn refused(fault: &KeyFileFault) -> NotDone {
    NotDone::Refused(Refusal::Conflict(fault.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_was_copied_meanwhile_is_read_when_its_key_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.key");
        let here = NodeKeys::of(path.clone());
        let there = SecretKeyFile::new(folder.path().join("there")).read_or_make().unwrap();
        let id = there.sealing().0;
        assert!(matches!(here.with(id).await, Err(KeyFileFault::Missing { .. })));
        assert_eq!(here.lacking(&[id].into()), [id].into());
        std::fs::rename(folder.path().join("there"), &path).unwrap();
        assert_eq!(here.with(id).await.unwrap(), there);
        assert!(here.lacking(&[id].into()).is_empty());
        std::fs::remove_file(path).unwrap();
        assert_eq!(here.with(id).await.unwrap(), there, "what was read is known");
    }
}
