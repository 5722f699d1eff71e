//! A log at work on the virtual disk, with its threads, and what it said while it worked.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::disk::RealDisk;
use crate::group_commit::Durable;
use crate::log::open_on;
use crate::simulated::Rng;
use crate::{
    AppendError, Appender, Entry, EntryHeader, EntryKind, LogConfig, LogPosition, LogReader, OpenError, PoisonReport,
};

/// Small, so that a run rolls over many of them; the public bounds keep files in practice from being so small.
const SEGMENT: u64 = 128 << 10;
/// Longest wait for anything that must come.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Most entries that are written and not yet durable.
const MOST_WAITING: u64 = 12;

pub(super) fn config(folder: &Path) -> LogConfig {
    LogConfig {
        segment_size: SEGMENT,
        zero_ahead: SEGMENT / 2,
        shard: 3,
        syncs_in_flight: 3,
        ..LogConfig::new(folder, *b"cluster-of-tests", 3)
    }
}

/// Why the work does not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    /// The log said so.
    #[error(transparent)]
    Refused(#[from] AppendError),
    /// It neither makes entries durable nor says that it cannot.
    #[error("the log says nothing about what becomes of its entries")]
    Silent,
}

/// An entry, and where the write log ended before it was given to the log: no request before can hold it.
pub(super) struct Submitted {
    pub(super) entry: Entry,
    pub(super) written_at: u64,
}

/// What the log said, or was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Everything before this position is durable.
    Durable(u64),
    /// The caller is about to ask it to release what lies before this position.
    ReleaseAsked(u64),
    /// It begins here now.
    Released(u64),
}

/// All that must be known to judge what is found after a power cut. Times are lengths of the write log: when something
/// was said at length `l`, every request that was done by then begins before `l`. So whatever was said at `l` binds
/// every cut that takes in all requests that begin before `l`, and only those.
#[derive(Default)]
pub(super) struct History {
    pub(super) entries: Vec<Submitted>,
    pub(super) said: Vec<(u64, Said)>,
    pub(super) poisoned: Vec<PoisonReport>,
    pub(super) durable_after_poison: usize,
}

impl History {
    /// Highest of what was said by the time the write log had this length.
    pub(super) fn highest(&self, length: u64, of: impl Fn(Said) -> Option<u64>) -> u64 {
        self.said.iter().filter(|(at, _)| *at <= length).filter_map(|(_, said)| of(*said)).max().unwrap_or(0)
    }

    pub(super) fn durable(&self, length: u64) -> u64 {
        self.highest(length, |said| if let Said::Durable(to) = said { Some(to) } else { None })
    }

    /// Released up to here for certain, and up to here at most.
    pub(super) fn released(&self, length: u64) -> (u64, u64) {
        let certain = self.highest(length, |said| if let Said::Released(start) = said { Some(start) } else { None });
        let asked = self.highest(length, |said| if let Said::ReleaseAsked(at) = said { Some(at) } else { None });
        (certain, asked)
    }
}

/// The same entry without a hold on the mapping, which would keep the file system mounted.
pub(super) fn copied(entry: Entry) -> Entry {
    Entry { payload: entry.payload.to_vec().into(), ..entry }
}

/// Notes what is said, with the length of the write log.
#[derive(Clone)]
struct Recorder {
    write_log: PathBuf,
    history: Arc<Mutex<History>>,
}

impl Recorder {
    fn now(&self) -> u64 {
        fs::metadata(&self.write_log).unwrap().len()
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap()
    }

    fn say(&self, said: Said) {
        // The length is taken when the thing has been said: never earlier than the flush that allowed it.
        let now = self.now();
        self.history().said.push((now, said));
    }

    fn heard(&self, news: Durable, send: &Sender<Durable>) {
        match &news {
            Durable::Up { to } => {
                self.say(Said::Durable(to.0));
                let mut history = self.history();
                history.durable_after_poison += usize::from(!history.poisoned.is_empty());
            }
            Durable::Poisoned(report) => self.history().poisoned.push(report.clone()),
        }
        let _ = send.send(news);
    }
}

/// A log that is open, with its threads.
pub(super) struct Run {
    pub(super) appender: Appender,
    reader: LogReader,
    recorder: Recorder,
    news: Receiver<Durable>,
    rng: Rng,
    /// Ends of entries that are not known durable.
    waiting: Vec<LogPosition>,
}

