//! The files of a running node, and the thread that makes them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vouch_broker::state::PartView;
use vouch_commitlog::{LogPosition, LogReader};

use super::build::{BuildError, Source, build};
use super::file::LookupFile;
use super::work::{Standing, Task, Work};
use super::{Fault, LookupReport};
use vouch_files::create_dir_all;

use crate::error::{StartError, failed};
use crate::layout::ShardFolder;
use crate::snapshots::Snapshots;

/// How far the thread stands back behind the rest of the process (`nice`).
const NICE: i32 = 15;
/// What could not be made is tried again after this long, or when the next part is sealed.
const RETRY_AFTER: Duration = Duration::from_secs(60);

const EXTENSION: &str = "lookup";
const UNFINISHED: &str = "unfinished";

/// Loads a part by its id.
type LoadPart = Box<dyn Fn(u64) -> io::Result<Bytes> + Send>;

/// What the files are made of, and where they lie.
pub(super) struct Place {
    /// The folder of the files; made if it is missing.
    pub(super) folder: PathBuf,
    pub(super) log: LogReader,
    /// Bytes of a segment of the log.
    pub(super) segment_size: u64,
    pub(super) load_part: LoadPart,
}

impl Place {
    fn path(&self, part: u64) -> PathBuf {
        self.folder.join(format!("{part:020}.{EXTENSION}"))
    }
}

type Ready = Arc<Vec<Arc<LookupFile>>>;

struct Shared {
    work: Mutex<Work>,
    changed: Condvar,
    stopping: AtomicBool,
    /// The files that are used, ascending by part. Changed only by who holds `work`.
    ready: RwLock<Ready>,
    report: LookupReport,
}

