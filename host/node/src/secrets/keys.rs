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
    /// One change at a time, up to where it is known: what was read before a change is not noted after it.
    changing: tokio::sync::Mutex<()>,
}

impl NodeKeys {
    /// Of this file, which need not be there yet.
    pub(crate) fn of(path: PathBuf) -> Self {
        Self {
            file: Arc::new(SecretKeyFile::new(path)),
            known: RwLock::default(),
            changing: tokio::sync::Mutex::default(),
        }
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

    /// Reads or changes the file, beside the threads that serve others, and notes what is in it then. Keys that were known and are
    /// not in the file any more, since somebody copied another one in its place, are written behind those that are: what is sealed
    /// with them opens with nothing else.
    ///
    /// # Errors
    /// That fails; what was known stays known.
    pub(super) async fn change(
        &self,
        change: impl FnOnce(&SecretKeyFile) -> Result<SecretKeys, KeyFileFault> + Send + 'static,
    ) -> Result<SecretKeys, KeyFileFault> {
        self.note(|file, known| {
            let keys = change(file)?;
            match known.filter(|known| known.ids().any(|id| !keys.has(id))) {
                Some(known) => file.append(&known),
                None => Ok(keys),
            }
        })
        .await
    }

    /// Forgets a key, in the file and in memory.
    ///
    /// # Errors
    /// The file cannot be changed.
    pub(super) async fn forget(&self, key: SecretKeyId) -> Result<SecretKeys, KeyFileFault> {
        self.note(move |file, _| file.forget(key)).await
    }

    /// Changes it, given what is known when it is its turn: a key that was forgotten meanwhile does not come back.
    async fn note(
        &self,
        change: impl FnOnce(&SecretKeyFile, Option<SecretKeys>) -> Result<SecretKeys, KeyFileFault> + Send + 'static,
    ) -> Result<SecretKeys, KeyFileFault> {
        let _changing = self.changing.lock().await;
        let (file, known) = (self.file.clone(), self.known());
        let keys = match tokio::task::spawn_blocking(move || change(&file, known)).await {
            Ok(changed) => changed?,
            Err(ended) => {
                let (path, source) = (self.file.path().to_owned(), std::io::Error::other(ended));
                return Err(KeyFileFault::Io { action: "read", path, source });
            }
        };
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(keys.clone());
        Ok(keys)
    }

    /// Why the file, whose keys are known, is of no use to the next start of the node; `None` where it is, or none is known.
    pub(super) async fn fault(&self) -> Option<KeyFileFault> {
        self.known()?;
        self.change(SecretKeyFile::read).await.err()
    }
}

/// What the caller hears of a key file that cannot be used: it says what to do, and until then nothing is done.
pub(super) fn refused(fault: &KeyFileFault) -> NotDone {
    NotDone::Refused(Refusal::Conflict(fault.to_string()))
}

impl NodeKeys {
    /// The same, with what is to be done where the keys are in memory still.
    pub(super) fn refused(&self, fault: &KeyFileFault) -> NotDone {
        match fault {
            KeyFileFault::Damaged { path, .. } if self.known().is_some() => {
                NotDone::Refused(Refusal::Conflict(format!(
                    "{fault}. This node has all its keys in memory still: remove {} while it runs, and try again, which writes it anew",
                    path.display()
                )))
            }
            fault => refused(fault),
        }
    }
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
        std::fs::remove_file(&path).unwrap();
        assert_eq!(here.with(id).await.unwrap(), there, "what was read is known");
    }

    #[tokio::test]
    async fn what_is_known_outlives_a_file_that_somebody_puts_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.key");
        let here = NodeKeys::of(path.clone());
        let old = here.change(SecretKeyFile::read_or_make).await.unwrap();
        let safe = std::fs::read(&path).unwrap();
        let new = here.change(SecretKeyFile::rotate).await.unwrap();
        // As an operator does who has a copy of before, whether he was told to or not.
        std::fs::write(&path, &safe).unwrap();
        let both = here.change(SecretKeyFile::read).await.unwrap();
        assert_eq!(both, old.and(&new).unwrap());
        assert_eq!(
            NodeKeys::of(path.clone()).change(SecretKeyFile::read).await.unwrap(),
            both,
            "it is in the file again"
        );
        std::fs::write(&path, "x").unwrap();
        assert!(matches!(here.fault().await, Some(KeyFileFault::Damaged { .. })));
        let told = here.refused(&here.fault().await.unwrap()).to_string();
        assert!(told.contains("in memory still: remove"), "{told}");
        std::fs::remove_file(&path).unwrap();
        let known = here.known().unwrap();
        here.change(move |file| file.append(&known)).await.unwrap();
        assert!(here.fault().await.is_none());
        let second = new.sealing();
        let left = here.forget(second).await.unwrap();
        assert!(!left.has(second) && here.lacking(&[second.0].into()).len() == 1, "what is forgotten is");
    }
}
