//! Files of released segments, kept so that the next segment need not be allocated anew.
//!
//! # To ensure correctness
//! - A file comes here only when the removal of its segment's name is durable and nobody maps it any more: from here
//!   on its bytes may change, and a power cut must not give it back as the segment that it was.
//! - Its old bytes stay, so that nothing is written twice. They cannot pass for new ones: each entry's header says its
//!   position, every old one lies below the new segment, and a file that was a segment above it is never used.
//! - It gets a segment's name only when the new header is durable, which says that old bytes may lie behind the end.

use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Shortage;
use crate::disk::File;
use crate::format::SegmentHeader;
use crate::segment::{SegmentFactory, WriteSegment};

/// Most files kept: one for the next segment, and one more while a release and a roll fall together.
pub(crate) const MAX_SPARES: usize = 2;

/// Name of the spare file that was the segment starting at `start`.
pub(crate) fn spare_name(start: u64) -> String {
    format!("{start:020}.spare")
}

/// Where the segment started that a spare file was; `None` for any other file.
fn parse_spare_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".spare")?;
    let all = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all { digits.parse().ok() } else { None }
}

/// The spare files of a log, by name.
#[derive(Default)]
pub(crate) struct Spares {
    pool: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    names: Vec<String>,
}

impl Spares {
    fn lock(&self) -> MutexGuard<'_, Pool> {
        // A panic elsewhere leaves the list whole.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> u64 {
        self.lock().names.len() as u64
    }

    pub(crate) fn has_room(&self) -> bool {
        self.lock().names.len() < MAX_SPARES
    }

    pub(crate) fn add(&self, name: String) {
        self.lock().names.push(name);
    }
}

impl SegmentFactory {
    /// Removes a spare file, so that its blocks are free; whether there was one. If a power cut brings its name back it is
    /// a spare file again.
    pub(crate) fn give_up_spare(&self) -> bool {
        let name = self.spares.lock().names.pop();
        name.is_some_and(|name| self.disk.remove(&name).is_ok())
    }

    /// Takes over the spare files of an earlier life; what is too many or has not a segment's size goes. So does what
    /// was not below the segment that is written on: where the files of a log were put back to an earlier state, it may
    /// hold entries of the very positions that come next.
    pub(crate) fn adopt_spares(&self, current_start: u64) -> io::Result<()> {
        for name in self.disk.names()? {
            let Some(start) = parse_spare_name(&name) else { continue };
            let below = start < current_start;
            #[cfg(test)]
            let below = below || crate::bugs::SPARE_FROM_AHEAD_USED.injected();
            let fits = below && self.disk.open(&name)?.size()? == self.segment_size;
            if fits && self.spares.has_room() {
                self.spares.add(name);
            } else {
                self.disk.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Makes the segment that starts at `start` of a spare file, if there is one that can be used.
    pub(crate) fn recycle(&self, start: u64) -> io::Result<Option<WriteSegment>> {
        let Some(spare) = self.spares.lock().names.pop() else { return Ok(None) };
        // All that takes descriptors and memory comes before the name changes.
        let made = self.give_new_header(&spare, start).and_then(|file| self.open_as(&spare, start, file, true));
        let segment = match made {
            Ok(segment) => segment,
            Err(error) if matches!(Shortage::of(&error), Some(Shortage::Descriptors | Shortage::Memory)) => {
                // The file is as good as before.
                self.spares.add(spare);
                return Err(error);
            }
            Err(error) if another_will_do(&error) => {
                // Nothing of the log was touched: the segment gets a new file.
                tracing::warn!(spare, %error, "a spare file of the commit log cannot be used again; it is deleted");
                self.disk.remove(&spare)?;
                return Ok(None);
            }
            // A disk that fails here fails in the next file, too, and must not be written on.
            Err(error) => return Err(error),
        };
        if let Err(error) = self.disk.rename(&spare, &segment.name) {
            if Shortage::of(&error).is_some() {
                self.spares.add(spare);
            }
            return Err(error);
        }
        if let Err(error) = self.disk.sync_directory() {
            // Best effort: recovery knows such a leftover too.
            let _ = self.disk.remove(&segment.name);
            return Err(error);
        }
        Ok(Some(segment))
    }

    /// The new header, durable. The file keeps its blocks, so the segment cannot run out of space.
    fn give_new_header(&self, spare: &str, start: u64) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(spare)?;
        if file.size()? != self.segment_size {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it has not the size of a segment"));
        }
        // A copy that somebody put back may have holes where payloads were zeros.
        file.reserve(0, self.segment_size)?;
        let header = SegmentHeader { recycled: true, ..self.header(start) };
        file.write_at(0, &mut [IoSlice::new(&header.encode())])?;
        #[cfg(test)]
        if crate::bugs::RECYCLED_BEFORE_SYNC.injected() {
            return Ok(file);
        }
        file.sync()?;
        Ok(file)
    }
}

/// Whether another file will do where this one did not.
fn another_will_do(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound)
        || Shortage::of(error) == Some(Shortage::Space)
}
