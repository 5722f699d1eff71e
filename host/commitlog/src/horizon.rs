//! How far a log may have been written: a position in a small file of its own, needed where the bytes behind the end
//! cannot tell, because they are those of the file's earlier life.
//!
//! # To ensure correctness
//! - Nothing is ever written at or beyond the horizon in a segment made of a used file. Whoever wants to raises the
//!   horizon first and waits until that is durable.
//! - What a start reads may not be durable: the one before may have been killed between write and sync. It is true, but
//!   nothing is written below it before it was written and synced again.
//! - The horizon sinks only behind a start, which has made certain that nothing sound lies behind the end. A file that
//!   cannot be believed says nothing, and a start then searches all that could have been written.

use std::io::{self, IoSlice};
use std::sync::Arc;

use crate::disk::{Disk, File};

/// Name of the file in the log's folder.
pub(crate) const HORIZON_FILE: &str = "horizon";

/// A block of its own, so that a torn write of it touches nothing else.
const BLOCK_LEN: usize = 4096;
const MAGIC: [u8; 8] = *b"VOUCHHZN";
const VERSION: u8 = 1;
const CRC_AT: usize = BLOCK_LEN - 4;

/// The block that says `position`. `seed` is the log's: the horizon of another log is not believed.
pub(crate) fn encode(seed: u32, position: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK_LEN];
    block[0..8].copy_from_slice(&MAGIC);
    block[8] = VERSION;
    block[16..24].copy_from_slice(&position.to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &block[..CRC_AT]);
    block[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    block
}

/// The position that a block says; `None` if it is damaged, torn, of another log or of a newer program.
pub(crate) fn decode(seed: u32, block: &[u8]) -> Option<u64> {
    let whole = block.len() == BLOCK_LEN && block[0..8] == MAGIC && block[8] == VERSION;
    if !whole || block[CRC_AT..] != crc32c::crc32c_append(seed, &block[..CRC_AT]).to_le_bytes() {
        return None;
    }
    block[16..24].first_chunk().map(|position| u64::from_le_bytes(*position))
}

/// What the folder's file says. A file that is missing or cannot be read says nothing: that costs time and no safety.
pub(crate) fn read(disk: &dyn Disk, seed: u32) -> Option<u64> {
    let mut block = vec![0; BLOCK_LEN];
    let len = disk.open(HORIZON_FILE).ok()?.read_at(0, &mut block).ok()?;
    decode(seed, &block[..len])
}

/// The writer's side.
pub(crate) struct Horizon {
    seed: u32,
    /// Known to be durable in the file; 0 after a start.
    position: u64,
    file: Option<Arc<dyn File>>,
}

impl Horizon {
    pub(crate) fn new(seed: u32) -> Self {
        Self { seed, position: 0, file: None }
    }

    /// Sees to it that the horizon is durable and at least `to`.
    pub(crate) fn raise(&mut self, disk: &dyn Disk, to: u64) -> io::Result<()> {
        if to <= self.position {
            return Ok(());
        }
        let block = encode(self.seed, to);
        // Where anything fails, the next attempt has a new description.
        let (file, created) = match self.file.take() {
            Some(file) => (file, false),
            None => open_or_create(disk)?,
        };
        #[cfg(any(test, feature = "simulated-disk"))]
        if crate::bugs::HORIZON_NOT_SYNCED.injected() {
            file.sync()?;
            file.write_at(0, &mut [IoSlice::new(&block)])?;
            (self.position, self.file) = (to, Some(file));
            return disk.sync_directory();
        }
        file.write_at(0, &mut [IoSlice::new(&block)])?;
        file.sync()?;
        if created {
            disk.sync_directory()?;
        }
        (self.position, self.file) = (to, Some(file));
        Ok(())
    }
}

/// The file, and whether its name may not be durable yet.
fn open_or_create(disk: &dyn Disk) -> io::Result<(Arc<dyn File>, bool)> {
    let file = match disk.open(HORIZON_FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(HORIZON_FILE)?,
        opened => opened?,
    };
    if file.size()? < BLOCK_LEN as u64 {
        file.set_size(BLOCK_LEN as u64)?;
    }
    Ok((file, true))
}