impl Run {
    /// Opens a log. `before` is what is already known of it: it binds cuts during the recovery, too.
    pub(super) fn open(folder: &Path, write_log: PathBuf, before: History, rng: Rng) -> Result<Self, OpenError> {
        let recorder = Recorder { write_log, history: Arc::new(Mutex::new(before)) };
        let (send, news) = channel();
        let hears = recorder.clone();
        let on_durable = Box::new(move |news| hears.heard(news, &send));
        let disk = Arc::new(RealDisk::open(folder).expect("the folder is made"));
        let mut entries = Vec::new();
        let (mut appender, reader, recovery) = open_on(disk, &config(folder), on_durable, &mut |entry| {
            entries.push(Submitted { entry: copied(entry), written_at: 0 });
            Ok(())
        })?;
        recorder.say(Said::Durable(recovery.end.0));
        recorder.history().entries = entries;
        appender.start(config(folder).syncs_in_flight).unwrap();
        Ok(Self { appender, reader, recorder, news, rng, waiting: Vec::new() })
    }

    /// The next entry: a function of its index, so that nothing but the index says which it must be.
    pub(super) fn append(&mut self, kind: EntryKind, len: usize) -> Result<(), AppendError> {
        let index = self.recorder.history().entries.last().map_or(1, |last| last.entry.index + 1);
        let payload: Vec<u8> = (0..len as u64).map(|at| (index * 37 + at * 11 + at / 256) as u8 | 1).collect();
        let header = EntryHeader { term: 1 + index / 50, index, leader_time_ms: 1_000_000 + index, kind };
        let written_at = self.recorder.now();
        let (one, two) = payload.split_at(len / 3);
        let appended = self.appender.append(header, &[one, two])?;
        let entry = Entry {
            position: appended.position,
            payload_position: appended.payload_position,
            end: appended.end,
            term: header.term,
            index,
            leader_time_ms: header.leader_time_ms,
            kind,
            payload: payload.into(),
        };
        self.recorder.history().entries.push(Submitted { entry, written_at });
        self.waiting.push(appended.end);
        Ok(())
    }

    /// Works until so many entries are written: groups of all sizes, marks, syncs of the writer's own, releases, and
    /// reads through the mapping.
    pub(super) fn work(&mut self, entries: usize) -> Result<(), Stopped> {
        for _ in 0..entries {
            let len = match self.rng.below(16) {
                0 => self.rng.below(30_000),
                1 => 0,
                2..=4 => self.rng.below(6_000),
                _ => self.rng.below(600),
            };
            self.append(EntryKind::Records, len as usize)?;
            match self.rng.below(40) {
                0 => self.append(EntryKind::Mark, 0)?,
                1 | 2 => drop(self.appender.sync_here()?),
                3 => self.release()?,
                4 => self.read(),
                _ => {}
            }
            let most = self.rng.below(MOST_WAITING);
            self.wait_until(most as usize)?;
        }
        Ok(())
    }

    /// Waits until no more than so many entries are not durable.
    pub(super) fn wait_until(&mut self, most: usize) -> Result<(), Stopped> {
        while self.waiting.len() > most {
            match self.news.recv_timeout(PATIENCE).map_err(|_| Stopped::Silent)? {
                Durable::Up { to } => self.waiting.retain(|end| *end > to),
                Durable::Poisoned(report) => return Err(AppendError::from(report).into()),
            }
        }
        match self.appender.poisoned() {
            Some(report) => Err(AppendError::from(report.clone()).into()),
            None => Ok(()),
        }
    }

    pub(super) fn release(&mut self) -> Result<(), Stopped> {
        let before = self.appender.durable();
        self.recorder.say(Said::ReleaseAsked(before.0));
        match self.appender.housekeeping().release_before(before) {
            Ok(released) => {
                self.recorder.say(Said::Released(released.start.0));
                Ok(())
            }
            Err(_) => {
                // The disk has failed: what the log says from now on is that it is poisoned, as soon as it notices.
                self.wait_until(0)
            }
        }
    }

    fn read(&self) {
        let history = self.recorder.history();
        let start = self.reader.start();
        let written = history.entries.iter().map(|submitted| &submitted.entry).filter(|entry| entry.position >= start);
        let read = self.reader.entries_from(start).map(Result::unwrap);
        assert!(read.eq(written.cloned()), "what is read through the mapping is not what was written");
    }

    /// Ends the log where it stands, without another sync, and gives what is known of it.
    pub(super) fn abandon(self) -> History {
        let Self { appender, recorder, .. } = self;
        drop(appender);
        std::mem::take(&mut *recorder.history())
    }
}
