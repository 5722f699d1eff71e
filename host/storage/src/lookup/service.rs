//! The lookup index of a running node.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use vouch_commitlog::LogReader;
use vouch_files::create_dir_all;

use super::builder::{Builder, EXTENSION, LookupSources};
use super::file::LookupFile;
use super::shared::{Ready, SharedLookups};
use super::work::LookupWork;
use super::{LookupFault, LookupReport};
use crate::error::{StartError, failed};
use crate::layout::ShardFolder;
use crate::snapshots::Snapshots;

/// The lookup index of a shard.
pub struct Lookups {
    shared: Arc<SharedLookups>,
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
        let place = LookupSources { folder: folder.clone(), log, segment_size, load_part };
        match kept {
            true => Self::start(place, parts).map_err(failed("prepare", &folder)),
            false => Ok(Self::as_they_are(place, parts)),
        }
    }

    /// Starts with these parts and their checksums. Files are opened and made by a thread of their own: a start waits for
    /// none of it.
    fn start(place: LookupSources, parts: Vec<(u64, u32)>) -> io::Result<Self> {
        create_dir_all(&place.folder)?;
        let folder = place.folder.clone();
        let shared = Arc::new(SharedLookups::new(LookupWork::new(parts)));
        let builder = Builder { shared: shared.clone(), place };
        let thread = std::thread::Builder::new().name("vouch-lookup".to_owned()).spawn(move || builder.run())?;
        Ok(Self { shared, folder, thread: Mutex::new(Some(thread)) })
    }

    /// Uses the files of these parts that can be used as they are. None is made, none is removed.
    fn as_they_are(place: LookupSources, parts: Vec<(u64, u32)>) -> Self {
        let folder = place.folder.clone();
        let ids: Vec<u64> = parts.iter().map(|(part, _)| *part).collect();
        let shared = Arc::new(SharedLookups::new(LookupWork::new(parts)));
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
    pub fn give_up(&self, file: &Arc<LookupFile>, fault: &LookupFault) {
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
