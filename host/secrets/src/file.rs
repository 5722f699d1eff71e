//! The key file in the file system.
//!
//! # To ensure correctness
//! What is sealed with a key that is lost is lost. So a file that is there is never begun anew, whatever is wrong with it; keys
//! are added to what it holds, and only [`SecretKeyFile::forget`] takes one away; and it changes as a whole, synced, before
//! anybody is handed keys that it did not hold before.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use crate::format::{FILE_LEN_MAX, KeyFileDamage};
use crate::key::SecretKeyId;
use crate::keys::{KeyChangeRefused, SecretKeys};

/// What the key file is called where no setting says otherwise, in the data folder.
pub const KEY_FILE: &str = "secrets.key";

/// What a file's group and all others may do with it.
const OF_OTHERS: u32 = 0o077;

/// Why there are no keys. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileFault {
    /// Bring it, or set all secrets again: that makes a new one.
    #[error(
        "there is no key file {}: copy it from a node that has it, for its owner alone (chmod 600); where no node has it, set \
         all secrets again", path.display()
    )]
    Missing {
        /// Where it is looked for.
        path: PathBuf,
    },
    /// Take the right from others. Whoever read it can open every secret that was sealed so far.
    #[error(
        "others than its owner may read the key file {} (mode {mode:04o}): run `chmod 600` on it, and if somebody may have \
         read it, change the key and the secrets", path.display()
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// What may be done with it.
        mode: u32,
    },
    /// Put a file there, or let the setting name another path.
    #[error("{} is no file: a key file is to be there, or nothing", path.display())]
    NoFile {
        /// What lies there.
        path: PathBuf,
    },
    /// Put the right one there.
    #[error(
        "the key file {} cannot be used: {why}; copy it from another node, or from where you keep a copy. Without any, remove \
         it and set all secrets again", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: KeyFileDamage,
    },
    /// The system says why.
    #[error("the key file {} cannot be {action}: {source}", path.display())]
    Io {
        /// `read` or `written`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The keys cannot be changed so.
    #[error(transparent)]
    Refused(#[from] KeyChangeRefused),
}

/// A key file, of which a process has one: its changes wait for each other. Who else may change it is kept out by the lock of
/// the data folder.
#[derive(Debug)]
pub struct SecretKeyFile {
    path: PathBuf,
    changing: Mutex<()>,
}

impl SecretKeyFile {
    /// The file at this path, which may not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), changing: Mutex::new(()) }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys that it holds.
    ///
    /// # Errors
    /// See [`KeyFileFault`]; [`KeyFileFault::Missing`] where no secret was sealed with this file yet.
    pub fn read(&self) -> Result<SecretKeys, KeyFileFault> {
        let path = || self.path.clone();
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => KeyFileFault::Missing { path: path() },
            _ => KeyFileFault::Io { action: "read", path: path(), source },
        };
        // To open a pipe would wait for whoever writes into it.
        if !fs::metadata(&self.path).map_err(failed)?.is_file() {
            return Err(KeyFileFault::NoFile { path: path() });
        }
        let file = File::open(&self.path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & OF_OTHERS != 0 {
            return Err(KeyFileFault::OpenToOthers { path: path(), mode });
        }
        // Room for one byte more than the longest has, and for the reader to see that nothing follows: it never moves.
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_LEN_MAX + 64));
        file.take(FILE_LEN_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        SecretKeys::of_file(&bytes).map_err(|why| KeyFileFault::Damaged { path: path(), why })
    }

    /// The keys that it holds; where there is no file, one new key in a new one. To be called before the first secret is
    /// sealed, on one node of a cluster; the others get its keys by [`Self::add`].
    ///
    /// # Errors
    /// See [`KeyFileFault`]: a file that is there and cannot be used is left as it is.
    pub fn read_or_make(&self) -> Result<SecretKeys, KeyFileFault> {
        let _changing = self.lock();
        match self.read() {
            Err(KeyFileFault::Missing { .. }) => self.write(SecretKeys::draw()),
            found => found,
        }
    }

    /// Takes over the keys of another node of the cluster. Its first key is the first one here, too; what only this node has
    /// stays behind them.
    ///
    /// # Errors
    /// See [`KeyFileFault`]; the file is as it was then.
    pub fn add(&self, keys: &SecretKeys) -> Result<SecretKeys, KeyFileFault> {
        let _changing = self.lock();
        match self.read() {
            Err(KeyFileFault::Missing { .. }) => self.write(keys.clone()),
            found => {
                let found = found?;
                let all = keys.and(&found)?;
                if all == found { Ok(found) } else { self.write(all) }
            }
        }
    }

    /// Takes over the keys of another node that this one lacks, behind its own. The first stays the first: which key seals is
    /// no business of whoever happens to be asked.
    ///
    /// # Errors
    /// See [`KeyFileFault`]; the file is as it was then.
    pub fn append(&self, keys: &SecretKeys) -> Result<SecretKeys, KeyFileFault> {
        let _changing = self.lock();
        match self.read() {
            Err(KeyFileFault::Missing { .. }) => self.write(keys.clone()),
            found => {
                let found = found?;
                let all = found.and(keys)?;
                if all == found { Ok(found) } else { self.write(all) }
            }
        }
    }

    /// Lets one of its keys seal from now on.
    ///
    /// # Errors
    /// See [`KeyFileFault`]; the file is as it was then.
    pub fn prefer(&self, key: SecretKeyId) -> Result<SecretKeys, KeyFileFault> {
        let _changing = self.lock();
        let keys = self.read()?.led_by(key)?;
        self.write(keys)
    }

    /// Puts a new key in front of the others, and gives all of them. Other nodes are to have it before a secret is sealed with
    /// it, and all secrets are to be sealed with it before the old one is forgotten.
    ///
    /// # Errors
    /// See [`KeyFileFault`]; the file is as it was then.
    pub fn rotate(&self) -> Result<SecretKeys, KeyFileFault> {
        let _changing = self.lock();
        let keys = self.read()?.with_new_first()?;
        self.write(keys)
    }

    /// Removes a key with which nothing is sealed any more, and gives those that stay. Backups of before lose their secrets.
    ///
    /// # Errors
    /// See [`KeyFileFault`]; the file is as it was then.
    pub fn forget(&self, key: SecretKeyId) -> Result<SecretKeys, KeyFileFault> {
        let _changing = self.lock();
        let keys = self.read()?.without(key)?;
        self.write(keys)
    }

    /// A change that panicked left the file whole, as every change does.
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the file hold these keys, durably, and gives them.
    fn write(&self, keys: SecretKeys) -> Result<SecretKeys, KeyFileFault> {
        let failed = |source| KeyFileFault::Io { action: "written", path: self.path.clone(), source };
        let mut unfinished = self.path.clone().into_os_string();
        unfinished.push(".new");
        let unfinished = Path::new(&unfinished);
        // One that was left there may be for others to read, and would stay so.
        match fs::remove_file(unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let text = keys.to_file();
        vouch_files::appear_durably(&self.path, unfinished, |file| file.write_all(&text)).map_err(failed)?;
        Ok(keys)
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
