//! Files of a simulated disk that come from elsewhere, and logs on it that are only looked at.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::disk::SimDisk;
use crate::disk::{Disk, File};
use crate::read_only::open_read_only_on;
use crate::{LogConfig, LogFolder, LogPosition, OpenError, ReadOnlyLog};

/// Opens a log for reading only, as [`crate::CommitLog::open_read_only`] does in a folder.
///
/// # Errors
/// [`OpenError`].
pub fn open_read_only(disk: &SimDisk, config: &LogConfig, from: LogPosition) -> Result<ReadOnlyLog, OpenError> {
    open_read_only_on(Arc::new(disk.clone()), config, from, &mut |_| ())
}

/// Looks at a log, as [`LogFolder::open`] does in a folder.
///
/// # Errors
/// [`OpenError`].
pub fn look(disk: &SimDisk) -> Result<LogFolder, OpenError> {
    LogFolder::open_on(Arc::new(disk.clone()), Path::new("sim"))
}

impl SimDisk {
    /// All of its files.
    pub fn files(&self) -> Vec<String> {
        self.names().unwrap()
    }

    /// Bytes of a file, if there is one.
    pub fn length(&self, name: &str) -> Option<u64> {
        self.open(name).ok().map(|file| file.size().unwrap())
    }

    /// Puts bytes behind those of a file, which is made if it is not there. Nothing of it is durable.
    ///
    /// # Errors
    /// What is to go wrong on the disk.
    pub fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.opened(name)?;
        let end = file.size()?;
        if bytes.is_empty() {
            return Ok(());
        }
        file.set_size(end + bytes.len() as u64)?;
        file.write_at(end, &mut [io::IoSlice::new(bytes)])
    }

    /// A file is so long, and durable, but for its name.
    ///
    /// # Errors
    /// What is to go wrong on the disk.
    pub fn settle(&self, name: &str, length: u64) -> io::Result<()> {
        let file = self.opened(name)?;
        file.set_size(length)?;
        file.sync()
    }

    /// Names are durable.
    ///
    /// # Errors
    /// What is to go wrong on the disk.
    pub fn sync_names(&self) -> io::Result<()> {
        self.sync_directory()
    }

    /// Takes a file away.
    ///
    /// # Errors
    /// It is not there, or what is to go wrong on the disk.
    pub fn take_away(&self, name: &str) -> io::Result<()> {
        self.remove(name)
    }

    fn opened(&self, name: &str) -> io::Result<Arc<dyn File>> {
        if self.length(name).is_some() { Disk::open(self, name) } else { self.create(name) }
    }
}
