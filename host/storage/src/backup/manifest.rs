//! `backup.json`: what a backup is made of.

use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::copy::{Extent, hexadecimal};
use super::{Backup, BackupError, MANIFEST_FILE, damaged, failed, folder};
use vouch_commitlog::LogPosition;
use vouch_files::{appear_durably, create};

/// Version of the format.
pub(super) const FORMAT: u64 = 1;

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileEntry {
    /// Below the folder.
    pub(super) path: String,
    /// Bytes of the file.
    pub(super) length: u64,
    /// Bytes that count; the rest is zeros.
    pub(super) data: u64,
    /// Of the bytes that count.
    pub(super) sha256: String,
}

impl FileEntry {
    pub(super) fn extent(&self) -> Extent {
        Extent { data: self.data, length: self.length }
    }
}

/// The manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: u64,
    pub(super) vouch: String,
    pub(super) made_at_ms: u64,
    pub(super) node_was_running: bool,
    pub(super) cluster_id: String,
    pub(super) shard: u16,
    pub(super) segment_size: u64,
    pub(super) log_start: u64,
    pub(super) log_end: u64,
    pub(super) snapshot: Option<u64>,
    pub(super) newest_record_ms: u64,
    pub(super) files: Vec<FileEntry>,
    /// Of this document, compact and with an empty text here.
    pub(super) sha256: String,
}

/// What every version of the format has.
#[derive(Deserialize)]
struct Versioned {
    format: u64,
    #[serde(default)]
    vouch: String,
}

impl Manifest {
    /// Over all that it says but the digest itself. It tells damage, and is no signature: whoever can write the file
    /// can write this as well.
    fn digest(&self) -> String {
        let unsigned = Self { sha256: String::new(), ..self.clone() };
        hexadecimal(&Sha256::digest(serde_json::to_vec(&unsigned).expect("numbers and texts can always be written")))
    }

    /// Reads and checks the manifest of a backup.
    pub(super) fn read(backup: &Path) -> Result<Self, BackupError> {
        let path = backup.join(MANIFEST_FILE);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BackupError::NoBackup(backup.to_owned()));
            }
            bytes => bytes.map_err(failed("read", &path))?,
        };
        let Versioned { format, vouch } = serde_json::from_slice(&bytes).map_err(|error| damaged(&path, error))?;
        if format != FORMAT {
            return Err(BackupError::Version { found: format, vouch });
        }
        let manifest: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(&path, error))?;
        if manifest.digest() != manifest.sha256 {
            return Err(damaged(&path, "it does not match the digest in it"));
        }
        // The digest is no signature: whoever wrote the manifest must not choose where we write.
        let inside = |file: &FileEntry| {
            let mut parts = Path::new(&file.path).components().peekable();
            parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_))) && file.data <= file.length
        };
        match manifest.files.iter().find(|file| !inside(file)) {
            Some(file) => Err(damaged(&path, format!("it names the file {:?}", file.path))),
            None => Ok(manifest),
        }
    }

    /// Says of a folder that it is to be a backup: no node may take it for its own, however far this gets.
    pub(super) fn announce(backup: &Path) -> Result<(), BackupError> {
        let unfinished = backup.join(MANIFEST_FILE).with_extension("unfinished");
        create(&unfinished).and_then(|file| file.sync_all()).map_err(failed("create", &unfinished))?;
        folder::sync(backup)
    }

    /// Makes a backup of the folder: before this it is none, after it all of it is on the disk.
    pub(super) fn write(&mut self, backup: &Path) -> Result<(), BackupError> {
        self.sha256 = self.digest();
        let path = backup.join(MANIFEST_FILE);
        // What says that it is to be a backup stays until it is one, whatever fails.
        let written = appear_durably(&path, &path.with_extension("new"), |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            file.write_all(b"\n")
        });
        written.map_err(failed("write", &path))?;
        let unfinished = path.with_extension("unfinished");
        std::fs::remove_file(&unfinished).map_err(failed("remove", &unfinished))?;
        folder::sync(backup)
    }

    /// What it says, for people.
    pub(super) fn summary(&self, of_several: bool) -> Backup {
        Backup {
            cluster_id: self.cluster_id.clone(),
            made_at_ms: self.made_at_ms,
            vouch: self.vouch.clone(),
            log_start: LogPosition(self.log_start),
            log_end: LogPosition(self.log_end),
            snapshot: self.snapshot.map(LogPosition),
            newest_record_ms: self.newest_record_ms,
            node_was_running: self.node_was_running,
            of_several,
            files: self.files.len(),
            bytes: self.data_bytes(),
        }
    }

    /// Bytes that count, of all files.
    pub(super) fn data_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.data).sum()
    }
}