impl Shared {
    fn new(work: Work) -> Self {
        let report = LookupReport::default();
        report.missing.store(work.missing(), Ordering::Relaxed);
        let (work, changed, stopping) = (Mutex::new(work), Condvar::new(), AtomicBool::new(false));
        Self { work, changed, stopping, ready: RwLock::default(), report }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self) -> Ready {
        self.ready.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn change(&self, work: &Work, change: impl FnOnce(&mut Vec<Arc<LookupFile>>)) {
        let mut files = (*self.ready()).clone();
        change(&mut files);
        self.report.files.store(files.len() as u64, Ordering::Relaxed);
        self.report.bytes.store(files.iter().map(|file| file.len()).sum(), Ordering::Relaxed);
        self.report.missing.store(work.missing(), Ordering::Relaxed);
        *self.ready.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(files);
    }

    /// Uses a file from now on, if its part is still there.
    fn put(&self, file: LookupFile) {
        let mut work = self.work();
        if work.set(file.part(), Standing::Ready) {
            self.change(&work, |files| {
                let at = files.partition_point(|before| before.part() < file.part());
                files.insert(at, Arc::new(file));
            });
        }
    }

    fn set(&self, part: u64, standing: Standing) {
        let mut work = self.work();
        work.set(part, standing);
        self.change(&work, |_| ());
    }

    /// Waits for something to do; `None` when the node stops.
    fn next(&self) -> Option<Task> {
        let mut work = self.work();
        loop {
            if self.is_stopping() {
                return None;
            }
            if let Some(task) = work.next() {
                return Some(task);
            }
            if work.has_failed() {
                let waited = self.changed.wait_timeout(work, RETRY_AFTER).unwrap_or_else(PoisonError::into_inner);
                work = waited.0;
                if waited.1.timed_out() {
                    work.retry();
                }
            } else {
                work = self.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// The lookup index of a shard.
pub struct Lookups {
    shared: Arc<Shared>,
    folder: PathBuf,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Lookups {
    /// Starts the index of a shard, over the parts that its state reads from, with their checksums. Where the log is `kept`
    /// files that are missing are made; otherwise what is there is used as it is.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn of_shard(
        shard: &ShardFolder,
        log: LogReader,
        segment_size: u64,
        parts: Vec<(u64, u32)>,
        kept: bool,
    ) -> Result<Self, StartError> {
        let (folder, snapshots) = (shard.lookup(), Snapshots::of_folder(shard.snapshots()));
        let load_part = Box::new(move |part| snapshots.whole_part(part));
        let place = Place { folder: folder.clone(), log, segment_size, load_part };
        match kept {
            true => Self::start(place, parts).map_err(failed("prepare", &folder)),
            false => Ok(Self::as_they_are(place, parts)),
        }
    }

    /// Starts with these parts and their checksums. Files are opened and made by a thread of their own: a start waits for
    /// none of it.
    fn start(place: Place, parts: Vec<(u64, u32)>) -> io::Result<Self> {
        create_dir_all(&place.folder)?;
        let folder = place.folder.clone();
        let shared = Arc::new(Shared::new(Work::new(parts)));
        let builder = Builder { shared: shared.clone(), place };
        let thread = std::thread::Builder::new().name("vouch-lookup".to_owned()).spawn(move || builder.run())?;
        Ok(Self { shared, folder, thread: Mutex::new(Some(thread)) })
    }

    /// Uses the files of these parts that can be used as they are. None is made, none is removed.
    fn as_they_are(place: Place, parts: Vec<(u64, u32)>) -> Self {
        let folder = place.folder.clone();
        let ids: Vec<u64> = parts.iter().map(|(part, _)| *part).collect();
        let shared = Arc::new(Shared::new(Work::new(parts)));
        let builder = Builder { shared: shared.clone(), place };
        for part in ids {
            match builder.opened(part) {
                Ok(file) => shared.put(file),
                Err(fault) => {
                    tracing::info!(%fault, part, "a lookup file is not used; searches look through its messages");
                }
            }
        }
        Self { shared, folder, thread: Mutex::new(None) }
    }

    /// How it stands.
    pub fn report(&self) -> &LookupReport {
        &self.shared.report
    }

    /// Says which parts there are, when one was sealed.
    pub fn announcer(&self) -> impl Fn(&[u64]) + Send + 'static {
        let shared = self.shared.clone();
        move |parts| {
            let mut work = shared.work();
            work.sealed(parts);
            shared.change(&work, |files| files.retain(|file| parts.contains(&file.part())));
            shared.changed.notify_one();
        }
    }

    /// The files that can be used now, ascending by part.
    pub fn ready(&self) -> Ready {
        self.shared.ready()
    }

    /// A file cannot be used: it is made again.
    pub fn give_up(&self, file: &Arc<LookupFile>, fault: &Fault) {
        let shared = &self.shared;
        let mut work = shared.work();
        if !shared.ready().iter().any(|ready| Arc::ptr_eq(ready, file)) {
            return;
        }
        let made_again = self.thread.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        tracing::error!(%fault, part = file.part(), made_again, "a lookup file is damaged; look after the disk");
        LookupReport::add(&shared.report.damaged);
        work.damaged(file.part());
        shared.change(&work, |files| files.retain(|ready| !Arc::ptr_eq(ready, file)));
        if !made_again {
            return;
        }
        // While the work is held: the thread cannot have made the next one already.
        if let Err(error) = fs::remove_file(self.folder.join(format!("{:020}.{EXTENSION}", file.part()))) {
            tracing::warn!(%error, part = file.part(), "a damaged lookup file cannot be removed");
        }
        shared.changed.notify_one();
    }

    /// Ends the thread; what it is making is left and made again after the next start.
    pub fn stop(&self) {
        // Held to the end: whoever stops it meanwhile must not let go of the folder while it still writes.
        let mut running = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = running.take() else { return };
        self.shared.stopping.store(true, Ordering::Relaxed);
        // Held once, so that the thread is not just between looking and waiting.
        drop(self.shared.work());
        self.shared.changed.notify_one();
        if thread.join().is_err() {
            tracing::error!("the thread that makes the lookup index ended by a panic; it is made after the next start");
        }
    }
}

/// The thread.
struct Builder {
    shared: Arc<Shared>,
    place: Place,
}

impl Builder {
    fn run(self) {
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
                self.shared.set(id, Standing::Missing);
            }
        }
    }

    fn opened(&self, id: u64) -> Result<LookupFile, Fault> {
        let file = LookupFile::open(&self.place.path(id), id)?;
        let known = self.shared.work().get(id).and_then(|part| part.checksum);
        let checksum = known.or_else(|| self.part(id).ok().map(|part| part.checksum()));
        let checkpoint = file.checkpoint();
        let of_this_log = self.place.log.checkpoint_at(checkpoint.position).is_ok_and(|found| found == checkpoint);
        let belongs = checksum.is_some_and(|checksum| file.is_of(checksum)) && of_this_log;
        if belongs { Ok(file) } else { Err(Fault::Other) }
    }

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
                    self.shared.set(id, Standing::Failed);
                }
            }
        }
    }

    fn built(&self, id: u64) -> Result<LookupFile, BuildError> {
        let part = self.part(id)?;
        // A segment begins with an entry, and so does what follows a part.
        let segment = (id - 1) - (id - 1) % self.place.segment_size;
        let near = LogPosition(self.shared.work().before(id).unwrap_or(0).max(segment));
        let stopping = || self.shared.is_stopping();
        let source = Source { id, part: &part, log: &self.place.log, near, stopping: &stopping };
        let path = self.place.path(id);
        build(&path, &path.with_extension(UNFINISHED), &source)?;
        LookupFile::open(&path, id).map_err(|fault| BuildError::Io(io::Error::other(fault)))
    }

    /// Nobody looks for what the log has released.
    fn release(&self, id: u64) {
        remove(&self.place.path(id));
        self.shared.set(id, Standing::Released);
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
