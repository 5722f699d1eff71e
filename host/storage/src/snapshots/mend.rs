//! Looking at both copies of a file on the medium itself, and making again the one that is damaged or missing.

use std::io;
use std::path::PathBuf;

use vouch_broker::state::check_part;
use vouch_commitlog::UncachedFile;

use super::copies::check;
use super::fault::CopyFault;
use super::store::{Rooms, Which};
use super::stored::StoredFile;
use super::{SnapshotFailure, Snapshots};

/// Bytes of a snapshot that are read at once.
const STEP: usize = 256 << 10;

/// What became of a look at both copies.
#[derive(Debug)]
pub(crate) enum Mended {
    /// Both are whole.
    Whole,
    /// These were not, for these reasons, and are again.
    Again(Vec<(PathBuf, CopyFault)>),
    /// Neither can be used, for these reasons.
    Lost([(PathBuf, CopyFault); 2]),
    /// Nothing needs the file any more.
    Gone,
    /// It was given up: the node stops.
    Stopped,
}

/// Hears how many bytes were read, and says whether to go on.
pub(crate) type Pace<'a> = &'a mut dyn FnMut(u64) -> bool;

impl Snapshots {
    /// Reads both copies of a file that was written just now, from the medium.
    ///
    /// # Errors
    /// One of them is not what was written.
    pub(super) fn verify(&self, stored: StoredFile) -> Result<(), (PathBuf, CopyFault)> {
        for which in Which::BOTH {
            self.look(stored, which, &mut |_| true).map_err(|fault| (self.copy_path(stored, which), fault))?;
        }
        self.making().verified.insert(stored);
        Ok(())
    }

    /// Reads both copies, from the medium, and makes again what is damaged or missing.
    ///
    /// # Errors
    /// A copy cannot be written: the disk is full, or fails.
    pub(crate) fn mend(&self, stored: StoredFile, rooms: Rooms, pace: Pace<'_>) -> io::Result<Mended> {
        self.making().verified.remove(&stored);
        let mut faults = Vec::new();
        for which in Which::BOTH {
            match self.look(stored, which, pace) {
                Ok(()) => {}
                Err(CopyFault::Stopped) => return Ok(Mended::Stopped),
                Err(fault) => match fault.shortage() {
                    Ok(short) => return Err(short),
                    Err(fault) => faults.push((which, fault)),
                },
            }
        }
        if !faults.is_empty() && !self.stored()?.contains(&stored) {
            return Ok(Mended::Gone);
        }
        let content = match faults.first() {
            None => None,
            // What the medium has lost may be whole in memory still.
            Some((which, _)) => {
                let whole = self.whole(stored, which.other()).or_else(|_| self.whole(stored, *which)).ok();
                match whole {
                    Some(whole) => Some(whole),
                    None => self.merged(stored)?,
                }
            }
        };
        let named = |(which, fault)| (self.copy_path(stored, which), fault);
        match content {
            None if faults.is_empty() => {}
            None => {
                let mut faults: Vec<_> = faults.into_iter().map(named).collect();
                if let (Some(second), Some(first)) = (faults.pop(), faults.pop()) {
                    return Ok(Mended::Lost([first, second]));
                }
                // One was whole a moment ago, and is not as it is mapped: the next look finds out.
                return Err(io::Error::other("a copy changed while it was read"));
            }
            Some(content) => {
                let (kind, position) = stored.place();
                for (which, _) in &faults {
                    if !self.store.mend(kind, position, *which, &content, rooms)? {
                        return Ok(Mended::Gone);
                    }
                    // What was written is not yet what the medium gives back.
                    match self.look(stored, *which, pace) {
                        Ok(()) => {}
                        Err(CopyFault::Stopped) => return Ok(Mended::Stopped),
                        Err(CopyFault::Io(error)) => return Err(error),
                        Err(fault) => return Err(io::Error::other(fault)),
                    }
                }
            }
        }
        let mut making = self.making();
        making.suspects.remove(&stored);
        making.verified.insert(stored);
        drop(making);
        Ok(if faults.is_empty() { Mended::Whole } else { Mended::Again(faults.into_iter().map(named).collect()) })
    }

    /// Both copies as they are, and nothing is changed: why each cannot be used, if so.
    ///
    /// # Errors
    /// There is too little of something to look at a copy: it says nothing of it.
    pub(crate) fn faults(&self, stored: StoredFile, pace: Pace<'_>) -> io::Result<[(PathBuf, Option<CopyFault>); 2]> {
        let mut look = |which| match self.look(stored, which, pace).map_err(CopyFault::shortage) {
            Ok(()) => Ok((self.copy_path(stored, which), None)),
            Err(Err(fault)) => Ok((self.copy_path(stored, which), Some(fault))),
            Err(Ok(short)) => Err(short),
        };
        Ok([look(Which::First)?, look(Which::Second)?])
    }

    /// Reads a copy from the medium, once from its beginning to its end.
    fn look(&self, stored: StoredFile, which: Which, pace: Pace<'_>) -> Result<(), CopyFault> {
        let mut file = UncachedFile::open(&self.copy_path(stored, which))?;
        let len = file.size();
        let mut stopped = false;
        let mut read = |at: u64, into: &mut [u8]| {
            file.read_exact_at(at, into)?;
            stopped |= !pace(into.len() as u64);
            if stopped { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
        };
        let looked = match stored {
            StoredFile::Part(id, checksum) => check_part(id, checksum, len, &mut read).map_err(CopyFault::from),
            StoredFile::Snapshot(_) => {
                let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
                let mut pieces = (0..).step_by(STEP).zip(bytes.chunks_mut(STEP));
                let all = pieces.try_for_each(|(at, piece)| read(at, piece));
                all.map_err(CopyFault::from).and_then(|()| check(stored, &bytes))
            }
        };
        if stopped { Err(CopyFault::Stopped) } else { looked }
    }
}

/// What was written just now, and reads back as something else: the disk does not keep what it is given.
pub(super) fn unlike_written((path, why): (PathBuf, CopyFault)) -> SnapshotFailure {
    SnapshotFailure::Io { path, source: io::Error::other(why) }
}

/// Says what was found, if something was.
pub(crate) fn tell(mended: &Mended) {
    match mended {
        Mended::Whole | Mended::Gone | Mended::Stopped => {}
        Mended::Again(faults) => {
            for (file, why) in faults {
                let file = file.display();
                if why.is_missing() {
                    tracing::warn!(%file, "a copy was missing and is made again from the other one");
                } else {
                    tracing::error!(%file, %why, "a copy was damaged and is made again; look after the disk");
                }
            }
        }
        Mended::Lost(faults) => {
            for (file, why) in faults {
                tracing::error!(file = %file.display(), %why, "both copies are damaged; see `vouch log verify`");
            }
        }
    }
}
