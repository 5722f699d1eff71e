//! The thread that opens the files that are there, and makes those that are missing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use vouch_broker::state::PartView;
use vouch_commitlog::{LogPosition, LogReader};

use super::build::{BuildError, PartSource, build};
use super::file::LookupFile;
use super::shared::SharedLookups;
use super::work::{FileStanding, Task};
use super::{LookupFault, LookupReport};

/// How far the thread stands back behind the rest of the process (`nice`).
const NICE: i32 = 15;

pub(super) const EXTENSION: &str = "lookup";
const UNFINISHED: &str = "unfinished";

/// Loads a part by its id.
pub(super) type LoadPart = Box<dyn Fn(u64) -> io::Result<Bytes> + Send>;

/// What the files are made of, and where they lie.
pub(super) struct LookupSources {
    /// The folder of the files; made if it is missing.
    pub(super) folder: PathBuf,
    pub(super) log: LogReader,
    /// Bytes of a segment of the log.
    pub(super) segment_size: u64,
    pub(super) load_part: LoadPart,
}

impl LookupSources {
    /// Where the file of a part lies, whether it is there or not.
    pub(super) fn path(&self, part: u64) -> PathBuf {
        self.folder.join(format!("{part:020}.{EXTENSION}"))
    }
}

/// The thread.
pub(super) struct Builder {
    pub(super) shared: Arc<SharedLookups>,
    pub(super) place: LookupSources,
}

impl Builder {
    /// Works until the node stops. An error of one file is told, and the next one is made: searches go on without it.
    pub(super) fn run(self) {
        if let Err(error) = rustix::process::nice(NICE) {
            tracing::warn!(%error, "the lookup index is made at normal priority");
        }
        while let Some(task) = self.shared.next() {
            match task {
                Task::Tidy => {
                    if let Err(error) = self.tidy() {
                        tracing::warn!(%error, "old files of the lookup index cannot be removed");
                    }
                }
                Task::Open(part) => self.open(part),
                Task::Build(part) => self.build(part),
            }
        }
    }

    /// Removes what a crash left unfinished, and files whose parts are gone.
    fn tidy(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.place.folder)? {
            let path = entry?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            let part = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
            let gone = match (extension, part) {
                (Some(EXTENSION), Some(part)) => self.shared.work().get(part).is_none(),
                (Some(UNFINISHED), Some(_)) => true,
                // Somebody else's.
                _ => false,
            };
            if gone {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// A part by its id, from a copy that is whole if there is one.
    fn part(&self, id: u64) -> Result<PartView, BuildError> {
        let bytes = (self.place.load_part)(id)?;
        Ok(PartView::open(id, bytes)?)
    }

    /// Uses the file that is there, if it belongs to this part and this log.
    fn open(&self, id: u64) {
        if id <= self.place.log.start().0 {
            return self.release(id);
        }
        match self.opened(id) {
            Ok(file) => self.shared.put(file),
            Err(fault) => {
                if !fault.is_missing() {
                    tracing::warn!(%fault, part = id, "a lookup file cannot be used and is made again");
                    LookupReport::add(&self.shared.report.damaged);
                }
                self.shared.set(id, FileStanding::Missing);
            }
        }
    }

    /// The file that is there, if it was made from this part and from this history of the log. The checksum of the last
    /// entry covers all before it, so the comparison of one entry is enough.
    pub(super) fn opened(&self, id: u64) -> Result<LookupFile, LookupFault> {
        let file = LookupFile::open(&self.place.path(id), id)?;
        let known = self.shared.work().get(id).and_then(|part| part.checksum);
        let checksum = known.or_else(|| self.part(id).ok().map(|part| part.checksum()));
        let checkpoint = file.checkpoint();
        let of_this_log = self.place.log.checkpoint_at(checkpoint.position).is_ok_and(|found| found == checkpoint);
        let belongs = checksum.is_some_and(|checksum| file.is_of(checksum)) && of_this_log;
        if belongs { Ok(file) } else { Err(LookupFault::Other) }
    }

    /// Makes a file and uses it from then on. What the node stopped in the middle is made after the next start.
    fn build(&self, id: u64) {
        if id <= self.place.log.start().0 {
            return self.release(id);
        }
        let began = Instant::now();
        match self.built(id) {
            Ok(file) => {
                let took_ms = began.elapsed().as_millis() as u64;
                tracing::info!(part = id, bytes = file.len(), took_ms, "made a lookup file");
                LookupReport::add(&self.shared.report.builds);
                self.shared.put(file);
            }
            Err(BuildError::Stopping) => {}
            Err(error) => {
                let gone = self.shared.work().get(id).is_none();
                if !gone {
                    tracing::warn!(%error, part = id, "no lookup file was made; searches look through its messages");
                    self.shared.set(id, FileStanding::Failed);
                }
            }
        }
    }

    /// Makes a file, and opens it again as a start would.
    fn built(&self, id: u64) -> Result<LookupFile, BuildError> {
        let part = self.part(id)?;
        // A segment begins with an entry, and so does what follows a part.
        let segment = (id - 1) - (id - 1) % self.place.segment_size;
        let near = LogPosition(self.shared.work().before(id).unwrap_or(0).max(segment));
        let stopping = || self.shared.is_stopping();
        let source = PartSource { id, part: &part, log: &self.place.log, near, stopping: &stopping };
        let path = self.place.path(id);
        build(&path, &path.with_extension(UNFINISHED), &source)?;
        LookupFile::open(&path, id).map_err(|fault| BuildError::Io(io::Error::other(fault)))
    }

    /// Nobody looks for what the log has released.
    fn release(&self, id: u64) {
        remove(&self.place.path(id));
        self.shared.set(id, FileStanding::Released);
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "a lookup file cannot be removed");
        }
        _ => {}
    }
}
